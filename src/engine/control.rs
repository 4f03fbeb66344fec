//! What an owner does to a group as a whole: hold, resume, evict, retain, resize.

use super::{
    BreakerMode, CloseReason, Engine, Group, GroupLimits, Lease, Seat, Tenant, TotalLimits,
    line::ANYWHERE,
};
use crate::{
    clock::Tick,
    sync::{Arc, Ordering, fence},
};

impl<T, E, K> Engine<T, E, K> {
    /// Serves nobody of a group until [`Self::resume`]: callers line up, connections that come
    /// back rest, no dial starts. `false` when it was held already.
    pub fn hold(&self, group: &Group<T, E, K>) -> bool {
        group.demand.hold()
    }

    /// Serves again, those in line first. `false` when it was not held.
    pub fn resume(&self, seat: &Arc<Seat<T, E, K>>, now: Tick) -> bool {
        let group = &*seat.group;
        if !group.demand.resume() {
            return false;
        }
        // SeqCst: pairs with the fences in `come_back` and `wait`: what came to rest or into line
        // before them is seen here; what comes after sees that the group is open.
        fence(Ordering::SeqCst);
        self.settle(group, seat.shard, ANYWHERE);
        self.dial_if_needed(seat, now);
        true
    }

    /// Makes the breaker follow its rules, or not.
    pub fn force_breaker(&self, seat: &Arc<Seat<T, E, K>>, mode: BreakerMode, now: Tick) {
        if let Some(change) = seat.group.breaker.force(mode) {
            self.breaker_changed(seat, change, now);
        }
    }

    /// A hint from outside that the endpoint is back: the breaker closes, unless it is forced, and
    /// dials need not wait for the backoff.
    pub fn reset_breaker(&self, seat: &Arc<Seat<T, E, K>>, now: Tick) {
        seat.group.backoff.reset();
        if let Some(change) = seat.group.breaker.reset() {
            self.breaker_changed(seat, change, now);
        }
    }

    /// Ends every connection that the group has now: those at rest at once, those in use when they
    /// come back. New ones are made as before.
    pub fn evict(&self, group: &Group<T, E, K>) {
        // AcqRel: what came to rest before is taken out below, and taking ends what is of an older
        // epoch; what comes back later compares its epoch itself.
        group.epoch.fetch_add(1, Ordering::AcqRel);
        self.retain(group, |_| true);
    }

    /// Ends the connections at rest that `keep` refuses. Returns how many.
    ///
    /// Those of a lane are taken out together while it looks; callers that come meanwhile line up
    /// for them or dial.
    pub fn retain(
        &self,
        group: &Group<T, E, K>,
        mut keep: impl FnMut(&mut Tenant<T, E, K>) -> bool,
    ) -> usize {
        let mut ended = 0;
        for shard in group.shards_from(group.first) {
            let mut kept = Kept { engine: self, leases: Vec::new() };
            for _ in 0..group.credits.idle(group.lane_index(shard)) {
                let Some(lease) = self.take(group, shard) else {
                    break;
                };
                // Kept first: if `keep` panics, this one goes back with the others.
                kept.leases.push(lease);
                if let Some(last) = kept.leases.last_mut()
                    && !keep(&mut last.tenant)
                    && let Some(refused) = kept.leases.pop()
                {
                    self.discard(refused, CloseReason::Purged);
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Changes the limits of a group; one caller at a time. What is above lowered limits is closed
    /// at once if it rests, and otherwise when it comes back.
    pub fn resize(&self, seats: &[Arc<Seat<T, E, K>>], limits: &GroupLimits, now: Tick) {
        let Some(seat) = seats.first() else {
            return;
        };
        let group = &*seat.group;
        group.limits.set(limits);
        group.permits.resize(limits.max_live);
        group.overflow.resize(limits.max_overflow);
        group.dials.resize(limits.max_dialing);
        group.credits.resize(limits.max_idle);
        for shard in group.shards_from(group.first) {
            let shard = &self.shards[shard.get()];
            // Release: publishes the limits; pairs with the Acquire in `sweep`.
            shard.recheck.store(true, Ordering::Release);
            shard.driver.wake();
        }
        self.shrink(group);
        self.dial_if_needed(seat, now);
    }

    /// Changes the limits of the whole pool; one caller at a time. A limit can be changed where
    /// there was one from the start.
    pub fn resize_totals(&self, limits: &TotalLimits, now: Tick) {
        for (permits, limit) in
            [(&self.totals.live, limits.max_live), (&self.totals.dials, limits.max_dialing)]
        {
            if let (Some(permits), Some(limit)) = (permits, limit) {
                permits.resize(limit);
            }
        }
        if let (Some(idle), Some(cap)) = (&self.totals.idle, limits.max_idle) {
            idle.resize(cap);
        }
        self.tend_totals(now);
    }

    /// Brings the whole pool to within its limits. To be called a few times a second.
    pub fn tend_totals(&self, now: Tick) {
        if let Some(idle) = &self.totals.idle {
            let mut debt = idle.collect();
            while debt > 0 && self.evict_oldest(CloseReason::Shrunk) {
                debt = idle.collect();
            }
        }
        let excess = self.totals.live.as_ref().map_or(0, |live| live.excess());
        for _ in 0..excess {
            if !self.evict_oldest(CloseReason::Shrunk) {
                break;
            }
        }
        self.feed(now);
    }

    /// Closes so many of the connections that rest longest, to free their descriptors. Returns how
    /// many there were.
    pub fn relieve(&self, count: usize) -> usize {
        (0..count).take_while(|_| self.evict_oldest(CloseReason::Evicted)).count()
    }

    /// Connections of all groups, dials and closes under way included, where there is a limit.
    pub fn total_live(&self) -> Option<u32> {
        self.totals.live.as_ref().map(|live| live.live())
    }

    /// Connections of all groups at rest, where there is a cap on them.
    pub fn total_idle(&self) -> Option<u32> {
        self.totals.idle.as_ref().map(|idle| idle.total_idle())
    }
}

/// Leases that go back when this is dropped, in the order in which they were taken.
struct Kept<'a, T, E, K> {
    engine: &'a Engine<T, E, K>,
    leases: Vec<Lease<T, E, K>>,
}

impl<T, E, K> Drop for Kept<'_, T, E, K> {
    fn drop(&mut self) {
        for lease in self.leases.drain(..) {
            self.engine.put_back(lease);
        }
    }
}
