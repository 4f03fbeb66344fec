//! The breaker between callers and their dials: who may not have one is told (INV-5), and no more
//! probes begin than may (INV-8).
#![cfg(loom)]

use corepool::model::{
    BreakerMode, BreakerState, Failure, GroupLimits, Outcome, Refused, Tick, TotalLimits,
};
use loom::sync::Arc;
use loom_tests::{
    Cause, Conn, House, NEVER, NOW, Party, ROOMY, S0, Waiting, bounded, outcome, spawn,
};

/// Opens for a second at the first failure; one probe.
const GATED: GroupLimits = GroupLimits {
    breaker: 1,
    breaker_consecutive: 1,
    breaker_rate_percent: 0,
    backoff_jitter_percent: 0,
    ..ROOMY
};
const GATED_ONE: GroupLimits = GroupLimits { max_live: 1, ..GATED };
/// When the open time is over.
const LATER: Tick = Tick::from_millis(1000);

/// A house whose breaker has tripped.
fn tripped(limits: GroupLimits) -> Arc<House> {
    let house = House::new(1, 2, limits);
    let waiter = house.line_up(&house, S0);
    let dial = house.dial(S0);
    assert!(house.engine.abandon(&dial, Failure::Peer("refused"), NOW));
    assert!(matches!(outcome(&waiter), Some(Outcome::Failed(_))));
    assert!(matches!(house.group.breaker_state(NOW), BreakerState::Open));
    house
}

fn line_up(house: &House, now: Tick) -> Result<Waiting, Refused> {
    house.engine.wait(&house.seats[0], NEVER, now)
}

/// What became of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Served,
    Failed,
    ToldOpen,
    InLine,
}

fn fate(house: &House, waiter: &Result<Waiting, Refused>, now: Tick) -> Fate {
    let found = match waiter {
        Ok(waiter) => outcome(waiter),
        Err(Refused::Open(_)) => return Fate::ToldOpen,
        Err(refused) => panic!("no policy says {refused:?}"),
    };
    match found {
        None => Fate::InLine,
        Some(Outcome::Ready(lease)) => {
            house.engine.give_back(lease, now);
            Fate::Served
        }
        Some(Outcome::Failed(_)) => Fate::Failed,
        Some(Outcome::Open(_)) => Fate::ToldOpen,
        Some(found) => panic!("{found:?}"),
    }
}

/// INV-5: a failed dial trips the breaker as another caller lines up: that one is told, or was
/// admitted before, never left.
#[test]
fn trip_vs_wait() {
    bounded(2, || failure_vs_wait(GATED, Failure::Peer("refused")));
}

/// INV-5: the same where the other has no permit before the failed dial gives its back.
#[test]
fn trip_vs_wait_for_the_permit() {
    bounded(1, || failure_vs_wait(GATED_ONE, Failure::Peer("refused")));
}

/// INV-5, INV-8: a failure of our own trips nothing: the other has a dial.
#[test]
fn local_failure_vs_wait() {
    bounded(2, || failure_vs_wait(GATED_ONE, Failure::Local("no descriptor")));
}

fn failure_vs_wait(limits: GroupLimits, failure: Failure<Cause>) {
    let trips = matches!(failure, Failure::Peer(_));
    let house = House::new(1, 2, limits);
    let first = line_up(&house, NOW);
    let dial = house.dial(S0);
    let driver = spawn({
        let house = house.clone();
        move || assert!(house.engine.abandon(&dial, failure, NOW))
    });
    let second = line_up(&house, NOW);
    driver.join().unwrap();
    house.drive();
    let fates = [&first, &second].map(|waiter| fate(&house, waiter, NOW));
    assert!(!fates.contains(&Fate::InLine), "INV-5: {fates:?}");
    // Where it trips, all may be told of that before the cause finds a caller in line.
    assert!(trips || fates.contains(&Fate::Failed), "nobody learned the cause: {fates:?}");
    assert!(trips || fates.contains(&Fate::Served), "INV-8: {fates:?}");
    assert_eq!((house.counts().waiting, house.counts().dialing), (0, 0), "INV-2");
    house.finish();
}

