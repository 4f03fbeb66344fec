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

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(part: u64, whole: u64) -> Tally {
        Tally { part, whole }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_share_that_equals_the_limit_is_on_neither_side() {
        for (part, below, above) in [(19, true, false), (20, false, false), (21, false, true)] {
            let share = tally(part, 200);
            assert_eq!((share.is_below(10), share.is_above(10)), (below, above), "{part} of 200");
        }
        // More than 64 bits hold, a hundred times over.
        let all = tally(u64::MAX, u64::MAX);
        assert!(!all.is_below(100) && !all.is_above(100) && all.is_above(99));
    }

    #[test]
    fn percents_are_whole_and_at_most_a_hundred() {
        for (share, percent) in
            [(tally(0, 0), 0), (tally(3, 0), 100), (tally(199, 200), 99), (tally(7, 5), 100)]
        {
            assert_eq!(share.percent(), percent, "{share:?}");
        }
    }

    #[test]
    fn a_share_is_judged_when_enough_was_counted_since_the_last_time() {
        let mut share = Share::new(at(0), tally(5, 50));
        assert_eq!(share.update(at(1), tally(6, 59), 10, 1_000), None, "nine is not enough");
        assert_eq!(share.update(at(2), tally(7, 60), 10, 1_000), Some(tally(2, 10)));
        // The verdict stands, and the next one counts from it.
        assert_eq!(share.update(at(3), tally(9, 69), 10, 1_000), Some(tally(2, 10)));
        assert_eq!(share.update(at(4), tally(10, 71), 10, 1_000), Some(tally(3, 11)));
    }

    #[test]
    fn a_verdict_is_forgotten_when_nothing_has_come_for_long() {
        let mut share = Share::new(at(0), tally(0, 0));
        assert_eq!(share.update(at(10), tally(1, 10), 10, 100), Some(tally(1, 10)));
        // Something that comes puts it off; what does not count as a whole is nothing.
        assert_eq!(share.update(at(60), tally(1, 11), 10, 100), Some(tally(1, 10)));
        assert_eq!(share.update(at(159), tally(1, 11), 10, 100), Some(tally(1, 10)));
        assert_eq!(share.update(at(160), tally(1, 11), 10, 100), None);
        // What came before is forgotten with it.
        assert_eq!(share.update(at(161), tally(2, 20), 10, 100), None, "nine since then");
        assert_eq!(share.update(at(162), tally(2, 21), 10, 100), Some(tally(1, 10)));
    }

    #[test]
    fn counters_that_go_back_begin_anew() {
        for fresh in [tally(0, 100), tally(30, 5)] {
            let mut share = Share::new(at(0), tally(0, 0));
            assert_eq!(share.update(at(1), tally(20, 90), 10, 1_000), Some(tally(20, 90)));
            assert_eq!(share.update(at(2), fresh, 10, 1_000), None, "{fresh:?}");
            let next = tally(fresh.part + 1, fresh.whole + 10);
            assert_eq!(share.update(at(3), next, 10, 1_000), Some(tally(1, 10)), "{fresh:?}");
        }
        // The same again is no step back.
        let mut share = Share::new(at(0), tally(0, 0));
        share.update(at(1), tally(2, 10), 10, 1_000);
        assert_eq!(share.update(at(2), tally(2, 10), 10, 1_000), Some(tally(2, 10)));
    }

    #[test]
    fn a_spell_is_raised_once_and_cleared_once() {
        let mut spell = Spell::default();
        assert_eq!(spell.update(at(0), false, 50), None);
        assert_eq!(spell.update(at(10), true, 50), None);
        assert_eq!(spell.update(at(59), true, 50), None);
        assert!(!spell.is_raised());
        assert_eq!(spell.update(at(60), true, 50), Some(true));
        assert!(spell.is_raised());
        assert_eq!(spell.update(at(61), true, 50), None);
        assert_eq!(spell.update(at(62), false, 50), Some(false));
        assert!(!spell.is_raised());
        assert_eq!(spell.update(at(63), false, 50), None);
        // A break begins it anew, and no time at all is at once.
        assert_eq!(spell.update(at(64), true, 50), None);
        assert_eq!(spell.update(at(70), false, 50), None);
        assert_eq!(spell.update(at(80), true, 50), None);
        assert_eq!(spell.update(at(81), true, 0), Some(true));
    }
}
