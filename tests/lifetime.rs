//! When connections end without anybody's fault, and when new ones come without a caller.

#[path = "support/callers.rs"]
mod callers;
#[path = "support/gate.rs"]
mod gate;
#[path = "support/origin.rs"]
mod origin;
mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use callers::{call_in_order, dial_error, hold, outcomes, rest};
use corepool::{
    CloseReason, Connector, DialErrorKind, Group, Pool, PoolEvent, Pooled, TcpConnector,
    settings::Order,
};
use gate::Gate;
use origin::Origin;
use support::{builder, close_and_check, eventually, tuned};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn closed<C: Connector>(group: &Group<C>, reason: CloseReason) -> u64 {
    group.stats().closed_for(reason)
}

/// The pool's own addresses of connections.
fn addresses(conns: &[Pooled<TcpConnector>]) -> Vec<SocketAddr> {
    conns.iter().map(|conn| conn.local_addr().unwrap()).collect()
}

// Ends.
on_both_drivers! {
    async fn an_idle_timeout_shortened_at_run_time_ends_what_rests_already(backend) {
        let origin = Origin::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 4).await;
        let held = hold(&group, 1).await;
        tokio::time::sleep(ms(200)).await;
        group.reconfigure(|policy| policy.lifetime.idle_timeout_ms = 150).unwrap();
        eventually("ended", || closed(&group, CloseReason::IdleTimeout) == 3).await;
        assert_eq!(group.stats().in_use, 1, "what is in use stays");
        // Its rest begins as it comes back.
        for conn in held {
            conn.release();
        }
        assert_eq!(group.stats().idle, 1);
        eventually("ended too", || closed(&group, CloseReason::IdleTimeout) == 4).await;
        close_and_check(pool).await;
    }

    async fn an_idle_timeout_prolonged_at_run_time_holds_for_what_rests_already(backend) {
        let origin = Origin::start();
        let pool = builder(backend).idle_timeout(ms(300)).build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 3).await;
        group.reconfigure(|policy| policy.lifetime.idle_timeout_ms = 60_000).unwrap();
        tokio::time::sleep(ms(700)).await;
        assert_eq!((group.stats().idle, group.stats().closed_total()), (3, 0));
        close_and_check(pool).await;
    }

    async fn no_connection_outlives_its_lifetime_and_they_do_not_end_together(backend) {
        let ages = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&ages);
        let origin = Origin::start();
        let pool = builder(backend).max_lifetime(ms(800)).endpoint(|policy| {
            policy.lifetime.lifetime_jitter_percent = 50;
        });
        let pool = pool.observer(move |event: &PoolEvent<'_>| {
            if let PoolEvent::Closed { reason: CloseReason::MaxLifetime, age, .. } = event {
                heard.lock().unwrap().push(*age);
            }
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 50).await;
        eventually("all ended", || closed(&group, CloseReason::MaxLifetime) == 50).await;
        let ages = ages.lock().unwrap().clone();
        assert_eq!(ages.len(), 50);
        let (first, last) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*first >= ms(300), "half the lifetime, less the clock's resolution: {first:?}");
        assert!(*last <= ms(5_000), "{last:?}");
        // A sweep is 250 ms, the jitter 400 ms wide: no sweep can end them all.
        assert!(*last - *first >= ms(100), "all at once: {first:?} to {last:?}");
        close_and_check(pool).await;
    }

    async fn a_connection_in_use_ends_as_it_comes_back_past_its_lifetime(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_lifetime(ms(300)).build().unwrap();
        let group = pool.group(origin.address);
        let conn = group.checkout().await.unwrap();
        tokio::time::sleep(ms(450)).await;
        assert_eq!(group.stats().in_use, 1, "it is not taken from its user");
        conn.release();
        assert_eq!(group.stats().idle, 0);
        eventually("ended", || closed(&group, CloseReason::MaxLifetime) == 1).await;
        close_and_check(pool).await;
    }

    async fn a_connection_past_its_lifetime_is_not_handed_to_who_waits(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(1).max_lifetime(ms(300)).build().unwrap();
        let group = pool.group(origin.address);
        let conn = group.checkout().await.unwrap();
        let waiting = call_in_order(&group, 1).await;
        tokio::time::sleep(ms(450)).await;
        conn.release();
        let (served, told) = outcomes(waiting).await;
        assert_eq!((served.len(), told.len(), group.stats().opened), (1, 0, 2));
        assert!(!served[0].is_reused());
        drop(served);
        close_and_check(pool).await;
    }

    async fn a_connection_serves_as_often_as_it_may(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| policy.lifetime.max_uses = Some(3));
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        for checkout in 0..9 {
            let conn = group.checkout().await.unwrap();
            assert_eq!(conn.uses(), checkout % 3);
            conn.release();
        }
        eventually("three ended", || closed(&group, CloseReason::MaxUses) == 3).await;
        assert_eq!((group.stats().opened, group.stats().idle), (3, 0));
        // One more use than it has had already is one too many.
        group.reconfigure(|policy| policy.lifetime.max_uses = None).unwrap();
        for _ in 0..5 {
            group.checkout().await.unwrap().release();
        }
        group.reconfigure(|policy| policy.lifetime.max_uses = Some(2)).unwrap();
        group.checkout().await.unwrap().release();
        eventually("ended", || closed(&group, CloseReason::MaxUses) == 4).await;
        close_and_check(pool).await;
    }

    async fn max_uses_counts_for_who_waits_as_well(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(1).endpoint(|policy| {
            policy.lifetime.max_uses = Some(2);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 1).await;
        let waiting = call_in_order(&group, 5).await;
        drop(held);
        let mut uses = Vec::new();
        for caller in waiting {
            let conn = caller.await.unwrap().unwrap();
            uses.push(conn.uses());
            conn.release();
        }
        assert_eq!(uses, [1, 0, 1, 0, 1]);
        close_and_check(pool).await;
    }

    async fn a_burst_leaves_by_and_by(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| {
            policy.lifetime.retention_period_ms = Some(200);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 32).await;
        let started = Instant::now();
        let mut seen = vec![32];
        eventually("the pool has shrunk", || {
            let idle = group.stats().idle;
            if seen.last() != Some(&idle) {
                seen.push(idle);
            }
            idle <= 4
        }).await;
        assert!(seen.iter().any(|idle| (12..=28).contains(idle)), "a cliff: {seen:?}");
        assert!(started.elapsed() >= ms(600), "within {:?}: {seen:?}", started.elapsed());
        let stats = group.stats();
        assert_eq!(stats.closed_for(CloseReason::Shrunk), stats.closed_total(), "{stats:?}");
        close_and_check(pool).await;
    }

    async fn a_need_that_goes_on_keeps_what_it_needs(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| {
            policy.lifetime.retention_period_ms = Some(200);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 24).await;
        let until = Instant::now() + ms(1_100);
        while Instant::now() < until {
            let held = hold(&group, 6).await;
            tokio::time::sleep(ms(20)).await;
            drop(held);
        }
        assert!((6..=16).contains(&group.stats().idle), "{:?}", group.stats());
        assert_eq!(group.stats().opened, 24, "none was dialled that was closed before");
        close_and_check(pool).await;
    }

    async fn retention_works_wherever_the_connections_are(backend) {
        let origins: [_; 6] = std::array::from_fn(|_| Origin::start());
        let pool = builder(backend).endpoint(|policy| {
            policy.lifetime.retention_period_ms = Some(200);
        });
        let pool = pool.build().unwrap();
        // All on the shard of this thread; the groups are tended by either.
        let groups = origins.each_ref().map(|origin| pool.group(origin.address));
        for group in &groups {
            rest(group, 8).await;
        }
        for group in &groups {
            eventually("shrunk", || group.stats().idle <= 2).await;
        }
        close_and_check(pool).await;
    }

    async fn what_is_new_is_not_surplus_because_the_pool_is_old(backend) {
        let (before, origin) = (Origin::start(), Origin::start());
        let pool = builder(backend)
            .endpoint(|policy| policy.lifetime.retention_period_ms = Some(700))
            .build()
            .unwrap();
        // Both shards are awake and sweep in their own time.
        let awake = pool.group(before.address);
        awake.reconfigure(|policy| policy.lifetime.retention_period_ms = None).unwrap();
        assert_eq!(awake.warm_up(4).await.ready, 4);
        tokio::time::sleep(ms(800)).await;
        let group = pool.group(origin.address);
        rest(&group, 8).await;
        tokio::time::sleep(ms(350)).await;
        assert_eq!((group.stats().idle, group.stats().closed_total()), (8, 0));
        close_and_check(pool).await;
    }
}

