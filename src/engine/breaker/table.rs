//! The transition relation as text, a line for every event that a state accepts, and what the
//! breaker makes of it.

use super::{
    window::{Outcomes, Stamp},
    word::{Epoch, Phase},
    *,
};
use crate::engine::backoff::Deadline;

/// Two failures trip; two probes at once, two must succeed; open for 1 s, 2 s, 4 s.
pub(super) const RULES: BreakerRules = BreakerRules {
    enabled: true,
    consecutive: 2,
    rate_percent: 0,
    min_dials: 0,
    window_s: 10,
    probes: 2,
    successes: 2,
    backoff: BackoffRules {
        base_ms: 1000,
        multiplier_percent: 200,
        jitter_percent: 0,
        max_ms: 60_000,
    },
};
const NOW: Tick = Tick::from_millis(1_000_000);
const EPOCH: u64 = 7;

fn at(millis: u32) -> Tick {
    Tick::from_millis(millis)
}

/// Every state, with what it has to remember.
fn words() -> Vec<Word> {
    let closed = |outcomes: &str, age_s: u32| Phase::Closed {
        outcomes: outcomes.bytes().fold(Outcomes::NONE, |all, one| all.and(one == b'x')),
        stamp: Stamp::at(at(NOW.as_millis() - age_s * 1000), RULES.window_s),
    };
    let open = |left| Phase::Open { until: Deadline::new(NOW.after(left), NOW) };
    let word = |(phase, trips)| Word { phase, epoch: Epoch::from_bits(EPOCH), trips };
    [
        (closed("", 1), 0),
        (closed("x", 10), 1),
        (closed("x", 13), 1),
        (closed("...............................", 1), 1),
        (open(400), 1),
        (open(0), 1),
        (Phase::HalfOpen { out: 0, passed: 1 }, 1),
        (Phase::HalfOpen { out: 1, passed: 0 }, 1),
        (Phase::HalfOpen { out: 2, passed: 1 }, Word::MOST_TRIPS),
        (Phase::ForcedClosed, 0),
        (Phase::ForcedOpen, 0),
    ]
    .map(word)
    .into()
}

fn name(word: Word) -> String {
    let rest = match word.phase {
        Phase::Closed { outcomes, stamp } => {
            let (count, failures) = (outcomes.count(), outcomes.failures());
            let old = count > 0 && stamp.is_old(NOW, RULES.window_s);
            let old = if old { " old" } else { "" };
            format!("({failures}/{count}{old})")
        }
        Phase::Open { until } => format!("({})", until.left(NOW)),
        Phase::HalfOpen { out, passed } => format!("({out} out, {passed} passed)"),
        Phase::ForcedClosed | Phase::ForcedOpen => String::new(),
    };
    format!("{:?}{rest} t{}", word.state(), word.trips)
}

/// What each state makes of a dial.
fn dials(rules: &BreakerRules) -> String {
    let mut table = String::new();
    for word in words() {
        let outcomes = |epoch, probe| {
            let ticket = Ticket { epoch: Epoch::from_bits(epoch), probe };
            [Event::Success(ticket), Event::Failure(ticket), Event::Withdrawal(ticket)]
        };
        for late in [EPOCH - 1, EPOCH + 1, 0, 1023] {
            for event in [outcomes(late, false), outcomes(late, true)].concat() {
                let next = word.on(event, rules, NOW, 0);
                assert_eq!(next, None, "{} on {event:?}", name(word));
            }
        }
        let probe = word.state() == State::HalfOpen;
        if probe {
            for event in outcomes(EPOCH, false) {
                assert_eq!(word.on(event, rules, NOW, 0), None, "{} on {event:?}", name(word));
            }
        }
        line(&mut table, word, "Admit", word.on(Event::Admit, rules, NOW, 0));
        let names = ["Success", "Failure", "Withdrawal"];
        for (name, event) in names.into_iter().zip(outcomes(EPOCH, probe)) {
            line(&mut table, word, name, word.on(event, rules, NOW, 0));
        }
    }
    table
}

/// What each state makes of an order.
fn orders(rules: &BreakerRules) -> String {
    let mut table = String::new();
    for word in words() {
        let modes = [Mode::Auto, Mode::ForcedClosed, Mode::ForcedOpen];
        for event in modes.map(Event::Force).into_iter().chain([Event::Reset]) {
            line(&mut table, word, &format!("{event:?}"), word.on(event, rules, NOW, 0));
        }
    }
    table
}

