//! Slow start: an endpoint that has come back gets its full share by and by.
//!
//! The share grows evenly over a window, from one to all, as HAProxy's `slowstart` lets `maxconn`
//! grow (<https://docs.haproxy.org/3.0/configuration.html#5.2-slowstart>) and as Envoy's slow start
//! does with an aggression of 1
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/slow_start>).

use crate::{
    clock::Tick,
    sync::{AtomicU64, Ordering, guess},
};

/// How much of `full` is allowed `since_ms` after the start of a window of `window_ms`.
///
/// Never less than 1, except of nothing; never less than before; all of it at the end.
pub const fn allowed(full: u32, since_ms: u32, window_ms: u32) -> u32 {
    if since_ms >= window_ms {
        return full;
    }
    // The window is not 0, because nothing is less than 0; the quotient is below `full`.
    let part = (full as u64 * since_ms as u64 / window_ms as u64) as u32;
    if part == 0 && full > 0 { 1 } else { part }
}

/// The slow start of one endpoint: when it began, or that none is under way (0), in one word.
///
/// Everything is Relaxed: the word guards nothing but itself.
#[derive(Debug)]
pub struct Ramp(AtomicU64);

/// Marks a word with a start in its lower half.
const UNDER_WAY: u64 = 1 << 32;

/// A start that lies so little ahead comes from another shard's clock.
const SKEW_MS: u32 = 60_000;

impl Ramp {
    /// At full strength.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The endpoint has come back: its window begins, anew if one was under way.
    pub fn start(&self, now: Tick) {
        // A store would do as well; but loom lets a later load read either of two plain writes that
        // nothing else orders.
        self.0.swap(UNDER_WAY | u64::from(now.as_millis()), Ordering::Relaxed);
    }

    /// Whether no slow start is under way, by one load. One whose window has passed is under way
    /// until [`Self::allowed`] is asked.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// How much of `full` is allowed now, with a window of `window_ms`.
    #[inline]
    pub fn allowed(&self, full: u32, now: Tick, window_ms: u32) -> u32 {
        if self.is_over() { full } else { self.climb(full, now, window_ms) }
    }

    #[cold]
    fn climb(&self, full: u32, now: Tick, window_ms: u32) -> u32 {
        let bits = guess(&self.0);
        if bits == 0 {
            return full;
        }
        // Not `Tick::since`: a start that nobody asked about for 24 days must not read as ahead.
        let mut since = now.as_millis().wrapping_sub(bits as u32);
        if since > u32::MAX - SKEW_MS {
            since = 0;
        }
        if since >= window_ms {
            // Only this start has ended: one that begins now stays.
            let _ = self.0.compare_exchange(bits, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        allowed(full, since, window_ms)
    }
}

impl Default for Ramp {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_evenly() {
        let shares: Vec<_> = (0..=10).map(|tenth| allowed(50, tenth * 100, 1000)).collect();
        assert_eq!(shares, [1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50]);
    }

    #[test]
    fn a_share_never_falls_and_ends_full() {
        for full in [0, 1, 2, 3, 7, 100, u32::MAX] {
            for window in [0, 1, 2, 999, u32::MAX] {
                let mut before = full.min(1);
                for step in 0..=200_u64 {
                    let since = (step * u64::from(window) / 200) as u32;
                    let share = allowed(full, since, window);
                    assert!((before..=full).contains(&share), "{full} {since} of {window}");
                    before = share;
                }
                assert_eq!(before, full, "at the end");
            }
        }
    }

    #[test]
    fn a_ramp_ends_and_starts_again() {
        let ramp = Ramp::new();
        let at = Tick::from_millis;
        assert!(ramp.is_over());
        assert_eq!(ramp.allowed(100, at(5), 1000), 100);
        ramp.start(at(u32::MAX - 499));
        assert_eq!(ramp.allowed(100, at(u32::MAX - 600), 1000), 1, "a clock that lags");
        assert_eq!(ramp.allowed(100, at(0), 1000), 50, "across the wrap");
        assert!(!ramp.is_over());
        assert_eq!(ramp.allowed(100, at(500), 1000), 100);
        assert!(ramp.is_over());
        ramp.start(at(600));
        assert_eq!(ramp.allowed(100, at(700), 1000), 10);
    }

    #[test]
    fn a_ramp_that_nobody_asks_about_ends_all_the_same() {
        for days in 1..=49 {
            let ramp = Ramp::new();
            ramp.start(Tick::from_millis(7));
            let now = Tick::from_millis(7 + days * 86_400_000);
            assert_eq!(ramp.allowed(100, now, 1000), 100, "day {days}");
            assert!(ramp.is_over());
        }
    }

    #[test]
    fn a_ramp_may_start_at_the_beginning_of_time() {
        let ramp = Ramp::new();
        ramp.start(Tick::ZERO);
        assert!(!ramp.is_over());
        assert_eq!(ramp.allowed(100, Tick::from_millis(500), 1000), 50);
    }

    #[test]
    fn a_clock_may_lag_by_a_minute_and_no_more() {
        for (ahead, share) in [(SKEW_MS, 1), (SKEW_MS + 1, 100)] {
            let ramp = Ramp::new();
            ramp.start(Tick::from_millis(ahead));
            assert_eq!(ramp.allowed(100, Tick::ZERO, 1000), share, "{ahead} ms ahead");
        }
    }
}
