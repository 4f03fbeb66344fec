//! How dead, odd and silent connections are found, on real sockets and both drivers.
#![cfg(target_os = "linux")]

mod support;

#[path = "support/peers.rs"]
mod peers;

use std::{
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use corepool::{
    BoxError, CheckoutError, CloseReason, Condition, Connection, Connector, DialErrorKind,
    Endpoint, Inspect, Pool, RawConnector, Socket, Tcp, TcpConnector, settings::Peek,
};
use peers::{blurt, reset};
use support::{Echo, builder, close_and_check, eventually, tuned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

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
    async fn fin_and_reset_at_rest_are_counted_apart(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(2).await;
        origin.next().shutdown(Shutdown::Write).unwrap();
        eventually("the FIN is noticed", || group.stats().closed_total() == 1).await;
        reset(origin.next());
        eventually("the RST is noticed", || group.stats().closed_total() == 2).await;
        let stats = group.stats();
        let of = |reason| stats.closed_for(reason);
        assert_eq!((of(CloseReason::PeerClosed), of(CloseReason::PeerReset)), (1, 1), "{stats:?}");
        assert!(group.try_checkout().is_none());
        close_and_check(pool).await;
    }

    async fn a_reset_in_use_is_counted_as_a_reset_when_it_comes_back(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let conn = group.checkout().await.unwrap();
        reset(origin.next());
        // The watch marks it; nothing says when.
        tokio::time::sleep(ms(100)).await;
        conn.release();
        eventually("closed", || group.stats().closed_total() == 1).await;
        assert_eq!(group.stats().closed_for(CloseReason::PeerReset), 1, "{:?}", group.stats());
        close_and_check(pool).await;
    }

    async fn a_reset_that_only_the_look_can_see_is_counted_as_a_reset(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .shards(1)
            .endpoint(|policy| policy.health.peek = Peek::Always)
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        let seen = group.clone();
        // On the shard's own thread nobody can report it in between.
        let found = pool.shards()[0].spawn(async move {
            group.checkout().await.unwrap().release();
            reset(origin.next());
            group.try_checkout().is_some()
        });
        assert!(!found.await.unwrap(), "handed out after a reset");
        eventually("closed", || seen.stats().closed_total() == 1).await;
        assert_eq!(seen.stats().closed_for(CloseReason::PeerReset), 1, "{:?}", seen.stats());
        drop(seen);
        close_and_check(pool).await;
    }

    async fn with_peek_always_a_fin_that_was_not_reported_is_not_handed_out(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .shards(1)
            .endpoint(|policy| policy.health.peek = Peek::Always)
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        let seen = group.clone();
        let found = pool.shards()[0].spawn(async move {
            group.checkout().await.unwrap().release();
            origin.next().shutdown(Shutdown::Write).unwrap();
            std::thread::sleep(ms(50));
            group.try_checkout().is_some()
        });
        assert!(!found.await.unwrap(), "handed out after a FIN");
        eventually("closed", || seen.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        close_and_check(pool).await;
    }

    async fn with_peek_never_nobody_looks_at_what_the_reactor_does_not_report(backend) {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(RawConnector), backend)
            .endpoint(|policy| policy.health.peek = Peek::Never)
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        blurt(&origin.next());
        let conn = group.checkout().await.unwrap();
        assert!(conn.is_reused());
        conn.discard();
        close_and_check(pool).await;
    }

    async fn with_peek_always_unexpected_bytes_are_never_handed_out(backend) {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(RawConnector), backend)
            .endpoint(|policy| policy.health.peek = Peek::Always)
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        blurt(&origin.next());
        let conn = group.checkout().await.unwrap();
        assert!(!conn.is_reused(), "handed out with bytes of nobody's response");
        conn.release();
        let counted = || group.stats().closed_for(CloseReason::UnexpectedBytes) == 1;
        eventually("counted apart", counted).await;
        assert_eq!(group.stats().closed_total(), 1);
        assert!(group.checkout().await.unwrap().is_reused(), "the new one is as good as any");
        close_and_check(pool).await;
    }

    async fn with_peek_after_a_while_only_long_rest_is_looked_into(backend) {
        for (threshold, rest, handed_out) in [(60_000, 0, true), (100, 400, false)] {
            let origin = Echo::start();
            let pool = tuned(Pool::builder(RawConnector), backend)
                .endpoint(|policy| policy.health.peek = Peek::IdleLongerThanMs(threshold))
                .build()
                .unwrap();
            let group = pool.group(origin.address);
            group.checkout().await.unwrap().release();
            blurt(&origin.next());
            tokio::time::sleep(ms(rest)).await;
            let found = group.try_checkout();
            assert_eq!(found.is_some(), handed_out, "{threshold} ms");
            if let Some(conn) = found {
                conn.discard();
            }
            close_and_check(pool).await;
        }
    }

    async fn a_fresh_connection_is_not_peeked_at_and_a_reused_one_is_once(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = tuned(Pool::builder(connector), backend)
            .endpoint(|policy| policy.health.peek = Peek::Always)
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        for round in 0..4 {
            let conn = group.checkout().await.unwrap();
            assert_eq!(script.peeks(), round);
            conn.release();
            assert_eq!(script.peeks(), round, "coming back");
        }
        close_and_check(pool).await;
    }

    async fn siblings_of_a_connection_that_was_reset_are_looked_at_once(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = tuned(Pool::builder(connector), backend).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(2).await;
        group.try_checkout().unwrap().release();
        assert_eq!(script.peeks(), 0, "nothing has happened");
        tokio::time::sleep(ms(150)).await; // to another tick than that of its rest
        reset(origin.next());
        eventually("one is gone", || group.stats().idle == 1).await;
        tokio::time::sleep(ms(150)).await;
        for _ in 0..2 {
            let conn = group.checkout().await.unwrap();
            assert!(conn.is_reused());
            assert_eq!(script.peeks(), 1, "once is enough, use is a sign of life");
            conn.release();
            tokio::time::sleep(ms(150)).await;
        }
        close_and_check(pool).await;
    }

    async fn a_suspect_with_unexpected_bytes_is_not_handed_out(backend) {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(RawConnector), backend).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(2).await;
        let (victim, suspect) = (origin.next(), origin.next());
        blurt(&suspect);
        tokio::time::sleep(ms(150)).await;
        reset(victim);
        eventually("one is gone", || group.stats().idle == 1).await;
        assert!(group.try_checkout().is_none());
        let counted = || group.stats().closed_for(CloseReason::UnexpectedBytes) == 1;
        eventually("the look found the bytes", counted).await;
        close_and_check(pool).await;
    }

    async fn an_answered_ping_is_no_use_no_reuse_and_no_end_of_rest(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = tuned(Pool::builder(connector), backend)
            .max_live(1)
            .idle_timeout(ms(800))
            .endpoint(|policy| {
                policy.health.ping_interval_ms = Some(200);
                policy.health.ping_timeout_ms = 200;
            })
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        eventually("pinged twice", || script.pings() >= 2).await;
        let conn = group.checkout().await.unwrap();
        assert_eq!((conn.uses(), group.stats().reused, group.stats().opened), (1, 1, 1));
        assert!(conn.idle_for() >= ms(250), "a ping is no end of rest: {:?}", conn.idle_for());
        conn.release();
        eventually("pings do not put off the idle timeout", || {
            group.stats().closed_for(CloseReason::IdleTimeout) == 1
        })
        .await;
        assert_eq!(group.stats().closed_total(), 1);
        close_and_check(pool).await;
    }

    async fn a_connection_in_use_is_not_pinged(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 200, 1).build().unwrap();
        let group = pool.group(origin.address);
        let conn = group.checkout().await.unwrap();
        tokio::time::sleep(ms(300)).await;
        assert_eq!(script.pings(), 0);
        conn.release();
        eventually("at rest it is", || script.pings() > 0).await;
        close_and_check(pool).await;
    }

    async fn a_peer_that_does_not_answer_a_ping_in_time_is_taken_for_dead(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        // However many failures may be: half an answer may be on its way.
        let pool = pinging(connector, backend, 200, 255).build().unwrap();
        let group = pool.group(origin.address);
        script.answer(How::Never);
        group.checkout().await.unwrap().release();
        let failed = || group.stats().closed_for(CloseReason::PingFailed) == 1;
        eventually("ended", failed).await;
        assert_eq!(script.pings(), 1);
        origin.next_end();
        close_and_check(pool).await;
    }

    async fn a_connection_ends_at_so_many_failed_pings_in_a_row(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 200, 3).build().unwrap();
        let group = pool.group(origin.address);
        script.answer(How::Error);
        group.checkout().await.unwrap().release();
        let failed = || group.stats().closed_for(CloseReason::PingFailed) == 1;
        eventually("ended", failed).await;
        assert_eq!(script.pings(), 3);
        close_and_check(pool).await;
    }

    async fn an_answer_between_two_failures_begins_the_count_anew(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 200, 2).build().unwrap();
        let group = pool.group(origin.address);
        script.answer(How::EverySecond);
        group.checkout().await.unwrap().release();
        eventually("pinged", || script.pings() >= 4).await;
        assert_eq!(group.stats().closed_total(), 0, "{:?}", group.stats());
        close_and_check(pool).await;
    }

    async fn a_ping_that_panics_ends_its_connection_alone(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 200, 255).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        script.answer(How::Panic);
        group.checkout().await.unwrap().release();
        let failed = || group.stats().closed_for(CloseReason::PingFailed) == 1;
        eventually("ended", failed).await;
        script.answer(How::Well);
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn.0);
        conn.release();
        let before = script.pings();
        eventually("pings go on", || script.pings() > before).await;
        close_and_check(pool).await;
    }

    async fn a_caller_that_comes_during_a_ping_is_served_by_its_connection(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 500, 1).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        script.answer(How::AtTheGate);
        group.checkout().await.unwrap().release();
        eventually("pinged", || script.pings() == 1).await;
        assert!(group.try_checkout().is_none(), "one owner at a time");
        let caller = tokio::spawn({
            let group = group.clone();
            async move {
                let mut conn = group.checkout().await.unwrap();
                exchange!(conn.0);
                let uses = conn.uses();
                conn.release();
                uses
            }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        script.answer(How::Well);
        script.gate.add_permits(1);
        assert_eq!((caller.await.unwrap(), group.stats().opened), (1, 1));
        close_and_check(pool).await;
    }

    async fn a_caller_that_comes_during_a_ping_without_answer_gets_a_new_connection(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 200, 1).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        script.answer(How::Never);
        group.checkout().await.unwrap().release();
        eventually("pinged", || script.pings() == 1).await;
        let conn = group.checkout().await.unwrap();
        assert!(!conn.is_reused());
        script.answer(How::Well);
        conn.release();
        close_and_check(pool).await;
    }

    async fn a_pool_that_is_closed_during_a_ping_waits_for_it(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 250, 1).build().unwrap();
        let group = pool.group(origin.address);
        script.answer(How::Never);
        group.checkout().await.unwrap().release();
        eventually("pinged", || script.pings() == 1).await;
        let report = pool.close_within(ms(50)).await;
        assert_eq!(report.left, 1);
        // Until its timeout.
        close_and_check(pool).await;
    }

    async fn a_pool_that_is_dropped_during_a_ping_ends_its_connection(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 200, 1).build().unwrap();
        script.answer(How::Never);
        pool.group(origin.address).checkout().await.unwrap().release();
        eventually("pinged", || script.pings() == 1).await;
        drop(pool);
        origin.next_end();
    }

    async fn a_ping_of_a_resting_connection_calls_for_no_other(backend) {
        let origin = Echo::start();
        let (connector, script) = Asking::new();
        let pool = pinging(connector, backend, 200, 1)
            .endpoint(|policy| policy.capacity.min_idle = 3)
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        eventually("as many rest as are wanted", || group.stats().idle == 3).await;
        eventually("pinged", || script.pings() >= 6).await;
        assert_eq!(group.stats().opened, 3, "who answers a ping is at rest");
        close_and_check(pool).await;
    }

    async fn the_usual_ping_is_a_look_at_the_socket(backend) {
        let origin = Echo::start();
        let pool = pinging(RawConnector, backend, 200, 1).build().unwrap();
        let group = pool.group(origin.address);
        group.checkout().await.unwrap().release();
        tokio::time::sleep(ms(400)).await;
        assert_eq!(group.stats().idle, 1, "nothing to be seen");
        blurt(&origin.next());
        let failed = || group.stats().closed_for(CloseReason::PingFailed) == 1;
        eventually("found without a checkout", failed).await;
        close_and_check(pool).await;
    }

    async fn an_after_connect_hook_that_refuses_fails_the_dial_for_its_cause(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .after_connect(|_, info| Err(format!("{} is not for us", info.endpoint).into()))
            .build()
            .unwrap();
        let error = pool.group(origin.address).checkout().await.unwrap_err();
        let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::Connector);
        assert!(error.to_string().contains(&format!("{} is not for us", origin.address)));
        origin.next_end();
        let stats = pool.group(origin.address).stats();
        assert_eq!((stats.opened, stats.dial_failures), (0, 1));
        close_and_check(pool).await;
    }

    async fn an_after_connect_hook_that_panics_fails_one_dial(backend) {
        let origin = Echo::start();
        let first = AtomicBool::new(true);
        let pool = builder(backend)
            .max_live(1)
            .after_connect(move |_, _| {
                assert!(!first.swap(false, Ordering::SeqCst), "a hook's bug, on purpose");
                Ok(())
            })
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        // A caller that was not in line yet when it failed gets the next dial instead.
        let mut conn = match group.checkout().await {
            Ok(conn) => conn,
            Err(error) => {
                assert!(error.to_string().contains("after_connect"), "{error}");
                group.checkout().await.unwrap()
            }
        };
        assert_eq!((group.stats().dial_failures, group.stats().opened), (1, 1));
        exchange!(conn);
        conn.release();
        close_and_check(pool).await;
    }

    async fn hooks_see_each_connection_at_its_time(backend) {
        let origin = Echo::start();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let seen = Arc::clone(&seen);
            move |uses: u32| seen.lock().unwrap().push(format!("{what} {uses}"))
        };
        let (made, reused, back) = (note("connect"), note("reuse"), note("return"));
        let pool = builder(backend)
            .after_connect(move |_, info| {
                made(info.uses);
                Ok(())
            })
            .before_reuse(move |_, info| {
                reused(info.uses);
                true
            })
            .after_return(move |_, info| {
                back(info.uses);
                true
            })
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        for _ in 0..2 {
            let mut conn = group.checkout().await.unwrap();
            exchange!(conn);
            conn.release();
        }
        // One that ends does not come back.
        group.checkout().await.unwrap().discard();
        let expected = ["connect 0", "return 0", "reuse 1", "return 1", "reuse 2"];
        assert_eq!(*seen.lock().unwrap(), expected);
        close_and_check(pool).await;
    }

    async fn what_a_before_reuse_hook_refuses_is_closed_and_another_one_handed_out(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(2).before_reuse(|_, _| false).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(2).await;
        for _ in 0..2 {
            let conn = group.checkout().await.unwrap();
            assert!(!conn.is_reused());
            conn.release();
        }
        // Those of the warm-up, the first of the two above, and whatever came to rest before its
        // caller was in line.
        eventually("closed", || group.stats().in_use == 0).await;
        let stats = group.stats();
        let refused = stats.closed_for(CloseReason::Unusable);
        assert_eq!(refused, stats.opened - u64::from(stats.idle), "{stats:?}");
        assert!(refused >= 3, "{stats:?}");
        close_and_check(pool).await;
    }

    async fn what_an_after_return_hook_refuses_does_not_rest(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).after_return(|_, _| false).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..3 {
            let conn = group.checkout().await.unwrap();
            assert_eq!(conn.uses(), 0);
            conn.release();
        }
        eventually("refused", || group.stats().closed_for(CloseReason::Unusable) == 3).await;
        close_and_check(pool).await;
    }

    async fn hooks_that_panic_lose_nothing(backend) {
        let origin = Echo::start();
        let bug = Arc::new(AtomicUsize::new(0));
        let hook = |which: usize| {
            let bug = Arc::clone(&bug);
            move |_: &mut Tcp, _: &corepool::ConnectionInfo<'_>| {
                assert!(bug.load(Ordering::SeqCst) != which, "a hook's bug, on purpose");
                true
            }
        };
        let pool = builder(backend)
            .max_live(1)
            .before_reuse(hook(1))
            .after_return(hook(2))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        let caller = || {
            let group = group.clone();
            tokio::spawn(async move { group.checkout().await.unwrap().release() })
        };
        caller().await.unwrap();
        for which in [1, 2] {
            bug.store(which, Ordering::SeqCst);
            assert!(caller().await.unwrap_err().is_panic());
            bug.store(0, Ordering::SeqCst);
            // The permit has come back.
            caller().await.unwrap();
        }
        let ended = || group.stats().closed_for(CloseReason::Unusable) == 2;
        eventually("both ended", ended).await;
        close_and_check(pool).await;
    }

    async fn a_hook_that_panics_while_its_caller_does_ends_the_connection_and_no_more(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .after_return(|_, _| panic!("a hook's bug, on purpose"))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        let caller = tokio::spawn({
            let group = group.clone();
            async move {
                let _conn = group.checkout().await.unwrap();
                panic!("the caller's bug, on purpose");
            }
        });
        assert!(caller.await.unwrap_err().is_panic());
        eventually("ended", || group.stats().closed_total() == 1).await;
        close_and_check(pool).await;
    }

    async fn the_guard_tells_what_it_knows(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        for round in 0..2 {
            let mut conn = group.checkout().await.unwrap();
            assert_eq!((conn.is_reused(), conn.uses()), (round > 0, round));
            assert_eq!(*conn.endpoint(), Endpoint::from(origin.address));
            if round == 0 {
                assert_eq!(conn.idle_for(), Duration::ZERO);
            } else {
                assert!(conn.idle_for() >= ms(100) && conn.age() >= conn.idle_for(), "{round}");
            }
            exchange!(conn);
            conn.release();
            tokio::time::sleep(ms(250)).await;
        }
        close_and_check(pool).await;
    }

    async fn the_guard_tells_what_was_written(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let mut conn = group.checkout().await.unwrap();
        assert_eq!(conn.was_written(), Some(false));
        // A read that finds nothing writes nothing.
        let read = tokio::time::timeout(ms(20), conn.read(&mut [0; 1])).await;
        assert!(read.is_err());
        conn.flush().await.unwrap();
        assert_eq!(conn.was_written(), Some(false), "read only");
        exchange!(conn);
        assert_eq!(conn.was_written(), Some(true));
        conn.release();

        let conn = group.checkout().await.unwrap();
        assert!(conn.is_reused());
        assert_eq!(conn.was_written(), Some(false), "by this caller");
        let _ = conn.peer_addr().unwrap();
        assert_eq!(conn.was_written(), None, "reached into");
        conn.discard();
        close_and_check(pool).await;
    }

    async fn what_was_written_is_not_forgotten_when_the_guard_is_reached_into(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let mut conn = pool.group(origin.address).checkout().await.unwrap();
        exchange!(conn);
        let _ = conn.peer_addr().unwrap();
        assert_eq!(conn.was_written(), Some(true), "that much is known");
        conn.release();
        close_and_check(pool).await;
    }

    async fn a_connection_that_counts_tells_through_the_guard_and_past_it(backend) {
        let origin = Echo::start();
        let (connector, _) = Asking::new();
        let pool = tuned(Pool::builder(connector), backend).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..2 {
            let mut conn = group.checkout().await.unwrap();
            let _ = conn.0.peer_addr().unwrap();
            assert_eq!(conn.was_written(), Some(false));
            exchange!(conn.0);
            conn.1 += 4;
            assert_eq!(conn.was_written(), Some(true));
            conn.release();
        }
        close_and_check(pool).await;
    }

    async fn a_fresh_checkout_passes_those_at_rest(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(3).build().unwrap();
        let group = pool.group(origin.address);
        let _ = group.warm_up(2).await;
        let mut conn = group.checkout_fresh().await.unwrap();
        assert_eq!((conn.is_reused(), conn.uses(), conn.idle_for()), (false, 0, Duration::ZERO));
        exchange!(conn);
        conn.release();
        assert_eq!((group.stats().opened, group.stats().idle), (3, 3));
        close_and_check(pool).await;
    }

    async fn a_fresh_checkout_at_the_limit_waits_and_takes_the_place_of_what_comes_back(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let fresh = tokio::spawn({
            let group = group.clone();
            async move {
                let conn = group.checkout_fresh().await.unwrap();
                let reused = conn.is_reused();
                conn.release();
                reused
            }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        held.release();
        assert!(!fresh.await.unwrap());
        eventually("replaced", || group.stats().closed_for(CloseReason::Replaced) == 1).await;
        assert_eq!(group.stats().opened, 2);
        close_and_check(pool).await;
    }

    async fn a_fresh_checkout_that_is_dropped_loses_nothing(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        for patience in [0, 100, 1_000, 5_000] {
            let fresh = tokio::time::timeout(Duration::from_micros(patience), group.checkout_fresh());
            drop(fresh.await);
        }
        let fresh = group.checkout_fresh().await.unwrap();
        assert!(!fresh.is_reused());
        fresh.release();
        close_and_check(pool).await;
    }

    async fn a_fresh_checkout_of_a_closed_pool_is_told_so(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        pool.close().await;
        let error = group.checkout_fresh().await.unwrap_err();
        assert!(matches!(error, CheckoutError::Closed { .. }), "{error:?}");
        close_and_check(pool).await;
    }

    async fn a_peer_that_speaks_first_is_heard_and_not_dialled_over_and_over(backend) {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            let mut streams = Vec::new();
            while let Ok((mut stream, _)) = listener.accept() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"220 hi\r\n");
                streams.push(stream);
            }
        });
        // A connector that is slow enough for the greeting to be there first.
        let pool = tuned(Pool::builder(Slow), backend).acquire_timeout(ms(1500)).build().unwrap();
        let group = pool.group(address);
        let mut conn = group.checkout().await.unwrap();
        let mut greeting = [0; 8];
        conn.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 hi\r\n");
        conn.release();
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
        close_and_check(pool).await;
    }
}

