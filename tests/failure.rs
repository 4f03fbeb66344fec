//! What failed dials lead to: who is told, when nobody dials, and how an origin comes back.

#[path = "support/callers.rs"]
mod callers;
#[path = "support/gate.rs"]
mod gate;
#[path = "support/origin.rs"]
mod origin;
mod support;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use callers::{call, call_in_order, dial_error, hold, is_open, outcomes, rest};
use corepool::{
    Backend, BreakerMode, BreakerState, Builder, CheckoutError, CloseReason, Connector,
    DialErrorKind, EndpointSettings, Group, Pool, PoolEvent, SocketOptions,
    settings::{AtLimit, AtOpen},
};
use gate::Gate;
use origin::Origin;
use support::{builder, close_and_check, eventually, tuned};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A breaker that opens for so long, each time alike, and a gate that fails all handshakes.
fn gated(backend: Backend, gate: &Gate, open_ms: u32) -> Builder<Gate> {
    tuned(Pool::builder(gate.clone()), backend).endpoint(|policy| opens_for(policy, open_ms))
}

fn opens_for(policy: &mut EndpointSettings, open_ms: u32) {
    policy.failure.backoff_base_ms = open_ms;
    policy.failure.backoff_max_ms = policy.failure.backoff_max_ms.max(open_ms);
    policy.failure.backoff_multiplier_percent = 100;
    policy.failure.backoff_jitter_percent = 0;
}

/// Long enough that it does not end by itself.
const FOR_LONG: u32 = 120_000;

/// Has the breaker open, by dials that fail.
async fn trip(group: &Group<Gate>, gate: &Gate) {
    gate.fail(true);
    let most = group.settings().failure.breaker_consecutive_failures;
    for _ in 0..most {
        let error = group.checkout_fresh().await.unwrap_err();
        assert_eq!(dial_error(&error), Some(DialErrorKind::Connector), "{error:?}");
    }
    assert_eq!(group.breaker(), BreakerState::Open);
}

async fn half_open<C: Connector>(group: &Group<C>) {
    eventually("its time is over", || group.breaker() == BreakerState::HalfOpen).await;
}

fn left(error: &CheckoutError) -> Option<Duration> {
    match error {
        CheckoutError::BreakerOpen { left, .. } => *left,
        _ => panic!("{error:?}"),
    }
}

