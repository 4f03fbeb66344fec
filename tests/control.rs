//! What an owner does to groups and pools, and what it is told: on real sockets, both drivers.
#![cfg(target_os = "linux")]

mod support;

#[path = "support/peers.rs"]
mod peers;

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use corepool::{
    Adoption, BoxError, BreakerMode, BuildError, CheckoutError, CloseReason, Connector,
    DialErrorKind, Endpoint, Pool, PoolEvent, Settings, Socket, Tcp, TcpConnector,
    settings::{AtLimit, AtOpen},
};
use peers::{Events, free_port};
use support::{Echo, Ended, builder, close_and_check, eventually, tuned};
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

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

on_both_drivers! {
    async fn the_first_dial_of_a_shard_does_not_wait_for_a_tick(backend) {
        let origin = Echo::start();
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let pool = builder(backend).shards(1).build().unwrap();
            let started = Instant::now();
            pool.group(origin.address).checkout().await.unwrap().discard();
            fastest = fastest.min(started.elapsed());
            close_and_check(pool).await;
        }
        // Of several, because one may be late for many reasons.
        assert!(fastest < ms(90), "{fastest:?}: as long as a shard's tick");
    }

    async fn a_close_lists_what_it_left_behind(backend) {
        let origins = [Echo::start(), Echo::start(), Echo::start()];
        let pool = builder(backend).build().unwrap();
        let mut held = Vec::new();
        for (count, origin) in origins.iter().enumerate() {
            let group = pool.group(origin.address);
            let _ = group.warm_up(1).await;
            for _ in 0..count {
                held.push(group.checkout().await.unwrap());
            }
        }
        let report = pool.close_within(ms(50)).await;
        assert_eq!(report.left, 3);
        let mut expected = [(&origins[1], 1), (&origins[2], 2)]
            .map(|(origin, count)| (Endpoint::from(origin.address), count));
        expected.sort_by_key(|(endpoint, _)| endpoint.to_string());
        assert_eq!(report.endpoints, expected);
        drop(held);
        let report = pool.close_within(Duration::from_secs(5)).await;
        assert_eq!((report.left, report.endpoints.len()), (0, 0));
        close_and_check(pool).await;
    }

    async fn a_close_lists_what_a_drain_left_behind(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        assert_eq!(group.drain(ms(20)).await.left, 1);
        let also = pool.group(origin.address).checkout().await.unwrap();
        let report = pool.close_within(ms(20)).await;
        assert_eq!(report.left, 2);
        let listed: usize = report.endpoints.iter().map(|(_, count)| count).sum();
        assert_eq!(listed, 2, "{report:?}");
        drop((held, also));
        let report = pool.close_within(Duration::from_secs(5)).await;
        assert_eq!((report.left, report.endpoints.len()), (0, 0), "{report:?}");
        close_and_check(pool).await;
    }

    async fn a_drain_counts_what_is_left_and_closes_it_later(backend) {
        let origin = Echo::start();
        let events = Events::default();
        let pool = builder(backend).max_live(3).observer(events.observer()).build().unwrap();
        let group = pool.group(origin.address);
        let other = group.clone();
        let _ = group.warm_up(3).await;
        let held = group.checkout().await.unwrap();
        let report = group.drain(ms(50)).await;
        assert_eq!(report.left, 1);
        assert_eq!(report.endpoints, [(Endpoint::from(origin.address), 1)]);
        assert_eq!((group.stats().closed_for(CloseReason::PoolClosed), group.stats().idle), (2, 0));
        assert_eq!(events.count("drained"), 0, "not yet");
        for handle in [&group, &other] {
            let error = handle.checkout().await.unwrap_err();
            assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");
            assert!(handle.try_checkout().is_none());
            let error = handle.checkout_fresh().await.unwrap_err();
            assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        }
        // The endpoint has a new group, with all of its limits.
        let anew = pool.group(origin.address);
        let all = [anew.checkout().await, anew.checkout().await, anew.checkout().await];
        assert!(all.iter().all(Result::is_ok));
        drop(all);
        held.release();
        eventually("what came back is closed", || group.stats().in_use == 0).await;
        assert_eq!(group.stats().opened, group.stats().closed_total());
        assert_eq!(group.drain(Duration::from_secs(5)).await.left, 0);
        assert_eq!(events.count("drained"), 1);
        assert_eq!(anew.stats().idle, 3, "another drain of the old one is not its business");
        anew.checkout().await.unwrap().release();
        close_and_check(pool).await;
    }

    async fn a_drain_fails_those_that_wait_and_may_be_dropped(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { group.checkout().await }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        let drain = tokio::time::timeout(ms(20), group.drain(Duration::from_secs(60)));
        assert!(drain.await.is_err());
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        held.release();
        eventually("closed", || group.stats().closed_total() == 1).await;
        close_and_check(pool).await;
    }

    async fn an_eviction_ends_what_is_there_and_nothing_that_comes_after(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(3).await;
        let held = group.checkout().await.unwrap();
        group.evict();
        let purged = || group.stats().closed_for(CloseReason::Purged);
        eventually("at rest: at once", || purged() == 2).await;
        assert!(group.try_checkout().is_none());
        let new = group.checkout().await.unwrap();
        assert!(!new.is_reused());
        new.release();
        held.release();
        eventually("in use: when it comes back", || purged() == 3).await;
        for _ in 0..4 {
            let conn = group.checkout().await.unwrap();
            assert!(conn.is_reused());
            conn.release();
        }
        assert_eq!((group.stats().idle, group.stats().opened), (1, 4));
        close_and_check(pool).await;
    }

    async fn no_checkout_gets_what_an_eviction_before_it_ended(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(8).build().unwrap();
        let group = pool.group(origin.address);
        // How many evictions have begun, and how many have ended.
        let evictions = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let made = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..8)
            .map(|n| {
                let (group, evictions, made) =
                    (group.clone(), Arc::clone(&evictions), Arc::clone(&made));
                pool.shards()[n % 2].spawn(async move {
                    let [begun, ended] = &*evictions;
                    let mut last = (0, usize::MAX);
                    loop {
                        let before = ended.load(Ordering::SeqCst);
                        if before == 40 {
                            return;
                        }
                        let conn = group.checkout().await.unwrap();
                        let port = conn.local_addr().unwrap().port();
                        // One that this caller had before a whole eviction must not come back.
                        let (had, at) = last;
                        assert!(port != had || before <= at || !conn.is_reused());
                        if !conn.is_reused() {
                            made.fetch_add(1, Ordering::SeqCst);
                        }
                        last = (port, begun.load(Ordering::SeqCst));
                        conn.release();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..40 {
            evictions[0].fetch_add(1, Ordering::SeqCst);
            group.evict();
            evictions[1].fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(ms(3)).await;
        }
        for caller in callers {
            caller.await.unwrap();
        }
        assert!(made.load(Ordering::SeqCst) > 8);
        close_and_check(pool).await;
    }

    async fn what_a_predicate_refuses_is_ended_and_the_rest_rests_on(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(6).await;
        let held = group.checkout().await.unwrap();
        tokio::time::sleep(ms(300)).await;
        let (mut asked, mut odd) = (0, 0);
        let ended = group.retain(|conn, info| {
            asked += 1;
            assert_eq!(*info.endpoint, Endpoint::from(origin.address));
            assert_eq!(info.uses, 0);
            assert!(info.idle_for >= ms(100) && info.age >= info.idle_for, "{info:?}");
            assert!(conn.peer_addr().is_ok());
            odd += 1;
            odd % 2 == 0
        });
        assert_eq!((asked, ended), (5, 3));
        eventually("closed", || group.stats().closed_for(CloseReason::Purged) == 3).await;
        assert_eq!((group.stats().idle, group.stats().in_use), (2, 1));
        let conn = group.checkout().await.unwrap();
        assert!(conn.is_reused() && conn.uses() == 0, "nobody used it");
        assert!(conn.idle_for() >= ms(100), "its rest went on: {:?}", conn.idle_for());
        drop((conn, held));
        assert_eq!(group.retain(|_, _| true), 0);
        close_and_check(pool).await;
    }

    async fn a_predicate_that_panics_loses_nothing(backend) {
        let origin = Echo::start();
        let pool = builder(backend).shards(1).max_live(4).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(4).await;
        let asking = tokio::spawn({
            let group = group.clone();
            async move {
                let mut asked = 0;
                group.retain(|_, _| {
                    asked += 1;
                    assert!(asked < 3, "a predicate's bug, on purpose");
                    asked != 1
                })
            }
        });
        assert!(asking.await.unwrap_err().is_panic());
        eventually("one was refused", || group.stats().closed_total() == 1).await;
        assert_eq!((group.stats().idle, group.stats().in_use), (3, 0));
        for _ in 0..3 {
            let mut conn = group.checkout().await.unwrap();
            exchange!(conn);
            conn.release();
        }
        close_and_check(pool).await;
    }

    async fn a_caller_that_comes_while_a_predicate_looks_is_served(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        let caller = tokio::task::spawn_blocking({
            let (group, runtime) = (group.clone(), tokio::runtime::Handle::current());
            move || {
                let mut waiting = None;
                group.retain(|_, _| {
                    let comes = group.clone();
                    waiting = Some(runtime.spawn(async move { comes.checkout().await.map(drop) }));
                    while group.stats().waiting == 0 {
                        std::thread::yield_now();
                    }
                    true
                });
                waiting.unwrap()
            }
        });
        caller.await.unwrap().await.unwrap().unwrap();
        assert_eq!((group.stats().opened, group.stats().idle), (1, 1));
        close_and_check(pool).await;
    }

    async fn who_waits_out_a_suspension_is_served_in_order(backend) {
        let origin = Echo::start();
        let events = Events::default();
        let pool = builder(backend).max_live(1).observer(events.observer()).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        assert!(group.suspend() && !group.suspend());
        held.release();
        assert_eq!(group.stats().idle, 1, "what comes back rests");
        assert!(group.try_checkout().is_none());
        let served = Arc::new(AtomicUsize::new(0));
        let mut callers = Vec::new();
        for place in 0..4 {
            let (group, served) = (group.clone(), Arc::clone(&served));
            let watch = group.clone();
            callers.push(tokio::spawn(async move {
                let mut conn = group.checkout().await.unwrap();
                assert_eq!(served.fetch_add(1, Ordering::SeqCst), place, "out of order");
                exchange!(conn);
                conn.release();
            }));
            eventually("in line", || watch.stats().waiting == place as u32 + 1).await;
        }
        tokio::time::sleep(ms(200)).await;
        assert_eq!((served.load(Ordering::SeqCst), group.stats().idle), (0, 1), "nobody is served");
        assert!(group.resume() && !group.resume());
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(group.stats().opened, 1);
        assert_eq!((events.count("suspended"), events.count("resumed")), (1, 1));
        close_and_check(pool).await;
    }

    async fn a_suspension_starts_no_dial_and_ends_with_one(backend) {
        let origin = Echo::start();
        let pool = builder(backend).acquire_timeout(ms(300)).build().unwrap();
        let group = pool.group(origin.address);
        group.suspend();
        let error = group.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::Timeout { live: 0, .. }), "{error:?}");
        let error = group.checkout_fresh().await.unwrap_err();
        assert!(matches!(error, CheckoutError::Timeout { .. }), "{error:?}");
        assert_eq!((group.stats().opened, group.stats().waiting), (0, 0));
        {
            let checkout = group.checkout();
            tokio::pin!(checkout);
            assert!(tokio::time::timeout(ms(20), checkout).await.is_err());
        }
        assert_eq!(group.stats().waiting, 0, "who left is not counted");
        group.resume();
        group.checkout().await.unwrap().release();
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
    }

    async fn a_dial_under_way_at_a_suspension_comes_to_rest(backend) {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(Slow), backend).build().unwrap();
        let group = pool.group(origin.address);
        let caller = tokio::spawn({
            let group = group.clone();
            async move { group.checkout().await.map(|conn| conn.release()) }
        });
        eventually("dialing", || group.stats().dialing == 1).await;
        group.suspend();
        eventually("at rest", || group.stats().idle == 1).await;
        assert_eq!(group.stats().waiting, 1);
        group.resume();
        caller.await.unwrap().unwrap();
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
    }

    async fn a_suspended_group_can_be_evicted_drained_and_closed(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(2).await;
        group.suspend();
        group.evict();
        eventually("evicted", || group.stats().closed_for(CloseReason::Purged) == 2).await;
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { group.checkout().await }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        assert_eq!(group.drain(Duration::from_secs(5)).await.left, 0);
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        let anew = pool.group(origin.address);
        anew.checkout().await.unwrap().release();
        anew.suspend();
        close_and_check(pool).await;
    }

    async fn a_suspended_group_is_not_a_closed_one(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .max_live(1)
            .acquire_timeout(ms(200))
            .endpoint(|policy| policy.failure.at_open = AtOpen::Direct)
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        group.force_breaker(BreakerMode::ForcedOpen);
        group.suspend();
        let error = group.checkout().await.unwrap_err();
        assert!(!matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        group.resume();
        group.checkout().await.unwrap().release();
        // The same at the limit.
        group.force_breaker(BreakerMode::Auto);
        group.reconfigure(|policy| policy.capacity.at_limit = AtLimit::Overflow).unwrap();
        let held = group.checkout().await.unwrap();
        group.suspend();
        let error = group.checkout().await.unwrap_err();
        assert!(!matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        drop(held);
        close_and_check(pool).await;
    }

    async fn a_connection_made_elsewhere_is_handed_out_like_any_other(backend) {
        let origin = Echo::start();
        let events = Events::default();
        let pool = builder(backend).observer(events.observer()).build().unwrap();
        let group = pool.group(origin.address);
        let plain = nonblocking(origin.address);
        let port = plain.local_addr().unwrap().port();
        group.adopt(plain).await.unwrap();
        for round in 0..3 {
            let mut conn = group.checkout().await.unwrap();
            assert_eq!(conn.local_addr().unwrap().port(), port);
            assert!(conn.is_reused() && conn.uses() == round);
            exchange!(conn);
            conn.release();
        }
        group.adopt(tokio::net::TcpStream::connect(origin.address).await.unwrap()).await.unwrap();
        assert_eq!((group.stats().opened, group.stats().idle), (2, 2));
        eventually("told", || events.count("opened") == 2).await;
        assert_eq!(group.stats().connect_time.count(), 2);
        // Watched like any other: the first is gone when its peer is.
        origin.next().shutdown(std::net::Shutdown::Write).unwrap();
        eventually("noticed", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        close_and_check(pool).await;
        assert_eq!(origin.next_end(), Ended::Fin);
    }

    async fn an_adopted_connection_outlives_the_runtime_that_made_it(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let adopting = group.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let address = adopting.endpoint().as_ip().unwrap();
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                adopting.adopt(stream).await.unwrap();
            });
        })
        .join()
        .unwrap();
        let mut conn = group.checkout().await.unwrap();
        assert!(conn.is_reused());
        exchange!(conn);
        conn.release();
        close_and_check(pool).await;
    }

    async fn a_connection_in_blocking_mode_is_refused_or_served_and_not_lost(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        // Against the contract: it must be in non-blocking mode.
        if group.adopt(TcpStream::connect(origin.address).unwrap()).await.is_err() {
            assert_eq!(origin.next_end(), Ended::Fin);
        }
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        close_and_check(pool).await;
    }

    async fn a_caller_in_line_gets_an_adopted_connection(backend) {
        let hole = support::Blackhole::start();
        let origin = Echo::start();
        let pool = builder(backend).max_live(2).connect_timeout(ms(300)).build().unwrap();
        let group = pool.group(hole.address);
        let caller = tokio::spawn({
            let group = group.clone();
            async move {
                let mut conn = group.checkout().await.unwrap();
                exchange!(conn);
                conn.release();
            }
        });
        eventually("dialing", || group.stats().dialing == 1).await;
        group.adopt(nonblocking(origin.address)).await.unwrap();
        caller.await.unwrap();
        close_and_check(pool).await;
    }

    async fn what_there_is_no_room_for_comes_back(backend) {
        let origin = Echo::start();
        let pool = builder(backend).shards(1).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let refused = |refused: Adoption| async move {
            let Adoption::Refused { socket, error } = refused else { panic!("{refused:?}") };
            let mut stream = socket.into_tokio().unwrap();
            exchange!(stream);
            error
        };
        let full = group.adopt(nonblocking(origin.address)).await.unwrap_err();
        assert!(full.to_string().contains(&origin.address.to_string()), "{full}");
        let error = refused(full).await;
        assert!(matches!(error, CheckoutError::AtLimit { max_live: 1, .. }), "{error:?}");
        held.release();
        close_and_check(pool.clone()).await;
        let closed = group.adopt(nonblocking(origin.address)).await.unwrap_err();
        let error = refused(closed).await;
        assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");

        let pool = builder(backend).shards(1).slots_per_shard(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let full = group.adopt(nonblocking(origin.address)).await.unwrap_err();
        let error = refused(full).await;
        assert!(matches!(error, CheckoutError::Exhausted { slots: 1, .. }), "{error:?}");
        drop(held);
        close_and_check(pool).await;
    }

    async fn what_the_connector_refuses_is_closed(backend) {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(Picky), backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let error = group.adopt(nonblocking(origin.address)).await.unwrap_err();
        let Adoption::Failed(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::Connector);
        assert!(error.to_string().contains("not this one"), "{error}");
        assert_eq!(origin.next_end(), Ended::Fin);
        eventually("its place is free again", || group.stats().in_use == 0).await;
        let stats = group.stats();
        assert_eq!((stats.opened, stats.dialing, stats.dial_failures), (0, 0, 1), "{stats:?}");
        close_and_check(pool).await;
    }

    async fn an_adoption_that_nobody_waits_for_goes_on(backend) {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(Slow), backend).build().unwrap();
        let group = pool.group(origin.address);
        {
            let adoption = group.adopt(nonblocking(origin.address));
            assert!(tokio::time::timeout(ms(1), adoption).await.is_err());
        }
        eventually("at rest", || group.stats().idle == 1).await;
        {
            let adoption = group.adopt(nonblocking(origin.address));
            assert!(tokio::time::timeout(ms(1), adoption).await.is_err());
        }
        // Into a closed pool: it ends there.
        close_and_check(pool).await;
    }

    async fn a_connection_that_is_out_for_long_is_reported_once_and_when_it_comes_back(backend) {
        let origin = Echo::start();
        let events = Events::default();
        let pool = leaking(backend, 100).observer(events.observer()).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        let line = line!() + 1;
        let held = group.checkout().await.unwrap();
        eventually("suspected", || events.count("leak_suspected") == 1).await;
        let here = format!("leak_suspected: {}:{line} ", file!());
        assert_eq!(events.count(&here), 1, "{:?}", events.of("leak"));
        tokio::time::sleep(ms(300)).await;
        assert_eq!(events.count("leak_suspected"), 1, "once");
        assert_eq!(events.count("leak_returned"), 0);
        held.release();
        let here = format!("leak_returned: {}:{line} ", file!());
        assert_eq!(events.count(&here), 1, "{:?}", events.of("leak"));
        // Each time that it is out is told apart, however it ends and begins.
        let line = line!() + 1;
        let held = group.try_checkout().unwrap();
        eventually("suspected again", || events.count("leak_suspected") == 2).await;
        held.discard();
        assert_eq!(events.count(&format!("leak_returned: {}:{line} ", file!())), 1);
        let line = line!() + 1;
        let held = group.checkout_fresh().await.unwrap();
        eventually("suspected again", || events.count("leak_suspected") == 3).await;
        drop(held.detach());
        assert_eq!(events.count(&format!("leak_returned: {}:{line} ", file!())), 1);
        close_and_check(pool).await;
    }

    async fn who_is_quick_or_at_rest_or_elsewhere_is_no_leak(backend) {
        let origins = [Echo::start(), Echo::start()];
        let events = Events::default();
        let mut settings = Settings::default();
        let own = settings.endpoints.entry(origins[0].address.to_string()).or_default();
        own.health.leak_after_ms = Some(Some(300));
        let pool = tuned(Pool::builder(TcpConnector).settings(settings), backend)
            .observer(events.observer())
            .build()
            .unwrap();
        let [suspicious, trusting] = [&origins[0], &origins[1]].map(|o| pool.group(o.address));
        suspicious.checkout().await.unwrap().release();
        let other = trusting.checkout().await.unwrap();
        let held = suspicious.checkout_fresh().await.unwrap();
        eventually("one is", || events.count("leak_suspected") == 1).await;
        tokio::time::sleep(ms(300)).await;
        let all = events.of("leak");
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].ends_with(&format!("@{}", origins[0].address)), "{all:?}");
        other.release();
        assert_eq!(events.count("leak_returned"), 0);
        drop(held);
        close_and_check(pool).await;
    }

    async fn who_looks_for_leaks_later_finds_them_on_old_connections_too(backend) {
        let origin = Echo::start();
        let events = Events::default();
        let pool = builder(backend).observer(events.observer()).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        group.reconfigure(|policy| policy.health.leak_after_ms = Some(100)).unwrap();
        let held = group.checkout().await.unwrap();
        assert!(held.is_reused());
        eventually("suspected", || events.count("leak_suspected") == 1).await;
        held.release();
        assert_eq!(events.count("leak_returned"), 1);
        close_and_check(pool).await;
    }

    async fn a_warm_up_is_no_use(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .endpoint(|policy| policy.lifetime.max_uses = Some(1))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        assert_eq!(group.warm_up(2).await.ready, 2);
        assert_eq!(group.stats().idle, 2, "its one use is still to come");
        let conn = group.checkout().await.unwrap();
        assert_eq!((conn.is_reused(), conn.uses()), (true, 0));
        conn.release();
        eventually("used up", || group.stats().closed_for(CloseReason::MaxUses) == 1).await;
        close_and_check(pool).await;
    }

    async fn an_observer_is_told_what_happens(backend) {
        let origin = Echo::start();
        let events = Events::default();
        let pool = builder(backend).observer(events.observer()).build().unwrap();
        let group = pool.group(origin.address);
        let report = group.warm_up(2).await;
        assert_eq!(report.ready, 2);
        let at = format!("@{}", origin.address);
        assert_eq!(events.of("warmed_up"), [format!("warmed_up: 2 0 {at}")]);
        let opened = vec![format!("opened {at}"); 2];
        eventually("told of both", || events.of("opened") == opened).await;
        for _ in 0..3 {
            // In turn: a FIFO.
            group.checkout().await.unwrap().release();
        }
        tokio::time::sleep(ms(300)).await;
        group.suspend();
        group.resume();
        assert_eq!(group.drain(Duration::from_secs(5)).await.left, 0);
        let closed = events.of("closed: pool_closed");
        assert_eq!(closed.len(), 2, "{closed:?}");
        let mut uses = 0;
        for event in &closed {
            let words: Vec<_> = event.split([' ', '@']).collect();
            assert!(words[2].parse::<u32>().unwrap() >= 200, "its age: {event}");
            uses += words[3].parse::<u32>().unwrap();
        }
        assert_eq!(uses, 3, "{closed:?}");
        for label in ["suspended", "resumed", "drained"] {
            assert_eq!(events.of(label), [format!("{label} {at}")]);
        }

        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let report = pool.group(nobody).warm_up(2).await;
        assert_eq!((report.ready, report.failures.len()), (0, 2));
        assert_eq!(events.of("warmed_up: 0 2").len(), 1);
        let failed = events.of("dial_failed");
        assert_eq!(failed.len(), 2);
        assert!(failed.iter().all(|event| event.contains("refused") && event.ends_with(&format!("@{nobody}"))), "{failed:?}");
        close_and_check(pool).await;
    }

    async fn an_observer_that_panics_is_told_on_and_harms_nobody(backend) {
        let origin = Echo::start();
        let events = Events::default();
        let note = events.observer();
        let pool = builder(backend)
            .max_live(2)
            .observer(move |event: &PoolEvent<'_>| {
                note(event);
                panic!("an observer's bug, on purpose");
            })
            .endpoint(|policy| policy.health.leak_after_ms = Some(100))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        for _ in 0..3 {
            let mut conn = group.checkout().await.unwrap();
            exchange!(conn);
            conn.discard();
        }
        let held = group.checkout().await.unwrap();
        eventually("told of a leak", || events.count("leak_suspected") == 1).await;
        held.release();
        group.suspend();
        group.resume();
        close_and_check(pool).await;
        let told = ["opened", "closed", "leak_returned", "suspended", "resumed"];
        assert_eq!(told.map(|label| events.count(label)), [4, 4, 1, 1, 1]);
    }

    async fn an_observer_may_ask_for_statistics(backend) {
        let origin = Echo::start();
        let pools: Arc<std::sync::Mutex<Option<Pool<TcpConnector>>>> = Arc::default();
        let (seen, most) = (Arc::clone(&pools), Arc::new(AtomicUsize::new(0)));
        let noted = Arc::clone(&most);
        let pool = builder(backend)
            .observer(move |_: &PoolEvent<'_>| {
                if let Some(pool) = &*seen.lock().unwrap() {
                    noted.fetch_max(pool.stats().endpoints.len(), Ordering::SeqCst);
                }
            })
            .build()
            .unwrap();
        *pools.lock().unwrap() = Some(pool.clone());
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().discard();
        group.suspend();
        group.resume();
        assert_eq!(group.drain(Duration::from_secs(5)).await.left, 0);
        assert_eq!(most.load(Ordering::SeqCst), 1);
        *pools.lock().unwrap() = None;
        close_and_check(pool).await;
    }

    async fn those_that_rest_longest_are_evicted_first_whosever_they_are(backend) {
        let origins = [Echo::start(), Echo::start(), Echo::start()];
        let pool = builder(backend).build().unwrap();
        let groups = [0, 1, 2].map(|n: usize| pool.group(origins[n].address));
        // The last one first.
        for group in groups.iter().rev() {
            group.checkout().await.unwrap().release();
            tokio::time::sleep(ms(160)).await;
        }
        let idle = || [0, 1, 2].map(|n: usize| groups[n].stats().idle);
        assert_eq!((pool.evict_idle(0), idle()), (0, [1, 1, 1]));
        assert_eq!((pool.evict_idle(1), idle()), (1, [1, 1, 0]));
        // Who served meanwhile is the youngest.
        groups[1].checkout().await.unwrap().release();
        tokio::time::sleep(ms(160)).await;
        assert_eq!((pool.evict_idle(1), idle()), (1, [0, 1, 0]));
        let held = groups[0].checkout().await.unwrap();
        assert_eq!((pool.evict_idle(99), idle()), (1, [0, 0, 0]));
        assert_eq!(pool.evict_idle(1), 0, "what is in use is not at rest");
        held.release();
        eventually("closed", || {
            groups.iter().map(|g| g.stats().closed_for(CloseReason::Evicted)).sum::<u64>() == 3
        })
        .await;
        close_and_check(pool).await;
    }

    async fn endpoints_have_the_settings_of_a_file(backend) {
        let origins = [Echo::start(), Echo::start()];
        let text = format!(
            r#"
            shards = 2
            pin = false
            slots_per_shard = 64

            [endpoint.capacity]
            max_live = 2
            max_idle = 2
            at_limit = "reject"

            [endpoints."{}".capacity]
            max_live = 1
            max_idle = 0
            at_limit = "wait"

            [endpoints."{}".timeouts]
            acquire_timeout_ms = 150
            "#,
            origins[1].address, origins[1].address
        );
        let settings: Settings = toml::from_str(&text).unwrap();
        let pool = Pool::builder(TcpConnector)
            .settings(settings)
            .backend(backend)
            .build()
            .unwrap();
        assert_eq!(pool.shards().len(), 2);
        let [usual, own] = [&origins[0], &origins[1]].map(|o| pool.group(o.address));
        let held = [usual.checkout().await.unwrap(), usual.checkout().await.unwrap()];
        let error = usual.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::AtLimit { max_live: 2, .. }), "{error:?}");
        let only = own.checkout().await.unwrap();
        let error = own.checkout().await.unwrap_err();
        let CheckoutError::Timeout { after, max_live: 1, .. } = error else { panic!("{error:?}") };
        assert_eq!(after, ms(150));
        drop(held);
        only.release();
        eventually("none rests", || own.stats().closed_for(CloseReason::Surplus) == 1).await;
        assert_eq!(usual.stats().idle, 2);
        assert_eq!(own.settings().timeouts.acquire_timeout_ms, 150);
        close_and_check(pool).await;
    }

    async fn times_are_measured(backend) {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(Slow), backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let stats = group.stats();
        assert_eq!((stats.connect_time.count(), stats.wait_time.count()), (0, 0));
        let held = group.checkout().await.unwrap();
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { group.checkout().await.unwrap().release() }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        tokio::time::sleep(ms(100)).await;
        held.release();
        waiting.await.unwrap();
        // A hit waits for nothing.
        group.checkout().await.unwrap().release();
        let stats = group.stats();
        assert_eq!((stats.connect_time.count(), stats.wait_time.count()), (1, 2), "{stats:?}");
        assert!(stats.connect_time.mean().unwrap() >= ms(50), "{:?}", stats.connect_time);
        assert!(stats.wait_time.sum() >= ms(150), "{:?}", stats.wait_time);
        // A dial that fails, or a caller that gives up, is not counted.
        let error = tokio::time::timeout(ms(10), {
            let _held = group.checkout().await.unwrap();
            group.checkout_fresh()
        });
        drop(error.await);
        let nobody = pool.group(SocketAddr::from(([127, 0, 0, 1], free_port())));
        nobody.checkout().await.unwrap_err();
        let stats = nobody.stats();
        assert_eq!((stats.connect_time.count(), stats.wait_time.count()), (0, 0));
        assert_eq!(pool.stats().endpoints.iter().map(|g| g.dial_failures).sum::<u64>(), 1);
        close_and_check(pool).await;
    }
}

