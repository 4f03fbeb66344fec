//! How many connections a group may have at once.

use crate::sync::{AtomicU32, Ordering};

/// Counts live connections, dials and closes under way included, against a limit (INV-2).
///
/// Touched when a connection is made and when it is gone, never by a checkout that hits.
#[derive(Debug)]
pub struct Permits {
    live: AtomicU32,
    limit: u32,
}

impl Permits {
    /// All permits free.
    pub fn new(limit: u32) -> Self {
        Self { live: AtomicU32::new(0), limit }
    }

    /// Takes one permit, if one is free.
    #[must_use]
    pub fn take(&self) -> bool {
        // AcqRel: an RMW in the order of all takes and puts. A take that fails is only a load:
        // that it does not overlook a put is the doing of the fences in
        // `Engine::dial_if_needed`.
        self.live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| {
                (live < self.limit).then_some(live + 1)
            })
            .is_ok()
    }

    /// Whether one is free: a glance, which `take` must confirm.
    pub fn is_free(&self) -> bool {
        self.live() < self.limit
    }

    /// Gives one permit back.
    pub fn put(&self) {
        // AcqRel: as in `take`.
        let before = self.live.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "INV-2: a permit came back twice");
    }

    /// How many are out.
    pub fn live(&self) -> u32 {
        // Relaxed: a snapshot.
        self.live.load(Ordering::Relaxed)
    }
}
