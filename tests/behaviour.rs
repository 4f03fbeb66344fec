//! What the pool does, on real sockets: each scenario is written once and runs on both drivers.

mod support;

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use corepool::{CheckoutError, CloseReason, Connector, DialErrorKind, Endpoint, RawConnector};
use support::{
    Blackhole, Echo, Ended, builder, close_and_check, eventually, ring_or_choice, tuned,
    uring_is_expected,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One exchange with an [`Echo`].
macro_rules! exchange {
    ($conn:expr) => {{
        $conn.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        $conn.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
    }};
}

on_both_drivers! {
    async fn a_released_connection_serves_the_next_caller(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        for round in 0..5 {
            let mut conn = group.checkout().await.unwrap();
            assert_eq!(conn.is_reused(), round > 0);
            exchange!(conn);
            conn.release();
        }
        let stats = group.stats();
        assert_eq!((stats.opened, stats.reused, stats.idle), (1, 4, 1));
        close_and_check(pool).await;
        assert_eq!(origin.next_end(), Ended::Fin);
    }

    async fn a_guard_dropped_after_io_closes_its_connection(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let mut conn = group.checkout().await.unwrap();
        conn.write_all(b"half a request").await.unwrap();
        drop(conn);
        // The armed watch must not swallow the FIN. (The echo in flight may make it a RST.)
        origin.next_end();
        eventually("counted as dirty", || group.stats().closed_for(CloseReason::Dirty) == 1).await;
        close_and_check(pool).await;
    }

    async fn a_guard_dropped_before_io_gives_its_connection_back(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        drop(group.checkout().await.unwrap());
        assert_eq!(group.stats().idle, 1);
        assert!(group.try_checkout().is_some());
        close_and_check(pool).await;
    }

    async fn a_discarded_connection_ends_with_a_fin(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.discard();
        assert_eq!(origin.next_end(), Ended::Fin);
        close_and_check(pool).await;
    }

    async fn a_peer_that_closes_at_rest_is_noticed_without_a_checkout(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        origin.next().shutdown(Shutdown::Write).unwrap();
        eventually("evicted", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        assert!(group.try_checkout().is_none());
        close_and_check(pool).await;
    }

    async fn a_peer_that_resets_at_rest_is_noticed_without_a_checkout(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        // The reset has to come from the last descriptor, so the echo's own goes first.
        let peer = socket2::Socket::from(origin.next());
        peer.set_linger(Some(Duration::ZERO)).unwrap();
        peer.shutdown(Shutdown::Read).unwrap();
        drop(peer);
        eventually("evicted", || group.stats().closed_for(CloseReason::PeerReset) == 1).await;
        close_and_check(pool).await;
    }

    async fn a_peer_that_closes_in_use_keeps_the_connection_from_resting(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        origin.next().shutdown(Shutdown::Write).unwrap();
        assert_eq!(conn.read(&mut [0; 1]).await.unwrap(), 0);
        conn.release();
        assert_eq!(group.stats().idle, 0);
        close_and_check(pool).await;
    }

    async fn unexpected_bytes_keep_a_connection_from_resting(backend) {
        use std::io::Write;
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        // A response that nobody asked for must not reach the next caller.
        origin.next().write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut conn = group.checkout().await.unwrap();
        assert!(!conn.is_reused(), "handed out with bytes of nobody's response");
        exchange!(conn);
        conn.release();
        let counted = || group.stats().closed_for(CloseReason::UnexpectedBytes) == 1;
        eventually("counted apart", counted).await;
        assert_eq!(group.stats().closed_total(), 1);
        close_and_check(pool).await;
    }

    async fn an_idle_connection_ends_at_its_timeout(backend) {
        let origin = Echo::start();
        let pool = builder(backend).idle_timeout(Duration::from_millis(200)).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        let rested = Instant::now();
        assert_eq!(origin.next_end(), Ended::Fin);
        // Minus the coarse clock's resolution.
        assert!(rested.elapsed() >= Duration::from_millis(100), "{:?}", rested.elapsed());
        eventually("counted", || group.stats().closed_for(CloseReason::IdleTimeout) == 1).await;
        close_and_check(pool).await;
    }

    async fn callers_wait_at_the_limit_and_are_served_in_order(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let first = group.checkout().await.unwrap();
        let group_handle = group.clone();
        let order = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut callers = Vec::new();
        for place in 0..5 {
            let (group, order) = (group.clone(), order.clone());
            callers.push(tokio::spawn(async move {
                let conn = group.checkout().await.unwrap();
                let served = order.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                assert_eq!(served, place, "served out of order");
                conn.release();
            }));
            eventually("in line", || group_waiting(&group_handle) == place as u32 + 1).await;
        }
        first.release();
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
    }

    async fn a_caller_that_waits_too_long_learns_why(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .max_live(1)
            .acquire_timeout(Duration::from_millis(800))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let error = group.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::Timeout { live: 1, max_live: 1, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&origin.address.to_string()) && text.contains("800 ms"), "{text}");
        held.release();
        group.checkout().await.unwrap().release();
        close_and_check(pool).await;
    }

    async fn the_queue_of_waiters_is_bounded(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).max_waiters(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let first = tokio::spawn({
            let group = group.clone();
            async move { group.checkout().await.map(drop) }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        let error = group.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::WaitersFull { max_waiters: 1, .. }), "{error:?}");
        held.release();
        first.await.unwrap().unwrap();
        close_and_check(pool).await;
    }

    async fn a_refused_port_is_an_error_that_names_it(backend) {
        let address = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let pool = builder(backend).build().unwrap();
        let error = pool.group(address).checkout().await.unwrap_err();
        let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::Refused);
        assert!(std::error::Error::source(dial).is_some());
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(pool.group(address).stats().dial_failures, 1);
        close_and_check(pool).await;
    }

    async fn a_blackhole_ends_at_the_connect_timeout(backend) {
        let hole = Blackhole::start();
        let pool = builder(backend).connect_timeout(Duration::from_millis(200)).build().unwrap();
        let group = pool.group(hole.address);
        let started = Instant::now();
        let error = group.checkout().await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::TimedOut);
        assert!(error.to_string().contains("200 ms"), "{error}");
        close_and_check(pool).await;
    }

    async fn a_name_without_an_address_is_an_error_that_names_it(backend) {
        let pool = builder(backend).build().unwrap();
        let group = pool.group(Endpoint::host("no-such-host.invalid", 80));
        let error = group.checkout().await.unwrap_err();
        let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::Resolve);
        assert!(error.to_string().contains("no-such-host.invalid:80"), "{error}");
        close_and_check(pool).await;
    }

    async fn a_name_is_resolved_and_its_addresses_are_tried(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        // Often ::1 comes first, where nobody listens.
        let group = pool.group(Endpoint::host("localhost", origin.address.port()));
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        close_and_check(pool).await;
    }

    async fn a_dropped_caller_loses_nothing(backend) {
        let origin = Echo::start();
        let pool = tuned(corepool::Pool::builder(Slow), backend).build().unwrap();
        let group = pool.group(origin.address);
        {
            let checkout = group.checkout();
            tokio::pin!(checkout);
            // Polled once: in line, with a dial under way.
            assert!(futures_poll(checkout.as_mut()).await.is_none());
        }
        eventually("the late connection is pooled", || group.stats().idle == 1).await;
        assert!(group.try_checkout().is_some());
        assert_eq!(group.stats().waiting, 0);
        close_and_check(pool).await;
    }

    async fn a_fresh_checkout_gets_a_connection_that_nobody_used(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(2).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        let fresh = group.checkout_fresh().await.unwrap();
        assert!(!fresh.is_reused());
        assert_eq!(group.stats().opened, 2);
        // At the limit an idle connection makes room.
        let another = group.checkout_fresh().await.unwrap();
        assert!(!another.is_reused());
        eventually("counted", || group.stats().closed_for(CloseReason::Replaced) == 1).await;
        drop((fresh, another));
        close_and_check(pool).await;
    }

    async fn a_detached_connection_lives_on_and_ends_with_a_fin(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let mut detached = group.checkout().await.unwrap().detach().into_inner();
        // Its permit is free again.
        group.checkout().await.unwrap().release();
        exchange!(detached);
        drop(detached);
        assert_eq!(origin.next_end(), Ended::Fin);
        close_and_check(pool).await;
    }

    async fn no_more_rest_than_may(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_idle(2).build().unwrap();
        let group = pool.group(origin.address);
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(group.checkout().await.unwrap());
        }
        drop(held);
        eventually("the surplus is closed", || group.stats().in_use == 0).await;
        let stats = group.stats();
        assert_eq!((stats.idle, stats.closed_for(CloseReason::Surplus)), (2, 3));
        close_and_check(pool).await;
    }

    async fn a_warm_up_has_connections_ready(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let report = group.warm_up(10).await;
        assert_eq!((report.ready, report.failures.len()), (10, 0));
        let stats = group.stats();
        assert_eq!((stats.idle, stats.opened), (10, 10));
        assert!(group.try_checkout().is_some());
        close_and_check(pool).await;
    }

    async fn a_warm_up_reports_what_failed(backend) {
        let pool = builder(backend).build().unwrap();
        let report = pool.group(Endpoint::host("no-such-host.invalid", 1)).warm_up(3).await;
        assert_eq!((report.ready, report.failures.len()), (0, 3));
        close_and_check(pool).await;
    }

    async fn a_close_fails_those_that_wait_and_waits_for_those_in_use(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { group.checkout().await }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        let report = pool.close_within(Duration::from_millis(50)).await;
        assert_eq!(report.left, 1);
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        let error = group.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        let late = pool.group("127.0.0.1:9".parse::<Endpoint>().unwrap()).checkout().await;
        assert!(matches!(late, Err(CheckoutError::Closed { .. })), "{late:?}");
        held.release();
        close_and_check(pool).await;
        assert_eq!(origin.next_end(), Ended::Fin);
    }

    async fn a_full_table_of_slots_is_an_error(backend) {
        let origin = Echo::start();
        let pool = builder(backend).shards(1).slots_per_shard(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let error = group.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::Exhausted { slots: 1, .. }), "{error:?}");
        held.release();
        group.checkout().await.unwrap().release();
        close_and_check(pool).await;
    }

    async fn a_shard_serves_its_own_tasks_locally(backend) {
        let origin = Echo::start();
        let pool = builder(backend).steal_threshold(100).build().unwrap();
        for shard in pool.shards() {
            let group = pool.group(origin.address);
            let on = shard
                .spawn_local(move || async move {
                    let here = std::rc::Rc::new(()); // a task that is not Send
                    let mut conn = group.checkout().await.unwrap();
                    exchange!(conn);
                    drop(here);
                    let on = conn.shard();
                    conn.release();
                    on
                })
                .await
                .unwrap();
            assert_eq!(on, shard.id());
        }
        let stats = pool.group(origin.address).stats();
        assert_eq!((stats.opened, stats.stolen), (2, 0));
        close_and_check(pool).await;
    }

    async fn a_task_that_panics_in_the_making_leaves_its_shard_alone(backend) {
        let origin = Echo::start();
        let pool = builder(backend).shards(1).build().unwrap();
        let shard = &pool.shards()[0];
        let outcome = shard.spawn_local(|| -> std::future::Ready<()> { panic!("on purpose") });
        assert!(outcome.await.is_err());
        pool.group(origin.address).checkout().await.unwrap().release();
        close_and_check(pool).await;
    }

    async fn a_caller_without_budget_is_not_handed_unexpected_bytes(backend) {
        use std::io::Write;
        let origin = Echo::start();
        let pool = tuned(corepool::Pool::builder(corepool::TcpConnector), backend).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        origin.next().write_all(b"HTTP/1.1 200 STALE\r\n\r\n").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        // A task that has used up its share of the scheduler in this poll.
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
            if !tokio::task::coop::has_budget_remaining() {
                break;
            }
        }
        assert!(group.try_checkout().is_none(), "handed out with bytes of nobody's response");
        close_and_check(pool).await;
    }

    async fn a_connection_handed_on_directly_was_idle_for_no_time(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { group.checkout().await.unwrap().idle_for() }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        held.release();
        let idle_for = waiting.await.unwrap();
        assert!(idle_for <= Duration::from_millis(200), "{idle_for:?}");
        close_and_check(pool).await;
    }

    async fn a_connection_that_panics_is_ended_and_costs_nothing(backend) {
        let origin = Echo::start();
        let pool = tuned(corepool::Pool::builder(Touchy), backend)
            .max_live(1)
            .acquire_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        for _ in 0..2 {
            let group = group.clone();
            let task = tokio::spawn(async move {
                let conn = group.checkout().await.unwrap();
                conn.0.store(true, std::sync::atomic::Ordering::Relaxed);
                conn.release();
            });
            assert!(task.await.unwrap_err().is_panic());
        }
        close_and_check(pool).await;
    }

    async fn an_idle_connection_of_a_sibling_is_taken_from_the_threshold_on(backend) {
        let origin = Echo::start();
        let pool = builder(backend).steal_threshold(2).build().unwrap();
        let group = pool.group(origin.address);
        let taken_from = |shard: usize, count: usize| {
            let (shard, group) = (&pool.shards()[shard], group.clone());
            shard.spawn(async move {
                let mut held = Vec::new();
                for _ in 0..count {
                    held.push(group.checkout().await.unwrap());
                }
                held.iter().map(corepool::Pooled::shard).collect::<Vec<_>>()
            })
        };
        assert_eq!(taken_from(0, 1).await.unwrap(), [0]);
        assert_eq!(taken_from(1, 1).await.unwrap(), [1], "below the threshold it dials");
        assert_eq!(taken_from(0, 2).await.unwrap(), [0, 0], "one is left: below the threshold");
        assert_eq!(group.stats().idle, 3);
        // Its own first, then the sibling's while there are two.
        assert_eq!(taken_from(1, 2).await.unwrap(), [1, 0]);
        assert_eq!(group.stats().stolen, 1);
        close_and_check(pool).await;
    }

    async fn raw_sockets_are_pooled_without_a_reactor(backend) {
        use std::io::{Read, Write};
        let origin = Echo::start();
        let pool = tuned(corepool::Pool::builder(RawConnector), backend).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..3 {
            let conn = group.checkout().await.unwrap();
            conn.set_nonblocking(false).unwrap();
            let mut stream = &*conn;
            stream.write_all(b"ping").unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            conn.release();
        }
        assert_eq!(group.stats().opened, 1);
        origin.next().shutdown(Shutdown::Write).unwrap();
        eventually("evicted", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        close_and_check(pool).await;
        assert_eq!(origin.next_end(), Ended::Fin);
    }

    async fn a_connector_that_never_finishes_ends_at_the_connect_timeout(backend) {
        let origin = Echo::start();
        let pool = tuned(corepool::Pool::builder(Stuck), backend)
            .connect_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        let error = pool.group(origin.address).checkout().await.unwrap_err();
        let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::TimedOut);
        assert_eq!(origin.next_end(), Ended::Fin);
        close_and_check(pool).await;
    }

    async fn a_connector_that_panics_fails_its_caller_alone(backend) {
        let origin = Echo::start();
        let pool = tuned(corepool::Pool::builder(Panicking), backend).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..2 {
            let error = group.checkout().await.unwrap_err();
            let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
            assert_eq!(dial.kind(), DialErrorKind::Connector);
            assert_eq!(origin.next_end(), Ended::Fin);
        }
        close_and_check(pool).await;
    }

    async fn many_callers_on_many_threads_lose_nothing(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(8).max_idle(4).build().unwrap();
        let group = pool.group(origin.address);
        let mut callers = Vec::new();
        for n in 0..64usize {
            let group = group.clone();
            let task = async move {
                for round in 0..50 {
                    let checkout = group.checkout();
                    // Some lose patience at various points.
                    let patience = Duration::from_micros(((n * 7 + round * 13) % 500) as u64 * 20);
                    let conn = if n % 4 == 0 {
                        tokio::time::timeout(patience, checkout).await.ok()
                    } else {
                        Some(checkout.await)
                    };
                    let Some(conn) = conn else { continue };
                    let mut conn = conn.unwrap();
                    exchange!(conn);
                    match (n + round) % 17 {
                        0 => conn.discard(),
                        1 => drop(conn),
                        _ => conn.release(),
                    }
                }
            };
            callers.push(match n % 3 {
                0 => pool.shards()[0].spawn(task),
                1 => pool.shards()[1].spawn(task),
                _ => tokio::spawn(task),
            });
        }
        for caller in callers {
            caller.await.unwrap();
        }
        let stats = close_and_check(pool).await;
        assert!(stats.endpoints[0].reused > 1000, "{stats:?}");
    }
}

