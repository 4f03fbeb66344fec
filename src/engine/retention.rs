//! Adaptive retention: how many idle connections are worth keeping.
//!
//! The need of the recent past is estimated by its peak. A higher peak counts at once, a lower one
//! by half at the end of each period, and half of what exceeds the estimate is closed each time: a
//! burst leaves by and by, without a cliff. The idea is HAProxy's `est_need_conns` and
//! `pool-purge-delay` (`srv_cleanup_idle_conns` in
//! <https://github.com/haproxy/haproxy/blob/master/src/server.c>), where the period is 5 s.

use crate::{
    clock::Tick,
    sync::{AtomicU64, Ordering, guess},
};

/// The value of the word: peak in bits 0 to 21, estimate in 22 to 43, beginning in 44 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// The most connections in use at once in this period.
    peak: u32,
    /// How many were needed in the past.
    estimate: u32,
    /// When this period began, in units of [`Word::UNIT_BITS`].
    began: u32,
}

impl Word {
    const COUNT_BITS: u32 = 22;
    /// Four million connections; a higher count is taken for this one.
    const MOST: u32 = (1 << Self::COUNT_BITS) - 1;
    const TIME_BITS: u32 = 64 - 2 * Self::COUNT_BITS;
    const TIME_MASK: u32 = (1 << Self::TIME_BITS) - 1;
    /// A unit of time is 64 ms; 2^20 of them, 18 hours, divide the clock's range evenly. A period
    /// that nobody looked at for as long is taken for a young one and ends a period late.
    const UNIT_BITS: u32 = 6;
    /// A beginning that lies less than a second ahead comes from another shard's clock.
    const SKEW: u32 = 16;

    const fn pack(self) -> u64 {
        self.peak as u64
            | (self.estimate as u64) << Self::COUNT_BITS
            | (self.began as u64) << (2 * Self::COUNT_BITS)
    }

    const fn unpack(bits: u64) -> Self {
        Self {
            peak: bits as u32 & Self::MOST,
            estimate: (bits >> Self::COUNT_BITS) as u32 & Self::MOST,
            began: (bits >> (2 * Self::COUNT_BITS)) as u32,
        }
    }

    const fn units(now: Tick) -> u32 {
        now.as_millis() >> Self::UNIT_BITS & Self::TIME_MASK
    }

    fn is_over(self, now: Tick, period_ms: u32) -> bool {
        let longest = Self::TIME_MASK - Self::SKEW;
        let age = Self::units(now).wrapping_sub(self.began) & Self::TIME_MASK;
        age <= longest && age >= period_ms.div_ceil(1 << Self::UNIT_BITS).clamp(1, longest)
    }

    /// The period that follows, when this one is over.
    fn next(self, now: Tick, in_use: u32, period_ms: u32) -> Option<Self> {
        if !self.is_over(now, period_ms) {
            return None;
        }
        let in_use = in_use.min(Self::MOST);
        let peak = self.peak.max(in_use);
        let estimate = peak.max(u32::midpoint(self.estimate, peak));
        Some(Self { peak: in_use, estimate, began: Self::units(now) })
    }

    /// How many of the idle connections to close.
    fn surplus(self, idle: u32, in_use: u32, min_idle: u32) -> u32 {
        let kept = self.estimate.max(in_use.saturating_add(min_idle));
        idle.saturating_add(in_use).saturating_sub(kept).div_ceil(2)
    }
}

/// The retention of one group of connections, in one word.
///
/// Everything is Relaxed: the word guards nothing but itself.
#[derive(Debug)]
pub struct Retention(AtomicU64);

impl Retention {
    /// Nothing was needed yet; the first period begins.
    pub fn new(now: Tick) -> Self {
        let word = Word { peak: 0, estimate: 0, began: Word::units(now) };
        Self(AtomicU64::new(word.pack()))
    }

    /// So many connections are in use now. Writes only when that is a new peak of this period.
    #[inline]
    pub fn observe(&self, in_use: u32) {
        let in_use = in_use.min(Word::MOST);
        let mut bits = guess(&self.0);
        while Word::unpack(bits).peak < in_use {
            let next = Word { peak: in_use, ..Word::unpack(bits) };
            match self.swap(bits, next) {
                Ok(()) => return,
                Err(found) => bits = found,
            }
        }
    }

    /// How many of `idle` connections to close now: 0 but for the first call after the end of a
    /// period, and never so many that fewer than `min_idle` are left. A period is `period_ms`
    /// long, to 64 ms; no call ends two of them.
    #[must_use]
    pub fn tick(&self, now: Tick, idle: u32, in_use: u32, min_idle: u32, period_ms: u32) -> u32 {
        let mut bits = guess(&self.0);
        while let Some(next) = Word::unpack(bits).next(now, in_use, period_ms) {
            match self.swap(bits, next) {
                Ok(()) => return next.surplus(idle, in_use, min_idle),
                Err(found) => bits = found,
            }
        }
        0
    }

    /// How many connections were needed in the past, by the last period's end.
    #[cfg(any(test, loom, model, fuzzing))]
    pub fn estimate(&self) -> u32 {
        Word::unpack(self.0.load(Ordering::Relaxed)).estimate
    }

