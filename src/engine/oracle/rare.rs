//! What happens seldom: the clock's leaps, places that nobody has begun with, a shard that lost its
//! watch; and what time and chance do.

use super::*;
use crate::engine::Moment;

/// A day, in milliseconds.
const DAY: u32 = 86_400_000;

/// What callers and owners gave up, by what it was waiting for: INV-7 at each await.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GivenUp {
    /// In line, and no dial was under way for it.
    pub(super) in_line: u32,
    /// In line, while a dial was under way.
    pub(super) dialling: u32,
    /// Alone, while its own dial was under way.
    pub(super) alone: u32,
    /// Told that there is none, and it has not looked.
    pub(super) told: u32,
    /// Handed a connection, and it has not looked.
    pub(super) filled: u32,
    /// A guard dropped.
    pub(super) guard: u32,
    /// A probe of a breaker.
    pub(super) probe: u32,
    /// A connection that an owner brought, under way.
    pub(super) adoption: u32,
    /// A place for one that was not begun with.
    pub(super) place: u32,
}

impl World {
    /// A world in which everything may happen, from some time before the wrap on.
    pub(super) fn full(bytes: &mut Bytes<'_>) -> Self {
        let mut world = Self::rich(bytes);
        let [before_wrap, owed, jitter] = [0; 3].map(|_: u8| bytes.next().unwrap_or(0));
        world.now = Tick::from_millis(0_u32.wrapping_sub(u32::from(before_wrap) * 64));
        let Self { engine, sides, now, .. } = &mut world;
        for (side, bit) in sides.iter_mut().zip(0..) {
            side.group.begin(u32::from(owed >> (2 * bit) & 3));
            side.limits.lifetime_jitter_percent = if jitter >> bit & 1 == 0 { 0 } else { 50 };
            engine.resize(&side.seats, &side.limits, *now);
        }
        world
    }

    pub(super) fn step_of_the_rare(&mut self, op: Op) {
        match op {
            Op::PutBack(which) => {
                if let Some(lease) = pick(&mut self.leases, which) {
                    // Its rest goes on.
                    let record = &mut self.records[lease.tenant.conn.id];
                    record.unused_since = Some(lease.tenant.rested);
                    self.engine.put_back(lease);
                }
            }
            Op::BreakOff(which) => {
                if let Some(lease) = pick(&mut self.asked, which) {
                    self.engine.broke_off(lease);
                }
            }
            Op::HangUpAll(shard) => {
                let slots = (0..self.engine.slots_per_shard() as u32).map(SlotIndex::new);
                for slot in slots.clone() {
                    // One that waits for its turn has no connection yet.
                    if self.engine.slot(shard, slot).state() != State::Dialing {
                        self.mark(shard, slot);
                    }
                }
                self.engine.hang_up_all(shard, self.now);
                let rests = |slot| self.engine.slot(shard, slot).state() == State::Idle;
                assert!(!slots.clone().any(rests), "INV-6: idle and dead");
            }
            Op::Place(Spot { group, shard, .. }) => {
                if let Some(ticket) = self.place(group, shard) {
                    let period = self.sides[group].period;
                    self.dials.push(Dial { ticket, dead: false, period, begun: false });
                }
            }
            Op::DialOwed(group) => self.engine.dial_owed(&self.sides[group].seats, self.now),
            Op::Relieve(which) => {
                let idle = (0..GROUPS).map(|group| self.idle(group).count()).sum::<usize>();
                let wanted = usize::from(which % 8);
                assert_eq!(self.engine.relieve(wanted), idle.min(wanted), "of {idle}");
            }
            Op::Suspect(group) => self.suspect(group),
            Op::SetBack(by) => {
                let now = self.now.as_millis().wrapping_sub(1 + u32::from(by) * 4);
                self.now = Tick::from_millis(now);
            }
            Op::LeapFar(by) => self.now = self.now.after(DAY * (1 + u32::from(by) % 24)),
            Op::Chance(which) => self.random = u32::from_be_bytes([which; 4]),
            _ => unreachable!("{op:?} is not rare"),
        }
    }

    pub(super) fn note_caller(&mut self, caller: &Caller) {
        let dialling = self.engine.counts(&self.sides[caller.group].group).dialing;
        let given_up = &mut self.given_up;
        *match caller.found() {
            Some(Found::Ready { .. }) => &mut given_up.filled,
            Some(_) => &mut given_up.told,
            None if !caller.waiter.is_in_line() => &mut given_up.alone,
            None if dialling == 0 => &mut given_up.in_line,
            None => &mut given_up.dialling,
        } += 1;
    }

    pub(super) fn note_dial(&mut self, ticket: &Reservation<Conn, Cause>, begun: bool) {
        let given_up = &mut self.given_up;
        given_up.place += u32::from(!begun);
        given_up.adoption += u32::from(begun && ticket.is_adoption());
        given_up.probe +=
            u32::from(ticket.pass.as_ref().is_some_and(crate::engine::Pass::is_probe));
    }

    /// How long a connection that is made now may live, as chance has it.
    pub(super) fn lifetime(&self, group: usize) -> u32 {
        let limits = &self.sides[group].limits;
        let most = u64::from(limits.max_lifetime_ms);
        let jitter = most * u64::from(limits.lifetime_jitter_percent) / 100;
        (most - ((jitter * u64::from(self.random)) >> 32)) as u32
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.now, random: self.random }
    }

    /// The account of a connection whose peer, or whose watch, has gone: whoever has it, or dials.
    pub(super) fn mark(&mut self, shard: ShardId, index: SlotIndex) {
        for dial in &mut self.dials {
            if (dial.ticket.seat().shard(), dial.ticket.index()) == (shard, index) {
                dial.dead = true;
            }
        }
        let held = self.leases.iter().chain(&self.asked).map(Found::from_lease);
        let boxed = self.callers.iter().filter_map(Caller::found);
        for found in held.chain(boxed) {
            if let Found::Ready { id, shard: on, index: at, .. } = found
                && (on, at) == (shard, index)
            {
                self.records[id].dead = true;
            }
        }
    }

    /// An owner begins with a place that it has: the driver gets it as it is.
    pub(super) fn begin(&mut self, ticket: Reservation<Conn, Cause>, dead: bool) {
        let shard = ticket.seat().shard();
        let index = ticket.index();
        self.engine.begin(ticket);
        self.take_duties();
        if dead {
            self.mark(shard, index);
        }
    }

    /// With a suspicion, only what has shown since that it lives is above it.
    fn suspect(&mut self, group: usize) {
        let (side, now) = (&self.sides[group], self.now);
        side.group.suspect(now);
        for lease in &self.leases {
            if !Arc::ptr_eq(lease.seat().group(), &side.group) {
                continue;
            }
            // To two milliseconds: a suspicion is never at a time of zero.
            let long = |since: Tick| now.since(since) > 1;
            let (vouched, rested) = (lease.tenant.vouched, lease.tenant.rested);
            if long(vouched) && long(rested) {
                assert!(side.group.suspects(lease), "no sign of life since the reset");
            }
            let ahead = |tick: Tick| tick.since(now) > 1;
            if ahead(vouched) || ahead(rested) {
                assert!(!side.group.suspects(lease), "it has shown since that it lives");
            }
        }
    }
}
