//! What is known of one name, and when to ask again. A state machine without a resolver or a
//! clock.

use core::time::Duration;
use std::net::IpAddr;

use tokio::time::Instant;

use super::Answer;

/// For how long answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// The shortest time that an answer is kept, whatever its TTL.
    pub(crate) min_ttl: Duration,
    /// The longest. It wins over `min_ttl`.
    pub(crate) max_ttl: Duration,
    /// How long an answer without a TTL is kept; within the two above.
    pub(crate) default_ttl: Duration,
    /// How soon to ask again after a failure. Doubles with each failure in a row, as long as
    /// there is an older answer to go on with.
    pub(crate) min_retry: Duration,
    /// Where the doubling ends.
    pub(crate) max_retry: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(300),
            default_ttl: Duration::from_secs(30),
            min_retry: Duration::from_secs(1),
            max_retry: Duration::from_secs(30),
        }
    }
}

/// The addresses of one name.
#[derive(Debug)]
pub(crate) struct Names {
    lifetimes: Lifetimes,
    addresses: Vec<IpAddr>,
    next: Next,
    /// Failures in a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// Never asked.
    Now,
    UnderWay,
    At(Instant),
}

/// What the caller is to do about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// Ask the resolver, and report with [`Names::answered`] or [`Names::failed`]. Told once.
    Start,
    /// The answer is awaited.
    UnderWay,
    /// Nothing before this time.
    WaitUntil(Instant),
}

/// What a new answer changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Addresses that were not known before, in the new answer's order.
    pub(crate) appeared: Vec<IpAddr>,
    /// Addresses that were, in the old answer's order: their connections are to be retired.
    pub(crate) vanished: Vec<IpAddr>,
}

impl Names {
    pub(crate) fn new(lifetimes: Lifetimes) -> Self {
        Self { lifetimes, addresses: Vec::new(), next: Next::Now, failures: 0 }
    }

