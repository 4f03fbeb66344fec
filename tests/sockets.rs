//! How sockets are set up, looked at and closed: on real sockets, on both drivers.
#![cfg(target_os = "linux")]

mod support;

#[path = "sockets/denied.rs"]
mod denied;
#[path = "sockets/unix_echo.rs"]
mod unix_echo;

use std::{
    error::Error,
    io::{self, Write},
    net::Shutdown,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use corepool::{
    Builder, CheckoutError, CloseReason, Condition, Connection, Connector, DialError,
    DialErrorKind, Endpoint, Inspect, Keepalive, Pool, PoolStats, PortWindow, RawConnector,
    SocketOptions, StreamConnector, TcpConnector,
};
use nix::{libc, sys::socket::getsockopt};
use socket2::SockRef;
use support::{Echo, Ended, builder, close_and_check, eventually, tuned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unix_echo::UnixEcho;

/// One exchange with an [`Echo`].
macro_rules! exchange {
    ($conn:expr) => {{
        $conn.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        $conn.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
    }};
}

fn dial_error(error: CheckoutError) -> DialError {
    match error {
        CheckoutError::Dial(dial) => dial,
        other => panic!("{other:?}"),
    }
}

fn conflicts(stats: &PoolStats) -> u64 {
    stats.shards.iter().map(|shard| shard.port_conflicts).sum()
}

fn options() -> SocketOptions {
    SocketOptions::default()
}

on_both_drivers! {
    async fn by_default_a_socket_has_nodelay_and_nothing_else(backend) {
        let origin = Echo::start();
        let pool = builder(backend).build().unwrap();
        let conn = pool.group(origin.address).checkout().await.unwrap();
        let socket = SockRef::from(&**conn);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.mark().unwrap(), 0);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        assert_eq!(getsockopt(&socket.as_fd(), PortRange).unwrap(), 0);
        drop(conn);
        close_and_check(pool).await;
    }

    async fn options_are_set(backend) {
        let origin = Echo::start();
        let keepalive = Keepalive::default()
            .idle(Duration::from_secs(33))
            .interval(Duration::from_secs(7))
            .probes(4);
        let options =
            options().nodelay(false).keepalive(keepalive).user_timeout(Duration::from_millis(12_345));
        let pool = builder(backend).sockets(options).build().unwrap();
        let mut conn = pool.group(origin.address).checkout().await.unwrap();
        let socket = SockRef::from(&**conn);
        assert!(!socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(33));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
        exchange!(conn);
        conn.release();
        close_and_check(pool).await;
    }

    async fn the_source_address_is_used(backend) {
        let origin = Echo::start();
        let options = options().source("127.0.0.87".parse().unwrap());
        let pool = builder(backend).sockets(options).build().unwrap();
        let conn = pool.group(origin.address).checkout().await.unwrap();
        let peer = origin.next().peer_addr().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.87");
        assert_eq!(peer, conn.local_addr().unwrap());
        drop(conn);
        close_and_check(pool).await;
    }

    async fn a_source_address_has_its_ports_for_each_destination(backend) {
        // With IP_BIND_ADDRESS_NO_PORT one source port serves two destinations; a bind without
        // it takes a port for all of them.
        let (one, two) = (Echo::start(), Echo::start());
        let options = options()
            .source("127.0.0.88".parse().unwrap())
            .port_window(PortWindow::default().range(42_000..=42_000));
        let pool = builder(backend).sockets(options).build().unwrap();
        let first = pool.group(one.address).checkout().await.unwrap();
        let second = pool.group(two.address).checkout().await.unwrap();
        assert_eq!(first.local_addr().unwrap().port(), 42_000);
        assert_eq!(second.local_addr().unwrap().port(), 42_000);
        drop((first, second));
        close_and_check(pool).await;
    }

    async fn a_source_address_that_is_not_ours_is_an_error_that_names_it(backend) {
        let origin = Echo::start();
        for (source, says) in [("192.0.2.1", "192.0.2.1"), ("::1", "another family")] {
            let options = options().source(source.parse().unwrap());
            let pool = builder(backend).sockets(options).build().unwrap();
            let error = dial_error(pool.group(origin.address).checkout().await.unwrap_err());
            assert_eq!(error.kind(), DialErrorKind::Other, "not the want of ports: {error}");
            let text = error.to_string();
            assert!(text.contains(says) && text.contains(&origin.address.to_string()), "{text}");
            assert_eq!(conflicts(&close_and_check(pool).await), 0);
        }
    }

    async fn ports_stay_inside_the_window(backend) {
        let origin = Echo::start();
        let window = PortWindow::default().size(8).range(43_000..=43_099);
        let options = options().source("127.0.0.89".parse().unwrap()).port_window(window);
        let pool = builder(backend).sockets(options).build().unwrap();
        let group = pool.group(origin.address);
        let mut held = Vec::new();
        let mut windows = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let conn = group.checkout().await.unwrap();
            let port = u32::from(conn.local_addr().unwrap().port());
            let range = getsockopt(&SockRef::from(&**conn).as_fd(), PortRange).unwrap();
            let (first, last) = (range & 0xffff, range >> 16);
            assert!((43_000..=43_099).contains(&first) && last <= 43_099, "{first} to {last}");
            assert!((first..=last).contains(&port), "{port} is not in {first} to {last}");
            // A window, or the whole range after four windows without a free port.
            assert!(last - first == 7 || last - first == 99, "{first} to {last}");
            windows.insert(first);
            held.push(conn);
        }
        assert!(windows.len() > 5, "no striping: {windows:?}");
        drop(held);
        close_and_check(pool).await;
    }

    async fn a_window_of_the_systems_range_is_its_default(backend) {
        let origin = Echo::start();
        let options = options().port_window(PortWindow::default());
        let pool = builder(backend).sockets(options).build().unwrap();
        let conn = pool.group(origin.address).checkout().await.unwrap();
        let range = getsockopt(&SockRef::from(&**conn).as_fd(), PortRange).unwrap();
        let (first, last) = (range & 0xffff, range >> 16);
        assert_eq!(last - first, 127, "{first} to {last}");
        drop(conn);
        close_and_check(pool).await;
    }

    async fn when_ports_run_out_the_error_names_the_endpoint_and_is_counted(backend) {
        let origin = Echo::start();
        let options = options()
            .source("127.0.0.90".parse().unwrap())
            .port_window(PortWindow::default().size(1).range(44_000..=44_003));
        let pool = builder(backend).shards(1).sockets(options).build().unwrap();
        let group = pool.group(origin.address);
        let mut held = Vec::new();
        let (error, before) = loop {
            let before = conflicts(&pool.stats());
            match group.checkout().await {
                Ok(conn) => held.push(conn),
                Err(error) => break (dial_error(error), before),
            }
            assert!(held.len() <= 4, "more connections than ports");
        };
        assert!(!held.is_empty());
        assert_eq!(error.kind(), DialErrorKind::Ports, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("no local port left") && text.contains(&origin.address.to_string()),
            "{text}"
        );
        assert_eq!(conflicts(&pool.stats()) - before, 5, "four windows and the whole range");
        drop(held);
        close_and_check(pool).await;
    }

    async fn a_mark_is_set_or_the_missing_right_is_named(backend) {
        let origin = Echo::start();
        let probe = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let allowed = probe.unwrap().set_mark(7).is_ok();
        let pool = builder(backend).sockets(options().fwmark(7)).build().unwrap();
        match pool.group(origin.address).checkout().await {
            Ok(conn) => {
                assert!(allowed);
                assert_eq!(SockRef::from(&**conn).mark().unwrap(), 7);
            }
            Err(error) => {
                assert!(!allowed, "{error}");
                let text = error.to_string();
                assert!(text.contains("fwmark 7") && text.contains("CAP_NET_ADMIN"), "{text}");
            }
        }
        close_and_check(pool).await;
    }

    async fn a_hook_sees_each_socket_before_it_connects(backend) {
        let origin = Echo::start();
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let options = options()
            .keepalive(Keepalive::default())
            .source("127.0.0.91".parse().unwrap())
            .before_connect(move |socket| {
                let socket = SockRef::from(&socket);
                assert!(socket.peer_addr().is_err(), "it is connected already");
                assert!(socket.keepalive()?, "the other options come first");
                // Only before the bind.
                assert!(socket.local_addr()?.as_socket().unwrap().ip().is_unspecified());
                socket.set_recv_buffer_size(54_321)?;
                seen.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
        let pool = builder(backend).sockets(options).build().unwrap();
        let mut conn = pool.group(origin.address).checkout().await.unwrap();
        // Linux doubles it, for its own bookkeeping.
        assert_eq!(SockRef::from(&**conn).recv_buffer_size().unwrap(), 2 * 54_321);
        exchange!(conn);
        conn.release();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        close_and_check(pool).await;
    }

    async fn a_hooks_error_reaches_the_caller(backend) {
        let origin = Echo::start();
        let options = options().before_connect(|_| {
            // Of a kind that means something else when a connect returns it.
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, OnPurpose))
        });
        let pool = builder(backend).sockets(options).build().unwrap();
        let error = dial_error(pool.group(origin.address).checkout().await.unwrap_err());
        assert_eq!(error.kind(), DialErrorKind::Other);
        assert!(error.to_string().contains("hook before the connect: on purpose"), "{error}");
        let mut cause: &(dyn Error + 'static) = &error;
        let found = loop {
            match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) if inner.is::<OnPurpose>() => break true,
                _ => {}
            }
            match cause.source() {
                Some(source) => cause = source,
                None => break false,
            }
        };
        assert!(found, "the hook's own error is lost");
        close_and_check(pool).await;
    }

    async fn a_hook_that_panics_fails_its_dial_alone(backend) {
        let origin = Echo::start();
        let calls = AtomicUsize::new(0);
        let options = options().before_connect(move |_| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "a hook's bug, on purpose");
            Ok(())
        });
        let pool = builder(backend).sockets(options).build().unwrap();
        let group = pool.group(origin.address);
        let error = group.checkout().await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        group.checkout().await.unwrap().release();
        close_and_check(pool).await;
    }

    async fn what_ends_at_rest_is_reset_where_asked_for(backend) {
        let origin = Echo::start();
        let pool = builder(backend)
            .max_idle(1)
            .reset_evicted(true)
            .idle_timeout(Duration::from_millis(200))
            .build()
            .unwrap();
        let group = pool.group(origin.address);
        let (mut one, mut two) = (group.checkout().await.unwrap(), group.checkout().await.unwrap());
        exchange!(one);
        exchange!(two);
        one.release();
        two.release();
        assert_eq!(origin.next_end(), Ended::Reset, "the surplus one");
        eventually("counted", || group.stats().closed_for(CloseReason::Surplus) == 1).await;
        assert_eq!(origin.next_end(), Ended::Reset, "the one that rested too long");
        eventually("counted", || group.stats().closed_for(CloseReason::IdleTimeout) == 1).await;
        // Any other end is in order.
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.discard();
        assert_eq!(origin.next_end(), Ended::Fin);
        close_and_check(pool).await;
    }

    async fn a_unix_socket_is_pooled(backend) {
        let origin = UnixEcho::start();
        let pool = tuned(Pool::builder(StreamConnector), backend).build().unwrap();
        let group = pool.group(Endpoint::unix(origin.path()));
        for round in 0..5 {
            let mut conn = group.checkout().await.unwrap();
            assert_eq!(conn.is_reused(), round > 0);
            assert!(matches!(*conn, corepool::Stream::Unix(_)));
            exchange!(conn);
            conn.release();
        }
        let stats = group.stats();
        assert_eq!((stats.opened, stats.reused, stats.idle), (1, 4, 1));
        assert_eq!(stats.endpoint.to_string(), format!("unix:{}", origin.path().display()));
        close_and_check(pool).await;
        assert_eq!(origin.next_end(), Ended::Fin);
    }

    async fn one_pool_serves_both_kinds(backend) {
        let (unix, tcp) = (UnixEcho::start(), Echo::start());
        let pool = tuned(Pool::builder(StreamConnector), backend).build().unwrap();
        for endpoint in [Endpoint::unix(unix.path()), tcp.address.into()] {
            let mut conn = pool.group(endpoint).checkout().await.unwrap();
            exchange!(conn);
            conn.release();
        }
        close_and_check(pool).await;
        assert_eq!((unix.next_end(), tcp.next_end()), (Ended::Fin, Ended::Fin));
    }

    async fn a_unix_peer_that_closes_at_rest_is_noticed_without_a_checkout(backend) {
        let origin = UnixEcho::start();
        let pool = tuned(Pool::builder(StreamConnector), backend).build().unwrap();
        let group = pool.group(Endpoint::unix(origin.path()));
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        origin.next().shutdown(Shutdown::Write).unwrap();
        eventually("evicted", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        assert!(group.try_checkout().is_none());
        close_and_check(pool).await;
    }

    async fn a_unix_peers_unexpected_bytes_keep_a_connection_from_resting(backend) {
        let origin = UnixEcho::start();
        let pool = tuned(Pool::builder(StreamConnector), backend).build().unwrap();
        let group = pool.group(Endpoint::unix(origin.path()));
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        origin.next().write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let conn = group.checkout().await.unwrap();
        assert!(!conn.is_reused(), "handed out with bytes of nobody's response");
        drop(conn);
        let counted = || group.stats().closed_for(CloseReason::UnexpectedBytes) == 1;
        eventually("counted apart", counted).await;
        close_and_check(pool).await;
    }

    async fn a_raw_unix_socket_is_pooled(backend) {
        use std::io::Read;
        let origin = UnixEcho::start();
        let pool = tuned(Pool::builder(RawConnector), backend).build().unwrap();
        let group = pool.group(Endpoint::unix(origin.path()));
        for _ in 0..3 {
            let conn = group.checkout().await.unwrap();
            conn.set_nonblocking(false).unwrap();
            let mut stream = &*conn;
            stream.write_all(b"ping").unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"ping");
            conn.release();
        }
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
        assert_eq!(origin.next_end(), Ended::Fin);
    }

    async fn http_runs_over_a_unix_socket(backend) {
        use http_body_util::{BodyExt, Empty};
        let path = unix_echo::fresh_path();
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(async |_| {
                    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"hello"));
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(io, service));
            }
        });
        let connector = corepool::Http1Connector::<Empty<bytes::Bytes>>::new();
        let pool = tuned(Pool::builder(connector), backend).build().unwrap();
        let group = pool.group(Endpoint::unix(&path));
        for _ in 0..3 {
            let connection = group.checkout().await.unwrap();
            let request = hyper::Request::get("/").header("host", "origin").body(Empty::new());
            let response = connection.exchange(request.unwrap()).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        }
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
        std::fs::remove_file(path).unwrap();
    }

    async fn a_unix_socket_that_is_not_there_is_an_error_that_names_it(backend) {
        let path = unix_echo::fresh_path();
        let pool = tuned(Pool::builder(StreamConnector), backend).build().unwrap();
        let error = dial_error(pool.group(Endpoint::unix(&path)).checkout().await.unwrap_err());
        assert!(error.to_string().contains(&format!("unix:{}", path.display())), "{error}");
        close_and_check(pool).await;
    }

    async fn a_tcp_connector_refuses_a_unix_socket_and_says_why(backend) {
        let origin = UnixEcho::start();
        let pool = builder(backend).build().unwrap();
        let group = pool.group(Endpoint::unix(origin.path()));
        let error = dial_error(group.checkout().await.unwrap_err());
        assert_eq!(error.kind(), DialErrorKind::Connector);
        assert!(error.to_string().contains("is no TCP socket"), "{error}");
        assert_eq!(origin.next_end(), Ended::Fin);
        close_and_check(pool).await;
    }

    async fn a_peek_finds_what_a_glance_may_miss(backend) {
        let (tcp, unix) = (Echo::start(), UnixEcho::start());
        let unix_endpoint = || Endpoint::unix(unix.path());
        peek(tuned(Pool::builder(TcpConnector), backend), tcp.address.into(), || tcp.next()).await;
        peek(tuned(Pool::builder(StreamConnector), backend), tcp.address.into(), || tcp.next())
            .await;
        peek(tuned(Pool::builder(StreamConnector), backend), unix_endpoint(), || unix.next()).await;
        peek(tuned(Pool::builder(RawConnector), backend), tcp.address.into(), || tcp.next()).await;
        peek(tuned(Pool::builder(RawConnector), backend), unix_endpoint(), || unix.next()).await;
    }
}

