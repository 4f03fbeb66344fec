//! The attempts of one dial: the addresses of its endpoint, and which of them are being tried.

use std::{io, net::SocketAddr};

use tokio::time::Instant;

use crate::{
    backend::{Destination, DialId},
    eyeballs::{Attempt, Eyeballs, Step},
};

/// Decides what is tried when; who asks carries it out.
///
/// Any number of attempts may be under way. The first that succeeds wins, the others are given
/// up; when all have failed, the dial has failed for the reason of the last. Nothing is begun
/// after the deadline, and what is under way then is given up, but its answer is awaited: the
/// kernel may have connected meanwhile.
#[derive(Debug)]
pub(super) struct Attempts {
    plan: Plan,
    /// What is under way. The first is apart: most dials have but one, and no list to allocate.
    first: Option<UnderWay>,
    others: Vec<UnderWay>,
    deadline: Instant,
    /// When the race wants to be asked again.
    next: Option<Instant>,
    given_up: bool,
    last: Option<Failed>,
}

type UnderWay = (DialId, Option<Attempt>);

#[derive(Debug)]
enum Plan {
    /// One destination, until it is begun.
    One(Option<Destination>),
    /// The addresses of a name.
    Race(Box<Eyeballs<io::Error>>),
}

/// Why an attempt failed, and which address of a name it was.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) address: Option<SocketAddr>,
    pub(super) error: io::Error,
}

/// What to do about a dial.
#[derive(Debug)]
pub(super) enum Move {
    /// Try this; say so by [`Attempts::begun`].
    Begin(Destination, Option<Attempt>),
    /// Nothing, until an attempt ends or [`Attempts::timer`] has come.
    Wait,
    /// All was tried in vain; the last attempt failed for this reason, if there was any.
    Fail(Option<Failed>),
}

impl Attempts {
    /// One destination.
    pub(super) fn at(destination: Destination, deadline: Instant) -> Self {
        Self::new(Plan::One(Some(destination)), deadline)
    }

    /// The addresses of a name.
    pub(super) fn race(race: Eyeballs<io::Error>, deadline: Instant) -> Self {
        Self::new(Plan::Race(Box::new(race)), deadline)
    }

    fn new(plan: Plan, deadline: Instant) -> Self {
        let others = Vec::new();
        Self { plan, first: None, others, deadline, next: None, given_up: false, last: None }
    }

    /// What to do now. To be asked again until it says to wait or to fail.
    pub(super) fn next_move(&mut self, now: Instant) -> Move {
        self.next = None;
        if !self.given_up {
            let destination = match &mut self.plan {
                Plan::One(left) => left.take().map(|destination| (destination, None)),
                Plan::Race(race) => match race.next(now) {
                    Step::Start(attempt) => Some((Destination::Ip(attempt.address), Some(attempt))),
                    Step::WaitUntil(time) => {
                        self.next = Some(time);
                        None
                    }
                    Step::Wait | Step::Failed(_) | Step::Done => None,
                },
            };
            if let Some((destination, attempt)) = destination {
                return Move::Begin(destination, attempt);
            }
        }
        let is_under_way = self.first.is_some() || !self.others.is_empty();
        if is_under_way { Move::Wait } else { Move::Fail(self.last.take()) }
    }

    /// An attempt is under way.
    pub(super) fn begun(&mut self, id: DialId, attempt: Option<Attempt>) {
        match self.first {
            None => self.first = Some((id, attempt)),
            Some(_) => self.others.push((id, attempt)),
        }
    }

    /// When to look again: for [`Self::overdue`], and for the next move.
    pub(super) fn timer(&self) -> Option<Instant> {
        if self.given_up {
            return None;
        }
        Some(self.next.map_or(self.deadline, |next| next.min(self.deadline)))
    }

