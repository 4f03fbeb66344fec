//! The table on one thread: what needs no second one to go wrong.

use core::{
    cell::RefCell,
    task::{Context, Poll, Waker},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Wake,
};

use super::*;
use crate::{
    engine::Refused,
    sync::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

type Table = Streams<Stub, &'static str>;
type Waiting = Arc<StreamWaiter<Stub, &'static str>>;

const BOUNDS: Bounds = Bounds { min: 1, max: 2, streams: 8 };

/// How connections went, and whether their code panics.
#[derive(Default)]
struct Fate {
    rested: AtomicU32,
    ended: AtomicU32,
    dropped: AtomicU32,
    panics: AtomicBool,
}

/// A connection that notes how it went.
struct Stub(Arc<Fate>);

impl Stub {
    fn may_panic(&self) {
        assert!(!self.0.panics.load(Relaxed), "the connection's own code");
    }
}

impl Carrier for Stub {
    fn is_usable(&self) -> bool {
        self.may_panic();
        true
    }

    fn rest(self) {
        self.may_panic();
        self.0.rested.fetch_add(1, Relaxed);
    }

    fn end(self) {
        self.may_panic();
        self.0.ended.fetch_add(1, Relaxed);
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }
}

/// How often somebody was woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn table() -> (Table, Arc<Fate>) {
    (Streams::new(BOUNDS), Arc::default())
}

fn put_in(table: &Table, fate: &Arc<Fate>, limit: u16) -> Spot {
    let mut stands = None;
    let put = table.put_in(Stub(Arc::clone(fate)), |_, spot| {
        stands = Some(spot);
        Capacity { limit, version: 0 }
    });
    assert!(put.is_ok());
    stands.unwrap()
}

fn outcome(waiter: &Waiting) -> Option<StreamOutcome<Stub, &'static str>> {
    match waiter.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

#[test]
fn a_connection_that_panics_as_it_is_put_in_leaves_its_cell() {
    let (table, fate) = table();
    let waiter = table.line_up(9).unwrap();
    let put = catch_unwind(AssertUnwindSafe(|| {
        table.put_in(Stub(Arc::clone(&fate)), |_, _| panic!("the connection's own code"))
    }));
    assert!(put.is_err());
    assert_eq!(fate.dropped.load(Relaxed), 1);
    assert!(table.is_empty() && !table.is_moving(), "{table:?}");
    assert_eq!(table.wanted(), 1, "who waits is not forgotten");
    put_in(&table, &fate, 1);
    assert!(matches!(outcome(&waiter), Some(StreamOutcome::Ready(_))));
}

#[test]
fn a_connection_that_panics_when_asked_is_taken_for_one_that_takes_no_more() {
    let (table, fate) = table();
    let spot = put_in(&table, &fate, 1);
    let held = table.lease().unwrap();
    let waiter = table.line_up(9).unwrap();
    fate.panics.store(true, Relaxed);
    drop(held);
    assert!(outcome(&waiter).is_none());
    assert!(table.is_empty() && !table.is_moving(), "{table:?}");
    fate.panics.store(false, Relaxed);
    let next = put_in(&table, &fate, 1);
    assert_ne!(spot, next);
    assert!(matches!(outcome(&waiter), Some(StreamOutcome::Ready(_))));
}

#[test]
fn a_panic_beside_a_lease_and_one_in_its_connection_are_two() {
    let (table, fate) = table();
    put_in(&table, &fate, 2);
    let held = [table.lease().unwrap(), table.lease().unwrap()];
    let waiter = table.line_up(9).unwrap();
    fate.panics.store(true, Relaxed);
    let user = catch_unwind(AssertUnwindSafe(|| {
        let _held = held;
        panic!("the user's own code");
    }));
    assert!(user.is_err());
    assert!(outcome(&waiter).is_none());
    assert!(table.is_empty() && !table.is_moving(), "{table:?}");
}

#[test]
fn whoever_takes_a_connection_out_wakes_the_keeper() {
    let (table, fate) = table();
    put_in(&table, &fate, 1);
    let held = table.lease().unwrap();
    let waiter = table.line_up(9).unwrap();
    table.shrink(1);
    let woken = Arc::new(Woken::default());
    table.register_keeper(&Waker::from(Arc::clone(&woken)));
    // As who hands out streams, and finds nobody to hand this one to.
    table.let_go(held);
    assert_eq!(fate.rested.load(Relaxed), 1);
    assert_eq!(woken.0.load(Relaxed), 1);
    table.leave_line(&waiter);
}

