//! The ring: denied, short of memory, broken under load, and overflowing.

use std::{sync::mpsc, time::Duration};

use corepool::{Backend, CloseReason};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;

use super::{
    load::{check_out, load},
    origin::Origin,
    stage::{Stage, Under, play},
    support::eventually,
};
use crate::faults;

const PATIENCE: Duration = Duration::from_secs(1);

/// The ring is refused at the start: the same load runs on the reactor.
async fn denied(mut stage: Stage) {
    let origin = Origin::start(&stage);
    let pool = stage.builder().backend(Backend::Auto).build().unwrap();
    let report = pool.backend();
    assert_eq!(report.selected, "epoll", "{report:?}");
    let group = pool.group(origin.address);
    let tally = load(&group, 16, PATIENCE, Duration::from_millis(400)).await;
    assert!(tally.served >= 16 && tally.failed() == 0 && tally.broken == 0, "{tally:?}");
    drop(group);
    stage.end(pool, &origin).await;
}

/// The ring goes under way: dials under way fail, everybody is answered, nothing leaks.
async fn lost(mut stage: Stage) {
    let origin = Origin::start(&stage);
    let pool = stage.builder().shards(1).backend(Backend::Auto).build().unwrap();
    assert_eq!(pool.backend().selected, "io_uring");
    let group = pool.group(origin.address);
    let under_load = {
        let group = group.clone();
        tokio::spawn(async move { load(&group, 16, PATIENCE, Duration::from_secs(2)).await })
    };
    eventually("the ring is lost", || pool.backend().selected == "epoll").await;
    let tally = under_load.await.unwrap();
    let report = pool.backend();
    assert!(report.reason.contains("the ring failed"), "{report:?}");
    assert!(tally.served >= 16 && tally.broken == 0, "{tally:?}");
    assert!(tally.only(&["Backend"]), "{tally:?}");
    let tally = load(&group, 16, PATIENCE, Duration::from_millis(200)).await;
    assert!(tally.served >= 16 && tally.failed() == 0 && tally.broken == 0, "{tally:?}");
    drop(group);
    stage.end(pool, &origin).await;
}

macro_rules! injected {
    ($($name:ident: $inject:literal, $case:ident;)*) => {$(
        mod $name {
            use super::*;

            /// Asked of the io_uring driver only: the reactor makes none of these calls.
            #[test]
            fn io_uring() {
                play(module_path!(), Backend::IoUring, Under::Strace($inject), $case);
            }
        }
    )*};
}

injected! {
    a_sandbox_denies_the_ring_under_load: "io_uring_setup:error=EPERM", denied;
    no_memory_for_a_ring_under_load: "io_uring_setup:error=ENOMEM", denied;
    a_filter_comes_late_under_load: "io_uring_enter:error=EPERM:when=40+", lost;
}

/// More than a completion queue holds (2048).
const BURST: usize = 2300;

faults! {
    /// Every dial of a burst asks for its socket before the first answer is read, and every watch
    /// fires before the next. On the ring both are more completions than their queue has places.
    async fn more_completions_at_once_than_the_ring_has_places_for(stage) {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(hard > 2 * BURST as u64 + 100, "{hard} descriptors are too few for both ends");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let origin = Origin::silent(&stage);
        let pool = stage
            .builder()
            .shards(1)
            .slots_per_shard(4096)
            .max_live(4096)
            .max_idle(4096)
            .connect_timeout(Duration::from_secs(10))
            .acquire_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        // The shard's thread is busy while the callers line up.
        let (busy, idle) = mpsc::channel::<()>();
        let blocking = pool.shards()[0].spawn(async move { idle.recv().unwrap() });
        let mut callers = JoinSet::new();
        for _ in 0..BURST {
            let group = group.clone();
            callers.spawn(async move { group.checkout().await });
        }
        eventually("all are in line", || group.stats().waiting as usize == BURST).await;
        busy.send(()).unwrap();
        blocking.await.unwrap();
        let conns: Vec<_> = callers.join_all().await.into_iter().map(Result::unwrap).collect();
        assert_eq!((conns.len(), group.stats().opened as usize), (BURST, BURST));
        conns.into_iter().for_each(|conn| conn.release());
        eventually("all rest", || group.stats().idle as usize == BURST).await;

        eventually("the origin has them all", || origin.connections() == BURST).await;
        let (busy, idle) = mpsc::channel::<()>();
        let blocking = pool.shards()[0].spawn(async move { idle.recv().unwrap() });
        origin.reset();
        tokio::time::sleep(Duration::from_millis(100)).await;
        busy.send(()).unwrap();
        blocking.await.unwrap();
        let closed = || group.stats().closed_for(CloseReason::PeerReset) as usize;
        eventually("each is noticed", || closed() == BURST).await;
        check_out(&group).await.unwrap().release();
        drop(group);
        stage.end(pool, &origin).await;
    }
}
