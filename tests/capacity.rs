//! How many connections, dials and callers there may be, and what changes of these limits do while
//! the pool is in use.

#[path = "support/callers.rs"]
mod callers;
#[path = "support/gate.rs"]
mod gate;
#[path = "support/origin.rs"]
mod origin;
mod support;

use std::{
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use callers::{call, call_in_order, dial_error, hold, outcomes, rest};
use corepool::{
    CheckoutError, CloseReason, Connector, DialErrorKind, Group, Pool, settings::AtLimit,
};
use gate::Gate;
use origin::Origin;
use support::{Blackhole, Echo, builder, close_and_check, eventually, tuned};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at_limit(error: &CheckoutError) -> bool {
    matches!(error, CheckoutError::AtLimit { .. })
}

fn live<C: Connector>(group: &Group<C>) -> u32 {
    let stats = group.stats();
    stats.idle + stats.in_use + stats.dialing
}

on_both_drivers! {
    async fn callers_that_give_up_leave_the_order_of_the_others_alone(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = group.checkout().await.unwrap();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut callers = Vec::new();
        for place in 0..9_u32 {
            let (group, order) = (group.clone(), Arc::clone(&order));
            let patience = if place % 3 == 1 { ms(30) } else { ms(5_000) };
            callers.push(tokio::spawn(async move {
                if let Ok(conn) = tokio::time::timeout(patience, group.checkout()).await {
                    order.lock().unwrap().push(place);
                    conn.unwrap().release();
                }
            }));
            let group = pool.group(origin.address);
            let in_line = || callers[place as usize].is_finished() || group.stats().waiting > place / 3 * 2;
            eventually("in line", in_line).await;
        }
        eventually("three have left", || group.stats().waiting == 6).await;
        held.release();
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 2, 3, 5, 6, 8]);
        close_and_check(pool).await;
    }

    async fn the_first_dial_of_a_shard_waits_for_no_timer(backend) {
        let origin = Origin::start();
        let began = Instant::now();
        for _ in 0..80 {
            let pool = builder(backend).shards(1).build().unwrap();
            pool.group(origin.address).checkout().await.unwrap().release();
            close_and_check(pool).await;
        }
        // 8 s and more if each waited for the clock's next reading.
        assert!(began.elapsed() < ms(6_000), "{:?}", began.elapsed());
    }

    async fn each_endpoint_has_its_own_patience(backend) {
        let (quick, slow) = (Origin::start(), Origin::start());
        let mut settings = corepool::Settings::default();
        settings.endpoint.capacity.set_max_live(1);
        let own = settings.endpoints.entry(quick.address.to_string()).or_default();
        own.timeouts.acquire_timeout_ms = Some(600);
        let pool = tuned(Pool::builder(corepool::TcpConnector).settings(settings), backend);
        let pool = pool.build().unwrap();
        let (quick, slow) = (pool.group(quick.address), pool.group(slow.address));
        let (quick_held, slow_held) = (hold(&quick, 1).await, hold(&slow, 1).await);
        let patient = call(&slow);
        let error = quick.checkout().await.unwrap_err();
        let CheckoutError::Timeout { after, waiting, .. } = error else { panic!("{error:?}") };
        assert_eq!((after, waiting), (ms(600), 0));
        assert!(!patient.is_finished());
        drop(slow_held);
        patient.await.unwrap().unwrap().release();
        drop(quick_held);
        close_and_check(pool).await;
    }

    async fn at_limit_reject_fails_at_once_and_names_the_limit(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(2).endpoint(reject).build().unwrap();
        let group = pool.group(origin.address);
        let mut held = hold(&group, 2).await;
        let asked = Instant::now();
        let error = group.checkout().await.unwrap_err();
        assert!(matches!(error, CheckoutError::AtLimit { max_live: 2, .. }), "{error:?}");
        assert!(asked.elapsed() < ms(4_000), "that is the acquire timeout's affair");
        assert!(error.to_string().contains(&origin.address.to_string()), "{error}");
        let stats = group.stats();
        assert_eq!((stats.opened, stats.waiting, stats.dialing), (2, 0, 0));
        // One that rests is handed out all the same.
        held.pop().unwrap().release();
        assert!(group.checkout().await.unwrap().is_reused());
        drop(held);
        close_and_check(pool).await;
    }

    async fn at_limit_reject_serves_exactly_max_live_of_a_crowd(backend) {
        let gate = Gate::shut();
        let origin = Echo::start();
        let pool = tuned(Pool::builder(gate.clone()), backend).max_live(5).endpoint(reject);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let callers: Vec<_> = (0..40).map(|_| call(&group)).collect();
        eventually("five dials", || gate.begun() == 5).await;
        eventually("the others are told", || group.stats().waiting == 5).await;
        gate.open();
        let (served, told) = outcomes(callers).await;
        assert_eq!((served.len(), told.len(), gate.begun()), (5, 35, 5));
        assert!(told.iter().all(at_limit), "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn at_limit_reject_turns_nobody_away_for_a_rival_that_is_turned_away_too(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).endpoint(reject).build().unwrap();
        let group = pool.group(origin.address);
        for round in 0..150 {
            let start = Arc::new(Barrier::new(2));
            let rivals: Vec<_> = pool.shards().iter().map(|shard| {
                let (group, start) = (group.clone(), Arc::clone(&start));
                shard.spawn(async move {
                    start.wait();
                    group.checkout().await
                })
            }).collect();
            let (served, told) = outcomes(rivals).await;
            assert_eq!((served.len(), told.len()), (1, 1), "round {round}: {told:?}");
            for conn in served {
                conn.discard();
            }
            eventually("the permit is back", || live(&group) == 0).await;
        }
        close_and_check(pool).await;
    }

    async fn at_limit_overflow_dials_above_the_limit_and_closes_on_return(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(2).endpoint(|policy| overflow(policy, 2));
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let mut held = hold(&group, 4).await;
        let stats = group.stats();
        assert_eq!((stats.overflow, stats.in_use, stats.opened), (2, 4, 4));
        let error = group.checkout().await.unwrap_err();
        assert!(at_limit(&error), "{error:?}");

        let above = held.pop().unwrap();
        let address = above.local_addr().unwrap();
        above.release();
        assert_eq!(origin.next_ended(), address);
        eventually("counted", || group.stats().closed_for(CloseReason::Overflow) == 1).await;
        assert_eq!((group.stats().overflow, group.stats().idle), (1, 0));
        // Its permit is there for the next.
        held.push(group.checkout().await.unwrap());
        assert_eq!(group.stats().overflow, 2);

        for conn in held {
            conn.release();
        }
        eventually("two rest", || group.stats().overflow == 0).await;
        let stats = group.stats();
        assert_eq!((stats.idle, stats.closed_for(CloseReason::Overflow)), (2, 3));
        close_and_check(pool).await;
    }

    async fn an_overflow_connection_is_pooled_when_a_permit_came_free(backend) {
        let origin = Echo::start();
        let pool = builder(backend).max_live(1).endpoint(|policy| overflow(policy, 1));
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let mut held = hold(&group, 2).await;
        let above = held.pop().unwrap();
        held.pop().unwrap().discard();
        eventually("the permit is back", || group.stats().in_use == 1).await;
        above.release();
        let stats = group.stats();
        assert_eq!((stats.idle, stats.overflow, stats.closed_for(CloseReason::Overflow)), (1, 0, 0));
        assert!(group.checkout().await.unwrap().is_reused());
        close_and_check(pool).await;
    }

    async fn a_failed_overflow_dial_gives_its_permit_back(backend) {
        let gate = Gate::default();
        let origin = Echo::start();
        let pool = tuned(Pool::builder(gate.clone()), backend).max_live(1).breaker(false);
        let pool = pool.endpoint(|policy| overflow(policy, 1)).build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 1).await;
        gate.fail(true);
        for _ in 0..3 {
            let error = group.checkout().await.unwrap_err();
            assert_eq!(dial_error(&error), Some(DialErrorKind::Connector), "{error:?}");
        }
        gate.fail(false);
        group.checkout().await.unwrap().release();
        drop(held);
        close_and_check(pool).await;
    }

    async fn an_idle_connection_of_another_endpoint_makes_room_in_the_pool(backend) {
        let (one, other) = (Origin::start(), Origin::start());
        let pool = builder(backend).max_live_total(3).build().unwrap();
        let (first, second) = (pool.group(one.address), pool.group(other.address));
        rest(&first, 3).await;
        let held = hold(&second, 2).await;
        assert_eq!(pool.stats().live_total, Some(3));
        let stats = first.stats();
        assert_eq!((stats.idle, stats.closed_for(CloseReason::Evicted)), (1, 2));
        drop(held);
        close_and_check(pool).await;
    }

    async fn callers_of_a_starved_endpoint_are_served_when_the_other_releases(backend) {
        let (one, other) = (Origin::start(), Origin::start());
        let pool = builder(backend).max_live_total(2).build().unwrap();
        let (first, second) = (pool.group(one.address), pool.group(other.address));
        let held = hold(&first, 2).await;
        let waiting = call_in_order(&second, 2).await;
        assert_eq!(other.accepted(), 0);
        for conn in held {
            conn.release();
        }
        let (served, told) = outcomes(waiting).await;
        assert_eq!((served.len(), told.len()), (2, 0), "{told:?}");
        assert_eq!(first.stats().closed_for(CloseReason::Evicted), 2);
        // And back again, by a discard this time.
        let waiting = call_in_order(&first, 2).await;
        for conn in served {
            conn.discard();
        }
        let (served, told) = outcomes(waiting).await;
        assert_eq!((served.len(), told.len()), (2, 0), "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn the_pools_idle_cap_evicts_what_rested_longest_of_whatever_endpoint(backend) {
        let (one, other) = (Origin::start(), Origin::start());
        let pool = builder(backend).max_idle_total(3).build().unwrap();
        let mut held = Vec::new();
        for at in 0..6 {
            let group = pool.group(if at % 3 == 0 { one.address } else { other.address });
            let conn = pool.shards()[at % 2].spawn(async move { group.checkout().await.unwrap() });
            held.push(conn.await.unwrap());
        }
        let mut evicted = Vec::new();
        for (at, conn) in held.into_iter().enumerate() {
            evicted.push((at, conn.local_addr().unwrap()));
            conn.release();
            // The clocks of rest tell tenths of a second apart.
            tokio::time::sleep(ms(160)).await;
        }
        assert_eq!(pool.stats().idle_total, Some(3));
        for (at, address) in &evicted[..3] {
            let origin = if at % 3 == 0 { &one } else { &other };
            assert_eq!(origin.next_ended(), *address, "the one released as number {at}");
        }
        let evictions: u64 = pool.stats().endpoints.iter()
            .map(|group| group.closed_for(CloseReason::Evicted)).sum();
        assert_eq!(evictions, 3);
        close_and_check(pool).await;
    }

    async fn the_pools_idle_cap_is_exact_under_load(backend) {
        let (one, other) = (Origin::start(), Origin::start());
        let pool = builder(backend).max_idle_total(4).build().unwrap();
        // One connection may serve them all where dials are slow, so that all have one at first.
        let all_have_one = Arc::new(tokio::sync::Barrier::new(16));
        let mut callers = Vec::new();
        for n in 0..16 {
            let group = pool.group(if n % 2 == 0 { one.address } else { other.address });
            let all_have_one = Arc::clone(&all_have_one);
            callers.push(pool.shards()[n / 2 % 2].spawn(async move {
                let first = group.checkout().await.unwrap();
                all_have_one.wait().await;
                first.release();
                for _ in 0..30 {
                    let conn = group.checkout().await.unwrap();
                    tokio::task::yield_now().await;
                    conn.release();
                    let idle = group.pool().stats().idle_total.unwrap();
                    assert!(idle <= 4, "{idle} rest");
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(pool.stats().idle_total, Some(4), "not exact");
        close_and_check(pool).await;
    }

    async fn dials_into_a_blackhole_stay_below_their_limit(backend) {
        let hole = Blackhole::start();
        let pool = builder(backend).breaker(false).connect_timeout(ms(80));
        let pool = pool.endpoint(|policy| policy.capacity.max_dialing = Some(2)).build().unwrap();
        let group = pool.group(hole.address);
        let callers: Vec<_> = (0..6).map(|_| call(&group)).collect();
        let mut most = 0;
        eventually("all are told", || {
            most = most.max(group.stats().dialing);
            callers.iter().all(|caller| caller.is_finished())
        }).await;
        assert_eq!(most, 2);
        let (served, told) = outcomes(callers).await;
        assert!(served.is_empty());
        assert!(told.iter().all(|e| dial_error(e) == Some(DialErrorKind::TimedOut)), "{told:?}");
        assert_eq!(group.stats().dial_failures, 6, "one dial for each");
        close_and_check(pool).await;
    }

    async fn dials_of_all_endpoints_together_stay_below_the_pools_limit(backend) {
        let gate = Gate::default();
        gate.delay(ms(15));
        let origins = [Origin::start(), Origin::start(), Origin::start()];
        let pool = tuned(Pool::builder(gate.clone()), backend).max_dialing_total(2);
        let pool = pool.build().unwrap();
        let groups: Vec<_> = origins.iter().map(|origin| pool.group(origin.address)).collect();
        let callers = (0..12).map(|n| call(&groups[n % 3])).collect();
        let (served, told) = outcomes(callers).await;
        assert_eq!((served.len(), gate.begun(), gate.most_at_once()), (12, 12, 2), "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn a_blackhole_holds_up_the_others_no_longer_than_its_dials_last(backend) {
        let (hole, origin) = (Blackhole::start(), Origin::start());
        let pool = builder(backend).max_dialing_total(1).connect_timeout(ms(150)).build().unwrap();
        let (dark, bright) = (pool.group(hole.address), pool.group(origin.address));
        let lost = call_in_order(&dark, 2).await;
        let waiting = call(&bright);
        waiting.await.unwrap().unwrap().release();
        let (_, told) = outcomes(lost).await;
        assert_eq!(told.len(), 2);
        close_and_check(pool).await;
    }
}

fn reject(policy: &mut corepool::EndpointSettings) {
    policy.capacity.at_limit = AtLimit::Reject;
}

fn overflow(policy: &mut corepool::EndpointSettings, above: u32) {
    policy.capacity.at_limit = AtLimit::Overflow;
    policy.capacity.max_overflow = above;
}

// Changes while the pool is in use.
on_both_drivers! {
    async fn a_raised_max_live_serves_those_in_line_at_once(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(1).build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 1).await;
        let waiting = call_in_order(&group, 3).await;
        group.reconfigure(|policy| policy.capacity.set_max_live(4)).unwrap();
        let (served, told) = outcomes(waiting).await;
        assert_eq!((served.len(), told.len(), live(&group)), (3, 0, 4), "{told:?}");
        drop((held, served));
        close_and_check(pool).await;
    }

    async fn a_lowered_max_live_closes_what_comes_back_above_it(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(6).build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 6).await;
        group.reconfigure(|policy| policy.capacity.set_max_live(2)).unwrap();
        assert_eq!(group.stats().in_use, 6, "what is in use stays");
        let waiting = call_in_order(&group, 1).await;
        for conn in held {
            conn.release();
        }
        let (served, told) = outcomes(waiting).await;
        assert_eq!((served.len(), told.len()), (1, 0), "{told:?}");
        eventually("within the limit", || live(&group) <= 2).await;
        drop(served);
        let stats = group.stats();
        assert_eq!(stats.closed_total(), 4, "{stats:?}");
        let two = hold(&group, 2).await;
        assert_eq!(live(&group), 2);
        drop(two);
        close_and_check(pool).await;
    }

    async fn a_lowered_max_live_closes_no_more_than_rests_above_it(backend) {
        let origin = Origin::start();
        let pool = builder(backend).shards(1).max_live(12).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 12).await;
        // The shard is kept from its closes until its next sweep is due.
        let (busy, blocked) = std::sync::mpsc::channel();
        let blocker = pool.shards()[0].spawn(async move {
            busy.send(()).unwrap();
            std::thread::sleep(ms(300));
        });
        blocked.recv().unwrap();
        group.reconfigure(|policy| policy.capacity.set_max_live(8)).unwrap();
        blocker.await.unwrap();
        eventually("closed", || group.stats().in_use == 0).await;
        tokio::time::sleep(ms(300)).await;
        let stats = group.stats();
        assert_eq!((stats.idle, stats.closed_for(CloseReason::Shrunk)), (8, 4));
        close_and_check(pool).await;
    }

    async fn a_lowered_total_closes_no_more_than_rests_above_it(backend) {
        let origin = Origin::start();
        let pool = builder(backend).shards(1).max_live_total(12).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 12).await;
        let (busy, blocked) = std::sync::mpsc::channel();
        let blocker = pool.shards()[0].spawn(async move {
            busy.send(()).unwrap();
            std::thread::sleep(ms(300));
        });
        blocked.recv().unwrap();
        pool.resize_totals(Some(8), None, None);
        blocker.await.unwrap();
        eventually("closed", || group.stats().in_use == 0).await;
        tokio::time::sleep(ms(300)).await;
        let stats = group.stats();
        assert_eq!((stats.idle, stats.closed_for(CloseReason::Shrunk)), (8, 4));
        close_and_check(pool).await;
    }

    async fn max_idle_holds_at_once_both_ways(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(8).max_idle(6).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 6).await;
        group.reconfigure(|policy| policy.capacity.max_idle = 2).unwrap();
        eventually("closed", || group.stats().in_use == 0).await;
        let stats = group.stats();
        assert_eq!((stats.idle, stats.closed_for(CloseReason::Shrunk)), (2, 4));
        for conn in hold(&group, 5).await {
            conn.release();
        }
        eventually("closed", || group.stats().in_use == 0).await;
        let stats = group.stats();
        assert_eq!((stats.idle, stats.closed_for(CloseReason::Surplus)), (2, 3));
        let held = hold(&group, 5).await;
        group.reconfigure(|policy| policy.capacity.max_idle = 5).unwrap();
        drop(held);
        assert_eq!(group.stats().idle, 5);
        group.reconfigure(|policy| policy.capacity.max_idle = 0).unwrap();
        eventually("none rests", || group.stats().idle == 0).await;
        group.checkout().await.unwrap().release();
        assert_eq!(group.stats().idle, 0);
        close_and_check(pool).await;
    }

    async fn max_dialing_changes_while_callers_wait_for_their_dial(backend) {
        let gate = Gate::shut();
        let origin = Echo::start();
        let pool = tuned(Pool::builder(gate.clone()), backend);
        let pool = pool.endpoint(|policy| policy.capacity.max_dialing = Some(1)).build().unwrap();
        let group = pool.group(origin.address);
        let callers = call_in_order(&group, 8).await;
        eventually("one dial", || gate.begun() == 1).await;
        group.reconfigure(|policy| policy.capacity.max_dialing = Some(3)).unwrap();
        eventually("three dials", || gate.begun() == 3).await;
        assert_eq!(group.stats().dialing, 3);
        group.reconfigure(|policy| policy.capacity.max_dialing = Some(2)).unwrap();
        gate.open();
        let (served, told) = outcomes(callers).await;
        assert_eq!((served.len(), gate.begun(), gate.most_at_once()), (8, 8, 3), "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn a_limit_on_dials_that_comes_and_goes_miscounts_none(backend) {
        let gate = Gate::shut();
        let origin = Echo::start();
        let pool = tuned(Pool::builder(gate.clone()), backend).build().unwrap();
        let group = pool.group(origin.address);
        for most in [None, Some(2), None, Some(1)] {
            let before = gate.begun();
            let callers = call_in_order(&group, 4).await;
            eventually("dials", || gate.begun() > before).await;
            // The dials under way began under another limit than they end.
            group.reconfigure(|policy| policy.capacity.max_dialing = most).unwrap();
            gate.open();
            let (served, told) = outcomes(callers).await;
            assert_eq!((served.len(), told.len()), (4, 0), "{told:?}");
            assert_eq!(group.stats().dialing, 0);
            for conn in served {
                conn.discard();
            }
            gate.close();
        }
        let callers = call_in_order(&group, 3).await;
        tokio::time::sleep(ms(30)).await;
        assert_eq!(group.stats().dialing, 1, "all permits are back and no more");
        gate.open();
        let (served, told) = outcomes(callers).await;
        assert_eq!((served.len(), told.len()), (3, 0), "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn max_waiters_changes_while_callers_wait(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(1).max_waiters(2).build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 1).await;
        let mut waiting = call_in_order(&group, 2).await;
        let full = |error| matches!(error, CheckoutError::WaitersFull { .. });
        assert!(full(group.checkout().await.unwrap_err()));
        group.reconfigure(|policy| policy.capacity.max_waiters = 3).unwrap();
        waiting.extend(call_in_order(&group, 1).await);
        group.reconfigure(|policy| policy.capacity.max_waiters = 1).unwrap();
        assert!(full(group.checkout().await.unwrap_err()));
        assert_eq!(group.stats().waiting, 3, "who waits goes on waiting");
        drop(held);
        for caller in waiting {
            caller.await.unwrap().unwrap().release();
        }
        close_and_check(pool).await;
    }

    async fn max_overflow_changes_while_connections_are_above_the_limit(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(1).endpoint(|policy| overflow(policy, 1));
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let mut held = hold(&group, 2).await;
        assert!(at_limit(&group.checkout().await.unwrap_err()));
        group.reconfigure(|policy| policy.capacity.max_overflow = 3).unwrap();
        held.extend(hold(&group, 2).await);
        assert!(at_limit(&group.checkout().await.unwrap_err()));
        group.reconfigure(|policy| policy.capacity.max_overflow = 1).unwrap();
        for _ in 0..2 {
            held.pop().unwrap().release();
            assert!(at_limit(&group.checkout().await.unwrap_err()), "above the lowered bound");
        }
        held.pop().unwrap().release();
        eventually("closed", || group.stats().overflow == 0).await;
        held.push(group.checkout().await.unwrap());
        // From overflow to waiting: what is above closes as it comes back.
        group.reconfigure(|policy| policy.capacity.at_limit = AtLimit::Wait).unwrap();
        let waiting = call_in_order(&group, 1).await;
        drop(held);
        drop(outcomes(waiting).await);
        eventually("one is left", || live(&group) == 1).await;
        close_and_check(pool).await;
    }

    async fn the_pools_limits_change_while_callers_wait(backend) {
        let gate = Gate::default();
        let (one, other) = (Origin::start(), Origin::start());
        let pool = tuned(Pool::builder(gate.clone()), backend);
        let pool = pool.max_live_total(2).max_idle_total(2).max_dialing_total(1).build().unwrap();
        let (first, second) = (pool.group(one.address), pool.group(other.address));
        let held = hold(&first, 2).await;
        let waiting = call_in_order(&second, 3).await;
        pool.resize_totals(Some(5), None, None);
        let (served, told) = outcomes(waiting).await;
        assert_eq!((served.len(), told.len(), pool.stats().live_total), (3, 0, Some(5)));

        pool.resize_totals(None, Some(4), None);
        drop((held, served));
        eventually("the fifth is closed", || pool.stats().live_total == Some(4)).await;
        assert_eq!(pool.stats().idle_total, Some(4));
        pool.resize_totals(None, Some(1), None);
        eventually("one rests", || pool.stats().live_total == Some(1)).await;
        assert_eq!(pool.stats().idle_total, Some(1));

        pool.resize_totals(Some(8), Some(8), None);
        gate.close();
        let begun = gate.begun();
        let _ = pool.evict_idle(8);
        let mut waiting = call_in_order(&first, 2).await;
        waiting.extend(call_in_order(&second, 2).await);
        eventually("one dial", || gate.begun() == begun + 1).await;
        pool.resize_totals(None, None, Some(3));
        eventually("three dials", || gate.begun() == begun + 3).await;
        assert_eq!(first.stats().dialing + second.stats().dialing, 3);
        gate.open();
        let (served, told) = outcomes(waiting).await;
        assert_eq!((served.len(), told.len()), (4, 0), "{told:?}");
        drop(served);
        close_and_check(pool).await;
    }

    async fn a_bad_value_is_refused_by_name_and_changes_nothing(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(2).build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 2).await;
        let waiting = call_in_order(&group, 1).await;
        let before = group.settings();
        type Change = fn(&mut corepool::EndpointSettings);
        let changes: [(&str, Change); 6] = [
            ("capacity.max_live", |policy| policy.capacity.max_live = 0),
            ("capacity.max_idle", |policy| policy.capacity.max_live = 1),
            ("capacity.max_dialing", |policy| policy.capacity.max_dialing = Some(0)),
            ("capacity.max_waiters", |policy| policy.capacity.max_waiters = u32::MAX),
            ("lifetime.idle_timeout_ms", |policy| policy.lifetime.idle_timeout_ms = 0),
            ("failure.backoff_base_ms", |policy| {
                // A good change beside the bad one is not made either.
                policy.capacity.max_live = 100;
                (policy.failure.backoff_base_ms, policy.failure.backoff_max_ms) = (2, 1);
            }),
        ];
        for (field, change) in changes {
            let error = group.reconfigure(change).unwrap_err();
            assert_eq!(error.field(), field, "{error}");
            assert!(error.to_string().starts_with(field), "{error}");
        }
        assert_eq!(group.settings(), before);
        assert_eq!((group.stats().waiting, live(&group)), (1, 2));
        drop(held);
        drop(outcomes(waiting).await);
        close_and_check(pool).await;
    }

    async fn limits_that_change_all_the_time_lose_nothing(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(8).max_live_total(10).max_idle_total(6);
        let pool = pool.max_dialing_total(4).build().unwrap();
        let group = pool.group(origin.address);
        let callers: Vec<_> = (0..24).map(|n| {
            let group = group.clone();
            let task = async move {
                for round in 0..40 {
                    let conn = group.checkout().await.unwrap();
                    tokio::task::yield_now().await;
                    if (n + round) % 11 == 0 { conn.discard() } else { conn.release() }
                }
            };
            match n % 3 {
                0 => pool.shards()[0].spawn(task),
                1 => pool.shards()[1].spawn(task),
                _ => tokio::spawn(task),
            }
        }).collect();
        let mut step = 0;
        eventually("all are served", || {
            step += 1;
            group.reconfigure(|policy| {
                policy.capacity.set_max_live([1, 8, 3, 16][step % 4]);
                policy.capacity.max_idle = [0, 4, 1, 16][step % 4];
                policy.capacity.max_idle = policy.capacity.max_idle.min(policy.capacity.max_live);
                policy.capacity.max_dialing = [None, Some(1), Some(3)][step % 3];
            }).unwrap();
            pool.resize_totals(
                Some([2, 10, 5][step % 3]), Some([1, 6, 0, 3][step % 4]), Some([1, 4][step % 2]),
            );
            callers.iter().all(|caller| caller.is_finished())
        }).await;
        for caller in callers {
            caller.await.unwrap();
        }
        // With room for all again, every permit is there.
        group.reconfigure(|policy| {
            policy.capacity.set_max_live(5);
            policy.capacity.max_idle = 5;
        }).unwrap();
        pool.resize_totals(Some(5), Some(5), Some(5));
        let held = hold(&group, 5).await;
        drop(held);
        eventually("five rest", || group.stats().idle == 5 && live(&group) == 5).await;
        close_and_check(pool).await;
    }
}

/// Descriptors run short in a process of its own, because the limit is the process's.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn descriptor_pressure_closes_what_rests_and_the_next_checkout_succeeds() {
    let test = std::env::current_exe().unwrap();
    let child = std::process::Command::new(test)
        .args(["--ignored", "--exact", "in_a_process_of_its_own", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}\n{child:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "run by the test before it"]
async fn in_a_process_of_its_own() {
    under_pressure(corepool::Backend::Epoll).await;
    if support::uring_is_expected() {
        under_pressure(corepool::Backend::IoUring).await;
    }
}

#[cfg(target_os = "linux")]
async fn under_pressure(backend: corepool::Backend) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use std::{fs::File, net::TcpListener, os::fd::AsRawFd, sync::Mutex};

    // The backlog answers; nobody accepts, so only the pool takes descriptors.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [resting, wanted] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let pool = builder(backend).observer(move |event: &corepool::PoolEvent<'_>| {
        if let corepool::PoolEvent::DescriptorPressure { closed } = event {
            heard.lock().unwrap().push(*closed);
        }
    });
    let pool = pool.build().unwrap();
    let (resting, wanted) = (pool.group(resting), pool.group(wanted));
    rest(&resting, 16).await;

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next_free = File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, next_free, hard).unwrap();
    let error = wanted.checkout().await.unwrap_err();
    let relieved = resting.stats();
    eventually("closed", || resting.stats().closed_for(CloseReason::Evicted) == 2).await;
    let next = wanted.checkout().await;
    // With nothing at rest there is nothing to close, and the breaker knows whose fault it is.
    let mut held = Vec::new();
    held.extend(std::iter::from_fn(|| resting.try_checkout()));
    let mut spare = Vec::new();
    let errors = loop {
        match wanted.checkout().await {
            Ok(conn) => spare.push(conn),
            Err(first) => {
                let mut errors = vec![first];
                for _ in 0..6 {
                    errors.push(wanted.checkout().await.unwrap_err());
                }
                break errors;
            }
        }
    };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();

    assert_eq!(dial_error(&error), Some(DialErrorKind::Descriptors), "{error}");
    assert_eq!(relieved.idle, 14, "an eighth of what rests");
    assert_eq!(*events.lock().unwrap(), [2]);
    for error in &errors {
        assert_eq!(dial_error(error), Some(DialErrorKind::Descriptors), "{error}");
    }
    assert_eq!(wanted.breaker(), corepool::BreakerState::Closed);
    drop((held, spare));
    next.unwrap().release();
    close_and_check(pool).await;
    drop(listeners);
}
