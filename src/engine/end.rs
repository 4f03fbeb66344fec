//! The ends of a connection: by its user, its peer, or the close of its group.

use super::{
    CloseReason, Doomed, Duty, Engine, Group, HangUp, Lease, Place, ShardId, Slot, SlotIndex,
    Tenant, line::ANYWHERE,
};
use crate::{
    clock::Tick,
    sync::{Ordering, fence},
};

impl<T, E, K> Engine<T, E, K> {
    /// Ends a connection, for this reason, or for that for which it was given up before.
    pub fn discard(&self, lease: Lease<T, E, K>, reason: CloseReason) {
        let slot = self.slot(lease.shard(), lease.index);
        let dead = slot.discard();
        let group = &lease.tenant.seat.group;
        let reason = if dead { self.cause_of_death(slot, group) } else { reason };
        self.doom(lease.index, *lease.tenant, reason);
    }

    /// Takes a connection out of the pool for good. Its permit comes back when the driver has
    /// ended the watch.
    pub fn detach(&self, lease: Lease<T, E, K>) -> T {
        let shard = lease.shard();
        self.slot(shard, lease.index).discard();
        let Tenant { conn, seat, class, opened, uses, .. } = *lease.tenant;
        let (index, permit, life) = (lease.index, Some(class), (opened, uses));
        self.totals.leaving(&seat.group, class);
        let place = Place { seat, index, reason: CloseReason::Detached, life, permit };
        self.charge(shard, Duty::Close(Doomed { conn: None, place }));
        conn
    }

    /// A connection is given up: its peer was seen to go, or its owner wants it gone. At rest it
    /// is closed now, in use when it comes back. The caller is the slot's driver and knows that
    /// the connection it means is the one in the slot.
    pub fn hang_up(&self, shard: ShardId, index: SlotIndex, reason: CloseReason, now: Tick) {
        if let HangUp::Idle(tenant) = self.slot(shard, index).hang_up(reason as u32, now) {
            self.unrest(&tenant);
            if reason == CloseReason::PeerReset {
                tenant.seat.group.suspect(now);
            }
            self.doom(index, *tenant, reason);
        }
    }

    /// The driver has closed a connection: its slot and permit come back.
    pub fn vacate(&self, place: Place<T, E, K>, now: Tick) {
        let Place { seat, index, reason, permit, .. } = place;
        let slab = &self.shards[seat.shard.get()].slab;
        slab.slot(index).vacate();
        slab.release(index);
        seat.group.lane(seat.shard).counters.closed(reason);
        if reason == CloseReason::Evicted {
            self.totals.note_leaving(false);
        }
        if let Some(class) = permit {
            self.totals.closed(&seat.group, class);
        }
        self.dial_if_needed(&seat, now);
        self.feed(now);
    }

    /// Closes a group for good: waiters fail, what rests is closed now, what is in use when it
    /// comes back.
    pub fn close(&self, group: &Group<T, E, K>) {
        if group.demand.close() {
            // SeqCst: pairs with the fences in `come_back` and `wait`: what came to rest or into
            // line before them is seen here; what comes after sees the mark.
            fence(Ordering::SeqCst);
            self.settle(group, group.first, ANYWHERE);
        }
    }

    pub(super) fn doom(&self, index: SlotIndex, tenant: Tenant<T, E, K>, reason: CloseReason) {
        let Tenant { conn, seat, class, opened, uses, .. } = tenant;
        let shard = seat.shard;
        if reason == CloseReason::Evicted {
            self.totals.note_leaving(true);
        }
        self.totals.leaving(&seat.group, class);
        let place = Place { seat, index, reason, life: (opened, uses), permit: Some(class) };
        self.charge(shard, Duty::Close(Doomed { conn: Some(conn), place }));
    }

    /// Why a dead connection was given up, and since when its siblings are suspect.
    #[cold]
    fn cause_of_death(
        &self,
        slot: &Slot<Box<Tenant<T, E, K>>>,
        group: &Group<T, E, K>,
    ) -> CloseReason {
        let (reason, since) = slot.verdict();
        let reason = CloseReason::ALL.get(reason as usize).copied();
        let reason = reason.unwrap_or(CloseReason::PeerClosed);
        if reason == CloseReason::PeerReset {
            group.suspect(since);
        }
        reason
    }
}
