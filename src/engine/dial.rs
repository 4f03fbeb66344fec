//! Dials: as many as callers wait, within the permits and the breaker's leave, and what becomes
//! of them.

use super::{
    BreakerState, Change, Class, CloseReason, Doomed, Duty, Engine, Failure, Generation, Goal,
    Group, GroupWaiter, Lease, Moment, Outcome, Pass, Place, Reservation, Seat, SlotIndex, Tenant,
    Waiter,
    evict::FEED_AT_ONCE,
    line::{ANYWHERE, Served},
    totals::{DialPermit, Lack},
};
use crate::{
    clock::Tick,
    sync::{Arc, Ordering, fence},
};

impl<T, E, K> Engine<T, E, K> {
    /// A dial succeeded: the connection goes to the first in line, or to rest.
    ///
    /// # Errors
    /// Gives the connection back when the peer has hung up on it already (INV-6), or when the dial
    /// was abandoned before. The caller closes it, then abandons the dial.
    pub fn fulfil(
        &self,
        dial: &Reservation<T, E, K>,
        conn: T,
        moment: impl Into<Moment>,
    ) -> Result<(), T> {
        let moment = moment.into();
        let now = moment.now;
        let Reservation { seat, index, goal, .. } = dial;
        let group = &*seat.group;
        if !self.slot(seat.shard, *index).fulfil(dial.ticket) {
            return Err(conn);
        }
        group.lane(seat.shard).counters.opened();
        self.totals.dial_over(group, dial.permit);
        let slow = now.since(dial.started) >= group.limits.slow_connect_ms();
        let changed = self.judge(dial, if slow { Judgement::Bad } else { Judgement::Good }, moment);
        let tenant = Box::new(Tenant {
            conn,
            seat: Arc::clone(seat),
            opened: now,
            rested: now,
            vouched: now,
            asked: now,
            ends: group.end_of_life(moment),
            uses: 0,
            epoch: group.epoch(),
            unanswered: 0,
            class: dial.class,
            fresh: true,
        });
        let lease = Lease { index: *index, tenant };
        match goal {
            // Another caller's, or nobody's, when that one has left.
            Goal::Alone(caller) => match caller.fill(Outcome::Ready(lease)) {
                Err(Outcome::Ready(lease)) => self.put_back(lease),
                _ => caller.wake(),
            },
            Goal::Adoption => self.put_back(lease),
            Goal::Line if group.demand.wanted().held => {
                group.demand.dial_over();
                self.put_back(lease);
            }
            Goal::Line => {
                if let Err(lease) = self.hand_off(lease, Served::ByDial) {
                    group.demand.dial_over();
                    self.put_back(lease);
                }
            }
        }
        // A limit on dials may have kept others from theirs, or the breaker does now.
        if changed || group.dials.is_limited() {
            self.dial_if_needed(seat, now);
        }
        self.feed(now);
        Ok(())
    }

    /// A dial failed or was given up: its slot and permits come back, and one waiter learns why,
    /// unless idle connections serve them all. `false` when it was fulfilled or abandoned before.
    pub fn abandon(
        &self,
        dial: &Reservation<T, E, K>,
        failure: Failure<E>,
        moment: impl Into<Moment>,
    ) -> bool {
        let moment = moment.into();
        let Reservation { seat, index, goal, .. } = dial;
        let group = &seat.group;
        let slab = &self.shards[seat.shard.get()].slab;
        if !slab.slot(*index).abandon(dial.ticket) {
            return false;
        }
        slab.release(*index);
        group.lane(seat.shard).counters.dial_failed();
        self.totals.dial_over(group, dial.permit);
        let judgement = match failure {
            Failure::Peer(_) => Judgement::Bad,
            Failure::Local(_) => Judgement::Local,
            Failure::GivenUp => Judgement::None,
        };
        self.judge(dial, judgement, moment);
        // Before anybody is told: who tries again at once finds the permit.
        self.totals.gone(group, dial.class);
        match (goal, failure) {
            // A caller that has left does not care.
            (Goal::Alone(caller), failure) => {
                drop(caller.fill(failure.into_cause().map_or(Outcome::Closed, Outcome::Failed)));
                caller.wake();
            }
            (Goal::Adoption, _) => {}
            (Goal::Line, failure) => match failure.into_cause() {
                Some(cause) => {
                    self.settle(group, seat.shard, ANYWHERE);
                    self.fail_one(group, Outcome::Failed(cause));
                }
                None => group.demand.dial_over(),
            },
        }
        // SeqCst: pairs with the fence in `take_place`. Who is counted but not in line yet looks
        // for itself; a dial for it now could fail before it is there to be told, over and over.
        fence(Ordering::SeqCst);
        if !group.waiters.is_empty() {
            // Also for those that a breaker which has tripped keeps from theirs: after the first in
            // line, whose dial this was.
            self.dial_if_needed(seat, moment.now);
        }
        self.feed(moment.now);
        true
    }

