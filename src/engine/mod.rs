//! The pool's engine: who owns which connection, and who is owed one.
//!
//! Sans-I/O: no socket, clock, thread or task lives here, and it is generic over the connection
//! `T` and the dial error `E`. Time comes in as a [`crate::clock::Tick`]; what has to be done to sockets goes out
//! as a [`Duty`] to the shard that owns the slot. loom and the fuzzer drive it directly.
//!
//! # Invariants
//! Stated here once and cited by label everywhere else.
//!
//! - **INV-1** A connection has one owner.
//! - **INV-2** Live connections ≤ `max_live`, idle ones ≤ `max_idle`, and every permit comes back.
//! - **INV-3** A slot has at most one valid hint.
//! - **INV-4** Every descriptor is closed exactly once, none while a submission refers to it.
//! - **INV-5** No lost wake-up: an idle connection and a waiter never rest together.
//! - **INV-6** A connection seen dead is never handed out.
//! - **INV-7** A cancelled future, at any await, leaves all of the above true.
//! - **INV-8** Breaker and backoff take only legal transitions and admit no more than they say.
//! - **INV-9** After a close: opened = closed, no slot in use.
//! - **INV-10** Of no shared connection are more streams leased than it takes, and its last lease
//!   takes it out exactly once; see [`streams`].
//!
//! # What is lock-free
//! There is no lock. A hit and a return are a handful of CASes on words of the caller's own shard.
//! The queues are crossbeam's: a thread stalled inside a push or pop delays those that reach the
//! same place of the same queue, and nobody else.
#![allow(unreachable_pub)] // re-exported to loom-tests and fuzz

#[cfg(all(any(test, feature = "sim"), not(loom)))]
mod audit;
mod backoff;
mod breaker;
mod control;
mod credits;
mod demand;
mod dial;
mod end;
mod evict;
mod fifo;
#[cfg(all(any(test, fuzzing), not(any(loom, model))))]
pub(crate) mod fuzz;
mod group;
mod hints;
mod hit;
mod lane;
mod lease;
mod limits;
mod line;
#[cfg(all(any(test, fuzzing), not(any(loom, model))))]
pub mod oracle;
#[cfg(all(test, not(loom)))]
mod order;
mod permits;
mod ramp;
#[cfg(all(test, not(loom)))]
mod regressions;
mod retention;
mod ring;
#[cfg(all(test, not(loom)))]
mod rules;
mod salvage;
#[cfg(all(any(test, fuzzing), not(any(loom, model))))]
mod seeded;
mod slab;
mod slot;
mod small_ring;
mod stack;
mod state;
mod stats;
pub mod streams;
mod tend;
mod totals;
mod waiters;

#[cfg(all(any(test, feature = "sim"), not(loom)))]
pub use audit::{GroupAudit, SlotCounts};
pub use breaker::{Change, Mode as BreakerMode, Pass, State as BreakerState};
pub use demand::Refused;
pub use dial::NoDial;
pub use group::{Group, Outcome, Seat, ShardId};
pub use lease::{Class, Doomed, Duty, Failure, Goal, Lease, Moment, Place, Reservation, Tenant};
pub use limits::{GroupLimits, NEVER};
pub use slab::SlotIndex;
pub use stats::{CloseReason, GroupCounts};
pub use totals::TotalLimits;
pub use waiters::{Cancelled, Waiter};
#[allow(unused_imports)] // some are named by the models and the fuzzer only
pub use {
    backoff::{Backoff, BackoffRules},
    breaker::{Breaker, BreakerRules, Change as BreakerChange, Rejected},
    fifo::Fifo,
    hints::Order,
    limits::Limits,
    ramp::{Ramp, allowed as ramp_allowed},
    retention::Retention,
    ring::{Inbox, Ring},
    slot::{HangUp, Slot},
    small_ring::SmallRing,
    stack::Stack,
    state::{Event, Generation, State, Word},
};