#[test]
fn a_file_that_is_wrong_is_refused_by_the_path_of_what_is_wrong() {
    let refused = |text: &str| match toml::from_str::<Settings>(text) {
        Err(error) => error.to_string(),
        Ok(settings) => {
            let error = Pool::builder(TcpConnector).settings(settings).build().unwrap_err();
            assert!(matches!(error, BuildError::Settings(_)), "{error:?}");
            error.to_string()
        }
    };
    for (text, named) in [
        ("[endpoint.capacity]\nmax_live = 0", "endpoint.capacity.max_live is 0"),
        (
            "[endpoints.\"10.0.0.1:80\".capacity]\nmax_live = 9",
            "endpoints.\"10.0.0.1:80\".capacity.max_idle is 128",
        ),
        ("[endpoints.\"10.0.0.1\".capacity]\nmax_live = 9", "endpoints.\"10.0.0.1\""),
        ("[endpoint.health]\nping_interval_ms = 10", "endpoint.health.ping_timeout_ms is 1000"),
        // What the format itself refuses it shows by line.
        ("[endpoint.capacity]\nmax_life = 1", "max_life"),
        ("[endpoint.capacity]\nmax_live = \"many\"", "max_live = \"many\""),
        ("shards = 0", "shards is 0"),
        ("backend = \"kqueue\"", "kqueue"),
    ] {
        let error = refused(text);
        assert!(error.contains(named), "{named}: {error}");
    }
}

/// A pool that takes connections for lost after so long.
fn leaking(backend: corepool::Backend, after: u32) -> corepool::Builder<TcpConnector> {
    builder(backend).endpoint(|policy| policy.health.leak_after_ms = Some(after))
}

/// A connection that was made elsewhere.
fn nonblocking(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// A connector with a handshake that takes its time.
struct Slow;

impl Connector for Slow {
    type Connection = Tcp;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Tcp, BoxError> {
        tokio::time::sleep(ms(50)).await;
        TcpConnector.connect(socket, endpoint).await
    }
}

/// A connector that likes no connection.
struct Picky;

impl Connector for Picky {
    type Connection = Tcp;

    async fn connect(&self, _: Socket, _: &Endpoint) -> Result<Tcp, BoxError> {
        Err("not this one".into())
    }
}
