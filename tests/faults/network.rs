//! The network between the pool and its origins: silent, rejecting, down, lossy.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use corepool::{CloseReason, DialErrorKind, Endpoint};

use super::{
    callers::{call, outcomes},
    load::{check_out, dial_kind, exchange, load},
    origin::Origin,
    peers::{Reply, Scripted},
    stage::{CONNECT, PORT, sh},
    support::eventually,
};
use crate::faults;

const PATIENCE: Duration = Duration::from_millis(300);

faults! {
    async fn a_dial_into_silence_times_out_and_the_next_one_succeeds(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        stage.firewall("drop");
        let began = Instant::now();
        let waiting: Vec<_> = (0..8).map(|_| call(&group)).collect();
        let (served, told) = outcomes(waiting).await;
        assert!(served.is_empty());
        let all = told.iter().all(|error| dial_kind(error) == Some(DialErrorKind::TimedOut));
        assert!(all && told.len() == 8, "{told:?}");
        assert!(began.elapsed() < 3 * CONNECT, "all dials are under way at once");
        assert_eq!(group.stats().dial_failures, 8);
        stage.no_firewall();
        let mut conn = check_out(&group).await.unwrap();
        exchange(&mut conn, PATIENCE).await.unwrap();
        conn.release();
        drop(group);
        let stats = stage.end(pool, &origin).await;
        assert_eq!((stats.endpoints[0].opened, stats.endpoints[0].dial_failures), (1, 8));
    }

    /// Nobody can know that a peer is gone who says nothing; what is found out is not kept.
    async fn silence_in_an_exchange_ends_the_connection_and_no_other_caller(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(check_out(&group).await.unwrap());
        }
        let rests = held.split_off(2);
        rests.into_iter().for_each(|conn| conn.release());
        stage.firewall("drop");
        for mut conn in held {
            assert!(exchange(&mut conn, PATIENCE).await.is_err());
            drop(conn);
        }
        eventually("not kept", || group.stats().closed_for(CloseReason::Dirty) == 2).await;
        let tally = load(&group, 4, PATIENCE, Duration::from_millis(700)).await;
        assert_eq!((tally.served, tally.broken), (0, 2), "two had rested: {tally:?}");
        assert!(tally.failed() > 0 && tally.only(&["TimedOut"]), "{tally:?}");
        stage.no_firewall();
        let tally = load(&group, 4, PATIENCE, Duration::from_millis(200)).await;
        assert!(tally.served > 0 && tally.failed() == 0, "{tally:?}");
        drop(group);
        stage.end(pool, &origin).await;
    }

    async fn a_firewall_that_resets_refuses(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        stage.firewall("reject with tcp reset");
        let tally = load(&group, 8, PATIENCE, Duration::from_millis(200)).await;
        assert!(tally.failed() > 8 && tally.only(&["Refused"]), "{tally:?}");
        stage.no_firewall();
        let tally = load(&group, 8, PATIENCE, Duration::from_millis(200)).await;
        assert!(tally.served > 8 && tally.failed() == 0, "{tally:?}");
        drop(group);
        stage.end(pool, &origin).await;
    }

    async fn a_host_that_is_out_of_reach_is_unreachable(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        stage.firewall("reject with icmpx type host-unreachable");
        let error = check_out(&group).await.unwrap_err();
        assert_eq!(dial_kind(&error), Some(DialErrorKind::Unreachable), "{error}");
        stage.no_firewall();
        sh("ip route add unreachable 10.77.0.2/32");
        let error = check_out(&group).await.unwrap_err();
        assert_eq!(dial_kind(&error), Some(DialErrorKind::Unreachable), "{error}");
        sh("ip route del unreachable 10.77.0.2/32");
        check_out(&group).await.unwrap().release();
        drop(group);
        stage.end(pool, &origin).await;
    }

    /// The first address answers at once that it is out of reach; it must not win the race.
    async fn an_address_that_is_out_of_reach_loses_to_the_next(stage) {
        stage.far("ip addr add 10.77.0.3/24 dev far0");
        stage.firewall("ip daddr 10.77.0.3 reject with icmpx type host-unreachable");
        let origin = Origin::start(&stage);
        let addresses = [[10, 77, 0, 3], [10, 77, 0, 2]].map(IpAddr::from).to_vec();
        let resolver = Scripted::new([Reply::With(addresses, 60_000)]);
        let pool = stage.builder().resolver(resolver).build().unwrap();
        let group = pool.group(Endpoint::host("origin", PORT));
        for _ in 0..4 {
            let mut conn = check_out(&group).await.unwrap();
            exchange(&mut conn, PATIENCE).await.unwrap();
            conn.discard();
        }
        assert_eq!(group.stats().dial_failures, 0);
        drop(group);
        stage.end(pool, &origin).await;
    }

    /// TCP outlasts it, and so does what rests.
    async fn a_link_that_goes_down_and_comes_up_again(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        let mut held = check_out(&group).await.unwrap();
        check_out(&group).await.unwrap().release();
        stage.far("ip link set far0 down");
        assert!(exchange(&mut held, PATIENCE).await.is_err());
        held.discard();
        let mut rested = check_out(&group).await.unwrap();
        assert!(rested.is_reused(), "a link that is down says nothing of its connections");
        let tally = load(&group, 4, PATIENCE, Duration::from_millis(700)).await;
        assert_eq!((tally.served, tally.broken), (0, 0), "{tally:?}");
        assert!(tally.failed() > 0 && tally.only(&["TimedOut", "Unreachable"]), "{tally:?}");
        stage.far("ip link set far0 up");
        exchange(&mut rested, Duration::from_secs(3)).await.unwrap();
        rested.release();
        let tally = load(&group, 4, PATIENCE, Duration::from_millis(300)).await;
        assert!(tally.served > 0, "{tally:?}");
        drop(group);
        stage.end(pool, &origin).await;
    }

    /// `ss -K`: what an administrator does, and what a kernel does to a socket that an address
    /// was taken from.
    async fn sockets_that_are_destroyed_at_rest_are_closed(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        let held: Vec<_> = {
            let mut held = Vec::new();
            for _ in 0..8 {
                held.push(check_out(&group).await.unwrap());
            }
            held
        };
        let mut held = held.into_iter();
        let mut used = held.next().unwrap();
        held.for_each(|conn| conn.release());
        sh(&format!("ss -K dport = :{PORT}"));
        let closed = || group.stats().closed_for(CloseReason::PeerReset);
        eventually("what rested is closed", || closed() == 7).await;
        assert!(group.try_checkout().is_none());
        assert!(exchange(&mut used, PATIENCE).await.is_err());
        used.release();
        eventually("what was in use is closed", || closed() == 8).await;
        check_out(&group).await.unwrap().release();
        drop(group);
        stage.end(pool, &origin).await;
    }

    async fn a_fifth_of_all_packets_is_lost_under_load(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        stage.firewall("numgen random mod 100 \\< 20 drop");
        let tally = load(&group, 32, Duration::from_millis(500), Duration::from_secs(2)).await;
        assert!(tally.served > 100, "{tally:?}");
        assert!(tally.only(&["TimedOut", "Timeout"]), "{tally:?}");
        let stats = group.stats();
        let timed_out = tally.failed.get("TimedOut").copied().unwrap_or_default();
        assert!(stats.dial_failures >= timed_out as u64, "{stats:?}");
        stage.no_firewall();
        // What was lost before is lost still.
        tokio::time::sleep(CONNECT).await;
        let tally = load(&group, 32, Duration::from_secs(2), Duration::from_millis(300)).await;
        assert!(tally.failed() == 0, "{tally:?}");
        drop(group);
        stage.end(pool, &origin).await;
    }
}
