//! What a kernel or a sandbox can deny: `strace` injects the errors, each into a child of its own.

use std::{io, net::SocketAddr, time::Duration};

use corepool::{CloseReason, DialErrorKind, PortWindow};
use socket2::SockRef;

use super::{
    conflicts, dial_error, options,
    support::{self, builder, close_and_check, eventually},
};

const CHILD: &str = "COREPOOL_TEST_SOCKETS_CHILD";

fn expect_pass(error: &str, body: &str) {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let output = std::process::Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=setsockopt", "-e"])
        .arg(format!("inject=setsockopt:error={error}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", body, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("strace cannot be started; install it: apt-get install strace");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("test result: ok. 1 passed"),
        "{body} under {error}:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn backends() -> impl Iterator<Item = corepool::Backend> {
    let uring = support::uring_is_expected().then_some(corepool::Backend::IoUring);
    uring.into_iter().chain([corepool::Backend::Epoll])
}

/// A listener that is made without any `setsockopt`.
fn listener() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(16).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

#[test]
fn a_process_without_the_right_to_mark() {
    expect_pass("EPERM", "denied::the_missing_right_is_named");
}

#[tokio::test]
async fn the_missing_right_is_named() {
    if !is_child() {
        return;
    }
    let (_listener, address) = listener();
    for backend in backends() {
        let options = options().nodelay(false).fwmark(7);
        let pool = builder(backend).sockets(options).build().unwrap();
        let error = dial_error(pool.group(address).checkout().await.unwrap_err());
        assert_eq!(error.kind(), DialErrorKind::Other);
        let text = error.to_string();
        let says = |what: &str| text.contains(what);
        assert!(says("fwmark 7") && says("CAP_NET_ADMIN") && says("not permitted"), "{text}");
        close_and_check(pool).await;
    }
}

/// Also the proof that the plain path makes no system call for an option.
#[test]
fn a_sandbox_that_denies_setsockopt_altogether() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // SOCKET_URING_OP_SETSOCKOPT is of Linux 6.7.
    if support::uring_is_expected() && version >= (6, 7) {
        expect_pass("EPERM", "denied::the_ring_sets_and_resets_by_itself");
    }
}

#[tokio::test]
async fn the_ring_sets_and_resets_by_itself() {
    if !is_child() {
        return;
    }
    let (listener, address) = listener();
    let pool = builder(corepool::Backend::IoUring)
        .reset_evicted(true)
        .idle_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let group = pool.group(address);
    let conn = group.checkout().await.unwrap();
    assert!(SockRef::from(&**conn).tcp_nodelay().unwrap());
    conn.release();
    let peer = listener.accept().unwrap().0;
    eventually("ended", || group.stats().closed_for(CloseReason::IdleTimeout) == 1).await;
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let error = peer.recv(&mut byte).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    close_and_check(pool).await;
}

#[test]
fn a_kernel_without_port_windows() {
    expect_pass("ENOPROTOOPT", "denied::dials_go_without_a_window");
}

#[test]
fn a_sandbox_that_refuses_the_option() {
    expect_pass("EINVAL", "denied::dials_go_without_a_window");
}

#[tokio::test]
async fn dials_go_without_a_window() {
    if !is_child() {
        return;
    }
    let (_listener, address) = listener();
    for backend in backends() {
        let window = PortWindow::default().size(1).range(45_000..=45_001);
        let options = options().nodelay(false).port_window(window);
        let pool = builder(backend).shards(1).sockets(options).build().unwrap();
        let group = pool.group(address);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(group.checkout().await.unwrap());
        }
        drop(held);
        assert_eq!(conflicts(&close_and_check(pool).await), 0);
    }
}
