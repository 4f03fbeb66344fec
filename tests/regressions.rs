//! Faults that were found by reading, seen from outside, each kept from coming back.

mod support;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use corepool::{
    Answer, Backend, BoxError, BreakerMode, CheckoutError, Connection, Connector, DialErrorKind,
    Endpoint, Pool, Resolver, Socket,
    settings::{AtLimit, AtOpen},
    sim::{Dial, SimConnection, SimConnector, script},
};
use support::{eventually, tuned};

fn address(last: u8) -> Endpoint {
    SocketAddr::from(([192, 0, 2, last], 80)).into()
}

/// Home by chance: of sixteen endpoints about half have the other shard for their home.
#[tokio::test]
async fn a_group_is_tended_wherever_its_connections_are() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .endpoint(|policy| policy.lifetime.retention_period_ms = Some(300))
        .sim(script)
        .build()
        .unwrap();
    let mut groups = Vec::new();
    for last in 1..=16 {
        let group = pool.group(address(last));
        // From this thread, so on one shard.
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(group.checkout().await.unwrap());
        }
        held.into_iter().for_each(|conn| conn.release());
        groups.push(group);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let idle: Vec<_> = groups.iter().map(|group| group.stats().idle).collect();
    assert!(idle.iter().all(|idle| *idle < 8), "not shrunk in 13 periods: {idle:?}");
}

#[derive(Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl Resolver for Counting {
    fn resolve<'a>(&'a self, name: &'a str) -> corepool::Resolving<'a> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let _ = name;
        Box::pin(async {
            Ok(Answer::new(vec![[192, 0, 2, 1].into()], Some(Duration::from_millis(200))))
        })
    }
}

#[tokio::test]
async fn names_in_use_are_looked_up_again() {
    let (script, _peers) = script();
    let asked = Arc::new(AtomicUsize::new(0));
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .endpoint(|policy| policy.names.dns_min_ttl_ms = 0)
        .resolver(Counting(Arc::clone(&asked)))
        .sim(script)
        .build()
        .unwrap();
    let mut stale = 0;
    for n in 0..12 {
        let group = pool.group(format!("host{n}.test:80").parse::<Endpoint>().unwrap());
        let conn = group.checkout().await.unwrap();
        // A shard that was woken once sweeps once.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = asked.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        stale += usize::from(asked.load(Ordering::Relaxed) == before);
        conn.release();
        let _ = group.drain(Duration::from_secs(1)).await;
    }
    assert_eq!(stale, 0, "names of 12 not looked up again in seven of their lifetimes");
}

#[tokio::test]
async fn a_warm_up_does_not_use_connections_up() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .endpoint(|policy| policy.lifetime.max_uses = Some(1))
        .sim(script)
        .build()
        .unwrap();
    let group = pool.group(address(1));
    assert_eq!(group.warm_up(3).await.ready, 3);
    assert_eq!(group.stats().idle, 3);
}

/// A probe is under way; others dial past the breaker, as the policy says.
#[tokio::test]
async fn at_open_direct_dials_also_beside_a_probe() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .endpoint(|policy| {
            policy.failure.at_open = AtOpen::Direct;
            policy.failure.breaker_consecutive_failures = 1;
            policy.failure.backoff_base_ms = 1;
            policy.failure.backoff_max_ms = 1;
        })
        .sim(script.clone())
        .build()
        .unwrap();
    let group = pool.group(address(1));
    script.next_dial(Dial::Refuse);
    assert!(group.checkout().await.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    script.next_dial(Dial::Accept(Duration::from_millis(500)));
    let probe = tokio::spawn({
        let group = group.clone();
        async move { group.checkout().await.map(|conn| conn.release()) }
    });
    eventually("the probe is under way", || group.stats().dialing == 1).await;
    let beside = group.checkout().await;
    assert!(beside.is_ok(), "{beside:?}");
    probe.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_suspended_endpoint_is_not_closed() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .endpoint(|policy| policy.failure.at_open = AtOpen::Direct)
        .acquire_timeout(Duration::from_millis(200))
        .sim(script)
        .build()
        .unwrap();
    let group = pool.group(address(1));
    group.force_breaker(BreakerMode::ForcedOpen);
    group.suspend();
    let error = group.checkout().await.unwrap_err();
    assert!(matches!(error, CheckoutError::Timeout { .. }), "{error:?}");
}

