//! How many connections a group may have at once.

use crate::sync::{AtomicU32, Ordering, Setting};

/// Counts live connections, dials and closes under way included, against a limit (INV-2).
///
/// Touched when a connection is made and when it is gone, never by a checkout that hits.
#[derive(Debug)]
pub struct Permits {
    live: AtomicU32,
    /// Of these, with connections that are being closed.
    leaving: AtomicU32,
    /// May sink below what is out: then none is given until enough have come back.
    limit: Setting,
}

impl Permits {
    /// All permits free.
    pub fn new(limit: u32) -> Self {
        Self { live: AtomicU32::new(0), leaving: AtomicU32::new(0), limit: Setting::new(limit) }
    }

    /// Takes one permit, if one is free.
    #[must_use]
    pub fn take(&self) -> bool {
        self.take_below(u32::MAX)
    }

    /// Takes one permit, if fewer than `limit` are out and one is free.
    #[must_use]
    pub fn take_below(&self, limit: u32) -> bool {
        // AcqRel: an RMW in the order of all takes and puts. A take that fails is only a load:
        // that it does not overlook a put is the doing of the fences in
        // `Engine::dial_if_needed`.
        let limit = self.limit.get().min(limit);
        self.live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| {
                (live < limit).then_some(live + 1)
            })
            .is_ok()
    }

    /// Changes the limit. What is out above it stays out until it comes back.
    pub fn resize(&self, limit: u32) {
        self.limit.set(limit);
    }

    /// How many may be out.
    pub fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// Whether there is a limit at all.
    pub fn is_limited(&self) -> bool {
        self.limit() != u32::MAX
    }

    /// How many more are out than may be, without those that are about to come back.
    pub fn excess(&self) -> u32 {
        // Acquire: pairs with the Release in `put_closed`. Who sees one less that leaves sees one
        // less that lives, so that no excess appears where there is none.
        let leaving = self.leaving.load(Ordering::Acquire);
        self.live().saturating_sub(leaving).saturating_sub(self.limit())
    }

    /// Whether one is free: a glance, which `take` must confirm.
    pub fn is_free(&self) -> bool {
        self.live() < self.limit()
    }

    /// Takes one permit although none may be free: for what replaces another.
    pub fn take_anyway(&self) {
        // AcqRel: as in `take`.
        self.live.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives one permit back.
    pub fn put(&self) {
        // AcqRel: as in `take`.
        let before = self.live.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "INV-2: a permit came back twice");
    }

    /// A connection is about to be closed: its permit comes back by [`Self::put_closed`].
    pub fn leave(&self) {
        // Relaxed: a count that only bounds how many more are closed.
        self.leaving.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the permit of a connection back that is closed.
    pub fn put_closed(&self) {
        self.put();
        // Release: see `excess`.
        self.leaving.fetch_sub(1, Ordering::Release);
    }

    /// How many are out.
    pub fn live(&self) -> u32 {
        // Relaxed: a snapshot.
        self.live.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_number_is_no_limit() {
        assert!(!Permits::new(u32::MAX).is_limited());
        let permits = Permits::new(u32::MAX - 1);
        assert!(permits.is_limited());
        permits.resize(u32::MAX);
        assert!(!permits.is_limited());
    }

    #[test]
    fn what_is_being_closed_is_no_excess() {
        let permits = Permits::new(3);
        (0..3).for_each(|_| assert!(permits.take()));
        assert!(!permits.take() && !permits.is_free());
        permits.resize(1);
        assert_eq!(permits.excess(), 2);
        permits.leave();
        assert_eq!(permits.excess(), 1);
        permits.put_closed();
        assert_eq!((permits.live(), permits.excess()), (2, 1));
        permits.put();
        assert_eq!((permits.live(), permits.excess()), (1, 0));
        assert!(!permits.take_below(1));
        permits.put();
        assert!(permits.take_below(1));
    }
}
