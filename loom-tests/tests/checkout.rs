//! Idle connections: who takes them, who puts them to rest, who ends them.
#![cfg(loom)]

use corepool::model::{CloseReason, GroupLimits, Tick};
use loom_tests::{
    ALWAYS, Conn, House, NEVER, NOW, ONE, Party, ROOMY, S0, S1, bounded, model, spawn,
};

/// INV-1: two checkouts of one idle connection on its own lane: exactly one gets it.
#[test]
fn checkout_vs_checkout() {
    model(|| {
        let house = House::new(1, 2, ROOMY);
        house.rest_one(S0);
        let other = spawn({
            let house = house.clone();
            move || house.checkout(S0, NEVER)
        });
        let ours = house.checkout(S0, NEVER);
        let theirs = other.join().unwrap();
        assert!(ours.is_some() ^ theirs.is_some(), "INV-1: ours={ours:?} theirs={theirs:?}");
        house.engine.give_back(ours.or(theirs).unwrap(), NOW);
        assert_eq!(house.counts().idle, 1);
        house.finish();
    });
}

/// INV-1: the owner's checkout and a sibling's theft of one idle connection: exactly one gets it.
#[test]
fn checkout_vs_steal() {
    model(|| {
        let house = House::new(2, 1, ROOMY);
        house.rest_one(S0);
        let thief = spawn({
            let house = house.clone();
            move || house.checkout(S1, ALWAYS)
        });
        let ours = house.checkout(S0, NEVER);
        let theirs = thief.join().unwrap();
        assert!(ours.is_some() ^ theirs.is_some(), "INV-1: ours={ours:?} theirs={theirs:?}");
        assert_eq!(house.counts().stolen, u64::from(theirs.is_some()));
        house.engine.give_back(ours.or(theirs).unwrap(), NOW);
        house.finish();
    });
}

/// INV-1: a connection that a sibling steals right after its return reaches the thief whole.
#[test]
fn return_vs_steal() {
    model(|| {
        let house = House::new(2, 1, ROOMY);
        let lease = house.open(S0);
        let thief = spawn({
            let house = house.clone();
            move || house.checkout(S1, ALWAYS)
        });
        house.engine.give_back(lease, NOW);
        match thief.join().unwrap() {
            Some(lease) => {
                assert_eq!(house.counts().idle, 0, "INV-2: stolen and still counted idle");
                house.engine.give_back(lease, NOW);
            }
            None => assert_eq!(house.counts().idle, 1, "INV-1: lost"),
        }
        house.finish();
    });
}