// Open.
on_both_drivers! {
    async fn refused_dials_open_it_and_nobody_dials_while_it_is_open(backend) {
        let origin = Origin::down();
        let pool = builder(backend).endpoint(|policy| opens_for(policy, FOR_LONG)).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..5 {
            let error = group.checkout().await.unwrap_err();
            assert_eq!(dial_error(&error), Some(DialErrorKind::Refused), "{error:?}");
        }
        assert_eq!(group.breaker(), BreakerState::Open);
        origin.rise();
        let asked = Instant::now();
        for _ in 0..20 {
            let error = group.checkout().await.unwrap_err();
            let left = left(&error).unwrap();
            assert!(ms(60_000) < left && left <= ms(120_000), "{left:?}");
            let text = error.to_string();
            assert!(text.contains(&origin.address.to_string()) && text.contains("ms more"), "{text}");
        }
        assert!(asked.elapsed() < ms(4_000), "at once");
        let stats = group.stats();
        assert_eq!((stats.dial_failures, stats.opened, stats.breaker), (5, 0, BreakerState::Open));
        assert_eq!((stats.waiting, stats.dialing), (0, 0));
        tokio::time::sleep(ms(30)).await;
        assert_eq!(origin.accepted(), 0, "no dial while it is open");
        close_and_check(pool).await;
    }

    async fn those_in_line_are_told_as_it_opens(backend) {
        let gate = Gate::shut();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).endpoint(|policy| {
            policy.capacity.max_dialing = Some(1);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let callers = call_in_order(&group, 9).await;
        gate.fail(true);
        gate.open();
        let (served, told) = outcomes(callers).await;
        assert!(served.is_empty());
        // In the order in which they stand: five failed dials, four that were not begun.
        for (place, error) in told.iter().enumerate() {
            assert_eq!(is_open(error), place >= 5, "{place}: {error:?}");
        }
        assert_eq!((gate.begun(), group.stats().dial_failures), (5, 5));
        close_and_check(pool).await;
    }

    async fn what_is_idle_is_handed_out_while_it_is_open(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 2).await;
        trip(&group, &gate).await;
        let held = hold(&group, 2).await;
        assert!(held.iter().all(|conn| conn.is_reused()));
        assert!(is_open(&group.checkout().await.unwrap_err()));
        drop(held);
        for _ in 0..5 {
            group.checkout().await.unwrap().release();
        }
        assert_eq!(group.stats().idle, 2);
        close_and_check(pool).await;
    }

    async fn a_fresh_checkout_fails_while_it_is_open_and_costs_no_connection(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).max_live(3).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 2).await;
        trip(&group, &gate).await;
        assert!(is_open(&group.checkout_fresh().await.unwrap_err()));
        assert_eq!(group.stats().idle, 2);
        // Also where an idle one would have to make room.
        group.reconfigure(|policy| policy.capacity.set_max_live(2)).unwrap();
        assert!(is_open(&group.checkout_fresh().await.unwrap_err()));
        assert_eq!((group.stats().idle, group.stats().closed_total()), (2, 0));
        assert!(group.checkout().await.unwrap().is_reused());
        close_and_check(pool).await;
    }

    async fn a_share_of_failures_opens_it(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).endpoint(|policy| {
            policy.failure.breaker_consecutive_failures = 0;
            policy.failure.breaker_failure_rate_percent = 50;
            policy.failure.breaker_min_dials = 6;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        for failing in [true, true, false, false, false, false, true] {
            gate.fail(failing);
            assert_eq!(group.checkout_fresh().await.is_err(), failing);
            assert_eq!(group.breaker(), BreakerState::Closed);
        }
        assert!(group.checkout_fresh().await.is_err());
        assert_eq!(group.breaker(), BreakerState::Open, "four of eight");
        close_and_check(pool).await;
    }

    async fn dials_that_take_too_long_open_it(backend) {
        let gate = Gate::default();
        gate.delay(ms(80));
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).endpoint(|policy| {
            policy.failure.slow_connect_ms = Some(40);
            policy.failure.breaker_consecutive_failures = 3;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        for slow in 1..=3 {
            assert_eq!(group.breaker(), BreakerState::Closed);
            group.checkout().await.unwrap().discard();
            assert_eq!(group.stats().opened, slow, "they are connections all the same");
        }
        assert_eq!(group.breaker(), BreakerState::Open);
        assert!(is_open(&group.checkout().await.unwrap_err()));
        assert_eq!(group.stats().dial_failures, 0);
        close_and_check(pool).await;
    }

    async fn a_socket_that_cannot_be_set_up_does_not_open_it(backend) {
        let origin = Origin::start();
        for by_hook in [true, false] {
            let options = SocketOptions::default().before_connect(move |_| {
                if by_hook { Err(io::Error::other("not this time")) } else { Ok(()) }
            });
            let pool = builder(backend)
                .sockets(options)
                .endpoint(|policy| {
                    // TEST-NET-1: no address of ours.
                    policy.sockets.source = Some([192, 0, 2, 1].into());
                })
                .build()
                .unwrap();
            let group = pool.group(origin.address);
            for _ in 0..8 {
                let error = group.checkout().await.unwrap_err();
                assert_eq!(dial_error(&error), Some(DialErrorKind::Other), "{error:?}");
            }
            let stats = group.stats();
            assert_eq!((stats.breaker, stats.dial_failures), (BreakerState::Closed, 8));
            close_and_check(pool).await;
        }
    }

    async fn a_want_of_local_ports_does_not_open_it(backend) {
        let origin = Origin::start();
        // The only port there is belongs to somebody who listens.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let pool = builder(backend)
            .endpoint(|policy| {
                policy.sockets.port_window = Some(1);
                policy.sockets.port_range = Some((port, port));
            })
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        for _ in 0..8 {
            let error = group.checkout().await.unwrap_err();
            assert_eq!(dial_error(&error), Some(DialErrorKind::Ports), "{error:?}");
        }
        assert_eq!((group.breaker(), group.stats().dial_failures), (BreakerState::Closed, 8));
        close_and_check(pool).await;
    }

    async fn the_background_backs_off_for_reasons_of_our_own_as_well(backend) {
        let origin = Origin::start();
        let options = SocketOptions::default()
            .before_connect(|_| Err(io::Error::other("not this time")));
        let pool = builder(backend)
            .sockets(options)
            .endpoint(|policy| {
                opens_for(policy, FOR_LONG);
                policy.capacity.min_idle = 2;
            })
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        tokio::time::sleep(ms(600)).await;
        let failures = group.stats().dial_failures;
        assert!((1..=2).contains(&failures), "{failures}");
        // Callers need not wait for it.
        assert_eq!(dial_error(&group.checkout().await.unwrap_err()), Some(DialErrorKind::Other));
        close_and_check(pool).await;
    }

    async fn a_failed_dial_tells_one_caller(backend) {
        let origin = Origin::down();
        for max_dialing in [1, 3] {
            let pool = builder(backend).breaker(false).endpoint(|policy| {
                policy.capacity.max_dialing = Some(max_dialing);
            });
            let pool = pool.build().unwrap();
            let group = pool.group(origin.address);
            let (served, told) = outcomes((0..10).map(|_| call(&group)).collect()).await;
            assert_eq!((served.len(), told.len()), (0, 10));
            for error in &told {
                assert_eq!(dial_error(error), Some(DialErrorKind::Refused), "{error:?}");
                let CheckoutError::Dial(dial) = error else { unreachable!() };
                let source = std::error::Error::source(dial).unwrap();
                let cause = source.downcast_ref::<io::Error>().unwrap();
                assert_eq!(cause.kind(), io::ErrorKind::ConnectionRefused);
            }
            assert_eq!(group.stats().dial_failures, 10, "a dial for each");
            close_and_check(pool).await;
        }
    }

    async fn one_failed_dial_among_good_ones_tells_one_caller(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 1).await;
        let callers = call_in_order(&group, 4).await;
        gate.fail(true);
        for conn in held {
            conn.discard();
        }
        eventually("told", || group.stats().dial_failures >= 1).await;
        gate.fail(false);
        let mut failed = 0;
        for caller in callers {
            match caller.await.unwrap() {
                Ok(conn) => conn.release(),
                Err(error) => {
                    assert_eq!(dial_error(&error), Some(DialErrorKind::Connector));
                    failed += 1;
                }
            }
        }
        assert_eq!(failed, group.stats().dial_failures);
        close_and_check(pool).await;
    }

    async fn without_a_breaker_dials_go_on(backend) {
        let origin = Origin::down();
        let pool = builder(backend).breaker(false).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..20 {
            let error = group.checkout().await.unwrap_err();
            assert_eq!(dial_error(&error), Some(DialErrorKind::Refused), "{error:?}");
        }
        assert_eq!((group.breaker(), group.stats().dial_failures), (BreakerState::Closed, 20));
        origin.rise();
        group.checkout().await.unwrap().release();
        close_and_check(pool).await;
    }

    async fn a_breaker_switched_off_while_open_lets_dials_through_and_reads_closed(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).build().unwrap();
        let group = pool.group(origin.address);
        trip(&group, &gate).await;
        group.reconfigure(|policy| policy.failure.breaker = false).unwrap();
        gate.fail(false);
        group.checkout().await.unwrap().release();
        assert_eq!(group.stats().breaker, BreakerState::Closed);
        // By order it opens also while it is off.
        group.force_breaker(BreakerMode::ForcedOpen);
        assert_eq!(group.breaker(), BreakerState::ForcedOpen);
        assert!(is_open(&group.checkout_fresh().await.unwrap_err()));
        close_and_check(pool).await;
    }

    async fn a_retry_at_once_finds_the_permit_of_the_failed_dial(backend) {
        let origin = Origin::down();
        let pool = builder(backend).breaker(false).max_live(1).endpoint(|policy| {
            policy.capacity.at_limit = AtLimit::Reject;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        for round in 0..100 {
            let error = group.checkout().await.unwrap_err();
            assert_eq!(dial_error(&error), Some(DialErrorKind::Refused), "{round}: {error:?}");
        }
        close_and_check(pool).await;
    }
}

// Half-open, and closed again.
on_both_drivers! {
    async fn half_open_it_admits_so_many_probes_and_no_more(backend) {
        for probes in [1, 3] {
            let gate = Gate::default();
            let origin = Origin::start();
            let pool = gated(backend, &gate, 150).endpoint(|policy| {
                policy.failure.half_open_probes = probes;
                policy.failure.half_open_successes = probes;
            });
            let pool = pool.build().unwrap();
            let group = pool.group(origin.address);
            trip(&group, &gate).await;
            gate.close();
            gate.fail(false);
            half_open(&group).await;
            let before = gate.begun();
            let callers: Vec<_> = (0..12).map(|_| call(&group)).collect();
            let admitted = || group.stats().waiting == probes && gate.begun() > before;
            eventually("the others are told", admitted).await;
            assert_eq!(group.breaker(), BreakerState::HalfOpen);
            tokio::time::sleep(ms(30)).await;
            assert_eq!(gate.begun() - before, probes as usize);
            gate.open();
            let (served, told) = outcomes(callers).await;
            assert_eq!((served.len(), told.len()), (probes as usize, 12 - probes as usize));
            assert!(told.iter().all(|e| left(e) == Some(Duration::ZERO)), "{told:?}");
            assert_eq!(group.breaker(), BreakerState::Closed);
            // And traffic flows.
            let (more, told) = outcomes((0..12).map(|_| call(&group)).collect()).await;
            assert_eq!((more.len(), told.len()), (12, 0), "{told:?}");
            drop((served, more));
            close_and_check(pool).await;
        }
    }

    async fn who_probes_is_not_turned_away_for_who_comes_later(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, 150).build().unwrap();
        let group = pool.group(origin.address);
        trip(&group, &gate).await;
        gate.close();
        gate.fail(false);
        half_open(&group).await;
        let first = call_in_order(&group, 1).await;
        for _ in 0..3 {
            let error = group.checkout_fresh().await.unwrap_err();
            assert_eq!(left(&error), Some(Duration::ZERO));
            let error = group.checkout().await.unwrap_err();
            assert_eq!(left(&error), Some(Duration::ZERO));
        }
        gate.open();
        let (served, told) = outcomes(first).await;
        assert_eq!(served.len(), 1, "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn a_failed_probe_opens_it_for_longer(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, 200).endpoint(|policy| {
            policy.failure.backoff_multiplier_percent = 1_000;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        trip(&group, &gate).await;
        assert!(left(&group.checkout().await.unwrap_err()).unwrap() <= ms(200));
        half_open(&group).await;
        let error = group.checkout().await.unwrap_err();
        assert_eq!(dial_error(&error), Some(DialErrorKind::Connector), "the probe's own failure");
        let left = left(&group.checkout().await.unwrap_err()).unwrap();
        assert!(ms(200) < left && left <= ms(2_000), "{left:?}");
        assert_eq!(gate.begun(), 6);
        close_and_check(pool).await;
    }

    async fn an_origin_that_comes_back_is_found_within_one_step(backend) {
        let origin = Origin::down();
        let pool = builder(backend).endpoint(|policy| opens_for(policy, 400)).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..5 {
            let _ = group.checkout().await.unwrap_err();
        }
        half_open(&group).await;
        assert_eq!(dial_error(&group.checkout().await.unwrap_err()), Some(DialErrorKind::Refused));
        origin.rise();
        let risen = Instant::now();
        let conn = loop {
            match group.checkout().await {
                Ok(conn) => break conn,
                Err(error) => assert!(is_open(&error), "{error:?}"),
            }
            tokio::time::sleep(ms(5)).await;
        };
        assert!(risen.elapsed() < ms(5_000), "{:?}", risen.elapsed());
        assert_eq!(group.stats().dial_failures, 6, "none but before it came back");
        assert_eq!(group.breaker(), BreakerState::Closed);
        conn.release();
        // Down again and back on the same port. What is not accepted yet falls with the listener.
        eventually("accepted", || origin.accepted() == 1).await;
        origin.fall();
        origin.hang_up();
        eventually("gone", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        let error = group.checkout().await.unwrap_err();
        assert_eq!(dial_error(&error), Some(DialErrorKind::Refused), "{error:?}");
        origin.rise();
        group.checkout().await.unwrap().release();
        close_and_check(pool).await;
    }

    async fn a_probe_goes_on_when_its_caller_leaves(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, 150).build().unwrap();
        let group = pool.group(origin.address);
        trip(&group, &gate).await;
        gate.close();
        gate.fail(false);
        half_open(&group).await;
        assert!(tokio::time::timeout(ms(50), group.checkout()).await.is_err());
        gate.open();
        eventually("closed", || group.breaker() == BreakerState::Closed).await;
        eventually("pooled", || group.stats().idle == 1).await;
        close_and_check(pool).await;
    }

    async fn a_probe_that_fails_for_our_own_reasons_gives_its_place_back(backend) {
        let scarce = Arc::new(AtomicBool::new(false));
        let origin = Origin::down();
        let is_scarce = Arc::clone(&scarce);
        let options = SocketOptions::default().before_connect(move |_| {
            if is_scarce.load(SeqCst) { Err(io::Error::other("not this time")) } else { Ok(()) }
        });
        let pool = builder(backend).sockets(options).endpoint(|policy| opens_for(policy, 150));
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..5 {
            let _ = group.checkout().await.unwrap_err();
        }
        origin.rise();
        scarce.store(true, SeqCst);
        half_open(&group).await;
        for _ in 0..3 {
            let error = group.checkout().await.unwrap_err();
            assert_eq!(dial_error(&error), Some(DialErrorKind::Other), "{error:?}");
            assert_eq!(group.breaker(), BreakerState::HalfOpen);
        }
        scarce.store(false, SeqCst);
        group.checkout().await.unwrap().release();
        assert_eq!(group.breaker(), BreakerState::Closed);
        close_and_check(pool).await;
    }

    async fn every_transition_is_told_once_and_in_order(backend) {
        use BreakerState::{Closed, HalfOpen, Open};
        let gate = Gate::failing();
        let origin = Origin::start();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let pool = gated(backend, &gate, 150).observer(move |event: &PoolEvent<'_>| {
            if let PoolEvent::BreakerChanged { from, to, open_for, .. } = event {
                assert_eq!(*to == Open, open_for.is_some());
                heard.lock().unwrap().push((*from, *to));
            }
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let crowd = async || {
            let callers: Vec<_> = (0..20).map(|n| match n % 3 {
                0 => call(&group),
                n => {
                    let group = group.clone();
                    pool.shards()[n - 1].spawn(async move { group.checkout().await })
                }
            }).collect();
            let (served, _) = outcomes(callers).await;
            for conn in served {
                conn.discard();
            }
        };
        crowd().await;
        half_open(&group).await;
        crowd().await;
        half_open(&group).await;
        gate.fail(false);
        crowd().await;
        crowd().await;
        assert_eq!(group.breaker(), Closed);
        let expected = [(Closed, Open), (Open, HalfOpen), (HalfOpen, Open), (Open, HalfOpen), (HalfOpen, Closed)];
        eventually("all are told", || events.lock().unwrap().len() >= expected.len()).await;
        close_and_check(pool).await;
        assert_eq!(*events.lock().unwrap(), expected);
    }

    async fn after_a_recovery_connections_come_by_and_by(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, 100).max_live(10).endpoint(|policy| {
            policy.failure.slow_start_ms = Some(1_000);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        // Before a failure there is nothing to be slow about.
        for conn in hold(&group, 10).await {
            conn.discard();
        }
        eventually("all permits are back", || group.stats().in_use == 0).await;
        trip(&group, &gate).await;
        gate.fail(false);
        half_open(&group).await;
        let began = Instant::now();
        let first = group.checkout().await.unwrap();
        let callers: Vec<_> = (0..9).map(|_| call(&group)).collect();
        let mut seen = Vec::new();
        eventually("ten live", || {
            let stats = group.stats();
            let live = stats.in_use + stats.idle + stats.dialing;
            let share = 10.0 * began.elapsed().as_secs_f64();
            assert!(f64::from(live) <= share.max(1.0), "{live} live, {share} may");
            if seen.last() != Some(&live) {
                seen.push(live);
            }
            live == 10
        }).await;
        assert!(seen.iter().filter(|live| (1..10).contains(*live)).count() >= 3, "{seen:?}");
        let (served, told) = outcomes(callers).await;
        assert_eq!((served.len(), told.len()), (9, 0), "{told:?}");
        drop((first, served));
        close_and_check(pool).await;
    }
}

// By policy and by order.
on_both_drivers! {
    async fn at_open_direct_dials_what_is_not_pooled(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).max_live(2).endpoint(direct).build().unwrap();
        let group = pool.group(origin.address);
        trip(&group, &gate).await;
        let error = group.checkout().await.unwrap_err();
        assert_eq!(dial_error(&error), Some(DialErrorKind::Connector), "{error:?}");
        gate.fail(false);
        for _ in 0..3 {
            let conn = group.checkout().await.unwrap();
            assert!(!conn.is_reused());
            let address = conn.local_addr().unwrap();
            conn.release();
            assert_eq!(group.stats().idle, 0);
            eventually("its origin sees the end", || origin.next_ended() == address).await;
        }
        let closed = || group.stats().closed_for(CloseReason::Overflow);
        eventually("counted", || closed() == 3).await;
        assert_eq!(group.breaker(), BreakerState::Open, "it is no probe");
        // Within the limits.
        group.reconfigure(|policy| policy.timeouts.acquire_timeout_ms = 200).unwrap();
        let held = hold(&group, 2).await;
        let error = group.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::AtLimit { .. } | CheckoutError::Timeout { .. }));
        drop(held);
        close_and_check(pool).await;
    }

    async fn at_open_direct_serves_those_in_line_as_it_opens(backend) {
        let gate = Gate::shut();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).endpoint(|policy| {
            direct(policy);
            policy.capacity.max_dialing = Some(1);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let callers = call_in_order(&group, 6).await;
        gate.fail(true);
        gate.open();
        eventually("open", || group.breaker() == BreakerState::Open).await;
        let (_, told) = outcomes(callers).await;
        let failed = |e: &CheckoutError| dial_error(e) == Some(DialErrorKind::Connector);
        assert!(told.iter().all(failed), "each by a dial: {told:?}");
        close_and_check(pool).await;
    }

    async fn at_open_direct_serves_who_comes_while_a_probe_is_under_way(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, 150).endpoint(direct).build().unwrap();
        let group = pool.group(origin.address);
        trip(&group, &gate).await;
        gate.close();
        gate.fail(false);
        half_open(&group).await;
        let before = gate.begun();
        let callers: Vec<_> = (0..4).map(|_| call(&group)).collect();
        eventually("four dials", || gate.begun() == before + 4).await;
        gate.open();
        let (served, told) = outcomes(callers).await;
        assert_eq!((served.len(), told.len()), (4, 0), "{told:?}");
        drop(served);
        eventually("the probe's is pooled", || group.stats().idle == 1).await;
        close_and_check(pool).await;
    }

    async fn forced_open_no_dial_starts_and_what_is_idle_serves(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = gated(backend, &gate, 100).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 1).await;
        group.force_breaker(BreakerMode::ForcedOpen);
        assert_eq!(group.breaker(), BreakerState::ForcedOpen);
        let held = group.checkout().await.unwrap();
        let error = group.checkout().await.unwrap_err();
        assert_eq!(left(&error), None);
        assert!(error.to_string().contains("by order"), "{error}");
        assert_eq!(group.warm_up(2).await.failures.len(), 2);
        // Neither time nor a reset ends it.
        tokio::time::sleep(ms(250)).await;
        group.reset_breaker();
        assert!(is_open(&group.checkout().await.unwrap_err()));
        assert_eq!(gate.begun(), 1);
        group.force_breaker(BreakerMode::Auto);
        group.checkout().await.unwrap().release();
        held.release();
        close_and_check(pool).await;
    }

    async fn forced_open_tells_those_in_line(backend) {
        let gate = Gate::shut();
        let origin = Origin::start();
        let pool = gated(backend, &gate, 100).endpoint(|policy| {
            policy.capacity.max_dialing = Some(1);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let callers = call_in_order(&group, 4).await;
        eventually("one dial", || gate.begun() == 1).await;
        group.force_breaker(BreakerMode::ForcedOpen);
        gate.open();
        let (served, told) = outcomes(callers).await;
        assert_eq!((served.len(), told.len(), gate.begun()), (1, 3, 1));
        assert!(told.iter().all(is_open), "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn forced_closed_failures_do_not_count(backend) {
        let gate = Gate::failing();
        let origin = Origin::start();
        let pool = gated(backend, &gate, FOR_LONG).max_live(6).endpoint(|policy| {
            policy.failure.slow_start_ms = Some(60_000);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        trip(&group, &gate).await;
        group.force_breaker(BreakerMode::ForcedClosed);
        for _ in 0..12 {
            let error = group.checkout().await.unwrap_err();
            assert_eq!(dial_error(&error), Some(DialErrorKind::Connector), "{error:?}");
        }
        assert_eq!(group.breaker(), BreakerState::ForcedClosed);
        gate.fail(false);
        let held = hold(&group, 3).await;
        group.force_breaker(BreakerMode::Auto);
        assert_eq!(group.breaker(), BreakerState::Closed);
        // It was closed: there is no recovery to be slow about.
        let more = hold(&group, 3).await;
        drop((held, more));
        // And it follows its rules again.
        trip(&group, &gate).await;
        close_and_check(pool).await;
    }

    async fn a_reset_ends_the_open_time_and_the_backoff(backend) {
        let origin = Origin::down();
        let pool = builder(backend).endpoint(|policy| {
            opens_for(policy, FOR_LONG);
            policy.capacity.min_idle = 1;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        while !matches!(group.checkout().await, Err(CheckoutError::BreakerOpen { .. })) {}
        origin.rise();
        group.reset_breaker();
        assert_eq!(group.breaker(), BreakerState::Closed);
        group.checkout().await.unwrap().discard();
        eventually("the background dials, too", || group.stats().idle == 1).await;
        close_and_check(pool).await;
    }
}

fn direct(policy: &mut EndpointSettings) {
    policy.failure.at_open = AtOpen::Direct;
    policy.timeouts.acquire_timeout_ms = 5_000;
}