/// A pool that pings, with so much patience.
fn pinging<C: Connector>(
    connector: C,
    backend: corepool::Backend,
    interval_ms: u32,
    failures: u32,
) -> corepool::Builder<C> {
    tuned(Pool::builder(connector), backend).endpoint(|policy| {
        policy.health.ping_interval_ms = Some(interval_ms);
        policy.health.ping_timeout_ms = interval_ms;
        policy.health.ping_max_failures = failures;
    })
}

/// A connector that asks by a real exchange with an [`Echo`], or does as it is told.
struct Asking(Arc<Script>);

/// Its connections, which count what is written, as their owners say.
struct Asked(Tcp, u64, Arc<Script>);

struct Script {
    how: Mutex<How>,
    pings: AtomicUsize,
    peeks: AtomicUsize,
    gate: Semaphore,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Well,
    Error,
    EverySecond,
    Never,
    Panic,
    AtTheGate,
}

impl Asking {
    fn new() -> (Self, Arc<Script>) {
        let script = Arc::new(Script {
            how: Mutex::new(How::Well),
            pings: AtomicUsize::new(0),
            peeks: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        (Self(Arc::clone(&script)), script)
    }
}

impl Script {
    fn answer(&self, how: How) {
        *self.how.lock().unwrap() = how;
    }

    fn pings(&self) -> usize {
        self.pings.load(Ordering::SeqCst)
    }

    fn peeks(&self) -> usize {
        self.peeks.load(Ordering::SeqCst)
    }
}

impl Connector for Asking {
    type Connection = Asked;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Asked, BoxError> {
        Ok(Asked(TcpConnector.connect(socket, endpoint).await?, 0, Arc::clone(&self.0)))
    }

    async fn ping(&self, connection: &mut Asked) -> Result<(), BoxError> {
        let script = &*self.0;
        let nth = script.pings.fetch_add(1, Ordering::SeqCst) + 1;
        let how = *script.how.lock().unwrap();
        match how {
            How::Error => return Err("no, on purpose".into()),
            How::EverySecond if nth % 2 == 1 => return Err("no, on purpose".into()),
            How::Panic => panic!("a ping's bug, on purpose"),
            How::Never => std::future::pending().await,
            How::AtTheGate => script.gate.acquire().await?.forget(),
            How::Well | How::EverySecond => {}
        }
        connection.0.write_all(b"ping").await?;
        connection.0.read_exact(&mut [0; 4]).await?;
        Ok(())
    }
}

impl Connection for Asked {
    fn inspect(&mut self, how: Inspect) -> Condition {
        if how == Inspect::Peek {
            self.2.peeks.fetch_add(1, Ordering::SeqCst);
        }
        self.0.inspect(how)
    }

    fn bytes_written(&self) -> Option<u64> {
        Some(self.1)
    }

    fn into_socket(self) -> Option<Socket> {
        self.0.into_socket()
    }
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