// New ones.
on_both_drivers! {
    async fn min_idle_comes_back_after_the_peer_closed_it(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| policy.capacity.min_idle = 4);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        for round in 1..=3 {
            eventually("four rest", || group.stats().idle == 4).await;
            eventually("accepted", || origin.accepted() == 4 * round).await;
            origin.hang_up();
            let gone = || closed(&group, CloseReason::PeerClosed) == 4 * round as u64;
            eventually("they are gone", gone).await;
        }
        eventually("four rest", || group.stats().idle == 4).await;
        assert_eq!(group.stats().reused, 0, "no checkout was needed");
        close_and_check(pool).await;
    }

    async fn min_idle_comes_back_after_its_idle_timeout(backend) {
        let origin = Origin::start();
        // Several ticks: one shard closes what rested too long, and another may dial anew a tick
        // later; of 200 ms that leaves too little in which all three rest.
        let pool = builder(backend).idle_timeout(ms(600)).endpoint(|policy| {
            policy.capacity.min_idle = 3;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        eventually("renewed", || closed(&group, CloseReason::IdleTimeout) >= 6).await;
        eventually("three rest", || group.stats().idle == 3).await;
        close_and_check(pool).await;
    }

    async fn min_idle_counts_what_is_at_rest_and_not_what_is_out(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| policy.capacity.min_idle = 2);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 5).await;
        eventually("two rest beside", || group.stats().idle == 2).await;
        tokio::time::sleep(ms(350)).await;
        assert_eq!((group.stats().idle, group.stats().opened), (2, 7), "and no more than two");
        drop(held);
        group.reconfigure(|policy| policy.capacity.min_idle = 9).unwrap();
        eventually("nine rest", || group.stats().idle == 9).await;
        close_and_check(pool).await;
    }

    async fn min_idle_never_exceeds_max_live(backend) {
        let origin = Origin::start();
        let pool = builder(backend).max_live(5).endpoint(|policy| policy.capacity.min_idle = 4);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 4).await;
        eventually("room for one", || group.stats().idle == 1).await;
        tokio::time::sleep(ms(300)).await;
        assert_eq!(group.stats().opened, 5);
        drop(held);
        close_and_check(pool).await;
    }

    async fn min_idle_backs_off_while_the_origin_is_down(backend) {
        let pools = [true, false].map(|breaker| {
            let origin = Origin::start();
            let pool = builder(backend)
                .breaker(breaker)
                .endpoint(|policy| {
                    policy.capacity.min_idle = 2;
                    policy.failure.backoff_base_ms = 300;
                    policy.failure.backoff_multiplier_percent = 300;
                    policy.failure.backoff_jitter_percent = 0;
                })
                .build()
                .unwrap();
            let group = pool.group(origin.address);
            (origin, pool, group)
        });
        for (origin, _, group) in &pools {
            eventually("two rest", || group.stats().idle == 2).await;
            eventually("accepted", || origin.accepted() == 2).await;
            origin.fall();
            origin.hang_up();
        }
        // Tries after 0, 0.3 and 1.2 s: two dials each.
        tokio::time::sleep(ms(900)).await;
        for failures in pools.each_ref().map(|(_, _, group)| group.stats().dial_failures) {
            assert!((2..=4).contains(&failures), "{failures} dials to an origin that is down");
        }
        for (origin, ..) in &pools {
            origin.rise();
        }
        for (_origin, pool, group) in pools {
            eventually("two rest again", || group.stats().idle == 2).await;
            close_and_check(pool).await;
        }
    }

    async fn a_group_warms_up_at_its_first_mention(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| policy.capacity.warm_up = 6);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        eventually("six rest", || group.stats().idle == 6).await;
        assert!(group.try_checkout().is_some_and(|conn| conn.is_reused()));
        // Once: what is gone stays gone.
        let _ = pool.evict_idle(6);
        eventually("gone", || closed(&group, CloseReason::Evicted) == 6).await;
        tokio::time::sleep(ms(350)).await;
        assert_eq!((group.stats().idle, group.stats().opened), (0, 6));
        close_and_check(pool).await;
    }

    async fn what_is_dialled_from_the_start_is_dialled_once(backend) {
        let origin = Origin::start();
        for round in 0..40 {
            let pool = builder(backend)
                .endpoint(|policy| {
                    (policy.capacity.min_idle, policy.capacity.warm_up) = (40, 60);
                })
                .build()
                .unwrap();
            // The shards' first sweeps are due as the group is made.
            let group = pool.group(origin.address);
            eventually("all rest", || group.stats().idle >= 60).await;
            tokio::time::sleep(ms(10)).await;
            assert_eq!(group.stats().opened, 60, "round {round}");
            close_and_check(pool).await;
        }
    }

    async fn a_warm_up_is_spread_over_the_shards(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| policy.capacity.warm_up = 6);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        eventually("six rest", || group.stats().idle == 6).await;
        let mut on = [0; 2];
        for conn in hold(&group, 6).await {
            on[conn.shard()] += 1;
        }
        assert_eq!(on, [3, 3]);
        close_and_check(pool).await;
    }

    async fn a_warm_up_is_complete_though_few_may_dial_at_once(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let pool = tuned(Pool::builder(gate.clone()), backend).endpoint(|policy| {
            policy.capacity.warm_up = 7;
            policy.capacity.max_dialing = Some(2);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        eventually("seven rest", || group.stats().idle == 7).await;
        assert_eq!(gate.most_at_once(), 2);
        close_and_check(pool).await;
    }

    async fn a_group_that_has_run_empty_warms_up_again(backend) {
        let origin = Origin::start();
        let pool = builder(backend).idle_timeout(ms(250)).endpoint(|policy| {
            policy.capacity.warm_up = 3;
            policy.capacity.rewarm = true;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        eventually("three rest", || group.stats().idle == 3).await;
        eventually("empty", || closed(&group, CloseReason::IdleTimeout) >= 3).await;
        eventually("three rest again", || {
            let stats = group.stats();
            stats.idle == 3 && stats.opened >= 6
        }).await;
        assert_eq!(group.stats().opened % 3, 0, "only when none is left: {:?}", group.stats());
        close_and_check(pool).await;
    }

    async fn a_warm_up_says_what_is_ready_and_what_failed(backend) {
        let gate = Gate::default();
        let origin = Origin::start();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let pool = tuned(Pool::builder(gate.clone()), backend).breaker(false);
        let pool = pool.observer(move |event: &PoolEvent<'_>| {
            if let PoolEvent::WarmedUp { ready, failed, .. } = event {
                heard.lock().unwrap().push((*ready, *failed));
            }
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let report = group.warm_up(3).await;
        assert_eq!((report.ready, report.failures.len()), (3, 0));
        gate.fail(true);
        let report = group.warm_up(8).await;
        assert_eq!((report.ready, report.failures.len()), (3, 5), "three were there");
        for error in &report.failures {
            assert_eq!(dial_error(error), Some(DialErrorKind::Connector), "{error:?}");
        }
        assert_eq!(*events.lock().unwrap(), [(3, 0), (3, 5)]);
        assert_eq!(group.stats().idle, 3);
        close_and_check(pool).await;
    }

    async fn a_warm_up_of_an_origin_that_is_down_trips_the_breaker_and_says_so(backend) {
        let origin = Origin::down();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let report = group.warm_up(20).await;
        assert_eq!((report.ready, report.failures.len()), (0, 20));
        let told = report.failures.iter().filter(|e| callers::is_open(e)).count();
        let refused = report.failures.iter()
            .filter(|e| dial_error(e) == Some(DialErrorKind::Refused)).count();
        // While one shard's dial fails, another may tell the line that the breaker has opened; then
        // nobody is left for the error.
        let failed = group.stats().dial_failures;
        assert!(failed >= 5, "{failed} failed, and five trip the breaker");
        assert!((1..=failed).contains(&(refused as u64)), "{refused} refused of {failed}");
        assert_eq!(refused + told, 20);
        let report = group.warm_up(3).await;
        assert!(report.failures.iter().all(callers::is_open), "{:?}", report.failures);
        close_and_check(pool).await;
    }

    async fn half_of_them_are_dialled_ahead_of_their_callers(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| policy.capacity.preconnect_percent = 200);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let mut held = hold(&group, 1).await;
        eventually("one ahead", || group.stats().idle == 1).await;
        let next = group.checkout().await.unwrap();
        assert!(next.is_reused(), "dialled before it was asked for");
        held.push(next);
        held.extend(hold(&group, 2).await);
        eventually("four ahead", || group.stats().idle == 4).await;
        tokio::time::sleep(ms(350)).await;
        assert_eq!((group.stats().idle, group.stats().opened), (4, 8), "and no more");
        drop(held);
        close_and_check(pool).await;
    }

    async fn what_was_dialled_ahead_is_no_surplus(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| {
            policy.capacity.preconnect_percent = 200;
            policy.lifetime.retention_period_ms = Some(200);
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 4).await;
        eventually("four ahead", || group.stats().idle == 4).await;
        tokio::time::sleep(ms(800)).await;
        let stats = group.stats();
        assert_eq!((stats.idle, stats.closed_total()), (4, 0), "dialled and closed in turn");
        drop(held);
        eventually("no need, no surplus", || group.stats().idle < 4).await;
        close_and_check(pool).await;
    }

    async fn lifo_keeps_the_same_few_warm(backend) {
        let origin = Origin::start();
        let pool = builder(backend).endpoint(|policy| policy.capacity.order = Order::Lifo);
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 3).await;
        let order = addresses(&held);
        for conn in held {
            conn.release();
        }
        for _ in 0..4 {
            let conn = group.checkout().await.unwrap();
            assert_eq!(conn.local_addr().unwrap(), order[2], "the last that came back");
            conn.release();
        }
        let held = hold(&group, 3).await;
        assert_eq!(addresses(&held), [order[2], order[1], order[0]]);
        drop(held);
        close_and_check(pool).await;
    }

    async fn fifo_uses_all_in_turn(backend) {
        let origin = Origin::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(origin.address);
        let held = hold(&group, 3).await;
        let order = addresses(&held);
        for conn in held {
            conn.release();
        }
        for turn in 0..7 {
            let conn = group.checkout().await.unwrap();
            assert_eq!(conn.local_addr().unwrap(), order[turn % 3]);
            conn.release();
        }
        close_and_check(pool).await;
    }

    async fn the_lifo_connections_that_are_not_used_time_out(backend) {
        let origin = Origin::start();
        let pool = builder(backend).idle_timeout(ms(400)).endpoint(|policy| {
            policy.capacity.order = Order::Lifo;
        });
        let pool = pool.build().unwrap();
        let group = pool.group(origin.address);
        rest(&group, 5).await;
        eventually("one is left", || {
            if let Some(conn) = group.try_checkout() {
                conn.release();
            }
            closed(&group, CloseReason::IdleTimeout) >= 4
        }).await;
        // The one that is used, unless the machine stood still.
        let stats = group.stats();
        let ended = stats.closed_for(CloseReason::IdleTimeout);
        assert_eq!((u64::from(stats.idle) + ended, stats.opened), (5, 5));
        close_and_check(pool).await;
    }

    async fn an_endpoint_of_its_own_policy_differs_and_the_others_do_not(backend) {
        let (own, other) = (Origin::start(), Origin::start());
        let mut settings = corepool::Settings::default();
        settings.endpoint.lifetime.max_uses = Some(1);
        let overrides = settings.endpoints.entry(own.address.to_string()).or_default();
        overrides.lifetime.max_uses = Some(None);
        overrides.lifetime.idle_timeout_ms = Some(300);
        overrides.capacity.warm_up = Some(2);
        let pool = tuned(Pool::builder(TcpConnector).settings(settings), backend);
        let pool = pool.build().unwrap();
        let (own, other) = (pool.group(own.address), pool.group(other.address));
        other.checkout().await.unwrap().release();
        assert_eq!(other.stats().idle, 0, "the default: one use");
        assert_eq!(other.settings().lifetime.idle_timeout_ms, 60_000);
        eventually("two are warm", || own.stats().idle == 2).await;
        own.checkout().await.unwrap().release();
        assert_eq!(own.stats().idle, 2, "any number of uses");
        eventually("its own timeout", || closed(&own, CloseReason::IdleTimeout) == 2).await;
        assert_eq!(other.stats().opened, 1);
        close_and_check(pool).await;
    }
}
