//! The reuse path: an idle connection out, a clean one back.
//!
//! A hit and a return allocate nothing, take no lock, make no system call, read no clock and
//! write only words of the caller's own shard.

use super::{
    CloseReason, Engine, Group, Lease, Seat, ShardId, Tenant,
    line::{ANYWHERE, Served},
    slab::Hint,
};
use crate::{
    clock::Tick,
    sync::{Arc, Ordering, fence},
};

impl<T, E, K> Engine<T, E, K> {
    /// Takes an idle connection, from the lane of shard `at` or, when the group has at least
    /// `steal_min` idle connections, from a sibling's.
    ///
    /// Nobody is overtaken: while callers wait, this finds nothing.
    #[inline]
    pub fn checkout(
        &self,
        group: &Group<T, E, K>,
        at: ShardId,
        steal_min: u32,
    ) -> Option<Lease<T, E, K>> {
        if group.demand.is_contended() {
            return None;
        }
        let lease = self.take_within(group, at, steal_min)?;
        group.lane(at).counters.reused();
        Some(lease)
    }

    /// Puts a clean connection to rest, or hands it to the caller that waits longest.
    #[inline]
    pub fn give_back(&self, lease: Lease<T, E, K>, now: Tick) {
        // The seat's count is the shard's own line; the group must outlive the hand-over.
        let seat = Arc::clone(&lease.tenant.seat);
        self.give_back_to(&seat, lease, now);
    }

    /// [`Self::give_back`] by a caller that has a reference to the lease's seat at hand.
    #[inline]
    pub fn give_back_to(&self, seat: &Seat<T, E, K>, mut lease: Lease<T, E, K>, now: Tick) {
        debug_assert!(core::ptr::eq(seat, &raw const *lease.tenant.seat), "the lease's own seat");
        lease.tenant.uses = lease.tenant.uses.saturating_add(1);
        // Also when it goes straight to the next caller: it was idle for no time at all.
        lease.tenant.rested = now;
        if seat.group.demand.is_contended() {
            return self.give_back_slow(lease, seat, now);
        }
        self.rest(lease, seat, now);
        // SeqCst: pairs with the fence in `wait` (and in `close`), INV-5. Either we see the
        // waiter that registered before its fence, or its look at the lanes sees our hint.
        fence(Ordering::SeqCst);
        if seat.group.demand.is_contended() {
            self.settle(&seat.group, seat.shard, ANYWHERE);
        }
    }

    /// Whether the watch saw the peer go while this lease was out.
    #[inline]
    pub fn is_dead(&self, lease: &Lease<T, E, K>) -> bool {
        self.slot(lease.shard(), lease.index).is_dead()
    }

    /// An idle connection from a lane or, where the group has enough, from a sibling.
    #[inline]
    pub(super) fn take_within(
        &self,
        group: &Group<T, E, K>,
        at: ShardId,
        steal_min: u32,
    ) -> Option<Lease<T, E, K>> {
        self.take(group, at).or_else(|| self.steal(group, at, steal_min))
    }

    /// The oldest connection of a lane that is still at rest.
    #[inline]
    pub(super) fn take(&self, group: &Group<T, E, K>, shard: ShardId) -> Option<Lease<T, E, K>> {
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
    fn take_if_ours(&self, group: &Group<T, E, K>, lease: &Lease<T, E, K>) -> bool {
        if !core::ptr::eq(&raw const *lease.tenant.seat.group, group) {
            return false;
        }
        group.credits.put(group.lane_index(lease.shard()));
        true
    }

    /// Sends a connection of another group back where it belongs.
    #[cold]
    fn put_right(&self, lease: Lease<T, E, K>) {
        self.unrest(&lease.tenant);
        self.put_back(lease);
    }

    /// Gives back a connection that nobody has used: its rest goes on. Needs no time of its own,
    /// because the caller's shard may have a clock that stands still.
    pub(super) fn put_back(&self, lease: Lease<T, E, K>) {
        let rested = lease.tenant.rested;
        self.give_back(lease, rested);
    }

    #[cold]
    #[inline(never)]
    fn steal(&self, group: &Group<T, E, K>, at: ShardId, steal_min: u32) -> Option<Lease<T, E, K>> {
        if group.credits.total_idle() < steal_min.max(1) {
            return None;
        }
        let lease = group.shards_from(at).skip(1).find_map(|shard| self.take(group, shard))?;
        group.lane(at).counters.stolen();
        Some(lease)
    }

    /// InUse → Idle and a hint in the lane; or, where that may not be, → Closing.
    #[inline]
    pub(super) fn rest(&self, lease: Lease<T, E, K>, seat: &Seat<T, E, K>, now: Tick) {
        let (shard, index, group) = (seat.shard, lease.index, &*seat.group);
        if !group.credits.take(group.lane_index(shard)) {
            return self.discard(lease, CloseReason::Surplus);
        }
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
    fn make_room(&self, group: &Group<T, E, K>, shard: ShardId, mut hint: Hint) {
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
    pub(super) fn unrest(&self, tenant: &Tenant<T, E, K>) {
        let seat = &tenant.seat;
        seat.group.credits.put(seat.group.lane_index(seat.shard));
    }

    #[cold]
    #[inline(never)]
    fn give_back_slow(&self, lease: Lease<T, E, K>, seat: &Seat<T, E, K>, now: Tick) {
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
            self.settle(group, seat.shard, ANYWHERE);
        }
    }
}
