//! What a closed breaker remembers: the last outcomes, and roughly when the last one came.

use super::BreakerRules;
use crate::clock::Tick;

/// The last 32 outcomes at most, the latest in the lowest bit, 1 for a failure; above the oldest a
/// bit that marks the end, so that the count needs no place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcomes(u64);

impl Outcomes {
    /// How many bits of a word they take.
    pub const BITS: u32 = Self::MOST + 1;
    /// How many are remembered.
    pub const MOST: u32 = 32;
    /// No outcome yet.
    pub const NONE: Self = Self(1);

    /// The outcomes in the lowest bits; higher ones are dropped.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// The bits, right-aligned.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// With one more; the oldest goes when there are too many.
    #[must_use]
    pub const fn and(self, failed: bool) -> Self {
        let more = self.0 << 1 | failed as u64;
        if self.is_full() {
            let end = 1 << Self::MOST;
            Self(more & (end - 1) | end)
        } else {
            Self(more)
        }
    }

    /// How many there are.
    pub const fn count(self) -> u32 {
        self.0.ilog2()
    }

    /// How many of them are failures.
    pub const fn failures(self) -> u32 {
        self.0.count_ones() - 1
    }

    /// How many failures came last, in a row.
    pub const fn in_a_row(self) -> u32 {
        // The mark at the end is no failure.
        let row = self.0.trailing_ones();
        if row > self.count() { self.count() } else { row }
    }

    /// Whether the whole window has come in.
    pub const fn is_full(self) -> bool {
        self.count() == Self::MOST
    }

    /// Whether these are too many failures.
    pub fn trip(self, rules: &BreakerRules) -> bool {
        let row = u32::from(rules.consecutive).min(Self::MOST);
        let enough = u32::from(rules.min_dials).min(Self::MOST);
        let rate = u32::from(rules.rate_percent);
        (row > 0 && self.in_a_row() >= row)
            || (rate > 0 && self.count() >= enough && self.failures() * 100 >= rate * self.count())
    }
}

/// When an outcome came, in units of an eighth to a sixteenth of the window's length.
///
/// Comes round after 512 to 1024 windows, or with the clock where that is sooner. An outcome that
/// comes within one window of that time finds the old ones fresh; at worst the breaker trips on
/// failures of which some are older than it thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u16);

impl Stamp {
    /// How many bits of a word it takes.
    pub const BITS: u32 = 13;
    const MASK: u64 = (1 << Self::BITS) - 1;
    /// A stamp that lies so few units ahead, a second at least, comes from another shard's clock.
    const SKEW: u64 = 16;

    /// The stamp in the lowest bits; higher ones are dropped.
    pub const fn from_bits(bits: u64) -> Self {
        Self((bits & Self::MASK) as u16)
    }

    /// The bits, right-aligned.
    pub const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// The stamp of now.
    pub const fn at(now: Tick, window_s: u16) -> Self {
        Self::from_bits((now.as_millis() >> Self::unit_bits(window_s)) as u64)
    }

    /// Whether more than the window has passed since; at the latest a quarter of it later. Never
    /// with a window of 0.
    pub const fn is_old(self, now: Tick, window_s: u16) -> bool {
        let age = Self::at(now, window_s).bits().wrapping_sub(self.bits()) & Self::MASK;
        let units = (window_s as u64 * 1000).div_ceil(1 << Self::unit_bits(window_s));
        window_s > 0 && age > units && age <= Self::MASK - Self::SKEW
    }