fn line(table: &mut String, from: Word, event: &str, to: Option<Word>) {
    if let Some(to) = to {
        let to_name = if to == from { "=".to_owned() } else { name(to) };
        *table += &format!("{} {event} {to_name} +{}\n", name(from), to.epoch.bits() - EPOCH);
    }
}

#[test]
fn the_transition_table_is_the_one_in_the_figure() {
    assert_eq!(dials(&RULES), DIALS);
    assert_eq!(orders(&RULES), ORDERS);
}

#[test]
fn without_rules_every_dial_is_admitted_and_none_is_counted() {
    let off = BreakerRules { enabled: false, ..RULES };
    assert_eq!(dials(&off), DIALS_WITHOUT_RULES);
    assert_eq!(orders(&off), ORDERS);
}

const DIALS: &str = "\
Closed(0/0) t0 Admit = +0
Closed(0/0) t0 Success Closed(0/1) t0 +0
Closed(0/0) t0 Failure Closed(1/1) t0 +0
Closed(1/1) t1 Admit = +0
Closed(1/1) t1 Success Closed(1/2) t1 +0
Closed(1/1) t1 Failure Open(2000) t2 +1
Closed(1/1 old) t1 Admit = +0
Closed(1/1 old) t1 Success Closed(0/1) t0 +0
Closed(1/1 old) t1 Failure Closed(1/1) t0 +0
Closed(0/31) t1 Admit = +0
Closed(0/31) t1 Success Closed(0/32) t0 +0
Closed(0/31) t1 Failure Closed(1/32) t0 +0
Open(0) t1 Admit HalfOpen(1 out, 0 passed) t1 +1
HalfOpen(0 out, 1 passed) t1 Admit HalfOpen(1 out, 1 passed) t1 +0
HalfOpen(0 out, 1 passed) t1 Success Closed(0/0) t1 +1
HalfOpen(0 out, 1 passed) t1 Failure Open(2000) t2 +1
HalfOpen(0 out, 1 passed) t1 Withdrawal = +0
HalfOpen(1 out, 0 passed) t1 Admit HalfOpen(2 out, 0 passed) t1 +0
HalfOpen(1 out, 0 passed) t1 Success HalfOpen(0 out, 1 passed) t1 +0
HalfOpen(1 out, 0 passed) t1 Failure Open(2000) t2 +1
HalfOpen(1 out, 0 passed) t1 Withdrawal HalfOpen(0 out, 0 passed) t1 +0
HalfOpen(2 out, 1 passed) t31 Success Closed(0/0) t31 +1
HalfOpen(2 out, 1 passed) t31 Failure Open(60000) t31 +1
HalfOpen(2 out, 1 passed) t31 Withdrawal HalfOpen(1 out, 1 passed) t31 +0
ForcedClosed t0 Admit = +0
";

