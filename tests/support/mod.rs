//! What the socket tests share: backends to run on, origins to talk to, ways to wait.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use corepool::{Backend, Builder, Connector, Pool, PoolStats, TcpConnector};

/// Runs one body of behaviour on both real drivers.
///
/// Where io_uring is denied, which `COREPOOL_TEST_NO_URING=1` says, on what a pool that may choose
/// finds there.
#[macro_export]
macro_rules! on_both_drivers {
    ($($(#[$attr:meta])* async fn $name:ident($backend:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$attr])*
            async fn scenario($backend: corepool::Backend) $body

            #[tokio::test]
            async fn io_uring() {
                scenario($crate::support::ring_or_choice()).await;
            }

            #[tokio::test]
            async fn epoll() {
                scenario(corepool::Backend::Epoll).await;
            }
        }
    )*};
}

/// Whether this run is to use io_uring: everywhere on Linux but under a filter that denies it.
pub fn uring_is_expected() -> bool {
    cfg!(target_os = "linux") && std::env::var_os("COREPOOL_TEST_NO_URING").is_none()
}

/// The ring, or, where it is denied, the pool's own choice.
pub fn ring_or_choice() -> Backend {
    if uring_is_expected() { Backend::IoUring } else { Backend::Auto }
}

/// Short timeouts, two shards, no pinning: tests share the cores.
pub fn builder(backend: Backend) -> Builder<TcpConnector> {
    tuned(Pool::builder(TcpConnector), backend)
}

pub fn tuned<C: Connector>(builder: Builder<C>, backend: Backend) -> Builder<C> {
    builder
        .backend(backend)
        .shards(2)
        .pin(false)
        .slots_per_shard(256)
        .steal_threshold(1)
        .connect_timeout(Duration::from_secs(2))
        .acquire_timeout(Duration::from_secs(5))
}

/// An origin that says back what it hears, and reports how its connections end.
pub struct Echo {
    pub address: SocketAddr,
    /// One message for each connection that the pool ended: by FIN or by RST.
    pub ended: mpsc::Receiver<Ended>,
    /// The accepted connections, for tests that end them from here.
    pub accepted: mpsc::Receiver<TcpStream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Fin,
    Reset,
}

impl Echo {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, ends) = mpsc::channel();
        let (accepting, accepted) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let _ = accepting.send(stream.try_clone().unwrap());
                let ended = ended.clone();
                thread::spawn(move || ended.send(echo(stream)));
            }
        });
        Self { address, ended: ends, accepted }
    }

    /// The next connection made to it.
    pub fn next(&self) -> TcpStream {
        self.accepted.recv_timeout(Duration::from_secs(5)).expect("a connection arrives")
    }

    /// How the next connection that ends ends.
    pub fn next_end(&self) -> Ended {
        self.ended.recv_timeout(Duration::from_secs(5)).expect("a connection ends")
    }
}

fn echo(mut stream: TcpStream) -> Ended {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ended::Fin,
            Ok(n) => {
                if stream.write_all(&buffer[..n]).is_err() {
                    return Ended::Reset;
                }
            }
            Err(_) => return Ended::Reset,
        }
    }
}

/// Waits until something holds; fails with what it was told otherwise.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "did not come to pass within 5 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Closes the pool and checks INV-9: opened = closed, no slot in use, nobody waits.
pub async fn close_and_check<C: Connector>(pool: Pool<C>) -> PoolStats {
    let stats = close_after_panics(pool).await;
    for shard in &stats.shards {
        assert_eq!(shard.panics, 0, "a worker panicked, and another one took over: {shard:?}");
    }
    stats
}

/// The same where workers panic on purpose.
pub async fn close_after_panics<C: Connector>(pool: Pool<C>) -> PoolStats {
    let report = pool.close_within(Duration::from_secs(5)).await;
    // A caller that was told the end may not have been counted out yet.
    eventually("nobody waits", || pool.stats().endpoints.iter().all(|g| g.waiting == 0)).await;
    let stats = pool.stats();
    assert_eq!(report.left, 0, "connections left after the close: {stats:?}");
    for group in &stats.endpoints {
        assert_eq!(group.opened, group.closed_total(), "INV-9: {group:?}");
        assert_eq!(
            (group.idle, group.in_use, group.dialing, group.waiting),
            (0, 0, 0, 0),
            "INV-9: {group:?}"
        );
    }
    for shard in &stats.shards {
        assert_eq!(shard.slots_in_use, 0, "INV-9: {shard:?}");
    }
    stats
}

/// An address that answers no SYN: a listener whose backlog is full.
pub struct Blackhole {
    pub address: SocketAddr,
    _listener: socket2::Socket,
    _fill: Vec<socket2::Socket>,
}

impl Blackhole {
    pub fn start() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // Linux takes backlog + 1 connections and then drops SYNs.
        let fill = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        Self { address, _listener: listener, _fill: fill }
    }
}
