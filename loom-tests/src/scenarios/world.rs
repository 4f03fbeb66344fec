//! What all threads of a run share, and how it ends.

use std::{
    collections::BTreeMap,
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use corepool::model::{
    BreakerChange, BreakerState, Engine, Group, GroupCounts, GroupLimits, GroupWaiter, Lease,
    NoDial, Outcome, Reservation, Seat, ShardId, Tick,
};

use super::{
    Deed, Plan,
    caller::Caller,
    driver::Driver,
    ledger::{Conn, Ledger},
    owner::Owner,
    rt::{JoinHandle, Rt},
};

/// The cause that failed dials name.
pub(super) type Cause = &'static str;
pub(super) type Leased = Lease<Conn, Cause>;
pub(super) type Waiting = Arc<GroupWaiter<Conn, Cause>>;
pub(super) type Dial = Reservation<Conn, Cause>;
pub(super) type Served = Outcome<Conn, Cause>;

/// A group, its seats by shard, and what was done to it.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) group: Arc<Group<Conn, Cause>>,
    pub(super) seats: Box<[Arc<Seat<Conn, Cause>>]>,
    pub(super) limits: GroupLimits,
    /// Evictions that were begun, and that are over.
    pub(super) evicting: AtomicU32,
    pub(super) evicted: AtomicU32,
}

/// What all threads of a run share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rt: Rt,
    pub(super) seed: u64,
    pub(super) engine: Engine<Conn, Cause>,
    pub(super) parties: Box<[Party]>,
    pub(super) ledger: Arc<Ledger>,
    clock: AtomicU32,
    over: AtomicBool,
}

/// What happened in a run, or in several.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Calls of the engine, without the looks that drivers take because time passes.
    pub operations: u64,
    /// Connections made, over all groups.
    pub opened: u64,
    /// Checkouts served from rest or by a return.
    pub reused: u64,
    /// Of these, from another shard.
    pub stolen: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Connections closed, by reason.
    pub closed: BTreeMap<&'static str, u64>,
    /// What else happened, by name.
    pub events: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(super) fn note(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    fn add_counts(&mut self, counts: &GroupCounts) {
        self.opened += counts.opened;
        self.reused += counts.reused;
        self.stolen += counts.stolen;
        self.dial_failures += counts.dial_failures;
        for (reason, count) in corepool::model::CloseReason::ALL.iter().zip(counts.closed) {
            if count > 0 {
                *self.closed.entry(reason.as_str()).or_default() += count;
            }
        }
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.opened += other.opened;
        self.reused += other.reused;
        self.stolen += other.stolen;
        self.dial_failures += other.dial_failures;
        for (sums, counts) in [(&mut self.closed, other.closed), (&mut self.events, other.events)] {
            for (name, count) in counts {
                *sums.entry(name).or_default() += count;
            }
        }
    }
}

/// Runs a scenario from a seed; under shuttle from one that the schedule brings.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(plan: &Plan, seed: u64) -> Report {
    let world = World::new(plan.clone(), seed);
    let shards = (0..plan.size.shards).map(ShardId);
    let drivers: Vec<_> = shards.map(|shard| spawn(&world, shard.0.into(), Driver::new)).collect();
    let first = drivers.len();
    let mut callers: Vec<_> =
        (0..plan.size.callers).map(|at| spawn(&world, first + at, Caller::new)).collect();
    if !plan.deeds.is_empty() {
        callers.push(spawn(&world, first + plan.size.callers, Owner::new));
    }
    let mut report = Report::default();
    for caller in callers {
        report += join(caller);
    }
    world.over.store(true, Ordering::Release);
    for shard in (0..plan.size.shards).map(ShardId) {
        world.engine.wake_driver(shard);
    }
    let mut drivers: Vec<Driver> = drivers.into_iter().map(join).collect();
    // What one driver did after another had left.
    drive(&mut drivers);
    if plan.deeds.contains(&Deed::Resize) || plan.deeds.contains(&Deed::ResizeTotals) {
        // A debt that returns were too fast for is the next look's.
        world.parties.iter().for_each(|party| world.engine.tend(&party.seats, world.now()));
        world.engine.tend_totals(world.now());
        drive(&mut drivers);
    }
    world.check_probes();
    drive(&mut drivers);
    world.check_at_rest();
    world.parties.iter().for_each(|party| world.engine.close(&party.group));
    drive(&mut drivers);
    world.check_closed(&mut report);
    check_breakers(&world, &drivers);
    for driver in drivers {
        report += driver.into_report();
    }
    world.engine.forget_starving();
    report
}

/// A part in a scenario.
pub(super) trait Part: Sized + Send + 'static {
    /// What is left of it.
    type Left: Send + 'static;

    /// Plays it.
    fn play(self) -> Self::Left;
}

fn spawn<P: Part>(
    world: &Arc<World>,
    number: usize,
    part: fn(Arc<World>, usize) -> P,
) -> JoinHandle<P::Left> {
    let part = part(Arc::clone(world), number);
    world.rt.spawn(move || part.play())
}

fn join<R>(thread: JoinHandle<R>) -> R {
    match thread.join() {
        Ok(left) => left,
        // It has told why.
        Err(failure) => std::panic::resume_unwind(failure),
    }
}

fn drive(drivers: &mut [Driver]) {
    while drivers.iter_mut().fold(false, |worked, driver| driver.turn() | worked) {}
}

