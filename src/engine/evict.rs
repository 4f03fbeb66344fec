//! Eviction: the connection that rests longest anywhere makes room.

use std::collections::BinaryHeap;

use super::{
    CloseReason, Engine, Generation, ShardId, credits::Credits, ring::Ring, slab::Hint,
    totals::Lack,
};
use crate::{clock::Tick, sync::Setting};

/// The connections that rested longest when somebody last looked, oldest first.
///
/// A look passes over every slot, so it keeps the oldest few of what it saw. One of them that
/// still rests is still older than all that came to rest since and than all that were not among
/// the oldest, so the order holds until they are used up.
#[derive(Debug)]
pub(super) struct Oldest {
    seen: Ring<(ShardId, Hint)>,
    /// When somebody last looked for room and nothing rested, in units of [`QUIET_MS`] and one
    /// more; zero for never.
    in_vain: Setting,
}

/// For so long after a look in vain nobody looks again who only wants room: callers that miss at
/// the pool's limit would pass over every slot each time.
const QUIET_MS: u32 = 8;

/// How many a look keeps.
const KEPT: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };

impl Oldest {
    pub(super) fn new() -> Self {
        Self { seen: Ring::new(KEPT), in_vain: Setting::new(0) }
    }
}

impl<T, E, K> Engine<T, E, K> {
    /// Closes the connection that rests longest, of whatever group. `false` when none rests.
    #[cold]
    #[inline(never)]
    pub fn evict_oldest(&self, reason: CloseReason) -> bool {
        loop {
            while let Some((shard, hint)) = self.oldest.seen.pop() {
                if let Some(tenant) = self.slot(shard, hint.index()).expire(hint.period()) {
                    self.unrest(&tenant);
                    self.doom(hint.index(), *tenant, reason);
                    return true;
                }
            }
            if !self.look_for_oldest() {
                return false;
            }
        }
    }

    /// As [`Self::evict_oldest`], for who comes often and to whom a few milliseconds are nothing.
    pub(super) fn evict_oldest_soon(&self, now: Tick) {
        let unit = now.as_millis() / QUIET_MS + 1;
        if self.oldest.in_vain.get() != unit && !self.evict_oldest(CloseReason::Evicted) {
            self.oldest.in_vain.set(unit);
        }
    }

    /// A connection may have come to rest: if a group starves, it looks again and, if it needs a
    /// dial still, the connection that rests longest makes room. To be called after a fence that
    /// follows the rest.
    #[inline]
    pub(super) fn make_room_if_wanted(&self, now: Tick) {
        if self.totals.is_room_wanted() {
            self.make_room_for_starving(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn make_room_for_starving(&self, now: Tick) {
        // There is something to find now.
        self.oldest.in_vain.set(0);
        for _ in 0..FEED_AT_ONCE {
            let Some(seat) = self.totals.next_starving() else {
                return;
            };
            // It lines up again and evicts, or needs nothing any more.
            if self.dial_for(&seat, now, &mut false) == Some(Lack::Total) {
                // Unless somebody looked in vain just before the rest and says so just after.
                if self.totals.is_room_wanted() {
                    self.evict_oldest(CloseReason::Evicted);
                }
                return;
            }
        }
    }

    /// Room for one more at rest, where the whole pool is at its cap.
    #[cold]
    #[inline(never)]
    pub(super) fn make_way(&self, total: &Credits, shard: ShardId) -> bool {
        // Somebody else may take what we free; then theirs rests and, at worst, ours does not.
        (0..TRIES).any(|_| self.evict_oldest(CloseReason::Evicted) && total.take(shard.get()))
    }

    /// Whether there was anything to keep.
    fn look_for_oldest(&self) -> bool {
        let mut origin = None;
        let mut oldest = BinaryHeap::with_capacity(KEPT + 1);
        for (id, shard) in self.shards.iter().enumerate() {
            for (index, slot) in shard.slab.iter() {
                let Some((period, since)) = slot.resting_since() else {
                    continue;
                };
                let from = *origin.get_or_insert_with(|| since.long_before());
                oldest.push((since.since(from), id, index, period.bits()));
                if oldest.len() > KEPT {
                    oldest.pop();
                }
            }
        }
        let any = !oldest.is_empty();
        for (_, id, index, period) in oldest.into_sorted_vec() {
            let hint = Hint::new(index, Generation::from_bits(period));
            // Another look beside this one may have filled it: then that one's are as good.
            if self.oldest.seen.push((ShardId(id as u16), hint)).is_err() {
                break;
            }
        }
        any
    }
}

/// How often a return tries for room.
const TRIES: usize = 4;

/// Groups looked after by one that gave a permit back.
pub(super) const FEED_AT_ONCE: usize = 64;