const ORDERS: &str = "\
Closed(0/0) t0 Force(ForcedClosed) ForcedClosed t0 +1
Closed(0/0) t0 Force(ForcedOpen) ForcedOpen t0 +1
Closed(0/0) t0 Reset Closed(0/0) t0 +1
Closed(1/1) t1 Force(ForcedClosed) ForcedClosed t0 +1
Closed(1/1) t1 Force(ForcedOpen) ForcedOpen t0 +1
Closed(1/1) t1 Reset Closed(0/0) t0 +1
Closed(1/1 old) t1 Force(ForcedClosed) ForcedClosed t0 +1
Closed(1/1 old) t1 Force(ForcedOpen) ForcedOpen t0 +1
Closed(1/1 old) t1 Reset Closed(0/0) t0 +1
Closed(0/31) t1 Force(ForcedClosed) ForcedClosed t0 +1
Closed(0/31) t1 Force(ForcedOpen) ForcedOpen t0 +1
Closed(0/31) t1 Reset Closed(0/0) t0 +1
Open(400) t1 Force(ForcedClosed) ForcedClosed t0 +1
Open(400) t1 Force(ForcedOpen) ForcedOpen t0 +1
Open(400) t1 Reset Closed(0/0) t0 +1
Open(0) t1 Force(ForcedClosed) ForcedClosed t0 +1
Open(0) t1 Force(ForcedOpen) ForcedOpen t0 +1
Open(0) t1 Reset Closed(0/0) t0 +1
HalfOpen(0 out, 1 passed) t1 Force(ForcedClosed) ForcedClosed t0 +1
HalfOpen(0 out, 1 passed) t1 Force(ForcedOpen) ForcedOpen t0 +1
HalfOpen(0 out, 1 passed) t1 Reset Closed(0/0) t0 +1
HalfOpen(1 out, 0 passed) t1 Force(ForcedClosed) ForcedClosed t0 +1
HalfOpen(1 out, 0 passed) t1 Force(ForcedOpen) ForcedOpen t0 +1
HalfOpen(1 out, 0 passed) t1 Reset Closed(0/0) t0 +1
HalfOpen(2 out, 1 passed) t31 Force(ForcedClosed) ForcedClosed t0 +1
HalfOpen(2 out, 1 passed) t31 Force(ForcedOpen) ForcedOpen t0 +1
HalfOpen(2 out, 1 passed) t31 Reset Closed(0/0) t0 +1
ForcedClosed t0 Force(Auto) Closed(0/0) t0 +1
ForcedClosed t0 Force(ForcedOpen) ForcedOpen t0 +1
ForcedOpen t0 Force(Auto) Closed(0/0) t0 +1
ForcedOpen t0 Force(ForcedClosed) ForcedClosed t0 +1
";

const DIALS_WITHOUT_RULES: &str = "\
Closed(0/0) t0 Admit = +0
Closed(1/1) t1 Admit = +0
Closed(1/1 old) t1 Admit = +0
Closed(0/31) t1 Admit = +0
Open(400) t1 Admit = +0
Open(0) t1 Admit = +0
HalfOpen(0 out, 1 passed) t1 Admit = +0
HalfOpen(0 out, 1 passed) t1 Success = +0
HalfOpen(0 out, 1 passed) t1 Failure = +0
HalfOpen(0 out, 1 passed) t1 Withdrawal = +0
HalfOpen(1 out, 0 passed) t1 Admit = +0
HalfOpen(1 out, 0 passed) t1 Success HalfOpen(0 out, 0 passed) t1 +0
HalfOpen(1 out, 0 passed) t1 Failure HalfOpen(0 out, 0 passed) t1 +0
HalfOpen(1 out, 0 passed) t1 Withdrawal HalfOpen(0 out, 0 passed) t1 +0
HalfOpen(2 out, 1 passed) t31 Admit = +0
HalfOpen(2 out, 1 passed) t31 Success HalfOpen(1 out, 1 passed) t31 +0
HalfOpen(2 out, 1 passed) t31 Failure HalfOpen(1 out, 1 passed) t31 +0
HalfOpen(2 out, 1 passed) t31 Withdrawal HalfOpen(1 out, 1 passed) t31 +0
ForcedClosed t0 Admit = +0
";

#[test]
fn a_word_survives_packing() {
    for word in words() {
        for trips in [0, 1, Word::MOST_TRIPS] {
            for epoch in [0, 1, 1023] {
                let word = Word { trips, epoch: Epoch::from_bits(epoch), ..word };
                assert_eq!(Word::unpack(word.pack()), word);
                let closed = matches!(word.state(), State::Closed | State::ForcedClosed);
                assert_eq!(Word::is_closed(word.pack()), closed);
            }
        }
    }
    let widest = Word {
        phase: Phase::Closed {
            outcomes: Outcomes::from_bits(u64::MAX),
            stamp: Stamp::from_bits(u64::MAX),
        },
        epoch: Epoch::from_bits(u64::MAX),
        trips: Word::MOST_TRIPS,
    };
    assert_eq!(Word::unpack(widest.pack()), widest);
}

fn change(from: State, to: State, open_for_ms: u32) -> Option<Change> {
    Some(Change { from, to, open_for_ms })
}

fn fail(breaker: &Breaker, now: u32) -> Option<Change> {
    breaker.failed(breaker.admit(&RULES, at(now)).unwrap(), &RULES, at(now), 0)
}

fn succeed(breaker: &Breaker, now: u32) -> Option<Change> {
    breaker.succeeded(breaker.admit(&RULES, at(now)).unwrap(), &RULES, at(now))
}

