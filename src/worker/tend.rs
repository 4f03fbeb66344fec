//! What a shard does a few times a second: end what is old, ask what is quiet, tend its groups.

use std::sync::Arc;

use tokio::time::timeout;

use super::Worker;
use crate::{
    Connector, PoolEvent, clock,
    engine::{NEVER, ShardId},
    inner::{Inner, PoolLease, PoolSeat},
    leaks::Leak,
    policy::millis,
};

impl<C: Connector> Worker<C> {
    pub(super) fn sweep(&mut self) {
        while self.chores.try_join_next().is_some() {}
        let now = self.now();
        let mut quiet = Vec::new();
        self.inner.engine.sweep(self.shard, now, &mut quiet);
        // All in guards before the first is asked: a lease that is dropped is lost.
        let asked = |lease| Asked { inner: Arc::clone(&self.inner), lease: Some(lease) };
        let quiet: Vec<Asked<C>> = quiet.into_iter().map(asked).collect();
        for asked in quiet {
            self.ping(asked);
        }
        self.retire(clock::now());
        self.tend();
        self.look_for_leaks();
    }

    /// Whether there is something to tend although the shard has no connection.
    pub(super) fn wants_tending(&self) -> bool {
        let inner = &self.inner;
        inner.groups().iter().filter_map(|seats| seats.to_tend(self.shard)).any(|seats| {
            let group = seats[0].group();
            inner.engine.wants_tending(group)
        })
    }

    /// Looks after the groups that call this shard home.
    fn tend(&mut self) {
        let (inner, now) = (Arc::clone(&self.inner), self.now());
        if self.shard == ShardId(0) {
            inner.engine.tend_totals(now);
        }
        for group in inner.groups() {
            let Some(seats) = group.to_tend(self.shard) else {
                continue;
            };
            inner.engine.tend(seats, now);
            // Nobody asks for a name that nobody is connected to; the next dial does.
            let tended = seats[0].group();
            if tended.key().names().is_some_and(|names| names.is_due(clock::now()))
                && inner.engine.counts(tended).live > 0
            {
                self.refresh(&seats[0]);
            }
        }
    }

    /// Wakes the shard that tends a connection's group, if it sleeps.
    pub(super) fn rouse_home(&self, seat: &PoolSeat<C>) {
        if C::SHARD_LOCAL {
            return;
        }
        let home = seat.group().key().home();
        if home != self.shard {
            self.inner.rouse(home);
        }
    }

    /// Asks a connection that has been quiet whether it lives.
    fn ping(&mut self, mut asked: Asked<C>) {
        self.chores.spawn_local(async move {
            let inner = Arc::clone(&asked.inner);
            let Some(lease) = asked.lease.as_mut() else {
                return;
            };
            let within = lease.seat().group().key().policy().settings.health.ping_timeout_ms;
            let answer =
                timeout(millis(within), inner.connector.ping(&mut lease.tenant.conn)).await;
            let now = inner.clock(lease.shard()).now();
            // While the guard has the lease: who logs it, and the error's text, may panic.
            if let Ok(Err(error)) = &answer {
                tracing::debug!(%error, "a ping failed");
            }
            match (answer, asked.lease.take()) {
                (Ok(Ok(())), Some(lease)) => inner.engine.answered(lease, now),
                (Ok(Err(_)), Some(lease)) => inner.engine.unanswered(lease, now),
                // Half an answer may be on its way.
                (Err(_), Some(lease)) => inner.engine.broke_off(lease),
                (_, None) => {}
            }
        });
    }

    /// The process runs out of descriptors: connections at rest give theirs up.
    #[cold]
    pub(super) fn relieve(&self) {
        let resting: usize = self.inner.groups().iter().map(|seats| seats.idle(&self.inner)).sum();
        let closed = self.inner.engine.relieve(resting.div_ceil(RELIEF).min(MOST_RELIEF));
        if closed > 0 {
            tracing::warn!(closed, "out of descriptors: connections at rest were closed");
            self.inner.tell(PoolEvent::DescriptorPressure { closed });
        }
    }

    fn look_for_leaks(&self) {
        let Some(leaks) = self.inner.leaks() else {
            return;
        };
        let after = |slot| {
            let seat = self.peers.seat(slot);
            seat.map_or(NEVER, |seat| seat.group().limits().leak_after_ms())
        };
        leaks.sweep(self.shard, self.now(), after, |leak| self.report(leak));
    }

    fn report(&self, leak: Leak) {
        let Leak { shard, slot, held_ms, location } = leak;
        let Some(seat) = self.peers.seat(slot) else {
            return;
        };
        let (endpoint, held) = (seat.group().key().endpoint(), millis(held_ms));
        let shard = shard.get();
        tracing::warn!(%endpoint, shard, ?held, %location, "a connection is out for long: a leak?");
        self.inner.tell(PoolEvent::LeakSuspected { endpoint, held, location });
    }
}

/// One of so many of the connections at rest is closed when descriptors run short.
const RELIEF: usize = 8;
/// And no more than so many at a time.
const MOST_RELIEF: usize = 64;

/// A lease whose connection is being asked. Dropping it ends the connection.
struct Asked<C: Connector> {
    inner: Arc<Inner<C>>,
    lease: Option<PoolLease<C>>,
}

impl<C: Connector> Drop for Asked<C> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.inner.engine.broke_off(lease);
        }
    }
}
