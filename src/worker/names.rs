//! Connections to host names: who their peers are, and what becomes of them when a name does not
//! lead there any more.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::time::{Instant, timeout};

use super::Worker;
use crate::{
    CloseReason, Connector, PoolEvent,
    engine::SlotIndex,
    inner::{Inner, PoolSeat},
    policy::millis,
    resolve::{Change, Retirement},
};

/// Of slots with a connection: its group, which may look for leaks one day, and, if it was made by
/// a name and may have to be retired, its peer.
pub(super) struct Peers<C: Connector> {
    /// In order, so that every run of a simulation retires the same ones.
    by_slot: BTreeMap<SlotIndex, (Option<IpAddr>, PoolSeat<C>)>,
    /// Of each group that has connections to retire: how they are spread over time.
    retiring: HashMap<GroupId, Retirement>,
}

/// Tells groups apart on this shard: where the seat of their connections lies.
type GroupId = usize;

impl<C: Connector> Default for Peers<C> {
    fn default() -> Self {
        Self { by_slot: BTreeMap::new(), retiring: HashMap::new() }
    }
}

impl<C: Connector> Peers<C> {
    pub(super) fn met(&mut self, slot: SlotIndex, peer: Option<SocketAddr>, seat: &PoolSeat<C>) {
        self.by_slot.insert(slot, (peer.map(|peer| peer.ip()), Arc::clone(seat)));
    }

    /// Whose connection is in a slot.
    pub(super) fn seat(&self, slot: SlotIndex) -> Option<&PoolSeat<C>> {
        self.by_slot.get(&slot).map(|(_, seat)| seat)
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, slots: &HashSet<SlotIndex>) {
        self.by_slot.retain(|slot, _| slots.contains(slot));
    }

    pub(super) fn forget(&mut self, slot: SlotIndex) {
        self.by_slot.remove(&slot);
    }

    /// The slots whose connections are to be retired now.
    fn due(&mut self, now: Instant) -> Vec<SlotIndex> {
        let mut vanished: HashMap<GroupId, (PoolSeat<C>, Vec<SlotIndex>)> = HashMap::new();
        let mut known: HashMap<GroupId, HashSet<IpAddr>> = HashMap::new();
        for (slot, (peer, seat)) in &self.by_slot {
            let Some(peer) = peer else {
                continue;
            };
            let group = Arc::as_ptr(seat).addr();
            let addresses = known.entry(group).or_insert_with(|| {
                let names = seat.group().key().names();
                let addresses = names.map(|names| names.addresses()).unwrap_or_default();
                addresses.iter().map(SocketAddr::ip).collect()
            });
            if !addresses.contains(peer) {
                let entry = vanished.entry(group);
                entry.or_insert_with(|| (Arc::clone(seat), Vec::new())).1.push(*slot);
            }
        }
        self.retiring.retain(|group, _| vanished.contains_key(group));
        let mut due = Vec::new();
        for (group, (seat, slots)) in vanished {
            let over = millis(seat.group().key().policy().settings.names.retire_over_ms);
            let retirement = self
                .retiring
                .entry(group)
                .or_insert_with(|| Retirement::new(slots.len(), now, over));
            due.extend(slots.iter().take(retirement.due(slots.len(), now)));
        }
        due.sort_unstable();
        // What is retired in use is marked, and not looked at again.
        for slot in &due {
            if let Some((peer, _)) = self.by_slot.get_mut(slot) {
                *peer = None;
            }
        }
        due
    }
}

impl<C: Connector> Worker<C> {
    /// Retires some of the connections to addresses that have vanished.
    pub(super) fn retire(&mut self, now: Instant) {
        if self.peers.by_slot.is_empty() {
            return;
        }
        for slot in self.peers.due(now) {
            self.inner.engine.hang_up(self.shard, slot, CloseReason::Retired, self.now());
        }
    }

    /// Looks a name up again, in the background.
    pub(super) fn refresh(&mut self, seat: &PoolSeat<C>) {
        let (inner, seat) = (Arc::clone(&self.inner), Arc::clone(seat));
        self.chores.spawn_local(async move {
            let key = seat.group().key();
            let Some(names) = key.names() else {
                return;
            };
            // A failure is logged where it happens; the old addresses stay in use. In time, or a
            // resolver that never answers would be the last that was asked.
            let within = seat.group().key().policy().total_timeout();
            let answer = timeout(within, names.look_up(&*inner.parts.resolver)).await;
            if let Ok(Ok((_, Some(change)))) = answer {
                inner.note_change(&seat, &change);
            }
        });
    }
}

impl<C: Connector> Inner<C> {
    /// A name leads elsewhere: says so. Each shard retires its own connections.
    pub(crate) fn note_change(&self, seat: &PoolSeat<C>, change: &Change) {
        let Change { appeared, vanished } = change;
        if appeared.is_empty() && vanished.is_empty() {
            return;
        }
        let endpoint = seat.group().key().endpoint();
        tracing::info!(%endpoint, ?appeared, ?vanished, "the addresses have changed");
        let (added, removed) = (&appeared[..], &vanished[..]);
        self.tell(PoolEvent::AddressesChanged { endpoint, added, removed });
    }
}
