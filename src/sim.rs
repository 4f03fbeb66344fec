//! A scripted network in memory, for tests: no socket and no kernel.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use corepool::{Pool, sim};
//!
//! let (script, mut peers) = sim::script();
//! let pool = Pool::builder(sim::SimConnector).shards(1).sim(script.clone()).build()?;
//! let group = pool.group("192.0.2.1:80".parse::<corepool::Endpoint>().unwrap());
//!
//! script.next_dial(sim::Dial::Refuse);
//! assert!(group.checkout().await.is_err());
//!
//! let conn = group.checkout().await.unwrap();
//! let peer = peers.next().await;
//! conn.release();
//! peer.hang_up();
//! # Ok::<(), corepool::BuildError>(()) }).unwrap();
//! ```

use core::{
    ops::{Deref, DerefMut},
    task::{Context, Poll},
    time::Duration,
};
use std::{io, net::SocketAddr, sync::Arc};

use crossbeam_queue::SegQueue;
use tokio::{
    io::DuplexStream,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
};

use crate::{
    BoxError, Connection, Connector, Endpoint, Socket,
    backend::{Opened, sim::Sim, socket::Kind},
    sync::{AtomicBool, AtomicWaker, Ordering, register},
};

/// How a dial goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dial {
    /// It connects after so long.
    Accept(Duration),
    /// It is refused.
    Refuse,
    /// It is refused after so long.
    RefuseAfter(Duration),
    /// Nothing ever answers.
    Blackhole,
    /// The process is out of descriptors.
    NoDescriptors,
}

/// The network's side of the script: what dials meet.
#[derive(Clone, Debug)]
pub struct Script {
    plans: Arc<SegQueue<Dial>>,
    peers: UnboundedSender<Peer>,
}

/// The origins' side: the far ends of the connections made, in order.
#[derive(Debug)]
pub struct Peers(UnboundedReceiver<Peer>);

/// The far end of one connection.
#[derive(Debug)]
pub struct Peer {
    /// What the pool's end reads and writes.
    pub stream: DuplexStream,
    /// Which address was dialled.
    pub dialed: SocketAddr,
    line: Arc<Line>,
}

/// A network on which every dial connects at once, until told otherwise.
pub fn script() -> (Script, Peers) {
    let (peers, made) = mpsc::unbounded_channel();
    (Script { plans: Arc::new(SegQueue::new()), peers }, Peers(made))
}

impl Script {
    /// Plans the next dial that has no plan yet.
    pub fn next_dial(&self, dial: Dial) {
        self.plans.push(dial);
    }

    pub(crate) fn open(&self) -> Opened {
        Opened { driver: Box::new(Sim::new(self.clone())), reason: "simulated".to_owned() }
    }

    pub(crate) fn dial(
        &self,
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<SimSocket>> + 'static {
        let plan = self.plans.pop().unwrap_or(Dial::Accept(Duration::ZERO));
        let peers = self.peers.clone();
        async move {
            match plan {
                Dial::Accept(Duration::ZERO) => {}
                Dial::Accept(after) => tokio::time::sleep(after).await,
                Dial::Refuse => return Err(io::ErrorKind::ConnectionRefused.into()),
                Dial::RefuseAfter(after) => {
                    tokio::time::sleep(after).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Dial::Blackhole => core::future::pending().await,
                Dial::NoDescriptors => return Err(io::ErrorKind::OutOfMemory.into()),
            }
            let (near, far) = tokio::io::duplex(BUFFER);
            let line = Arc::new(Line { cut: AtomicBool::new(false), driver: AtomicWaker::new() });
            // A test that ignores its peers has dropped the far ends.
            let _ = peers.send(Peer { stream: far, dialed: to, line: Arc::clone(&line) });
            Ok(SimSocket { stream: near, line })
        }
    }
}

/// Bytes under way in each direction.
const BUFFER: usize = 64 * 1024;

impl Peers {
    /// The far end of the next connection.
    ///
    /// # Panics
    /// When the pool and every script are gone.
    pub async fn next(&mut self) -> Peer {
        self.0.recv().await.expect("the pool of these peers is gone")
    }
}

impl Peer {
    /// Closes the far end, as by a FIN.
    pub fn hang_up(self) {
        drop(self.stream);
        self.line.cut();
    }
}

/// What the watch of a simulated connection sees.
#[derive(Debug)]
pub(crate) struct Line {
    cut: AtomicBool,
    driver: AtomicWaker,
}

impl Line {
    fn cut(&self) {
        // Release: pairs with the Acquire in `poll_cut`.
        self.cut.store(true, Ordering::Release);
        self.driver.wake();
    }

    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        register(&self.driver, cx.waker());
        // Acquire: pairs with the Release in `cut`.
        if self.cut.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The pool's end of a simulated connection, as dialled.
#[derive(Debug)]
pub(crate) struct SimSocket {
    stream: DuplexStream,
    line: Arc<Line>,
}

impl SimSocket {
    pub(crate) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }
}

/// Pools simulated connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimConnector;

/// A pooled simulated connection.
#[derive(Debug)]
pub struct SimConnection(DuplexStream);

impl Connector for SimConnector {
    type Connection = SimConnection;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<SimConnection, BoxError> {
        match socket.0 {
            Kind::Sim(socket) => Ok(SimConnection(socket.stream)),
            _ => Err("not a simulated socket".into()),
        }
    }
}

impl Connection for SimConnection {}

impl Deref for SimConnection {
    type Target = DuplexStream;

    fn deref(&self) -> &DuplexStream {
        &self.0
    }
}

impl DerefMut for SimConnection {
    fn deref_mut(&mut self) -> &mut DuplexStream {
        &mut self.0
    }
}
