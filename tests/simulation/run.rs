//! One seed, from the first step to the last.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, Once, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use corepool::{
    CloseReason, Pool,
    sim::{self, Place, Simulation},
};
use tokio::time::sleep;

use crate::{
    account::Tally,
    callers::{Caller, accept, somewhere},
    executor::{Executor, Step},
    network::{Maker, Names, Net},
    observer::Watcher,
    operators::Operator,
    profile::Profile,
    random::Random,
    world::{Plant, World},
};

/// What came of a seed.
pub struct Outcome {
    /// Of the whole trace.
    pub hash: u64,
    pub steps: u64,
    pub tally: Tally,
    pub failure: Option<String>,
}

/// A seed that has not come to its end by then hangs.
const MOST_STEPS: u64 = 300_000;

/// The one that need not come to an end.
const WATCHDOG: &str = "watchdog";

thread_local! {
    /// On: note panics instead of printing them.
    static NOTING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics inside the pool's own tasks are caught there; none of them is planned, because those
/// that are go past the hook.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if NOTING.get() {
                PANIC.with_borrow_mut(|panic| _ = panic.get_or_insert(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

/// Runs a seed.
pub fn run(seed: u64, plant: Option<Plant>) -> Outcome {
    note_panics();
    NOTING.set(true);
    PANIC.take();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let mut random = Random::new(seed);
    let profile = Profile::draw(&mut random);
    let world = {
        let _inside = runtime.enter();
        World::new(profile, plant, random.fork())
    };
    let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(play(&world, seed, random))));
    // What a violation has left behind may break as it is dropped.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let left = world.with(|state| (state.pool.take(), std::mem::take(&mut state.groups)));
        drop(left);
        drop(runtime);
    }));
    NOTING.set(false);
    let panic = PANIC.take();
    world.with(|state| {
        let account = &mut state.account;
        if let Some(panic) = panic {
            account.violate(format!("a panic: {panic}"));
        }
        if ran.is_err() {
            account.violate("a panic without a message".to_owned());
        }
        let failure = account.violation.take().map(|violation| {
            format!(
                "seed {seed}, step {}: {violation}\n{:?}\nthe last steps:\n{}\n\
                 replay: COREPOOL_SIM_SEED={seed} cargo test --test simulation replay -- --nocapture",
                account.trace.step,
                world.profile,
                account.trace.last()
            )
        });
        Outcome {
            hash: account.trace.hash(),
            steps: account.trace.step,
            tally: std::mem::take(&mut account.tally),
            failure,
        }
    })
}

async fn play(world: &Arc<World>, seed: u64, mut random: Random) {
    let profile = &world.profile;
    let (script, peers) = sim::script_on(Arc::new(Net(Arc::clone(world))));
    let mut builder = Pool::builder(Maker(Arc::clone(world)))
        .settings(profile.settings.clone())
        .resolver(Names(Arc::clone(world)))
        .observer(Watcher(Arc::clone(world)))
        .after_connect(|conn, _| conn.welcome());
    if profile.has_hooks {
        builder = builder
            .before_reuse(|conn, _| conn.passes("before reuse"))
            .after_return(|conn, _| conn.passes("after return"));
    }
    if profile.collides {
        builder = builder.collide_hashes();
    }
    let built = builder.simulate(script.clone(), seed);
    let Simulation { pool, shards } = built.expect("settings within their ranges");
    world.with(|state| state.pool = Some(pool));
    (0..profile.groups).for_each(|group| world.renew(group));

    let mut executor = Executor::new();
    let spawner = executor.spawner.clone();
    // The shards are the first tasks: their numbers are those of the frost.
    let nowhere = || Rc::new(Cell::new(Place::Elsewhere(99)));
    for (id, shard) in shards.into_iter().enumerate() {
        spawner.spawn(format!("shard {id}"), nowhere(), shard);
    }
    world.callers.store(profile.callers, Ordering::Relaxed);
    world.operators.store(profile.operators, Ordering::Relaxed);
    let acceptor = accept(Arc::clone(world), peers, spawner.clone(), random.fork());
    spawner.spawn("acceptor", nowhere(), acceptor);
    for id in 0..profile.callers {
        let place = Rc::new(Cell::new(somewhere(&mut random, profile.shards)));
        let random = random.fork();
        let caller = Caller { id, world: Arc::clone(world), random, place: Rc::clone(&place) };
        spawner.spawn(format!("caller {id}"), place, caller.run());
    }
    for id in 0..profile.operators {
        let (script, frost) = (script.clone(), Rc::clone(&executor.frost));
        let operator = Operator { world: Arc::clone(world), random: random.fork(), script, frost };
        spawner.spawn(format!("operator {id}"), nowhere(), operator.run());
    }
    spawner.spawn("director", nowhere(), direct(Arc::clone(world)));
    spawner.spawn(WATCHDOG, nowhere(), watch(Arc::clone(world)));
    if world.plant == Some(Plant::LostWakeUp) {
        executor.lose_wake_up(0, random.between(5, 60) as u32);
    }
    drop(script);
    schedule(world, &mut executor, &mut random).await;
    if world.with(|state| state.account.violation.is_none()) {
        let left: Vec<&str> = executor.left().filter(|name| *name != WATCHDOG).collect();
        if !left.is_empty() {
            world.violate(format!("INV-9: {left:?} have not come to their end"));
        }
    }
}

