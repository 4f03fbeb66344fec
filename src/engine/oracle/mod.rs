//! Sequences of operations on the engine, checked step by step against a plain account.
//!
//! One thread, no I/O: a [`World`] holds what callers, drivers and peers would hold, decodes
//! [`Op`]s from bytes, applies them, and after each one compares the engine with its own account
//! of every connection. The fuzzer brings the bytes; so do the tests below, from seeds.

mod account;
mod dials;
mod op;
mod policy;
mod rare;
#[cfg(test)]
mod tests;

use core::{
    fmt,
    task::{Context, Poll, Waker},
};

use super::{
    BreakerState, Class, CloseReason, Doomed, Duty, Engine, Failure, Goal, Group, GroupLimits,
    GroupWaiter, Lease, NEVER, NoDial, Outcome, Refused, Reservation, Seat, ShardId, SlotIndex,
    State, TotalLimits,
};
use crate::{
    clock::Tick,
    sync::{Arc, AtomicU32, Ordering},
};

pub use op::{Op, Spot};

use op::Bytes;
use rare::GivenUp;

const SHARDS: usize = 2;
const GROUPS: usize = 2;

/// Decodes and runs a sequence.
///
/// # Panics
/// At the first step after which an invariant does not hold; the sequence is printed.
pub fn run(data: &[u8]) {
    drive(data);
}

