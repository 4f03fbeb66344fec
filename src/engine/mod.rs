//! The pool's engine: who owns which connection, and who is owed one.
//!
//! Sans-I/O: no socket, clock, thread or task lives here, and it is generic over the connection
//! `T` and the dial error `E`. Time comes in as a [`Tick`]; what has to be done to sockets goes out
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
//!
//! # What is lock-free
//! There is no lock. A hit and a return are a handful of CASes on words of the caller's own shard.
//! The queues are crossbeam's: a thread stalled inside a push or pop delays those that reach the
//! same place of the same queue, and nobody else.
#![allow(unreachable_pub)] // re-exported to loom-tests and fuzz

mod credits;
mod demand;
mod group;
mod lease;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub mod oracle;
mod permits;
mod ring;
mod slab;
mod slot;
mod state;
mod stats;
mod waiters;

pub use demand::Refused;
pub use group::{Group, GroupLimits, Outcome, Seat, ShardId};
pub use lease::{Doomed, Duty, Lease, Place, Reservation, Tenant};
pub use ring::{Inbox, Ring};
pub use slab::SlotIndex;
pub use slot::{HangUp, Slot};
pub use state::{Event, Generation, State, Word};
pub use stats::{CloseReason, GroupCounts};
pub use waiters::{Cancelled, Waiter};

use core::task::Waker;

use crossbeam_utils::CachePadded;

use crate::{
    clock::Tick,
    sync::{Arc, AtomicWaker, Ordering, fence, register},
};
use slab::{Hint, Slab};

/// A waiter of a group: its letter box holds an [`Outcome`].
pub type GroupWaiter<T, E> = Waiter<Outcome<T, E>>;

/// The shards of a pool.
#[derive(Debug)]
pub struct Engine<T, E> {
    shards: Box<[CachePadded<Shard<T, E>>]>,
}

/// One shard's slots and what its driver has to do.
#[derive(Debug)]
struct Shard<T, E> {
    slab: Slab<Tenant<T, E>>,
    /// Bounded by the slab: a slot is in it at most once, to be dialled or to be closed.
    duties: Inbox<Duty<T, E>>,
    driver: AtomicWaker,
}

impl<T, E> Engine<T, E> {
    /// An engine of `shards` shards with `slots` slots each.
    pub fn new(shards: usize, slots: usize) -> Self {
        let shard =
            || Shard { slab: Slab::new(slots), duties: Inbox::new(), driver: AtomicWaker::new() };
        Self { shards: (0..shards).map(|_| CachePadded::new(shard())).collect() }
    }

    /// Takes an idle connection, from the lane of shard `at` or, when the group has at least
    /// `steal_min` idle connections, from a sibling's.
    ///
    /// Nobody is overtaken: while callers wait, this finds nothing.
    #[inline]
    pub fn checkout(
        &self,
        group: &Group<T, E>,
        at: ShardId,
        steal_min: u32,
    ) -> Option<Lease<T, E>> {
        if group.demand.is_contended() {
            return None;
        }
        let lease = self.take_within(group, at, steal_min)?;
        group.lane(at).counters.reused();
        Some(lease)
    }

    /// Puts a clean connection to rest, or hands it to the caller that waits longest.
    #[inline]
    pub fn give_back(&self, mut lease: Lease<T, E>, now: Tick) {
        lease.tenant.uses = lease.tenant.uses.saturating_add(1);
        // The seat's count is the shard's own line; the group must outlive the hand-over below.
        let seat = Arc::clone(&lease.tenant.seat);
        if seat.group.demand.is_contended() {
            return self.give_back_slow(lease, &seat, now);
        }
        self.rest(lease, &seat, now);
        // SeqCst: pairs with the fence in `wait` (and in `close`), INV-5. Either we see the
        // waiter that registered before its fence, or its look at the lanes sees our hint.
        fence(Ordering::SeqCst);
        if seat.group.demand.is_contended() {
            self.settle(&seat.group, seat.shard, ANYWHERE, now);
        }
    }

