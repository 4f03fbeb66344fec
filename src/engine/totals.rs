//! The limits of a whole pool, and the groups that they keep from a dial.

use super::{
    credits::Credits,
    group::{Group, Seat},
    lease::Class,
    permits::Permits,
    ring::Inbox,
};
use crate::{
    clock::Tick,
    sync::{Arc, AtomicU32, Ordering, fence},
};

/// How much all groups of an engine may have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalLimits {
    /// Connections at once, dials and closes included.
    pub max_live: Option<u32>,
    /// Connections at rest at once, exact over all shards.
    pub max_idle: Option<u32>,
    /// Dials at once.
    pub max_dialing: Option<u32>,
}

/// The same, counted.
///
/// A group that one of these permits is missing for stands in the queue of the starving. Who gives
/// such a permit back takes the first out and looks after its callers.
#[derive(Debug)]
pub struct Totals<T, E, K> {
    /// Where there is no limit nothing is counted: shards that dial then share no count.
    pub(super) live: Option<Permits>,
    pub(super) dials: Option<Permits>,
    /// Accounts by shard.
    pub(super) idle: Option<Credits>,
    starving: Inbox<Arc<Seat<T, E, K>>>,
    /// How many groups stand in that queue.
    hungry: AtomicU32,
    /// Connections on their way out to make room.
    leaving: AtomicU32,
}

/// Which permit a dial could not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// One to live, of the group.
    Live,
    /// One to dial, of the group.
    Dial,
    /// One of the pool's.
    Total,
}

impl<T, E, K> Totals<T, E, K> {
    pub(super) fn new(shards: usize, limits: &TotalLimits) -> Self {
        Self {
            live: limits.max_live.map(Permits::new),
            dials: limits.max_dialing.map(Permits::new),
            idle: limits.max_idle.map(|cap| Credits::alone(shards, cap)),
            starving: Inbox::new(),
            hungry: AtomicU32::new(0),
            leaving: AtomicU32::new(0),
        }
    }

    /// Whether a starving group may hope.
    pub(super) fn are_free(&self) -> bool {
        is_free(&self.live) && is_free(&self.dials)
    }

    /// The group that starves longest.
    pub(super) fn next_starving(&self) -> Option<Arc<Seat<T, E, K>>> {
        let seat = self.starving.pop()?;
        // Relaxed: a count that only tempers evictions, here and below.
        self.hungry.fetch_sub(1, Ordering::Relaxed);
        // AcqRel: the group may line up again from here on; pairs with the swap in `starve`.
        seat.group.starving.swap(false, Ordering::AcqRel);
        Some(seat)
    }

    fn starve(&self, seat: &Arc<Seat<T, E, K>>) {
        // AcqRel: once in the queue is enough; see `next_starving`.
        if !seat.group.starving.swap(true, Ordering::AcqRel) {
            self.hungry.fetch_add(1, Ordering::Relaxed);
            self.starving.push(Arc::clone(seat));
        }
    }

    /// Lets go of the groups that starve: nobody will dial any more.
    pub(super) fn forget_starving(&self) {
        while self.next_starving().is_some() {}
    }

    /// Whether fewer connections are on their way out than dials want to begin: `need` of a group
    /// that starves, and one at least of each other that does.
    pub(super) fn lacks_room(&self, need: u32) -> bool {
        let others = self.hungry.load(Ordering::Relaxed).saturating_sub(1);
        self.leaving.load(Ordering::Relaxed) < others.saturating_add(need)
    }

    /// Whether a connection that rests should make room: a group starves, no more may live, and
    /// fewer are on their way out than groups starve.
    #[inline]
    pub(super) fn is_room_wanted(&self) -> bool {
        let Some(live) = &self.live else {
            return false;
        };
        // Relaxed: who asks has put a fence before; pairs with the one in `permit` and with that in
        // `feed`, which follows the end of each that leaves.
        let hungry = self.hungry.load(Ordering::Relaxed);
        self.leaving.load(Ordering::Relaxed) < hungry && !live.is_free()
    }

