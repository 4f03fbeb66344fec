//! One shard's driver: dials, closes, and what peers do.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use corepool::model::{BreakerChange, CloseReason, Doomed, Duty, Failure, Moment, ShardId};

use super::{
    ledger::{Conn, Name},
    rt::Rng,
    world::{Cause, Dial, Leased, Part, Report, World},
};

/// A shard's driver.
#[derive(Debug)]
pub(super) struct Driver {
    world: Arc<World>,
    shard: ShardId,
    rng: Rng,
    dials: Vec<Dial>,
    /// Dials that are over.
    spent: Vec<Dial>,
    closes: Vec<Doomed<Conn, Cause>>,
    /// Taken out by a sweep, to be asked whether they live.
    asked: Vec<Leased>,
    /// Which connection a slot of the shard has: what a hang-up means.
    watched: BTreeMap<u32, Name>,
    /// What breakers did, by group.
    pub(super) changes: Vec<(usize, BreakerChange)>,
    report: Report,
}

impl Part for Driver {
    type Left = Self;

    fn play(mut self) -> Self {
        loop {
            if self.turn() {
                self.world.rt.yield_now();
            } else if self.world.is_over() {
                return self;
            } else if self.world.plan.ticks {
                self.tend();
                self.world.rt.yield_now();
            } else {
                self.sleep();
            }
        }
    }
}

impl Driver {
    pub(super) fn new(world: Arc<World>, number: usize) -> Self {
        let rng = Rng::new(world.seed, number as u64);
        Self {
            shard: ShardId(number as u16),
            world,
            rng,
            dials: Vec::new(),
            spent: Vec::new(),
            closes: Vec::new(),
            asked: Vec::new(),
            watched: BTreeMap::new(),
            changes: Vec::new(),
            report: Report::default(),
        }
    }

    pub(super) fn into_report(self) -> Report {
        self.report
    }

    /// Does something of what there is to do, and says whether there was anything. When the run is
    /// over it does all, and nothing happens any more by chance.
    pub(super) fn turn(&mut self) -> bool {
        let over = self.world.is_over();
        let took = self.take_duties();
        if !over {
            self.have_accidents();
        }
        // After the accidents: a sweep may have found somebody to ask.
        let busy = took || self.has_work();
        if !over && self.rng.chance(self.world.plan.luck.linger) {
            return busy;
        }
        while let Some(dial) = self.rng.take(&mut self.dials) {
            self.complete(dial, over);
            if !over {
                break;
            }
        }
        while let Some(doomed) = self.rng.take(&mut self.closes) {
            self.end(doomed);
            if !over && self.rng.chance(50) {
                break;
            }
        }
        while let Some(lease) = self.rng.take(&mut self.asked) {
            self.hear(lease, over);
        }
        busy
    }

    fn has_work(&self) -> bool {
        !(self.dials.is_empty() && self.closes.is_empty() && self.asked.is_empty())
    }

    fn take_duties(&mut self) -> bool {
        let mut any = false;
        while let Some(duty) = self.world.engine.next_duty(self.shard) {
            any = true;
            match duty {
                Duty::Dial(dial) => self.dials.push(dial),
                Duty::Close(doomed) => self.closes.push(doomed),
                Duty::Tell(seat, change) => {
                    self.changes.push((self.world.group_of(&seat), change));
                }
            }
        }
        any
    }