#[test]
fn a_stream_that_ends_wakes_no_keeper() {
    let (table, fate) = table();
    put_in(&table, &fate, 1);
    let held = table.lease().unwrap();
    let waiters = [table.line_up(9).unwrap(), table.line_up(9).unwrap()];
    let woken = Arc::new(Woken::default());
    table.register_keeper(&Waker::from(Arc::clone(&woken)));
    drop(held);
    assert!(matches!(outcome(&waiters[0]), Some(StreamOutcome::Ready(_))));
    drop(outcome(&waiters[1]).expect("its turn"));
    assert_eq!(woken.0.load(Relaxed), 0);
}

#[test]
fn who_lines_up_while_others_are_turned_away_is_not() {
    let (table, _) = table();
    let waiter = table.line_up(9).unwrap();
    let late = RefCell::new(None);
    table.turn_away(u32::MAX, || {
        late.borrow_mut().get_or_insert_with(|| table.line_up(9).unwrap());
        StreamOutcome::Failed("refused")
    });
    assert!(matches!(outcome(&waiter), Some(StreamOutcome::Failed(_))));
    assert!(outcome(&late.take().unwrap()).is_none());
}

#[test]
fn those_that_left_do_not_count_among_the_turned_away() {
    let (table, _) = table();
    let [first, gone, last] = [(); 3].map(|()| table.line_up(9).unwrap());
    let left = RefCell::new(false);
    table.turn_away(2, || {
        if !left.replace(true) {
            table.leave_line(&gone);
        }
        StreamOutcome::Failed("refused")
    });
    assert!(matches!(outcome(&first), Some(StreamOutcome::Failed(_))));
    assert!(matches!(outcome(&last), Some(StreamOutcome::Failed(_))));
}

#[test]
fn callers_that_left_are_bounded_by_those_that_may_wait() {
    let (table, _) = table();
    let first = table.line_up(4).unwrap();
    let mut refused = 0;
    for _ in 0..100 {
        match table.line_up(4) {
            Ok(waiter) => table.leave_line(&waiter),
            Err(Refused::Full) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 80, "only {refused} of 100 behind one that stays");
    table.leave_line(&first);
    assert!(table.line_up(4).is_ok(), "the way is clear again");
}

#[test]
fn a_dial_under_way_is_something_to_hope_for() {
    let (table, fate) = table();
    table.set_bounds(Bounds { min: 1, max: 1, streams: 2 }, false);
    assert!(!table.is_exhausted(), "another connection may come");
    assert!(table.find_one());
    assert!(!table.is_exhausted(), "its streams are nobody's");
    let waiters = [table.line_up(9).unwrap(), table.line_up(9).unwrap()];
    assert!(table.is_exhausted(), "its streams are theirs");
    put_in(&table, &fate, 9);
    assert!(table.is_exhausted(), "what has come is not under way as well");
    table.found();
    assert!(table.is_exhausted());
    drop(waiters.each_ref().map(outcome));
    assert!(!table.is_exhausted());
    let held = [table.lease().unwrap(), table.lease().unwrap()];
    assert!(table.is_exhausted());
    table.shrink(1);
    drop(held);
    assert!(!table.is_exhausted());
}

#[test]
fn one_that_leaves_has_room_for_who_comes() {
    let (table, fate) = table();
    table.set_bounds(Bounds { min: 1, max: 1, streams: 2 }, false);
    put_in(&table, &fate, 9);
    let held = table.lease().unwrap();
    table.shrink(1);
    assert!(table.lease().is_none());
    assert!(!table.is_exhausted(), "it stays for a caller in line");
    let waiter = table.line_up(9).unwrap();
    assert_eq!(table.wanted(), 0);
    assert!(matches!(outcome(&waiter), Some(StreamOutcome::Ready(_))));
    drop(held);
}

#[test]
fn a_closed_table_says_so_before_it_says_that_it_is_full() {
    let (table, fate) = table();
    table.set_bounds(Bounds { min: 1, max: 1, streams: 1 }, false);
    put_in(&table, &fate, 9);
    let held = table.lease().unwrap();
    assert!(table.is_exhausted());
    table.close();
    assert!(!table.is_exhausted());
    assert!(matches!(table.line_up(9), Err(Refused::Closed)));
    drop(held);
}

#[test]
fn a_look_at_a_full_connection_is_no_stream_of_it() {
    let (table, fate) = table();
    let spot = put_in(&table, &fate, 1);
    let held = table.lease().unwrap();
    let seen = table.look(spot, |_| table.census().leased);
    assert_eq!((seen, table.census().leased), (Some(2), 1));
    table.drain(spot);
    assert!(table.look(spot, |_| ()).is_none(), "it takes no streams");
    drop(held);
    let next = put_in(&table, &fate, 1);
    assert!(table.look(spot, |_| ()).is_none() && table.look(next, |_| ()).is_some());
}

#[test]
fn a_spot_survives_as_a_number() {
    let spot = Spot { cell: 2047, generation: (1 << 17) - 1 };
    assert_eq!(Spot::from_bits(spot.to_bits()), spot);
}