    /// The attempts to give up because the deadline has come.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<DialId> {
        if now < self.deadline { Vec::new() } else { self.cut_short() }
    }

    /// The attempts to give up because nobody waits for them.
    pub(super) fn cut_short(&mut self) -> Vec<DialId> {
        if self.given_up {
            return Vec::new();
        }
        self.given_up = true;
        if let Plan::Race(race) = &mut self.plan {
            race.give_up();
        }
        self.first.iter().chain(&self.others).map(|(id, _)| *id).collect()
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, id: DialId, error: io::Error) {
        let ended = self.first.take_if(|(first, _)| *first == id).or_else(|| {
            let place = self.others.iter().position(|(other, _)| *other == id)?;
            Some(self.others.swap_remove(place))
        });
        let Some((_, attempt)) = ended else {
            return;
        };
        let address = attempt.map(|attempt| attempt.address);
        if let (Plan::Race(race), Some(attempt)) = (&mut self.plan, attempt) {
            race.failed(attempt, io::Error::from(error.kind()));
        }
        self.last = Some(Failed { address, error });
    }

    /// An attempt succeeded: the others, which are to be given up.
    pub(super) fn won(self, winner: DialId) -> impl Iterator<Item = DialId> {
        let all = self.first.into_iter().chain(self.others);
        all.map(|(id, _)| id).filter(move |id| *id != winner)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 80).into()
    }

    fn race(count: u8, deadline: Instant) -> Attempts {
        let delay = Duration::from_millis(250);
        Attempts::race(Eyeballs::new((1..=count).map(address), delay), deadline)
    }

    fn begin(attempts: &mut Attempts, now: Instant, id: u32) -> Destination {
        match attempts.next_move(now) {
            Move::Begin(to, attempt) => {
                attempts.begun(DialId(id), attempt);
                to
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_next_address_is_tried_beside_one_that_does_not_answer() {
        let start = clock::now();
        let mut attempts = race(2, start + 4 * SECOND);
        assert_eq!(begin(&mut attempts, start, 1), Destination::Ip(address(1)));
        assert!(matches!(attempts.next_move(start), Move::Wait));
        let later = start + Duration::from_millis(250);
        assert_eq!(attempts.timer(), Some(later));
        assert_eq!(begin(&mut attempts, later, 2), Destination::Ip(address(2)));
        assert!(matches!(attempts.next_move(later), Move::Wait));
        assert_eq!(attempts.timer(), Some(start + 4 * SECOND));
        assert_eq!(attempts.won(DialId(2)).collect::<Vec<_>>(), [DialId(1)]);
    }

    #[test]
    fn a_refusal_starts_the_next_at_once_and_the_last_one_is_told() {
        let start = clock::now();
        let mut attempts = race(2, start + SECOND);
        begin(&mut attempts, start, 1);
        attempts.failed(DialId(1), io::ErrorKind::ConnectionRefused.into());
        begin(&mut attempts, start, 2);
        attempts.failed(DialId(2), io::ErrorKind::HostUnreachable.into());
        let Move::Fail(Some(last)) = attempts.next_move(start) else { panic!() };
        assert_eq!(last.error.kind(), io::ErrorKind::HostUnreachable);
        assert_eq!(last.address, Some(address(2)));
    }

    #[test]
    fn what_is_overdue_is_given_up_once_and_its_answer_awaited() {
        let start = clock::now();
        let mut attempts = race(3, start + SECOND);
        begin(&mut attempts, start, 1);
        assert!(attempts.overdue(start).is_empty());
        assert_eq!(attempts.overdue(start + SECOND), [DialId(1)]);
        assert!(attempts.overdue(start + SECOND).is_empty());
        assert_eq!(attempts.timer(), None);
        assert!(matches!(attempts.next_move(start + SECOND), Move::Wait), "nothing is begun");
        attempts.failed(DialId(1), io::ErrorKind::TimedOut.into());
        assert!(matches!(attempts.next_move(start + SECOND), Move::Fail(Some(_))));
    }

    #[test]
    fn the_first_is_begun_however_late() {
        let start = clock::now();
        let mut attempts = Attempts::at(Destination::Ip(address(1)), start);
        assert_eq!(begin(&mut attempts, start + SECOND, 1), Destination::Ip(address(1)));
        assert_eq!(attempts.timer(), Some(start));
    }

    #[test]
    fn a_name_without_an_address_fails_without_a_reason() {
        let now = clock::now();
        assert!(matches!(race(0, now + SECOND).next_move(now), Move::Fail(None)));
    }
}
