//! The two tiers of a lane's hints, alone and as the lane of a group.
#![cfg(loom)]

use core::cell::Cell;

use corepool::model::{Fifo, Outcome};
use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering, fence},
};
use loom_tests::{Conn, House, Leased, NOW, ONE, S0, bounded, model, outcome, sorted, spawn};

/// What is in the two rings from the start. The near one has one place, where a model does not want
/// more.
fn fifo<const NEAR: usize>(capacity: usize, values: &[u64]) -> Arc<Fifo<NEAR>> {
    let fifo = Fifo::new(capacity);
    values.iter().for_each(|value| fifo.push(*value).unwrap());
    Arc::new(fifo)
}

fn drained<const NEAR: usize>(fifo: &Fifo<NEAR>) -> Vec<u64> {
    core::iter::from_fn(|| fifo.pop()).collect()
}

/// INV-3: two pushes find the near ring full and make the far one: neither is lost with the ring
/// that is dropped.
#[test]
fn push_vs_push_that_make_the_far_ring() {
    model(|| {
        let fifo = fifo::<1>(2, &[1]);
        let other = spawn({
            let fifo = fifo.clone();
            move || fifo.push(2).unwrap()
        });
        fifo.push(3).unwrap();
        other.join().unwrap();
        let left = drained(&fifo);
        assert_eq!(left[0], 1, "the oldest is the first out");
        assert_eq!(sorted(left), [1, 2, 3]);
    });
}

/// INV-1: a pop that finds a value in the far ring sees the ring as it was made, and all that the
/// thread did that pushed.
#[test]
fn push_that_makes_the_far_ring_vs_pops() {
    model(|| {
        let shared = Arc::new((Fifo::<1>::new(2), AtomicU32::new(0)));
        shared.0.push(1).unwrap();
        let pusher = spawn({
            let shared = shared.clone();
            move || {
                shared.1.store(7, Ordering::Relaxed);
                shared.0.push(2).unwrap();
            }
        });
        assert_eq!(shared.0.pop(), Some(1), "missed what was there all along");
        let got = shared.0.pop();
        if let Some(value) = got {
            assert_eq!((value, shared.1.load(Ordering::Relaxed)), (2, 7));
        }
        pusher.join().unwrap();
        assert_eq!(sorted(got.into_iter().chain(drained(&shared.0))), [2]);
    });
}

/// INV-3: a pop empties the far ring while a push looks which ring is its own: each value is in
/// one of them.
#[test]
fn push_vs_pop_of_the_far_rings_last() {
    model(|| {
        let fifo = fifo::<1>(2, &[1, 2]);
        assert_eq!(fifo.pop(), Some(1));
        let popper = spawn({
            let fifo = fifo.clone();
            move || fifo.pop()
        });
        fifo.push(3).unwrap();
        let got = popper.join().unwrap();
        assert!(got.is_some(), "missed what was there all along");
        assert_eq!(sorted(got.into_iter().chain(drained(&fifo))), [2, 3]);
    });
}

/// INV-3: two pops when one value is left in each ring: each goes to one of them.
#[test]
fn pop_vs_pop_over_both_rings() {
    model(|| {
        let fifo = fifo::<1>(2, &[1, 2]);
        let other = spawn({
            let fifo = fifo.clone();
            move || fifo.pop()
        });
        let ours = fifo.pop();
        let theirs = other.join().unwrap();
        assert_eq!(sorted([ours, theirs].into_iter().flatten()), [1, 2]);
        assert_eq!(fifo.pop(), None);
    });
}

/// INV-2: two pushes where the near ring has the last place, and the far one is full: exactly one
/// is refused.
#[test]
fn push_vs_push_for_the_last_place() {
    model(|| {
        let fifo = fifo::<1>(2, &[1, 2, 3]);
        assert_eq!(fifo.pop(), Some(1));
        let other = spawn({
            let fifo = fifo.clone();
            move || fifo.push(4)
        });
        let ours = fifo.push(5);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() ^ theirs.is_ok(), "ours={ours:?} theirs={theirs:?}");
        let last = if ours.is_ok() { 5 } else { 4 };
        assert_eq!(drained(&fifo), [last, 2, 3]);
    });
}

/// INV-3: making room and a pop: nothing that lives is lost. While the pop has a place in its hands
/// the newcomer may find none, and is given back.
#[test]
fn make_room_vs_pop() {
    model(|| {
        // Odd values are stale: one in the near ring.
        let fifo = fifo::<2>(3, &[2, 3, 4, 6, 8]);
        let popper = spawn({
            let fifo = fifo.clone();
            move || fifo.pop()
        });
        let is_live = |value: u64| value.is_multiple_of(2);
        let expired = Cell::new(None);
        fifo.push_over(10, is_live, |value| assert_eq!(expired.replace(Some(value)), None));
        let got = popper.join().unwrap();
        let all = got.into_iter().chain(expired.get()).chain(drained(&fifo));
        assert_eq!(sorted(all.filter(|value| is_live(*value))), [2, 4, 6, 8, 10]);
    });
}

/// INV-5: a push that makes the far ring, a fence, and a look for callers; a caller that says so,
/// a fence, and a pop: they do not miss each other.
#[test]
fn push_that_makes_the_far_ring_vs_caller() {
    push_vs_caller(&[1]);
}

/// INV-5: the same where another has made it.
#[test]
fn push_to_the_far_ring_vs_caller() {
    push_vs_caller(&[1, 2]);
}

/// The edge of `rest_in_sight` and `take_place` alone. `rested` stand there before, and the caller
/// has taken them already: what it looks for comes behind them.
fn push_vs_caller(rested: &'static [u64]) {
    model(move || {
        let lane = Arc::new((fifo::<1>(2, rested), AtomicBool::new(false)));
        let user = spawn({
            let lane = lane.clone();
            move || {
                lane.0.push(9).unwrap();
                fence(Ordering::SeqCst);
                lane.1.load(Ordering::Relaxed)
            }
        });
        let early = rested.iter().filter_map(|_| lane.0.pop()).count();
        assert_eq!(early, rested.len(), "missed what was there all along");
        lane.1.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let found = lane.0.pop();
        let saw = user.join().unwrap();
        assert!(saw || found.is_some(), "INV-5: at rest beside a caller that waits");
    });
}

/// INV-5: a return to the far ring and a caller that lines up: the caller gets the connection. All
/// that may live is there, so no dial covers a lost wake-up.
#[test]
fn return_to_the_far_ring_vs_waiter_that_polls() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        // Two hints of connections that ended fill the near ring.
        for _ in 0..2 {
            house.engine.give_back(open_alone(&house), NOW);
            assert_eq!(house.engine.sweep(S0, NOW.after(u32::MAX), &mut Vec::new()), 1);
            assert_eq!(house.drive().closes, 1);
        }
        let lease = open_alone(&house);
        let caller = spawn({
            let house = house.clone();
            move || house.line_up(&house, S0)
        });
        house.engine.give_back(lease, NOW);
        let waiter = caller.join().unwrap();
        house.expect_served(&waiter, NOW);
        house.finish();
    });
}

/// A fresh connection, in use. Nobody lines up for it, which would clear stale hints away.
fn open_alone(house: &House) -> Leased {
    let waiter =
        house.engine.dial_fresh(&house.seats[0], NOW).expect("a permit and a slot are free");
    let dial = house.dial(S0);
    assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok());
    match outcome(&waiter) {
        Some(Outcome::Ready(lease)) => lease,
        other => panic!("a fulfilled dial gave {other:?}"),
    }
}
