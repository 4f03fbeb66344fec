//! Sequences of operations on the table of streams, checked step by step against a plain account.
//!
//! One thread, no I/O. The account says of each connection how many of its streams are leased and
//! what becomes of it, and of each caller whether it is served; after every step the table must say
//! the same: INV-10, and INV-5 on both sides, for those in line and for the keeper that finds
//! connections for them.

mod account;

use core::task::{Context, Poll, Waker};
use std::{collections::VecDeque, task::Wake};

use super::{Bounds, StreamLease, StreamOutcome, StreamWaiter, Streams};
use crate::{
    engine::{
        Refused,
        seeded::{Bytes, Chance},
    },
    sync::{Arc, AtomicBool, Ordering::Relaxed},
};
use account::{Conn, Record, Where};

/// Decodes and runs a sequence.
///
/// # Panics
/// At the first step after which table and account differ.
pub fn run(data: &[u8]) {
    walk(&mut Bytes(data), usize::MAX);
}

/// Steps as they come by chance, and then all goes back.
fn walk(random: &mut impl Chance, steps: usize) -> World {
    let mut world = World::new(random);
    for _ in 0..steps {
        if random.is_over() {
            break;
        }
        world.step(random);
        world.check();
    }
    world.wind_up();
    world
}

/// What a caller in line is to be told, by the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Stream(usize),
    Failed(u32),
    Closed,
}

type Table = Streams<Conn, u32>;
type Leased = StreamLease<Conn, u32>;

/// A caller in line.
struct Caller {
    waiter: Arc<StreamWaiter<Conn, u32>>,
    number: u32,
    told: Option<Told>,
}

/// Notes that the keeper was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// The table, what callers and the keeper hold of it, and the account.
struct World {
    table: Table,
    bounds: Bounds,
    exceeds: bool,
    cells: usize,
    records: Vec<Record>,
    leases: Vec<(Leased, usize)>,
    callers: Vec<Caller>,
    /// Who stands in line, and whether it has left since.
    line: VecDeque<(u32, bool)>,
    max_waiters: u32,
    next_number: u32,
    finding: u32,
    held: bool,
    closed: bool,
    bell: Arc<Bell>,
    /// What the walk came by, so that a test sees that it is worth something.
    served: u32,
    exceeded: u32,
    ended: u32,
    rested: u32,
    stayed: u32,
}

impl World {
    fn new(random: &mut impl Chance) -> Self {
        let max = 1 + random.below(3);
        let bounds = Bounds { min: 1 + random.below(max), max, streams: 1 + random.below(4) };
        let bell = Arc::new(Bell::default());
        Self {
            table: Streams::new(bounds),
            bounds,
            exceeds: false,
            cells: 2 * max as usize,
            records: Vec::new(),
            leases: Vec::new(),
            callers: Vec::new(),
            line: VecDeque::new(),
            max_waiters: 2 + random.below(6),
            next_number: 0,
            finding: 0,
            held: false,
            closed: false,
            bell,
            served: 0,
            exceeded: 0,
            ended: 0,
            rested: 0,
            stayed: 0,
        }
    }

    fn step(&mut self, random: &mut impl Chance) {
        match random.below(64) {
            0..10 => self.lease(),
            10..20 => self.give_back(random),
            20..29 => self.line_up(),
            29..33 => self.cancel(random),
            33..39 => self.poll(random),
            39..45 => self.put_in(random),
            45..48 => self.change(random),
            48..50 => self.drain(random),
            50..52 => self.shrink(random.below(4)),
            52..55 => self.keep(random),
            55 => self.found(),
            56 => self.set_bounds(random),
            57 => self.hold_or_resume(),
            58 => self.turn_away(random.below(4)),
            59 | 60 => self.mark_unusable(random),
            61 => self.look(random),
            62 if random.below(8) == 0 => self.close(),
            62 => self.drain_all(),
            _ => drop(self.wanted()),
        }
    }

    fn lease(&mut self) {
        let expected = if self.is_contended() { None } else { self.lease_one() };
        let lease = self.table.lease();
        assert_eq!(lease.as_ref().map(|lease| lease.carrier().id), expected, "who is lent");
        self.leases.extend(lease.zip(expected));
    }

    fn give_back(&mut self, random: &mut impl Chance) {
        if let Some(at) = pick(random, self.leases.len()) {
            let (lease, id) = self.leases.swap_remove(at);
            self.unlease(id);
            self.serve();
            drop(lease);
        }
    }

    fn line_up(&mut self) {
        if self.left() > self.max_waiters {
            self.purge();
        }
        let expected = if self.left() > self.max_waiters {
            Err(Refused::Full)
        } else if self.closed {
            Err(Refused::Closed)
        } else if self.waiting() >= self.max_waiters {
            Err(Refused::Full)
        } else {
            Ok(())
        };
        let waiter = self.table.line_up(self.max_waiters);
        assert_eq!(waiter.as_ref().map(|_| ()).map_err(|refused| *refused), expected);
        if let Ok(waiter) = waiter {
            let number = self.next_number;
            self.next_number += 1;
            self.line.push_back((number, false));
            self.callers.push(Caller { waiter, number, told: None });
            self.serve();
        }
    }

