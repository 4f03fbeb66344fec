//! What the pool tells of its endpoints that is in no statistics.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corepool::{BreakerState, Endpoint, PoolEvent};

/// For each origin, what was told of it. Written on the shards' threads, read by the admin pages.
#[derive(Debug)]
pub(crate) struct Events(Box<[(Endpoint, Told)]>);

/// What was told of one origin. Relaxed throughout: each is a statistic of its own.
#[derive(Debug, Default)]
pub(crate) struct Told {
    leaks: AtomicU64,
    returned: AtomicU64,
    trips: AtomicU64,
    suspended: AtomicBool,
}

impl Events {
    pub(crate) fn new(origins: &[Endpoint]) -> Self {
        Self(origins.iter().map(|origin| (origin.clone(), Told::default())).collect())
    }

    /// Takes note of an event: a few comparisons for most.
    pub(crate) fn note(&self, event: &PoolEvent<'_>) {
        let note: fn(&Told) = match event {
            PoolEvent::LeakSuspected { .. } => |told| add(&told.leaks),
            PoolEvent::LeakReturned { .. } => |told| add(&told.returned),
            PoolEvent::BreakerChanged { to: BreakerState::Open, .. } => |told| add(&told.trips),
            PoolEvent::Suspended { .. } => |told| told.suspended.store(true, Ordering::Relaxed),
            PoolEvent::Resumed { .. } => |told| told.suspended.store(false, Ordering::Relaxed),
            _ => return,
        };
        if let Some(told) = event.endpoint().and_then(|endpoint| self.of(endpoint)) {
            note(told);
        }
    }

    /// What was told of an origin.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Option<&Told> {
        self.0.iter().find(|(origin, _)| origin == endpoint).map(|(_, told)| told)
    }
}

impl Told {
    /// Connections that were out for longer than `--leak-after`, so far.
    pub(crate) fn leaks(&self) -> u64 {
        self.leaks.load(Ordering::Relaxed)
    }

    /// Of these, how many are out still.
    pub(crate) fn leaked(&self) -> u64 {
        self.leaks().saturating_sub(self.returned.load(Ordering::Relaxed))
    }

    /// How often the circuit breaker has opened.
    pub(crate) fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    /// Whether it hands out nothing at the moment, because an operator said so.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
