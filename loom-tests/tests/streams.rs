//! Shared connections: streams are counted exactly (INV-10), nobody waits beside a free one (INV-5),
//! and nothing that is handed over is lost (INV-7).
#![cfg(loom)]

use std::sync::{
    Arc as StdArc,
    atomic::{AtomicBool as StdAtomicBool, AtomicU32 as StdAtomicU32, Ordering},
};

use corepool::model::streams::{
    Bounds, Capacity, Carrier, Spot, StreamLease, StreamOutcome, StreamWaiter, Streams,
};
use loom::sync::Arc;
use loom_tests::{bounded, model, spawn};

type Table = Streams<Shared, &'static str>;
type Leased = StreamLease<Shared, &'static str>;
type Waiting = Arc<StreamWaiter<Shared, &'static str>>;

const BOUNDS: Bounds = Bounds { min: 1, max: 1, streams: 8 };

/// What became of the connections of a model: bookkeeping, not part of it.
#[derive(Debug, Default)]
struct Book {
    made: StdAtomicU32,
    rested: StdAtomicU32,
    ended: StdAtomicU32,
    dropped: StdAtomicU32,
}

impl Book {
    fn read(count: &StdAtomicU32) -> u32 {
        count.load(Ordering::Relaxed)
    }
}

/// A connection that notes how it went.
#[derive(Debug)]
struct Shared {
    book: StdArc<Book>,
    unusable: StdAtomicBool,
}

impl Shared {
    fn new(book: &StdArc<Book>) -> Self {
        book.made.fetch_add(1, Ordering::Relaxed);
        Self { book: StdArc::clone(book), unusable: StdAtomicBool::new(false) }
    }
}

impl Carrier for Shared {
    fn is_usable(&self) -> bool {
        !self.unusable.load(Ordering::Relaxed)
    }

    fn rest(self) {
        self.book.rested.fetch_add(1, Ordering::Relaxed);
    }

    fn end(self) {
        self.book.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.book.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A table, and what became of its connections.
#[derive(Clone)]
struct House {
    table: Table,
    book: StdArc<Book>,
}

impl House {
    fn new(bounds: Bounds) -> Self {
        Self { table: Streams::new(bounds), book: StdArc::default() }
    }

    /// With one connection that takes so many streams.
    fn of_one(limit: u16) -> (Self, Spot) {
        let house = Self::new(BOUNDS);
        let spot = house.put_in(limit);
        (house, spot)
    }

    fn put_in(&self, limit: u16) -> Spot {
        let mut stands = None;
        let put = self.table.put_in(Shared::new(&self.book), |_, spot| {
            stands = Some(spot);
            Capacity { limit, version: 0 }
        });
        assert!(put.is_ok(), "the model leaves room");
        stands.unwrap()
    }

    fn line_up(&self) -> Waiting {
        self.table.line_up(4).expect("the model leaves room in the line")
    }

    fn leased(&self) -> u32 {
        self.table.census().leased
    }

    /// Every connection that was made went one way, and none stands anywhere.
    fn finish(self, rested: u32, ended: u32) {
        let book = &self.book;
        assert_eq!(Book::read(&book.rested), rested, "INV-10: rested");
        assert_eq!(Book::read(&book.ended), ended, "INV-10: ended");
        assert_eq!(Book::read(&book.dropped), Book::read(&book.made), "INV-10: one is left");
        assert!(self.table.is_empty() && !self.table.is_moving());
    }

    /// The same once the connections that stand have been sent to rest.
    fn wind_up(self, rested: u32, ended: u32) {
        self.table.shrink(2);
        self.finish(rested, ended);
    }
}

fn outcome(waiter: &Waiting) -> Option<StreamOutcome<Shared, &'static str>> {
    use core::task::{Context, Poll, Waker};
    match waiter.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// Sleeps until there is a stream. loom reports a caller that nobody ever wakes as a deadlock.
fn sleep(waiter: &Waiting) -> Leased {
    match loom::future::block_on(core::future::poll_fn(|cx| waiter.poll(cx))) {
        StreamOutcome::Ready(lease) => lease,
        other => panic!("expected a stream, got {other:?}"),
    }
}

/// Sleeps as the keeper does, until a connection is to be found, or as the one in line does, until
/// it has a stream.
fn keep(table: &Table, waiter: &Waiting) -> Option<StreamOutcome<Shared, &'static str>> {
    use core::task::Poll;
    loom::future::block_on(core::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = waiter.poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        table.register_keeper(cx.waker());
        if table.wanted() > 0 && !table.is_moving() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }))
}

