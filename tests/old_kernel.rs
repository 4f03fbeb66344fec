//! The whole pool on io_uring as older kernels have it.
//!
//! `strace` has the kernel refuse set-up flags and changes its answers on the way back, so nothing
//! of the library knows. Each case runs in a child; `--ignored` runs the behaviour tests likewise.
#![cfg(target_os = "linux")]

mod support;

use std::{env, fmt::Write, process::Command, time::Duration};

use corepool::{Backend, CloseReason, DialErrorKind};
use support::{Blackhole, Echo, Ended, builder, close_and_check, eventually, uring_is_expected};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHILD: &str = "COREPOOL_TEST_OLD_KERNEL_CHILD";

/// The last operation that a kernel knows (`enum io_uring_op`): EPOLL_CTL, REMOVE_BUFFERS, MSG_RING.
const LAST_OF_5_6: u8 = 29;
const LAST_OF_5_7: u8 = 32;
const LAST_OF_5_18: u8 = 40;

/// `IORING_FEAT_*` of 5.6: SINGLE_MMAP, NODROP, SUBMIT_STABLE, RW_CUR_POS, CUR_PERSONALITY.
const FEATURES_OF_5_6: u32 = 0x1f;
/// And of 5.7: FAST_POLL.
const FEATURES_OF_5_7: u32 = 0x3f;

/// What the kernel does not know of set-up flags: each thread's first two rings, which are the first
/// two rungs of its shard's ladder, are refused.
fn refuse_two_rungs() -> String {
    "io_uring_setup:error=EINVAL:when=1..2".to_owned()
}

/// Has every ring made without flags but `IORING_SETUP_CQSIZE`, and tells of these features only:
/// the `flags` and the `features` of `struct io_uring_params`.
fn plain_ring(features: u32) -> String {
    let params = |features: u32| {
        let fields = [256, 2048, 1 << 3, 0, 0, features];
        hex(&fields.map(u32::to_ne_bytes).concat())
    };
    let (asked, told) = (params(0), params(features));
    format!("io_uring_setup:poke_enter=@arg2={asked}:poke_exit=@arg2={told}")
}

