//! The ends of a connection: by its user, its peer, the sweep, or the close of its group.

use super::{
    CloseReason, Doomed, Duty, Engine, Group, HangUp, Lease, Place, ShardId, SlotIndex, Tenant,
    line::ANYWHERE,
};
use crate::{
    clock::Tick,
    sync::{Ordering, fence},
};

impl<T, E, K> Engine<T, E, K> {
    /// Ends a connection.
    pub fn discard(&self, lease: Lease<T, E, K>, reason: CloseReason) {
        self.slot(lease.shard(), lease.index).discard();
        self.doom(lease.index, lease.tenant, reason);
    }

    /// Takes a connection out of the pool for good. Its permit comes back when the driver has
    /// ended the watch.
    pub fn detach(&self, lease: Lease<T, E, K>) -> T {
        let shard = lease.shard();
        self.slot(shard, lease.index).discard();
        let Tenant { conn, seat, .. } = lease.tenant;
        let place = Place { seat, index: lease.index, reason: CloseReason::Detached, permit: true };
        self.charge(shard, Duty::Close(Doomed { conn: None, place }));
        conn
    }

    /// The watch saw the peer of a slot go. The caller is the slot's driver and knows that the
    /// connection it watched is the one in the slot.
    pub fn hang_up(&self, shard: ShardId, index: SlotIndex) {
        if let HangUp::Idle(tenant) = self.slot(shard, index).hang_up() {
            self.unrest(&tenant);
            self.doom(index, tenant, CloseReason::PeerClosed);
        }
    }

    /// Nobody watches a shard's connections any more: ends those at rest, and marks the others,
    /// as if every peer had gone.
    pub fn hang_up_all(&self, shard: ShardId) {
        for (index, _) in self.shards[shard.get()].slab.iter() {
            self.hang_up(shard, index);
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
    pub fn vacate(&self, place: Place<T, E, K>) {
        let Place { seat, index, reason, permit } = place;
        let slab = &self.shards[seat.shard.get()].slab;
        slab.slot(index).vacate();
        slab.release(index);
        seat.group.lane(seat.shard).counters.closed(reason);
        if permit {
            seat.group.permits.put();
        }
        self.dial_if_needed(&seat);
    }

    /// Closes a group for good: waiters fail, what rests is closed now, what is in use when it
    /// comes back.
    pub fn close(&self, group: &Group<T, E, K>) {
        if group.demand.close() {
            // SeqCst: pairs with the fences in `give_back` and `wait`: what came to rest or into
            // line before them is seen here; what comes after sees the mark.
            fence(Ordering::SeqCst);
            self.settle(group, group.first, ANYWHERE);
        }
    }

    pub(super) fn doom(&self, index: SlotIndex, tenant: Tenant<T, E, K>, reason: CloseReason) {
        let Tenant { conn, seat, .. } = tenant;
        let shard = seat.shard;
        let place = Place { seat, index, reason, permit: true };
        self.charge(shard, Duty::Close(Doomed { conn: Some(conn), place }));
    }
}
