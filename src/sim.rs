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
//!
//! [`Builder::simulate`](crate::Builder::simulate) makes a whole pool without threads, which runs
//! as its shards are polled: with a [`Network`] that draws its faults from a seed, and the
//! runtime's clock stopped, a run can be had again step by step.

mod line;
mod simulation;

pub use self::{
    line::{Peer, SimConnection},
    simulation::{Place, SimShard, Simulation, audit_duties, audit_hints, audit_slots, enter},
};
pub use crate::engine::{GroupAudit, SlotCounts};

pub(crate) use self::line::{Line, SimSocket};

use core::{fmt, time::Duration};
use std::{io, net::SocketAddr, sync::Arc};

use crossbeam_queue::SegQueue;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::{
    BoxError, Connector, Endpoint, Socket,
    backend::{Opened, sim::Sim, socket::Kind},
    engine::ShardId,
    sync::{AtomicU64, Ordering},
};

/// How a dial goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dial {
    /// It connects after so long.
    Accept(Duration),
    /// It connects after so long, also when it was given up meanwhile.
    AcceptLate(Duration),
    /// It is refused.
    Refuse,
    /// It is refused after so long.
    RefuseAfter(Duration),
    /// Nothing ever answers.
    Blackhole,
    /// The process is out of descriptors.
    NoDescriptors,
}

/// What the network and the shards' drivers do that no script has planned. Nothing goes wrong by
/// default.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// How the next dial to an address goes.
    fn dial(&self, shard: usize, to: SocketAddr) -> Dial {
        let _ = (shard, to);
        Dial::Accept(Duration::ZERO)
    }

    /// A dial is over, or was dropped with its driver.
    fn dial_over(&self, to: SocketAddr) {
        let _ = to;
    }

    /// How long the driver takes to close the next socket.
    fn close(&self) -> Duration {
        Duration::ZERO
    }

    /// How late the driver reports the next peer that goes.
    fn report(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the driver of a shard fails now. Another one takes its place.
    fn fails(&self, shard: usize) -> bool {
        let _ = shard;
        false
    }

    /// Whether the driver breaks its promise now, so that a test can see that this is noticed.
    fn breaks(&self, promise: Promise) -> bool {
        let _ = promise;
        false
    }
}

/// What a driver promises its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Promise {
    /// It says when a socket is closed.
    TellsCloses,
    /// It says when a peer went.
    TellsDepartures,
}

/// A network on which everything goes well.
#[derive(Debug)]
struct Calm;

impl Network for Calm {}

/// The network's side of the script: what dials meet.
#[derive(Clone, Debug)]
pub struct Script {
    plans: Arc<SegQueue<Dial>>,
    peers: UnboundedSender<Peer>,
    network: Arc<dyn Network>,
    made: Arc<AtomicU64>,
}

/// The origins' side: the far ends of the connections made, in order.
#[derive(Debug)]
pub struct Peers(UnboundedReceiver<Peer>);

/// A network on which every dial connects at once, until told otherwise.
pub fn script() -> (Script, Peers) {
    script_on(Arc::new(Calm))
}

/// A network that does as it likes.
pub fn script_on(network: Arc<dyn Network>) -> (Script, Peers) {
    let (peers, receiver) = mpsc::unbounded_channel();
    let (plans, made) = (Arc::new(SegQueue::new()), Arc::new(AtomicU64::new(0)));
    (Script { plans, peers, network, made }, Peers(receiver))
}

impl Script {
    /// Plans the next dial that has no plan yet.
    pub fn next_dial(&self, dial: Dial) {
        self.plans.push(dial);
    }

    /// A connection that no pool has dialled, for [`Group::adopt`](crate::Group::adopt). Its far
    /// end comes among the peers.
    pub fn connection(&self, to: SocketAddr) -> Socket {
        Socket(Kind::Sim(self.connect(to)))
    }

    pub(crate) fn open(&self, shard: ShardId) -> Opened {
        Opened { driver: Box::new(Sim::new(self.clone(), shard)), reason: "simulated".to_owned() }
    }

    pub(crate) fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// How the next dial goes.
    pub(crate) fn plan(&self, shard: ShardId, to: SocketAddr) -> Dial {
        self.plans.pop().unwrap_or_else(|| self.network.dial(shard.get(), to))
    }

    pub(crate) fn dial(
        &self,
        to: SocketAddr,
        plan: Dial,
    ) -> impl Future<Output = io::Result<SimSocket>> + 'static {
        let under_way = UnderWay { script: self.clone(), to };
        async move {
            match plan {
                Dial::Accept(Duration::ZERO) => {}
                Dial::Accept(after) | Dial::AcceptLate(after) => tokio::time::sleep(after).await,
                Dial::Refuse => return Err(io::ErrorKind::ConnectionRefused.into()),
                Dial::RefuseAfter(after) => {
                    tokio::time::sleep(after).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Dial::Blackhole => core::future::pending().await,
                Dial::NoDescriptors => return Err(io::ErrorKind::OutOfMemory.into()),
            }
            Ok(under_way.script.connect(to))
        }
    }

    fn connect(&self, to: SocketAddr) -> SimSocket {
        // Relaxed: a number that guards nothing.
        let id = self.made.fetch_add(1, Ordering::Relaxed);
        let (near, far) = line::pair(id, to);
        // A test that ignores its peers has dropped the far ends.
        let _ = self.peers.send(far);
        near
    }
}

/// A dial under way. Whatever becomes of it, the network hears of its end.
struct UnderWay {
    script: Script,
    to: SocketAddr,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.script.network.dial_over(self.to);
    }
}

impl Peers {
    /// The far end of the next connection.
    ///
    /// # Panics
    /// When the pool and every script are gone.
    pub async fn next(&mut self) -> Peer {
        self.0.recv().await.expect("the pool of these peers is gone")
    }

    /// As [`Self::next`], and `None` when the pool and every script are gone.
    pub async fn next_or_end(&mut self) -> Option<Peer> {
        self.0.recv().await
    }
}

/// Pools simulated connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimConnector;

impl Connector for SimConnector {
    type Connection = SimConnection;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<SimConnection, BoxError> {
        match socket.0 {
            Kind::Sim(socket) => Ok(SimConnection::new(socket)),
            _ => Err("not a simulated socket".into()),
        }
    }
}
