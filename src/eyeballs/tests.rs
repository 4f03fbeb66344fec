use super::*;
use crate::clock;

use Event::{Fails, Succeeds, Timer};
use Says::{Cancel, Done, Failed, Start, TooLate, Until, Wait};

fn six(last: u16) -> SocketAddr {
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 443).into()
}

fn four(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 443).into()
}

/// A race whose time is counted in milliseconds from its start.
struct Race {
    start: Instant,
    eyeballs: Eyeballs<&'static str>,
    begun: Vec<Attempt>,
}

/// What happens at a time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Timer,
    /// The attempt with this number.
    Fails(usize, &'static str),
    Succeeds(usize),
}

/// What the race says then.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    Start(SocketAddr),
    Until(u64),
    Wait,
    Failed(Option<(SocketAddr, &'static str)>),
    Done,
    Cancel(Vec<usize>),
    TooLate,
}

impl Race {
    fn new(addresses: impl IntoIterator<Item = SocketAddr>, delay: Duration) -> Self {
        let eyeballs = Eyeballs::new(addresses, delay);
        Self { start: clock::now(), eyeballs, begun: Vec::new() }
    }

    /// Lets an event happen, then does as told until there is nothing left to start.
    fn at(&mut self, millis: u64, event: Event) -> Vec<Says> {
        let mut says = Vec::new();
        match event {
            Timer => {}
            Fails(number, error) => self.eyeballs.failed(self.begun[number], error),
            Succeeds(number) => says.push(match self.eyeballs.succeeded(self.begun[number]) {
                Some(losers) => {
                    let mut losers: Vec<_> =
                        losers.iter().map(|loser| loser.number as usize).collect();
                    losers.sort_unstable();
                    Cancel(losers)
                }
                None => TooLate,
            }),
        }
        loop {
            let step = self.eyeballs.next(self.start + Duration::from_millis(millis));
            says.push(match step {
                Step::Start(attempt) => {
                    assert_eq!(attempt.number as usize, self.begun.len());
                    self.begun.push(attempt);
                    says.push(Start(attempt.address));
                    continue;
                }
                Step::WaitUntil(at) => Until((at - self.start).as_millis() as u64),
                Step::Wait => Wait,
                Step::Failed(failure) => Failed(failure),
                Step::Done => Done,
            });
            return says;
        }
    }
}

/// Plays a race by a table of time, event, and what is said then.
fn play(
    addresses: impl IntoIterator<Item = SocketAddr>,
    table: impl IntoIterator<Item = (u64, Event, Vec<Says>)>,
) {
    let mut race = Race::new(addresses, DELAY);
    for (millis, event, expected) in table {
        assert_eq!(race.at(millis, event), expected, "at {millis} ms, after {event:?}");
    }
}

#[test]
fn families_alternate_and_keep_the_resolvers_order() {
    let rows: [(&[SocketAddr], &[SocketAddr]); 6] = [
        (&[], &[]),
        (&[four(1), four(2)], &[four(1), four(2)]),
        (&[four(1), six(1)], &[six(1), four(1)]),
        (
            &[four(2), four(1), four(3), six(9), six(8)],
            &[six(9), four(2), six(8), four(1), four(3)],
        ),
        (&[six(3), six(1), six(2), four(1)], &[six(3), four(1), six(1), six(2)]),
        (&[four(1), four(1), six(1), four(1), six(1)], &[six(1), four(1)]),
    ];
    for (answer, order) in rows {
        assert_eq!(interleave(answer.iter().copied()), order);
    }
}

#[test]
fn a_blackholed_ipv6_costs_one_delay() {
    play(
        [four(1), six(1)],
        [
            (0, Timer, vec![Start(six(1)), Until(250)]),
            (249, Timer, vec![Until(250)]),
            (250, Timer, vec![Start(four(1)), Wait]),
            (270, Succeeds(1), vec![Cancel(vec![0]), Done]),
        ],
    );
}

#[test]
fn an_ipv6_that_answers_in_time_is_the_only_attempt() {
    play(
        [four(1), six(1)],
        [
            (0, Timer, vec![Start(six(1)), Until(250)]),
            (30, Succeeds(0), vec![Cancel(vec![]), Done]),
            (250, Timer, vec![Done]),
        ],
    );
}

#[test]
fn a_failure_starts_the_next_attempt_at_once() {
    play(
        [six(1), four(1), four(2)],
        [
            (0, Timer, vec![Start(six(1)), Until(250)]),
            (5, Fails(0, "refused"), vec![Start(four(1)), Until(255)]),
            (255, Timer, vec![Start(four(2)), Wait]),
            (260, Succeeds(2), vec![Cancel(vec![1]), Done]),
        ],
    );
}

#[test]
fn a_failure_of_an_earlier_attempt_starts_the_next_one_too() {
    play(
        [four(1), four(2), four(3)],
        [
            (0, Timer, vec![Start(four(1)), Until(250)]),
            (250, Timer, vec![Start(four(2)), Until(500)]),
            (300, Fails(0, "reset"), vec![Start(four(3)), Wait]),
        ],
    );
}

#[test]
fn when_all_fail_the_last_failure_is_told_with_its_address() {
    play(
        [six(1), four(1), four(2)],
        [
            (0, Timer, vec![Start(six(1)), Until(250)]),
            (250, Timer, vec![Start(four(1)), Until(500)]),
            (500, Timer, vec![Start(four(2)), Wait]),
            (600, Fails(2, "refused"), vec![Wait]),
            (700, Fails(0, "unreachable"), vec![Wait]),
            (800, Fails(1, "reset"), vec![Failed(Some((four(1), "reset")))]),
            (800, Timer, vec![Done]),
        ],
    );
}

#[test]
fn the_outcome_is_told_once() {
    let mut race = Race::new([four(1)], DELAY);
    race.at(0, Timer);
    assert_eq!(race.at(5, Fails(0, "refused")), [Failed(Some((four(1), "refused")))]);
    assert_eq!(race.at(5, Timer), [Done]);
}

#[test]
fn one_address_needs_no_timer() {
    play(
        [four(1)],
        [(0, Timer, vec![Start(four(1)), Wait]), (60_000, Succeeds(0), vec![Cancel(vec![]), Done])],
    );
}

#[test]
fn no_address_is_a_failure_without_one() {
    play([], [(0, Timer, vec![Failed(None)]), (0, Timer, vec![Done])]);
}

#[test]
fn ten_addresses_start_one_delay_apart() {
    let mut race = Race::new((1..=5).map(four).chain((1..=5).map(six)), DELAY);
    for number in 0..10 {
        let last = number / 2 + 1;
        let address = if number % 2 == 0 { six(last as u16) } else { four(last as u8) };
        let then = if number == 9 { Wait } else { Until(250 * (number + 1)) };
        assert_eq!(race.at(250 * number, Timer), [Start(address), then]);
    }
    assert_eq!(race.at(2600, Fails(4, "refused")), [Wait]);
    assert_eq!(race.at(2700, Succeeds(7)), [Cancel(vec![0, 1, 2, 3, 5, 6, 8, 9]), Done]);
}

#[test]
fn ten_refusals_take_no_time() {
    let mut race = Race::new((1..=10).map(four), DELAY);
    race.at(0, Timer);
    for number in 0..9 {
        let next = four(number as u8 + 2);
        let then = if number == 8 { Wait } else { Until(250) };
        assert_eq!(race.at(0, Fails(number, "refused")), [Start(next), then]);
    }
    assert_eq!(race.at(0, Fails(9, "refused")), [Failed(Some((four(10), "refused")))]);
}

#[test]
fn the_first_may_still_win_after_the_next_has_started() {
    play(
        [six(1), four(1)],
        [
            (0, Timer, vec![Start(six(1)), Until(250)]),
            (250, Timer, vec![Start(four(1)), Wait]),
            (260, Succeeds(0), vec![Cancel(vec![1]), Done]),
            (261, Succeeds(1), vec![TooLate, Done]),
            (262, Fails(1, "cancelled"), vec![Done]),
        ],
    );
}

#[test]
fn a_late_timer_starts_one_attempt_only() {
    play(
        [four(1), four(2), four(3)],
        [
            (0, Timer, vec![Start(four(1)), Until(250)]),
            (900, Timer, vec![Start(four(2)), Until(1150)]),
        ],
    );
}

#[test]
fn a_race_that_is_given_up_names_what_runs_and_what_failed_last() {
    let mut race = Race::new([six(1), four(1), four(2), four(3)], DELAY);
    race.at(0, Timer);
    race.at(10, Fails(0, "unreachable"));
    race.at(260, Timer);
    let (running, failure) = race.eyeballs.give_up();
    assert_eq!(
        running.iter().map(|attempt| attempt.address).collect::<Vec<_>>(),
        [four(1), four(2)]
    );
    assert_eq!(failure, Some((six(1), "unreachable")));
    assert_eq!(race.at(300, Timer), [Done]);
    assert_eq!(race.at(300, Succeeds(1)), [TooLate, Done]);
}

#[test]
fn the_delay_stays_within_its_bounds() {
    for (delay, kept) in [(0, 10), (9, 10), (10, 10), (250, 250), (2000, 2000), (60_000, 2000)] {
        let mut race = Race::new([four(1), four(2)], Duration::from_millis(delay));
        assert_eq!(race.at(0, Timer), [Start(four(1)), Until(kept)]);
    }
    assert!(DELAYS.contains(&DELAY));
}
