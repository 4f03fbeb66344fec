//! io_uring denied: the same pool runs on tokio's reactor and says why.
//!
//! `strace` injects the errors that sandboxes and old kernels give; each case runs in a child.
#![cfg(target_os = "linux")]

mod support;

use std::{
    env,
    process::{Command, Output},
};

use corepool::{Backend, BuildError};
use support::{Echo, builder, close_and_check};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHILD: &str = "COREPOOL_TEST_FALLBACK_CHILD";

/// Runs one of the ignored-by-default bodies below with a system call failing.
fn under_strace(inject: &str, body: &str) -> Output {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={}", inject.split(':').next().unwrap()))
        .arg("-e")
        .arg(format!("inject={inject}"))
        .arg(env::current_exe().unwrap())
        .args(["--exact", body, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env_remove("COREPOOL_BACKEND")
        .output();
    output.expect("strace cannot be started; install it: apt-get install strace")
}

fn expect_pass(inject: &str, body: &str) {
    if env::var_os(CHILD).is_some() {
        return;
    }
    let output = under_strace(inject, body);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("test result: ok. 1 passed"),
        "{body} under {inject}:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_sandbox_that_denies_the_set_up() {
    expect_pass("io_uring_setup:error=EPERM", "child::auto_falls_back_and_says_why");
}

#[test]
fn a_kernel_without_io_uring() {
    expect_pass("io_uring_setup:error=ENOSYS", "child::auto_falls_back_and_says_why");
}

#[test]
fn no_memory_for_a_ring() {
    expect_pass("io_uring_setup:error=ENOMEM", "child::auto_falls_back_and_says_why");
}

#[test]
fn a_sandbox_that_allows_the_set_up_and_denies_the_enter() {
    expect_pass("io_uring_enter:error=EPERM", "child::auto_falls_back_and_says_why");
}

#[test]
fn a_sandbox_that_denies_the_probe() {
    expect_pass("io_uring_register:error=EACCES", "child::auto_falls_back_and_says_why");
}

#[test]
fn io_uring_asked_for_and_denied_is_an_error() {
    expect_pass("io_uring_setup:error=EPERM", "child::io_uring_is_refused_with_the_reason");
}

/// The first enters are the trial's; the filter comes later.
#[test]
fn a_filter_that_comes_under_way() {
    expect_pass("io_uring_enter:error=EPERM:when=40+", "child::the_shards_go_on_with_the_reactor");
}

/// The bodies that run in a child; in the parent they have nothing to do.
mod child {
    use super::*;

    fn is_child() -> bool {
        env::var_os(CHILD).is_some()
    }

    #[tokio::test]
    async fn auto_falls_back_and_says_why() {
        if !is_child() {
            return;
        }
        let origin = Echo::start();
        let pool = builder(Backend::Auto).build().unwrap();
        let report = pool.backend();
        assert_eq!((report.requested, report.selected), (Backend::Auto, "epoll"), "{report:?}");
        assert!(
            ["denied", "no io_uring", "RLIMIT_MEMLOCK"].iter().any(|w| report.reason.contains(w)),
            "{report:?}"
        );
        let group = pool.group(origin.address);
        for _ in 0..3 {
            let mut conn = group.checkout().await.unwrap();
            conn.write_all(b"ping").await.unwrap();
            conn.read_exact(&mut [0; 4]).await.unwrap();
            conn.release();
        }
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
    }

    #[tokio::test]
    async fn io_uring_is_refused_with_the_reason() {
        if !is_child() {
            return;
        }
        let error = builder(Backend::IoUring).build().unwrap_err();
        assert!(matches!(error, BuildError::Backend { shard: 0, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("io-uring") && text.contains("denied"), "{text}");
    }

    #[tokio::test]
    async fn the_shards_go_on_with_the_reactor() {
        if !is_child() {
            return;
        }
        let origin = Echo::start();
        let pool = builder(Backend::Auto).shards(1).build().unwrap();
        assert_eq!(pool.backend().selected, "io_uring");
        let group = pool.group(origin.address);
        let mut failed = 0;
        for _ in 0..200 {
            match group.checkout().await {
                Ok(mut conn) => {
                    conn.write_all(b"ping").await.unwrap();
                    conn.read_exact(&mut [0; 4]).await.unwrap();
                    conn.discard();
                }
                // The dials that were under way when the ring failed.
                Err(error) => {
                    assert!(error.to_string().contains("driver failed"), "{error}");
                    failed += 1;
                }
            }
        }
        let report = pool.backend();
        assert_eq!(report.selected, "epoll", "{report:?}");
        assert!(report.reason.contains("the ring failed"), "{report:?}");
        assert!(failed <= 2, "{failed} checkouts failed");
        close_and_check(pool).await;
    }
}