/// INV-10: two callers and the last place: one has it.
#[test]
fn lease_vs_lease_for_the_last_place() {
    model(|| {
        let (house, _) = House::of_one(1);
        let other = spawn({
            let table = house.table.clone();
            move || table.lease()
        });
        let ours = house.table.lease();
        let theirs = other.join().unwrap();
        assert!(ours.is_some() ^ theirs.is_some(), "INV-10: {ours:?} {theirs:?}");
        drop((ours, theirs));
        house.wind_up(1, 0);
    });
}

/// INV-10: a GOAWAY and a caller: its stream is counted, and the last to go ends the connection.
#[test]
fn lease_vs_drain() {
    model(|| {
        let (house, spot) = House::of_one(2);
        let peer = spawn({
            let table = house.table.clone();
            move || table.drain(spot)
        });
        let lease = house.table.lease();
        if let Some(lease) = &lease {
            assert!(lease.carrier().is_usable());
        }
        peer.join().unwrap();
        assert!(house.table.lease().is_none(), "it drains");
        drop(lease);
        house.finish(0, 1);
    });
}

/// INV-10: a GOAWAY and the last stream's end: one of the two ends the connection.
#[test]
fn last_return_vs_drain() {
    model(|| {
        let (house, spot) = House::of_one(2);
        let lease = house.table.lease().unwrap();
        let peer = spawn({
            let table = house.table.clone();
            move || table.drain(spot)
        });
        drop(lease);
        peer.join().unwrap();
        house.finish(0, 1);
    });
}

/// INV-10: two last streams' ends of a connection that drains: one of the two ends it.
#[test]
fn return_vs_return_of_a_connection_that_drains() {
    model(|| {
        let (house, spot) = House::of_one(2);
        let leases = [(); 2].map(|()| house.table.lease().unwrap());
        house.table.drain(spot);
        let [ours, theirs] = leases;
        let other = spawn(move || {
            assert!(theirs.carrier().is_usable());
            drop(theirs);
        });
        assert!(ours.carrier().is_usable());
        drop(ours);
        other.join().unwrap();
        house.finish(0, 1);
    });
}

/// INV-10: once the peer has lowered its limit, no stream is leased above it.
#[test]
fn lease_vs_settings_shrink() {
    model(|| {
        let (house, spot) = House::of_one(2);
        let first = house.table.lease().unwrap();
        let peer = spawn({
            let table = house.table.clone();
            move || {
                table.change(spot, Capacity { limit: 1, version: 1 });
                assert!(table.lease().is_none(), "INV-10: beyond the limit");
            }
        });
        let second = house.table.lease();
        peer.join().unwrap();
        assert!(house.table.lease().is_none(), "INV-10: beyond the limit");
        drop(first);
        assert_eq!(house.table.lease().is_some(), second.is_none());
        drop(second);
        house.wind_up(1, 0);
    });
}

/// INV-10: of two changes the newer holds, whichever is told first.
#[test]
fn change_vs_older_change() {
    model(|| {
        let (house, spot) = House::of_one(4);
        let late = spawn({
            let table = house.table.clone();
            move || table.change(spot, Capacity { limit: 3, version: 1 })
        });
        house.table.change(spot, Capacity { limit: 1, version: 2 });
        late.join().unwrap();
        let lease = house.table.lease();
        assert!(lease.is_some() && house.table.lease().is_none(), "INV-10: the older limit holds");
        drop(lease);
        house.wind_up(1, 0);
    });
}

/// INV-5: a raised limit and a caller that lines up: it gets a stream.
#[test]
fn settings_raised_vs_wait() {
    model(|| {
        let (house, spot) = House::of_one(0);
        let peer = spawn({
            let table = house.table.clone();
            move || table.change(spot, Capacity { limit: 1, version: 1 })
        });
        drop(sleep(&house.line_up()));
        peer.join().unwrap();
        house.wind_up(1, 0);
    });
}