/// INV-1, INV-6: a checkout and a hang-up of one idle connection: either the watch ended it and
/// the checkout found nothing, or the lease bears the mark and its return ends it.
#[test]
fn checkout_vs_hang_up() {
    model(|| {
        let house = House::new(1, 2, ROOMY);
        let lease = house.open(S0);
        let slot = lease.index();
        house.engine.give_back(lease, NOW);
        let watch = spawn({
            let house = house.clone();
            move || house.engine.hang_up(S0, slot, CloseReason::PeerClosed, NOW)
        });
        let lease = house.checkout(S0, NEVER);
        watch.join().unwrap();
        if let Some(lease) = lease {
            assert!(house.engine.is_dead(&lease), "INV-6: neither closed nor marked");
            assert!(house.engine.next_duty(S0).is_none(), "INV-1: closed and leased");
            house.engine.give_back(lease, NOW);
        }
        assert_eq!(house.counts().idle, 0, "INV-6: a dead connection rests");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-1, INV-6: the middle one of three at rest hangs up as two callers check out: both have a
/// living one or the one that bears the mark, and nobody has what was closed.
#[test]
fn hang_up_mid_queue_vs_checkouts() {
    bounded(2, || {
        let limits = GroupLimits { max_live: 3, max_idle: 3, ..ROOMY };
        let house = House::new(1, 4, limits);
        let leases = [house.open(S0), house.open(S0), house.open(S0)];
        let middle = leases[1].index();
        for lease in leases {
            house.engine.give_back(lease, NOW);
        }
        let watch = spawn({
            let house = house.clone();
            move || house.engine.hang_up(S0, middle, CloseReason::PeerClosed, NOW)
        });
        let ours = [house.checkout(S0, NEVER), house.checkout(S0, NEVER)];
        watch.join().unwrap();
        for lease in ours {
            let lease = lease.expect("INV-3: a hint was lost: two of three live");
            let is_middle = lease.index() == middle;
            assert_eq!(house.engine.is_dead(&lease), is_middle, "INV-6");
            house.engine.give_back(lease, NOW);
        }
        assert_eq!(house.counts().idle, 2, "INV-2: at rest");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-1, INV-6: a return and a hang-up: whichever comes first, exactly one closes it.
#[test]
fn return_vs_hang_up() {
    model(|| {
        let house = House::new(1, 2, ROOMY);
        let lease = house.open(S0);
        let slot = lease.index();
        let watch = spawn({
            let house = house.clone();
            move || house.engine.hang_up(S0, slot, CloseReason::PeerClosed, NOW)
        });
        house.engine.give_back(lease, NOW);
        watch.join().unwrap();
        assert!(house.checkout(S0, ALWAYS).is_none(), "INV-6: handed out dead");
        assert_eq!(house.counts().idle, 0, "INV-2: a credit stayed out");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-1: a checkout and the sweep of a connection that rested too long: exactly one has it.
#[test]
fn checkout_vs_sweep() {
    const SHORT: GroupLimits = GroupLimits { idle_timeout_ms: 10, ..ROOMY };
    model(|| {
        let house = House::new(1, 2, SHORT);
        house.rest_one(S0);
        let late = Tick::from_millis(10);
        let sweep = spawn({
            let house = house.clone();
            move || house.engine.sweep(S0, late, &mut Vec::new())
        });
        let lease = house.checkout(S0, NEVER);
        let swept = sweep.join().unwrap();
        assert_eq!(usize::from(lease.is_none()), swept, "INV-1");
        if let Some(lease) = lease {
            // The deadline of the period that passed does not end the one that begins.
            house.engine.give_back(lease, late);
            assert_eq!(
                house.engine.sweep(S0, late, &mut Vec::new()),
                0,
                "INV-3: swept a fresh period"
            );
        }
        assert_eq!(house.drive().closes, swept);
        house.finish();
    });
}

/// INV-3: the sweep judges a connection that has just come to rest by its new deadline, and not
/// by the one that its last period left behind.
#[test]
fn return_vs_sweep() {
    const SHORT: GroupLimits = GroupLimits { idle_timeout_ms: 10, ..ROOMY };
    model(|| {
        let house = House::new(1, 1, SHORT);
        house.rest_one(S0);
        let lease = house.checkout(S0, NEVER).unwrap();
        let late = Tick::from_millis(10);
        let sweep = spawn({
            let house = house.clone();
            move || house.engine.sweep(S0, late, &mut Vec::new())
        });
        house.engine.give_back(lease, late);
        assert_eq!(sweep.join().unwrap(), 0, "swept by an old deadline");
        assert_eq!(house.counts().idle, 1);
        house.finish();
    });
}

/// INV-1: a hint whose generation came round (two bits under the model) names another group's
/// connection now. It never hands that one out, and its owner loses nothing.
#[test]
fn stale_hint_vs_other_group() {
    bounded(2, || {
        let house = House::new(1, 1, ROOMY);
        let other = Party::new(1, ROOMY);
        leave_a_hint_of_period_one(&house);
        // Generation 2 now. The other group's periods are 3, 0 and 1.
        let mut lease = house.open_for(&other, S0);
        for _ in 0..2 {
            house.engine.give_back(lease, NOW);
            lease = house.engine.checkout(&other.group, S0, NEVER).unwrap();
        }
        house.engine.give_back(lease, NOW);
        let stranger = spawn({
            let house = house.clone();
            move || house.checkout(S0, ALWAYS).is_none()
        });
        // May find nothing while the stranger puts it right.
        if let Some(mut lease) = house.engine.checkout(&other.group, S0, NEVER) {
            lease.tenant.conn.touch();
            house.engine.give_back(lease, NOW);
        }
        assert!(stranger.join().unwrap(), "INV-1: handed out another group's connection");
        let (ours, theirs) = (house.counts().idle, house.engine.counts(&other.group).idle);
        assert_eq!((ours, theirs), (0, 1), "INV-1: lost or booked on the wrong group");
        house.finish_with(&[&other]);
    });
}

/// INV-3: two hints of one lane name the same period, since the generation came round: still only
/// one checkout wins.
#[test]
fn stale_hint_vs_valid_hint() {
    model(|| {
        let house = House::new(1, 1, ROOMY);
        leave_a_hint_of_period_one(&house);
        // Generation 2; a rest and an end without a pop make it 3, then 0.
        house.rest_one(S0);
        end_the_idle_one(&house);
        house.rest_one(S0);
        let other = spawn({
            let house = house.clone();
            move || house.checkout(S0, NEVER)
        });
        let ours = house.checkout(S0, NEVER);
        let theirs = other.join().unwrap();
        assert!(ours.is_some() ^ theirs.is_some(), "INV-3: ours={ours:?} theirs={theirs:?}");
        house.engine.give_back(ours.or(theirs).unwrap(), NOW);
        house.finish();
    });
}

/// INV-3: a lane whose rings are full of stale hints makes room for two that come to rest at once.
#[test]
fn return_vs_return_on_a_full_ring() {
    bounded(2, || {
        let house = House::new(1, 8, GroupLimits { max_live: 8, ..ROOMY });
        let mut leases: Vec<_> = (0..8).map(|_| house.open(S0)).collect();
        // Two places near and four far, all stale: nobody looked for a connection meanwhile.
        for lease in leases.drain(2..) {
            house.engine.give_back(lease, NOW);
            end_the_idle_one(&house);
        }
        let [one, two] = leases.try_into().unwrap();
        let other = spawn({
            let house = house.clone();
            move || house.engine.give_back(one, NOW)
        });
        house.engine.give_back(two, NOW);
        other.join().unwrap();
        let found = [house.checkout(S0, NEVER), house.checkout(S0, NEVER)];
        let closed = house.drive().closes;
        let leased = found.iter().flatten().count();
        assert_eq!(leased + closed, 2, "INV-3: idle without a hint");
        assert_eq!(house.counts().idle, 0, "INV-3: idle without a hint");
        for lease in found.into_iter().flatten() {
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-4: taking a connection out of the pool and its hang-up: the owner keeps it, the place is
/// vacated once.
#[test]
fn detach_vs_hang_up() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let slot = lease.index();
        let watch = spawn({
            let house = house.clone();
            move || house.engine.hang_up(S0, slot, CloseReason::PeerClosed, NOW)
        });
        let mut conn: Conn = house.engine.detach(lease);
        conn.touch();
        watch.join().unwrap();
        assert_eq!(house.drive().closes, 1);
        house.finish();
    });
}

/// Leaves a hint in the lane that names slot 0 and period 1; the slot is vacant, generation 2.
fn leave_a_hint_of_period_one(house: &House) {
    house.rest_one(S0);
    end_the_idle_one(house);
}

/// Ends the idle connection of shard 0 and leaves its hint in the lane.
fn end_the_idle_one(house: &House) {
    assert_eq!(house.engine.sweep(S0, NOW.after(u32::MAX), &mut Vec::new()), 1);
    assert_eq!(house.drive().closes, 1);
}
