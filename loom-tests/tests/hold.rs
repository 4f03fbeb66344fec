//! A group that is held serves nobody; when it is resumed nobody is left behind (INV-5).
#![cfg(loom)]

use corepool::model::{CloseReason, Failure, GroupLimits, Outcome};
use loom_tests::{
    ALWAYS, Conn, House, NOW, ONE, ROOMY, S0, bounded, model, outcome, sleep_for_lease, spawn,
};

/// INV-5: a hold and a return with a caller in line: the hand-off began before, or the connection
/// rests until the group is resumed.
#[test]
fn hold_vs_return() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let waiter = house.line_up(&house, S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        assert!(house.engine.hold(&house.group));
        user.join().unwrap();
        if waiter.is_filled() {
            assert_eq!((house.counts().idle, house.counts().waiting), (0, 0), "INV-1");
        } else {
            assert_eq!((house.counts().idle, house.counts().waiting), (1, 1), "INV-1: lost");
        }
        assert!(house.engine.resume(&house.seats[0], NOW));
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a return, and a caller that comes after the hold: it is not served before the group is
/// resumed, and then it is.
#[test]
fn return_vs_wait_while_held() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        house.engine.hold(&house.group);
        assert!(house.checkout(S0, ALWAYS).is_none(), "handed out while held");
        let waiter = house.line_up(&house, S0);
        user.join().unwrap();
        assert!(!waiter.is_filled(), "served while held");
        house.engine.resume(&house.seats[0], NOW);
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a hold and a dial that succeeds: its caller has it, or it rests until the group is
/// resumed.
#[test]
fn hold_vs_fulfil() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok())
        });
        house.engine.hold(&house.group);
        driver.join().unwrap();
        assert_eq!(house.counts().dialing, 0, "INV-2");
        house.engine.resume(&house.seats[0], NOW);
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a resume and a return with a caller in line.
#[test]
fn resume_vs_return() {
    bounded(2, || returned_to_a_resumed_group(ONE));
}

/// INV-5: the same with a lane whose queue fences nothing: the engine's own fences are all.
#[test]
fn resume_vs_return_of_the_youngest() {
    bounded(2, || returned_to_a_resumed_group(GroupLimits { lifo: 1, ..ONE }));
}

fn returned_to_a_resumed_group(limits: GroupLimits) {
    let house = House::new(1, 1, limits);
    let lease = house.open(S0);
    house.engine.hold(&house.group);
    let waiter = house.line_up(&house, S0);
    let user = spawn({
        let house = house.clone();
        move || house.engine.give_back(lease, NOW)
    });
    house.engine.resume(&house.seats[0], NOW);
    user.join().unwrap();
    house.expect_served(&waiter, NOW);
    house.finish();
}

/// INV-5: a resume and a caller that lines up while a connection rests.
#[test]
fn resume_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        house.rest_one(S0);
        house.engine.hold(&house.group);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.resume(&house.seats[0], NOW)
        });
        let waiter = house.line_up(&house, S0);
        assert!(owner.join().unwrap());
        house.expect_served(&waiter, NOW);
        house.finish();
    });
}

/// INV-5: a resume and a caller that lines up for a dial.
#[test]
fn resume_vs_wait_that_dials() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        house.engine.hold(&house.group);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.resume(&house.seats[0], NOW)
        });
        let waiter = house.line_up(&house, S0);
        assert!(owner.join().unwrap());
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a resume and a dial that succeeds, begun before the hold.
#[test]
fn resume_vs_fulfil() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        house.engine.hold(&house.group);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok())
        });
        house.engine.resume(&house.seats[0], NOW);
        driver.join().unwrap();
        house.expect_served(&waiter, NOW);
        house.finish();
    });
}

/// INV-5: a resume and a dial that is given up without a cause: a new one begins.
#[test]
fn resume_vs_given_up_dial() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        house.engine.hold(&house.group);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.abandon(&dial, Failure::GivenUp, NOW))
        });
        house.engine.resume(&house.seats[0], NOW);
        driver.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a resume and the end of a connection whose permit a caller in line needs.
#[test]
fn resume_vs_vacate() {
    bounded(2, || {
        let house = House::new(1, 2, ONE);
        let lease = house.open(S0);
        house.engine.hold(&house.group);
        let waiter = house.line_up(&house, S0);
        house.engine.discard(lease, CloseReason::Discarded);
        let place = house.closing(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(place, NOW)
        });
        house.engine.resume(&house.seats[0], NOW);
        driver.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a resume and a dial for nobody that the hold refuses: it has the permit for a moment,
/// and a caller in line must not lose its dial by that.
#[test]
fn resume_vs_spare_dial() {
    bounded(2, || {
        let house = House::new(1, 2, ONE);
        house.engine.hold(&house.group);
        let waiter = house.line_up(&house, S0);
        let tender = spawn({
            let house = house.clone();
            move || house.engine.dial_spare(&house.seats[0], NOW).is_ok()
        });
        house.engine.resume(&house.seats[0], NOW);
        tender.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-9: a close and a resume: the caller in line is told of the close, or served before it.
#[test]
fn resume_vs_close() {
    bounded(2, || {
        let house = House::new(1, 1, ROOMY);
        house.rest_one(S0);
        house.engine.hold(&house.group);
        let waiter = house.line_up(&house, S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.resume(&house.seats[0], NOW)
        });
        house.engine.close(&house.group);
        assert!(owner.join().unwrap());
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) => house.engine.give_back(lease, NOW),
            Some(Outcome::Closed) => {}
            found => panic!("INV-5: {found:?}"),
        }
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        house.finish();
    });
}
