//! The comparison of the engine with the account, after each step.

use super::*;

impl World {
    /// Brings the account up to date and compares.
    pub(super) fn observe(&mut self) {
        self.take_duties();
        self.observe_callers();
        self.observe_connections();
        for group in 0..GROUPS {
            self.check_group(group);
        }
        self.check_totals();
        self.check_slots();
    }

    /// What the drivers have to do.
    pub(super) fn take_duties(&mut self) {
        for shard in (0..SHARDS as u16).map(ShardId) {
            while let Some(duty) = self.engine.next_duty(shard) {
                match duty {
                    Duty::Dial(ticket) => {
                        let period = self.sides[self.side_of(ticket.seat())].period;
                        self.dials.push(Dial { ticket, dead: false, period, begun: true });
                    }
                    Duty::Close(doomed) => self.closes.push(doomed),
                    Duty::Tell(seat, change) => self.note_change(&seat, change),
                }
            }
        }
    }

    /// INV-5: in line, callers are served in order of arrival.
    fn observe_callers(&mut self) {
        let mut passed_over = [false; GROUPS];
        for at in 0..self.callers.len() {
            let caller = &self.callers[at];
            let (group, in_line) = (caller.group, caller.waiter.is_in_line());
            let Some(found) = caller.found() else {
                passed_over[group] |= in_line;
                continue;
            };
            if caller.served {
                continue;
            }
            assert!(!(in_line && passed_over[group]), "INV-5: served out of turn");
            match found {
                Found::Ready { id, .. } => {
                    assert_eq!(self.records[id].group, group, "INV-1: another group's");
                    let epoch = self.sides[group].epoch;
                    assert_eq!(
                        self.records[id].epoch, epoch,
                        "INV-6: handed over after its eviction"
                    );
                    assert!(!(in_line && self.sides[group].was_held), "served while held");
                    assert!(!self.records[id].dead, "INV-6: handed over dead");
                }
                Found::Failed(cause) => assert_eq!(cause, self.causes, "an old cause"),
                Found::Exhausted => {
                    let full = (0..SHARDS as u16).any(|shard| self.is_full(ShardId(shard)));
                    assert!(full || self.was_full, "exhausted, and every shard has a slot");
                }
                Found::Open => assert!(self.may_be_open(group), "INV-8: told of no open breaker"),
                Found::Closed => {
                    assert!(self.sides[group].closed || !in_line, "told of a close too soon");
                }
            }
            self.callers[at].served = true;
        }
    }

    /// INV-1, INV-4: each open connection is in exactly one place; what is in none rests.
    fn observe_connections(&mut self) {
        for lease in &self.leases {
            let record = &self.records[lease.tenant.conn.id];
            let dead = record.dead || record.epoch != self.sides[record.group].epoch;
            assert_eq!(self.engine.is_dead(lease), dead, "INV-6: what a look at it says");
        }
        let mut places = vec![0_u32; self.records.len()];
        let held = self.leases.iter().chain(&self.asked).map(|lease| lease.tenant.conn.id);
        let doomed = self.closes.iter().filter_map(|doomed| doomed.conn.as_ref());
        let boxed = self.callers.iter().filter_map(|caller| match caller.found()? {
            Found::Ready { id, .. } => Some(id),
            _ => None,
        });
        let boxed: Vec<usize> = boxed.collect();
        let asked: Vec<usize> = self.asked.iter().map(|lease| lease.tenant.conn.id).collect();
        for id in held.chain(doomed.map(|conn| conn.id)).chain(boxed.iter().copied()) {
            places[id] += 1;
        }
        for (id, (record, places)) in self.records.iter_mut().zip(places).enumerate() {
            let closed = record.closed.load(Ordering::Relaxed);
            assert!(closed <= 1, "INV-4: {id} was closed {closed} times");
            assert!(places <= 1, "INV-1: {id} has {places} owners");
            assert!(closed == 0 || places == 0, "INV-4: {id} is closed and owned");
            record.rests = record.pooled && closed == 0 && places == 0;
            assert!(!(record.rests && record.dead), "INV-6: {id} rests dead");
            let epoch = self.sides[record.group].epoch;
            assert!(!record.rests || record.epoch == epoch, "INV-6: {id} rests after its eviction");
            if !record.rests && !boxed.contains(&id) && !asked.contains(&id) {
                record.unused_since = None;
            } else if record.unused_since.is_none() {
                record.unused_since = Some(self.now);
            }
        }
    }

