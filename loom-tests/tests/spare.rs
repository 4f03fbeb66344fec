//! Dials in the background beside callers that line up.
#![cfg(loom)]

use corepool::model::{GroupLimits, Outcome};
use loom_tests::{House, NOW, ONE, ROOMY, S0, S1, model, outcome, spawn};

/// INV-5: a dial in the background takes the one permit, finds its shard full and puts the permit
/// back, while a caller lines up on a shard that has room.
#[test]
fn spare_dial_that_finds_no_slot_vs_line_up() {
    model(|| {
        let house = House::new(2, 1, ROOMY);
        // The one slot of the first shard is taken, one permit of two is left.
        let held = house.open(S0);
        let spare = spawn({
            let house = house.clone();
            move || house.engine.dial_spare(&house.seats[0], NOW).is_ok()
        });
        let waiter = house.line_up(&house, S1);
        // It may find the slot of the other shard; then its connection serves the caller.
        spare.join().unwrap();
        let done = house.drive();
        let got = outcome(&waiter);
        assert!(
            matches!(got, Some(Outcome::Ready(_))),
            "INV-5: {done:?} {got:?}, a permit and a slot are free"
        );
        if let Some(Outcome::Ready(lease)) = got {
            house.engine.give_back(lease, NOW);
        }
        house.engine.give_back(held, NOW);
        house.finish();
    });
}

/// INV-5: the same for a group that is resumed meanwhile.
#[test]
fn spare_dial_of_a_held_group_vs_resume() {
    model(|| {
        let house = House::new(1, 2, GroupLimits { min_idle: 1, ..ONE });
        house.engine.hold(&house.group);
        let waiter = house.line_up(&house, S0);
        let spare = spawn({
            let house = house.clone();
            move || house.engine.dial_spare(&house.seats[0], NOW).is_ok()
        });
        house.engine.resume(&house.seats[0], NOW);
        spare.join().unwrap();
        let done = house.drive();
        let got = outcome(&waiter);
        assert!(matches!(got, Some(Outcome::Ready(_))), "INV-5: {done:?} {got:?}");
        if let Some(Outcome::Ready(lease)) = got {
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-2: a group's first dials begin as a tending pass looks what is missing: each is counted as
/// owed or as under way, so none is begun twice.
#[test]
fn tend_vs_dial_owed() {
    model(|| {
        let house = House::new(1, 3, GroupLimits { min_idle: 1, ..ROOMY });
        house.group.begin(1);
        let maker = spawn({
            let house = house.clone();
            move || house.engine.dial_owed(&house.seats, NOW)
        });
        house.engine.tend(&house.seats, NOW);
        maker.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-2: dials for one that shall rest");
        house.finish();
    });
}

/// INV-2: two begin the dials that are owed to a group: each is begun once.
#[test]
fn dial_owed_vs_dial_owed() {
    model(|| {
        let house = House::new(1, 3, GroupLimits { max_live: 3, max_idle: 3, ..ROOMY });
        house.group.begin(2);
        let maker = spawn({
            let house = house.clone();
            move || house.engine.dial_owed(&house.seats, NOW)
        });
        house.engine.dial_owed(&house.seats, NOW);
        maker.join().unwrap();
        // One that came beside the other left the rest to it.
        assert_eq!(house.drive().dials, 2, "INV-2: dials for two");
        house.finish();
    });
}

/// INV-2: a caller's dials ahead of need begin beside those of a tending pass: each may see what
/// lacks, and together they make no more than the ratio asks for.
#[test]
fn dial_ahead_vs_tend() {
    model(|| {
        let limits = GroupLimits { max_live: 4, max_idle: 4, preconnect_percent: 200, ..ROOMY };
        let house = House::new(1, 4, limits);
        let tender = spawn({
            let house = house.clone();
            move || house.engine.dial_missing(&house.seats, NOW)
        });
        let waiter = house.line_up(&house, S0);
        tender.join().unwrap();
        // It may have had the turn before the caller came.
        house.engine.tend(&house.seats, NOW);
        assert_eq!(house.drive().dials, 2, "INV-2: dials for one caller and one ahead");
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) => house.engine.give_back(lease, NOW),
            got => panic!("INV-5: {got:?}, and two were dialled"),
        }
        house.finish();
    });
}
