//! What the loom models share.
use core::{
    cell::{Cell, RefCell},
    future::poll_fn,
    ops::Deref,
    task::{Context, Poll, Waker},
};
use std::{
    collections::BTreeSet,
    env,
    io::{Write, stderr},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process,
    sync::{
        Arc as StdArc,
        atomic::{AtomicU32 as StdAtomicU32, Ordering},
    },
};

use corepool::model::{
    Doomed, Duty, Engine, Failure, Group, GroupCounts, GroupLimits, GroupWaiter, HangUp, Lease,
    Outcome, Place, Reservation, Seat, ShardId, Slot, Tick, TotalLimits,
};
use loom::{cell::UnsafeCell, sync::Arc, thread};

/// The cause that a model's failed dials name.
pub type Cause = &'static str;
/// A lease of a model.
pub type Leased = Lease<Conn, Cause>;
/// A waiter of a model.
pub type Waiting = Arc<GroupWaiter<Conn, Cause>>;

/// The beginning of time, where most models stay.
pub const NOW: Tick = Tick::ZERO;
/// The first shard.
pub const S0: ShardId = ShardId(0);
/// The second shard.
pub const S1: ShardId = ShardId(1);
/// A stealing threshold that no model reaches.
pub const NEVER: u32 = u32::MAX;
/// A stealing threshold that one idle connection reaches.
pub const ALWAYS: u32 = 1;

/// Limits that are in no model's way.
pub const ROOMY: GroupLimits =
    GroupLimits { max_live: 2, max_idle: 2, max_waiters: 4, ..GroupLimits::DEFAULT };

/// Limits under which no second dial can help a caller that was forgotten.
pub const ONE: GroupLimits = GroupLimits { max_live: 1, ..ROOMY };

/// Explores a model with at most three preemptions, or `LOOM_MAX_PREEMPTIONS`.
pub fn model(body: impl Fn() + Sync + Send + 'static) {
    bounded(3, body);
}

/// Explores a model with at most `preemptions`, or `LOOM_MAX_PREEMPTIONS`.
///
/// Two suffice for nearly every known bug of such code; the long models use two.
pub fn bounded(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    let body = StdArc::new(body);
    for child_first in [false, true] {
        let executions = StdArc::new(StdAtomicU32::new(0));
        let (body, count) = (StdArc::clone(&body), StdArc::clone(&executions));
        let check = AssertUnwindSafe(|| {
            builder.check(move || {
                count.fetch_add(1, Ordering::Relaxed);
                ALIVE.with_borrow_mut(BTreeSet::clear);
                NEXT.set(0);
                CHILD_FIRST.set(child_first);
                body();
                ALIVE.with_borrow(|alive| {
                    assert!(alive.is_empty(), "INV-4: never closed: {alive:?}")
                });
            });
        });
        if let Err(failure) = catch_unwind(check) {
            // The mutation script asks one question of many models: does any of them fail?
            if env::var_os("MODELS_FAIL_FAST").is_some() {
                // libtest names the thread by the test.
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("a model");
                let _ = stderr().write_all(format!("RED {name}\n").as_bytes());
                process::exit(1);
            }
            resume_unwind(failure);
        }
        let executions = executions.load(Ordering::Relaxed);
        println!("{executions} executions");
        assert!(executions > 1, "loom saw no choice: the model explores nothing");
    }
}

/// Starts a thread of a model.
///
/// Each model is explored twice, from the execution in which the parent runs first and from the
/// one in which the child does. loom forgets that a thread loaded a word when another loads it
/// before it changes it (tokio-rs/loom#166), so the orders that it derives from one of the two
/// alone are not all there are.
pub fn spawn<R: 'static>(body: impl FnOnce() -> R + 'static) -> thread::JoinHandle<R> {
    let handle = thread::spawn(body);
    if CHILD_FIRST.get() {
        thread::yield_now();
    }
    handle
}

// Bookkeeping of the model, not part of it: loom runs all threads of an execution on one.
thread_local! {
    static ALIVE: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
    static NEXT: Cell<u32> = const { Cell::new(0) };
    static CHILD_FIRST: Cell<bool> = const { Cell::new(false) };
}

/// A connection that can tell when it has two owners, is closed twice or is forgotten.
#[derive(Debug)]
pub struct Conn {
    id: u32,
    /// loom fails an access that races with another or that nothing orders after it.
    exclusive: UnsafeCell<()>,
}

