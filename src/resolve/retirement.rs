//! How fast the connections to an address that has vanished are closed. No clock, no connection.

use core::time::Duration;

use tokio::time::Instant;

/// How long that takes by default: long enough that an origin which takes over is not met by all
/// the load at once, short enough that one which goes has its drain in peace.
#[cfg(test)]
pub(crate) const RETIRE_OVER: Duration = Duration::from_secs(10);

/// The connections to addresses that have vanished, closed evenly over a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retirement {
    began: Instant,
    over: Duration,
    count: usize,
}

impl Retirement {
    /// Begins to retire `count` connections, all of them within `over`.
    pub(crate) fn new(count: usize, began: Instant, over: Duration) -> Self {
        Self { began, over, count }
    }

    /// How many of the `left` ones, those in use included, to close at `now`: as many as keep to
    /// an even pace, at least one, and all once the time is over. Zero only when none is left.
    pub(crate) fn due(&self, left: usize, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.began).min(self.over);
        let to_come = (self.over - elapsed).as_nanos();
        // At the end, also of no time at all, nothing may stay.
        let may_stay = match self.over.as_nanos() {
            0 => 0,
            over => (self.count as u128).saturating_mul(to_come) / over,
        };
        let may_stay = usize::try_from(may_stay).unwrap_or(usize::MAX);
        left.saturating_sub(may_stay).max(left.min(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Closes what is due every `tick` ms: the counts, up to the one that closes the last.
    fn retire(count: usize, over: Duration, tick: u64) -> Vec<usize> {
        let start = clock::now();
        let retirement = Retirement::new(count, start, over);
        let (mut left, mut closed) = (count, Vec::new());
        for tick in (0..).map(|nth| Duration::from_millis(nth * tick)) {
            if left == 0 {
                return closed;
            }
            let now = retirement.due(left, start + tick);
            assert!((1..=left).contains(&now), "{now} of {left}");
            left -= now;
            closed.push(now);
        }
        unreachable!()
    }

    #[test]
    fn many_connections_are_closed_evenly_and_in_time() {
        let closed = retire(1000, RETIRE_OVER, 250);
        // At 0 s, 0.25 s, ... 10 s.
        assert_eq!(closed.len(), 41);
        assert_eq!(closed.iter().sum::<usize>(), 1000);
        // The one at 0 s is part of the first quarter's share.
        assert_eq!((closed[0], closed[1]), (1, 24));
        assert!(closed[2..].iter().all(|closed| *closed == 25), "{closed:?}");
    }

    #[test]
    fn few_connections_go_one_per_tick() {
        assert_eq!(retire(3, RETIRE_OVER, 250), [1, 1, 1]);
        assert_eq!(retire(1, RETIRE_OVER, 250), [1]);
        assert!(retire(0, RETIRE_OVER, 250).is_empty());
    }

    #[test]
    fn rare_ticks_close_what_has_come_due_meanwhile() {
        assert_eq!(retire(100, RETIRE_OVER, 4000), [1, 39, 40, 20]);
    }

    #[test]
    fn no_time_means_at_once() {
        assert_eq!(retire(100, Duration::ZERO, 250), [100]);
    }

    #[test]
    fn what_came_back_late_is_closed_as_soon_as_the_time_is_over() {
        let start = clock::now();
        let retirement = Retirement::new(10, start, RETIRE_OVER);
        for seconds in [10, 11, 1_000_000] {
            assert_eq!(retirement.due(7, start + Duration::from_secs(seconds)), 7);
        }
        assert_eq!(retirement.due(0, start), 0);
    }

    #[test]
    fn absurd_figures_do_not_overflow() {
        let start = clock::now();
        let retirement = Retirement::new(usize::MAX, start, Duration::MAX);
        assert!(retirement.due(usize::MAX, start) >= 1);
        assert_eq!(retirement.due(1, start + Duration::from_secs(1)), 1);
        // More than there were, for instance by dials that were under way.
        let retirement = Retirement::new(1, start, RETIRE_OVER);
        assert_eq!(retirement.due(5, start), 4);
    }
}
