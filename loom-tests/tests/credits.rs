//! The idle cap.
#![cfg(loom)]

use corepool::model::{CloseReason, GroupLimits, ShardId};
use loom_tests::{ALWAYS, House, NEVER, NOW, ROOMY, S0, S1, bounded, model, spawn};

const ONE_IDLE: GroupLimits = GroupLimits { max_idle: 1, ..ROOMY };

/// INV-2: two returns on one lane with room for one: exactly one rests.
#[test]
fn return_vs_return_on_one_lane() {
    model(|| two_returns(1, [S0, S0]));
}

/// INV-2: two returns on two lanes with room for one: exactly one rests.
#[test]
fn return_vs_return_on_two_lanes() {
    model(|| two_returns(2, [S0, S1]));
}

fn two_returns(shards: u16, at: [ShardId; 2]) {
    let house = House::new(shards, 2, ONE_IDLE);
    let [one, two] = at.map(|shard| house.open(shard));
    let other = spawn({
        let house = house.clone();
        move || house.engine.give_back(one, NOW)
    });
    house.engine.give_back(two, NOW);
    other.join().unwrap();
    exactly_one_rests(&house);
}

/// INV-2: a lane takes its unused credit while a sibling raids it: exactly one rests.
#[test]
fn return_vs_raid() {
    bounded(2, || {
        let house = House::new(2, 2, ONE_IDLE);
        // The only credit is dealt to lane 0 and unused.
        house.rest_one(S0);
        let one = house.checkout(S0, NEVER).unwrap();
        let two = house.open(S1);
        let raid = spawn({
            let house = house.clone();
            move || house.engine.give_back(two, NOW)
        });
        house.engine.give_back(one, NOW);
        raid.join().unwrap();
        exactly_one_rests(&house);
    });
}

fn exactly_one_rests(house: &House) {
    let counts = house.counts();
    assert_eq!(counts.idle, 1, "INV-2: idle");
    assert_eq!(house.drive().closes, 1, "INV-2: the other one is closed");
    let surplus = house.counts().closed[CloseReason::Surplus as usize];
    assert_eq!(surplus, 1);
    house.finish();
}

/// INV-2: a checkout gives the credit back that a return at the same moment may need. With a cap
/// of one both outcomes are right, as long as the count is.
#[test]
fn checkout_vs_return_at_the_cap() {
    model(|| {
        let house = House::new(1, 2, ONE_IDLE);
        let lease = house.open(S0);
        house.rest_one(S0);
        let other = spawn({
            let house = house.clone();
            move || house.checkout(S0, ALWAYS)
        });
        house.engine.give_back(lease, NOW);
        let taken = other.join().unwrap().expect("one was at rest all the time");
        let resting = house.counts().idle;
        assert_eq!(resting as usize + house.drive().closes, 1, "INV-2");
        house.engine.discard(taken, CloseReason::Discarded);
        house.finish();
    });
}
