//! The operations of owners and policies, and the limits that they set.

use super::*;
use crate::engine::{BreakerMode, Change, Pass, permits::Permits};

impl Side {
    pub(super) fn new(limits: GroupLimits) -> Self {
        let group = Arc::new(Group::new(ShardId(0), SHARDS, limits));
        let seats = Group::seats(&group);
        Self {
            group,
            seats,
            limits,
            closed: false,
            held: false,
            was_held: false,
            opened: 0,
            vacated: 0,
            epoch: 0,
            breaker: BreakerState::Closed,
            period: 0,
            before: Out::default(),
        }
    }
}

impl World {
    /// A world in which every policy may be on.
    pub(super) fn rich(bytes: &mut Bytes<'_>) -> Self {
        let slots = bytes.within(1, 4) as usize;
        let [live, idle, dialing] = [0; 3].map(|_: u8| bytes.next().unwrap_or(0));
        let totals = total_limits([live, idle, dialing]);
        let sides = (0..GROUPS).map(|_| {
            let drawn = [0; 3].map(|_: u8| bytes.next().unwrap_or(0));
            let kept = bytes.next().unwrap_or(0);
            Side::new(GroupLimits {
                lifo: u32::from(kept & 1),
                max_uses: [NEVER, NEVER, 2, 3][usize::from(kept >> 1 & 3)],
                ..group_limits(drawn)
            })
        });
        let sides = sides.collect();
        Self::of(slots, sides, totals)
    }

    pub(super) fn step_of_policy(&mut self, op: Op) {
        match op {
            Op::WaitForDial(spot) => self.wait_for_dial(spot),
            Op::DialOverflow(Spot { group, shard, .. }) => {
                let side = &self.sides[group];
                let free = side.group.overflow.live() < side.limits.max_overflow;
                let seat = Arc::clone(&side.seats[shard.get()]);
                let dialled = self.engine.dial_overflow(&seat, self.now);
                assert!(free || dialled.is_err(), "INV-2: above the limit above the limit");
                self.dialled_alone(group, shard, !free, dialled);
            }
            Op::DialDirect(Spot { group, shard, .. }) => {
                let side = &self.sides[group];
                let free = side.group.permits.live() < side.limits.max_live;
                let seat = Arc::clone(&side.seats[shard.get()]);
                let dialled = self.engine.dial_direct(&seat, self.now);
                assert!(free || dialled.is_err(), "INV-2");
                let by_breaker = matches!(dialled, Err(NoDial::Open(_)));
                assert!(!by_breaker, "refused by the breaker that it goes past");
                self.dialled_alone(group, shard, !free, dialled);
            }
            Op::DialSpare(Spot { group, shard, .. }) => {
                let seat = Arc::clone(&self.sides[group].seats[shard.get()]);
                let side = &self.sides[group];
                let dialled = self.engine.dial_spare(&seat, self.now);
                assert!(dialled.is_err() || !(side.closed || side.held), "nobody is served");
            }
            Op::Adopt(Spot { group, shard, .. }) => self.adopt(group, shard),
            Op::DialFailsHere(which) => {
                if let Some(dial) = pick(&mut self.dials, which) {
                    self.fail(dial.ticket, Failure::Local);
                }
            }
            Op::Answer(which) => {
                if let Some(lease) = pick(&mut self.asked, which) {
                    self.engine.answered(lease, self.now);
                }
            }
            Op::KeepSilent(which) => {
                if let Some(lease) = pick(&mut self.asked, which) {
                    self.engine.unanswered(lease, self.now);
                }
            }
            Op::GiveUp(shard, slot, reason) => self.hang_up(shard, slot, reason),
            Op::Hold(group) => {
                let side = &mut self.sides[group];
                assert_eq!(self.engine.hold(&side.group), !side.held);
                side.held = true;
            }
            Op::Resume(group) => {
                let side = &mut self.sides[group];
                let was_held = core::mem::take(&mut side.held);
                side.was_held = false;
                assert_eq!(self.engine.resume(&side.seats[0], self.now), was_held);
            }
            Op::Evict(group) => {
                self.sides[group].epoch += 1;
                self.engine.evict(&self.sides[group].group);
            }
            Op::Retain(group) => {
                let odd = self.rest_of(group).filter(|id| id % 2 == 1).count();
                let keep = |tenant: &mut crate::engine::Tenant<Conn, Cause>| {
                    tenant.conn.id.is_multiple_of(2)
                };
                let ended = self.engine.retain(&self.sides[group].group, keep);
                assert_eq!(ended, odd, "retained too many or too few");
            }
            Op::Resize(group, drawn) => {
                let side = &mut self.sides[group];
                let GroupLimits { lifo, max_uses, lifetime_jitter_percent, .. } = side.limits;
                side.limits =
                    GroupLimits { lifo, max_uses, lifetime_jitter_percent, ..group_limits(drawn) };
                self.engine.resize(&side.seats, &side.limits, self.now);
            }
            Op::ResizeTotals(drawn) => {
                // What had no limit from the start keeps none.
                let drawn = total_limits(drawn);
                let or = |now: Option<u32>, then: Option<u32>| now.map(|now| then.unwrap_or(now));
                self.totals = TotalLimits {
                    max_live: or(self.totals.max_live, drawn.max_live),
                    max_idle: or(self.totals.max_idle, drawn.max_idle),
                    max_dialing: or(self.totals.max_dialing, drawn.max_dialing),
                };
                self.engine.resize_totals(&self.totals, self.now);
            }
            Op::Force(group, mode) => {
                let seat = Arc::clone(&self.sides[group].seats[0]);
                self.engine.force_breaker(&seat, mode, self.now);
                let state = self.sides[group].group.breaker_state(self.now);
                assert!(mode != BreakerMode::ForcedOpen || state == BreakerState::ForcedOpen);
            }
            Op::Reset(group) => {
                let seat = Arc::clone(&self.sides[group].seats[0]);
                self.engine.reset_breaker(&seat, self.now);
            }
            Op::Tend(group) => self.engine.tend(&self.sides[group].seats, self.now),
            Op::TendTotals => self.engine.tend_totals(self.now),
            Op::EvictOldest => {
                let idle = (0..GROUPS).map(|group| self.idle(group).count()).sum::<usize>();
                assert_eq!(self.engine.relieve(1), idle.min(1), "the oldest of {idle}");
            }
            Op::Leap(by) => self.now = self.now.after(u32::from(by) * 100),
            rare => self.step_of_the_rare(rare),
        }
    }

