//! A caller: checks out, waits, leaves, uses, and gives back.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use corepool::model::{CloseReason, ShardId};

use super::{
    rt::Rng,
    world::{Leased, Part, Report, Served, Waiting, World},
};

/// A caller on a thread of its own.
#[derive(Debug)]
pub(super) struct Caller {
    world: Arc<World>,
    rng: Rng,
    home: ShardId,
    /// Used already, and given back later.
    kept: Option<Leased>,
    report: Report,
}

/// Where a caller turns to.
#[derive(Clone, Copy)]
struct Spot {
    group: usize,
    shard: ShardId,
}

impl Part for Caller {
    type Left = Report;

    fn play(mut self) -> Report {
        for _ in 0..self.world.plan.size.operations {
            self.call();
        }
        self.let_go();
        self.report
    }
}

impl Caller {
    pub(super) fn new(world: Arc<World>, number: usize) -> Self {
        let rng = Rng::new(world.seed, number as u64);
        let home = ShardId(number as u16 % world.plan.size.shards);
        Self { world, rng, home, kept: None, report: Report::default() }
    }

    fn call(&mut self) {
        let world = Arc::clone(&self.world);
        let elsewhere = self.rng.chance(25);
        let shards = usize::from(world.plan.size.shards);
        let shard = if elsewhere { ShardId(self.rng.below(shards) as u16) } else { self.home };
        let spot = Spot { group: self.rng.below(world.parties.len()), shard };
        if let Some(lease) = self.obtain(spot) {
            self.use_and_end(lease, spot);
        }
        if self.rng.chance(50) {
            self.let_go();
        }
    }

    fn obtain(&mut self, spot: Spot) -> Option<Leased> {
        let world = Arc::clone(&self.world);
        let (engine, habits, now) = (&world.engine, world.plan.habits, world.now());
        let seat = &world.parties[spot.group].seats[spot.shard.get()];
        self.report.operations += 1;
        let way = self.rng.below(100) as u32;
        let alone = if way < habits.fresh {
            engine.dial_fresh(seat, now)
        } else if way < habits.fresh + habits.overflow {
            engine.dial_overflow(seat, now)
        } else if way < habits.fresh + habits.overflow + habits.direct {
            engine.dial_direct(seat, now)
        } else {
            return self.check_out(spot);
        };
        match alone {
            Ok(waiter) => self.wait_for(&waiter, spot),
            Err(_) => {
                self.report.note("no dial alone");
                None
            }
        }
    }

    /// A connection at rest, or else a place in line.
    fn check_out(&mut self, spot: Spot) -> Option<Leased> {
        let world = Arc::clone(&self.world);
        let (engine, habits) = (&world.engine, &world.plan.habits);
        let party = &world.parties[spot.group];
        let steal = *self.rng.pick(habits.steal);
        let deaths = world.ledger.deaths();
        // Acquire: who was told that an eviction is over finds nothing older.
        let evicted = party.evicted.load(Ordering::Acquire);
        if let Some(mut lease) = engine.checkout(&party.group, spot.shard, steal) {
            lease.tenant.conn.hit(deaths, evicted);
            return Some(lease);
        }
        let seat = &party.seats[spot.shard.get()];
        self.report.operations += 1;
        let waiter = match self.rng.chance(habits.for_dial) {
            true => engine.wait_for_dial(seat, steal, world.now()),
            false => engine.wait(seat, steal, world.now()),
        };
        match waiter {
            Ok(waiter) => self.wait_for(&waiter, spot),
            Err(_) => {
                self.report.note("no place in line");
                None
            }
        }
    }

    /// Waits until it is served or, if it is not patient, leaves.
    fn wait_for(&mut self, waiter: &Waiting, spot: Spot) -> Option<Leased> {
        let world = Arc::clone(&self.world);
        // Who holds a connection may be what the others wait for.
        if self.kept.is_none() && !self.rng.chance(world.plan.habits.impatient) {
            let served = world.rt.block_on(poll_fn(|cx| waiter.poll(cx)));
            return self.served(served);
        }
        for _ in 0..self.rng.below(6) {
            if let Poll::Ready(served) = waiter.poll(&mut Context::from_waker(Waker::noop())) {
                return self.served(served);
            }
            world.rt.yield_now();
        }
        self.report.operations += 1;
        self.report.note("left");
        world.engine.cancel(waiter, &world.parties[spot.group].group);
        None
    }

    fn served(&mut self, served: Served) -> Option<Leased> {
        match served {
            Served::Ready(mut lease) => {
                lease.tenant.conn.take();
                self.report.note("served");
                return Some(lease);
            }
            Served::Failed(_) => self.report.note("dial failed"),
            Served::Exhausted => self.report.note("exhausted"),
            Served::Open(_) => self.report.note("breaker open"),
            Served::Closed => self.report.note("closed"),
        }
        None
    }

    fn use_and_end(&mut self, mut lease: Leased, spot: Spot) {
        let world = Arc::clone(&self.world);
        let evictions = world.parties[spot.group].evicting.load(Ordering::Relaxed);
        lease.tenant.conn.note_evictions(evictions);
        if self.rng.chance(world.plan.habits.pause) {
            world.rt.yield_now();
        }
        if self.kept.is_none() && self.rng.chance(world.plan.habits.keep) {
            self.kept = Some(lease);
        } else {
            self.end(lease, spot.group);
        }
    }

    fn end(&mut self, mut lease: Leased, group: usize) {
        let world = Arc::clone(&self.world);
        let (engine, habits, now) = (&world.engine, world.plan.habits, world.now());
        self.report.operations += 1;
        let way = self.rng.below(100) as u32;
        if way < habits.detach {
            lease.tenant.conn.leave_group();
            drop(engine.detach(lease));
            return;
        }
        lease.tenant.conn.back();
        if way < habits.detach + habits.discard {
            engine.discard(lease, CloseReason::Discarded);
        } else if way < habits.detach + habits.discard + habits.redial {
            lease.tenant.conn.leave_group();
            let spot = Spot { group, shard: lease.shard() };
            let Ok(waiter) = engine.redial(lease, now) else {
                return;
            };
            self.report.note("replaced");
            if let Some(lease) = self.wait_for(&waiter, spot) {
                // As its user would, and not for ever.
                let mut lease = lease;
                lease.tenant.conn.back();
                engine.give_back(lease, now);
            }
        } else {
            engine.give_back(lease, now);
        }
    }

    /// Gives back what it held in the meantime.
    fn let_go(&mut self) {
        if let Some(lease) = self.kept.take() {
            let group = self.world.group_of(lease.seat());
            self.end(lease, group);
        }
    }
}