#[test]
fn the_round_of_an_outage() {
    use State::*;
    let breaker = Breaker::new();
    assert!(breaker.is_closed());
    assert_eq!(fail(&breaker, 0), None);
    let late = breaker.admit(&RULES, at(1)).unwrap();
    assert!(!late.is_probe());
    assert_eq!(fail(&breaker, 1), change(Closed, Open, 1000));
    assert!(!breaker.is_closed());
    assert_eq!(breaker.failed(late, &RULES, at(2), 0), None, "of an older period");

    let rejected = breaker.admit(&RULES, at(1000)).unwrap_err();
    assert_eq!(rejected, Rejected { state: Open, left_ms: 1 });
    assert_eq!((breaker.glance(at(1000)), breaker.glance(at(1001))), (Open, HalfOpen));
    let one = breaker.admit(&RULES, at(1001)).unwrap();
    assert_eq!((one.is_probe(), one.change()), (true, change(Open, HalfOpen, 0)));
    let two = breaker.admit(&RULES, at(1001)).unwrap();
    assert_eq!((two.is_probe(), two.change()), (true, None));
    let rejected = breaker.admit(&RULES, at(1001)).unwrap_err();
    assert_eq!(rejected, Rejected { state: HalfOpen, left_ms: 0 });

    breaker.withdrawn(two);
    let two = breaker.admit(&RULES, at(1002)).unwrap();
    assert_eq!(breaker.succeeded(one, &RULES, at(1003)), None, "one of two");
    assert_eq!(breaker.failed(two, &RULES, at(1004), 0), change(HalfOpen, Open, 2000));

    let one = breaker.admit(&RULES, at(3004)).unwrap();
    let two = breaker.admit(&RULES, at(3004)).unwrap();
    let third = breaker.admit(&RULES, at(3004)).unwrap_err();
    assert_eq!(third.state, HalfOpen);
    assert_eq!(breaker.succeeded(one, &RULES, at(3005)), None);
    assert_eq!(breaker.succeeded(two, &RULES, at(3005)), change(HalfOpen, Closed, 0));
    assert!(breaker.is_closed());
}

/// Trips, and closes with two probes. Returns the open time.
fn outage(breaker: &Breaker, now: u32) -> u32 {
    fail(breaker, now);
    let open_for = fail(breaker, now).unwrap().open_for_ms;
    succeed(breaker, now + open_for);
    assert!(succeed(breaker, now + open_for).is_some());
    open_for
}

#[test]
fn the_open_time_grows_until_a_window_of_outcomes_has_come_in() {
    let breaker = Breaker::new();
    assert_eq!(outage(&breaker, 0), 1000);
    succeed(&breaker, 1000);
    assert_eq!(outage(&breaker, 1000), 2000, "one success is not enough");
    for _ in 0..31 {
        succeed(&breaker, 3000);
    }
    fail(&breaker, 3000);
    fail(&breaker, 3000);
    succeed(&breaker, 5000);
    succeed(&breaker, 5000);
    assert_eq!(outage(&breaker, 5000), 2000, "32 outcomes without a trip forgave the two before");
}

#[test]
fn the_open_time_is_short_again_after_a_quiet_window() {
    let breaker = Breaker::new();
    assert_eq!(outage(&breaker, 0), 1000);
    assert_eq!(outage(&breaker, 11_000), 2000);
    assert_eq!(outage(&breaker, 13_000 + 12_500), 1000);
}

#[test]
fn force_holds_until_the_operator_lets_go() {
    use State::*;
    let breaker = Breaker::new();
    let off = BreakerRules { enabled: false, ..RULES };
    let pass = breaker.admit(&RULES, at(0)).unwrap();
    assert_eq!(breaker.force(Mode::ForcedOpen), change(Closed, ForcedOpen, 0));
    assert_eq!(breaker.force(Mode::ForcedOpen), None, "told once");
    assert_eq!(breaker.failed(pass, &RULES, at(0), 0), None);
    for rules in [RULES, off] {
        let rejected = breaker.admit(&rules, at(0)).unwrap_err();
        assert_eq!(rejected, Rejected { state: ForcedOpen, left_ms: u32::MAX });
    }
    assert_eq!(breaker.reset(), None);
    assert_eq!(breaker.force(Mode::ForcedClosed), change(ForcedOpen, ForcedClosed, 0));
    assert!(breaker.is_closed());
    assert!((0..99).all(|_| fail(&breaker, 0).is_none()));
    assert_eq!(breaker.force(Mode::Auto), change(ForcedClosed, Closed, 0));
    assert_eq!(breaker.force(Mode::Auto), None);
    assert_eq!(fail(&breaker, 0), None);
    assert_eq!(fail(&breaker, 0), change(Closed, Open, 1000));
    assert_eq!(breaker.force(Mode::ForcedClosed), change(Open, ForcedClosed, 0));
}