/// Tells whether the pool is gone.
struct Tracked(#[allow(dead_code)] Arc<()>);

impl Connector for Tracked {
    type Connection = SimConnection;

    async fn connect(&self, socket: Socket, to: &Endpoint) -> Result<SimConnection, BoxError> {
        SimConnector.connect(socket, to).await
    }
}

async fn gone(alive: &Arc<()>) {
    eventually("the pool's memory is given back", || Arc::strong_count(alive) == 1).await;
}

#[tokio::test]
async fn starving_groups_do_not_keep_a_pool_alive() {
    let (script, _peers) = script();
    let alive = Arc::new(());
    let pool = tuned(Pool::builder(Tracked(Arc::clone(&alive))), Backend::Auto)
        .max_live_total(1)
        .endpoint(|policy| policy.capacity.at_limit = AtLimit::Reject)
        .sim(script)
        .build()
        .unwrap();
    let held = pool.group(address(0)).checkout().await.unwrap();
    for last in 1..=200 {
        assert!(pool.group(address(last)).checkout().await.is_err());
    }
    drop(pool);
    held.release();
    gone(&alive).await;
}

#[tokio::test]
async fn a_breaker_that_opens_last_does_not_keep_a_pool_alive() {
    let (script, _peers) = script();
    let alive = Arc::new(());
    let pool = tuned(Pool::builder(Tracked(Arc::clone(&alive))), Backend::Auto)
        .endpoint(|policy| policy.failure.breaker_consecutive_failures = 1)
        .sim(script.clone())
        .build()
        .unwrap();
    script.next_dial(Dial::RefuseAfter(Duration::from_millis(100)));
    let group = pool.group(address(1));
    let _ = tokio::time::timeout(Duration::from_millis(20), group.checkout()).await;
    drop((group, pool));
    gone(&alive).await;
}

/// The same, but with nothing that could go wrong: the measure of the two above.
#[tokio::test]
async fn a_pool_is_gone_when_it_is_dropped() {
    let (script, _peers) = script();
    let alive = Arc::new(());
    let pool = tuned(Pool::builder(Tracked(Arc::clone(&alive))), Backend::Auto)
        .sim(script)
        .build()
        .unwrap();
    pool.group(address(1)).checkout().await.unwrap().release();
    drop(pool);
    gone(&alive).await;
}

struct Panicking;

impl Resolver for Panicking {
    fn resolve<'a>(&'a self, _: &'a str) -> corepool::Resolving<'a> {
        panic!("a resolver's own fault")
    }
}

impl std::fmt::Debug for Panicking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Panicking")
    }
}

#[tokio::test]
async fn a_resolver_that_panics_fails_to_resolve() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .resolver(Panicking)
        .sim(script)
        .build()
        .unwrap();
    let group = pool.group("host.test:80".parse::<Endpoint>().unwrap());
    let error = group.checkout().await.unwrap_err();
    let CheckoutError::Dial(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), DialErrorKind::Resolve);
}

/// Its own look at itself panics.
struct Fragile;
struct FragileConnection;

impl Connection for FragileConnection {
    fn is_clean_on_drop(&self) -> bool {
        panic!("a connection's own fault")
    }
}

impl Connector for Fragile {
    type Connection = FragileConnection;

    async fn connect(&self, _: Socket, _: &Endpoint) -> Result<FragileConnection, BoxError> {
        Ok(FragileConnection)
    }
}