/// INV-10: a connection that is sent to rest, and its last stream's end: it rests once.
#[test]
fn last_return_vs_shrink() {
    model(|| {
        let (house, _) = House::of_one(2);
        let lease = house.table.lease().unwrap();
        let keeper = spawn({
            let table = house.table.clone();
            move || table.shrink(1)
        });
        drop(lease);
        keeper.join().unwrap();
        house.finish(1, 0);
    });
}

/// INV-10: a connection that is sent to rest, and a caller: the caller has a stream of it, and it
/// rests after that, or the caller has none.
#[test]
fn lease_vs_shrink() {
    model(|| {
        let (house, _) = House::of_one(2);
        let keeper = spawn({
            let table = house.table.clone();
            move || table.shrink(1)
        });
        let lease = house.table.lease();
        keeper.join().unwrap();
        drop(lease);
        house.finish(1, 0);
    });
}

/// INV-10: a connection that leaves is wanted after all, just as its last stream ends: it stays, or
/// it rests.
#[test]
fn last_return_vs_stay() {
    model(|| {
        let (house, _) = House::of_one(1);
        let lease = house.table.lease().unwrap();
        house.table.shrink(1);
        let user = spawn(move || drop(lease));
        let waiter = house.line_up();
        let wanted = house.table.wanted();
        user.join().unwrap();
        match outcome(&waiter) {
            Some(StreamOutcome::Ready(lease)) => drop(lease),
            Some(other) => panic!("{other:?}"),
            None => {
                // It went to rest: then another is wanted, by us or as the keeper is woken.
                assert!(wanted == 1 || house.table.wanted() == 1, "INV-5: nobody finds one");
                house.table.leave_line(&waiter);
            }
        }
        drop(waiter);
        house.wind_up(1, 0);
    });
}

/// INV-5: a stream's end and a caller that lines up: the caller gets the stream.
#[test]
fn return_vs_wait_for_a_stream() {
    model(|| {
        let (house, _) = House::of_one(1);
        let lease = house.table.lease().unwrap();
        let user = spawn(move || drop(lease));
        drop(sleep(&house.line_up()));
        user.join().unwrap();
        house.wind_up(1, 0);
    });
}

/// INV-5: the return's half of the edge alone: the caller looks no more once it is in line.
#[test]
fn return_vs_stream_waiter_that_polls() {
    model(|| {
        let (house, _) = House::of_one(1);
        let lease = house.table.lease().unwrap();
        let caller = spawn({
            let house = house.clone();
            move || house.line_up()
        });
        drop(lease);
        let waiter = caller.join().unwrap();
        match outcome(&waiter) {
            Some(StreamOutcome::Ready(lease)) => drop(lease),
            other => panic!("INV-5: leased={} waiter={other:?}", house.leased()),
        }
        drop(waiter);
        house.wind_up(1, 0);
    });
}

/// INV-5, INV-7: a stream that is handed to a caller that leaves goes to the next in line.
#[test]
fn cancel_vs_return_with_another_in_line() {
    bounded(2, || {
        let (house, _) = House::of_one(1);
        let lease = house.table.lease().unwrap();
        let (leaving, staying) = (house.line_up(), house.line_up());
        let caller = spawn({
            let table = house.table.clone();
            move || table.leave_line(&leaving)
        });
        drop(lease);
        drop(sleep(&staying));
        caller.join().unwrap();
        drop(staying);
        assert_eq!(house.leased(), 0, "INV-7: a stream is lost");
        house.wind_up(1, 0);
    });
}

/// INV-5, INV-10: callers share beyond what was set, as far as the peer allows, and one in line has
/// the stream that comes free there.
#[test]
fn return_vs_wait_beyond_the_limit() {
    model(|| {
        let (house, _) = House::of_one(2);
        house.table.set_bounds(Bounds { streams: 1, ..BOUNDS }, true);
        let [ours, theirs] = [(); 2].map(|()| house.table.lease().unwrap());
        assert!(house.table.lease().is_none(), "INV-10: beyond the peer's limit");
        let user = spawn(move || drop(ours));
        let lease = sleep(&house.line_up());
        assert!(house.table.lease().is_none(), "INV-10: beyond the peer's limit");
        user.join().unwrap();
        drop((lease, theirs));
        house.wind_up(1, 0);
    });
}