    fn wait_for_dial(&mut self, Spot { group, shard, steal_min }: Spot) {
        let side = &self.sides[group];
        let waiting = self.waiting(group);
        match self.engine.wait_for_dial(&side.seats[shard.get()], steal_min, self.now) {
            Ok(waiter) => {
                assert!(!side.closed && waiting < side.limits.max_waiters);
                self.callers.push(Caller { group, waiter, served: false });
            }
            Err(Refused::Closed) => assert!(side.closed),
            Err(Refused::Full) => assert!(waiting > 0, "INV-5: refused, and nobody waits"),
            Err(Refused::Open(_)) => self.assert_open(group),
            Err(Refused::AtLimit) => {
                let at_limit = side.group.permits.live() >= side.limits.max_live;
                let recovers = side.limits.slow_start_ms != 0;
                assert!(at_limit || recovers || self.lacks_more(group), "not at the limit");
            }
        }
    }

    pub(super) fn dialled_alone(
        &mut self,
        group: usize,
        shard: ShardId,
        at_limit: bool,
        dialled: Result<Arc<GroupWaiter<Conn, Cause>>, NoDial>,
    ) {
        let side = &self.sides[group];
        match dialled {
            Ok(waiter) => {
                assert!(!side.closed && !side.held, "nobody is served");
                self.callers.push(Caller { group, waiter, served: false });
            }
            Err(refused) => assert!(match refused {
                NoDial::Closed => side.closed,
                NoDial::Held => side.held,
                NoDial::NoPermit => {
                    at_limit || side.limits.slow_start_ms != 0 || self.lacks_more(group)
                }
                NoDial::Exhausted => self.is_full(shard),
                NoDial::Open(_) => self.may_be_open(group),
            }),
        }
    }

    fn adopt(&mut self, group: usize, shard: ShardId) {
        if let Some(place) = self.place(group, shard) {
            self.engine.begin(place);
        }
    }

    /// A place for a connection that an owner brings along.
    pub(super) fn place(
        &mut self,
        group: usize,
        shard: ShardId,
    ) -> Option<Reservation<Conn, Cause>> {
        let side = &self.sides[group];
        let free = side.group.permits.live() < side.limits.max_live;
        match self.engine.adopt(&side.seats[shard.get()], self.now) {
            Ok(place) => {
                assert!(!side.closed && free, "INV-2");
                Some(place)
            }
            Err(refused) => {
                assert!(match refused {
                    NoDial::Closed => side.closed,
                    NoDial::NoPermit =>
                        !free || side.limits.slow_start_ms != 0 || self.lacks_more(group),
                    NoDial::Exhausted => self.is_full(shard),
                    NoDial::Held | NoDial::Open(_) => false,
                });
                None
            }
        }
    }

