//! Limits that change under way: they hold again once what was above them has come back (INV-2),
//! and what a raise makes room for begins (INV-5).
#![cfg(loom)]

use corepool::model::{CloseReason, GroupLimits, TotalLimits};
use loom_tests::{House, NOW, ONE, Party, ROOMY, S0, bounded, model, sleep_for_lease, spawn};

/// INV-2: the idle cap sinks as a connection comes to rest beside another: one of them ends, now
/// or with the next pass.
#[test]
fn max_idle_lowered_vs_return() {
    bounded(2, || {
        let house = House::new(1, 2, ROOMY);
        let leases = [house.open(S0), house.open(S0)];
        let [one, two] = leases;
        house.engine.give_back(one, NOW);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(two, NOW)
        });
        house.engine.resize(&house.seats, &GroupLimits { max_idle: 1, ..ROOMY }, NOW);
        user.join().unwrap();
        house.engine.tend(&house.seats, NOW);
        assert_eq!(house.counts().idle, 1, "INV-2: the lowered cap");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-5: the limit rises as a caller lines up: its dial begins.
#[test]
fn max_live_raised_vs_wait() {
    model(|| {
        let house = House::new(1, 2, ONE);
        let lease = house.open(S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.resize(&house.seats, &ROOMY, NOW)
        });
        let waiter = house.line_up(&house, S0);
        owner.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        for lease in [sleep_for_lease(&waiter), lease] {
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-5: the same with the limit on dials.
#[test]
fn max_dialing_raised_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, GroupLimits { max_dialing: 1, ..ROOMY });
        let first = house.line_up(&house, S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.resize(&house.seats, &ROOMY, NOW)
        });
        let second = house.line_up(&house, S0);
        owner.join().unwrap();
        assert_eq!(house.drive().dials, 2, "INV-5: nobody dials for the caller");
        for waiter in [first, second] {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-5: the same with the pool's limit.
#[test]
fn max_live_total_raised_vs_wait() {
    bounded(2, || {
        let limit = |live| TotalLimits { max_live: Some(live), ..TotalLimits::default() };
        let house = House::with_totals(1, 2, ONE, limit(1));
        let other = Party::new(1, ONE);
        let lease = house.open(S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.resize_totals(&limit(2), NOW)
        });
        let waiter = house.line_up(&other, S0);
        owner.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        for lease in [sleep_for_lease(&waiter), lease] {
            house.engine.give_back(lease, NOW);
        }
        house.finish_with(&[&other]);
    });
}

/// INV-2, INV-5: the limit sinks as one of two connections comes back to a caller in line: the
/// caller has it or the other one, and the limit holds once both have come back.
#[test]
fn max_live_lowered_vs_hand_off() {
    bounded(2, || {
        let house = House::new(1, 2, ROOMY);
        let [one, two] = [house.open(S0), house.open(S0)];
        let waiter = house.line_up(&house, S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.resize(&house.seats, &ONE, NOW)
        });
        house.engine.give_back(one, NOW);
        owner.join().unwrap();
        house.drive();
        house.engine.give_back(two, NOW);
        house.drive();
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.engine.tend(&house.seats, NOW);
        house.drive();
        assert_eq!(house.counts().live, 1, "INV-2: the lowered limit");
        assert_eq!(house.counts().closed[CloseReason::Shrunk as usize], 1);
        house.finish();
    });
}

/// INV-2: the pool's idle cap sinks as a connection comes to rest beside another.
#[test]
fn max_idle_total_lowered_vs_return() {
    bounded(2, || {
        let cap = |idle| TotalLimits { max_idle: Some(idle), ..TotalLimits::default() };
        let house = House::with_totals(1, 2, ROOMY, cap(2));
        let [one, two] = [house.open(S0), house.open(S0)];
        house.engine.give_back(one, NOW);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(two, NOW)
        });
        house.engine.resize_totals(&cap(1), NOW);
        user.join().unwrap();
        house.engine.tend_totals(NOW);
        assert_eq!((house.engine.total_idle(), house.counts().idle), (Some(1), 1), "INV-2");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-2: a connection above a lowered limit is gone as a tending pass looks: what rests within the
/// limit is not taken for one too many.
#[test]
fn tend_vs_vacate() {
    model(|| {
        let house = House::new(1, 2, ROOMY);
        let [one, two] = [house.open(S0), house.open(S0)];
        house.engine.resize(&house.seats, &ONE, NOW);
        house.engine.discard(one, CloseReason::Discarded);
        let place = house.closing(S0);
        house.engine.give_back(two, NOW);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(place, NOW)
        });
        house.engine.tend(&house.seats, NOW);
        driver.join().unwrap();
        assert_eq!(house.counts().idle, 1, "INV-2: closed although within the limit");
        house.finish();
    });
}

/// INV-2, INV-5: a tending pass that shrinks a group as a caller lines up: the caller has one of
/// those at rest, or the permit of one that ends.
#[test]
fn tend_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, ROOMY);
        let [one, two] = [house.open(S0), house.open(S0)];
        house.engine.resize(&house.seats, &ONE, NOW);
        for lease in [one, two] {
            house.engine.give_back(lease, NOW);
        }
        let tender = spawn({
            let house = house.clone();
            move || house.engine.tend(&house.seats, NOW)
        });
        let waiter = house.line_up(&house, S0);
        tender.join().unwrap();
        house.drive();
        house.expect_served(&waiter, NOW);
        house.engine.tend(&house.seats, NOW);
        house.drive();
        assert_eq!(house.counts().live, 1, "INV-2: the lowered limit");
        house.finish();
    });
}
