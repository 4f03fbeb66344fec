//! Happy Eyeballs (RFC 8305): which address of a name to dial, and when. A state machine without
//! sockets or a clock.

use core::{ops::RangeInclusive, time::Duration};
use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
};

use tokio::time::Instant;

/// How long an attempt is left alone before the next one starts beside it: the connection attempt
/// delay that RFC 8305 §8 recommends.
#[cfg(test)]
pub(crate) const DELAY: Duration = Duration::from_millis(250);
/// What RFC 8305 §8 allows that delay to be.
pub(crate) const DELAYS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(2);

/// One dial's race over the addresses of a name.
///
/// The caller asks [`Self::next`] what to do, does it, and asks again after each start, answer
/// and timer. The first attempt that succeeds wins.
#[derive(Debug)]
pub(crate) struct Eyeballs<E> {
    left: VecDeque<SocketAddr>,
    running: Vec<Attempt>,
    started: u32,
    delay: Duration,
    /// When the next attempt may start; now, without one.
    next_start: Option<Instant>,
    last_failure: Option<(SocketAddr, E)>,
    over: bool,
}

/// One connect of the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Its place in the order of starts, from zero.
    pub(crate) number: u32,
    pub(crate) address: SocketAddr,
}

/// What the caller is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<E> {
    /// Start this attempt, and ask again.
    Start(Attempt),
    /// Ask again at this time, or when an attempt has ended.
    WaitUntil(Instant),
    /// Ask again when an attempt has ended; no timer is needed.
    Wait,
    /// Every attempt failed; the last failure, and of which address. `None`: there was no address.
    /// Told once.
    Failed(Option<(SocketAddr, E)>),
    /// The race is over and its outcome told.
    Done,
}

impl<E> Eyeballs<E> {
    /// A race over what a resolver answered, in its order but for the families, which alternate
    /// (RFC 8305 §4, with a First Address Family Count of 1). An IPv6 address comes first. An
    /// address that is listed twice is tried once. `delay` is brought within [`DELAYS`].
    pub(crate) fn new(addresses: impl IntoIterator<Item = SocketAddr>, delay: Duration) -> Self {
        Self {
            left: interleave(addresses),
            running: Vec::new(),
            started: 0,
            delay: delay.clamp(*DELAYS.start(), *DELAYS.end()),
            next_start: None,
            last_failure: None,
            over: false,
        }
    }

    /// What to do at `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Step<E> {
        if self.over {
            return Step::Done;
        }
        if let Some(at) = self.next_start
            && now < at
            && !self.left.is_empty()
        {
            return Step::WaitUntil(at);
        }
        if let Some(address) = self.left.pop_front() {
            let attempt = Attempt { number: self.started, address };
            self.started += 1;
            self.running.push(attempt);
            self.next_start = Some(now + self.delay);
            return Step::Start(attempt);
        }
        if !self.running.is_empty() {
            return Step::Wait;
        }
        self.over = true;
        Step::Failed(self.last_failure.take())
    }

    /// An attempt failed: the next one, if there is one, may start at once. Of an attempt that is
    /// not under way any more, nothing.
    pub(crate) fn failed(&mut self, attempt: Attempt, error: E) {
        if self.end(attempt) {
            self.next_start = None;
            self.last_failure = Some((attempt.address, error));
        }
    }

    /// An attempt succeeded. When it is the first one, the race is over, and what is returned is
    /// to be cancelled. `None`: it comes too late; its connection is to be closed.
    #[cfg_attr(not(test), allow(dead_code))] // the worker drops a race that has a winner
    #[must_use = "the losers are to be cancelled, a late winner is to be closed"]
    pub(crate) fn succeeded(&mut self, attempt: Attempt) -> Option<Vec<Attempt>> {
        self.end(attempt).then(|| self.give_up().0)
    }

    /// Ends the race without a winner, for instance at the dial's deadline: what is to be
    /// cancelled, and the last failure so far.
    pub(crate) fn give_up(&mut self) -> (Vec<Attempt>, Option<(SocketAddr, E)>) {
        self.over = true;
        self.left.clear();
        (core::mem::take(&mut self.running), self.last_failure.take())
    }

    /// Takes an attempt off the list of those under way.
    fn end(&mut self, attempt: Attempt) -> bool {
        let place = self.running.iter().position(|running| *running == attempt);
        place.map(|place| self.running.swap_remove(place)).is_some()
    }
}

fn interleave(addresses: impl IntoIterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut seen = HashSet::new();
    let (mut v6, mut v4): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .filter(|address| seen.insert(*address))
        .partition(SocketAddr::is_ipv6);
    let mut order = VecDeque::with_capacity(v6.len() + v4.len());
    while !v6.is_empty() || !v4.is_empty() {
        order.extend(v6.pop_front());
        order.extend(v4.pop_front());
    }
    order
}

#[cfg(any(test, all(fuzzing, feature = "sim")))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
