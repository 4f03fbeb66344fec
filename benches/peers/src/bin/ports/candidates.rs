//! Ways to connect when most ports are taken. Each connects, closes by an RST so that the port is
//! free again, and tells how long the connect took.

use core::time::Duration;
use std::{net::SocketAddr, time::Instant};

use corepool::{Backend, Connector, Group, Pool, PortWindow, RawConnector, SocketOptions};

/// Connects so many times.
pub(crate) trait Candidate {
    fn name(&self) -> String;
    fn connect(&self, times: usize) -> Vec<Duration>;
}

/// connect(2), which looks for a port in the whole range.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) SocketAddr);

impl Candidate for Plain {
    fn name(&self) -> String {
        "connect(2), blocking".to_owned()
    }

    fn connect(&self, times: usize) -> Vec<Duration> {
        let connect = |_| {
            let began = Instant::now();
            let socket = std::net::TcpStream::connect(self.0).expect("a port is left");
            let took = began.elapsed();
            let socket = socket2::SockRef::from(&socket);
            socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
            took
        };
        (0..times).map(connect).collect()
    }
}

/// A pool of one shard. The time is the caller's: all of the pool is in it.
#[derive(Debug)]
pub(crate) struct Pooled {
    pool: Pool<RawConnector>,
    group: Group<RawConnector>,
    window: Option<u16>,
}

impl Pooled {
    pub(crate) fn new(to: SocketAddr, backend: Backend, window: Option<u16>) -> Self {
        let sockets = SocketOptions::default();
        let sockets = match window {
            Some(size) => sockets.port_window(PortWindow::default().size(size)),
            None => sockets,
        };
        let builder = Pool::builder(RawConnector).backend(backend).shards(1).pin(false);
        let pool = builder.sockets(sockets).build().expect("a pool");
        let group = pool.group(to);
        Self { pool, group, window }
    }

    /// Dials that found no free port where they looked first.
    pub(crate) fn conflicts(&self) -> u64 {
        self.pool.stats().shards.iter().map(|shard| shard.port_conflicts).sum()
    }
}

impl Candidate for Pooled {
    fn name(&self) -> String {
        let window = match self.window {
            Some(size) => format!("a window of {size}"),
            None => "no window".to_owned(),
        };
        format!("corepool {}, {window}", self.pool.backend().selected)
    }

    fn connect(&self, times: usize) -> Vec<Duration> {
        let group = self.group.clone();
        let connects = self.pool.shards()[0].spawn_local(move || connects(group, times));
        let waiting = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        waiting.block_on(connects).expect("the shard lives")
    }
}

async fn connects<C: Connector>(group: Group<C>, times: usize) -> Vec<Duration>
where
    C::Connection: std::os::fd::AsFd,
{
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let connection = group.checkout_fresh().await.expect("a port is left");
        took.push(began.elapsed());
        let socket = socket2::SockRef::from(&*connection);
        socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
        connection.discard();
        // Until the port is free again.
        while group.stats().closed_total() < group.stats().opened {
            tokio::task::yield_now().await;
        }
    }
    took
}
