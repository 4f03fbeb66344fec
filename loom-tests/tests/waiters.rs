//! Callers that wait: nobody sleeps while a connection rests (INV-5), and nothing that is handed
//! over is lost (INV-7). At most one connection may live, so no dial covers a lost wake-up.
#![cfg(loom)]

use corepool::model::{CloseReason, GroupLimits, Outcome, Refused};
use loom::sync::Arc;
use loom_tests::{
    ALWAYS, House, Leased, NEVER, NOW, ONE, ROOMY, S0, S1, Waiting, bounded, model, outcome, sleep,
    sleep_for_lease, spawn,
};

/// INV-5: a return and a caller that lines up: the caller gets the connection.
#[test]
fn return_vs_wait() {
    model(|| {
        let house = House::new(1, 2, ONE);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        let waiter = house.line_up(&house, S0);
        let lease = sleep_for_lease(&waiter);
        user.join().unwrap();
        house.engine.give_back(lease, NOW);
        assert_eq!(house.counts().idle, 1);
        house.finish();
    });
}

/// INV-5: the same across shards, below the stealing threshold.
#[test]
fn return_vs_wait_on_a_sibling() {
    bounded(2, || {
        let house = House::new(2, 1, ONE);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        let waiter = house.line_up(&house, S1);
        let lease = sleep_for_lease(&waiter);
        user.join().unwrap();
        assert_eq!(lease.shard(), S0);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: the return's half of the edge alone. The caller is in line and looked at the lanes
/// before; then either the return sees it, or it would sleep for ever.
#[test]
fn return_vs_waiter_that_polls() {
    model(|| {
        let house = House::new(1, 2, ONE);
        let lease = house.open(S0);
        let caller = spawn({
            let house = house.clone();
            move || house.line_up(&house, S0)
        });
        house.engine.give_back(lease, NOW);
        let waiter = caller.join().unwrap();
        // Nobody acts any more: what is not settled by now never will be.
        house.expect_served(&waiter, NOW);
        house.finish();
    });
}

/// INV-5: of two callers one is served by the return and the other when that one returns it.
#[test]
fn return_vs_two_waits() {
    bounded(1, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let use_it = |house: &House| {
            let waiter = house.line_up(house, S0);
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        };
        let other = spawn({
            let house = house.clone();
            move || use_it(&house)
        });
        house.engine.give_back(lease, NOW);
        use_it(&house);
        other.join().unwrap();
        assert_eq!(house.counts().idle, 1, "INV-5");
        house.finish();
    });
}

/// INV-5: strict order of arrival: of two that stand in line, a return serves the first.
#[test]
fn return_vs_return_serves_in_order() {
    bounded(2, || {
        let house = House::new(1, 2, GroupLimits { max_live: 2, ..ROOMY });
        let (one, two) = (house.open(S0), house.open(S0));
        let first = house.line_up(&house, S0);
        let second = house.line_up(&house, S0);
        let other = spawn({
            let house = house.clone();
            move || house.engine.give_back(one, NOW)
        });
        let early = outcome(&second).is_some_and(|got| {
            let served = outcome(&first);
            let in_order = served.is_some();
            for got in [Some(got), served].into_iter().flatten() {
                put_back(&house, got);
            }
            !in_order
        });
        assert!(!early, "the second was served before the first");
        house.engine.give_back(two, NOW);
        other.join().unwrap();
        for waiter in [&first, &second] {
            if let Some(got) = outcome(waiter) {
                put_back(&house, got);
            }
        }
        assert_eq!(house.counts().waiting, 0, "INV-5");
        house.finish();
    });
}

fn put_back(house: &House, got: Outcome<loom_tests::Conn, loom_tests::Cause>) {
    match got {
        Outcome::Ready(lease) => house.engine.give_back(lease, NOW),
        other => panic!("expected a connection, got {other:?}"),
    }
}

/// INV-2: two callers line up where one more may wait: exactly one is refused, and the other is
/// served.
#[test]
fn wait_vs_wait_for_the_last_place() {
    model(|| {
        let house = House::new(1, 1, GroupLimits { max_waiters: 1, ..ONE });
        let lease = house.open(S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.wait(&house.seats[0], NEVER, NOW)
        });
        let ours = house.engine.wait(&house.seats[0], NEVER, NOW);
        let theirs = caller.join().unwrap();
        let (waiter, refused) = match (ours, theirs) {
            (Ok(waiter), Err(refused)) | (Err(refused), Ok(waiter)) => (waiter, refused),
            both => panic!("INV-2: {both:?}"),
        };
        assert!(matches!(refused, Refused::Full));
        house.engine.give_back(lease, NOW);
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-2, INV-7: a caller leaves the only place in line as another takes it: that one is refused or
/// has the place, and the place comes back.
#[test]
fn cancel_vs_wait_for_the_last_place() {
    model(|| {
        let house = House::new(1, 1, GroupLimits { max_waiters: 1, ..ONE });
        let lease = house.open(S0);
        let first = house.line_up(&house, S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.wait(&house.seats[0], NEVER, NOW)
        });
        house.engine.cancel(&first, &house.group);
        let waiter = match caller.join().unwrap() {
            Ok(waiter) => waiter,
            Err(Refused::Full) => house.line_up(&house, S0),
            other => panic!("{other:?}"),
        };
        house.engine.give_back(lease, NOW);
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-7: a caller that leaves while a return hands over: the connection is handed on or rests.
#[test]
fn cancel_vs_hand_off() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let waiter = house.line_up(&house, S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.cancel(&waiter, &house.group)
        });
        house.engine.give_back(lease, NOW);
        caller.join().unwrap();
        let counts = house.counts();
        assert_eq!((counts.idle, counts.waiting), (1, 0), "INV-7: lost on the way");
        house.finish();
    });
}

/// INV-5, INV-7: the first in line leaves while a return hands over: the second gets it.
#[test]
fn cancel_vs_hand_off_to_the_next() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let first = house.line_up(&house, S0);
        let second = house.line_up(&house, S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.cancel(&first, &house.group)
        });
        house.engine.give_back(lease, NOW);
        let lease = sleep_for_lease(&second);
        caller.join().unwrap();
        house.engine.give_back(lease, NOW);
        assert_eq!(house.counts().idle, 1, "INV-5");
        house.finish();
    });
}