/// INV-5: a connection that is put in and a caller that lines up: it gets a stream.
#[test]
fn put_in_vs_wait() {
    model(|| {
        let house = House::new(BOUNDS);
        let keeper = spawn({
            let house = house.clone();
            move || {
                house.put_in(1);
            }
        });
        drop(sleep(&house.line_up()));
        keeper.join().unwrap();
        house.wind_up(1, 0);
    });
}

/// INV-10: a connection whose peer lowers its limit while it is put in: what was said last holds.
#[test]
fn put_in_vs_change() {
    model(|| {
        let house = House::new(BOUNDS);
        let mut peer = None;
        let put = house.table.put_in(Shared::new(&house.book), |_, spot| {
            let table = house.table.clone();
            peer = Some(spawn(move || table.change(spot, Capacity { limit: 1, version: 1 })));
            Capacity { limit: 2, version: 0 }
        });
        assert!(put.is_ok());
        peer.unwrap().join().unwrap();
        let lease = house.table.lease();
        assert!(lease.is_some() && house.table.lease().is_none(), "INV-10: the older limit holds");
        drop(lease);
        house.wind_up(1, 0);
    });
}

/// INV-10: a connection that ends while it is put in: it ends, once.
#[test]
fn put_in_vs_drain() {
    model(|| {
        let house = House::new(BOUNDS);
        let mut peer = None;
        let put = house.table.put_in(Shared::new(&house.book), |_, spot| {
            let table = house.table.clone();
            peer = Some(spawn(move || table.drain(spot)));
            Capacity { limit: 2, version: 0 }
        });
        assert!(put.is_ok());
        peer.unwrap().join().unwrap();
        house.finish(0, 1);
    });
}

/// INV-10: what is told of a connection that has gone is not taken for the next one's.
#[test]
fn late_drain_vs_next_connection() {
    model(|| {
        let (house, spot) = House::of_one(1);
        house.table.shrink(1);
        let late = spawn({
            let table = house.table.clone();
            move || {
                table.change(spot, Capacity { limit: 7, version: 1 });
                table.drain(spot);
            }
        });
        house.put_in(1);
        late.join().unwrap();
        let lease = house.table.lease();
        assert!(lease.is_some() && house.table.lease().is_none(), "INV-10: another's limit");
        drop(lease);
        house.wind_up(2, 0);
    });
}

/// INV-5, INV-9: a close and a caller that lines up: it is told, and nothing is left.
#[test]
fn close_vs_wait_for_a_stream() {
    model(|| {
        let (house, _) = House::of_one(0);
        let owner = spawn({
            let table = house.table.clone();
            move || table.close()
        });
        if let Ok(waiter) = house.table.line_up(4) {
            let outcome = loom::future::block_on(core::future::poll_fn(|cx| waiter.poll(cx)));
            assert!(matches!(outcome, StreamOutcome::Closed), "{outcome:?}");
        }
        owner.join().unwrap();
        house.finish(1, 0);
    });
}

/// INV-5: a close while the line is cleared of those that left: who was in its hands is told.
#[test]
fn purge_of_the_line_vs_close() {
    bounded(2, || {
        let house = House::new(BOUNDS);
        let (staying, leaving) = (house.line_up(), [house.line_up(), house.line_up()]);
        let caller = spawn({
            let table = house.table.clone();
            move || leaving.iter().for_each(|waiter| table.leave_line(waiter))
        });
        house.table.close();
        caller.join().unwrap();
        match outcome(&staying) {
            Some(StreamOutcome::Closed) => {}
            other => panic!("INV-5: {other:?}"),
        }
        house.finish(0, 0);
    });
}

