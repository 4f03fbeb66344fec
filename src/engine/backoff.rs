//! Backoff: how long an endpoint is left alone after a dial to it failed.
//!
//! The wait grows by a factor from one failed step to the next, up to a bound, and is varied so
//! that those who failed together do not come back together. Its clock starts with the dial, not
//! with the failure: a dial that took longer than its wait may be repeated at once. Source, also of
//! the defaults: <https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md>.

use crate::{
    clock::Tick,
    sync::{AtomicU64, Ordering, guess},
};

/// How the wait grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffRules {
    /// The wait after the first failure, in milliseconds; 1000 by default. With 0 there is no wait
    /// at all.
    pub base_ms: u32,
    /// What each failed step multiplies the wait by, in percent; 160 by default. 100 keeps it as it
    /// is.
    pub multiplier_percent: u32,
    /// How far the wait is varied up and down, in percent of it; 20 by default. More than 100 is
    /// taken for 100.
    pub jitter_percent: u32,
    /// The bound of the wait, before it is varied, in milliseconds; 120,000 by default. More than
    /// [`Tick::FAR`] is taken for that.
    pub max_ms: u32,
}

impl Default for BackoffRules {
    fn default() -> Self {
        Self { base_ms: 1000, multiplier_percent: 160, jitter_percent: 20, max_ms: 120_000 }
    }
}

impl BackoffRules {
    /// Bits after the point, so that a wait of a few milliseconds grows by a part of one.
    const FRACTION: u32 = 16;

    /// The wait after so many failed steps before this one, in milliseconds:
    /// min(base × multiplier ^ attempt, max), varied uniformly by `random`.
    ///
    /// At least 1 unless the base is 0, and at most [`Tick::FAR`].
    pub fn delay(&self, attempt: u8, random: u32) -> u32 {
        if self.base_ms == 0 {
            return 0;
        }
        let max = u64::from(self.max_ms.min(Tick::FAR)) << Self::FRACTION;
        let mut wait = (u64::from(self.base_ms) << Self::FRACTION).min(max);
        for _ in 0..attempt {
            if wait >= max {
                break;
            }
            // A product that saturates is far above any bound even after the division.
            wait = (wait.saturating_mul(self.multiplier_percent.into()) / 100).min(max);
        }
        let wait = wait >> Self::FRACTION;
        let swing = wait * u64::from(self.jitter_percent.min(100)) / 100;
        // Both factors are below 2^32, because `wait` is below 2^31.
        let varied = wait - swing + (((2 * swing + 1) * u64::from(random)) >> 32);
        varied.clamp(1, Tick::FAR.into()) as u32
    }
}

/// A tick to wait for that, once passed, stays passed.
///
/// A bare tick reads as ahead again when half the clock's range has gone by since it passed, and
/// would shut an endpoint off for 24 days that nobody had dialled for as long. This one knows how
/// far ahead it can lie at most; what reads as further ahead has passed long ago. What remains is
/// one wait of about its own length after 49 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    at: Tick,
    /// It lies less than 2 to the power of this ahead, in milliseconds.
    reach: u8,
}

impl Deadline {
    /// How many bits of a word it takes.
    pub const BITS: u32 = 32 + 5;
    /// It passed before the beginning.
    pub const PASSED: Self = Self { at: Tick::from_millis(0), reach: 0 };

    /// `at`, as set at `now`.
    pub fn new(at: Tick, now: Tick) -> Self {
        // Twice as far, and 8 s at least: the clocks of two shards may differ by a reading.
        let ahead = at.since(now).max(1 << 12);
        Self { at, reach: (33 - ahead.leading_zeros()).min(31) as u8 }
    }

    /// Milliseconds left at `now`; 0 once it has passed.
    pub fn left(self, now: Tick) -> u32 {
        if self.is_long_past(now) { 0 } else { self.at.since(now) }
    }

    fn is_long_past(self, now: Tick) -> bool {
        self.at.since(now) >> self.reach != 0
    }

    /// As stored: the tick in bits 0 to 31, the reach in 32 to 36.
    pub const fn pack(self) -> u64 {
        self.at.as_millis() as u64 | (self.reach as u64) << 32
    }