/// INV-5, INV-7: one caller leaves, another arrives and a connection comes back, all at once.
#[test]
fn cancel_vs_wait_vs_return() {
    bounded(1, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let first = house.line_up(&house, S0);
        let leaver = spawn({
            let house = house.clone();
            move || house.engine.cancel(&first, &house.group)
        });
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        let second = house.line_up(&house, S0);
        let lease = sleep_for_lease(&second);
        leaver.join().unwrap();
        user.join().unwrap();
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: an idle connection hangs up while a caller lines up for it: the caller is served by it
/// (and finds the mark), or by the dial that its place makes room for.
#[test]
fn hang_up_vs_wait() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let slot = lease.index();
        house.engine.give_back(lease, NOW);
        let watch = spawn({
            let house = house.clone();
            move || house.engine.hang_up(S0, slot, CloseReason::PeerClosed, NOW)
        });
        let waiter = house.line_up(&house, S0);
        watch.join().unwrap();
        house.drive();
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.drive();
        assert_eq!(house.counts().waiting, 0);
        house.finish();
    });
}

/// INV-6: a connection that hung up in use comes back as a caller lines up: the caller gets
/// another one.
#[test]
fn dead_return_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let dead = lease.tenant.conn.id();
        house.engine.hang_up(S0, lease.index(), CloseReason::PeerClosed, NOW);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        let waiter = house.line_up(&house, S0);
        user.join().unwrap();
        house.drive();
        let lease = sleep_for_lease(&waiter);
        assert_ne!(lease.tenant.conn.id(), dead, "INV-6: handed over dead");
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a connection ends, by its lease, and its place is vacated while a caller lines up: the
/// caller's dial follows.
#[test]
fn discard_vs_wait() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || {
                house.engine.discard(lease, CloseReason::Discarded);
                house.drive();
            }
        });
        let waiter = house.line_up(&house, S0);
        user.join().unwrap();
        house.drive();
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a checkout of the only idle connection and a caller that lines up: one has it, and the
/// other gets it when it comes back.
#[test]
fn checkout_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        house.rest_one(S0);
        let other = spawn({
            let house = house.clone();
            move || {
                if let Some(lease) = house.checkout(S0, ALWAYS) {
                    house.engine.give_back(lease, NOW);
                }
            }
        });
        let waiter = house.line_up(&house, S0);
        let lease = sleep_for_lease(&waiter);
        other.join().unwrap();
        house.engine.give_back(lease, NOW);
        assert_eq!(house.counts().idle, 1);
        house.finish();
    });
}

/// A house whose only connection is in use, with a line of `live` callers that wait and, behind
/// them, more callers that left than a newcomer puts up with.
fn clogged(live: u32) -> (Arc<House>, Vec<Waiting>, Leased) {
    let limits = GroupLimits { max_waiters: live + 1, ..ONE };
    let house = House::new(1, 1, limits);
    let lease = house.open(S0);
    let waiters = (0..live).map(|_| house.line_up(&house, S0)).collect();
    for _ in 0..=limits.max_waiters {
        let waiter = house.line_up(&house, S0);
        house.engine.cancel(&waiter, &house.group);
    }
    (house, waiters, lease)
}

/// A newcomer that purges the line, and leaves if it was let in.
fn purge(house: &House) {
    match house.engine.wait(&house.seats[0], NEVER, NOW) {
        Ok(waiter) => house.engine.cancel(&waiter, &house.group),
        Err(refused) => assert!(matches!(refused, Refused::Full | Refused::Closed)),
    }
}

/// INV-5: while a purge of the line holds the first caller in its hands, a return takes the line
/// for empty. The one that purges may itself be refused, so it has to look after that caller.
#[test]
fn purge_vs_return() {
    bounded(2, || {
        let (house, waiters, lease) = clogged(1);
        let newcomer = spawn({
            let house = house.clone();
            move || purge(&house)
        });
        house.engine.give_back(lease, NOW);
        newcomer.join().unwrap();
        let lease = sleep_for_lease(&waiters[0]);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: the same when the group closes meanwhile: the caller in the purge's hands is told.
#[test]
fn purge_vs_close() {
    bounded(2, || {
        let (house, waiters, lease) = clogged(1);
        let newcomer = spawn({
            let house = house.clone();
            move || purge(&house)
        });
        house.engine.close(&house.group);
        newcomer.join().unwrap();
        assert!(matches!(sleep(&waiters[0]), Outcome::Closed));
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: of two purges at once neither drops a caller that waits.
#[test]
fn purge_vs_purge() {
    bounded(2, || {
        let (house, waiters, lease) = clogged(2);
        let newcomer = spawn({
            let house = house.clone();
            move || purge(&house)
        });
        purge(&house);
        newcomer.join().unwrap();
        house.engine.give_back(lease, NOW);
        for waiter in &waiters {
            let lease = sleep_for_lease(waiter);
            house.engine.give_back(lease, NOW);
        }
        assert_eq!(house.counts().idle, 1);
        house.finish();
    });
}