/// INV-5: a stream's end while the line is cleared of those that left: who stays gets it.
#[test]
fn purge_of_the_line_vs_return() {
    bounded(2, || {
        let (house, _) = House::of_one(1);
        let lease = house.table.lease().unwrap();
        let (staying, leaving) = (house.line_up(), [house.line_up(), house.line_up()]);
        let caller = spawn({
            let table = house.table.clone();
            move || leaving.iter().for_each(|waiter| table.leave_line(waiter))
        });
        drop(lease);
        caller.join().unwrap();
        match outcome(&staying) {
            Some(StreamOutcome::Ready(lease)) => drop(lease),
            other => panic!("INV-5: {other:?}"),
        }
        drop(staying);
        house.wind_up(1, 0);
    });
}

/// INV-5: a connection that is taken out just as a caller lines up: whoever is to find another is
/// woken to a cell that does not move any more.
#[test]
fn unusable_at_lease_vs_wait() {
    model(|| {
        let (house, spot) = House::of_one(1);
        house.table.look(spot, |shared| shared.unusable.store(true, Ordering::Relaxed));
        let other = spawn({
            let table = house.table.clone();
            move || assert!(table.lease().is_none(), "INV-10: it takes none")
        });
        let waiter = house.line_up();
        assert!(keep(&house.table, &waiter).is_none());
        other.join().unwrap();
        house.table.leave_line(&waiter);
        house.finish(0, 1);
    });
}

/// INV-5: a connection that leaves and whose last stream ends beside a caller that lines up: whoever
/// is to find another is woken to a cell that does not move any more, or to one that stays.
#[test]
fn last_return_of_one_that_leaves_vs_keeper() {
    model(|| {
        let (house, _) = House::of_one(1);
        let lease = house.table.lease().unwrap();
        house.table.shrink(1);
        let user = spawn(move || drop(lease));
        let waiter = house.line_up();
        let served = keep(&house.table, &waiter);
        if served.is_none() {
            assert_eq!(Book::read(&house.book.rested), 1, "INV-5: nobody finds it at rest");
        }
        user.join().unwrap();
        if served.is_none() {
            house.table.leave_line(&waiter);
        }
        drop(served);
        drop(waiter);
        house.table.shrink(1);
        house.finish(1, 0);
    });
}

/// INV-5: a suspension and a stream's end, and a resume: who lined up meanwhile is served.
#[test]
fn resume_vs_wait_for_a_stream() {
    model(|| {
        let (house, _) = House::of_one(1);
        house.table.hold();
        let owner = spawn({
            let table = house.table.clone();
            move || table.resume()
        });
        drop(sleep(&house.line_up()));
        owner.join().unwrap();
        house.wind_up(1, 0);
    });
}

/// INV-9: a close and a connection that is put in: it does not stay.
#[test]
fn close_vs_put_in() {
    model(|| {
        let house = House::new(BOUNDS);
        let owner = spawn({
            let table = house.table.clone();
            move || table.close()
        });
        house.put_in(1);
        owner.join().unwrap();
        house.finish(1, 0);
    });
}

/// INV-9, INV-10: a close and a caller: its stream goes on, and the connection rests after it.
#[test]
fn close_vs_lease() {
    model(|| {
        let (house, _) = House::of_one(1);
        let owner = spawn({
            let table = house.table.clone();
            move || table.close()
        });
        let lease = house.table.lease();
        owner.join().unwrap();
        drop(lease);
        assert!(house.table.lease().is_none(), "INV-9");
        house.finish(1, 0);
    });
}

/// INV-5: those in line are told that there is nothing for them, or find what came meanwhile.
#[test]
fn turned_away_vs_return() {
    model(|| {
        let (house, _) = House::of_one(1);
        let lease = house.table.lease().unwrap();
        let waiter = house.line_up();
        let keeper = spawn({
            let table = house.table.clone();
            move || table.turn_away(1, || StreamOutcome::Failed("refused"))
        });
        drop(lease);
        keeper.join().unwrap();
        match outcome(&waiter) {
            Some(StreamOutcome::Ready(lease)) => drop(lease),
            Some(StreamOutcome::Failed(_)) => {}
            other => panic!("INV-5: {other:?}"),
        }
        drop(waiter);
        assert_eq!(house.leased(), 0, "INV-7: a stream is lost");
        house.wind_up(1, 0);
    });
}