/// INV-8: two callers line up as the open time ends: exactly one probe, and the other is told.
#[test]
fn wait_vs_wait_at_the_expiry() {
    bounded(2, || {
        let house = tripped(GATED);
        let other = spawn({
            let house = house.clone();
            move || line_up(&house, LATER)
        });
        let ours = line_up(&house, LATER);
        let theirs = other.join().unwrap();
        let mut fates = [&ours, &theirs].map(|waiter| fate(&house, waiter, LATER));
        assert!(fates.contains(&Fate::ToldOpen), "INV-8: {fates:?}");
        assert_eq!(house.drive_at(LATER).dials, 1, "INV-8: probes");
        for (fate_before, waiter) in fates.iter_mut().zip([&ours, &theirs]) {
            if *fate_before == Fate::InLine {
                *fate_before = fate(&house, waiter, LATER);
            }
        }
        assert!(fates.contains(&Fate::Served), "INV-5: {fates:?}");
        assert!(matches!(house.group.breaker_state(LATER), BreakerState::Closed), "INV-8");
        house.finish();
    });
}

/// INV-8: two callers dial alone as the open time ends: exactly one probe.
#[test]
fn dial_alone_vs_dial_alone_at_the_expiry() {
    bounded(2, || {
        let house = tripped(GATED);
        let other = spawn({
            let house = house.clone();
            move || house.engine.dial_fresh(&house.seats[0], LATER)
        });
        let ours = house.engine.dial_fresh(&house.seats[0], LATER);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() ^ theirs.is_ok(), "INV-8: ours={ours:?} theirs={theirs:?}");
        assert_eq!(house.drive_at(LATER).dials, 1, "INV-8: probes");
        let waiter = ours.or(theirs).map_err(|_| Refused::Closed);
        assert_eq!(fate(&house, &waiter, LATER), Fate::Served);
        house.finish();
    });
}

/// INV-5, INV-8: the probe is given up as another caller lines up: its place comes back, and the
/// next probe serves one of them; the other is told.
#[test]
fn given_up_probe_vs_wait() {
    bounded(2, || {
        let house = tripped(GATED);
        let first = line_up(&house, LATER);
        let probe = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.abandon(&probe, Failure::GivenUp, LATER))
        });
        let second = line_up(&house, LATER);
        driver.join().unwrap();
        let dials = house.drive_at(LATER).dials;
        let fates = [&first, &second].map(|waiter| fate(&house, waiter, LATER));
        assert!(!fates.contains(&Fate::InLine), "INV-5: {fates:?}");
        let served = fates.iter().filter(|fate| **fate == Fate::Served).count();
        assert!(served > 0 || dials == 0, "INV-8: a probe for nobody: {fates:?}");
        // The place is free again, whatever became of the callers.
        let third = line_up(&house, LATER);
        house.drive_at(LATER);
        assert_eq!(fate(&house, &third, LATER), Fate::Served, "INV-8: the probe's place is lost");
        house.finish();
    });
}

/// INV-7, INV-8: the caller that a probe is for leaves as the probe succeeds: the breaker closes all
/// the same, and the connection rests.
#[test]
fn probe_vs_cancel() {
    bounded(2, || {
        let house = tripped(GATED);
        let caller = house.engine.dial_fresh(&house.seats[0], LATER).unwrap();
        let probe = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.fulfil(&probe, Conn::new(), LATER).is_ok())
        });
        house.engine.cancel(&caller, &house.group);
        driver.join().unwrap();
        assert!(matches!(house.group.breaker_state(LATER), BreakerState::Closed), "INV-8");
        let counts = house.counts();
        assert_eq!((counts.idle, counts.dialing), (1, 0), "INV-7: lost on the way");
        house.finish();
    });
}

