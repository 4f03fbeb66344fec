//! The scripted network: dials that go wrong in ways that real ones do only at times.

mod support;

use std::time::Duration;

use corepool::{
    Backend, CheckoutError, CloseReason, DialErrorKind, Endpoint, Group, Pool,
    sim::{Dial, Peers, Script, SimConnector, script},
};
use support::{close_and_check, eventually, tuned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn simulated(limit: u32) -> (Pool<SimConnector>, Group<SimConnector>, Script, Peers) {
    let (script, peers) = script();
    let pool = tuned(Pool::builder(SimConnector), Backend::Auto)
        .shards(1)
        .max_live(limit)
        .connect_timeout(Duration::from_millis(100))
        .sim(script.clone())
        .build()
        .unwrap();
    let group = pool.group("192.0.2.1:80".parse::<Endpoint>().unwrap());
    (pool, group, script, peers)
}

fn dial_kind(error: &CheckoutError) -> DialErrorKind {
    match error {
        CheckoutError::Dial(dial) => dial.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_failed_dial_fails_one_caller_with_its_own_cause() {
    let (pool, group, script, _peers) = simulated(8);
    script.next_dial(Dial::RefuseAfter(Duration::from_millis(20)));
    script.next_dial(Dial::Blackhole);
    script.next_dial(Dial::Accept(Duration::from_millis(150)));
    script.next_dial(Dial::NoDescriptors);
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let group = group.clone();
            tokio::spawn(async move { group.checkout().await.map(drop) })
        })
        .collect();
    let mut kinds = Vec::new();
    for caller in callers {
        kinds.push(dial_kind(&caller.await.unwrap().unwrap_err()));
    }
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    use DialErrorKind::{Descriptors, Refused, TimedOut};
    assert_eq!(kinds, [Descriptors, Refused, TimedOut, TimedOut]);
    assert_eq!(group.stats().dial_failures, 4);
    group.checkout().await.unwrap().release();
    close_and_check(pool).await;
}

#[tokio::test]
async fn a_slow_dial_loses_to_a_connection_that_comes_back() {
    let (pool, group, script, _peers) = simulated(8);
    let held = group.checkout().await.unwrap();
    script.next_dial(Dial::Accept(Duration::from_millis(80)));
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.checkout().await.unwrap().is_reused() }
    });
    eventually("in line", || group.stats().waiting == 1).await;
    held.release();
    assert!(waiting.await.unwrap(), "served by the return");
    // The dial was not for nothing.
    eventually("both rest", || group.stats().idle == 2).await;
    close_and_check(pool).await;
}

#[tokio::test]
async fn a_connection_that_hangs_up_makes_room_for_a_waiter() {
    let (pool, group, _script, mut peers) = simulated(1);
    let mut conn = group.checkout().await.unwrap();
    let mut peer = peers.next().await;
    conn.write_all(b"hello").await.unwrap();
    peer.stream.read_exact(&mut [0; 5]).await.unwrap();
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.checkout().await.unwrap().is_reused() }
    });
    eventually("in line", || group.stats().waiting == 1).await;
    peer.hang_up();
    tokio::time::sleep(Duration::from_millis(10)).await;
    conn.release();
    assert!(!waiting.await.unwrap(), "a dead connection was handed on");
    assert_eq!(group.stats().closed_for(CloseReason::PeerClosed), 1);
    close_and_check(pool).await;
}

#[tokio::test]
async fn a_failed_dial_is_made_good_while_others_wait() {
    let (pool, group, script, _peers) = simulated(1);
    script.next_dial(Dial::RefuseAfter(Duration::from_millis(20)));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let group = group.clone();
            tokio::spawn(async move { group.checkout().await.map(drop) })
        })
        .collect();
    let mut failed = 0;
    for caller in callers {
        failed += usize::from(caller.await.unwrap().is_err());
    }
    assert_eq!(failed, 1, "one dial failed, so one caller fails");
    close_and_check(pool).await;
}
