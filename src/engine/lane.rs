//! A group's idle connections on one shard.

use crossbeam_utils::CachePadded;

use super::{
    credits::{Account, HasAccount},
    hints::{Hints, Order},
    ring::Inbox,
    slab::Hint,
    stats::{Count, LaneCounters},
};
use crate::sync::{Arc, Setting};

/// Hints of where a group's idle connections on one shard are, how many those are, and the shard's
/// own counters.
///
/// In this order: a hit and a return write the account, the count of hits and the hints, and with
/// few connections at rest all of it stands in the first two cache lines.
#[derive(Debug)]
#[repr(C)]
pub struct Lane {
    pub(super) account: Account,
    /// Callers of this shard that were served by a connection that was there already.
    pub(super) reused: Count,
    pub(super) hints: Hints,
    /// Whether there ever was a hint in `spill`, odd; a lane without looks no further.
    pub(super) spilled: Setting,
    /// Hints of live connections that found no place there: only after `max_idle` was raised.
    pub(super) spill: Inbox<Hint>,
    pub(super) counters: LaneCounters,
}

/// A lane, for the group and for the seat on its shard.
pub(super) type SharedLane = Arc<CachePadded<Lane>>;

impl Lane {
    /// A lane with room for so many hints.
    pub(super) fn new(order: Order, hints: usize) -> Self {
        Self {
            account: Account::new(),
            reused: Count::default(),
            hints: Hints::new(order, hints),
            spilled: Setting::new(0),
            spill: Inbox::new(),
            counters: LaneCounters::default(),
        }
    }

    /// The next hint: live ones first where they belong, then those that found no place there.
    #[inline(always)] // as for `Engine::take_from`
    pub(super) fn next_hint(&self) -> Option<Hint> {
        match self.hints.pop() {
            None if self.spilled.get() != 0 => self.spill.pop(),
            hint => hint,
        }
    }
}

impl HasAccount for SharedLane {
    #[inline]
    fn account(&self) -> &Account {
        &self.account
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::engine::fifo::Fifo;

    /// With as many places near as the product has.
    #[test]
    fn what_a_hit_touches_of_a_lane_stands_in_two_cache_lines() {
        const LINE: usize = 64;
        // The word that tells the order stands before the hints.
        let hints = offset_of!(Lane, hints) + size_of::<u64>();
        assert!(hints + size_of::<Fifo<8>>() <= 2 * LINE);
        assert!(align_of::<CachePadded<Lane>>() >= 2 * LINE || cfg!(not(target_arch = "x86_64")));
    }
}