use core::task::Waker;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicBool, AtomicWaker, register};
use evict::Oldest;
use slab::Slab;
use totals::Totals;

/// A waiter of a group: its letter box holds an [`Outcome`].
pub type GroupWaiter<T, E, K = ()> = Waiter<Outcome<T, E, K>>;

/// The shards of a pool.
#[derive(Debug)]
pub struct Engine<T, E, K = ()> {
    shards: Box<[CachePadded<Shard<T, E, K>>]>,
    totals: Totals<T, E, K>,
    oldest: Oldest,
}

/// One shard's slots and what its driver has to do.
#[derive(Debug)]
struct Shard<T, E, K = ()> {
    slab: Slab<Box<Tenant<T, E, K>>>,
    /// Bounded by the slab: a slot is in it at most once, to be dialled or to be closed; beside
    /// them stand the few changes of breakers.
    duties: Inbox<Duty<T, E, K>>,
    driver: AtomicWaker,
    /// Limits of time have changed: the next sweep looks at everything that rests.
    recheck: AtomicBool,
}

impl<T, E, K> Engine<T, E, K> {
    /// An engine of `shards` shards with `slots` slots each, and no limits of its own.
    #[cfg(any(test, loom, model, fuzzing))]
    pub fn new(shards: usize, slots: usize) -> Self {
        Self::with_totals(shards, slots, &TotalLimits::default())
    }

    /// An engine whose groups have no more than this together.
    pub fn with_totals(shards: usize, slots: usize, limits: &TotalLimits) -> Self {
        let shard = || Shard {
            slab: Slab::new(slots),
            duties: Inbox::new(),
            driver: AtomicWaker::new(),
            recheck: AtomicBool::new(false),
        };
        Self {
            shards: (0..shards).map(|_| CachePadded::new(shard())).collect(),
            totals: Totals::new(shards, limits),
            oldest: Oldest::new(),
        }
    }

    /// The next thing that a shard's driver has to do.
    pub fn next_duty(&self, shard: ShardId) -> Option<Duty<T, E, K>> {
        self.shards[shard.get()].duties.pop()
    }

    /// Whom to wake when a shard has something to do. Register first, then ask for duties.
    pub fn register_driver(&self, shard: ShardId, waker: &Waker) {
        register(&self.shards[shard.get()].driver, waker);
    }

    /// Wakes a shard's driver for reasons of its owner.
    pub fn wake_driver(&self, shard: ShardId) {
        self.shards[shard.get()].driver.wake();
    }

    /// Slots of a shard that are not vacant.
    pub fn slots_in_use(&self, shard: ShardId) -> usize {
        self.shards[shard.get()]
            .slab
            .iter()
            .filter(|(_, slot)| slot.state() != State::Vacant)
            .count()
    }

    /// How many slots each shard has.
    pub fn slots_per_shard(&self) -> usize {
        self.shards.first().map_or(0, |shard| shard.slab.capacity())
    }

    /// A group's counters and gauges.
    pub fn counts(&self, group: &Group<T, E, K>) -> GroupCounts {
        let wanted = group.demand.wanted();
        let mut counts = GroupCounts {
            idle: group.credits.total_idle(),
            live: group.permits.live() + group.overflow.live(),
            overflow: group.overflow.live(),
            dialing: wanted.dialing,
            waiting: wanted.waiting,
            ..GroupCounts::default()
        };
        for lane in &group.lanes {
            counts.reused += lane.reused.read();
            lane.counters.add_to(&mut counts);
        }
        counts
    }

    #[inline]
    pub(super) fn slot(&self, shard: ShardId, index: SlotIndex) -> &Slot<Box<Tenant<T, E, K>>> {
        self.shards[shard.get()].slab.slot(index)
    }

    /// Gives a shard's driver something to do.
    pub(super) fn charge(&self, shard: ShardId, duty: Duty<T, E, K>) {
        let shard = &self.shards[shard.get()];
        shard.duties.push(duty);
        shard.driver.wake();
    }
}
