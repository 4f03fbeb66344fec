//! Counters, kept by each lane for itself and summed on reading.

use crate::sync::{AtomicU64, Ordering};

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it, at rest or in use.
    PeerClosed,
    /// The peer reset it, at rest or in use.
    PeerReset,
    /// Bytes came that nobody had asked for: its next response would be another's.
    UnexpectedBytes,
    /// The caller said so.
    Discarded,
    /// The guard was dropped after I/O without `release()`: its state is unknown.
    Dirty,
    /// It rested longer than the idle timeout.
    IdleTimeout,
    /// It lived as long as a connection may.
    MaxLifetime,
    /// It served as often as a connection may.
    MaxUses,
    /// It did not answer when it was asked whether it lives.
    PingFailed,
    /// It came back while `max_idle` connections were at rest.
    Surplus,
    /// It was above `max_live`, or dialled past an open breaker, and came back.
    Overflow,
    /// It rested longest when the pool had to make room: for the idle cap of the whole pool, for
    /// another endpoint's dial, for descriptors.
    Evicted,
    /// More were at rest than the need of late asks for, or than a lowered limit allows.
    Shrunk,
    /// Its group was evicted, or a predicate did not retain it.
    Purged,
    /// The name of its endpoint does not lead to its peer any more.
    Retired,
    /// The connection itself said that it cannot be used again.
    Unusable,
    /// Nobody watches it any more: its shard's ring failed, or its worker panicked.
    Unwatched,
    /// A caller asked for a fresh connection and this one had to make room for it.
    Replaced,
    /// The pool was closed.
    PoolClosed,
    /// The caller took it out of the pool; it is open still, and not the pool's.
    Detached,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: [Self; 20] = [
        Self::PeerClosed,
        Self::PeerReset,
        Self::UnexpectedBytes,
        Self::Discarded,
        Self::Dirty,
        Self::IdleTimeout,
        Self::MaxLifetime,
        Self::MaxUses,
        Self::PingFailed,
        Self::Surplus,
        Self::Overflow,
        Self::Evicted,
        Self::Shrunk,
        Self::Purged,
        Self::Retired,
        Self::Unusable,
        Self::Unwatched,
        Self::Replaced,
        Self::PoolClosed,
        Self::Detached,
    ];

    /// The reason as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::PeerReset => "peer_reset",
            Self::UnexpectedBytes => "unexpected_bytes",
            Self::Discarded => "discarded",
            Self::Dirty => "dirty",
            Self::IdleTimeout => "idle_timeout",
            Self::MaxLifetime => "max_lifetime",
            Self::MaxUses => "max_uses",
            Self::PingFailed => "ping_failed",
            Self::Surplus => "surplus",
            Self::Overflow => "overflow",
            Self::Evicted => "evicted",
            Self::Shrunk => "shrunk",
            Self::Purged => "purged",
            Self::Retired => "retired",
            Self::Unusable => "unusable",
            Self::Unwatched => "unwatched",
            Self::Replaced => "replaced",
            Self::PoolClosed => "pool_closed",
            Self::Detached => "detached",
        }
    }
}

/// A lane's own counters, but for that of hits, which stands with what else a hit writes.
#[derive(Debug, Default)]
pub(super) struct LaneCounters {
    opened: Count,
    stolen: Count,
    dial_failures: Count,
    closed: [Count; CloseReason::ALL.len()],
}

/// How often something happened.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(super) fn add(&self) {
        // Relaxed: a statistic.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        // Relaxed: a snapshot.
        self.0.load(Ordering::Relaxed)
    }
}

impl LaneCounters {
    pub(super) fn opened(&self) {
        self.opened.add();
    }

    pub(super) fn stolen(&self) {
        self.stolen.add();
    }

    pub(super) fn dial_failed(&self) {
        self.dial_failures.add();
    }

    pub(super) fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].add();
    }

    pub(super) fn add_to(&self, sum: &mut GroupCounts) {
        sum.opened += self.opened.read();
        sum.stolen += self.stolen.read();
        sum.dial_failures += self.dial_failures.read();
        for (sum, count) in sum.closed.iter_mut().zip(&self.closed) {
            *sum += count.read();
        }
    }
}

/// A group's counters summed over its lanes, and its gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Connections made.
    pub opened: u64,
    /// Checkouts served by a connection that was there already.
    pub reused: u64,
    /// Of these, taken from another shard than the caller's.
    pub stolen: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Connections above `max_live`.
    pub overflow: u32,
    /// Connections closed, by [`CloseReason::ALL`].
    pub closed: [u64; CloseReason::ALL.len()],
    /// Connections at rest.
    pub idle: u32,
    /// Connections, dials and closes under way.
    pub live: u32,
    /// Dials under way.
    pub dialing: u32,
    /// Callers that wait.
    pub waiting: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_as_they_are_listed() {
        for (at, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{}", reason.as_str());
        }
    }

    /// Dashboards live off them.
    #[test]
    fn the_labels_of_the_reasons_stay_as_they_are() {
        let labels = CloseReason::ALL.map(CloseReason::as_str).join(" ");
        assert_eq!(
            labels,
            "peer_closed peer_reset unexpected_bytes discarded dirty idle_timeout max_lifetime \
             max_uses ping_failed surplus overflow evicted shrunk purged retired unusable \
             unwatched replaced pool_closed detached"
        );
    }

    #[test]
    fn lanes_are_added_up_each_count_by_itself() {
        let lanes = [LaneCounters::default(), LaneCounters::default()];
        for lane in &lanes {
            (0..1).for_each(|_| lane.opened());
            (0..2).for_each(|_| lane.stolen());
            (0..3).for_each(|_| lane.dial_failed());
            (0..4).for_each(|_| lane.closed(CloseReason::Dirty));
        }
        let mut sum = GroupCounts::default();
        lanes.iter().for_each(|lane| lane.add_to(&mut sum));
        assert_eq!((sum.opened, sum.stolen, sum.dial_failures), (2, 4, 6));
        assert_eq!(sum.closed[CloseReason::Dirty as usize], 8);
        assert_eq!(sum.closed.iter().sum::<u64>(), 8);
    }
}
