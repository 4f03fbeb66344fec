//! Limits of the pool's own host: ports, descriptors, memory.

use std::{fs, os::fd::AsRawFd, time::Duration};

use corepool::{Backend, CloseReason, DialErrorKind, Pool, TcpConnector};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{
    load::{check_out, dial_kind, load},
    origin::{Origin, listen},
    peers::Events,
    stage::{Stage, Under, play},
    support::eventually,
};
use crate::faults;

const PATIENCE: Duration = Duration::from_secs(2);

faults! {
    async fn ports_run_out_and_what_there_is_serves_on(stage) {
        // Of a namespace, so nobody else's.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007").unwrap();
        let origin = Origin::start(&stage);
        let pool = stage.builder().build().unwrap();
        let group = pool.group(origin.address);
        let mut held = Vec::new();
        let error = loop {
            match check_out(&group).await {
                Ok(conn) => held.push(conn),
                Err(error) => break error,
            }
            assert!(held.len() <= 8, "the range has no effect");
        };
        assert_eq!(dial_kind(&error), Some(DialErrorKind::Ports), "{error}");
        assert!(error.to_string().contains("no local port left"), "{error}");
        assert!(held.len() >= 4, "{} connections of 8 ports", held.len());
        let conflicts = |pool: &Pool<_>| -> u64 {
            pool.stats().shards.iter().map(|shard| shard.port_conflicts).sum()
        };
        assert!(conflicts(&pool) > 0);
        held.into_iter().for_each(|conn| conn.release());
        let tally = load(&group, 4, PATIENCE, Duration::from_millis(200)).await;
        assert!(tally.served > 0 && tally.broken == 0, "{tally:?}");
        assert!(tally.only(&["Ports"]), "{tally:?}");
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 48000").unwrap();
        let tally = load(&group, 16, PATIENCE, Duration::from_millis(200)).await;
        assert!(tally.served > 0 && tally.failed() == 0, "{tally:?}");
        drop(group);
        stage.end(pool, &origin).await;
    }

    async fn descriptors_run_out_under_load(stage) {
        let origin = Origin::silent(&stage);
        let events = Events::default();
        let pool = stage.builder().observer(events.observer()).build().unwrap();
        let group = pool.group(origin.address);
        let other = pool.group(corepool::Endpoint::from(origin.address).with_tag("other"));
        for conn in {
            let mut rests = Vec::new();
            for _ in 0..8 {
                rests.push(check_out(&other).await.unwrap());
            }
            rests
        } {
            conn.release();
        }
        eventually("the origin has them", || origin.connections() == 8).await;
        // The origin is of the same process: it accepts no more until there is room again.
        origin.fall();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let highest = {
            let probes: Vec<_> = (0..6).map(|_| fs::File::open("/dev/null").unwrap()).collect();
            probes.iter().map(|file| file.as_raw_fd()).max().unwrap()
        };
        let backlog = listen(&stage, 64);
        setrlimit(Resource::RLIMIT_NOFILE, highest as u64 + 1, hard).unwrap();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let group = group.clone();
            callers.spawn(async move { check_out(&group).await });
        }
        let (mut served, mut told) = (Vec::new(), Vec::new());
        while let Some(answer) = callers.join_next().await {
            match answer.unwrap() {
                Ok(conn) => served.push(conn),
                Err(error) => told.push(error),
            }
        }
        let descriptors = |error| dial_kind(error) == Some(DialErrorKind::Descriptors);
        assert!(!served.is_empty() && told.iter().any(descriptors), "{told:?}");
        assert!(told.iter().all(descriptors), "{told:?}");
        eventually("what rests made room", || {
            other.stats().closed_for(CloseReason::Evicted) > 0
                && events.count("descriptor_pressure") > 0
        })
        .await;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        origin.accept_on(backlog);
        check_out(&group).await.unwrap().release();
        drop((served, group, other));
        stage.end(pool, &origin).await;
    }
}

/// Linux 6.18 charges a ring to RLIMIT_MEMLOCK, unless the process has CAP_IPC_LOCK. Where a kernel
/// does not, the ring opens; either way the pool runs, and says on what.
mod no_memory_may_be_locked {
    use super::*;

    async fn case(mut stage: Stage) {
        setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).unwrap();
        let origin = Origin::start(&stage);
        let pool = stage.builder().backend(Backend::Auto).build().unwrap();
        let report = pool.backend();
        match Pool::builder(TcpConnector).backend(Backend::IoUring).shards(1).build() {
            Ok(_) => assert_eq!(report.selected, "io_uring", "{report:?}"),
            Err(error) => {
                assert!(error.to_string().contains("RLIMIT_MEMLOCK is too low"), "{error}");
                assert_eq!(report.selected, "epoll", "{report:?}");
                assert!(report.reason.contains("RLIMIT_MEMLOCK is too low"), "{report:?}");
            }
        }
        let group = pool.group(origin.address);
        let tally = load(&group, 16, PATIENCE, Duration::from_millis(300)).await;
        assert!(tally.served > 0 && tally.failed() == 0 && tally.broken == 0, "{tally:?}");
        drop(group);
        stage.end(pool, &origin).await;
    }

    #[test]
    fn io_uring() {
        play(module_path!(), Backend::IoUring, Under::NoIpcLock, case);
    }
}