    /// INV-8: each change of a breaker is told once, in order, and is an edge of its figure.
    pub(super) fn note_change(&mut self, seat: &Seat<Conn, Cause>, change: Change) {
        use BreakerState::*;
        let group = self.side_of(seat);
        let side = &mut self.sides[group];
        assert_eq!(change.from, side.breaker, "INV-8: {change:?}");
        let legal = match (change.from, change.to) {
            (Closed, Open) | (Open, HalfOpen) | (HalfOpen, Open) => side.limits.breaker != 0,
            // By its rules, or by a reset.
            (HalfOpen | Open, Closed) => true,
            (from, ForcedOpen | ForcedClosed) => from != change.to,
            (ForcedOpen | ForcedClosed, Closed) => true,
            _ => false,
        };
        assert!(legal, "INV-8: {change:?}");
        side.breaker = change.to;
        side.period += 1;
    }

    /// Whether the breaker may refuse a dial, now or until a moment ago.
    pub(super) fn may_be_open(&self, group: usize) -> bool {
        let side = &self.sides[group];
        side.limits.breaker != 0
            || side.breaker == BreakerState::ForcedOpen
            || side.group.breaker_state(self.now) == BreakerState::ForcedOpen
    }

    pub(super) fn assert_open(&self, group: usize) {
        assert!(self.may_be_open(group), "INV-8: refused by no breaker");
        assert_eq!(self.idle(group).count(), 0, "INV-8: refused, and a connection rests");
    }

    /// Whether a permit lacks beside the group's own to live.
    pub(super) fn lacks_more(&self, group: usize) -> bool {
        let full = |permits: &Option<Permits>| permits.as_ref().is_some_and(|it| !it.is_free());
        let totals = &self.engine.totals;
        !self.sides[group].group.dials.is_free() || full(&totals.live) || full(&totals.dials)
    }

    /// Probes of the breaker's current period that are under way.
    pub(super) fn probes(&self, group: usize) -> u32 {
        let side = &self.sides[group];
        let is_one = |dial: &&Dial| {
            Arc::ptr_eq(dial.ticket.seat().group(), &side.group)
                && dial.period == side.period
                && dial.ticket.pass.as_ref().is_some_and(Pass::is_probe)
        };
        self.dials.iter().filter(is_one).count() as u32
    }

    fn rest_of(&self, group: usize) -> impl Iterator<Item = usize> {
        let records = self.records.iter().enumerate();
        records.filter(move |(_, it)| it.group == group && it.rests).map(|(id, _)| id)
    }

    /// INV-2 for all groups together.
    pub(super) fn check_totals(&self) {
        let totals = &self.engine.totals;
        let out = self.all_out();
        let live = out.pooled + out.overflow;
        if let (Some(permits), Some(most)) = (&totals.live, self.totals.max_live) {
            assert_eq!(permits.live(), live, "INV-2: the pool's permits");
            assert!(live <= most.max(self.before.pooled + self.before.overflow), "INV-2: {live}");
            let evicted =
                |doomed: &&Doomed<Conn, Cause>| doomed.place.reason == CloseReason::Evicted;
            let ending = self.closes.iter().filter(evicted).count();
            assert_eq!(totals.leaving_for_room(), ending as u32, "INV-2: ends to make room");
        }
        if let Some(permits) = &totals.dials {
            assert_eq!(permits.live(), out.dialing, "INV-2: the pool's permits to dial");
        }
        if let (Some(credits), Some(cap)) = (&totals.idle, self.totals.max_idle) {
            let idle = (0..GROUPS).map(|group| self.idle(group).count()).sum::<usize>() as u32;
            assert_eq!(credits.total_idle(), idle, "INV-2: the pool's idle count");
            assert!(idle <= cap, "INV-2: {idle} idle in the pool");
        }
    }

    fn all_out(&self) -> Out {
        self.sides.iter().fold(Out::default(), |sum, side| Out {
            pooled: sum.pooled + side.group.permits.live(),
            overflow: sum.overflow + side.group.overflow.live(),
            dialing: self.dials.len() as u32,
            ..sum
        })
    }