/// The answer of a probe: `struct io_uring_probe` and its `ops`.
fn probe(last: u8) -> String {
    const SUPPORTED: u8 = 1;
    let mut answer = vec![last, last + 1];
    answer.resize(16, 0);
    for operation in 0..64 {
        let flags = if operation <= last { SUPPORTED } else { 0 };
        answer.extend([operation, 0, flags, 0, 0, 0, 0, 0]);
    }
    format!("io_uring_register:poke_exit=@arg3={}", hex(&answer))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A command with these injections into all its threads.
fn under_strace(injections: &[String]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"]);
    command.args(["-e", "trace=io_uring_setup,io_uring_register"]);
    for injection in injections {
        command.arg("-e").arg(format!("inject={injection}"));
    }
    command.env_remove("COREPOOL_BACKEND");
    command
}

fn expect_pass(injections: &[String], body: &str) {
    if env::var_os(CHILD).is_some() || !uring_is_expected() {
        return;
    }
    let output = under_strace(injections)
        .arg(env::current_exe().unwrap())
        .args(["--exact", body, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("strace cannot be started; install it: apt-get install strace");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("test result: ok. 1 passed"),
        "{body}:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// COOP_TASKRUN and SINGLE_ISSUER are refused, SOCKET and URING_CMD are unknown.
#[test]
fn linux_5_18() {
    expect_pass(&[refuse_two_rungs(), probe(LAST_OF_5_18)], "child::on_5_18");
}

/// The lowest ring of all: no flag, nothing that is used where it is found.
#[test]
fn linux_5_7() {
    expect_pass(&[plain_ring(FEATURES_OF_5_7), probe(LAST_OF_5_7)], "child::on_5_7");
}

/// A connect by the ring would end with `EINPROGRESS` there.
#[test]
fn linux_5_6_gets_the_reactor() {
    expect_pass(&[plain_ring(FEATURES_OF_5_6), probe(LAST_OF_5_6)], "child::on_5_6");
}

/// `cargo test --test old_kernel -- --ignored`: whole suites on the lowest ring.
#[test]
#[ignore = "runs other test programs by cargo"]
fn the_behaviour_on_linux_5_7() {
    let injections = [plain_ring(FEATURES_OF_5_7), probe(LAST_OF_5_7)];
    let status = under_strace(&injections)
        .arg(env!("CARGO"))
        .args(["test", "--quiet", "--test", "behaviour", "--test", "lifetime"])
        .env_remove("COREPOOL_TEST_NO_URING")
        .status()
        .expect("strace cannot be started; install it: apt-get install strace");
    assert!(status.success(), "the behaviour on the lowest ring");
}

/// The bodies that run in a child; in the parent they have nothing to do.
mod child {
    use super::*;

    fn is_child() -> bool {
        env::var_os(CHILD).is_some()
    }

    #[tokio::test]
    async fn on_5_18() {
        if is_child() {
            serves("plain; without SOCKET, SETSOCKOPT").await;
        }
    }

    #[tokio::test]
    async fn on_5_7() {
        if is_child() {
            // The driver asked for a ring of the highest rung and believes that it has one.
            serves("single_issuer, coop_taskrun; without SOCKET, SETSOCKOPT, CQE_SKIP_SUCCESS")
                .await;
        }
    }

    #[tokio::test]
    async fn on_5_6() {
        if !is_child() {
            return;
        }
        let pool = builder(Backend::Auto).build().unwrap();
        let report = pool.backend();
        assert_eq!(report.selected, "epoll", "{report:?}");
        assert!(report.reason.contains("older than 5.7"), "{report:?}");
        close_and_check(pool).await;
    }

    /// The core of what a pool does, with a ring that says this of itself.
    async fn serves(features: &str) {
        let origin = Echo::start();
        let pool = builder(Backend::IoUring)
            .connect_timeout(Duration::from_millis(300))
            .reset_evicted(true)
            .build()
            .unwrap();
        let report = pool.backend();
        assert!(report.reason.ends_with(&format!("({features})")), "{report:?}");

        let group = pool.group(origin.address);
        for round in 0..3 {
            let mut conn = group.checkout().await.unwrap();
            assert_eq!(conn.is_reused(), round > 0);
            conn.write_all(b"ping").await.unwrap();
            conn.read_exact(&mut [0; 4]).await.unwrap();
            conn.release();
        }
        // A peer that goes at rest is noticed by the watch.
        drop(origin.next().shutdown(std::net::Shutdown::Both));
        eventually("closed without a checkout", || {
            group.stats().closed_for(CloseReason::PeerClosed) == 1
        })
        .await;
        let _ = origin.next_end();

        // A close under a watch sends its FIN, an eviction its RST.
        for how in [Ended::Fin, Ended::Reset] {
            let mut conn = group.checkout().await.unwrap();
            conn.write_all(b"ping").await.unwrap();
            conn.read_exact(&mut [0; 4]).await.unwrap();
            if how == Ended::Fin {
                conn.discard();
            } else {
                conn.release();
                assert_eq!(pool.evict_idle(1), 1);
            }
            assert_eq!(origin.next_end(), how);
        }

        let refused = pool.group(nobody()).checkout().await.unwrap_err();
        assert!(refused.to_string().contains("refused"), "{refused}");
        let hole = Blackhole::start();
        let error = pool.group(hole.address).checkout().await.unwrap_err();
        let corepool::CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::TimedOut);

        // Sixty-four at once.
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let group = group.clone();
                tokio::spawn(async move { group.checkout().await.unwrap() })
            })
            .collect();
        let mut held = Vec::new();
        for caller in callers {
            held.push(caller.await.unwrap());
        }
        assert_eq!(group.stats().in_use, 64);
        drop(held);
        close_and_check(pool).await;
    }

    /// An address that refuses.
    fn nobody() -> std::net::SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }
}
