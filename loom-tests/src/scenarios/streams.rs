//! The table of streams: callers, a keeper that finds connections, peers that go or change their
//! mind, and an owner, on threads of their own.
//!
//! The keeper sleeps until it is woken, and so do callers: who is forgotten is forgotten for good.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Poll,
};

use corepool::model::streams::{
    Bounds, Capacity, Carrier, Spot, StreamLease, StreamOutcome, Streams,
};

use super::{
    Report, Size,
    rt::{Rng, Rt},
};

/// What becomes of all connections: bookkeeping, which no schedule need see.
#[derive(Debug, Default)]
struct Book {
    made: AtomicU32,
    rested: AtomicU32,
    ended: AtomicU32,
    dropped: AtomicU32,
}

#[derive(Debug)]
struct Conn {
    book: Arc<Book>,
    is_unusable: AtomicBool,
    /// Streams that callers have of it.
    streams: AtomicU32,
}

impl Carrier for Conn {
    fn is_usable(&self) -> bool {
        !self.is_unusable.load(Ordering::Relaxed)
    }

    fn rest(self) {
        self.book.rested.fetch_add(1, Ordering::Relaxed);
    }

    fn end(self) {
        self.book.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        assert_eq!(*self.streams.get_mut(), 0, "INV-10: taken out from under a stream");
        self.book.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The most streams that a peer allows in a run.
const MOST: u16 = 3;

#[derive(Clone)]
struct World {
    rt: Rt,
    table: Streams<Conn, ()>,
    bounds: Bounds,
    book: Arc<Book>,
    is_over: Arc<AtomicBool>,
}

/// A run: every caller gets its streams, and in the end every connection has gone one way, once.
///
/// # Panics
/// When an invariant does not hold.
pub(super) fn run(size: Size, seed: u64) -> Report {
    let rt = Rt::default();
    let seed = rt.seed(seed);
    let bounds = Bounds { min: 1, max: 1 + size.scale, streams: 2 };
    let (table, book) = (Streams::new(bounds), Arc::default());
    let world = World { rt: rt.clone(), table, bounds, book, is_over: Arc::default() };
    let start = |number: u64, body: fn(&World, Rng, usize) -> Report, operations: usize| {
        let world = world.clone();
        rt.spawn(move || body(&world, Rng::new(seed, number), operations))
    };
    let keeper = start(0, keep, 0);
    let mut others = vec![start(1, meddle, size.operations / 2)];
    others.extend((0..size.callers).map(|at| start(2 + at as u64, call, size.operations)));
    let mut report = Report::default();
    for other in others {
        report += other.join().expect("a thread has failed");
    }
    world.is_over.store(true, Ordering::Release);
    world.table.wake_keeper();
    report += keeper.join().expect("the keeper has failed");
    world.check(&mut report);
    report
}

impl World {
    fn put_in(&self, rng: &mut Rng) {
        let conn = Conn {
            book: Arc::clone(&self.book),
            is_unusable: AtomicBool::new(false),
            streams: AtomicU32::new(0),
        };
        self.book.made.fetch_add(1, Ordering::Relaxed);
        let limit = 1 + rng.below(MOST.into()) as u16;
        let put = self.table.put_in(conn, |_, spot| {
            if rng.chance(5) {
                self.table.drain(spot);
            }
            Capacity { limit, version: 0 }
        });
        assert!(put.is_ok(), "the keeper asks for no more than there is room for");
    }

    fn check(&self, report: &mut Report) {
        let census = self.table.census();
        assert_eq!((census.leased, census.waiting), (0, 0), "INV-10, INV-7");
        self.table.close();
        let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let made = read(&self.book.made);
        assert!(self.table.is_empty() && !self.table.is_moving(), "INV-9: {:?}", self.table);
        assert_eq!(read(&self.book.rested) + read(&self.book.ended), made, "INV-10: went once");
        assert_eq!(read(&self.book.dropped), made, "INV-9");
        report.opened += u64::from(made);
    }
}

/// A caller: takes a stream, or waits for one, and sometimes leaves before it has one.
fn call(world: &World, mut rng: Rng, operations: usize) -> Report {
    let mut report = Report::default();
    let table = &world.table;
    for _ in 0..operations {
        report.operations += 1;
        let lease = match table.lease() {
            Some(lease) => Some(lease),
            None => wait(world, &mut rng),
        };
        let Some(lease) = lease else {
            report.note("left the line");
            continue;
        };
        report.reused += 1;
        hold(world, &mut rng, lease);
    }
    report
}

fn wait(world: &World, rng: &mut Rng) -> Option<StreamLease<Conn, ()>> {
    let table = &world.table;
    let Ok(waiter) = table.line_up(8) else {
        // Too many have left behind one that stays.
        world.rt.yield_now();
        return None;
    };
    if rng.chance(25) {
        if rng.chance(50) {
            world.rt.yield_now();
        }
        table.leave_line(&waiter);
        return None;
    }
    match world.rt.block_on(poll_fn(|cx| waiter.poll(cx))) {
        StreamOutcome::Ready(lease) => Some(lease),
        StreamOutcome::Failed(()) => None,
        other => panic!("nobody has closed the table: {other:?}"),
    }
}

fn hold(world: &World, rng: &mut Rng, lease: StreamLease<Conn, ()>) {
    let streams = lease.carrier().streams.fetch_add(1, Ordering::Relaxed) + 1;
    assert!(streams <= MOST.into(), "INV-10: {streams} streams");
    if rng.chance(50) {
        world.rt.yield_now();
    }
    if rng.chance(5) {
        lease.carrier().is_unusable.store(true, Ordering::Relaxed);
    }
    lease.carrier().streams.fetch_sub(1, Ordering::Relaxed);
    drop(lease);
}

/// The keeper: registers, then looks, then sleeps until it is woken.
fn keep(world: &World, mut rng: Rng, _: usize) -> Report {
    let mut report = Report::default();
    let table = &world.table;
    world.rt.block_on(poll_fn(|cx| {
        table.register_keeper(cx.waker());
        while table.wanted() > 0 && !table.is_moving() {
            if rng.chance(10) && table.find_one() {
                table.found();
                table.turn_away(1, || StreamOutcome::Failed(()));
                report.note("turned away");
            } else {
                world.put_in(&mut rng);
            }
        }
        if world.is_over.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }));
    report
}

/// Peers and the owner: connections end, limits change, the table is held for a moment. The last
/// word is a peer's that allows a stream.
fn meddle(world: &World, mut rng: Rng, operations: usize) -> Report {
    let mut report = Report::default();
    let table = &world.table;
    for version in 1..=operations as u32 {
        let spots: Vec<Spot> = table.spots().collect();
        match (rng.below(8), spots.first()) {
            (0, Some(_)) => table.drain(*rng.pick(&spots)),
            (1..=3, Some(_)) => {
                let limit = 1 + rng.below(MOST.into()) as u16;
                table.change(*rng.pick(&spots), Capacity { limit, version });
            }
            (4, Some(_)) => drop(table.look(*rng.pick(&spots), |conn| conn.is_usable())),
            (5, _) => {
                table.hold();
                world.rt.yield_now();
                table.resume();
            }
            (6, _) => table.set_bounds(world.bounds, rng.chance(50)),
            (7, Some(_)) if rng.chance(50) => table.drain_all(),
            // As the keeper does when a round finds that some are not needed; it looks after that.
            _ => {
                table.shrink(1);
                table.wake_keeper();
            }
        }
        report.operations += 1;
        world.rt.yield_now();
    }
    report
}