#[test]
fn a_reset_forgets_everything() {
    use State::*;
    let breaker = Breaker::new();
    let under_way = breaker.admit(&RULES, at(0)).unwrap();
    fail(&breaker, 0);
    assert_eq!(breaker.reset(), None, "closed before and after");
    assert_eq!(breaker.failed(under_way, &RULES, at(0), 0), None);
    assert_eq!(fail(&breaker, 0), None, "the first again");
    assert_eq!(fail(&breaker, 0), change(Closed, Open, 1000));
    assert_eq!(breaker.reset(), change(Open, Closed, 0));
    fail(&breaker, 0);
    assert_eq!(fail(&breaker, 0), change(Closed, Open, 1000), "the trips too");
    let probe = breaker.admit(&RULES, at(1000)).unwrap();
    assert_eq!(breaker.reset(), change(HalfOpen, Closed, 0));
    breaker.withdrawn(probe);
    assert!(breaker.is_closed());
}

#[test]
fn rules_that_are_switched_off_and_on_lose_no_probe() {
    let breaker = Breaker::new();
    let off = BreakerRules { enabled: false, ..RULES };
    fail(&breaker, 0);
    fail(&breaker, 0);
    let free = breaker.admit(&off, at(0)).unwrap();
    assert!(!free.is_probe());
    let one = breaker.admit(&RULES, at(1000)).unwrap();
    let two = breaker.admit(&RULES, at(1000)).unwrap();
    let extra = breaker.admit(&off, at(1000)).unwrap();
    assert!(breaker.admit(&RULES, at(1000)).is_err());
    assert_eq!(breaker.failed(free, &RULES, at(1000), 0), None);
    assert_eq!(breaker.failed(extra, &RULES, at(1000), 0), None, "no probe");
    assert_eq!(breaker.failed(one, &off, at(1000), 0), None, "no rule");
    let three = breaker.admit(&RULES, at(1000)).unwrap();
    assert!(three.is_probe());
    assert!(breaker.admit(&RULES, at(1000)).is_err());
    assert_eq!(breaker.succeeded(two, &RULES, at(1000)), None);
    assert!(breaker.succeeded(three, &RULES, at(1000)).is_some());
}

#[test]
fn rules_of_nothing_still_let_a_breaker_close() {
    let none = BreakerRules { probes: 0, successes: 0, ..RULES };
    let breaker = Breaker::new();
    fail(&breaker, 0);
    fail(&breaker, 0);
    let probe = breaker.admit(&none, at(1000)).unwrap();
    assert!(breaker.admit(&none, at(1000)).is_err());
    assert!(breaker.succeeded(probe, &none, at(1000)).is_some());
}

#[test]
fn an_open_breaker_ends_across_the_wrap_and_does_not_come_back() {
    let breaker = Breaker::new();
    let start = u32::MAX - 100;
    fail(&breaker, start);
    fail(&breaker, start);
    assert_eq!(breaker.admit(&RULES, at(100)).unwrap_err().left_ms, 799);
    for days in 0..49 {
        let now = at(899 + days * 86_400_000);
        assert_eq!(breaker.glance(now), State::HalfOpen, "day {days}");
    }
    assert!(breaker.admit(&RULES, at(899)).is_ok());
}

#[test]
fn a_state_is_the_label_that_dashboards_know_it_by() {
    let states =
        [State::Closed, State::ForcedClosed, State::Open, State::HalfOpen, State::ForcedOpen];
    let labels = ["closed", "forced_closed", "open", "half_open", "forced_open"];
    assert_eq!(states.map(State::as_str), labels);
    assert_eq!(states.map(|state| state.to_string()), labels);
}
