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
        group.epoch.fetch_add(1, Ordering::AcqRel);
        // SeqCst: pairs with the fence in `rest_in_sight`: what came to rest before it is ended
        // below; what comes after sees the new epoch. What is handed over meanwhile bears the mark.
        fence(Ordering::SeqCst);
        self.purge_resting(group);
    }

    /// Ends what rests of an older epoch: taking it out does.
    #[cold]
    #[inline(never)]
    pub(super) fn purge_resting(&self, group: &Group<T, E, K>) {
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
            let lifo = group.limits.lifo() != 0;
            let mut kept = Kept { engine: self, leases: Vec::new(), lifo };
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

    /// Forgets which groups starve, so that none of them is kept alive. For an engine in which no
    /// dial will begin any more.
    pub fn forget_starving(&self) {
        self.totals.forget_starving();
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

/// Leases that go back when this is dropped, so that they rest in the order that they had.
struct Kept<'a, T, E, K> {
    engine: &'a Engine<T, E, K>,
    leases: Vec<Lease<T, E, K>>,
    /// The first that was taken is the last to go back.
    lifo: bool,
}

impl<T, E, K> Drop for Kept<'_, T, E, K> {
    fn drop(&mut self) {
        if self.lifo {
            self.leases.reverse();
        }
        for lease in self.leases.drain(..) {
            self.engine.put_back(lease);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::task::{Context, Poll, Waker};

    use super::*;
    use crate::engine::{Duty, Outcome, ShardId};

    const NOW: Tick = Tick::ZERO;
    const S0: ShardId = ShardId(0);

    struct Rig {
        engine: Engine<u32, &'static str>,
        seats: Box<[Arc<Seat<u32, &'static str>>]>,
        limits: GroupLimits,
    }

    impl Rig {
        fn new(limits: GroupLimits) -> Self {
            let group = Arc::new(Group::new(S0, 1, limits));
            Self { engine: Engine::new(1, 64), seats: Group::seats(&group), limits }
        }

        fn group(&self) -> &Group<u32, &'static str> {
            self.seats[0].group()
        }

        fn open(&self, name: u32) -> Lease<u32, &'static str> {
            let waiter = self.engine.wait(&self.seats[0], u32::MAX, NOW).unwrap();
            let Some(Duty::Dial(dial)) = self.engine.next_duty(S0) else { panic!("no dial") };
            self.engine.fulfil(&dial, name, NOW).unwrap();
            match waiter.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Outcome::Ready(lease)) => lease,
                other => panic!("{other:?}"),
            }
        }

        fn names(&self) -> Vec<u32> {
            let next = || self.engine.checkout(self.group(), S0, u32::MAX);
            let leases: Vec<_> = core::iter::from_fn(next).collect();
            let names = leases.iter().map(|lease| lease.tenant.conn).collect();
            leases.into_iter().for_each(|lease| self.engine.put_back(lease));
            names
        }
    }

    #[test]
    fn a_raised_cap_lets_more_rest_than_the_lanes_were_made_for() {
        for lifo in [0, 1] {
            let mut rig = Rig::new(GroupLimits { max_idle: 1, lifo, ..GroupLimits::DEFAULT });
            rig.limits.max_idle = 20;
            rig.engine.resize(&rig.seats, &rig.limits, NOW);
            let leases: Vec<_> = (0..20).map(|name| rig.open(name)).collect();
            leases.into_iter().for_each(|lease| rig.engine.give_back(lease, NOW));
            for _ in 0..3 {
                let mut names = rig.names();
                names.sort_unstable();
                assert_eq!(names, (0..20).collect::<Vec<_>>());
            }
            assert_eq!(rig.engine.counts(rig.group()).idle, 20);
        }
    }

    #[test]
    fn what_is_retained_keeps_its_order() {
        for (lifo, expected) in [(0, vec![0, 2, 4]), (1, vec![4, 2, 0])] {
            let rig = Rig::new(GroupLimits { lifo, ..GroupLimits::DEFAULT });
            let leases: Vec<_> = (0..6).map(|name| rig.open(name)).collect();
            leases.into_iter().for_each(|lease| rig.engine.give_back(lease, NOW));
            let ended = rig.engine.retain(rig.group(), |tenant| tenant.conn % 2 == 0);
            assert_eq!((ended, rig.engine.counts(rig.group()).idle), (3, 3));
            assert_eq!(rig.names(), expected);
        }
    }

    #[test]
    fn a_lowered_cap_closes_what_rests_above_it() {
        let mut rig = Rig::new(GroupLimits::DEFAULT);
        let leases: Vec<_> = (0..6).map(|name| rig.open(name)).collect();
        leases.into_iter().for_each(|lease| rig.engine.give_back(lease, NOW));
        rig.limits.max_idle = 2;
        rig.engine.resize(&rig.seats, &rig.limits, NOW);
        assert_eq!(rig.engine.counts(rig.group()).idle, 2);
        let closes = core::iter::from_fn(|| rig.engine.next_duty(S0)).count();
        assert_eq!(closes, 4);
    }
}