impl World {
    fn new(plan: Plan, seed: u64) -> Arc<Self> {
        let rt = Rt::default();
        let shards = plan.size.shards;
        let exact = !plan.deeds.contains(&Deed::Resize);
        let most = plan.groups.iter().map(|limits| match exact {
            true => limits.max_live + limits.max_overflow,
            false => u32::MAX,
        });
        // Twice the slots: callers hold those that they took out, and those that are closed in
        // their stead are open still.
        let entries = 2 * plan.slots * usize::from(shards) + 64;
        let party = |limits: &GroupLimits| {
            let group = Arc::new(Group::new(ShardId(0), shards.into(), *limits));
            let seats = Group::seats(&group);
            let (evicting, evicted) = (AtomicU32::new(0), AtomicU32::new(0));
            Party { group, seats, limits: *limits, evicting, evicted }
        };
        Arc::new(Self {
            seed: rt.seed(seed),
            engine: Engine::with_totals(shards.into(), plan.slots, &plan.totals),
            parties: plan.groups.iter().map(party).collect(),
            ledger: Ledger::new(entries, most),
            clock: AtomicU32::new(0),
            over: AtomicBool::new(false),
            plan,
            rt,
        })
    }

    /// The time. Relaxed, as every number here that only the scenario reads.
    pub(super) fn now(&self) -> Tick {
        Tick::from_millis(self.clock.load(Ordering::Relaxed))
    }

    pub(super) fn let_time_pass(&self, millis: u32) {
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    /// Whether every caller has done what it had to.
    pub(super) fn is_over(&self) -> bool {
        // Acquire: pairs with the Release in `run`.
        self.over.load(Ordering::Acquire)
    }

    /// Which group a seat is of.
    pub(super) fn group_of(&self, seat: &Seat<Conn, Cause>) -> usize {
        let ours = |party: &Party| Arc::ptr_eq(&party.group, seat.group());
        self.parties.iter().position(ours).expect("every group of a run is in it")
    }

    /// INV-8: no dial is under way, so a breaker that is half-open has a place for a probe.
    fn check_probes(&self) {
        for party in &self.parties {
            if party.group.breaker_state(self.now()) != BreakerState::HalfOpen {
                continue;
            }
            match self.engine.dial_fresh(&party.seats[0], self.now()) {
                Ok(waiter) => self.engine.cancel(&waiter, &party.group),
                Err(NoDial::Open(_)) => panic!("INV-8: a probe's place never came back"),
                Err(_) => {}
            }
        }
    }

    /// Nothing is under way.
    fn check_at_rest(&self) {
        let totals = &self.plan.totals;
        for party in &self.parties {
            let counts = self.engine.counts(&party.group);
            let under_way = (counts.waiting, counts.dialing, counts.overflow);
            assert_eq!(under_way, (0, 0, 0), "INV-5: waiting, dialing, overflow in peace");
            assert_eq!(counts.live, counts.idle, "INV-2: live and idle in peace");
            let limits = &party.limits;
            assert!(counts.live <= limits.max_live, "INV-2: {} live", counts.live);
            assert!(counts.idle <= limits.max_idle, "INV-2: {} idle", counts.idle);
            let evictions = party.evicted.load(Ordering::Acquire);
            let mut resting = 0;
            self.engine.retain(&party.group, |tenant| {
                tenant.conn.check_at_rest(evictions);
                resting += 1;
                true
            });
            assert_eq!(resting, counts.idle, "INV-3: as many can be found as rest");
        }
        let idle: u32 =
            self.parties.iter().map(|party| self.engine.counts(&party.group).idle).sum();
        let total = (self.engine.total_live(), self.engine.total_idle());
        assert!(total.0.is_none_or(|live| live == idle), "INV-2: {total:?} in all, {idle} rest");
        assert!(total.1.is_none_or(|rest| rest == idle), "INV-2: {total:?} in all, {idle} rest");
        assert!(totals.max_live.is_none_or(|most| idle <= most), "INV-2: {idle} live in all");
        assert!(totals.max_idle.is_none_or(|most| idle <= most), "INV-2: {idle} idle in all");
        assert_eq!(self.ledger.open_now(), idle.into(), "INV-4: open, and not at rest");
    }

    /// Nothing is left.
    fn check_closed(&self, report: &mut Report) {
        for party in &self.parties {
            let counts = self.engine.counts(&party.group);
            let left = (counts.live, counts.idle, counts.dialing, counts.waiting);
            assert_eq!(left, (0, 0, 0, 0), "INV-2: live, idle, dialing, waiting after the close");
            let closed: u64 = counts.closed.iter().sum();
            assert_eq!(counts.opened, closed, "INV-9: opened and closed differ");
            report.add_counts(&counts);
        }
        for shard in (0..self.plan.size.shards).map(ShardId) {
            assert_eq!(self.engine.slots_in_use(shard), 0, "INV-9: slots in use");
        }
        let total = (self.engine.total_live(), self.engine.total_idle());
        assert_eq!((total.0.unwrap_or(0), total.1.unwrap_or(0)), (0, 0), "INV-2: in all");
        assert_eq!(self.ledger.open_now(), 0, "INV-4: never closed");
    }
}

/// INV-8: each change of a breaker is told once, and they make one walk from closed to where it
/// stands: every state is entered as often as left, but for the two ends of the walk.
fn check_breakers(world: &World, drivers: &[Driver]) {
    for (number, party) in world.parties.iter().enumerate() {
        let mut entered = BTreeMap::from([("closed", 1_i64)]);
        let changes = drivers.iter().flat_map(|driver| &driver.changes);
        for (_, BreakerChange { from, to, .. }) in changes.filter(|(of, _)| *of == number) {
            *entered.entry(to.as_str()).or_default() += 1;
            *entered.entry(from.as_str()).or_default() -= 1;
        }
        let ends = |count: &i64| *count != 0;
        let last: Vec<_> = entered.iter().filter(|(_, count)| ends(count)).collect();
        let state = party.group.breaker_state(world.now());
        assert!(matches!(last[..], [(_, 1)]), "INV-8: {entered:?} lead to {state:?}");
    }
}
