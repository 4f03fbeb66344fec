//! The stack of hints, alone and as the lane of a group that hands out the youngest first.
#![cfg(loom)]

use corepool::model::{CloseReason, GroupLimits, Outcome, Refused, Stack};
use loom::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use loom_tests::{
    ALWAYS, Conn, House, Leased, NEVER, NOW, ONE, ROOMY, S0, S1, bounded, model, outcome, sleep,
    sleep_for_lease, sorted, spawn,
};

const YOUNGEST: GroupLimits = GroupLimits { lifo: 1, ..ROOMY };
const YOUNGEST_OF_ONE: GroupLimits = GroupLimits { lifo: 1, ..ONE };

fn stack(capacity: usize, values: &[u64]) -> Arc<Stack> {
    let stack = Stack::new(capacity);
    values.iter().for_each(|value| stack.push(*value).unwrap());
    Arc::new(stack)
}

/// What is left, the youngest first; then every place must be there still.
fn drained(stack: &Stack) -> Vec<u64> {
    let left: Vec<u64> = core::iter::from_fn(|| stack.pop()).collect();
    let places = (0..9).filter(|value| stack.push(*value).is_ok()).count();
    assert_eq!(places, stack.capacity(), "a place was lost or came twice");
    left
}

/// INV-1: a pop sees all that the thread did that pushed.
#[test]
fn push_publishes_to_pop() {
    model(|| {
        let shared = Arc::new((Stack::new(2), AtomicU32::new(0)));
        let pusher = spawn({
            let shared = shared.clone();
            move || {
                shared.1.store(7, Ordering::Relaxed);
                shared.0.push(1).unwrap();
            }
        });
        if let Some(value) = shared.0.pop() {
            assert_eq!((value, shared.1.load(Ordering::Relaxed)), (1, 7));
        }
        pusher.join().unwrap();
    });
}

/// INV-3: a push and a pop: the pop finds what was there before or what comes.
#[test]
fn push_vs_pop() {
    model(|| {
        let stack = stack(2, &[1]);
        let popper = spawn({
            let stack = stack.clone();
            move || stack.pop()
        });
        stack.push(2).unwrap();
        let got = popper.join().unwrap();
        assert!(got.is_some(), "missed what was there all along");
        assert_eq!(sorted(got.into_iter().chain(drained(&stack))), [1, 2]);
    });
}

/// INV-3: two pops of one top: each value goes to one of them.
#[test]
fn pop_vs_pop() {
    model(|| {
        let stack = stack(3, &[1, 2, 3]);
        let other = spawn({
            let stack = stack.clone();
            move || stack.pop()
        });
        let ours = stack.pop();
        let theirs = other.join().unwrap();
        assert_eq!(sorted([ours, theirs].into_iter().flatten()), [2, 3]);
        assert_eq!(drained(&stack), [1]);
    });
}

/// INV-3: two pops of one value: exactly one gets it.
#[test]
fn pop_vs_pop_of_the_last() {
    model(|| {
        let stack = stack(1, &[1]);
        let other = spawn({
            let stack = stack.clone();
            move || stack.pop()
        });
        let ours = stack.pop();
        let theirs = other.join().unwrap();
        assert!(ours.is_some() ^ theirs.is_some(), "ours={ours:?} theirs={theirs:?}");
        assert!(drained(&stack).is_empty());
    });
}

/// INV-2: two pushes for the last place: exactly one is refused.
#[test]
fn push_vs_push_for_the_last_place() {
    model(|| {
        let stack = stack(2, &[1]);
        let other = spawn({
            let stack = stack.clone();
            move || stack.push(2)
        });
        let ours = stack.push(3);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() ^ theirs.is_ok(), "ours={ours:?} theirs={theirs:?}");
        let young = if ours.is_ok() { 3 } else { 2 };
        assert_eq!(drained(&stack), [young, 1]);
    });
}

/// INV-3: a push onto a full stack and a pop: it is refused, or it has the place of what was
/// popped.
#[test]
fn push_on_a_full_stack_vs_pop() {
    model(|| {
        let stack = stack(2, &[1, 2]);
        let popper = spawn({
            let stack = stack.clone();
            move || stack.pop()
        });
        let pushed = stack.push(3);
        let got = popper.join().unwrap().expect("it was full");
        let expected = if pushed.is_ok() { vec![1, 2, 3] } else { vec![1, 2] };
        assert_eq!(sorted(drained(&stack).into_iter().chain([got])), expected);
    });
}