    /// The binary logarithm of the unit in milliseconds. A power of two, and no more of them than
    /// divide the clock's range evenly, so that the clock's wrap goes unnoticed.
    const fn unit_bits(window_s: u16) -> u32 {
        let window_bits = u32::BITS - (window_s as u32 * 1000).leading_zeros();
        let coarsest = u32::BITS - Self::BITS;
        let bits = window_bits.saturating_sub(4);
        if bits > coarsest { coarsest } else { bits }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const OFF: BreakerRules = BreakerRules {
        enabled: true,
        consecutive: 0,
        rate_percent: 0,
        min_dials: 0,
        window_s: 10,
        probes: 1,
        successes: 1,
        backoff: super::super::BackoffRules {
            base_ms: 1000,
            multiplier_percent: 160,
            jitter_percent: 0,
            max_ms: 1000,
        },
    };

    /// Outcomes as text, oldest first: `x` for a failure.
    fn outcomes(text: &str) -> Outcomes {
        text.bytes().fold(Outcomes::NONE, |all, one| all.and(one == b'x'))
    }

    #[test]
    fn outcomes_are_counted() {
        for (text, count, failures, in_a_row) in [
            ("", 0, 0, 0),
            (".", 1, 0, 0),
            ("x", 1, 1, 1),
            ("xx.", 3, 2, 0),
            (".xx", 3, 2, 2),
            ("x.xxx", 5, 4, 3),
        ] {
            let found = outcomes(text);
            let counts = (found.count(), found.failures(), found.in_a_row());
            assert_eq!(counts, (count, failures, in_a_row), "{text}");
        }
    }

    #[test]
    fn the_oldest_goes_when_the_window_is_full() {
        let mut found = outcomes(&"x".repeat(40));
        assert_eq!((found.count(), found.failures(), found.in_a_row()), (32, 32, 32));
        for left in (0..32).rev() {
            found = found.and(false);
            assert_eq!((found.count(), found.failures(), found.in_a_row()), (32, left, 0));
        }
        assert_eq!(Outcomes::from_bits(found.bits()), found);
    }

    #[test]
    fn failures_in_a_row_trip() {
        let three = BreakerRules { consecutive: 3, ..OFF };
        for (text, trips) in [("xx", false), ("xxx", true), ("xx.x", false), (".xxx", true)] {
            assert_eq!(outcomes(text).trip(&three), trips, "{text}");
        }
        let many = BreakerRules { consecutive: u8::MAX, ..OFF };
        assert!(!outcomes(&"x".repeat(31)).trip(&many));
        assert!(outcomes(&"x".repeat(32)).trip(&many), "32 are all that is remembered");
    }

    #[test]
    fn a_rate_trips_once_there_are_enough_outcomes() {
        let half = BreakerRules { rate_percent: 50, min_dials: 4, ..OFF };
        for (text, trips) in [
            ("xxx", false),
            ("xxxx", true),
            (".x.x", true),
            ("..x.x", false),
            ("x.x..x", true),
            ("...x", false),
        ] {
            assert_eq!(outcomes(text).trip(&half), trips, "{text}");
        }
        let all = BreakerRules { rate_percent: 100, min_dials: u8::MAX, ..OFF };
        assert!(!outcomes(&"x".repeat(31)).trip(&all));
        assert!(outcomes(&"x".repeat(32)).trip(&all));
    }

    #[test]
    fn nothing_trips_when_both_are_off() {
        assert!(!outcomes(&"x".repeat(32)).trip(&OFF));
    }

    #[test]
    fn a_gap_of_the_window_is_kept_and_one_a_quarter_longer_is_not() {
        for window_s in [1, 2, 7, 10, 60, 300, 3600, 32_768, u16::MAX] {
            let window = u32::from(window_s) * 1000;
            for start in [0, 1, 12_345, u32::MAX - window / 2, u32::MAX - 1] {
                let then = Tick::from_millis(start);
                let stamp = Stamp::at(then, window_s);
                for gap in [0, 1, window / 2, window - 1, window] {
                    assert!(!stamp.is_old(then.after(gap), window_s), "{window_s} s, {gap} ms");
                }
                for gap in [window + window / 4, 2 * window, 10 * window] {
                    assert!(stamp.is_old(then.after(gap), window_s), "{window_s} s, {gap} ms");
                }
                let lagging = Tick::from_millis(start.wrapping_sub(900));
                assert!(!stamp.is_old(lagging, window_s), "{window_s} s: a clock that lags");
            }
        }
    }

    #[test]
    fn a_window_of_nothing_is_for_ever() {
        let stamp = Stamp::at(Tick::ZERO, 0);
        assert!((0..1000).all(|step| !stamp.is_old(Tick::from_millis(step * 4_000_000), 0)));
    }
}
