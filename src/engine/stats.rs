//! Counters, kept by each lane for itself and summed on reading.

use crate::sync::{AtomicU64, Ordering};

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed or reset it, at rest or in use.
    PeerClosed,
    /// The caller said so.
    Discarded,
    /// The guard was dropped after I/O without `release()`: its state is unknown.
    Dirty,
    /// It rested longer than the idle timeout.
    IdleTimeout,
    /// It came back while `max_idle` connections were at rest.
    Surplus,
    /// The connection itself said that it cannot be used again.
    Unusable,
    /// A caller asked for a fresh connection and this one had to make room for it.
    Replaced,
    /// The pool was closed.
    PoolClosed,
    /// The caller took it out of the pool; it is open still, and not the pool's.
    Detached,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::PeerClosed,
        Self::Discarded,
        Self::Dirty,
        Self::IdleTimeout,
        Self::Surplus,
        Self::Unusable,
        Self::Replaced,
        Self::PoolClosed,
        Self::Detached,
    ];

    /// The reason as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::Discarded => "discarded",
            Self::Dirty => "dirty",
            Self::IdleTimeout => "idle_timeout",
            Self::Surplus => "surplus",
            Self::Unusable => "unusable",
            Self::Replaced => "replaced",
            Self::PoolClosed => "pool_closed",
            Self::Detached => "detached",
        }
    }
}

/// A lane's own counters.
#[derive(Debug, Default)]
pub(super) struct LaneCounters {
    opened: Count,
    reused: Count,
    stolen: Count,
    dial_failures: Count,
    closed: [Count; CloseReason::ALL.len()],
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    #[inline]
    fn add(&self) {
        // Relaxed: a statistic.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        // Relaxed: a snapshot.
        self.0.load(Ordering::Relaxed)
    }
}

impl LaneCounters {
    pub(super) fn opened(&self) {
        self.opened.add();
    }

    #[inline]
    pub(super) fn reused(&self) {
        self.reused.add();
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
        sum.reused += self.reused.read();
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