/// The look of a connection at itself: when there is nothing to see, a byte, an end.
async fn peek<C: Connector, P: Peer>(pool: Builder<C>, endpoint: Endpoint, peer: impl Fn() -> P) {
    let pool = pool.build().unwrap();
    let group = pool.group(endpoint);
    let mut conn = group.checkout().await.unwrap();
    let mut far = peer();
    assert_eq!(conn.inspect(Inspect::Peek), Condition::Usable);
    assert_eq!(conn.inspect(Inspect::Glance), Condition::Usable);
    // On the same host it is there when the write returns, whether a reactor has seen it or not.
    far.write_all(b"!").unwrap();
    assert_eq!(conn.inspect(Inspect::Peek), Condition::UnexpectedBytes);
    assert_eq!(conn.inspect(Inspect::Peek), Condition::UnexpectedBytes, "a look takes nothing");
    conn.discard();
    let mut conn = group.checkout().await.unwrap();
    peer().end();
    assert_eq!(conn.inspect(Inspect::Peek), Condition::Closed);
    conn.discard();
    close_and_check(pool).await;
}

trait Peer: Write {
    fn end(&self);
}

impl Peer for std::net::TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Peer for std::os::unix::net::UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

#[derive(Debug)]
struct OnPurpose;

impl std::fmt::Display for OnPurpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("on purpose")
    }
}

impl Error for OnPurpose {}

#[test]
fn a_setting_out_of_range_is_refused_when_the_pool_is_built() {
    let window = PortWindow::default().range(1..=2);
    let options = SocketOptions::default().port_window(window);
    let error = Pool::builder(TcpConnector).sockets(options).build().unwrap_err().to_string();
    assert!(error.starts_with("sockets.port_window.range is 1..=2, but must be"), "{error}");
}

/// `IP_LOCAL_PORT_RANGE` of a socket, ip(7).
#[derive(Clone, Copy)]
struct PortRange;

const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

nix::getsockopt_impl!(
    PortRange,
    libc::IPPROTO_IP,
    IP_LOCAL_PORT_RANGE,
    u32,
    nix::sys::socket::sockopt::GetStruct<u32>
);
