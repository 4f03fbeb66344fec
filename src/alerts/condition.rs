//! What an alert is made of: a share of two counters, and a condition that lasts.

use core::time::Duration;

/// How many out of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) part: u64,
    pub(super) whole: u64,
}

impl Tally {
    pub(super) fn is_below(self, percent: u32) -> bool {
        u128::from(self.part) * 100 < u128::from(self.whole) * u128::from(percent)
    }

    pub(super) fn is_above(self, percent: u32) -> bool {
        u128::from(self.part) * 100 > u128::from(self.whole) * u128::from(percent)
    }

    /// The share in whole percent, rounded down.
    pub(super) fn percent(self) -> u32 {
        let percent = u128::from(self.part) * 100 / u128::from(self.whole).max(1);
        // Counters that are read one after the other may not add up.
        percent.min(100) as u32
    }
}

/// A share, judged whenever enough has been counted since it was judged last.
#[derive(Debug)]
pub(super) struct Share {
    /// The counters when it was judged last.
    base: Tally,
    latest: Tally,
    /// When something was counted last.
    moved: Duration,
    verdict: Option<Tally>,
}

impl Share {
    /// What was counted before is nobody's fault.
    pub(super) fn new(now: Duration, counters: Tally) -> Self {
        Self { base: counters, latest: counters, moved: now, verdict: None }
    }

    /// The share at its last judgement, unless that is forgotten.
    pub(super) fn update(
        &mut self,
        now: Duration,
        counters: Tally,
        enough: u32,
        forget_after_ms: u32,
    ) -> Option<Tally> {
        if counters.part < self.latest.part || counters.whole < self.latest.whole {
            // The counters began anew: the endpoint was forgotten by the pool and came back.
            *self = Self::new(now, counters);
            return None;
        }
        if counters.whole != self.latest.whole {
            self.moved = now;
        }
        self.latest = counters;
        let counted =
            Tally { part: counters.part - self.base.part, whole: counters.whole - self.base.whole };
        if counted.whole >= u64::from(enough) {
            self.verdict = Some(counted);
            self.base = counters;
        } else if lasted(self.moved, now, forget_after_ms) {
            self.verdict = None;
            self.base = counters;
        }
        self.verdict
    }
}

/// A condition that counts when it has lasted.
#[derive(Debug, Default)]
pub(super) struct Spell {
    since: Option<Duration>,
    raised: bool,
}

impl Spell {
    /// Whether the alert was raised or cleared just now.
    pub(super) fn update(&mut self, now: Duration, holds: bool, for_ms: u32) -> Option<bool> {
        if !holds {
            self.since = None;
            return core::mem::take(&mut self.raised).then_some(false);
        }
        let since = *self.since.get_or_insert(now);
        if self.raised || !lasted(since, now, for_ms) {
            return None;
        }
        self.raised = true;
        Some(true)
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised
    }
}

fn lasted(since: Duration, now: Duration, millis: u32) -> bool {
    now.saturating_sub(since) >= Duration::from_millis(u64::from(millis))
}
