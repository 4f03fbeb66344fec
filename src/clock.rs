//! Time: a coarse tick for the engine, and the only place that reads a clock.
#![allow(unreachable_pub)] // `Tick` is re-exported to loom-tests and fuzz

use core::time::Duration;

/// Milliseconds since the pool was made, in 32 bits (49 days; differences survive the wrap).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tick(u32);

impl Tick {
    /// The beginning.
    #[cfg(any(test, loom, model, fuzzing))]
    pub const ZERO: Self = Self(0);

    /// A tick from milliseconds.
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis)
    }

    /// The milliseconds.
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// The tick that many milliseconds later, at most half the range (24 days) ahead.
    #[must_use]
    pub const fn after(self, millis: u32) -> Self {
        let bounded = if millis > Self::FAR { Self::FAR } else { millis };
        Self(self.0.wrapping_add(bounded))
    }

    /// Milliseconds since an earlier tick; zero when that one lies ahead.
    pub const fn since(self, earlier: Self) -> u32 {
        let apart = self.0.wrapping_sub(earlier.0);
        if apart > i32::MAX as u32 { 0 } else { apart }
    }

    /// Whether this tick has been reached at `now`.
    pub const fn is_past(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) <= i32::MAX as u32
    }

    /// The earlier of two ticks that lie less than half the range apart.
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if self.is_past(other) { self } else { other }
    }

    /// The tick half of what can be told earlier: a point to measure older ones from.
    pub const fn long_before(self) -> Self {
        Self(self.0.wrapping_sub(Self::FAR / 2))
    }

    /// The furthest that a tick can lie ahead and still be told from the past.
    pub const FAR: u32 = i32::MAX as u32 - 1;
}

/// The clock of one shard: its worker reads the time, everybody else reads the worker's last
/// reading. A hit and a return read no clock; the price is a resolution of [`RESOLUTION`].
#[cfg(not(any(loom, model)))]
#[derive(Debug)]
pub(crate) struct CoarseClock {
    start: tokio::time::Instant,
    last: crate::sync::AtomicU32,
}

/// How old a coarse reading may be while a shard has connections.
#[cfg(not(any(loom, model)))]
pub(crate) const RESOLUTION: Duration = Duration::from_millis(100);

#[cfg(not(any(loom, model)))]
impl CoarseClock {
    pub(crate) fn new(start: tokio::time::Instant) -> Self {
        Self { start, last: crate::sync::AtomicU32::new(0) }
    }

    /// The last reading.
    #[inline]
    pub(crate) fn now(&self) -> Tick {
        // Relaxed: a number that guards nothing.
        Tick(self.last.load(crate::sync::Ordering::Relaxed))
    }

    /// Reads the time.
    pub(crate) fn read(&self) -> Tick {
        self.tick(now())
    }

    fn tick(&self, now: tokio::time::Instant) -> Tick {
        Tick(now.duration_since(self.start).as_millis() as u32)
    }

    /// Reads the time and keeps it for the others.
    pub(crate) fn advance(&self) -> Tick {
        self.advance_to(now())
    }

    /// Keeps a reading of the time for the others.
    pub(crate) fn advance_to(&self, now: tokio::time::Instant) -> Tick {
        let now = self.tick(now);
        // Relaxed: as in `now`.
        self.last.store(now.0, crate::sync::Ordering::Relaxed);
        now
    }
}

/// The time, by the runtime's clock, which tests can stop.
#[cfg(not(any(loom, model)))]
pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// A duration in milliseconds for [`Tick::after`]; what does not fit is as good as for ever.
pub fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(any(loom, model))))]
mod tests {
    use super::*;

    #[test]
    fn ticks_compare_across_the_wrap() {
        let before = Tick::from_millis(u32::MAX - 10);
        let after = before.after(20);
        assert_eq!(after.as_millis(), 9);
        assert_eq!(after.since(before), 20);
        assert_eq!(before.since(after), 0);
        assert!(before.is_past(after));
        assert!(!after.is_past(before));
        assert_eq!((after.earlier(before), before.earlier(after)), (before, before));
    }

    #[test]
    fn for_ever_lies_ahead() {
        let now = Tick::from_millis(77);
        assert!(!now.after(u32::MAX).is_past(now));
        assert_eq!(millis(Duration::MAX), u32::MAX);
    }
    #[test]
    fn half_the_range_can_be_told_and_no_more() {
        let half = i32::MAX as u32;
        assert_eq!(Tick::from_millis(half).since(Tick::ZERO), half);
        assert_eq!(Tick::from_millis(half + 1).since(Tick::ZERO), 0, "that is ahead");
        let now = Tick::from_millis(5);
        assert_eq!(now.since(now.long_before()), Tick::FAR / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_stands_still_until_the_next() {
        let clock = CoarseClock::new(now());
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!((clock.now(), clock.read()), (Tick::ZERO, Tick::from_millis(150)));
        assert_eq!(clock.advance(), Tick::from_millis(150));
        assert_eq!(clock.now(), Tick::from_millis(150));
    }
}