/// INV-7, INV-8: the caller that a probe is for leaves as the driver gives the probe up: its place
/// comes back, once, and the next probe has it.
#[test]
fn given_up_probe_vs_cancel() {
    bounded(2, || {
        let house = tripped(GATED);
        let caller = house.engine.dial_fresh(&house.seats[0], LATER).unwrap();
        let probe = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.abandon(&probe, Failure::GivenUp, LATER))
        });
        house.engine.cancel(&caller, &house.group);
        driver.join().unwrap();
        let next = house.engine.dial_fresh(&house.seats[0], LATER);
        assert!(next.is_ok(), "INV-8: the probe's place is lost");
        let another = house.engine.dial_fresh(&house.seats[0], LATER);
        assert!(another.is_err(), "INV-8: two probes where one may be out");
        assert_eq!(house.drive_at(LATER).dials, 1);
        assert_eq!(fate(&house, &next.map_err(|_| Refused::Closed), LATER), Fate::Served);
        house.finish();
    });
}

/// INV-5, INV-8: the probe succeeds and the breaker closes as another caller lines up: it is told
/// before, or has a dial or the probe's connection.
#[test]
fn close_of_the_breaker_vs_wait() {
    bounded(2, || {
        let house = tripped(GATED);
        let first = line_up(&house, LATER);
        let probe = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.fulfil(&probe, Conn::new(), LATER).is_ok())
        });
        let second = line_up(&house, LATER);
        driver.join().unwrap();
        house.drive_at(LATER);
        let fates = [&first, &second].map(|waiter| fate(&house, waiter, LATER));
        assert!(!fates.contains(&Fate::InLine), "INV-5: {fates:?}");
        assert!(fates.contains(&Fate::Served), "INV-5: {fates:?}");
        assert!(matches!(house.group.breaker_state(LATER), BreakerState::Closed), "INV-8");
        house.finish();
    });
}

/// INV-5: an operator forces the breaker open as a caller lines up: it is told, or was admitted
/// before.
#[test]
fn force_open_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, GATED);
        let operator = spawn({
            let house = house.clone();
            move || house.engine.force_breaker(&house.seats[0], BreakerMode::ForcedOpen, NOW)
        });
        let waiter = line_up(&house, NOW);
        operator.join().unwrap();
        let dials = house.drive().dials;
        let fate = fate(&house, &waiter, NOW);
        let expected = if dials == 1 { Fate::Served } else { Fate::ToldOpen };
        assert_eq!(fate, expected, "INV-5");
        house.finish();
    });
}

/// INV-5: the same where the pool's limit keeps the caller from a dial: nothing but the operator's
/// word can end its wait.
#[test]
fn force_open_vs_wait_at_the_pools_limit() {
    bounded(2, || {
        let totals = TotalLimits { max_live: Some(1), ..TotalLimits::default() };
        let house = House::with_totals(1, 2, GATED, totals);
        let other = Party::new(1, ROOMY);
        let lease = house.open_for(&other, S0);
        let operator = spawn({
            let house = house.clone();
            move || house.engine.force_breaker(&house.seats[0], BreakerMode::ForcedOpen, NOW)
        });
        let waiter = line_up(&house, NOW);
        operator.join().unwrap();
        assert_eq!(fate(&house, &waiter, NOW), Fate::ToldOpen, "INV-5");
        house.engine.give_back(lease, NOW);
        house.finish_with(&[&other]);
    });
}

/// INV-5: the breaker is reset as a caller lines up: it is told before or has a dial.
#[test]
fn reset_vs_wait() {
    bounded(2, || {
        let house = tripped(GATED);
        let operator = spawn({
            let house = house.clone();
            move || house.engine.reset_breaker(&house.seats[0], NOW)
        });
        let waiter = line_up(&house, NOW);
        operator.join().unwrap();
        let dials = house.drive().dials;
        let fate = fate(&house, &waiter, NOW);
        let expected = if dials == 1 { Fate::Served } else { Fate::ToldOpen };
        assert_eq!(fate, expected, "INV-5");
        house.finish();
    });
}
