//! The state of one endpoint: a lane on every shard and what all of them share.

use crossbeam_utils::CachePadded;

use super::{
    credits::Credits, demand::Demand, lease::Lease, permits::Permits, ring::Ring, slab::Hint,
    stats::LaneCounters, waiters::Waiters,
};
use crate::sync::Arc;

/// Which shard of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The id as an index.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// The limits of a group, checked before they get here.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    /// Connections at once, dials and closes included.
    pub max_live: u32,
    /// Connections at rest at once.
    pub max_idle: u32,
    /// Callers that may wait at once.
    pub max_waiters: u32,
    /// How long a connection may rest, in milliseconds.
    pub idle_timeout_ms: u32,
}

/// One endpoint's share of the engine.
#[derive(Debug)]
pub struct Group<T, E, K = ()> {
    key: K,
    pub(super) first: ShardId,
    pub(super) lanes: Box<[CachePadded<Lane>]>,
    pub(super) credits: Credits,
    pub(super) permits: Permits,
    pub(super) demand: Demand,
    pub(super) waiters: Waiters<Outcome<T, E, K>>,
    pub(super) limits: GroupLimits,
}

/// A group's idle connections on one shard: a queue of hints, and the shard's own counters.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) hints: Ring<Hint>,
    pub(super) counters: LaneCounters,
}

/// What a waiting caller is handed.
#[derive(Debug)]
pub enum Outcome<T, E, K = ()> {
    /// A connection.
    Ready(Lease<T, E, K>),
    /// A dial failed, for this cause.
    Failed(E),
    /// The dial's shard has no vacant slot.
    Exhausted,
    /// The group was closed.
    Closed,
}

/// A group's reference on one shard: what a resting connection holds.
///
/// A checkout and a return touch the count of this reference, which is the shard's own cache
/// line, and not the count of the group, which all shards share.
#[derive(Debug)]
pub struct Seat<T, E, K = ()> {
    pub(super) group: Arc<Group<T, E, K>>,
    pub(super) shard: ShardId,
}

#[cfg(any(test, loom, fuzzing))]
impl<T, E> Group<T, E> {
    /// A group with lanes on `shards` shards from `first` on, without a key.
    pub fn new(first: ShardId, shards: usize, limits: GroupLimits) -> Self {
        Self::with_key((), first, shards, limits)
    }
}

impl<T, E, K> Group<T, E, K> {
    /// A group of an endpoint that its owner knows by `key`.
    pub fn with_key(key: K, first: ShardId, shards: usize, limits: GroupLimits) -> Self {
        // Twice the cap: at least half of a full ring is stale, so making room finds a stale
        // hint soon. Capped, because a lane seldom holds all that the group may rest.
        let hints = (2 * limits.max_idle as usize).clamp(MIN_HINTS, MAX_HINTS);
        let lane = || Lane { hints: Ring::new(hints), counters: LaneCounters::default() };
        Self {
            key,
            first,
            lanes: (0..shards).map(|_| CachePadded::new(lane())).collect(),
            credits: Credits::new(shards, limits.max_idle),
            permits: Permits::new(limits.max_live),
            demand: Demand::new(),
            waiters: Waiters::new(),
            limits,
        }
    }

    /// A seat on each shard that the group has a lane on.
    pub fn seats(group: &Arc<Self>) -> Box<[Arc<Seat<T, E, K>>]> {
        (0..group.lanes.len())
            .map(|lane| {
                let shard = ShardId(group.first.0 + lane as u16);
                Arc::new(Seat { group: Arc::clone(group), shard })
            })
            .collect()
    }

    #[inline]
    pub(super) fn lane_index(&self, shard: ShardId) -> usize {
        usize::from(shard.0 - self.first.0)
    }

    #[inline]
    pub(super) fn lane(&self, shard: ShardId) -> &Lane {
        &self.lanes[self.lane_index(shard)]
    }

    /// The group's lanes as shards, from one on and round.
    pub(super) fn shards_from(&self, first: ShardId) -> impl Iterator<Item = ShardId> {
        let (base, lanes, start) = (self.first.0, self.lanes.len(), self.lane_index(first));
        (0..lanes).map(move |step| ShardId(base + ((start + step) % lanes) as u16))
    }

    /// The endpoint that this is the group of, in its owner's terms.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<T, E, K> Seat<T, E, K> {
    /// The group.
    pub fn group(&self) -> &Arc<Group<T, E, K>> {
        &self.group
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

const MIN_HINTS: usize = if cfg!(any(test, loom, fuzzing)) { 2 } else { 16 };
const MAX_HINTS: usize = 1 << 16;