    /// Dials for one caller alone, past the queue: for a retry that must not meet another stale
    /// connection. Only its outcome or a cancel ends the returned waiter.
    ///
    /// # Errors
    /// When the group is closed or held, its breaker is open, it has no permit to spare, or the
    /// shard no slot.
    pub fn dial_fresh(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, NoDial> {
        self.dial_alone(seat, Class::Pooled, now)
    }

    /// Dials for one caller alone, above `max_live` and up to `max_overflow` more.
    ///
    /// # Errors
    /// As for [`Self::dial_fresh`].
    pub fn dial_overflow(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, NoDial> {
        self.dial_alone(seat, Class::Overflow, now)
    }

    /// Dials for one caller alone past an open breaker, within the limits. The outcome is not held
    /// against the endpoint, nor for it.
    ///
    /// # Errors
    /// As for [`Self::dial_fresh`], but for the breaker.
    pub fn dial_direct(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, NoDial> {
        self.dial_alone(seat, Class::Direct, now)
    }

    /// Ends a connection and dials in its stead, for the same caller alone. The permit passes on,
    /// so nobody can come between.
    ///
    /// # Errors
    /// When the group is closed, its breaker is open, or the shard has no slot; the connection goes
    /// back to rest.
    pub fn redial(
        &self,
        lease: Lease<T, E, K>,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, NoDial> {
        let seat = Arc::clone(&lease.tenant.seat);
        let (shard, index, class) = (seat.shard, lease.index, lease.tenant.class);
        let place = self.may_dial_alone(&seat, Class::Pooled, now).and_then(|pass| {
            let place = self.reserve(&seat).inspect_err(|_| seat.group.withdraw(pass.clone()))?;
            Ok((place, pass))
        });
        let (place, pass) = match place {
            Ok(found) => found,
            Err(no) => {
                // A connection that serves is worth most where none can be dialled.
                self.put_back(lease);
                return Err(no);
            }
        };
        let permit = self.totals.permit_anyway(&seat.group);
        let waiter = self.charge_alone(&seat, place, class, permit, pass, now);
        self.slot(shard, index).discard();
        let Tenant { conn, opened, uses, .. } = *lease.tenant;
        let (reason, life) = (CloseReason::Replaced, (opened, uses));
        let place = Place { seat, index, reason, life, permit: None };
        self.charge(shard, Duty::Close(Doomed { conn: Some(conn), place }));
        Ok(waiter)
    }

    /// A place for a connection that was made elsewhere. It must be fulfilled or abandoned like a
    /// dial.
    ///
    /// # Errors
    /// As for [`Self::dial_fresh`], but for the breaker.
    pub fn adopt(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        now: Tick,
    ) -> Result<Reservation<T, E, K>, NoDial> {
        if seat.group.demand.wanted().closed {
            return Err(NoDial::Closed);
        }
        let (index, ticket) = self.reserve(seat)?;
        let Ok(permit) = self.totals.permit(seat, Class::Pooled, now) else {
            self.unreserve(seat, index, ticket);
            return Err(NoDial::NoPermit);
        };
        let (seat, goal, class) = (Arc::clone(seat), Goal::Adoption, Class::Pooled);
        // Its owner says when to begin, see `begin`.
        Ok(Reservation { seat, index, ticket, started: now, goal, class, permit, pass: None })
    }

    /// Has the shard begin with a place that [`Self::adopt`] gave.
    pub fn begin(&self, dial: Reservation<T, E, K>) {
        self.charge(dial.seat.shard, Duty::Dial(dial));
    }

    /// Starts dials until every waiter has one under way or something lacks. Says what.
    ///
    /// Called by each caller after it lined up, and by everybody that gave a permit back or ended
    /// a dial. Permit first, need second: of "a permit came free" and "a caller lined up", the
    /// later one sees the earlier, because each fences between its own write and this look.
    ///
    /// A waiter that no dial can start for takes an idle connection wherever one is, so that INV-5
    /// holds for it whatever the stealing threshold says.
    pub(super) fn dial_if_needed(&self, seat: &Arc<Seat<T, E, K>>, now: Tick) -> Option<Lack> {
        let mut returned = false;
        let lack = self.dial_for(seat, now, &mut returned);
        if returned {
            self.feed(now);
        }
        lack
    }

    /// [`Self::dial_if_needed`] without a look after other groups; notes whether permits came back
    /// that those may want. Not both in one, or a row of starving groups whose dials cannot start
    /// would be a row of calls on the stack.
    pub(super) fn dial_for(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        now: Tick,
        returned: &mut bool,
    ) -> Option<Lack> {
        let group = &*seat.group;
        loop {
            // SeqCst: see above; pairs with itself, with the fence in `wait` and with the one in
            // `Totals::permit`.
            fence(Ordering::SeqCst);
            if !group.demand.wanted().needs_dial() {
                return None;
            }
            let permit = match self.totals.permit(seat, Class::Pooled, now) {
                Ok(permit) => permit,
                Err(lack) => {
                    self.settle(group, seat.shard, ANYWHERE);
                    if lack == Lack::Total {
                        if let Some(left) = group.rejects(now) {
                            // Nothing of its own will come back to them.
                            self.fail_excess(group, seat.shard, left);
                            return None;
                        }
                        self.evict_for(group, now);
                    }
                    return Some(lack);
                }
            };
            if !group.demand.claim_dial() {
                // Somebody else saw to it. Our permits were out for a moment: look again.
                self.return_permits(seat, permit);
                *returned = true;
                continue;
            }
            match self.charge_dial(seat, permit, now) {
                Ok(()) => {}
                Err(no) => {
                    let why = match no {
                        NoDial::Open(left) => Outcome::Open(left),
                        _ => Outcome::Exhausted,
                    };
                    // Idle connections serve first. Whom we tell leaves together with the dial that
                    // was counted for it, so that nobody is told whom another dial is under way for.
                    self.settle(group, seat.shard, ANYWHERE);
                    let told = self.fail_one(group, why);
                    self.return_permits(seat, permit);
                    *returned = true;
                    // SeqCst: as above, of "our permit came back" and "a caller lined up". One that
                    // is counted but not in line yet looks for itself; we do not spin for it.
                    fence(Ordering::SeqCst);
                    if !told && group.waiters.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    /// Looks after the groups that a limit of the whole pool kept from their dials. To be called
    /// by everybody that gave such a permit back.
    pub(super) fn feed(&self, now: Tick) {
        if !self.totals.are_limited() {
            return;
        }
        // Bounded: a group that starves again lines up again, and `tend` looks after all of them.
        let mut fed = 0;
        while fed < FEED_AT_ONCE {
            // SeqCst: pairs with the fence in `Totals::permit`: we see the group that lined up, or
            // its second look sees the permit.
            fence(Ordering::SeqCst);
            if !self.totals.are_free() {
                return self.make_room_if_wanted(now);
            }
            let Some(seat) = self.totals.next_starving() else {
                return;
            };
            // Those whose callers have left or were served cost nothing and do not count.
            fed += usize::from(seat.group.demand.wanted().needs_dial());
            self.dial_for(&seat, now, &mut false);
        }
    }

    /// The whole pool is full: another group's connection that rests makes room, unless as many
    /// are on their way out for that as dials want to begin. Its end feeds us.
    #[cold]
    fn evict_for(&self, group: &Group<T, E, K>, now: Tick) {
        let wanted = group.demand.wanted();
        let need = wanted.waiting.saturating_sub(wanted.dialing);
        if !self.totals.may_live() && self.totals.lacks_room(need) {
            self.evict_oldest_soon(now);
        }
    }

    /// A dial for the line, with its permits and its need counted already.
    pub(super) fn charge_dial(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        permit: DialPermit,
        now: Tick,
    ) -> Result<(), NoDial> {
        let pass = self.admit(seat, now).map_err(NoDial::Open)?;
        let (seat, index, ticket) =
            self.reserve_near(seat).inspect_err(|_| seat.group.withdraw(pass.clone()))?;
        let (goal, class) = (Goal::Line, Class::Pooled);
        let shard = seat.shard;
        let dial = Reservation { seat, index, ticket, started: now, goal, class, permit, pass };
        self.charge(shard, Duty::Dial(dial));
        Ok(())
    }

    /// A dial whose outcome goes to nobody but the returned waiter.
    fn dial_alone(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        class: Class,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, NoDial> {
        if !seat.group.lives(class).is_free() {
            return Err(NoDial::NoPermit);
        }
        let pass = self.may_dial_alone(seat, class, now)?;
        // Slot first: a permit that was out for a moment only could keep a caller in line from
        // its dial.
        let place = self.reserve(seat).inspect_err(|_| seat.group.withdraw(pass.clone()))?;
        match self.totals.permit(seat, class, now) {
            Ok(permit) => Ok(self.charge_alone(seat, place, class, permit, pass, now)),
            Err(_) => {
                self.unreserve(seat, place.0, place.1);
                seat.group.withdraw(pass);
                Err(NoDial::NoPermit)
            }
        }
    }

    fn may_dial_alone(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        class: Class,
        now: Tick,
    ) -> Result<Option<Pass>, NoDial> {
        let wanted = seat.group.demand.wanted();
        if wanted.closed {
            return Err(NoDial::Closed);
        }
        if wanted.held {
            return Err(NoDial::Held);
        }
        if class == Class::Direct {
            return Ok(None);
        }
        self.admit(seat, now).map_err(NoDial::Open)
    }

    fn charge_alone(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        (index, ticket): (SlotIndex, Generation),
        class: Class,
        permit: DialPermit,
        pass: Option<Pass>,
        now: Tick,
    ) -> Arc<GroupWaiter<T, E, K>> {
        let waiter = Arc::new(Waiter::alone());
        let goal = Goal::Alone(Arc::clone(&waiter));
        let (shard, seat) = (seat.shard, Arc::clone(seat));
        let dial = Reservation { seat, index, ticket, started: now, goal, class, permit, pass };
        self.charge(shard, Duty::Dial(dial));
        waiter
    }

    /// A slot of the seat's shard or, where that has none, of another that the group has a lane on:
    /// who dials for the line need not be on the shard of the one that waits.
    fn reserve_near(&self, seat: &Arc<Seat<T, E, K>>) -> Result<Reserved<T, E, K>, NoDial> {
        if let Ok((index, ticket)) = self.reserve(seat) {
            return Ok((Arc::clone(seat), index, ticket));
        }
        for shard in seat.group.shards_from(seat.shard).skip(1) {
            if let Some((index, ticket)) = self.shards[shard.get()].slab.reserve() {
                let group = Arc::clone(&seat.group);
                return Ok((Arc::new(Seat::new(group, shard)), index, ticket));
            }
        }
        Err(NoDial::Exhausted)
    }

    fn reserve(&self, seat: &Seat<T, E, K>) -> Result<(SlotIndex, Generation), NoDial> {
        self.shards[seat.shard.get()].slab.reserve().ok_or(NoDial::Exhausted)
    }

    fn unreserve(&self, seat: &Seat<T, E, K>, index: SlotIndex, ticket: Generation) {
        let slab = &self.shards[seat.shard.get()].slab;
        let abandoned = slab.slot(index).abandon(ticket);
        debug_assert!(abandoned, "nobody else has the ticket");
        slab.release(index);
    }

    /// Puts back the permits of a dial that did not start. To be followed by [`Self::feed`].
    pub(super) fn return_permits(&self, seat: &Arc<Seat<T, E, K>>, permit: DialPermit) {
        self.totals.dial_over(&seat.group, permit);
        self.totals.gone(&seat.group, Class::Pooled);
    }

    /// The breaker's leave to dial, or for how long it refuses.
    fn admit(&self, seat: &Arc<Seat<T, E, K>>, now: Tick) -> Result<Option<Pass>, u32> {
        let rules = seat.group.breaker_rules();
        let pass = seat.group.breaker.admit(&rules, now).map_err(|rejected| rejected.left_ms)?;
        if let Some(change) = pass.change() {
            self.charge(seat.shard, Duty::Tell(Arc::clone(seat), change));
        }
        Ok(Some(pass))
    }

    /// What the outcome of a dial says of its endpoint. Says whether the breaker has changed: then
    /// [`Self::dial_if_needed`] has to follow, for those in line.
    fn judge(&self, dial: &Reservation<T, E, K>, judgement: Judgement, moment: Moment) -> bool {
        // None: it was not the breaker that let it through, so it says nothing of the endpoint.
        let Some(pass) = dial.pass.clone() else {
            return false;
        };
        let group = &*dial.seat.group;
        match judgement {
            Judgement::Good => {
                group.backoff.succeeded();
            }
            // The background leaves off also where we are to blame.
            Judgement::Bad | Judgement::Local => {
                let rules = group.backoff_rules();
                group.backoff.failed(dial.started, moment.now, &rules, moment.random);
            }
            Judgement::None => {}
        }
        let rules = group.breaker_rules();
        let change = match judgement {
            Judgement::Good => group.breaker.succeeded(pass, &rules, moment.now),
            Judgement::Bad => group.breaker.failed(pass, &rules, moment.now, moment.random),
            Judgement::Local | Judgement::None => {
                group.breaker.withdrawn(pass);
                None
            }
        };
        if let Some(change) = change {
            self.note_change(&dial.seat, change, moment.now);
        }
        change.is_some()
    }

    /// Follows a change of a group's breaker: those in line learn of it, and the shard tells.
    #[cold]
    pub(super) fn breaker_changed(&self, seat: &Arc<Seat<T, E, K>>, change: Change, now: Tick) {
        self.note_change(seat, change, now);
        self.dial_if_needed(seat, now);
    }

    #[cold]
    fn note_change(&self, seat: &Arc<Seat<T, E, K>>, change: Change, now: Tick) {
        // From forced closed there is nothing to recover from.
        if change.to == BreakerState::Closed && change.from != BreakerState::ForcedClosed {
            seat.group.ramp.start(now);
        }
        self.charge(seat.shard, Duty::Tell(Arc::clone(seat), change));
    }
}

/// A slot, its ticket, and the seat on its shard.
type Reserved<T, E, K> = (Arc<Seat<T, E, K>>, SlotIndex, Generation);

/// What a dial's outcome says of the endpoint.
#[derive(Clone, Copy, Debug)]
enum Judgement {
    Good,
    Bad,
    /// Nothing, but the next one would end as badly.
    Local,
    None,
}

impl<E> Failure<E> {
    fn into_cause(self) -> Option<E> {
        match self {
            Self::Peer(cause) | Self::Local(cause) => Some(cause),
            Self::GivenUp => None,
        }
    }
}

impl<T, E, K> Group<T, E, K> {
    /// Gives a leave back that led to no dial.
    fn withdraw(&self, pass: Option<Pass>) {
        if let Some(pass) = pass {
            self.breaker.withdrawn(pass);
        }
    }

    /// When a connection that is made now has lived long enough: spread at random, so that those
    /// of one burst do not end together.
    pub(super) fn end_of_life(&self, moment: Moment) -> Tick {
        let full = self.limits.max_lifetime_ms();
        let jitter = u64::from(full) * u64::from(self.limits.lifetime_jitter_percent()) / 100;
        let less = (jitter * u64::from(moment.random)) >> 32;
        moment.now.after(full - less as u32)
    }
}

/// Why no dial was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDial {
    /// The group is closed.
    Closed,
    /// The group is held.
    Held,
    /// As many connections live, or are dialled, as may.
    NoPermit,
    /// The breaker is open, or the backoff lasts, for so many milliseconds more.
    Open(u32),
    /// The shard has no vacant slot.
    Exhausted,
}