/// INV-3: ABA: a pop stalls between its look at the top and its CAS. Meanwhile two others take the
/// top and what is below it, and the top comes back without that below it. The one that took the
/// top has to stall as well before it frees the node, so this takes three threads.
#[test]
fn stalled_pop_vs_pop_pop_push() {
    bounded(2, || {
        let stack = stack(2, &[1, 2]);
        let pop = |stack: &Arc<Stack>| {
            let stack = stack.clone();
            spawn(move || stack.pop())
        };
        let (stalled, other) = (pop(&stack), pop(&stack));
        let ours = stack.pop();
        let others = other.join().unwrap();
        let pushed = stack.push(3).is_ok();
        let got = [stalled.join().unwrap(), others, ours];
        let all = sorted(got.into_iter().flatten().chain(drained(&stack)));
        assert_eq!(all, if pushed { vec![1, 2, 3] } else { vec![1, 2] });
    });
}

/// INV-3: the same for a push that stalls on the free places.
#[test]
fn stalled_push_vs_push_push_pop() {
    bounded(2, || {
        let stack = stack(2, &[]);
        let push = |stack: &Arc<Stack>, value| {
            let stack = stack.clone();
            spawn(move || stack.push(value).ok().map(|()| value))
        };
        let (stalled, other) = (push(&stack, 1), push(&stack, 2));
        let ours = stack.push(3).ok().map(|()| 3);
        let others = other.join().unwrap();
        let popped = stack.pop();
        let pushed = [stalled.join().unwrap(), others, ours];
        let all = sorted(popped.into_iter().chain(drained(&stack)));
        assert_eq!(all, sorted(pushed.into_iter().flatten()));
    });
}

/// INV-3: making room and a pop: nothing that lives is lost, the order stays, and a stale value is
/// gone or popped.
#[test]
fn make_room_vs_pop() {
    model(|| {
        // Odd values are stale.
        let stack = stack(4, &[2, 1, 4, 3]);
        let popper = spawn({
            let stack = stack.clone();
            move || stack.pop()
        });
        stack.push_over(6, |value| value % 2 == 1).unwrap();
        let got = popper.join().unwrap();
        let left = drained(&stack);
        let live =
            |values: &[u64]| sorted(values.iter().copied().filter(|value| value.is_multiple_of(2)));
        assert!(left.is_sorted_by(|one, two| one > two), "out of order: {left:?}");
        assert!(left.iter().all(|value| value.is_multiple_of(2)), "left behind: {left:?}");
        assert_eq!(
            sorted(got.into_iter().filter(|v| v.is_multiple_of(2)).chain(live(&left))),
            [2, 4, 6]
        );
    });
}

/// INV-3: making room and a push: each finds a place, because there are two to be had; or the push
/// comes while the other has both in its hands.
#[test]
fn make_room_vs_push() {
    model(|| {
        let stack = stack(3, &[1, 2, 3]);
        let pusher = spawn({
            let stack = stack.clone();
            move || stack.push(4).is_ok()
        });
        let ours = stack.push_over(6, |value| value % 2 == 1);
        let theirs = pusher.join().unwrap();
        assert_eq!(ours, Ok(()), "one of the two stale values is ours to replace");
        let expected = if theirs { vec![2, 4, 6] } else { vec![2, 6] };
        assert_eq!(sorted(drained(&stack)), expected);
    });
}

/// INV-3: two make room at once: one of them may find every place in the hands of the other.
#[test]
fn make_room_vs_make_room() {
    model(|| {
        let stack = stack(3, &[1, 2, 3]);
        let make_room = |stack: &Stack, value| stack.push_over(value, |value| value % 2 == 1);
        let other = spawn({
            let stack = stack.clone();
            move || make_room(&stack, 4)
        });
        let ours = make_room(&stack, 6);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() || theirs.is_ok());
        let pushed = [(6, ours), (4, theirs)];
        let pushed = pushed.iter().filter(|(_, result)| result.is_ok()).map(|(value, _)| *value);
        assert_eq!(sorted(drained(&stack)), sorted(pushed.chain([2])));
    });
}

