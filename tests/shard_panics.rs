//! A shard's worker that panics, on real sockets and both drivers.
//!
//! The panic is a real one: a `tracing` subscriber's, inside a log line of the worker. A process of
//! its own, because the subscriber is the process's; one scenario at a time, because its descriptors
//! are counted.
#![cfg(target_os = "linux")]

mod support;

use std::{
    cell::Cell,
    fmt, fs,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, Once, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use corepool::{
    Backend, BoxError, CheckoutError, CloseReason, Connector, DialErrorKind, Endpoint, Pool,
    PoolEvent, Socket, Tcp, TcpConnector,
};
use support::{Echo, builder, close_after_panics, close_and_check, eventually, tuned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

thread_local! {
    /// Whether the next log line of this thread panics.
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

/// A subscriber with a bug.
struct Faulty;

impl Subscriber for Faulty {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if ARMED.take() {
            // Without the panic hook's report.
            resume_unwind(Box::new("a subscriber's bug, on purpose"));
        }
        event.record(&mut Reader);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Asks every value for its text, as a subscriber that writes a log does.
struct Reader;

impl Visit for Reader {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        let _ = format!("{value:?}");
    }
}

/// An error whose text is a bug of its author's.
#[derive(Debug)]
struct Untold;

impl fmt::Display for Untold {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        resume_unwind(Box::new("an error's text, on purpose"));
    }
}

impl std::error::Error for Untold {}

/// Connects where the endpoint has no tag, and never answers a ping but by an error.
struct Untelling;

impl Connector for Untelling {
    type Connection = Tcp;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Tcp, BoxError> {
        if endpoint.tag().is_some() {
            return Err(Untold.into());
        }
        TcpConnector.connect(socket, endpoint).await
    }

    async fn ping(&self, _: &mut Tcp) -> Result<(), BoxError> {
        Err(Untold.into())
    }
}

/// How often the worker is to panic, and at which events of the pool.
#[derive(Clone)]
struct Bombs(Arc<Fuse>);

struct Fuse {
    /// Every so many of the events named so.
    every: usize,
    events: &'static [&'static str],
    seen: AtomicUsize,
    left: AtomicUsize,
    told: AtomicUsize,
}

impl Bombs {
    fn at(events: &'static [&'static str], every: usize, count: usize) -> Self {
        let (seen, left) = (AtomicUsize::new(0), AtomicUsize::new(count));
        Self(Arc::new(Fuse { every, events, seen, left, told: AtomicUsize::new(0) }))
    }

    fn left(&self) -> usize {
        self.0.left.load(SeqCst)
    }

    /// Panics itself, which the pool catches and logs; the log line is the one that counts.
    fn observer(&self) -> impl Fn(&PoolEvent<'_>) + Send + Sync + 'static {
        let Self(fuse) = self.clone();
        move |event| {
            if let PoolEvent::ShardPanicked { message, .. } = event {
                assert_eq!(*message, "a subscriber's bug, on purpose");
                fuse.told.fetch_add(1, SeqCst);
            }
            let on_shard =
                thread::current().name().is_some_and(|name| name.starts_with("corepool-"));
            if on_shard
                && fuse.events.contains(&event.as_str())
                && (fuse.seen.fetch_add(1, SeqCst) + 1).is_multiple_of(fuse.every)
                && fuse.left.try_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
            {
                ARMED.set(true);
                resume_unwind(Box::new("the observer's own"));
            }
        }
    }
}

fn listen_to_all() {
    static FAULTY: Once = Once::new();
    FAULTY.call_once(|| tracing::subscriber::set_global_default(Faulty).unwrap());
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs a scenario while no other one runs, its runtime included.
fn alone(scenario: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(scenario);
}

macro_rules! alone_on_both_drivers {
    ($(async fn $name:ident($backend:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn scenario($backend: Backend) $body

            #[test]
            fn io_uring() {
                if support::uring_is_expected() {
                    alone(scenario(Backend::IoUring));
                }
            }

            #[test]
            fn epoll() {
                alone(scenario(Backend::Epoll));
            }
        }
    )*};
}

/// One scenario: the descriptors that were open when it began.
struct Scene {
    before: usize,
    with_pool: usize,
    origin: Echo,
    pool: Pool<TcpConnector>,
    bombs: Bombs,
}

impl Scene {
    async fn new(backend: Backend, shards: usize, bombs: Bombs) -> Self {
        listen_to_all();
        let origin = Echo::start();
        let before = open_descriptors();
        let pool = builder(backend).shards(shards).observer(bombs.observer()).build().unwrap();
        let with_pool = open_descriptors();
        Self { before, with_pool, origin, pool, bombs }
    }

    fn panics(&self) -> u64 {
        self.pool.stats().shards.iter().map(|shard| shard.panics).sum()
    }

    /// Nothing was lost: every connection is counted, every descriptor closed.
    async fn end(self) {
        let Self { before, with_pool, origin, pool, bombs } = self;
        let panics: u64 = pool.stats().shards.iter().map(|shard| shard.panics).sum();
        assert_eq!(bombs.0.told.load(SeqCst) as u64, panics, "each panic is told once");
        drop(origin.accepted.try_iter().collect::<Vec<_>>());
        let stats = close_after_panics(pool.clone()).await;
        for _ in 0..stats.endpoints[0].opened {
            origin.next_end();
        }
        drop(origin.accepted.try_iter().collect::<Vec<_>>());
        eventually("sockets are closed", || open_descriptors() <= with_pool).await;
        drop(pool);
        eventually("rings and runtimes are closed", || open_descriptors() <= before).await;
    }
}

fn is_lost(error: &CheckoutError) -> bool {
    let CheckoutError::Dial(dial) = error else { return false };
    dial.kind() == DialErrorKind::Backend && dial.to_string().contains("on purpose")
}

/// Callers come and go while workers panic; each is answered, and tasks on the shards go on.
async fn under_load(backend: Backend, events: &'static [&'static str]) {
    const PANICS: usize = 5; // as many as a new worker follows at once, on whichever shard
    let scene = Scene::new(backend, 2, Bombs::at(events, 25, PANICS)).await;
    let address = scene.origin.address;
    let beats = Arc::new(AtomicUsize::new(0));
    let mut hearts = Vec::new();
    for shard in scene.pool.shards() {
        let beats = Arc::clone(&beats);
        hearts.push(shard.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                beats.fetch_add(1, SeqCst);
            }
        }));
    }
    let group = scene.pool.group(address);
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let (group, bombs) = (group.clone(), scene.bombs.clone());
        callers.spawn(async move {
            let (mut round, mut lost) = (caller, 0);
            let until = Instant::now() + Duration::from_secs(20);
            while bombs.left() > 0 || round < 40 {
                assert!(Instant::now() < until, "the bombs do not go off");
                round += 1;
                let answer = timeout(Duration::from_secs(6), group.checkout()).await;
                match answer.expect("a caller is answered in its time") {
                    Ok(mut conn) => {
                        // What is in use is not touched.
                        conn.write_all(b"ping").await.unwrap();
                        conn.read_exact(&mut [0; 4]).await.unwrap();
                        if round % 3 == 0 { conn.release() } else { conn.discard() }
                    }
                    Err(error) => {
                        assert!(is_lost(&error), "{error}");
                        lost += 1;
                    }
                }
            }
            lost
        });
    }
    let lost: usize = callers.join_all().await.iter().sum();
    assert_eq!(scene.panics(), PANICS as u64);
    let stats = group.stats();
    assert!(stats.dial_failures >= lost as u64, "{lost} lost: {stats:?}");
    let seen = beats.load(SeqCst);
    eventually("the proxy's own tasks go on", || beats.load(SeqCst) > seen + 4).await;
    assert!(hearts.iter().all(|heart| !heart.is_finished()));
    for shard in scene.pool.shards() {
        assert_eq!(shard.spawn_local(|| async { 7 }).await, Ok(7), "and new ones start");
    }
    for heart in hearts {
        heart.abort();
    }
    drop(group);
    scene.end().await;
}

