//! Out of descriptors: a clear error, the pool goes on, nothing leaks. A process of its own,
//! because the limit is the process's.
#![cfg(target_os = "linux")]

mod support;

use std::{fs, net::TcpListener, os::fd::AsRawFd};

use corepool::{Backend, CheckoutError, DialErrorKind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{builder, close_and_check, eventually, uring_is_expected};

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The limit that leaves room for a few descriptors more, restored on drop.
struct Scarce(u64, u64);

impl Scarce {
    fn with_room_for(room: u64) -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // The limit is on numbers, not on how many are open: the next free ones count.
        let mut probes: Vec<fs::File> = Vec::new();
        for _ in 0..room {
            probes.push(fs::File::open("/dev/null").unwrap());
        }
        let highest = probes.iter().map(|file| file.as_raw_fd()).max().unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, highest as u64 + 1, hard).unwrap();
        Self(soft, hard)
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.0, self.1).unwrap();
    }
}

async fn exhaust(backend: Backend) {
    // Connections are made by the backlog; nobody has to accept them.
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    let before = open_descriptors();
    let pool = builder(backend).build().unwrap();
    let group = pool.group(address);
    let with_pool = open_descriptors();

    let scarce = Scarce::with_room_for(3);
    let mut held = Vec::new();
    let error = loop {
        match group.checkout().await {
            Ok(conn) => held.push(conn),
            Err(error) => break error,
        }
        assert!(held.len() <= 8, "the limit has no effect");
    };
    let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
    assert_eq!(dial.kind(), DialErrorKind::Descriptors, "{error}");
    let text = error.to_string();
    assert!(text.contains("no descriptor left") && text.contains(&address.to_string()), "{text}");

    // What there is goes on being used.
    assert!(!held.is_empty());
    held.pop().unwrap().release();
    let again = group.checkout().await.unwrap();
    assert!(again.is_reused());
    held.push(again);

    drop(scarce);
    let late = group.checkout().await.unwrap();
    assert!(!late.is_reused());
    held.push(late);
    drop(held);
    drop(group);
    close_and_check(pool.clone()).await;
    eventually("sockets are closed", || open_descriptors() <= with_pool).await;
    drop(pool);
    eventually("rings and runtimes are closed", || open_descriptors() <= before).await;
}

/// One test, so that the backends do not get into each other's way.
#[tokio::test]
async fn descriptors_run_out_and_come_back_on_both_drivers() {
    exhaust(Backend::Epoll).await;
    if uring_is_expected() {
        exhaust(Backend::IoUring).await;
    }
}