/// INV-1: two checkouts of one idle connection: exactly one gets it.
#[test]
fn checkout_vs_steal() {
    model(|| {
        let house = House::new(2, 1, YOUNGEST);
        house.rest_one(S0);
        let thief = spawn({
            let house = house.clone();
            move || house.checkout(S1, ALWAYS)
        });
        let ours = house.checkout(S0, NEVER);
        let theirs = thief.join().unwrap();
        assert!(ours.is_some() ^ theirs.is_some(), "INV-1: ours={ours:?} theirs={theirs:?}");
        house.engine.give_back(ours.or(theirs).unwrap(), NOW);
        assert_eq!(house.counts().idle, 1);
        house.finish();
    });
}

/// INV-1, INV-6: a checkout and a hang-up of the youngest of two: the other is found then.
#[test]
fn checkout_vs_hang_up_of_the_youngest() {
    model(|| {
        let house = House::new(1, 2, YOUNGEST);
        let (old, young) = (house.open(S0), house.open(S0));
        let slot = young.index();
        house.engine.give_back(old, NOW);
        house.engine.give_back(young, NOW);
        let watch = spawn({
            let house = house.clone();
            move || house.engine.hang_up(S0, slot, CloseReason::PeerClosed, NOW)
        });
        let lease = house.checkout(S0, NEVER).expect("the other one lives");
        watch.join().unwrap();
        assert_eq!(lease.index() == slot, house.engine.is_dead(&lease), "INV-6");
        house.engine.give_back(lease, NOW);
        assert_eq!(house.drive().closes, 1, "INV-4");
        assert_eq!(house.counts().idle, 1);
        house.finish();
    });
}

/// INV-5: a return and a caller that lines up: the caller gets the connection. No pop of an empty
/// stack has a fence of its own, as one of an empty ring has: the engine's are all there are.
#[test]
fn return_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, YOUNGEST_OF_ONE);
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

/// INV-5: the return's half of the edge alone, as in `waiters`.
#[test]
fn return_vs_waiter_that_polls() {
    model(|| {
        let house = House::new(1, 2, YOUNGEST_OF_ONE);
        let lease = house.open(S0);
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

/// INV-5, INV-9: a close and a return: nothing stays idle in a closed group.
#[test]
fn close_vs_return() {
    model(|| {
        let house = House::new(1, 1, YOUNGEST);
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

/// INV-5: a close and a caller that lines up: it is refused or told, never left.
#[test]
fn close_vs_wait() {
    model(|| {
        let house = House::new(1, 1, YOUNGEST_OF_ONE);
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

/// INV-3: a lane full of stale hints makes room for two that come to rest at once.
#[test]
fn return_vs_return_on_a_full_stack() {
    bounded(2, || {
        let house = House::new(1, 6, GroupLimits { max_live: 6, ..YOUNGEST });
        let mut leases: Vec<_> = (0..6).map(|_| house.open(S0)).collect();
        // Four places, all stale: nobody looked for a connection meanwhile.
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
        assert!(leased > 0, "one of them had a place to be had");
        assert_eq!(house.counts().idle, 0, "INV-3: idle without a hint");
        for lease in found.into_iter().flatten() {
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-5: a caller lines up while a return that makes room has the lane's hints in its hands: the
/// return looks after it. All that may live is there, so no dial covers a lost wake-up.
#[test]
fn return_that_makes_room_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 5, YOUNGEST);
        for _ in 0..3 {
            house.engine.give_back(open_alone(&house), NOW);
            end_the_idle_one(&house);
        }
        // Four places: three stale hints, and that of the one that rests.
        let (resting, lease) = (open_alone(&house), open_alone(&house));
        house.engine.give_back(resting, NOW);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        let lease = sleep_for_lease(&house.line_up(&house, S0));
        user.join().unwrap();
        house.engine.give_back(lease, NOW);
        assert_eq!(house.counts().idle, 2, "INV-3: there was room for both");
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

/// Ends the idle connection of shard 0 and leaves its hint in the lane.
fn end_the_idle_one(house: &House) {
    assert_eq!(house.engine.sweep(S0, NOW.after(u32::MAX), &mut Vec::new()), 1);
    assert_eq!(house.drive().closes, 1);
}