    /// What every class of connection is counted by, and the limits that it lives under.
    fn check_group(&self, group: usize) {
        let side = &self.sides[group];
        let counts = self.engine.counts(&side.group);
        let limits = &side.limits;
        let ours = |seat: &Seat<Conn, Cause>| Arc::ptr_eq(seat.group(), &side.group);

        let idle = self.idle(group).count() as u32;
        assert_eq!(counts.idle, idle, "INV-2: the idle count");
        assert!(idle <= limits.max_idle, "INV-2: {idle} idle");

        let dials = || self.dials.iter().filter(|dial| ours(dial.ticket.seat()));
        let classes = || {
            let held = self.leases.iter().chain(&self.asked);
            let held = held.filter(|lease| ours(lease.seat())).map(|lease| lease.tenant.class);
            let boxed = self.callers.iter().filter_map(move |caller| caller.class_of(group));
            let ending = self.closes.iter().filter(|doomed| ours(&doomed.place.seat));
            let ending = ending.filter_map(|doomed| doomed.place.permit);
            held.chain(boxed).chain(ending).chain(dials().map(|dial| dial.ticket.class))
        };
        let overflow = classes().filter(|class| *class == Class::Overflow).count() as u32;
        let pooled = classes().count() as u32 - overflow + idle;
        let permits = (side.group.permits.live(), side.group.overflow.live());
        assert_eq!(permits, (pooled, overflow), "INV-2: the permits");
        assert_eq!((counts.live, counts.overflow), (pooled + overflow, overflow), "INV-2");
        assert!(pooled <= limits.max_live.max(side.before.pooled), "INV-2: {pooled} live");
        let most = limits.max_overflow.max(side.before.overflow);
        assert!(overflow <= most, "INV-2: {overflow} above the limit");

        let waiting = self.waiting(group);
        let dialing = dials().filter(|dial| matches!(dial.ticket.goal, Goal::Line)).count() as u32;
        assert_eq!((counts.waiting, counts.dialing), (waiting, dialing), "INV-2: the demand");
        assert!(waiting <= limits.max_waiters.max(side.before.waiting), "INV-2: {waiting} wait");
        let capped = dials().filter(|dial| dial.ticket.permit.is_capped()).count() as u32;
        assert_eq!(side.group.dials.live(), capped, "INV-2: the permits to dial");
        if waiting > dialing && !side.held {
            assert_eq!(idle, 0, "INV-5: idle while {waiting} wait and {dialing} dials run");
            // A recovery lets more through as time passes: `tend` sees to that.
            let lacks = pooled >= limits.max_live || limits.slow_start_ms != 0;
            assert!(lacks || self.lacks_more(group), "INV-5: a permit free and no dial");
        }
        let kept = counts.live > 0 || waiting > 0 || limits.min_idle > 0;
        let tended = self.engine.wants_tending(&side.group);
        assert!(tended || side.closed || !kept, "nobody looks after a group in use");
        let probes = self.probes(group);
        let most = limits.half_open_probes.max(side.before.probes);
        assert!(probes <= most, "INV-8: {probes} probes");
        if side.closed {
            assert_eq!((idle, waiting), (0, 0), "INV-9: left behind in a closed group");
        }
        let closed: u64 = counts.closed.iter().sum();
        assert_eq!((counts.opened, closed), (side.opened, side.vacated), "INV-9: the counters");
    }

    /// INV-3 from the outside: every slot that is taken is taken for something that we know of.
    fn check_slots(&self) {
        let count = |state: State| {
            let slabs = self.engine.shards.iter().flat_map(|shard| shard.slab.iter());
            slabs.filter(|(_, slot)| slot.state() == state).count()
        };
        let boxed = |group| self.callers.iter().filter(move |caller| caller.holds_one_of(group));
        let in_use = self.leases.len()
            + self.asked.len()
            + (0..GROUPS).map(|group| boxed(group).count()).sum::<usize>();
        let idle: usize = (0..GROUPS).map(|group| self.idle(group).count()).sum();
        assert_eq!(count(State::Dialing), self.dials.len(), "slots that dial");
        assert_eq!(count(State::InUse), in_use, "slots in use");
        assert_eq!(count(State::Idle), idle, "slots at rest");
        assert_eq!(count(State::Closing), self.closes.len(), "slots that close");
    }
}