/// One step after the other, until nobody is left or something is wrong.
async fn schedule(world: &World, executor: &mut Executor, random: &mut Random) {
    std::future::poll_fn(|cx| {
        executor.take_in();
        if executor.left().all(|name| name == WATCHDOG) {
            return Poll::Ready(());
        }
        let pool = world.with(|state| state.pool.clone());
        let enter = |_: &str, place: Place| {
            if let Some(pool) = &pool {
                sim::enter(pool, place);
            }
        };
        match executor.step(cx.waker(), random, enter) {
            Step::Polled(task, over) => {
                let step = world.with(|state| {
                    state.account.trace.step += 1;
                    state.account.trace.step
                });
                let name = executor.name(task);
                world.trace(format_args!("{task} {name}{}", if over { ", its end" } else { "" }));
                world.check();
                if step > MOST_STEPS {
                    world.violate("it goes on and on".to_owned());
                }
            }
            Step::Idle { frozen } => {
                if frozen == 0 && executor.frost.borrow().is_empty() {
                    world.check_rest();
                }
                if world.with(|state| state.account.violation.is_some()) {
                    return Poll::Ready(());
                }
                return Poll::Pending;
            }
        }
        if let Some(panic) = PANIC.take() {
            world.violate(format!("a panic: {panic}"));
        }
        if world.with(|state| state.account.violation.is_some()) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for the callers and the operators, closes the pool and looks at what is left.
async fn direct(world: Arc<World>) {
    while world.callers.load(Ordering::Relaxed) + world.operators.load(Ordering::Relaxed) > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    // Some have the pool close around them, others find it at rest.
    let pool = world.pool();
    world.trace(format_args!("the pool closes"));
    let report = pool.close_within(Duration::from_secs(60)).await;
    let slots = world.slots();
    if report.left > 0 {
        world.violate(format!("INV-9: {} are left after the close: {slots:?}", report.left));
    }
    let groups = world.with(|state| state.groups.clone());
    let (mut detached, mut told) = (0, (0, 0));
    for (which, group) in &groups {
        let (audit, stats) = (group.audit(), group.stats());
        detached += stats.closed_for(CloseReason::Detached);
        told = (told.0 + stats.opened, told.1 + stats.closed_total());
        let counts = (audit.opened, audit.pooled, audit.overflow, audit.idle);
        if counts != (audit.ended, 0, 0, 0) || audit.waiting + audit.dialing > 0 {
            world.violate(format!("INV-9: endpoint {which} after the close: {audit:?}"));
        }
        if (stats.opened, stats.closed_total()) != (audit.opened, audit.ended) {
            world.violate(format!("INV-9: the statistics of {which}: {stats:?}"));
        }
    }
    world.with(|state| {
        let account = &mut state.account;
        let made = account.records.values().filter(|it| it.made);
        let open: Vec<u64> = account
            .records
            .iter()
            .filter(|(_, it)| it.made && it.closed != 1)
            .map(|(id, _)| *id)
            .collect();
        let given = made.filter(|it| it.detached).count() as u64;
        account.require(open.is_empty(), || format!("INV-4: {open:?} are open after the close"));
        let heard = (account.opened, account.ended);
        account.require(heard == told, || {
            format!("INV-9: the observer heard of {heard:?}, and {told:?} were")
        });
        account.require(given == detached, || {
            format!("INV-9: {detached} of {given} detached connections are counted")
        });
    });
    // The last handles: the shards end.
    drop((pool, groups));
    let handles = world.with(|state| (state.pool.take(), std::mem::take(&mut state.groups)));
    drop(handles);
    world.over.store(true, Ordering::Relaxed);
}

/// Keeps the clock going, which stands still for good when nobody waits for it, and gives up on a
/// seed that hangs.
async fn watch(world: Arc<World>) {
    let minutes = 60;
    for _ in 0..minutes {
        sleep(Duration::from_secs(60)).await;
        let jumped = world.with(|state| state.jumped);
        if Duration::from_millis(world.now_ms() as u64) > jumped + Duration::from_secs(60 * minutes)
        {
            break;
        }
    }
    world.violate("it hangs".to_owned());
}
