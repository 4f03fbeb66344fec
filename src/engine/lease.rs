//! What the owner of a slot holds in each state of its life.

use super::{
    GroupWaiter,
    group::{Seat, ShardId},
    slab::SlotIndex,
    state::Generation,
    stats::CloseReason,
};
use crate::{clock::Tick, sync::Arc};

/// A connection and what the pool knows of it: what a slot's cell holds while it rests.
#[derive(Debug)]
pub struct Tenant<T, E, K = ()> {
    /// The connection.
    pub conn: T,
    pub(super) seat: Arc<Seat<T, E, K>>,
    /// When its dial succeeded.
    pub opened: Tick,
    /// When it last came to rest.
    pub rested: Tick,
    /// How often it was given back.
    pub uses: u32,
}

/// The right to use a connection. It must end in [`super::Engine::give_back`],
/// [`super::Engine::discard`] or [`super::Engine::detach`].
#[derive(Debug)]
#[must_use = "a lease that is dropped leaks its slot"]
pub struct Lease<T, E, K = ()> {
    pub(super) index: SlotIndex,
    /// The connection.
    pub tenant: Tenant<T, E, K>,
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
    #[cfg(any(test, loom, fuzzing))]
    pub fn index(&self) -> SlotIndex {
        self.index
    }

    /// Whether it served a caller, or at least rested, before.
    pub fn is_reused(&self) -> bool {
        self.tenant.uses > 0
    }
}

/// The right to dial for a slot: a ticket, of which the first to fulfil or abandon wins.
#[derive(Debug)]
pub struct Reservation<T, E, K = ()> {
    pub(super) seat: Arc<Seat<T, E, K>>,
    pub(super) index: SlotIndex,
    pub(super) ticket: Generation,
    /// Who alone gets the outcome; `None` for the first in line.
    pub(super) caller: Option<Arc<GroupWaiter<T, E, K>>>,
}

impl<T, E, K> Clone for Reservation<T, E, K> {
    fn clone(&self) -> Self {
        Self {
            seat: Arc::clone(&self.seat),
            index: self.index,
            ticket: self.ticket,
            caller: self.caller.clone(),
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
    /// Whether a permit comes back with it, or passed on to the dial in its stead.
    pub(super) permit: bool,
}

impl<T, E, K> Place<T, E, K> {
    /// The slot.
    pub fn index(&self) -> SlotIndex {
        self.index
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
}
