//! What a pool tells about itself.

use crate::{Backend, BreakerState, CloseReason, Endpoint, HistogramSnapshot};

/// A snapshot of a pool. Counters are read one by one while the pool works, so sums over them may
/// be off by what happened meanwhile.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolStats {
    /// What was asked for and what was got.
    pub backend: BackendReport,
    /// Connections of all endpoints, where there is a limit on them.
    pub live_total: Option<u32>,
    /// Connections of all endpoints at rest, where there is a limit on them.
    pub idle_total: Option<u32>,
    /// Each shard.
    pub shards: Vec<ShardStats>,
    /// Each endpoint.
    pub endpoints: Vec<GroupStats>,
}

/// Which backend a pool runs on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendReport {
    /// What was asked for.
    pub requested: Backend,
    /// `io_uring`, `epoll`, or `mixed` when shards differ, for instance because there was memory
    /// for one ring and not for two.
    pub selected: &'static str,
    /// Why the first shard runs on what it runs on.
    pub reason: String,
}

/// A shard's part of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardStats {
    /// Its number.
    pub id: usize,
    /// The core that its thread is pinned to, if it is.
    pub core: Option<usize>,
    /// `io_uring` or `epoll`; `none` while the shard is down after a panic.
    pub backend: &'static str,
    /// Why.
    pub reason: String,
    /// Slots that it has.
    pub slots: usize,
    /// Slots with a connection in whatever state.
    pub slots_in_use: usize,
    /// How often a dial found no free local port where it looked (`EADDRNOTAVAIL`): in a port
    /// window, after which it tried another place, or in all there are, after which it failed.
    pub port_conflicts: u64,
    /// How often its worker panicked, which is a bug. See
    /// [`PoolEvent::ShardPanicked`](crate::PoolEvent::ShardPanicked).
    pub panics: u64,
}

/// An endpoint's part of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Where the circuit breaker stands.
    pub breaker: BreakerState,
    /// Connections at rest.
    pub idle: u32,
    /// Connections out with callers, and those being closed.
    pub in_use: u32,
    /// Of the connections, those above `max_live`.
    pub overflow: u32,
    /// Dials under way.
    pub dialing: u32,
    /// Callers that wait.
    pub waiting: u32,
    /// Connections made so far.
    pub opened: u64,
    /// Checkouts served by a connection that was there already.
    pub reused: u64,
    /// Of these, from another shard than the caller's.
    pub stolen: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// How long dials took that succeeded, from the resolver to the end of the handshake.
    pub connect_time: HistogramSnapshot,
    /// How long callers waited that found nothing idle and were served in the end. A checkout
    /// that finds an idle connection waits for nothing and is not counted.
    pub wait_time: HistogramSnapshot,
    /// Connections closed so far, by reason.
    pub closed: Vec<(CloseReason, u64)>,
}

impl GroupStats {
    /// Nothing has happened.
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            breaker: BreakerState::Closed,
            idle: 0,
            in_use: 0,
            overflow: 0,
            dialing: 0,
            waiting: 0,
            opened: 0,
            reused: 0,
            stolen: 0,
            dial_failures: 0,
            connect_time: HistogramSnapshot::EMPTY,
            wait_time: HistogramSnapshot::EMPTY,
            closed: CloseReason::ALL.iter().map(|reason| (*reason, 0)).collect(),
        }
    }

    /// Connections closed so far, for whatever reason.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().map(|(_, count)| count).sum()
    }

    /// Connections closed for one reason.
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        self.closed.iter().find(|(closed, _)| *closed == reason).map_or(0, |(_, count)| *count)
    }

    /// The share of checkouts that needed no new connection, 0 to 1; zero before the first.
    pub fn reuse_ratio(&self) -> f64 {
        let all = self.reused + self.opened;
        if all == 0 { 0.0 } else { self.reused as f64 / all as f64 }
    }
}