    fn cancel(&mut self, random: &mut impl Chance) {
        let Some(at) = pick(random, self.callers.len()) else {
            return;
        };
        let caller = self.callers.swap_remove(at);
        match caller.told {
            None => {
                let place = self.line.iter_mut().find(|(number, _)| *number == caller.number);
                place.expect("who was not told is in line").1 = true;
                if self.left() > self.waiting() {
                    self.purge();
                }
            }
            Some(Told::Stream(id)) => {
                self.unlease(id);
                self.serve();
            }
            Some(_) => {}
        }
        self.table.leave_line(&caller.waiter);
    }

    fn poll(&mut self, random: &mut impl Chance) {
        let Some(at) = pick(random, self.callers.len()) else {
            return;
        };
        let caller = &self.callers[at];
        let outcome = match caller.waiter.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        };
        let told = match &outcome {
            None => None,
            Some(StreamOutcome::Ready(lease)) => Some(Told::Stream(lease.carrier().id)),
            Some(StreamOutcome::Failed(why)) => Some(Told::Failed(*why)),
            Some(StreamOutcome::Closed) => Some(Told::Closed),
            Some(other) => panic!("{other:?}"),
        };
        assert_eq!(told, caller.told, "INV-5: what a caller in line was told");
        if let Some(outcome) = outcome {
            self.callers.swap_remove(at);
            if let StreamOutcome::Ready(lease) = outcome {
                let id = lease.carrier().id;
                self.leases.push((lease, id));
            }
        }
    }

    /// Puts a connection in, whose peer may have a word in between.
    fn put_in(&mut self, random: &mut impl Chance) {
        let id = self.records.len();
        let limit = if random.below(16) == 0 { random.next_u32() } else { random.below(5) };
        // Near the point where versions come round, or anywhere.
        let near = (1_u32 << 31).wrapping_sub(random.below(4));
        let first_version = if random.below(2) == 0 { near } else { random.next_u32() };
        let mut record = Record {
            fate: Arc::default(),
            spot: None,
            at: Where::Refused,
            draining: false,
            leases: 0,
            said: vec![limit],
            first_version,
            heard: None,
        };
        let taken: Vec<_> = self.there().map(|(_, record)| record.cell()).collect();
        let vacant = (0..self.cells).find(|cell| !taken.contains(cell));
        let (says, drains) = (random.below(4) == 0, random.below(8) == 0);
        let new_limit = random.below(5);
        let conn = Conn { id, fate: Arc::clone(&record.fate) };
        let table = self.table.clone();
        let put = table.put_in(conn, |conn, spot| {
            assert_eq!(conn.id, id);
            assert_eq!(Some(spot.cell as usize), vacant, "the first cell that is vacant");
            record.spot = Some(spot);
            record.at = Where::Moving;
            let now = record.capacity(0);
            record.heard = Some(0);
            if says {
                record.said.push(new_limit);
                record.heard = Some(1);
                table.change(spot, record.capacity(1));
            }
            if drains {
                record.draining = true;
                table.drain(spot);
            }
            assert!(table.is_moving());
            now
        });
        assert_eq!(put.is_ok(), vacant.is_some());
        if vacant.is_some() {
            record.at = if drains { Where::Ended } else { Where::Open };
        }
        self.ended += u32::from(record.at == Where::Ended);
        self.records.push(record);
        self.serve();
        if self.closed {
            self.leave(id);
        }
        drop(put);
    }

    /// A peer says something new, or what it said is told late.
    fn change(&mut self, random: &mut impl Chance) {
        let Some(id) = self.one_that_stood(random) else {
            return;
        };
        let record = &mut self.records[id];
        if random.below(2) == 0 {
            record.said.push(random.below(5));
        }
        let which = random.below(record.said.len() as u32) as usize;
        if record.is_there() {
            record.heard = record.heard.max(Some(which));
        }
        let (spot, capacity) = (record.spot.unwrap(), record.capacity(which));
        self.table.change(spot, capacity);
        self.serve();
    }

    fn drain(&mut self, random: &mut impl Chance) {
        if let Some(id) = self.one_that_stood(random) {
            self.drain_one(id);
            self.table.drain(self.records[id].spot.unwrap());
            self.serve();
        }
    }

    fn drain_all(&mut self) {
        (0..self.records.len()).for_each(|id| self.drain_one(id));
        self.table.drain_all();
        self.serve();
    }

    fn shrink(&mut self, surplus: u32) {
        for _ in 0..surplus {
            let open = self.there().filter(|(_, record)| record.is_open());
            if let Some((id, _)) = open.min_by_key(|(_, record)| (record.leases, record.cell())) {
                self.leave(id);
            }
        }
        self.table.shrink(surplus);
        // It is the keeper that does so: it is awake.
        self.bell.0.store(true, Relaxed);
    }

    /// As the keeper does: registers first, looks then. Now and then it is late with a find.
    fn keep(&mut self, random: &mut impl Chance) {
        self.table.register_keeper(&Waker::from(Arc::clone(&self.bell)));
        self.bell.0.store(false, Relaxed);
        while self.wanted() > 0 {
            let found = self.table.find_one();
            assert!(found, "a table that wants some is open");
            self.finding += 1;
            // Not at 0, which is what bytes say that have run out: it would never end.
            if random.below(4) == 3 {
                self.found();
            }
        }
        self.bell.0.store(false, Relaxed);
    }

    fn found(&mut self) {
        if self.finding > 0 {
            self.finding -= 1;
            self.table.found();
            // As for `shrink`.
            self.bell.0.store(true, Relaxed);
        }
    }

    fn wanted(&mut self) -> u32 {
        let expected = loop {
            let lacking = self.lacking();
            if lacking == 0 {
                break 0;
            }
            let leaving =
                self.there().filter(|(_, record)| record.at == Where::Leaving && !record.draining);
            let Some((id, _)) = leaving.min_by_key(|(_, record)| record.cell()) else {
                let vacant = self.cells as u32 - self.there().count() as u32;
                break lacking.min(vacant.saturating_sub(self.finding));
            };
            self.records[id].at = Where::Open;
            self.stayed += 1;
            self.serve();
        };
        assert_eq!(self.table.wanted(), expected, "how many are wanted");
        expected
    }

    fn set_bounds(&mut self, random: &mut impl Chance) {
        let max = 1 + random.below(4);
        self.bounds = Bounds { min: 1 + random.below(max), max, streams: 1 + random.below(4) };
        self.exceeds = random.below(2) == 0;
        self.table.set_bounds(self.bounds, self.exceeds);
        self.bounds.max = self.bounds.max.min(self.cells as u32 / 2);
        self.serve();
    }

    fn hold_or_resume(&mut self) {
        self.held = !self.held;
        if self.held {
            self.table.hold();
        } else {
            self.table.resume();
            self.serve();
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.serve();
        (0..self.records.len()).for_each(|id| self.leave(id));
        self.table.close();
    }

    fn turn_away(&mut self, count: u32) {
        let why = self.next_number;
        for _ in 0..count.min(self.waiting()) {
            self.tell(Told::Failed(why));
        }
        self.table.turn_away(count, || StreamOutcome::Failed(why));
    }

    fn mark_unusable(&mut self, random: &mut impl Chance) {
        if let Some(id) = self.one_that_stood(random) {
            self.records[id].fate.unusable.store(true, Relaxed);
        }
    }

    fn look(&mut self, random: &mut impl Chance) {
        if let Some(id) = self.one_that_stood(random) {
            let record = &self.records[id];
            let seen = self.table.look(record.spot.unwrap(), |conn| conn.id);
            assert_eq!(seen, record.is_open().then_some(id), "what stands there");
        }
    }

    /// All goes back, and nothing is left.
    fn wind_up(&mut self) {
        while let Some((lease, id)) = self.leases.pop() {
            self.unlease(id);
            self.serve();
            drop(lease);
            self.check();
        }
        while let Some(caller) = self.callers.first() {
            let number = caller.number;
            self.cancel(&mut First);
            assert!(self.callers.iter().all(|caller| caller.number != number));
            self.check();
        }
        self.close();
        self.check();
        let gone = |record: &Record| record.fate.dropped.load(Relaxed) == 1;
        assert!(self.records.iter().all(gone), "INV-9: a connection is left");
    }
}

/// Always the first.
struct First;

impl Chance for First {
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn below(&mut self, _: u32) -> u32 {
        0
    }

    fn is_over(&self) -> bool {
        true
    }
}

fn pick(random: &mut impl Chance, count: usize) -> Option<usize> {
    (count > 0).then(|| random.below(count as u32) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::seeded::Seeded;

    #[test]
    fn seeded_sequences_agree_with_the_account() {
        let mut sum = [0; 5];
        for seed in 1..=1_000 {
            let walk = std::panic::catch_unwind(|| walk(&mut Seeded::new(seed), 400));
            let world = walk.unwrap_or_else(|_| panic!("seed {seed} failed"));
            let counts = [world.served, world.exceeded, world.ended, world.rested, world.stayed];
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        assert!(sum.iter().all(|count| *count >= 400), "come by too rarely: {sum:?}");
    }

    #[test]
    fn the_fuzz_corpus_agrees_with_the_account() {
        crate::corpus::replay("streams", run);
    }
}