/// Returns what was given up on the way.
fn drive(data: &[u8]) -> GivenUp {
    let mut bytes = Bytes(data);
    // Without policies, with them, and with all there is: what was found stays what it is.
    let (mut world, decode): (_, fn(&mut Bytes<'_>) -> Option<Op>) = match data.first() {
        None | Some(0..128) => (World::new(&mut bytes), Op::decode),
        Some(192..216) => (World::full(&mut bytes), Op::decode_all),
        Some(_) => (World::rich(&mut bytes), Op::decode_any),
    };
    while let Some(op) = decode(&mut bytes) {
        world.step(op);
    }
    let given_up = world.given_up;
    world.end(data.len().is_multiple_of(2));
    given_up
}

/// A connection that counts how often it was closed.
#[derive(Debug)]
struct Conn {
    id: usize,
    closed: Arc<AtomicU32>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        // Relaxed: one thread.
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

type Cause = u32;

/// What the account says of one connection.
#[derive(Debug)]
struct Record {
    group: usize,
    shard: ShardId,
    closed: Arc<AtomicU32>,
    /// The peer was seen to go while a lease held it.
    dead: bool,
    /// The engine has or had it, and no caller took it out.
    pooled: bool,
    rests: bool,
    /// Since when nobody has used it: at rest, or handed to a caller that has not looked.
    unused_since: Option<Tick>,
    /// Which eviction of its group it has outlived, and when it has lived long enough.
    epoch: u32,
    ends: Tick,
}

/// One group and its account.
struct Side {
    group: Arc<Group<Conn, Cause>>,
    seats: Box<[Arc<Seat<Conn, Cause>>]>,
    limits: GroupLimits,
    closed: bool,
    held: bool,
    /// Before this step.
    was_held: bool,
    opened: u64,
    vacated: u64,
    /// How often it was evicted.
    epoch: u32,
    /// Where its breaker stands, and how often that has changed.
    breaker: BreakerState,
    period: u32,
    /// What was out before this step: a lowered limit is exceeded by no more.
    before: Out,
}

/// What is out against limits that may change.
#[derive(Clone, Copy, Debug, Default)]
struct Out {
    pooled: u32,
    overflow: u32,
    dialing: u32,
    waiting: u32,
    probes: u32,
}

/// A caller that waits, or was served and has not looked.
struct Caller {
    group: usize,
    waiter: Arc<GroupWaiter<Conn, Cause>>,
    served: bool,
}

/// A dial under way.
struct Dial {
    ticket: Reservation<Conn, Cause>,
    /// The peer hung up already.
    dead: bool,
    /// The period of the breaker in which it was begun.
    period: u32,
    /// Its driver has been told of it: an owner may have a place for a connection before.
    begun: bool,
}

/// What a served caller would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Ready { id: usize, shard: ShardId, index: SlotIndex, class: Class },
    Failed(Cause),
    Exhausted,
    Open,
    Closed,
}

impl Found {
    fn of(outcome: &Outcome<Conn, Cause>) -> Self {
        match outcome {
            Outcome::Ready(lease) => Self::from_lease(lease),
            Outcome::Failed(cause) => Self::Failed(*cause),
            Outcome::Exhausted => Self::Exhausted,
            Outcome::Open(_) => Self::Open,
            Outcome::Closed => Self::Closed,
        }
    }

    fn from_lease(lease: &Lease<Conn, Cause>) -> Self {
        Self::Ready {
            id: lease.tenant.conn.id,
            shard: lease.shard(),
            index: lease.index(),
            class: lease.tenant.class,
        }
    }
}

/// The engine and everything outside of it.
struct World {
    engine: Engine<Conn, Cause>,
    sides: Vec<Side>,
    now: Tick,
    /// What chance says when it is asked.
    random: u32,
    given_up: GivenUp,
    leases: Vec<Lease<Conn, Cause>>,
    /// Taken out by a sweep, to be asked whether they live.
    asked: Vec<Lease<Conn, Cause>>,
    /// In order of arrival.
    callers: Vec<Caller>,
    dials: Vec<Dial>,
    /// Tickets of dials that are over.
    spent: Vec<Reservation<Conn, Cause>>,
    closes: Vec<Doomed<Conn, Cause>>,
    detached: Vec<Conn>,
    records: Vec<Record>,
    causes: Cause,
    totals: TotalLimits,
    /// Of the whole pool, before this step.
    before: Out,
    /// A shard had no vacant slot before this step.
    was_full: bool,
    history: History,
}

/// Prints the sequence when a step fails.
struct History(Vec<Op>);

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (step, op) in self.0.iter().enumerate() {
                eprintln!("{step:4} {op:?}");
            }
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

impl World {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let slots = bytes.within(1, 4) as usize;
        let sides = (0..GROUPS).map(|_| {
            let [max_live, max_idle, max_waiters] =
                [(1, 4), (0, 3), (1, 3)].map(|(least, most)| bytes.within(least, most));
            // One byte for two limits: as many as the corpus was written for.
            let rest = bytes.within(0, 7);
            let limits = GroupLimits {
                max_live,
                max_idle,
                max_waiters,
                idle_timeout_ms: rest % 4 * 100,
                lifo: u32::from(rest >= 4),
                ..GroupLimits::DEFAULT
            };
            Side::new(limits)
        });
        Self::of(slots, sides.collect(), TotalLimits::default())
    }

    fn of(slots: usize, sides: Vec<Side>, totals: TotalLimits) -> Self {
        Self {
            sides,
            engine: Engine::with_totals(SHARDS, slots, &totals),
            totals,
            before: Out::default(),
            was_full: false,
            asked: Vec::new(),
            now: Tick::ZERO,
            random: 0,
            given_up: GivenUp::default(),
            leases: Vec::new(),
            callers: Vec::new(),
            dials: Vec::new(),
            spent: Vec::new(),
            closes: Vec::new(),
            detached: Vec::new(),
            records: Vec::new(),
            causes: 0,
            history: History(Vec::new()),
        }
    }

    fn step(&mut self, op: Op) {
        self.history.0.push(op);
        self.was_full = (0..SHARDS as u16).any(|shard| self.is_full(ShardId(shard)));
        match op {
            Op::Checkout(spot) => self.checkout(spot),
            Op::Wait(spot) => self.wait(spot),
            Op::DialFresh(spot) => self.dial_fresh(spot),
            Op::GiveBack(which) => {
                if let Some(lease) = pick(&mut self.leases, which) {
                    self.engine.give_back(lease, self.now);
                }
            }
            Op::Discard(which) => {
                if let Some(lease) = pick(&mut self.leases, which) {
                    self.given_up.guard += 1;
                    self.engine.discard(lease, CloseReason::Discarded);
                }
            }
            Op::Detach(which) => {
                if let Some(lease) = pick(&mut self.leases, which) {
                    let conn = self.engine.detach(lease);
                    self.records[conn.id].pooled = false;
                    self.detached.push(conn);
                }
            }
            Op::Redial(which) => self.redial(which),
            Op::Poll(which) => self.poll(which),
            Op::Cancel(which) => {
                if let Some(caller) = pick(&mut self.callers, which) {
                    self.note_caller(&caller);
                    let group = &self.sides[caller.group].group;
                    self.engine.cancel(&caller.waiter, group);
                }
            }
            Op::DialSucceeds(which) => {
                if let Some(dial) = pick(&mut self.dials, which) {
                    self.complete(dial);
                }
            }
            Op::DialFails(which) => {
                if let Some(dial) = pick(&mut self.dials, which) {
                    self.fail(dial.ticket, Failure::Peer);
                }
            }
            Op::DialGivenUp(which) => {
                if let Some(Dial { ticket, begun, .. }) = pick(&mut self.dials, which) {
                    self.note_dial(&ticket, begun);
                    assert!(self.engine.abandon(&ticket, Failure::GivenUp, self.moment()));
                    self.spent.push(ticket);
                }
            }
            Op::LateCompletion(which) => self.complete_late(which),
            Op::Vacate(which) => self.vacate(which),
            Op::HangUp(shard, slot) => self.hang_up(shard, slot, CloseReason::PeerClosed),
            Op::Sweep(shard) => self.sweep(shard),
            Op::Advance(by) => self.now = self.now.after(u32::from(by) * 4),
            Op::Close(group) => {
                self.engine.close(&self.sides[group].group);
                self.sides[group].closed = true;
            }
            policy => self.step_of_policy(policy),
        }
        self.observe();
        self.check_after(op);
    }

    fn checkout(&mut self, Spot { group, shard, steal_min }: Spot) {
        let side = &self.sides[group];
        let waiting = self.waiting(group);
        let idle = self.idle(group).count() as u32;
        let near = self.idle(group).filter(|record| record.shard == shard).count();
        let Some(lease) = self.engine.checkout(&side.group, shard, steal_min) else {
            let nobody_first = waiting == 0 && !side.closed && !side.held;
            let within_reach = near > 0 || (idle > 0 && idle >= steal_min);
            assert!(!nobody_first || !within_reach, "a miss with {idle} idle, {near} near");
            return;
        };
        let record = &self.records[lease.tenant.conn.id];
        assert!(!side.closed, "INV-9: handed out by a closed group");
        assert!(!side.held, "handed out while held");
        assert_eq!(record.epoch, side.epoch, "INV-6: handed out after its eviction");
        assert_eq!(lease.tenant.class, Class::Pooled, "rested above the limit");
        assert!(lease.tenant.uses < side.limits.max_uses, "handed out once too often");
        assert_eq!(waiting, 0, "INV-5: overtook a caller in line");
        assert_eq!(record.group, group, "INV-1: another group's connection");
        assert!(record.rests, "INV-1: handed out what was not idle");
        assert!(!record.dead, "INV-6");
        assert!(record.shard == shard || idle >= steal_min, "stole below the threshold");
        self.leases.push(lease);
    }

    fn wait(&mut self, Spot { group, shard, steal_min }: Spot) {
        let side = &self.sides[group];
        let waiting = self.waiting(group);
        match self.engine.wait(&side.seats[shard.get()], steal_min, self.now) {
            Ok(waiter) => {
                assert!(!side.closed && waiting < side.limits.max_waiters);
                self.callers.push(Caller { group, waiter, served: false });
            }
            Err(Refused::Closed) => assert!(side.closed),
            // Fewer than the limit wait if the line is clogged, but never nobody.
            Err(Refused::Full) => assert!(waiting > 0, "INV-5: refused, and nobody waits"),
            Err(Refused::Open(_)) => self.assert_open(group),
            Err(refused) => panic!("no policy says {refused:?}"),
        }
    }

    fn dial_fresh(&mut self, Spot { group, shard, .. }: Spot) {
        let side = &self.sides[group];
        let at_limit = side.group.permits.live() >= side.limits.max_live;
        let dialled = self.engine.dial_fresh(&side.seats[shard.get()], self.now);
        assert!(!at_limit || dialled.is_err(), "INV-2");
        self.dialled_alone(group, shard, at_limit, dialled);
    }

    fn redial(&mut self, which: u8) {
        let Some(lease) = pick(&mut self.leases, which) else {
            return;
        };
        let (group, shard) = (self.records[lease.tenant.conn.id].group, lease.shard());
        let full = self.is_full(shard);
        let (id, rested) = (lease.tenant.conn.id, lease.tenant.rested);
        match self.engine.redial(lease, self.now) {
            Ok(waiter) => self.callers.push(Caller { group, waiter, served: false }),
            Err(refused) => {
                // It went back, and its rest goes on.
                self.records[id].unused_since = Some(rested);
                assert!(match refused {
                    NoDial::Closed => self.sides[group].closed,
                    NoDial::Exhausted => full,
                    NoDial::Held => self.sides[group].held,
                    NoDial::Open(_) => self.may_be_open(group),
                    NoDial::NoPermit => false,
                });
            }
        }
    }

    fn poll(&mut self, which: u8) {
        let Some(caller) = pick(&mut self.callers, which) else {
            return;
        };
        match caller.waiter.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Outcome::Ready(lease)) => self.leases.push(lease),
            Poll::Ready(_) => {}
            Poll::Pending => {
                assert!(!caller.served, "INV-5: served and not told");
                // Back to its place in the order of arrival.
                let place = usize::from(which) % (self.callers.len() + 1);
                self.callers.insert(place, caller);
            }
        }
    }

    fn vacate(&mut self, which: u8) {
        let Some(Doomed { conn, place }) = pick(&mut self.closes, which) else {
            return;
        };
        let group = self.side_of(&place.seat);
        drop(conn);
        self.engine.vacate(place, self.now);
        self.sides[group].vacated += 1;
    }

    fn hang_up(&mut self, shard: ShardId, slot: u8, reason: CloseReason) {
        let index = SlotIndex::new(u32::from(slot) % self.engine.slots_per_shard() as u32);
        let before = self.engine.slot(shard, index).state();
        self.engine.hang_up(shard, index, reason, self.now);
        let after = self.engine.slot(shard, index).state();
        match before {
            State::Idle => assert_eq!(after, State::Closing, "INV-6: idle and dead"),
            _ => assert_eq!(after, before),
        }
        self.mark(shard, index);
    }

    fn sweep(&mut self, shard: ShardId) {
        let due = |record: &&Record| {
            let timeout = self.sides[record.group].limits.idle_timeout_ms;
            let rested = record.unused_since.map_or(0, |since| self.now.since(since));
            let overdue = rested >= timeout || record.ends.is_past(self.now);
            record.shard == shard && record.rests && overdue
        };
        let expected = self.records.iter().filter(due).count();
        let mut quiet = Vec::new();
        let swept = self.engine.sweep(shard, self.now, &mut quiet);
        assert_eq!(swept, expected, "swept too many or too few");
        for lease in quiet {
            let limits = &self.sides[self.records[lease.tenant.conn.id].group].limits;
            assert!(limits.ping_interval_ms != NEVER, "nobody is to be asked");
            self.asked.push(lease);
        }
    }

    /// A connection that the account knows of, outside the engine.
    fn connect(&mut self, group: usize, shard: ShardId) -> Conn {
        let closed = Arc::new(AtomicU32::new(0));
        let conn = Conn { id: self.records.len(), closed: Arc::clone(&closed) };
        let (epoch, lifetime) = (self.sides[group].epoch, self.lifetime(group));
        self.records.push(Record {
            group,
            shard,
            closed,
            dead: false,
            pooled: false,
            rests: false,
            unused_since: None,
            epoch,
            ends: self.now.after(lifetime),
        });
        conn
    }

    fn side_of(&self, seat: &Seat<Conn, Cause>) -> usize {
        let same = |side: &Side| Arc::ptr_eq(&side.group, seat.group());
        self.sides.iter().position(same).expect("every seat is of one of the groups")
    }

    /// Callers in line, by the account.
    fn waiting(&self, group: usize) -> u32 {
        self.in_line(group).filter(|caller| !caller.served).count() as u32
    }

    /// Whether a caller is in line that no step so far has served, this one included.
    fn still_waiting(&self, group: usize) -> bool {
        self.in_line(group).any(|caller| caller.found().is_none())
    }

    fn in_line(&self, group: usize) -> impl Iterator<Item = &Caller> {
        let ours = move |caller: &&Caller| caller.group == group && caller.waiter.is_in_line();
        self.callers.iter().filter(ours)
    }

    /// Connections at rest, by the account.
    fn idle(&self, group: usize) -> impl Iterator<Item = &Record> {
        let ours = move |record: &&Record| record.group == group && record.rests;
        self.records.iter().filter(ours)
    }

    fn is_full(&self, shard: ShardId) -> bool {
        self.engine.slots_in_use(shard) == self.engine.slots_per_shard()
    }

    /// INV-9: everything comes back, or everything is dropped where it is; either way each
    /// connection is closed exactly once.
    fn end(mut self, orderly: bool) {
        if orderly {
            self.come_back();
        }
        let records = core::mem::take(&mut self.records);
        drop(self);
        for (id, record) in records.iter().enumerate() {
            let closed = record.closed.load(Ordering::Relaxed);
            assert_eq!(closed, 1, "INV-4: at the end {id} was closed {closed} times");
        }
    }

    fn come_back(&mut self) {
        while !self.asked.is_empty() {
            self.step(Op::Answer(0));
        }
        for group in 0..GROUPS {
            self.step(Op::Resume(group));
        }
        while !self.callers.is_empty() {
            self.step(Op::Cancel(0));
        }
        // INV-3: what rests has a hint, or this misses it.
        for group in 0..GROUPS {
            for _ in 0..self.idle(group).count() {
                self.step(Op::Checkout(Spot { group, shard: ShardId(0), steal_min: 1 }));
            }
        }
        for group in 0..GROUPS {
            self.step(Op::Close(group));
        }
        while !self.leases.is_empty() {
            self.step(Op::GiveBack(0));
        }
        while !self.dials.is_empty() {
            self.step(Op::DialSucceeds(0));
        }
        while !self.closes.is_empty() {
            self.step(Op::Vacate(0));
        }
        for side in &self.sides {
            assert_eq!(self.engine.counts(&side.group).live, 0, "INV-2");
            assert_eq!(side.group.dials.live(), 0, "INV-2");
            assert_eq!(side.opened, side.vacated, "INV-9");
        }
        for shard in (0..SHARDS as u16).map(ShardId) {
            assert_eq!(self.engine.slots_in_use(shard), 0, "INV-9");
        }
        self.engine.forget_starving();
        let totals = (self.engine.total_live(), self.engine.total_idle());
        assert!(matches!(totals, (None | Some(0), None | Some(0))), "INV-9: {totals:?}");
    }
}

impl Caller {
    /// What it would find if it looked now.
    fn found(&self) -> Option<Found> {
        self.waiter.peek(Found::of)
    }

    fn holds_one_of(&self, group: usize) -> bool {
        self.group == group && matches!(self.found(), Some(Found::Ready { .. }))
    }
}

/// Takes one out, in the order of the others.
fn pick<V>(from: &mut Vec<V>, which: u8) -> Option<V> {
    let count = from.len();
    (count > 0).then(|| from.remove(usize::from(which) % count))
}