    /// Sleeps until there is something to do. The waker is registered first, as a worker's is.
    fn sleep(&mut self) {
        assert!(!self.has_work(), "a driver would sleep on what it has to do");
        let world = Arc::clone(&self.world);
        world.rt.block_on(poll_fn(|cx| {
            world.engine.register_driver(self.shard, cx.waker());
            match self.take_duties() || world.is_over() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
    }

    /// What time brings: a sweep of the shard, and a look after the groups that it is the home of.
    fn tend(&mut self) {
        let world = Arc::clone(&self.world);
        world.let_time_pass(1 + self.rng.below(20) as u32);
        self.sweep();
        for (number, party) in world.parties.iter().enumerate() {
            if number % usize::from(world.plan.size.shards) == usize::from(self.shard.0) {
                world.engine.tend(&party.seats, world.now());
            }
        }
        if self.shard.0 == 0 {
            world.engine.tend_totals(world.now());
        }
    }

    fn sweep(&mut self) {
        let mut quiet = Vec::new();
        self.world.engine.sweep(self.shard, self.world.now(), &mut quiet);
        for mut lease in quiet {
            lease.tenant.conn.take();
            self.report.note("asked");
            self.asked.push(lease);
        }
    }

    fn have_accidents(&mut self) {
        let luck = self.world.plan.luck;
        if self.rng.chance(luck.sweep) {
            self.world.let_time_pass(1 + self.rng.below(20) as u32);
            self.sweep();
        }
        if self.rng.chance(luck.hang_up) {
            let at = self.rng.below(self.watched.len().max(1));
            if let Some((&index, &name)) = self.watched.iter().nth(at) {
                self.hang_up(index, name);
            }
        }
        if self.rng.chance(luck.all_hang_up) {
            self.world.engine.hang_up_all(self.shard, self.world.now());
            self.report.operations += 1;
            self.report.note("all hung up");
            self.watched.values().for_each(|name| self.world.ledger.died(*name));
        }
        if self.rng.chance(luck.late)
            && let Some(dial) = self.rng.take(&mut self.spent)
        {
            self.complete_late(&dial);
        }
    }

    fn hang_up(&mut self, index: u32, name: Name) {
        const WHY: [CloseReason; 3] =
            [CloseReason::PeerClosed, CloseReason::PeerReset, CloseReason::UnexpectedBytes];
        let world = &*self.world;
        let (why, index) = (*self.rng.pick(&WHY), corepool::model::SlotIndex::new(index));
        world.engine.hang_up(self.shard, index, why, world.now());
        self.report.operations += 1;
        self.report.note("hung up");
        world.ledger.died(name);
    }

    fn complete(&mut self, dial: Dial, over: bool) {
        let world = Arc::clone(&self.world);
        let luck = world.plan.luck;
        let moment = Moment { now: world.now(), random: self.rng.next_u32() };
        self.report.operations += 1;
        let fate = if over { 100 } else { self.rng.below(100) as u32 };
        let failure = if fate < luck.refused {
            Some(Failure::Peer("refused"))
        } else if fate < luck.refused + luck.local {
            Some(Failure::Local("no port"))
        } else if fate < luck.refused + luck.local + luck.given_up {
            Some(Failure::GivenUp)
        } else {
            None
        };
        let failure = failure.or_else(|| self.connect(&dial, moment, over));
        if let Some(failure) = failure {
            assert!(world.engine.abandon(&dial, failure, moment), "nobody else ends this dial");
        }
        self.spent.push(dial);
        if self.spent.len() > 8 {
            self.spent.swap_remove(0);
        }
    }

    /// A peer answers. Says why it came to nothing.
    fn connect(&mut self, dial: &Dial, moment: Moment, over: bool) -> Option<Failure<Cause>> {
        let world = Arc::clone(&self.world);
        let conn = world.ledger.open(Some(world.group_of(dial.seat())));
        let (index, name) = (dial.index().get() as u32, conn.name());
        self.watched.insert(index, name);
        // The watch is armed before the connection is there.
        let gone = !over && self.rng.chance(world.plan.luck.hang_up / 4);
        if gone {
            self.hang_up(index, name);
        }
        match world.engine.fulfil(dial, conn, moment) {
            Ok(()) => {
                assert!(!gone, "INV-6: fulfilled after the peer hung up");
                None
            }
            Err(conn) => {
                // Who hangs up on a whole shard marks its dials, too.
                let marked = gone || world.plan.luck.all_hang_up > 0;
                assert!(marked, "refused a connection that lives");
                self.watched.remove(&index);
                drop(conn);
                Some(Failure::Peer("hung up at once"))
            }
        }
    }

    fn complete_late(&mut self, dial: &Dial) {
        let world = &*self.world;
        self.report.operations += 2;
        self.report.note("late");
        let late = world.engine.fulfil(dial, world.ledger.open(None), world.now());
        assert!(late.is_err(), "INV-1: a dial was fulfilled after it was over");
        let again = world.engine.abandon(dial, Failure::Peer("late"), world.now());
        assert!(!again, "INV-2: abandoned after it was over");
    }

    fn end(&mut self, Doomed { conn, place }: Doomed<Conn, Cause>) {
        self.report.operations += 1;
        if let Some(conn) = conn {
            assert!(!conn.is_held(), "INV-1: closed under its owner");
        }
        self.watched.remove(&(place.index().get() as u32));
        self.world.engine.vacate(place, self.world.now());
    }

    /// One that was asked whether it lives answers, or not.
    fn hear(&mut self, mut lease: Leased, over: bool) {
        let (engine, now) = (&self.world.engine, self.world.now());
        self.report.operations += 1;
        let seen = self.world.group_of(lease.seat());
        let evictions = self.world.parties[seen].evicting.load(Ordering::Relaxed);
        lease.tenant.conn.note_evictions(evictions);
        lease.tenant.conn.back();
        match self.rng.below(if over { 1 } else { 4 }) {
            0 | 1 => engine.answered(lease, now),
            2 => engine.unanswered(lease, now),
            _ => engine.broke_off(lease),
        }
    }
}