/// A connector with a handshake that takes its time.
struct Slow;

impl Connector for Slow {
    type Connection = corepool::Tcp;

    async fn connect(
        &self,
        socket: corepool::Socket,
        endpoint: &Endpoint,
    ) -> Result<corepool::Tcp, corepool::BoxError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        corepool::TcpConnector.connect(socket, endpoint).await
    }
}

/// A connector whose handshake never ends.
struct Stuck;

impl Connector for Stuck {
    type Connection = corepool::Tcp;

    async fn connect(
        &self,
        socket: corepool::Socket,
        _: &Endpoint,
    ) -> Result<corepool::Tcp, corepool::BoxError> {
        let _held = socket;
        std::future::pending().await
    }
}

/// Connections that panic when they are looked at, and when they are closed.
struct Touchy;

struct Bomb(std::sync::atomic::AtomicBool, corepool::Tcp);

impl Connector for Touchy {
    type Connection = Bomb;

    async fn connect(
        &self,
        socket: corepool::Socket,
        endpoint: &Endpoint,
    ) -> Result<Bomb, corepool::BoxError> {
        let stream = corepool::TcpConnector.connect(socket, endpoint).await?;
        Ok(Bomb(false.into(), stream))
    }
}

impl corepool::Connection for Bomb {
    fn inspect(&mut self, _: corepool::Inspect) -> corepool::Condition {
        assert!(!*self.0.get_mut(), "a connection's bug, on purpose");
        corepool::Condition::Usable
    }

    fn into_socket(self) -> Option<corepool::Socket> {
        drop(self.1);
        panic!("another, on purpose");
    }
}

/// `.ci/denied` runs this file so; then every scenario that may choose its driver runs on the reactor.
#[tokio::test]
async fn what_is_said_to_be_denied_is_denied() {
    let pool = builder(ring_or_choice()).build().unwrap();
    let expected = if uring_is_expected() { "io_uring" } else { "epoll" };
    assert_eq!(pool.backend().selected, expected, "{:?}", pool.backend());
    close_and_check(pool).await;
}

/// A connector with a bug.
struct Panicking;

impl Connector for Panicking {
    type Connection = corepool::Tcp;

    async fn connect(
        &self,
        _: corepool::Socket,
        _: &Endpoint,
    ) -> Result<corepool::Tcp, corepool::BoxError> {
        panic!("a connector's bug, on purpose");
    }
}

fn group_waiting<C: Connector>(group: &corepool::Group<C>) -> u32 {
    group.stats().waiting
}

/// Polls a future once.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
