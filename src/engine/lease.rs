//! What the owner of a slot holds in each state of its life.

use super::{
    Change, GroupWaiter, Pass,
    group::{Seat, ShardId},
    slab::SlotIndex,
    state::Generation,
    stats::CloseReason,
    totals::DialPermit,
};
use crate::{clock::Tick, sync::Arc};

/// A connection and what the pool knows of it: what a slot's cell holds while it rests.
///
/// In this order: what a hit reads and writes of it fits into one cache line with a connection of up
/// to 32 bytes, and all of it with one of up to 24.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Tenant<T, E, K = ()> {
    /// The connection.
    pub conn: T,
    pub(super) seat: Arc<Seat<T, E, K>>,
    /// When it last came to rest.
    pub rested: Tick,
    /// When it was last seen to live: by its dial, a peek or an answered ping.
    pub vouched: Tick,
    /// When it has lived as long as it may.
    pub(super) ends: Tick,
    /// How often it served a caller.
    pub uses: u32,
    /// Which eviction of its group it has outlived.
    pub(super) epoch: u32,
    pub(super) class: Class,
    /// Neither served a caller nor rested yet.
    pub(super) fresh: bool,
    /// Pings in a row that were not answered.
    pub(super) unanswered: u8,
    /// When it was last asked whether it lives.
    pub(super) asked: Tick,
    /// When its dial succeeded.
    pub opened: Tick,
}

impl<T, E, K> Tenant<T, E, K> {
    /// The shard that the connection belongs to.
    pub fn shard(&self) -> ShardId {
        self.seat.shard
    }

    /// Whether it has neither served a caller nor rested yet.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// Under which limit a connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `max_live`: it may rest.
    Pooled,
    /// `max_overflow`: it is closed when it comes back, unless it may be pooled by then.
    Overflow,
    /// `max_live`, but dialled past an open breaker: it is closed when it comes back.
    Direct,
}

/// The right to use a connection. It must end in [`super::Engine::give_back_to`],
/// [`super::Engine::discard`] or [`super::Engine::detach`].
#[derive(Debug)]
#[must_use = "a lease that is dropped leaks its slot"]
pub struct Lease<T, E, K = ()> {
    pub(super) index: SlotIndex,
    /// The connection. In a box, made with its dial: a hit and a return move it some ten times
    /// between slot, lease and guard, and a pointer is cheaper to move than all that it points to.
    pub tenant: Box<Tenant<T, E, K>>,
}

impl<T, E, K> Lease<T, E, K> {
    /// The shard whose slot this is.
    pub fn shard(&self) -> ShardId {
        self.tenant.seat.shard
    }

    /// The seat that the connection belongs to.
    pub fn seat(&self) -> &Arc<Seat<T, E, K>> {
        &self.tenant.seat
    }

    /// The slot.
    pub fn index(&self) -> SlotIndex {
        self.index
    }

    /// Whether it served a caller, or at least rested, before.
    pub fn is_reused(&self) -> bool {
        !self.tenant.fresh
    }
}

/// The right to dial for a slot: a ticket, of which the first to fulfil or abandon wins.
#[derive(Debug)]
pub struct Reservation<T, E, K = ()> {
    pub(super) seat: Arc<Seat<T, E, K>>,
    pub(super) index: SlotIndex,
    pub(super) ticket: Generation,
    /// When it was asked for.
    pub(super) started: Tick,
    pub(super) goal: Goal<T, E, K>,
    pub(super) class: Class,
    pub(super) permit: DialPermit,
    /// What the breaker is owed: a verdict, or the probe back.
    pub(super) pass: Option<Pass>,
}

/// Whom a dial is for.
#[derive(Debug)]
pub enum Goal<T, E, K = ()> {
    /// The first in line, or nobody yet.
    Line,
    /// This caller alone.
    Alone(Arc<GroupWaiter<T, E, K>>),
    /// The pool: the connection was made elsewhere.
    Adoption,
}

impl<T, E, K> Clone for Goal<T, E, K> {
    fn clone(&self) -> Self {
        match self {
            Self::Line => Self::Line,
            Self::Alone(caller) => Self::Alone(Arc::clone(caller)),
            Self::Adoption => Self::Adoption,
        }
    }
}

impl<T, E, K> Clone for Reservation<T, E, K> {
    fn clone(&self) -> Self {
        Self {
            seat: Arc::clone(&self.seat),
            index: self.index,
            ticket: self.ticket,
            started: self.started,
            goal: self.goal.clone(),
            class: self.class,
            permit: self.permit,
            pass: self.pass.clone(),
        }
    }
}

impl<T, E, K> Reservation<T, E, K> {
    /// The seat that the connection will belong to.
    pub fn seat(&self) -> &Arc<Seat<T, E, K>> {
        &self.seat
    }

    /// The slot.
    pub fn index(&self) -> SlotIndex {
        self.index
    }

    /// Whether the connection was made elsewhere.
    pub fn is_adoption(&self) -> bool {
        matches!(self.goal, Goal::Adoption)
    }
}

/// How a dial ended without a connection.
#[derive(Debug)]
pub enum Failure<E> {
    /// By the peer's doing, or the network's: it counts against the endpoint.
    Peer(E),
    /// By our own: no descriptor, no local port, no driver.
    Local(E),
    /// For no cause that anybody waits for.
    #[allow(dead_code)] // the worker always has a cause; the models and the oracle need not
    GivenUp,
}

/// When something happens, and the random number that it may need.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When.
    pub now: Tick,
    /// Uniformly distributed.
    pub random: u32,
}

impl From<Tick> for Moment {
    /// For those that need no chance.
    fn from(now: Tick) -> Self {
        Self { now, random: 0 }
    }
}

/// A connection that may only be closed, and the place that closing it frees.
#[derive(Debug)]
#[must_use = "a doomed connection holds its slot until it is vacated"]
pub struct Doomed<T, E, K = ()> {
    /// The connection; `None` when its owner took it out of the pool.
    pub conn: Option<T>,
    /// What to vacate afterwards.
    pub place: Place<T, E, K>,
}

/// A slot that waits for its connection to be closed.
#[derive(Debug)]
#[must_use = "a place must be vacated"]
pub struct Place<T, E, K = ()> {
    pub(super) seat: Arc<Seat<T, E, K>>,
    pub(super) index: SlotIndex,
    pub(super) reason: CloseReason,
    /// When it was made, and how often it served.
    pub(super) life: (Tick, u32),
    /// The permit that comes back with it; `None` when it passed on to the dial in its stead.
    pub(super) permit: Option<Class>,
}

impl<T, E, K> Place<T, E, K> {
    /// The slot.
    pub fn index(&self) -> SlotIndex {
        self.index
    }

    /// The seat that the connection belonged to.
    pub fn seat(&self) -> &Arc<Seat<T, E, K>> {
        &self.seat
    }

    /// Why it is closed.
    pub fn reason(&self) -> CloseReason {
        self.reason
    }

    /// When it was made, and how often it served.
    pub fn life(&self) -> (Tick, u32) {
        self.life
    }
}

/// What the engine asks of a shard's driver.
#[derive(Debug)]
#[must_use = "a duty left undone leaks its slot"]
pub enum Duty<T, E, K = ()> {
    /// Dial, then fulfil or abandon.
    Dial(Reservation<T, E, K>),
    /// End the watch, close, then vacate.
    Close(Doomed<T, E, K>),
    /// Tell whoever listens that the breaker of a group has changed.
    Tell(Arc<Seat<T, E, K>>, Change),
}
