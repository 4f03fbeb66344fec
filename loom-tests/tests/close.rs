//! Closing a group: nothing rests in it, nobody waits in it, and all comes back (INV-9).
#![cfg(loom)]

use corepool::model::{CloseReason, Failure, Outcome, Refused};
use loom_tests::{
    ALWAYS, Conn, House, NEVER, NOW, ONE, ROOMY, S0, S1, bounded, model, outcome, sleep, spawn,
};

/// INV-5, INV-9: a close and a return: nothing stays idle in a closed group.
#[test]
fn close_vs_return() {
    model(|| {
        let house = House::new(1, 1, ROOMY);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        house.engine.close(&house.group);
        user.join().unwrap();
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        assert_eq!(house.drive().closes, 1);
        house.finish();
    });
}

/// INV-9: a close and a checkout of an idle connection: it is closed now or when it comes back.
#[test]
fn close_vs_checkout() {
    model(|| {
        let house = House::new(2, 1, ROOMY);
        house.rest_one(S1);
        let user = spawn({
            let house = house.clone();
            move || {
                if let Some(lease) = house.checkout(S0, ALWAYS) {
                    house.engine.give_back(lease, NOW);
                }
            }
        });
        house.engine.close(&house.group);
        user.join().unwrap();
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        assert_eq!(house.drive().closes, 1);
        house.finish();
    });
}

/// INV-5: a close and a caller that lines up: it is refused or told, never left.
#[test]
fn close_vs_wait() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let closer = spawn({
            let house = house.clone();
            move || house.engine.close(&house.group)
        });
        match house.engine.wait(&house.seats[0], NEVER, NOW) {
            Ok(waiter) => assert!(matches!(sleep(&waiter), Outcome::Closed)),
            Err(refused) => assert_eq!(refused, Refused::Closed),
        }
        closer.join().unwrap();
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5, INV-9: a close and a caller that a dial may start for: it is told or served; the dial,
/// if one began, ends as one connection opened and closed.
#[test]
fn close_vs_wait_that_dials() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let closer = spawn({
            let house = house.clone();
            move || house.engine.close(&house.group)
        });
        let waiter = house.engine.wait(&house.seats[0], NEVER, NOW);
        closer.join().unwrap();
        if let Ok(waiter) = waiter {
            assert!(matches!(outcome(&waiter), Some(Outcome::Closed)), "INV-5");
        }
        house.finish();
    });
}

/// INV-5, INV-9: a close and a dial that succeeds: its caller gets it or learns of the close.
#[test]
fn close_vs_fulfil() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.fulfil(&dial, Conn::new(), NOW).is_ok()
        });
        house.engine.close(&house.group);
        assert!(driver.join().unwrap(), "the peer is there");
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) => house.engine.give_back(lease, NOW),
            Some(Outcome::Closed) => {}
            other => panic!("INV-5: {other:?}"),
        }
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        house.finish();
    });
}

/// INV-4, INV-9: a drain closes the group and gives its dials up as one of them succeeds, too late
/// for anybody: it is closed at once or by its lease, once, and its slot comes back.
#[test]
fn late_dial_vs_drain() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let (house, dial) = (house.clone(), dial.clone());
            move || house.engine.fulfil(&dial, Conn::new(), NOW).is_ok()
        });
        house.engine.close(&house.group);
        let gave_up = house.engine.abandon(&dial, Failure::GivenUp, NOW);
        assert!(driver.join().unwrap() ^ gave_up, "INV-1: the ticket has two owners or none");
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) => house.engine.give_back(lease, NOW),
            Some(Outcome::Closed) => {}
            other => panic!("INV-5: {other:?}"),
        }
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        house.finish();
    });
}

/// INV-5: a close and a dial that fails: its caller learns of the one or of the other.
#[test]
fn close_vs_failed_dial() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.abandon(&dial, Failure::Peer("refused"), NOW)
        });
        house.engine.close(&house.group);
        assert!(driver.join().unwrap());
        assert!(matches!(outcome(&waiter), Some(Outcome::Closed | Outcome::Failed(_))), "INV-5");
        assert_eq!(house.drive().dials, 0, "a closed group dials");
        house.finish();
    });
}

/// INV-9: a close and the end of a connection that a caller waits for: no dial begins after it.
#[test]
fn close_vs_vacate() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        house.engine.discard(lease, CloseReason::Discarded);
        let waiter = house.line_up(&house, S0);
        let place = house.closing(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(place, NOW)
        });
        house.engine.close(&house.group);
        driver.join().unwrap();
        assert!(matches!(outcome(&waiter), Some(Outcome::Closed)), "INV-5");
        house.finish();
    });
}

/// INV-7: a close and a caller that leaves: it is counted out once.
#[test]
fn close_vs_cancel() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let waiter = house.line_up(&house, S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.cancel(&waiter, &house.group)
        });
        house.engine.close(&house.group);
        caller.join().unwrap();
        assert_eq!(house.counts().waiting, 0, "INV-7");
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-4: two closes at once end an idle connection once.
#[test]
fn close_vs_close() {
    model(|| {
        let house = House::new(1, 1, ROOMY);
        house.rest_one(S0);
        let other = spawn({
            let house = house.clone();
            move || house.engine.close(&house.group)
        });
        house.engine.close(&house.group);
        other.join().unwrap();
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}