impl Conn {
    /// A connection like no other.
    #[expect(clippy::new_without_default, reason = "a new one differs from every other")]
    pub fn new() -> Self {
        let id = NEXT.replace(NEXT.get() + 1);
        ALIVE.with_borrow_mut(|alive| alive.insert(id));
        Self { id, exclusive: UnsafeCell::new(()) }
    }

    /// Uses the connection as its only owner may (INV-1).
    pub fn touch(&mut self) {
        self.exclusive.with_mut(|_| ());
    }

    /// Which connection it is.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.touch();
            let alive = ALIVE.with_borrow_mut(|alive| alive.remove(&self.id));
            assert!(alive, "INV-4: connection {} was closed twice", self.id);
        }
    }
}

/// A group and its seats.
#[derive(Debug)]
pub struct Party {
    /// The group.
    pub group: Arc<Group<Conn, Cause>>,
    /// Its seats by shard.
    pub seats: Box<[Arc<Seat<Conn, Cause>>]>,
}

impl Party {
    /// A group on the first `shards` shards.
    pub fn new(shards: usize, limits: GroupLimits) -> Self {
        let group = Arc::new(Group::new(S0, shards, limits));
        let seats = Group::seats(&group);
        Self { group, seats }
    }
}

/// An engine, one group, and the part of a driver that models need.
#[derive(Debug)]
pub struct House {
    /// The engine.
    pub engine: Engine<Conn, Cause>,
    shards: u16,
    party: Party,
}

impl Deref for House {
    type Target = Party;

    fn deref(&self) -> &Party {
        &self.party
    }
}

/// What a driver did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Dials begun.
    pub dials: usize,
    /// Connections ended.
    pub closes: usize,
}

impl House {
    /// An engine of `shards` shards with `slots` slots each, and a group on all of them.
    pub fn new(shards: u16, slots: usize, limits: GroupLimits) -> Arc<Self> {
        Self::with_totals(shards, slots, limits, TotalLimits::default())
    }

