//! The engine's books, read by somebody who knows that nothing moves meanwhile.
//!
//! For simulations and tests on one thread: the hints of a lane can only be counted by taking them
//! out and putting them back, which callers on other threads would notice.

use super::{
    Engine, Group, ShardId, State,
    hints::Hints,
    slab::{Hint, SlotIndex},
};

/// How many slots of all shards are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Nobody's.
    pub vacant: usize,
    /// A dial is under way.
    pub dialing: usize,
    /// A lease owns the connection.
    pub in_use: usize,
    /// At rest.
    pub idle: usize,
    /// On its way out.
    pub closing: usize,
}

/// What a group has out, and under which limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupAudit {
    /// Connections at rest, and how many may be.
    pub idle: u32,
    /// The cap on them.
    pub max_idle: u32,
    /// Permits out: connections, dials and closes.
    pub pooled: u32,
    /// How many may be.
    pub max_live: u32,
    /// Permits out above `max_live`.
    pub overflow: u32,
    /// How many may be.
    pub max_overflow: u32,
    /// Callers in line.
    pub waiting: u32,
    /// How many may be.
    pub max_waiters: u32,
    /// Dials for those in line, or for nobody yet.
    pub dialing: u32,
    /// Connections made.
    pub opened: u64,
    /// Connections closed.
    pub ended: u64,
    /// It hands out nothing for now.
    pub held: bool,
    /// It was closed.
    pub closed: bool,
    /// No dial can start, for want of a permit or because the group recovers.
    pub lacks: bool,
}

impl GroupAudit {
    /// Of two groups of one endpoint together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = |one: u32, two: u32| one.saturating_add(two);
        Self {
            idle: sum(self.idle, other.idle),
            max_idle: sum(self.max_idle, other.max_idle),
            pooled: sum(self.pooled, other.pooled),
            max_live: sum(self.max_live, other.max_live),
            overflow: sum(self.overflow, other.overflow),
            max_overflow: sum(self.max_overflow, other.max_overflow),
            waiting: sum(self.waiting, other.waiting),
            max_waiters: sum(self.max_waiters, other.max_waiters),
            dialing: sum(self.dialing, other.dialing),
            opened: self.opened + other.opened,
            ended: self.ended + other.ended,
            held: self.held || other.held,
            closed: self.closed || other.closed,
            lacks: self.lacks || other.lacks,
        }
    }
}

impl<T, E, K> Engine<T, E, K> {
    /// What the slots of all shards are at.
    pub fn audit_slots(&self) -> SlotCounts {
        let mut counts = SlotCounts::default();
        for (_, slot) in self.shards.iter().flat_map(|shard| shard.slab.iter()) {
            *match slot.state() {
                State::Vacant => &mut counts.vacant,
                State::Dialing => &mut counts.dialing,
                State::InUse => &mut counts.in_use,
                State::Idle => &mut counts.idle,
                State::Closing => &mut counts.closing,
            } += 1;
        }
        counts
    }

    /// Shards whose driver has something to do that it has not taken on.
    pub fn audit_duties(&self) -> usize {
        self.shards.iter().filter(|shard| !shard.duties.is_empty()).count()
    }

    /// What a group has out.
    pub fn audit_group(&self, group: &Group<T, E, K>) -> GroupAudit {
        let (counts, wanted) = (self.counts(group), group.demand.wanted());
        let lacks = !group.permits.is_free()
            || !group.dials.is_free()
            || !self.totals.are_free()
            // A recovery lets more through as time passes: `tend` sees to that.
            || group.limits.slow_start_ms() != 0;
        GroupAudit {
            idle: counts.idle,
            max_idle: group.limits.max_idle(),
            pooled: group.permits.live(),
            max_live: group.permits.limit(),
            overflow: group.overflow.live(),
            max_overflow: group.overflow.limit(),
            waiting: counts.waiting,
            max_waiters: group.limits.max_waiters(),
            dialing: counts.dialing,
            opened: counts.opened,
            ended: counts.closed.iter().sum(),
            held: wanted.held,
            closed: wanted.closed,
            lacks,
        }
    }

    /// INV-3: every slot at rest has one valid hint, in its own shard's lane of one of `groups`,
    /// and no other slot has any.
    ///
    /// # Errors
    /// Which slot has how many instead.
    pub fn audit_hints<'a>(
        &self,
        groups: impl Iterator<Item = &'a Group<T, E, K>>,
    ) -> Result<(), String>
    where
        T: 'a,
        E: 'a,
        K: 'a,
    {
        let slots = |shard: ShardId| self.shards[shard.get()].slab.capacity();
        let mut found: Vec<Vec<u32>> =
            (0..self.shards.len() as u16).map(|shard| vec![0; slots(ShardId(shard))]).collect();
        for group in groups {
            for shard in group.shards_from(group.first) {
                let lane = group.lane(shard);
                for hint in all(&lane.hints).into_iter().chain(drain(&lane.spill)) {
                    if self.slot(shard, hint.index()).is_resting(hint.period()) {
                        found[shard.get()][hint.index().get()] += 1;
                    }
                }
            }
        }
        for (shard, found) in found.iter().enumerate() {
            for (index, hints) in found.iter().enumerate() {
                let slot = self.slot(ShardId(shard as u16), SlotIndex::new(index as u32));
                let wanted = u32::from(slot.state() == State::Idle);
                if *hints != wanted {
                    let state = slot.state();
                    return Err(format!("slot {index} of shard {shard}: {state:?}, {hints} hints"));
                }
            }
        }
        Ok(())
    }
}

/// The hints of a lane, which are there as before afterwards.
fn all(hints: &Hints) -> Vec<Hint> {
    let found: Vec<Hint> = core::iter::from_fn(|| hints.pop()).collect();
    let again: Box<dyn Iterator<Item = &Hint>> = match hints {
        Hints::Fifo(_) => Box::new(found.iter()),
        Hints::Lifo(_) => Box::new(found.iter().rev()),
    };
    for hint in again {
        let pushed = hints.push(*hint);
        debug_assert!(pushed.is_ok(), "a hint came out of this very place");
    }
    found
}

/// The hints that found no place in the lane, which are there as before afterwards.
fn drain(spill: &super::ring::Inbox<Hint>) -> Vec<Hint> {
    let found: Vec<Hint> = core::iter::from_fn(|| spill.pop()).collect();
    found.iter().for_each(|hint| spill.push(*hint));
    found
}