    fn swap(&self, bits: u64, next: Word) -> Result<(), u64> {
        self.0
            .compare_exchange_weak(bits, next.pack(), Ordering::Relaxed, Ordering::Relaxed)
            .map(|_| ())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PERIOD: u32 = 5120;

    /// Connections of one group, reused as a pool does.
    struct Load {
        retention: Retention,
        now: Tick,
        idle: u32,
        in_use: u32,
    }

    impl Load {
        fn new(now: u32) -> Self {
            let now = Tick::from_millis(now);
            Self { retention: Retention::new(now), now, idle: 0, in_use: 0 }
        }

        /// So many are in use from now on.
        fn need(&mut self, in_use: u32) {
            let live = (self.idle + self.in_use).max(in_use);
            self.in_use = in_use;
            self.idle = live - in_use;
            self.retention.observe(in_use);
        }

        fn tick(&mut self, millis: u32, min_idle: u32) -> u32 {
            self.now = self.now.after(millis);
            let closed = self.retention.tick(self.now, self.idle, self.in_use, min_idle, PERIOD);
            self.idle -= closed;
            closed
        }
    }

    #[test]
    fn a_burst_leaves_by_and_by() {
        let mut load = Load::new(u32::MAX - 3 * PERIOD);
        load.need(100);
        assert_eq!(load.tick(PERIOD, 0), 0);
        load.need(5);
        let mut live = Vec::new();
        let mut estimates = Vec::new();
        for _ in 0..12 {
            load.tick(PERIOD, 0);
            live.push(load.idle + load.in_use);
            estimates.push(load.retention.estimate());
        }
        // The first of these periods begins with the burst under way.
        assert_eq!(estimates, [100, 52, 28, 16, 10, 7, 6, 5, 5, 5, 5, 5]);
        assert_eq!(live, [100, 76, 52, 34, 22, 14, 10, 7, 6, 5, 5, 5]);
    }

    #[test]
    fn what_shall_rest_stays() {
        let mut load = Load::new(0);
        load.need(100);
        load.need(0);
        for _ in 0..40 {
            load.tick(PERIOD, 7);
            assert!(load.idle >= 7);
        }
        assert_eq!(load.idle, 7);
        load.need(3);
        assert_eq!(load.tick(PERIOD, 7), 0, "fewer than shall rest");
    }

    #[test]
    fn steady_load_closes_nothing() {
        let mut load = Load::new(0);
        load.need(30);
        for _ in 0..100 {
            load.need(20);
            load.need(30);
            assert_eq!(load.tick(PERIOD, 0), 0);
        }
        assert_eq!((load.in_use, load.idle), (30, 0));
    }

    #[test]
    fn need_that_swings_within_a_period_is_not_cut() {
        let mut load = Load::new(0);
        for step in 0..2000 {
            // Up and down several times a period; every tick comes at another height.
            load.need([50, 0, 25, 3, 10][step % 5]);
            assert_eq!(load.tick(701, 0), 0, "step {step}");
        }
        assert_eq!(load.retention.estimate(), 50);
    }

    #[test]
    fn a_rise_counts_at_once() {
        let mut load = Load::new(0);
        load.need(5);
        load.tick(PERIOD, 0);
        load.need(80);
        load.need(5);
        assert_eq!(load.tick(PERIOD, 0), 0);
        assert_eq!(load.retention.estimate(), 80);
    }

    #[test]
    fn nothing_is_closed_between_periods() {
        let mut load = Load::new(1000);
        load.need(100);
        load.need(0);
        load.tick(PERIOD, 0);
        for _ in 0..8 {
            assert_eq!(load.tick(PERIOD / 16, 0), 0);
        }
        assert_eq!(load.tick(PERIOD / 2, 0), 25, "the estimate is 50 now");
        assert_eq!(load.tick(0, 0), 0, "once");
        load.now = Tick::from_millis(load.now.as_millis() - 500);
        assert_eq!(load.tick(0, 0), 0, "a clock that lags");
    }

    #[test]
    fn periods_go_on_across_the_wrap() {
        let mut load = Load::new(u32::MAX - 1000);
        let mut over = 0;
        for _ in 0..50 {
            let before = load.retention.0.load(Ordering::Relaxed);
            load.tick(1024, 0);
            over += u32::from(load.retention.0.load(Ordering::Relaxed) != before);
        }
        assert_eq!(over, 10);
    }

    #[test]
    fn counts_that_do_not_fit_are_bounded() {
        let retention = Retention::new(Tick::ZERO);
        retention.observe(u32::MAX);
        let now = Tick::from_millis(PERIOD);
        assert_eq!(retention.tick(now, u32::MAX, u32::MAX, u32::MAX, PERIOD), 0);
        assert_eq!(retention.estimate(), Word::MOST);
        let long = Retention::new(Tick::ZERO);
        assert_eq!(long.tick(now, 10, 0, 0, u32::MAX), 0);
        assert_eq!(long.tick(Tick::from_millis(66_000_000), 10, 0, 0, u32::MAX), 0);
        let longest = Tick::from_millis((Word::TIME_MASK - Word::SKEW) << Word::UNIT_BITS);
        assert_eq!(long.tick(longest, 10, 0, 0, u32::MAX), 5, "18 hours at most");
    }

    #[test]
    fn a_word_survives_packing() {
        for peak in [0, 1, Word::MOST] {
            for estimate in [0, 2, Word::MOST] {
                for began in [0, 3, Word::TIME_MASK] {
                    let word = Word { peak, estimate, began };
                    assert_eq!(Word::unpack(word.pack()), word);
                }
            }
        }
    }
}
