//! Dials: as many as callers wait, within the permits, and what becomes of them.

use super::{
    CloseReason, Doomed, Duty, Engine, Generation, GroupWaiter, Lease, Outcome, Place, Reservation,
    Seat, SlotIndex, Tenant, Waiter,
    line::{ANYWHERE, Served},
};
use crate::{
    clock::Tick,
    sync::{Arc, Ordering, fence},
};

impl<T, E, K> Engine<T, E, K> {
    /// A dial succeeded: the connection goes to the first in line, or to rest.
    ///
    /// # Errors
    /// Gives the connection back when the peer has hung up on it already (INV-6), or when the dial
    /// was abandoned before. The caller closes it, then abandons the dial.
    pub fn fulfil(&self, dial: &Reservation<T, E, K>, conn: T, now: Tick) -> Result<(), T> {
        let Reservation { seat, index, ticket, caller } = dial;
        if !self.slot(seat.shard, *index).fulfil(*ticket) {
            return Err(conn);
        }
        seat.group.lane(seat.shard).counters.opened();
        let tenant = Tenant { conn, seat: Arc::clone(seat), opened: now, rested: now, uses: 0 };
        let lease = Lease { index: *index, tenant };
        if let Some(caller) = caller {
            // Another caller's, or nobody's, when that one has left.
            match caller.fill(Outcome::Ready(lease)) {
                Err(Outcome::Ready(lease)) => self.give_back(lease, now),
                _ => caller.wake(),
            }
        } else if let Err(lease) = self.hand_off(lease, Served::ByDial) {
            seat.group.demand.dial_over();
            self.give_back(lease, now);
        }
        Ok(())
    }

    /// A dial failed or was given up: its slot and permit come back, and one waiter learns why,
    /// unless idle connections serve them all. `false` when it was fulfilled or abandoned before.
    pub fn abandon(&self, dial: &Reservation<T, E, K>, cause: Option<E>) -> bool {
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
            (Some(caller), cause) => {
                drop(caller.fill(cause.map_or(Outcome::Closed, Outcome::Failed)));
                caller.wake();
            }
            (None, Some(cause)) => {
                self.settle(group, seat.shard, ANYWHERE);
                self.fail_one(group, Outcome::Failed(cause));
            }
            (None, None) => group.demand.dial_over(),
        }
        group.permits.put();
        self.dial_if_needed(seat);
        true
    }

    /// Dials for one caller alone, past the queue: for a retry that must not meet another stale
    /// connection. Only its outcome or a cancel ends the returned waiter.
    ///
    /// # Errors
    /// When the group is closed, has no permit to spare, or the shard no slot.
    pub fn dial_fresh(
        &self,
        seat: &Arc<Seat<T, E, K>>,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, NoDial> {
        if seat.group.demand.wanted().closed {
            return Err(NoDial::Closed);
        }
        if !seat.group.permits.is_free() {
            return Err(NoDial::NoPermit);
        }
        // Slot first: a permit that was out for a moment only could keep a caller in line from
        // its dial.
        let slab = &self.shards[seat.shard.get()].slab;
        let (index, ticket) = slab.reserve().ok_or(NoDial::Exhausted)?;
        if !seat.group.permits.take() {
            let abandoned = slab.slot(index).abandon(ticket);
            debug_assert!(abandoned, "nobody else has the ticket");
            slab.release(index);
            return Err(NoDial::NoPermit);
        }
        Ok(self.dial_alone(seat, index, ticket))
    }

    /// Ends a connection and dials in its stead, for the same caller alone. The permit passes on,
    /// so nobody can come between.
    ///
    /// # Errors
    /// When the group is closed or the shard has no slot; the connection is ended all the same.
    pub fn redial(&self, lease: Lease<T, E, K>) -> Result<Arc<GroupWaiter<T, E, K>>, NoDial> {
        let seat = Arc::clone(&lease.tenant.seat);
        if seat.group.demand.wanted().closed {
            self.discard(lease, CloseReason::PoolClosed);
            return Err(NoDial::Closed);
        }
        let Some((index, ticket)) = self.shards[seat.shard.get()].slab.reserve() else {
            self.discard(lease, CloseReason::Replaced);
            return Err(NoDial::Exhausted);
        };
        let waiter = self.dial_alone(&seat, index, ticket);
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

    /// Starts dials until every waiter has one under way or the permits are out.
    ///
    /// Called by each caller after it lined up, and by everybody that gave a permit back or ended
    /// a dial. Permit first, need second: of "a permit came free" and "a caller lined up", the
    /// later one sees the earlier, because each fences between its own write and this look.
    ///
    /// A waiter that no dial can start for takes an idle connection wherever one is, so that INV-5
    /// holds for it whatever the stealing threshold says.
    pub(super) fn dial_if_needed(&self, seat: &Arc<Seat<T, E, K>>) {
        let group = &*seat.group;
        loop {
            // SeqCst: see above; pairs with itself and with the fence in `wait`.
            fence(Ordering::SeqCst);
            if !group.demand.wanted().needs_dial() {
                return;
            }
            if !group.permits.take() {
                return self.settle(group, seat.shard, ANYWHERE);
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
                    self.settle(group, seat.shard, ANYWHERE);
                    let told = self.fail_one(group, Outcome::Exhausted);
                    group.permits.put();
                    // SeqCst: as above, of "our permit came back" and "a caller lined up". One that
                    // is counted but not in line yet looks for itself; we do not spin for it.
                    fence(Ordering::SeqCst);
                    if !told && group.waiters.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// A dial whose outcome goes to nobody but the returned waiter. The permit is the caller's.
    fn dial_alone(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        index: SlotIndex,
        ticket: Generation,
    ) -> Arc<GroupWaiter<T, E, K>> {
        let waiter = Arc::new(Waiter::alone());
        let caller = Some(Arc::clone(&waiter));
        let dial = Reservation { seat: Arc::clone(seat), index, ticket, caller };
        self.charge(seat.shard, Duty::Dial(dial));
        waiter
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