    /// The same with limits on all groups together.
    pub fn with_totals(
        shards: u16,
        slots: usize,
        limits: GroupLimits,
        totals: TotalLimits,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine: Engine::with_totals(shards.into(), slots, &totals),
            shards,
            party: Party::new(shards.into(), limits),
        })
    }

    /// A fresh connection, in use.
    pub fn open(&self, shard: ShardId) -> Leased {
        self.open_for(&self.party, shard)
    }

    /// A fresh connection of any group, in use.
    pub fn open_for(&self, party: &Party, shard: ShardId) -> Leased {
        let waiter = self.line_up(party, shard);
        let dial = self.dial(shard);
        assert!(self.engine.fulfil(&dial, Conn::new(), NOW).is_ok());
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) => lease,
            other => panic!("a fulfilled dial gave {other:?}"),
        }
    }

    /// Puts a fresh connection to rest.
    pub fn rest_one(&self, shard: ShardId) {
        self.engine.give_back(self.open(shard), NOW);
    }

    /// Waits in line on a shard.
    pub fn line_up(&self, party: &Party, shard: ShardId) -> Waiting {
        let seat = &party.seats[shard.get()];
        self.engine.wait(seat, NEVER, NOW).expect("the model leaves room in the line")
    }

    /// The next duty of a shard but for what is to be told, which must be a dial.
    pub fn dial(&self, shard: ShardId) -> Reservation<Conn, Cause> {
        loop {
            match self.engine.next_duty(shard) {
                Some(Duty::Dial(dial)) => return dial,
                Some(Duty::Tell(..)) => {}
                other => panic!("expected a dial, found {other:?}"),
            }
        }
    }

    /// The next duty of a shard, which must be a close. The connection is gone; its place is not.
    pub fn closing(&self, shard: ShardId) -> Place<Conn, Cause> {
        match self.engine.next_duty(shard) {
            Some(Duty::Close(Doomed { conn, place })) => {
                drop(conn);
                place
            }
            other => panic!("expected a close, found {other:?}"),
        }
    }

    /// Checks out on a shard, as callers do, and looks at what it got.
    pub fn checkout(&self, at: ShardId, steal_min: u32) -> Option<Leased> {
        let mut lease = self.engine.checkout(&self.group, at, steal_min)?;
        lease.tenant.conn.touch();
        Some(lease)
    }

    /// Does what every shard's driver has to do until nothing is left: each dial succeeds.
    pub fn drive(&self) -> Done {
        self.drive_at(NOW)
    }

    /// [`Self::drive`] at a later time.
    pub fn drive_at(&self, now: Tick) -> Done {
        let mut done = Done::default();
        let next = || (0..self.shards).find_map(|shard| self.engine.next_duty(ShardId(shard)));
        while let Some(duty) = next() {
            match duty {
                Duty::Dial(dial) => {
                    done.dials += 1;
                    if let Err(conn) = self.engine.fulfil(&dial, Conn::new(), now) {
                        drop(conn);
                        self.engine.abandon(&dial, Failure::Peer("hung up at once"), now);
                    }
                }
                Duty::Close(Doomed { conn, place }) => {
                    done.closes += 1;
                    drop(conn);
                    self.engine.vacate(place, now);
                }
                Duty::Tell(..) => {}
            }
        }
        done
    }

    /// The group's counters.
    pub fn counts(&self) -> GroupCounts {
        self.engine.counts(&self.group)
    }

    /// INV-5: nobody acts any more, so what is not settled by now never will be: the caller has been
    /// handed a connection, which goes back.
    pub fn expect_served(&self, waiter: &Waiting, now: Tick) {
        match outcome(waiter) {
            Some(Outcome::Ready(lease)) => self.engine.give_back(lease, now),
            found => panic!("INV-5: idle={} waiter={found:?}", self.counts().idle),
        }
    }

    /// INV-2 and INV-9: closes the group and asserts that nothing is left of it.
    pub fn finish(&self) {
        self.finish_with(&[]);
    }

    /// As [`Self::finish`], with the groups that the model made besides.
    pub fn finish_with(&self, others: &[&Party]) {
        let parties = || core::iter::once(&self.party).chain(others.iter().copied());
        for party in parties() {
            self.engine.close(&party.group);
        }
        self.drive();
        for party in parties() {
            let counts = self.engine.counts(&party.group);
            let left = (counts.live, counts.idle, counts.dialing, counts.waiting);
            assert_eq!(left, (0, 0, 0, 0), "INV-2, live, idle, dialing, waiting");
            let closed: u64 = counts.closed.iter().sum();
            assert_eq!(counts.opened, closed, "INV-9: opened and closed differ");
        }
        for shard in (0..self.shards).map(ShardId) {
            assert_eq!(self.engine.slots_in_use(shard), 0, "INV-9: slots in use");
        }
        let (live, idle) = (self.engine.total_live(), self.engine.total_idle());
        assert_eq!((live.unwrap_or(0), idle.unwrap_or(0)), (0, 0), "INV-2: the pool's permits");
    }
}

/// What a waiter was handed, if anything.
pub fn outcome(waiter: &Waiting) -> Option<Outcome<Conn, Cause>> {
    match waiter.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// Sleeps until a waiter is served. loom reports a caller that nobody ever wakes as a deadlock.
pub fn sleep(waiter: &Waiting) -> Outcome<Conn, Cause> {
    loom::future::block_on(poll_fn(|cx| waiter.poll(cx)))
}

/// Sleeps until a waiter is served with a connection.
pub fn sleep_for_lease(waiter: &Waiting) -> Leased {
    match sleep(waiter) {
        Outcome::Ready(mut lease) => {
            lease.tenant.conn.touch();
            lease
        }
        other => panic!("expected a connection, got {other:?}"),
    }
}

/// A slot as the engine has them, for one connection.
pub type TestSlot = Slot<Conn>;

/// A slot whose connection is in use, outside any engine.
pub fn slot_in_use() -> TestSlot {
    let slot = Slot::new();
    let ticket = slot.reserve().expect("a new slot is vacant");
    assert!(slot.fulfil(ticket), "nobody else has the ticket");
    slot
}

/// The values in order of size, where their order is not the point.
pub fn sorted(values: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values
}

/// Whether the caller of a hang-up owns the connection now.
pub fn took<T>(found: HangUp<T>) -> Option<T> {
    match found {
        HangUp::Idle(conn) => Some(conn),
        HangUp::Held | HangUp::Gone => None,
    }
}