    /// Changes for how long the answers to come are kept.
    pub(crate) fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        self.lifetimes = lifetimes;
    }

    /// The addresses of the last answer, however old. Empty before the first one.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether [`Self::refresh`] would say to start.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        match self.next {
            Next::Now => true,
            Next::UnderWay => false,
            Next::At(at) => now >= at,
        }
    }

    /// What to do at `now`.
    pub(crate) fn refresh(&mut self, now: Instant) -> Refresh {
        match self.next {
            Next::UnderWay => Refresh::UnderWay,
            Next::At(at) if now < at => Refresh::WaitUntil(at),
            Next::At(_) | Next::Now => {
                self.next = Next::UnderWay;
                Refresh::Start
            }
        }
    }

    /// The resolver answered. An answer without an address is a failure.
    pub(crate) fn answered(&mut self, answer: Answer, now: Instant) -> Change {
        if answer.addresses.is_empty() {
            self.failed(now);
            return Change::default();
        }
        let Lifetimes { min_ttl, max_ttl, default_ttl, .. } = self.lifetimes;
        let ttl = answer.valid_for.unwrap_or(default_ttl).max(min_ttl).min(max_ttl);
        self.next = Next::At(now + ttl);
        self.failures = 0;
        let old = core::mem::replace(&mut self.addresses, answer.addresses);
        let without = |these: &[IpAddr], those: &[IpAddr]| {
            these.iter().copied().filter(|address| !those.contains(address)).collect()
        };
        Change {
            appeared: without(&self.addresses, &old),
            vanished: without(&old, &self.addresses),
        }
    }

    /// The resolver failed. The last answer stays in use: a server that is down for a while must
    /// not take origins with it that are up (RFC 8767).
    pub(crate) fn failed(&mut self, now: Instant) {
        let Lifetimes { min_retry, max_retry, .. } = self.lifetimes;
        // Without an answer somebody waits for each attempt.
        let doublings = if self.addresses.is_empty() { 0 } else { self.failures.min(31) };
        self.failures = self.failures.saturating_add(1);
        self.next = Next::At(now + min_retry.saturating_mul(1 << doublings).min(max_retry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn answer(lasts: &[u8], ttl: Option<u64>) -> Answer {
        let addresses: Vec<_> = lasts.iter().copied().map(address).collect();
        Answer::new(addresses, ttl.map(Duration::from_secs))
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_name_is_asked_for_at_once_and_once() {
        let start = clock::now();
        let mut names = Names::new(Lifetimes::default());
        assert_eq!(names.refresh(start), Refresh::Start);
        assert_eq!(names.refresh(after(start, 60)), Refresh::UnderWay);
        assert!(names.addresses().is_empty());
    }

    #[test]
    fn an_answer_is_kept_for_its_ttl_within_bounds() {
        let start = clock::now();
        let odd = Lifetimes { min_ttl: Duration::from_secs(600), ..Lifetimes::default() };
        let plain = Lifetimes::default();
        let rows = [
            (plain, Some(60), 60),
            (plain, Some(0), 1),
            (plain, Some(1), 1),
            (plain, Some(300), 300),
            (plain, Some(86_400), 300),
            (plain, Some(u64::MAX), 300),
            (plain, None, 30),
            (odd, Some(10), 300),
        ];
        for (lifetimes, ttl, kept) in rows {
            let mut names = Names::new(lifetimes);
            names.refresh(start);
            names.answered(answer(&[1], ttl), start);
            let due = after(start, kept);
            let just_before = due - Duration::from_millis(1);
            assert_eq!(names.refresh(just_before), Refresh::WaitUntil(due), "{ttl:?}");
            assert_eq!(names.refresh(due), Refresh::Start, "{ttl:?}");
        }
    }

    #[test]
    fn a_new_answer_tells_what_appeared_and_what_vanished() {
        let rows: [(&[u8], &[u8], &[u8]); 5] = [
            (&[1, 2, 3], &[1, 2, 3], &[]),
            // Another order is no change.
            (&[3, 1, 2], &[], &[]),
            (&[3, 4, 1], &[4], &[2]),
            (&[5], &[5], &[3, 4, 1]),
            (&[5, 6, 5], &[6], &[]),
        ];
        let now = clock::now();
        let mut names = Names::new(Lifetimes::default());
        for (lasts, appeared, vanished) in rows {
            let change = names.answered(answer(lasts, None), now);
            let expected = Change {
                appeared: answer(appeared, None).addresses,
                vanished: answer(vanished, None).addresses,
            };
            assert_eq!(change, expected, "{lasts:?}");
            assert_eq!(names.addresses(), answer(lasts, None).addresses);
        }
    }

    #[test]
    fn a_failed_refresh_keeps_the_old_answer_and_backs_off() {
        let mut now = clock::now();
        let mut names = Names::new(Lifetimes::default());
        names.answered(answer(&[1, 2], Some(5)), now);
        for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
            names.failed(now);
            assert_eq!(names.refresh(now), Refresh::WaitUntil(after(now, seconds)));
            assert_eq!(names.addresses(), answer(&[1, 2], None).addresses);
            now = after(now, seconds);
            assert_eq!(names.refresh(now), Refresh::Start);
        }
        // An answer ends the row of failures.
        let change = names.answered(answer(&[1, 2], Some(5)), now);
        assert_eq!(change, Change::default());
        names.failed(now);
        assert_eq!(names.refresh(now), Refresh::WaitUntil(after(now, 1)));
    }

    #[test]
    fn an_answer_without_an_address_is_a_failure() {
        let now = clock::now();
        let mut names = Names::new(Lifetimes::default());
        names.answered(answer(&[1], Some(60)), now);
        assert_eq!(names.answered(answer(&[], Some(60)), now), Change::default());
        assert_eq!(names.addresses(), [address(1)]);
        assert_eq!(names.refresh(now), Refresh::WaitUntil(after(now, 1)));
    }

    #[test]
    fn without_any_answer_there_is_no_long_wait() {
        let mut now = clock::now();
        let mut names = Names::new(Lifetimes::default());
        for _ in 0..40 {
            assert_eq!(names.refresh(now), Refresh::Start);
            names.failed(now);
            assert_eq!(names.refresh(now), Refresh::WaitUntil(after(now, 1)));
            now = after(now, 1);
        }
    }

    #[test]
    fn endless_failures_do_not_overflow() {
        let now = clock::now();
        let mut names = Names::new(Lifetimes::default());
        names.answered(answer(&[1], None), now);
        names.failures = u32::MAX;
        names.failed(now);
        assert_eq!(names.refresh(now), Refresh::WaitUntil(after(now, 30)));
    }
}
