//! Origins that reset, restart, accept slowly or not at all.

use std::time::Duration;

use corepool::{CloseReason, DialErrorKind};
use socket2::{Domain, Socket, Type};

use super::{
    load::{check_out, dial_kind, exchange, load},
    origin::{Origin, listen},
    stage::CONNECT,
    support::eventually,
};
use crate::faults;

const PATIENCE: Duration = Duration::from_millis(300);

faults! {
    async fn resets_at_rest_and_in_use_are_counted_as_such(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        let mut held = Vec::new();
        for _ in 0..32 {
            held.push(check_out(&group).await.unwrap());
        }
        let used = held.split_off(16);
        held.into_iter().for_each(|conn| conn.release());
        eventually("all are there", || origin.connections() == 32).await;
        origin.reset();
        let closed = || group.stats().closed_for(CloseReason::PeerReset);
        eventually("what rested is closed", || closed() == 16).await;
        for mut conn in used {
            assert!(exchange(&mut conn, PATIENCE).await.is_err());
            conn.release();
        }
        eventually("what was in use is closed", || closed() == 32).await;
        check_out(&group).await.unwrap().release();
        drop(group);
        stage.end(pool, &origin).await;
    }

    async fn an_origin_restarts_under_load(stage) {
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        let under_load = {
            let group = group.clone();
            tokio::spawn(async move {
                load(&group, 16, Duration::from_secs(1), Duration::from_millis(1200)).await
            })
        };
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            origin.fall();
            origin.reset();
            tokio::time::sleep(Duration::from_millis(100)).await;
            origin.rise(&stage);
        }
        let tally = under_load.await.unwrap();
        assert!(tally.served >= 16, "{tally:?}");
        assert!(tally.failed() > 0, "it was down: {tally:?}");
        assert!(tally.only(&["Refused", "PeerClosed", "TimedOut"]), "{tally:?}");
        let stats = group.stats();
        assert!(stats.dial_failures >= tally.failed() as u64, "{stats:?}");
        let tally = load(&group, 16, Duration::from_secs(1), Duration::from_millis(200)).await;
        assert!(tally.served >= 16 && tally.failed() == 0 && tally.broken == 0, "{tally:?}");
        drop(group);
        stage.end(pool, &origin).await;
    }

    /// The kernel connects ahead of the accept: it is the exchange that has to wait.
    async fn an_origin_that_accepts_slowly_delays_its_exchanges_only(stage) {
        let origin = Origin::start(&stage);
        origin.accept_slowly(Duration::from_millis(30));
        let pool = stage.builder().max_live(8).build().unwrap();
        let group = pool.group(origin.address);
        let tally = load(&group, 8, Duration::from_secs(2), Duration::from_millis(800)).await;
        assert!(tally.served >= 8 && tally.failed() == 0 && tally.broken == 0, "{tally:?}");
        drop(group);
        let stats = stage.end(pool, &origin).await;
        assert_eq!(stats.endpoints[0].dial_failures, 0);
    }

    /// Linux takes as many as the backlog and one, and is silent then.
    async fn a_backlog_that_is_full_times_dials_out_until_it_is_served(stage) {
        let origin = Origin::down();
        let listener = listen(&stage, 2);
        let fill: Vec<Socket> = (0..8)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&origin.address.into());
                socket
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        let tally = load(&group, 8, PATIENCE, CONNECT).await;
        assert!(tally.failed() >= 8 && tally.served == 0, "{tally:?}");
        assert!(tally.only(&["TimedOut"]), "{tally:?}");
        origin.accept_on(listener);
        let mut served = false;
        for _ in 0..4 {
            match check_out(&group).await {
                Ok(mut conn) => served |= exchange(&mut conn, PATIENCE).await.is_ok(),
                Err(error) => assert_eq!(dial_kind(&error), Some(DialErrorKind::TimedOut)),
            }
        }
        assert!(served);
        drop((group, fill));
        stage.end(pool, &origin).await;
    }
}