    /// What must hold after some operations only, and what the next step is measured by.
    pub(super) fn check_after(&mut self, op: Op) {
        let (pool, limits) = (self.all_out(), self.totals);
        let resting = (0..GROUPS).map(|group| self.idle(group).count()).sum::<usize>();
        if let Op::Tend(group) = op {
            let side = &self.sides[group];
            let above = side.group.permits.excess() as usize;
            let ours = |doomed: &&Doomed<Conn, Cause>| {
                Arc::ptr_eq(doomed.place.seat.group(), &side.group) && doomed.place.permit.is_some()
            };
            let ending = self.closes.iter().filter(ours).count();
            let idle = self.idle(group).count();
            let within = above <= ending || idle == 0;
            assert!(side.closed || within, "INV-2: {idle} rest above the limit");
        }
        if let (Op::TendTotals, Some(most)) = (op, limits.max_live) {
            let ending = self.closes.iter().filter(|doomed| doomed.place.permit.is_some()).count();
            let above = (pool.pooled + pool.overflow).saturating_sub(most) as usize;
            assert!(
                above <= ending || resting == 0,
                "INV-2: {resting} rest above the pool's limit"
            );
        }
        // A redial is one dial more than may be, at worst, as its documentation says.
        if let Some(most) = limits.max_dialing {
            let most = most.max(self.before.dialing) + u32::from(matches!(op, Op::Redial(_)));
            assert!(pool.dialing <= most, "INV-2: {} dials in the pool", pool.dialing);
        }
        for group in 0..GROUPS {
            let out = Out {
                pooled: self.sides[group].group.permits.live(),
                overflow: self.sides[group].group.overflow.live(),
                dialing: self.sides[group].group.dials.live(),
                waiting: self.waiting(group),
                probes: self.probes(group),
            };
            let side = &mut self.sides[group];
            let most = side.limits.max_dialing.max(side.before.dialing);
            let most = most.saturating_add(u32::from(matches!(op, Op::Redial(_))));
            assert!(out.dialing <= most, "INV-2: {} dials", out.dialing);
            side.before = out;
            side.was_held = side.held;
        }
        self.before = pool;
    }
}

impl Caller {
    /// Under which limit the connection lives that it was handed and has not taken.
    pub(super) fn class_of(&self, group: usize) -> Option<Class> {
        match self.found() {
            Some(Found::Ready { class, .. }) if self.group == group => Some(class),
            _ => None,
        }
    }
}

fn group_limits([counts, more, times]: [u8; 3]) -> GroupLimits {
    let pick = |from: u8, at: u32, of: [u32; 4]| of[usize::from(from >> at & 3)];
    GroupLimits {
        max_live: pick(counts, 0, [1, 2, 3, 4]),
        max_idle: pick(counts, 2, [0, 1, 2, 3]),
        max_waiters: pick(counts, 4, [1, 2, 3, 3]),
        max_overflow: pick(counts, 6, [0, 0, 1, 2]),
        max_dialing: pick(more, 0, [NEVER, NEVER, 1, 2]),
        min_idle: pick(more, 2, [0, 0, 1, 2]),
        breaker: u32::from(more & 16 != 0),
        breaker_consecutive: 1 + u32::from(more & 32 != 0),
        half_open_probes: 1 + u32::from(more & 64 != 0),
        slow_start_ms: if more & 128 != 0 { 1000 } else { 0 },
        breaker_rate_percent: 0,
        backoff_base_ms: 50,
        idle_timeout_ms: pick(times, 0, [NEVER, 100, 300, 900]),
        max_lifetime_ms: pick(times, 2, [NEVER, NEVER, 500, 2000]),
        ping_interval_ms: pick(times, 4, [NEVER, NEVER, 50, 200]),
        retention_period_ms: if times & 64 != 0 { 500 } else { NEVER },
        preconnect_percent: if times & 128 != 0 { 150 } else { 100 },
        ping_max_failures: 2,
        ..GroupLimits::DEFAULT
    }
}

/// Each may be none.
fn total_limits([live, idle, dialing]: [u8; 3]) -> TotalLimits {
    let limit = |from: u8, least: u32, most: u32| {
        let number = least + u32::from(from >> 1) % (most - least + 1);
        (from & 1 != 0).then_some(number)
    };
    TotalLimits {
        max_live: limit(live, 1, 6),
        max_idle: limit(idle, 0, 3),
        max_dialing: limit(dialing, 1, 3),
    }
}