    /// A connection is on its way out to make room, or was.
    pub(super) fn note_leaving(&self, leaves: bool) {
        if leaves {
            self.leaving.fetch_add(1, Ordering::Relaxed);
        } else {
            self.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many are on their way out to make room.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub(super) fn leaving_for_room(&self) -> u32 {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether one more connection may rest, as far as the pool is concerned.
    pub(super) fn may_rest(&self) -> bool {
        self.idle.as_ref().is_none_or(|idle| !idle.is_full())
    }

    /// Whether one more connection may live, as far as the pool is concerned.
    pub(super) fn may_live(&self) -> bool {
        is_free(&self.live)
    }

    /// Whether any of the pool's permits is counted.
    pub(super) fn are_limited(&self) -> bool {
        self.live.is_some() || self.dials.is_some()
    }

    fn take(&self) -> bool {
        if !take(&self.live) {
            return false;
        }
        if take(&self.dials) {
            return true;
        }
        put(&self.live);
        false
    }

    /// The permits of a dial: to live and to dial, of the group and of the pool. All or none.
    ///
    /// What was taken before the one that lacks is put back, and may have been missed meanwhile by
    /// somebody else. So: put back, fence, look at what lacked. Either it is free now, and we try
    /// again; or whoever gives it back later looks after the group, and finds ours back.
    pub(super) fn permit(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        class: Class,
        now: Tick,
    ) -> Result<DialPermit, Lack> {
        self.permit_below(seat, class, u32::MAX, now)
    }

    /// The same, where fewer than `most` connections of the group live.
    pub(super) fn permit_below(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        class: Class,
        most: u32,
        now: Tick,
    ) -> Result<DialPermit, Lack> {
        let group = &*seat.group;
        let lives = group.lives(class);
        loop {
            // A group that recovers may have fewer; the next look after it is `tend`'s.
            let most = group.allowed(now).min(most);
            let lack = if !lives.take_below(most) {
                Lack::Live
            } else {
                let capped = group.dials.is_limited();
                if capped && !group.dials.take() {
                    lives.put();
                    Lack::Dial
                } else if !self.take() {
                    if capped {
                        group.dials.put();
                    }
                    lives.put();
                    self.starve(seat);
                    Lack::Total
                } else {
                    return Ok(DialPermit { capped });
                }
            };
            // SeqCst: see above; pairs with itself and with the fence in `dial_if_needed`, which
            // everybody calls who gave a permit back.
            fence(Ordering::SeqCst);
            let free = match lack {
                Lack::Live => lives.is_free() && lives.live() < most,
                Lack::Dial => group.dials.is_free(),
                Lack::Total => self.are_free(),
            };
            if !free {
                return Err(lack);
            }
        }
    }

    /// A permit to dial for what takes a connection's place: one more than may be, at worst.
    pub(super) fn permit_anyway(&self, group: &Group<T, E, K>) -> DialPermit {
        let capped = group.dials.is_limited();
        if capped {
            group.dials.take_anyway();
        }
        if let Some(dials) = &self.dials {
            dials.take_anyway();
        }
        DialPermit { capped }
    }

    /// The dial is over: the permits to dial come back.
    pub(super) fn dial_over(&self, group: &Group<T, E, K>, permit: DialPermit) {
        if permit.capped {
            group.dials.put();
        }
        put(&self.dials);
    }

    /// A connection is about to be closed: [`Self::closed`] follows.
    pub(super) fn leaving(&self, group: &Group<T, E, K>, class: Class) {
        group.lives(class).leave();
        if let Some(live) = &self.live {
            live.leave();
        }
    }

    /// A connection is closed: the permits to live come back.
    pub(super) fn closed(&self, group: &Group<T, E, K>, class: Class) {
        group.lives(class).put_closed();
        if let Some(live) = &self.live {
            live.put_closed();
        }
    }

    /// A connection never came to be: the permits to live come back.
    pub(super) fn gone(&self, group: &Group<T, E, K>, class: Class) {
        group.lives(class).put();
        put(&self.live);
    }
}

/// What a dial holds beside its permit to live. Not counted where the group had no limit when it
/// began, so that a limit that comes later counts none twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct DialPermit {
    capped: bool,
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl DialPermit {
    /// Whether the group's limit counts it.
    pub(super) fn is_capped(self) -> bool {
        self.capped
    }
}

fn is_free(permits: &Option<Permits>) -> bool {
    permits.as_ref().is_none_or(Permits::is_free)
}

fn take(permits: &Option<Permits>) -> bool {
    permits.as_ref().is_none_or(Permits::take)
}

fn put(permits: &Option<Permits>) {
    if let Some(permits) = permits {
        permits.put();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::engine::{GroupLimits, ShardId};

    type Groups = Totals<(), (), ()>;

    /// Seats of groups with nothing in common.
    fn seats<const N: usize>() -> [Arc<Seat<(), ()>>; N] {
        core::array::from_fn(|_| {
            let group = Arc::new(Group::new(ShardId(0), 1, GroupLimits::default()));
            Arc::clone(&Group::seats(&group)[0])
        })
    }

    #[test]
    fn room_is_wanted_while_more_groups_starve_than_connections_leave() {
        let limits = TotalLimits { max_live: Some(1), ..TotalLimits::default() };
        let totals = Groups::new(1, &limits);
        let [one, two] = seats();
        assert!(!totals.is_room_wanted(), "nobody starves");
        totals.starve(&one);
        assert!(!totals.is_room_wanted(), "one may live");
        assert!(totals.take() && !totals.take());
        assert!(totals.is_room_wanted());
        totals.note_leaving(true);
        assert!(!totals.is_room_wanted(), "one leaves for the one");
        totals.starve(&two);
        assert!(totals.is_room_wanted(), "one leaves for two");
        totals.note_leaving(false);
        assert_eq!(totals.leaving_for_room(), 0);
        totals.forget_starving();
        assert!(totals.next_starving().is_none());
        assert!(!totals.is_room_wanted());
    }

    #[test]
    fn without_a_limit_no_room_is_wanted() {
        let totals = Groups::new(1, &TotalLimits::default());
        let [one] = seats();
        totals.starve(&one);
        assert!(!totals.is_room_wanted());
        assert!(
            !totals.are_limited() && totals.are_free() && totals.may_live() && totals.may_rest()
        );
    }

    #[test]
    fn a_group_stands_once_among_the_starving() {
        let totals = Groups::new(1, &TotalLimits::default());
        let [one, two] = seats();
        for seat in [&one, &two, &one] {
            totals.starve(seat);
        }
        let first = totals.next_starving().expect("two starve");
        assert!(Arc::ptr_eq(&first.group, &one.group));
        totals.starve(&one);
        assert!(totals.lacks_room(1), "two starve and none leaves");
        let mut left = 0;
        while totals.next_starving().is_some() {
            left += 1;
        }
        assert_eq!(left, 2);
    }

    #[test]
    fn room_lacks_for_the_need_of_one_and_one_of_each_other() {
        let totals = Groups::new(1, &TotalLimits::default());
        let [one, two] = seats();
        totals.starve(&one);
        totals.starve(&two);
        totals.note_leaving(true);
        totals.note_leaving(true);
        assert!(!totals.lacks_room(1));
        assert!(totals.lacks_room(2));
        totals.note_leaving(true);
        assert!(!totals.lacks_room(2));
    }

    #[test]
    fn each_limit_is_its_own() {
        let live = TotalLimits { max_live: Some(2), ..TotalLimits::default() };
        let dials = TotalLimits { max_dialing: Some(1), ..TotalLimits::default() };
        let idle = TotalLimits { max_idle: Some(1), ..TotalLimits::default() };
        let [live, dials, idle] = [live, dials, idle].map(|limits| Groups::new(1, &limits));
        assert!(live.are_limited() && dials.are_limited() && !idle.are_limited());
        assert!(live.take() && live.may_live() && live.take() && !live.may_live() && !live.take());
        assert!(!live.are_free() && live.may_rest());
        assert!(dials.take() && !dials.take() && !dials.are_free() && dials.may_live());
        let credits = idle.idle.as_ref().expect("a limit");
        assert!(idle.may_rest() && credits.take(0) && !idle.may_rest() && idle.may_live());
    }

    #[test]
    fn a_permit_to_live_without_one_to_dial_is_put_back() {
        let limits = TotalLimits { max_live: Some(5), max_dialing: Some(1), max_idle: None };
        let totals = Groups::new(1, &limits);
        assert!(totals.take() && !totals.take());
        assert_eq!(totals.live.as_ref().map(Permits::live), Some(1));
    }
}
