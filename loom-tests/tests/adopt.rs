//! Connections that no caller in line was dialled for: adopted ones, those above the limit, spare
//! ones, and those in another's stead.
#![cfg(loom)]

use corepool::model::{CloseReason, Failure, GroupLimits, NoDial, Outcome};
use loom_tests::{
    Conn, House, NEVER, NOW, ONE, Party, ROOMY, S0, bounded, model, outcome, sleep_for_lease, spawn,
};

const ONE_ABOVE: GroupLimits = GroupLimits { max_overflow: 1, ..ONE };

/// INV-9: a connection is adopted as the group closes: it is refused, or ends.
#[test]
fn adopt_vs_close() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let owner = spawn({
            let house = house.clone();
            move || match house.engine.adopt(&house.seats[0], NOW) {
                Ok(place) => house.engine.begin(place),
                Err(refused) => assert_eq!(refused, NoDial::Closed),
            }
        });
        house.engine.close(&house.group);
        owner.join().unwrap();
        house.drive();
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        house.finish();
    });
}

/// INV-2, INV-5: a connection is adopted as a caller lines up and one may live: the caller has it,
/// or a dial of its own.
#[test]
fn adopt_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, ONE);
        let owner = spawn({
            let house = house.clone();
            move || match house.engine.adopt(&house.seats[0], NOW) {
                Ok(place) => assert!(house.engine.fulfil(&place, Conn::new(), NOW).is_ok()),
                Err(refused) => assert_eq!(refused, NoDial::NoPermit),
            }
        });
        let waiter = house.line_up(&house, S0);
        owner.join().unwrap();
        assert_eq!(house.counts().live, 1, "INV-2");
        house.drive();
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: an adoption is given up as a caller lines up: the permit that it had is the caller's.
#[test]
fn given_up_adoption_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, ONE);
        let place = house.engine.adopt(&house.seats[0], NOW).unwrap();
        let owner = spawn({
            let house = house.clone();
            move || assert!(house.engine.abandon(&place, Failure::GivenUp, NOW))
        });
        let waiter = house.line_up(&house, S0);
        owner.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a connection above the limit comes back as a caller lines up: the caller has it, or the
/// one that lives within the limit when that comes back.
#[test]
fn overflow_return_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 3, ONE_ABOVE);
        let pooled = house.open(S0);
        let caller = house.engine.dial_overflow(&house.seats[0], NOW).unwrap();
        house.drive();
        let above = sleep_for_lease(&caller);
        assert_eq!((house.counts().live, house.counts().overflow), (2, 1), "INV-2");
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(above, NOW)
        });
        let waiter = house.line_up(&house, S0);
        user.join().unwrap();
        house.drive();
        house.engine.give_back(pooled, NOW);
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.drive();
        assert!(house.counts().live <= 1, "INV-2: above the limit and at rest");
        house.finish();
    });
}

/// INV-2, INV-5: a connection above the limit comes back and takes the permit that comes free, as
/// a caller lines up for either: the caller has the connection or a dial.
#[test]
fn overflow_return_vs_vacate_vs_wait() {
    bounded(1, || {
        let house = House::new(1, 3, ONE_ABOVE);
        let pooled = house.open(S0);
        let caller = house.engine.dial_overflow(&house.seats[0], NOW).unwrap();
        house.drive();
        let above = sleep_for_lease(&caller);
        house.engine.discard(pooled, CloseReason::Discarded);
        let place = house.closing(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(above, NOW)
        });
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(place, NOW)
        });
        let waiter = house.line_up(&house, S0);
        user.join().unwrap();
        driver.join().unwrap();
        assert!(house.counts().live <= 2 && house.counts().overflow <= 1, "INV-2");
        house.drive();
        house.expect_served(&waiter, NOW);
        house.drive();
        assert!(house.counts().live <= 1, "INV-2: above the limit and at rest");
        house.finish();
    });
}

/// INV-2: two callers dial above the limit by one: one of them is refused.
#[test]
fn overflow_vs_overflow() {
    model(|| {
        let house = House::new(1, 3, ONE_ABOVE);
        let pooled = house.open(S0);
        let other = spawn({
            let house = house.clone();
            move || house.engine.dial_overflow(&house.seats[0], NOW)
        });
        let ours = house.engine.dial_overflow(&house.seats[0], NOW);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() ^ theirs.is_ok(), "INV-2: ours={ours:?} theirs={theirs:?}");
        house.drive();
        for lease in [sleep_for_lease(&ours.or(theirs).unwrap()), pooled] {
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-5: a caller that does not wait for a return leaves the line as the connection comes back:
/// it has it, or it rests.
#[test]
fn wait_for_dial_vs_return() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        let waiter = house.engine.wait_for_dial(&house.seats[0], NEVER, NOW);
        user.join().unwrap();
        if let Ok(waiter) = waiter {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        assert_eq!((house.counts().idle, house.counts().waiting), (1, 0), "INV-7: lost");
        house.finish();
    });
}

/// INV-5: a spare dial succeeds as a caller lines up: it is the caller's.
#[test]
fn spare_dial_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        house.engine.dial_spare(&house.seats[0], NOW).unwrap();
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok())
        });
        let waiter = house.line_up(&house, S0);
        driver.join().unwrap();
        house.expect_served(&waiter, NOW);
        house.finish();
    });
}

/// INV-5: a spare dial finds the tables of all shards full as a caller lines up, and counts on it:
/// the caller is told.
#[test]
fn refused_spare_dial_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        // Another group fills the shard.
        let other = Party::new(1, ONE);
        let blocker = house.open_for(&other, S0);
        let tender = spawn({
            let house = house.clone();
            move || house.engine.dial_spare(&house.seats[0], NOW)
        });
        let waiter = house.line_up(&house, S0);
        assert!(tender.join().unwrap().is_err(), "the table is full");
        assert!(matches!(outcome(&waiter), Some(Outcome::Exhausted)), "INV-5: left in line");
        house.engine.give_back(blocker, NOW);
        house.finish_with(&[&other]);
    });
}

/// INV-9: a connection is replaced as the group closes: the fresh one is the caller's to put back,
/// or none is dialled; both end.
#[test]
fn redial_vs_close() {
    model(|| {
        let house = House::new(1, 2, ROOMY);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.redial(lease, NOW)
        });
        house.engine.close(&house.group);
        match user.join().unwrap() {
            Ok(caller) => {
                house.drive();
                let lease = sleep_for_lease(&caller);
                house.engine.give_back(lease, NOW);
            }
            Err(refused) => assert_eq!(refused, NoDial::Closed),
        }
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        house.finish();
    });
}