#[tokio::test]
async fn a_panic_in_a_connections_look_at_drop_loses_no_slot() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(Fragile), Backend::Auto).sim(script).build().unwrap();
    let group = pool.group(address(1));
    let conn = group.checkout().await.unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: &FragileConnection = &conn;
        drop(conn);
    }));
    assert!(outcome.is_err());
    let report = pool.close_within(Duration::from_secs(2)).await;
    assert_eq!(report.left, 0);
}

/// A dial that goes nowhere does not hold up the close of a pool that nobody uses.
#[tokio::test]
async fn a_close_does_not_wait_for_dials_under_way() {
    let (script, _peers) = script();
    let pool =
        tuned(Pool::builder(SimConnector), Backend::Auto).sim(script.clone()).build().unwrap();
    script.next_dial(Dial::Blackhole);
    let group = pool.group(address(1));
    let _ = tokio::time::timeout(Duration::from_millis(20), group.checkout()).await;
    let report = pool.close_within(Duration::from_millis(500)).await;
    assert_eq!(report.left, 0);
}

/// The settings of names hold from the change on.
#[tokio::test]
async fn a_changed_ttl_is_honoured() {
    let (script, _peers) = script();
    let asked = Arc::new(AtomicUsize::new(0));
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .shards(1)
        .resolver(Counting(Arc::clone(&asked)))
        .endpoint(|policy| policy.names.dns_min_ttl_ms = 0)
        .sim(script)
        .build()
        .unwrap();
    let group = pool.group("host.test:80".parse::<Endpoint>().unwrap());
    group
        .reconfigure(|policy| {
            policy.names.dns_min_ttl_ms = 60_000;
            policy.names.dns_default_ttl_ms = 60_000;
        })
        .unwrap();
    let _held = group.checkout().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "kept for a minute, whatever it says");
}

fn is_send<T: Send>(_: &T) {}

#[tokio::test]
async fn futures_are_send() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto).sim(script).build().unwrap();
    let group = pool.group(address(1));
    let checkout: Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(group.checkout());
    is_send(&group.checkout_fresh());
    is_send(&group.warm_up(1));
    is_send(&group.drain(Duration::ZERO));
    drop(checkout);
}

/// Answers, then hangs once, then answers.
#[derive(Debug, Default)]
struct HangsOnce(Arc<AtomicUsize>);

impl Resolver for HangsOnce {
    fn resolve<'a>(&'a self, _: &'a str) -> corepool::Resolving<'a> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if asked == 1 {
                std::future::pending::<()>().await;
            }
            Ok(Answer::new(vec![[192, 0, 2, 1].into()], Some(Duration::from_millis(100))))
        })
    }
}

#[tokio::test]
async fn a_look_up_that_hangs_is_not_the_last_one() {
    let (script, _peers) = script();
    let asked = Arc::new(AtomicUsize::new(0));
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .shards(1)
        .connect_timeout(Duration::from_millis(300))
        .resolver(HangsOnce(Arc::clone(&asked)))
        .endpoint(|policy| policy.names.dns_min_ttl_ms = 0)
        .sim(script)
        .build()
        .unwrap();
    let group = pool.group("host.test:80".parse::<Endpoint>().unwrap());
    let _held = group.checkout().await.unwrap();
    eventually("asked again", || asked.load(Ordering::Relaxed) > 2).await;
}

/// "One caller at a time": the callers are the pool's users.
#[tokio::test]
async fn limits_of_the_pool_may_be_changed_by_two_at_once() {
    let (script, _peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .shards(1)
        .max_idle_total(64)
        .sim(script)
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..200_000 {
                    pool.resize_totals(None, Some(if n % 2 == 0 { 20 } else { 64 }), None);
                }
            });
        }
    });
    pool.resize_totals(None, Some(64), None);
    let group = pool.group(address(1));
    let _ = group.warm_up(128).await;
    assert_eq!(group.stats().idle, 64);
}
