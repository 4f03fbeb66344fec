//! The reuse path: an idle connection out, a clean one back.
//!
//! A hit and a return allocate nothing, take no lock, make no system call, read no clock and
//! write only words of the caller's own shard. One return in a lane's life is the exception: the
//! first that finds its near ring full makes the far one.

use super::{
    CloseReason, Engine, Group, Lease, Seat, ShardId, Tenant,
    lane::Lane,
    lease::Class,
    limits::NEVER,
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
    #[cfg(any(test, loom, model, fuzzing))]
    pub fn checkout(
        &self,
        group: &Group<T, E, K>,
        at: ShardId,
        steal_min: u32,
    ) -> Option<Lease<T, E, K>> {
        self.serve(group, group.lane(at), || self.take_within(group, at, steal_min))
    }

    /// The first half: from the seat's own lane.
    #[inline]
    pub fn checkout_own(&self, seat: &Seat<T, E, K>) -> Option<Lease<T, E, K>> {
        let Seat { group, shard, lane } = seat;
        self.serve(group, lane, || self.take_from(group, *shard, lane))
    }

    /// The second half, for who has found the seat's own lane empty: from a sibling's.
    #[inline]
    pub fn checkout_elsewhere(
        &self,
        seat: &Seat<T, E, K>,
        steal_min: u32,
    ) -> Option<Lease<T, E, K>> {
        self.serve(&seat.group, &seat.lane, || self.steal(&seat.group, seat.shard, steal_min))
    }

    #[inline(always)] // as for `take_from`
    fn serve(
        &self,
        group: &Group<T, E, K>,
        lane: &Lane,
        find: impl FnOnce() -> Option<Lease<T, E, K>>,
    ) -> Option<Lease<T, E, K>> {
        if group.demand.is_contended() {
            return None;
        }
        let lease = find()?;
        lane.reused.add();
        Some(lease)
    }

    /// Puts a clean connection to rest, or hands it to the caller that waits longest.
    #[cfg(any(test, loom, model, fuzzing))]
    pub fn give_back(&self, lease: Lease<T, E, K>, now: Tick) {
        // The seat's count is the shard's own line; the group must outlive the hand-over.
        let seat = Arc::clone(&lease.tenant.seat);
        self.give_back_to(&seat, lease, now);
    }

    /// Puts a clean connection to rest, or hands it to the caller that waits longest. `seat` is the
    /// lease's own, of which the caller has a reference: the group must outlive the hand-over.
    #[inline(always)] // as for `take_from`
    pub fn give_back_to(&self, seat: &Seat<T, E, K>, mut lease: Lease<T, E, K>, now: Tick) {
        lease.tenant.uses = lease.tenant.uses.saturating_add(1);
        // Also when it goes straight to the next caller: it was idle for no time at all.
        lease.tenant.rested = now;
        self.come_back(seat, lease, now);
        self.make_room_if_wanted(now);
    }

    /// Gives back a connection that nobody has used: its rest goes on. Needs no time of its own,
    /// because the caller's shard may have a clock that stands still.
    pub fn put_back(&self, lease: Lease<T, E, K>) {
        let (seat, rested) = (Arc::clone(&lease.tenant.seat), lease.tenant.rested);
        self.come_back(&seat, lease, rested);
    }

    #[inline(always)] // as for `take_from`
    fn come_back(&self, seat: &Seat<T, E, K>, mut lease: Lease<T, E, K>, now: Tick) {
        debug_assert!(core::ptr::eq(seat, &raw const *lease.tenant.seat), "the lease's own seat");
        let group = &*seat.group;
        lease.tenant.fresh = false;
        if is_spent(group, &lease.tenant, now) {
            return self.retire(lease, seat, now);
        }
        if group.demand.is_contended() {
            return self.come_back_slow(lease, seat, now);
        }
        self.rest_in_sight(lease, seat, now);
        if group.demand.is_contended() {
            self.settle(group, seat.shard, ANYWHERE);
        }
    }

    /// [`Self::rest`], so that nobody misses it who looks at the lanes after a word of its own: a
    /// caller in line, a close, a resume, an eviction.
    #[inline(always)] // as for `take_from`
    pub(super) fn rest_in_sight(&self, lease: Lease<T, E, K>, seat: &Seat<T, E, K>, now: Tick) {
        let (group, epoch) = (&*seat.group, lease.tenant.epoch);
        self.rest(lease, seat, now);
        // SeqCst: pairs with the fences in `line_up`, `close`, `resume` (INV-5) and `evict`. Either
        // we see their word, here or in the caller's look at the demand, or they see our hint.
        fence(Ordering::SeqCst);
        if group.epoch() != epoch {
            self.purge_resting(group);
        }
    }

    /// Whether the connection was given up while this lease was out, alone or with its group.
    #[inline]
    pub fn is_dead(&self, lease: &Lease<T, E, K>) -> bool {
        self.is_marked(lease) || lease.tenant.epoch != lease.tenant.seat.group.epoch()
    }

    /// Whether the connection has lived as long as it may.
    pub fn is_old(&self, lease: &Lease<T, E, K>, now: Tick) -> bool {
        lease.tenant.ends.is_past(now)
    }

    /// Whether this very connection was given up.
    #[inline]
    pub(super) fn is_marked(&self, lease: &Lease<T, E, K>) -> bool {
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

    /// The next connection of a lane that is still at rest, in the group's order.
    pub(super) fn take(&self, group: &Group<T, E, K>, shard: ShardId) -> Option<Lease<T, E, K>> {
        self.take_from(group, shard, group.lane(shard))
    }

    /// The same, for who has the group's lane on this shard at hand.
    #[inline(always)] // a call and what it saves are a tenth of a hit
    fn take_from(
        &self,
        group: &Group<T, E, K>,
        shard: ShardId,
        lane: &Lane,
    ) -> Option<Lease<T, E, K>> {
        match self.follow(group, shard, lane, lane.next_hint()?) {
            Some(lease) => Some(lease),
            None => self.follow_others(group, shard, lane),
        }
    }

    /// The connection that a hint leads to, if it is at rest still.
    #[inline(always)] // as for `take_from`
    fn follow(
        &self,
        group: &Group<T, E, K>,
        shard: ShardId,
        lane: &Lane,
        hint: Hint,
    ) -> Option<Lease<T, E, K>> {
        let tenant = self.slot(shard, hint.index()).checkout(hint.period())?;
        let lease = Lease { index: hint.index(), tenant };
        // A hint so old that the generation came round could name another group's connection, and
        // that must never be handed out.
        if core::ptr::eq(&raw const *lease.tenant.seat.group, group)
            && lease.tenant.epoch == group.epoch()
        {
            self.book_out(lane, shard);
            return Some(lease);
        }
        self.put_right(group, lease);
        None
    }

    /// The first hint of a lane led nowhere.
    #[cold]
    #[inline(never)]
    fn follow_others(
        &self,
        group: &Group<T, E, K>,
        shard: ShardId,
        lane: &Lane,
    ) -> Option<Lease<T, E, K>> {
        // Ends: each turn takes a hint out, and only returns put one in.
        loop {
            if let Some(lease) = self.follow(group, shard, lane, lane.next_hint()?) {
                return Some(lease);
            }
        }
    }

    /// A connection that was taken for another group goes back where it belongs; one of an evicted
    /// group ends.
    #[cold]
    #[inline(never)]
    fn put_right(&self, group: &Group<T, E, K>, lease: Lease<T, E, K>) {
        self.unrest(&lease.tenant);
        if core::ptr::eq(&raw const *lease.tenant.seat.group, group) {
            self.discard(lease, CloseReason::Purged);
        } else {
            self.put_back(lease);
        }
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
    #[inline(always)] // as for `take_from`
    pub(super) fn rest(&self, lease: Lease<T, E, K>, seat: &Seat<T, E, K>, now: Tick) {
        let (shard, index, group) = (seat.shard, lease.index, &*seat.group);
        if !seat.lane.account.take() && !group.credits.take_slow(group.lane_index(shard)) {
            return self.discard(lease, CloseReason::Surplus);
        }
        if let Some(total) = &self.totals.idle
            && !total.take(shard.get())
            && !self.make_way(total, shard)
        {
            seat.lane.account.put();
            return self.discard(lease, CloseReason::Evicted);
        }
        let until = look_at(group, &lease.tenant, now);
        match self.slot(shard, index).give_back(lease.tenant, now, until) {
            Ok(period) => {
                if let Err(hint) = seat.lane.hints.push(Hint::new(index, period)) {
                    self.make_room(group, shard, hint);
                }
            }
            Err(tenant) => {
                self.unrest(&tenant);
                self.discard(Lease { index, tenant }, CloseReason::PeerClosed);
            }
        }
    }

    /// A lane has no room for a hint: at least half of what it has is stale.
    #[cold]
    #[inline(never)]
    fn make_room(&self, group: &Group<T, E, K>, shard: ShardId, hint: Hint) {
        group.lane(shard).hints.make_room(
            hint,
            |hint| self.slot(shard, hint.index()).is_resting(hint.period()),
            |hint| self.spill(group, shard, hint),
        );
    }

    /// A lane has no place for a live hint: `max_idle` was raised above what the lane was made
    /// for. Of those that stand here two are looked at for each that comes, so that stale ones do
    /// not pile up.
    fn spill(&self, group: &Group<T, E, K>, shard: ShardId, hint: Hint) {
        let lane = group.lane(shard);
        // Before the push, which the fence in `come_back` orders before the look at the demand.
        lane.spilled.set(1);
        lane.spill.push(hint);
        for _ in 0..2 {
            if let Some(oldest) = lane.spill.pop()
                && self.slot(shard, oldest.index()).is_resting(oldest.period())
            {
                lane.spill.push(oldest);
            }
        }
    }

    /// Books a connection out of rest.
    pub(super) fn unrest(&self, tenant: &Tenant<T, E, K>) {
        let seat = &tenant.seat;
        self.book_out(&seat.lane, seat.shard);
    }

    #[inline]
    fn book_out(&self, lane: &Lane, shard: ShardId) {
        lane.account.put();
        if let Some(total) = &self.totals.idle {
            total.put(shard.get());
        }
    }

    #[cold]
    #[inline(never)]
    fn come_back_slow(&self, lease: Lease<T, E, K>, seat: &Seat<T, E, K>, now: Tick) {
        let group = &*seat.group;
        if group.demand.wanted().closed {
            return self.discard(lease, CloseReason::PoolClosed);
        }
        if self.is_marked(&lease) {
            return self.discard(lease, CloseReason::PeerClosed);
        }
        if group.permits.excess() > 0 {
            return self.discard(lease, CloseReason::Shrunk);
        }
        let refused = match group.demand.wanted().held {
            true => Err(lease),
            false => self.hand_off(lease, Served::ByReturn),
        };
        if let Err(lease) = refused {
            self.rest_in_sight(lease, seat, now);
            self.settle(group, seat.shard, ANYWHERE);
        }
    }

    /// A connection that may not rest as it is: it ends, unless it is one above the limit that may
    /// serve on.
    #[cold]
    #[inline(never)]
    fn retire(&self, mut lease: Lease<T, E, K>, seat: &Seat<T, E, K>, now: Tick) {
        let (group, tenant) = (&*seat.group, &lease.tenant);
        let reason = if tenant.epoch != group.epoch() {
            CloseReason::Purged
        } else if tenant.ends.is_past(now) {
            CloseReason::MaxLifetime
        } else if tenant.uses >= group.limits.max_uses() {
            CloseReason::MaxUses
        } else if tenant.class == Class::Overflow && !group.demand.wanted().closed {
            let wanted = group.demand.wanted();
            if !self.is_marked(&lease) && wanted.waiting > 0 && !wanted.held {
                match self.hand_off(lease, Served::ByReturn) {
                    Ok(()) => return,
                    Err(back) => lease = back,
                }
            }
            if group.permits.take() {
                group.overflow.put();
                lease.tenant.class = Class::Pooled;
                return self.come_back(seat, lease, now);
            }
            CloseReason::Overflow
        } else {
            CloseReason::Overflow
        };
        self.discard(lease, reason);
    }
}

/// Whether a connection may not simply rest: it has lived or served long enough, its group was
/// evicted, or it lives above the limit.
#[inline]
fn is_spent<T, E, K>(group: &Group<T, E, K>, tenant: &Tenant<T, E, K>, now: Tick) -> bool {
    tenant.class != Class::Pooled
        || tenant.uses >= group.limits.max_uses()
        || tenant.ends.is_past(now)
        || tenant.epoch != group.epoch()
}

/// When the sweep has to look at a connection that rests: at its idle timeout, its end, or its
/// next ping.
#[inline]
fn look_at<T, E, K>(group: &Group<T, E, K>, tenant: &Tenant<T, E, K>, rested: Tick) -> Tick {
    let until = rested.after(group.limits.idle_timeout_ms()).earlier(tenant.ends);
    match group.limits.ping_interval_ms() {
        NEVER => until,
        interval => until.earlier(tenant.quiet_since().after(interval)),
    }
}

impl<T, E, K> Tenant<T, E, K> {
    /// Since when it has neither served nor been asked whether it lives.
    pub(super) fn quiet_since(&self) -> Tick {
        if self.asked.is_past(self.rested) { self.rested } else { self.asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        GroupLimits, Outcome,
        regressions::{TestEngine, TestSeat, at, leased, seats, take, work},
        rules::closed,
    };

    fn group(limits: GroupLimits) -> TestSeat {
        Arc::clone(&seats(1, limits)[0])
    }

    #[test]
    fn a_seat_has_its_own_lane_first_and_then_a_siblings() {
        let (engine, seats) = (TestEngine::new(2, 8), seats(2, GroupLimits::DEFAULT));
        engine.give_back(leased(&engine, &seats[0], 2, at(0)), at(0));
        assert!(engine.checkout_own(&seats[1]).is_none(), "it rests in the other's");
        assert!(engine.checkout_elsewhere(&seats[1], 2).is_none(), "too few to steal from");
        engine.give_back(engine.checkout_elsewhere(&seats[1], 1).expect("it rests"), at(1));
        assert!(engine.checkout_own(&seats[0]).is_some(), "it went home");
    }

    #[test]
    fn a_hint_of_anothers_connection_gives_it_to_nobody() {
        let engine = TestEngine::new(1, 8);
        let [ours, theirs] = [(), ()].map(|()| group(GroupLimits::DEFAULT));
        engine.give_back(leased(&engine, &theirs, 1, at(0)), at(0));
        // As one so old that the slot's generation came round.
        ours.lane.hints.push(theirs.lane.hints.pop().unwrap()).unwrap();
        assert!(engine.checkout_own(&ours).is_none());
        assert!(engine.checkout_own(&theirs).is_some(), "it went back where it belongs");
    }

    #[test]
    fn a_checkout_that_meets_an_eviction_ends_what_rested_before_it() {
        let (engine, seat) = (TestEngine::new(1, 8), group(GroupLimits::DEFAULT));
        engine.give_back(leased(&engine, &seat, 1, at(0)), at(0));
        // The first half of an eviction.
        seat.group.epoch.fetch_add(1, Ordering::Relaxed);
        assert!(engine.checkout_own(&seat).is_none());
        assert_eq!(closed(&engine, at(1)), [(7, CloseReason::Purged)]);
    }

    #[test]
    fn one_above_the_limit_serves_the_first_in_line_as_it_comes_back() {
        let limits = GroupLimits { max_live: 1, max_overflow: 1, ..GroupLimits::DEFAULT };
        let (engine, seat) = (TestEngine::new(1, 8), group(limits));
        let _pooled = leased(&engine, &seat, 1, at(0));
        let alone = engine.dial_overflow(&seat, at(0)).unwrap();
        assert_eq!(work(&engine, 1, at(0)), (1, 0));
        let Some(Outcome::Ready(overflow)) = take(&alone) else { panic!() };
        let waiter = engine.wait(&seat, 1, at(1)).unwrap();
        engine.give_back(overflow, at(2));
        assert!(matches!(take(&waiter), Some(Outcome::Ready(_))));
        assert_eq!(work(&engine, 1, at(2)), (0, 0), "nothing is closed");
    }

    #[test]
    fn the_last_of_a_connections_uses_is_why_it_ends() {
        let limits = GroupLimits { max_uses: 1, ..GroupLimits::DEFAULT };
        let (engine, seat) = (TestEngine::new(1, 8), group(limits));
        let mut lease = leased(&engine, &seat, 1, at(0));
        lease.tenant.uses = 1;
        engine.give_back(lease, at(1));
        assert_eq!(closed(&engine, at(1)), [(7, CloseReason::MaxUses)]);
    }
}