alone_on_both_drivers! {
    async fn dials_and_closes_meet_panics_under_load(backend) {
        under_load(backend, &["opened", "closed"]).await;
    }

    async fn closes_meet_panics_under_load(backend) {
        under_load(backend, &["closed"]).await;
    }

    async fn connections_at_rest_are_closed_and_those_in_use_when_they_come_back(backend) {
        let scene = Scene::new(backend, 1, Bombs::at(&["dial_failed"], 1, 1)).await;
        let group = scene.pool.group(scene.origin.address);
        let mut held = group.checkout().await.unwrap();
        group.checkout().await.unwrap().release();
        // Nobody listens there: the dial fails, and the panic comes of telling so.
        let nobody = scene.pool.group("127.0.0.1:1".parse::<Endpoint>().unwrap());
        let error = nobody.checkout().await.unwrap_err();
        assert!(is_lost(&error), "{error}");
        let unwatched = || group.stats().closed_for(CloseReason::Unwatched);
        eventually("what rested is closed", || unwatched() == 1).await;
        held.write_all(b"ping").await.unwrap();
        held.read_exact(&mut [0; 4]).await.unwrap();
        held.release();
        eventually("what was in use is closed too", || unwatched() == 2).await;
        assert_eq!((group.stats().idle, nobody.stats().dial_failures), (0, 1));
        assert_eq!(scene.pool.backend().selected.starts_with("io"), backend == Backend::IoUring);
        group.checkout().await.unwrap().release();
        eventually("the new one is watched", || group.stats().idle == 1).await;
        drop((group, nobody));
        scene.end().await;
    }

    async fn a_shard_that_panics_over_and_over_is_down_for_a_while(backend) {
        // The sixth in a row puts the shard down for a second, and the seventh for two.
        let scene = Scene::new(backend, 1, Bombs::at(&["opened"], 1, 7)).await;
        let group = scene.pool.group(scene.origin.address);
        while scene.bombs.left() > 0 {
            // It was handed over before the panic; a caller that is late finds it marked, and
            // dials anew.
            drop(group.checkout().await);
        }
        eventually("it is down", || scene.pool.backend().selected == "none").await;
        let began = Instant::now();
        let error = group.checkout().await.unwrap_err();
        assert!(is_lost(&error), "{error}");
        assert!(began.elapsed() < Duration::from_millis(1500), "a caller is told at once");
        let shard = &scene.pool.shards()[0];
        assert_eq!(shard.spawn_local(|| async { 7 }).await, Ok(7));
        eventually("it is back", || scene.pool.backend().selected != "none").await;
        group.checkout().await.unwrap().release();
        drop(group);
        scene.end().await;
    }

    async fn an_error_without_a_text_costs_its_own_connection_alone(backend) {
        listen_to_all();
        let origin = Echo::start();
        let pool = tuned(Pool::builder(Untelling), backend)
            .shards(1)
            .endpoint(|policy| {
                policy.health.ping_interval_ms = Some(50);
                policy.health.ping_timeout_ms = 50;
                policy.health.ping_max_failures = 1;
            })
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let untold = pool.group(Endpoint::from(origin.address).with_tag("untold"));
        let error = untold.checkout().await.unwrap_err();
        assert!(error.to_string().contains("panicked when it was asked for a text"), "{error}");
        held.release();
        let ended = || group.stats().closed_total() == 1;
        eventually("a ping's error ends the connection", ended).await;
        eventually("its permit came back", || group.stats().in_use == 0).await;
        assert_eq!(pool.stats().shards[0].panics, 0, "the shard went on");
        drop((group, untold));
        close_and_check(pool).await;
    }

    async fn a_pool_ends_while_its_shard_is_down(backend) {
        let scene = Scene::new(backend, 1, Bombs::at(&["opened"], 1, 6)).await;
        let group = scene.pool.group(scene.origin.address);
        let mut held = Vec::new();
        while scene.bombs.left() > 0 {
            held.extend(group.checkout().await);
        }
        eventually("it is down", || scene.pool.backend().selected == "none").await;
        drop(group);
        drop(held);
        scene.end().await;
    }
}