    /// The deadline in the lowest bits of a stored word.
    pub const fn unpack(bits: u64) -> Self {
        Self { at: Tick::from_millis(bits as u32), reach: (bits >> 32 & 0b1_1111) as u8 }
    }
}

/// The value of a backoff's word: deadline in bits 0 to 36, attempt in 37 to 44.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// Steps that failed since the last success; 0 means that there is nothing to wait for.
    attempt: u8,
    /// The end of the last step's wait.
    until: Deadline,
}

impl Word {
    const CLEAR: Self = Self { attempt: 0, until: Deadline::PASSED };

    const fn pack(self) -> u64 {
        self.until.pack() | (self.attempt as u64) << Deadline::BITS
    }

    const fn unpack(bits: u64) -> Self {
        Self { attempt: (bits >> Deadline::BITS) as u8, until: Deadline::unpack(bits) }
    }

    fn left(self, now: Tick) -> u32 {
        if self.attempt == 0 { 0 } else { self.until.left(now) }
    }

    /// Whether a dial that was begun at `started` belongs to the step that failed last: nothing may
    /// be begun between the failure and the end of its wait.
    fn covers(self, started: Tick, now: Tick) -> bool {
        self.attempt > 0 && !self.until.is_long_past(now) && !self.until.at.is_past(started)
    }

    /// A dial failed: the next step, or the same when its failure is counted already.
    fn failed(self, started: Tick, now: Tick, rules: &BackoffRules, random: u32) -> Self {
        if self.covers(started, now) {
            return self;
        }
        let due = started.after(rules.delay(self.attempt, random));
        let due = if due.is_past(now) { now } else { due };
        Self { attempt: self.attempt.saturating_add(1), until: Deadline::new(due, now) }
    }
}

/// The backoff of one endpoint, in one word (INV-8).
///
/// It holds off and counts; it deals out no permits. When a wait is over everybody may try, and
/// the failures of all who tried in parallel count as one step.
///
/// Everything is Relaxed: the word guards nothing but itself, and all its changes are in one order.
#[derive(Debug)]
pub struct Backoff(AtomicU64);

impl Backoff {
    /// Nothing has failed.
    pub fn new() -> Self {
        Self(AtomicU64::new(Word::CLEAR.pack()))
    }

    /// Whether a dial may begin.
    ///
    /// # Errors
    /// The milliseconds left to wait, at least 1.
    #[inline]
    pub fn may_try(&self, now: Tick) -> Result<(), u32> {
        match self.word().left(now) {
            0 => Ok(()),
            left_ms => Err(left_ms),
        }
    }

    /// A dial that was begun at `started` has failed. Returns the milliseconds left to wait, 0 when
    /// the dial took as long as the wait.
    pub fn failed(&self, started: Tick, now: Tick, rules: &BackoffRules, random: u32) -> u32 {
        let mut bits = guess(&self.0);
        loop {
            let word = Word::unpack(bits);
            let next = word.failed(started, now, rules, random);
            if next == word {
                return word.left(now);
            }
            match self.0.compare_exchange_weak(
                bits,
                next.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return next.left(now),
                Err(found) => bits = found,
            }
        }
    }

    /// A dial has succeeded: the next failure is the first again. `true` when that ended a series
    /// of failures, for the one call that ended it.
    #[inline]
    pub fn succeeded(&self) -> bool {
        // The load spares the word of a healthy endpoint the write. A failure that it misses
        // comes after this success.
        self.word() != Word::CLEAR && self.reset()
    }

    /// A hint from outside that the endpoint is back: whoever waits may try. `true` when that
    /// ended a series of failures.
    pub fn reset(&self) -> bool {
        Word::unpack(self.0.swap(Word::CLEAR.pack(), Ordering::Relaxed)) != Word::CLEAR
    }

    /// Steps that failed since the last success; 255 means at least as many.
    #[cfg(any(test, loom, model, fuzzing))]
    pub fn attempt(&self) -> u8 {
        self.word().attempt
    }

    fn word(&self) -> Word {
        Word::unpack(self.0.load(Ordering::Relaxed))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(any(test, fuzzing), not(any(loom, model))))]
pub(super) mod specification;
#[cfg(all(test, not(loom)))]
mod tests;
