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