    /// Ends a connection.
    pub fn discard(&self, lease: Lease<T, E>, reason: CloseReason) {
        self.slot(lease.shard(), lease.index).discard();
        self.doom(lease.index, lease.tenant, reason);
    }

    /// Takes a connection out of the pool for good. Its permit comes back when the driver has
    /// ended the watch.
    pub fn detach(&self, lease: Lease<T, E>) -> T {
        let shard = lease.shard();
        self.slot(shard, lease.index).discard();
        let Tenant { conn, seat, .. } = lease.tenant;
        let place = Place { seat, index: lease.index, reason: CloseReason::Detached, permit: true };
        self.charge(shard, Duty::Close(Doomed { conn: None, place }));
        conn
    }

    /// Whether the watch saw the peer go while this lease was out.
    #[inline]
    pub fn is_dead(&self, lease: &Lease<T, E>) -> bool {
        self.slot(lease.shard(), lease.index).is_dead()
    }

    /// Waits in line, and sees to it that a connection is under way: an idle one within reach
    /// (as for [`Self::checkout`]), or a dial, or, where no dial may start, an idle one anywhere.
    ///
    /// # Errors
    /// When the group is closed or `max_waiters` callers wait already.
    pub fn wait(
        &self,
        seat: &Arc<Seat<T, E>>,
        steal_min: u32,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E>>, Refused> {
        let group = &*seat.group;
        let limit = group.limits.max_waiters;
        if group.waiters.is_clogged(limit.saturating_mul(4).max(64)) {
            return Err(Refused::Full);
        }
        group.demand.register(limit)?;
        let waiter = group.waiters.enter();
        // SeqCst: pairs with the fences in `give_back`, `dial_if_needed` and `close`, INV-5. What
        // came to rest, came free or closed before it, we see below; what comes after sees us.
        fence(Ordering::SeqCst);
        self.settle(group, seat.shard, steal_min, now);
        self.dial_if_needed(seat, now);
        Ok(waiter)
    }

    /// Dials for one caller alone, past the queue: for a retry that must not meet another stale
    /// connection. Only its outcome or a cancel ends the returned waiter.
    ///
    /// # Errors
    /// When the group is closed, has no permit to spare, or the shard no slot.
    pub fn dial_fresh(&self, seat: &Arc<Seat<T, E>>) -> Result<Arc<GroupWaiter<T, E>>, NoDial> {
        if seat.group.demand.wanted().closed {
            return Err(NoDial::Closed);
        }
        if !seat.group.permits.take() {
            return Err(NoDial::NoPermit);
        }
        self.dial_alone(seat).ok_or_else(|| {
            seat.group.permits.put();
            NoDial::Exhausted
        })
    }

    /// Ends a connection and dials in its stead, for the same caller alone. The permit passes on,
    /// so nobody can come between.
    ///
    /// # Errors
    /// When the group is closed or the shard has no slot; the connection is ended all the same.
    pub fn redial(&self, lease: Lease<T, E>) -> Result<Arc<GroupWaiter<T, E>>, NoDial> {
        let seat = Arc::clone(&lease.tenant.seat);
        if seat.group.demand.wanted().closed {
            self.discard(lease, CloseReason::PoolClosed);
            return Err(NoDial::Closed);
        }
        let Some(waiter) = self.dial_alone(&seat) else {
            self.discard(lease, CloseReason::Replaced);
            return Err(NoDial::Exhausted);
        };
        self.slot(seat.shard, lease.index).discard();
        let place = Place {
            seat: Arc::clone(&seat),
            index: lease.index,
            reason: CloseReason::Replaced,
            permit: false,
        };
        let doomed = Doomed { conn: Some(lease.tenant.conn), place };
        self.charge(seat.shard, Duty::Close(doomed));
        Ok(waiter)
    }

    /// A waiting caller leaves. What had been handed to it goes back (INV-7).
    pub fn cancel(&self, waiter: &GroupWaiter<T, E>, group: &Group<T, E>, now: Tick) {
        match waiter.cancel() {
            Cancelled::InTime if waiter.is_in_line() => {
                group.waiters.note_cancelled();
                group.demand.left();
            }
            Cancelled::InTime => {}
            Cancelled::TooLate(Some(Outcome::Ready(lease))) => self.give_back(lease, now),
            Cancelled::TooLate(_) => {}
        }
    }

    /// A dial succeeded: the connection goes to the first in line, or to rest.
    ///
    /// # Errors
    /// Gives the connection back when the peer has hung up on it already (INV-6), or when the dial
    /// was abandoned before. The caller closes it, then abandons the dial.
    pub fn fulfil(&self, dial: &Reservation<T, E>, conn: T, now: Tick) -> Result<(), T> {
        let Reservation { seat, index, ticket, caller } = dial;
        if !self.slot(seat.shard, *index).fulfil(*ticket) {
            return Err(conn);
        }
        seat.group.lane(seat.shard).counters.opened();
        let tenant = Tenant { conn, seat: Arc::clone(seat), opened: now, rested: now, uses: 0 };
        if let Err(lease) = self.hand_off(Lease { index: *index, tenant }, Served::ByDial) {
            seat.group.demand.dial_over();
            self.give_back(lease, now);
        }
        Ok(())
    }

    /// A dial failed or was given up: its slot and permit come back, and one waiter learns why,
    /// unless idle connections serve them all. `false` when it was fulfilled or abandoned before.
    pub fn abandon(&self, dial: &Reservation<T, E>, cause: Option<E>, now: Tick) -> bool {
        let Reservation { seat, index, ticket, caller } = dial;
        let group = &seat.group;
        let slab = &self.shards[seat.shard.get()].slab;
        if !slab.slot(*index).abandon(*ticket) {
            return false;
        }
        slab.release(*index);
        group.lane(seat.shard).counters.dial_failed();
        match (caller, cause) {
            // A caller that has left does not care.
            (Some(caller), Some(cause)) => drop(caller.fill(Outcome::Failed(cause))),
            (Some(caller), None) => drop(caller.fill(Outcome::Closed)),
            (None, Some(cause)) => {
                self.settle(group, seat.shard, ANYWHERE, now);
                self.fail_one(group, Outcome::Failed(cause));
            }
            (None, None) => group.demand.dial_over(),
        }
        group.permits.put();
        self.dial_if_needed(seat, now);
        true
    }

    /// The watch saw the peer of a slot go. The caller is the slot's driver and knows that the
    /// connection it watched is the one in the slot.
    pub fn hang_up(&self, shard: ShardId, index: SlotIndex) {
        if let HangUp::Idle(tenant) = self.slot(shard, index).hang_up() {
            self.unrest(&tenant);
            self.doom(index, tenant, CloseReason::PeerClosed);
        }
    }

    /// Ends what rested too long on a shard. Returns how many.
    pub fn sweep(&self, shard: ShardId, now: Tick) -> usize {
        let mut ended = 0;
        for (index, slot) in self.shards[shard.get()].slab.iter() {
            let Some((period, deadline)) = slot.resting() else {
                continue;
            };
            if !deadline.is_past(now) {
                continue;
            }
            if let Some(tenant) = slot.expire(period) {
                self.unrest(&tenant);
                self.doom(index, tenant, CloseReason::IdleTimeout);
                ended += 1;
            }
        }
        ended
    }

    /// The driver has closed a connection: its slot and permit come back.
    pub fn vacate(&self, place: Place<T, E>, now: Tick) {
        let Place { seat, index, reason, permit } = place;
        let slab = &self.shards[seat.shard.get()].slab;
        slab.slot(index).vacate();
        slab.release(index);
        seat.group.lane(seat.shard).counters.closed(reason);
        if permit {
            seat.group.permits.put();
        }
        self.dial_if_needed(&seat, now);
    }

    /// Closes a group for good: waiters fail, what rests is closed now, what is in use when it
    /// comes back.
    pub fn close(&self, group: &Group<T, E>, now: Tick) {
        if group.demand.close() {
            // SeqCst: pairs with the fences in `give_back` and `wait`: what came to rest or into
            // line before them is seen here; what comes after sees the mark.
            fence(Ordering::SeqCst);
            self.settle(group, group.first, ANYWHERE, now);
        }
    }

    /// The next thing that a shard's driver has to do.
    pub fn next_duty(&self, shard: ShardId) -> Option<Duty<T, E>> {
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
    pub fn counts(&self, group: &Group<T, E>) -> GroupCounts {
        let wanted = group.demand.wanted();
        let mut counts = GroupCounts {
            idle: group.credits.total_idle(),
            live: group.permits.live(),
            dialing: wanted.dialing,
            waiting: wanted.waiting,
            ..GroupCounts::default()
        };
        for lane in &group.lanes {
            lane.counters.add_to(&mut counts);
        }
        counts
    }

    #[inline]
    fn slot(&self, shard: ShardId, index: SlotIndex) -> &Slot<Tenant<T, E>> {
        self.shards[shard.get()].slab.slot(index)
    }

    /// The oldest connection of a lane that is still at rest.
    #[inline]
    fn take(&self, group: &Group<T, E>, shard: ShardId) -> Option<Lease<T, E>> {
        let lane = group.lane(shard);
        // Ends: each turn takes a hint out, and only returns put one in.
        loop {
            let hint = lane.hints.pop()?;
            let Some(tenant) = self.slot(shard, hint.index()).checkout(hint.period()) else {
                continue;
            };
            let lease = Lease { index: hint.index(), tenant };
            if self.take_if_ours(group, &lease) {
                return Some(lease);
            }
            self.put_right(lease);
        }
    }

    /// Books a connection out of rest, if it is this group's. A hint so old that the generation
    /// came round could name another group's connection, and that must never be handed out.
    #[inline]
    fn take_if_ours(&self, group: &Group<T, E>, lease: &Lease<T, E>) -> bool {
        if !core::ptr::eq(&raw const *lease.tenant.seat.group, group) {
            return false;
        }
        group.credits.put(group.lane_index(lease.shard()));
        true
    }

    /// Sends a connection of another group back where it belongs.
    #[cold]
    fn put_right(&self, lease: Lease<T, E>) {
        self.unrest(&lease.tenant);
        let now = lease.tenant.rested;
        self.give_back(lease, now);
    }

    /// An idle connection from a lane or, where the group has enough, from a sibling.
    #[inline]
    fn take_within(&self, group: &Group<T, E>, at: ShardId, steal_min: u32) -> Option<Lease<T, E>> {
        self.take(group, at).or_else(|| self.steal(group, at, steal_min))
    }

    #[cold]
    #[inline(never)]
    fn steal(&self, group: &Group<T, E>, at: ShardId, steal_min: u32) -> Option<Lease<T, E>> {
        if group.credits.total_idle() < steal_min.max(1) {
            return None;
        }
        let lease = group.shards_from(at).skip(1).find_map(|shard| self.take(group, shard))?;
        group.lane(at).counters.stolen();
        Some(lease)
    }

    /// InUse → Idle and a hint in the lane; or, where that may not be, → Closing.
    #[inline]
    fn rest(&self, mut lease: Lease<T, E>, seat: &Seat<T, E>, now: Tick) {
        let (shard, index, group) = (seat.shard, lease.index, &*seat.group);
        if !group.credits.take(group.lane_index(shard)) {
            return self.discard(lease, CloseReason::Surplus);
        }
        lease.tenant.rested = now;
        let until = now.after(group.limits.idle_timeout_ms);
        match self.slot(shard, index).give_back(lease.tenant, until) {
            Ok(period) => {
                if let Err(hint) = group.lane(shard).hints.push(Hint::new(index, period)) {
                    self.make_room(group, shard, hint);
                }
            }
            Err(tenant) => {
                self.unrest(&tenant);
                self.discard(Lease { index, tenant }, CloseReason::PeerClosed);
            }
        }
    }

    /// A lane's ring is full: at least half of it is stale. Drops stale hints until ours fits;
    /// live ones go round to the end.
    #[cold]
    #[inline(never)]
    fn make_room(&self, group: &Group<T, E>, shard: ShardId, mut hint: Hint) {
        let lane = group.lane(shard);
        for _ in 0..=lane.hints.capacity() {
            if let Some(oldest) = lane.hints.pop()
                && self.slot(shard, oldest.index()).is_resting(oldest.period())
            {
                // Live: keep it, in the place that popping it made, or ours when that is gone.
                match lane.hints.push(oldest) {
                    Ok(()) => continue,
                    Err(crowded_out) => self.expire(shard, crowded_out),
                }
            }
            match lane.hints.push(hint) {
                Ok(()) => return,
                Err(back) => hint = back,
            }
        }
        self.expire(shard, hint);
    }

    /// Closes what a hint names, because no ring has a place for it.
    fn expire(&self, shard: ShardId, hint: Hint) {
        if let Some(tenant) = self.slot(shard, hint.index()).expire(hint.period()) {
            self.unrest(&tenant);
            self.doom(hint.index(), tenant, CloseReason::Surplus);
        }
    }

    /// Books a connection out of rest.
    fn unrest(&self, tenant: &Tenant<T, E>) {
        let seat = &tenant.seat;
        seat.group.credits.put(seat.group.lane_index(seat.shard));
    }

    #[cold]
    #[inline(never)]
    fn give_back_slow(&self, lease: Lease<T, E>, seat: &Seat<T, E>, now: Tick) {
        let group = &*seat.group;
        if group.demand.wanted().closed {
            return self.discard(lease, CloseReason::PoolClosed);
        }
        if self.is_dead(&lease) {
            return self.discard(lease, CloseReason::PeerClosed);
        }
        if let Err(lease) = self.hand_off(lease, Served::ByReturn) {
            self.rest(lease, seat, now);
            // SeqCst: as in `give_back`.
            fence(Ordering::SeqCst);
            self.settle(group, seat.shard, ANYWHERE, now);
        }
    }

    /// Leaves no idle connection and waiter together, and neither behind in a closed group.
    ///
    /// Ends without spinning: a caller that is counted but not yet in line looks for itself
    /// after it has lined up.
    #[cold]
    #[inline(never)]
    fn settle(&self, group: &Group<T, E>, first: ShardId, steal_min: u32, now: Tick) {
        while !group.waiters.is_empty() && !group.demand.wanted().closed {
            let Some(lease) = self.take_within(group, first, steal_min) else {
                break;
            };
            if self.is_dead(&lease) {
                self.discard(lease, CloseReason::PeerClosed);
            } else if let Err(lease) = self.hand_off(lease, Served::ByReturn) {
                let seat = Arc::clone(&lease.tenant.seat);
                self.rest(lease, &seat, now);
                // SeqCst: as in `give_back`; who lined up before it is seen by the next turn.
                fence(Ordering::SeqCst);
            }
        }
        if group.demand.wanted().closed {
            while let Some(lease) = self.take_within(group, first, ANYWHERE) {
                self.discard(lease, CloseReason::PoolClosed);
            }
            while let Some(waiter) = group.waiters.next() {
                match waiter.fill(Outcome::Closed) {
                    Ok(()) => group.demand.left(),
                    Err(_) => group.waiters.forget_one(),
                }
            }
        }
    }

    /// Gives a connection to the caller that waits longest.
    ///
    /// # Errors
    /// Gives it back when nobody waits.
    fn hand_off(&self, mut lease: Lease<T, E>, how: Served) -> Result<(), Lease<T, E>> {
        let seat = Arc::clone(&lease.tenant.seat);
        let group = &*seat.group;
        while let Some(waiter) = group.waiters.next() {
            match waiter.fill(Outcome::Ready(lease)) {
                Ok(()) => {
                    match how {
                        Served::ByDial => group.demand.served_by_dial(),
                        Served::ByReturn => {
                            group.demand.left();
                            group.lane(seat.shard).counters.reused();
                        }
                    }
                    return Ok(());
                }
                Err(Outcome::Ready(back)) => {
                    group.waiters.forget_one();
                    lease = back;
                }
                Err(_) => unreachable!("a waiter gives back what it was filled with"),
            }
        }
        Err(lease)
    }

    /// A dial ended without a connection: tells one waiter.
    fn fail_one(&self, group: &Group<T, E>, mut outcome: Outcome<T, E>) {
        while let Some(waiter) = group.waiters.next() {
            match waiter.fill(outcome) {
                Ok(()) => return group.demand.served_by_dial(),
                Err(back) => {
                    group.waiters.forget_one();
                    outcome = back;
                }
            }
        }
        group.demand.dial_over();
    }

    /// Starts dials until every waiter has one under way or the permits are out.
    ///
    /// Called by each caller after it lined up, and by everybody that gave a permit back or ended
    /// a dial. Permit first, need second: of "a permit came free" and "a caller lined up", the
    /// later one sees the earlier, because each fences between its own write and this look.
    ///
    /// A waiter that no dial can start for takes an idle connection wherever one is, so that INV-5
    /// holds for it whatever the stealing threshold says.
    fn dial_if_needed(&self, seat: &Arc<Seat<T, E>>, now: Tick) {
        let group = &*seat.group;
        loop {
            // SeqCst: see above; pairs with itself and with the fence in `wait`.
            fence(Ordering::SeqCst);
            if !group.demand.wanted().needs_dial() {
                return;
            }
            if !group.permits.take() {
                return self.settle(group, seat.shard, ANYWHERE, now);
            }
            if !group.demand.claim_dial() {
                // Somebody else saw to it. Our permit was out for a moment: look again.
                group.permits.put();
                continue;
            }
            match self.shards[seat.shard.get()].slab.reserve() {
                Some((index, ticket)) => {
                    let dial = Reservation { seat: Arc::clone(seat), index, ticket, caller: None };
                    self.charge(seat.shard, Duty::Dial(dial));
                }
                None => {
                    self.settle(group, seat.shard, ANYWHERE, now);
                    self.fail_one(group, Outcome::Exhausted);
                    group.permits.put();
                }
            }
        }
    }

    /// A dial whose outcome goes to nobody but the returned waiter. The permit is the caller's.
    fn dial_alone(&self, seat: &Arc<Seat<T, E>>) -> Option<Arc<GroupWaiter<T, E>>> {
        let (index, ticket) = self.shards[seat.shard.get()].slab.reserve()?;
        let waiter = Arc::new(Waiter::alone());
        let caller = Some(Arc::clone(&waiter));
        let dial = Reservation { seat: Arc::clone(seat), index, ticket, caller };
        self.charge(seat.shard, Duty::Dial(dial));
        Some(waiter)
    }

    fn doom(&self, index: SlotIndex, tenant: Tenant<T, E>, reason: CloseReason) {
        let Tenant { conn, seat, .. } = tenant;
        let shard = seat.shard;
        let place = Place { seat, index, reason, permit: true };
        self.charge(shard, Duty::Close(Doomed { conn: Some(conn), place }));
    }

    /// Gives a shard's driver something to do.
    fn charge(&self, shard: ShardId, duty: Duty<T, E>) {
        let shard = &self.shards[shard.get()];
        shard.duties.push(duty);
        shard.driver.wake();
    }
}

/// Why no dial was started for a caller alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDial {
    /// The group is closed.
    Closed,
    /// As many connections live as may.
    NoPermit,
    /// The shard has no vacant slot.
    Exhausted,
}

/// The stealing threshold of those that may take from any lane.
const ANYWHERE: u32 = 1;

/// Which count a hand-off settles.
#[derive(Clone, Copy, Debug)]
enum Served {
    ByDial,
    ByReturn,
}
