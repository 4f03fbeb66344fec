//! What happens to connections because time passes: one pass per shard over its slots, and one
//! over the groups that call it home. No timer per connection.

use super::{
    CloseReason, Engine, Group, Lease, NoDial, Seat, ShardId, demand::Wanted, lease::Class,
    limits::NEVER,
};
use crate::{
    clock::Tick,
    sync::{Arc, AtomicBool, Ordering},
};

impl<T, E, K> Engine<T, E, K> {
    /// Ends what rested or lived too long on a shard, and takes out what is to be asked whether it
    /// lives: the caller pings it and says [`Self::answered`], [`Self::unanswered`] or
    /// [`Self::broke_off`]. Returns how many ended.
    pub fn sweep(&self, shard: ShardId, now: Tick, quiet: &mut Vec<Lease<T, E, K>>) -> usize {
        let mut ended = 0;
        // Acquire: sees the limits that were set before; pairs with the Release in `resize`.
        let all = self.shards[shard.get()].recheck.swap(false, Ordering::AcqRel);
        for (index, slot) in self.shards[shard.get()].slab.iter() {
            let Some((period, deadline)) = slot.resting() else {
                continue;
            };
            if !all && !deadline.is_past(now) {
                continue;
            }
            let Some(tenant) = slot.checkout(period) else {
                continue;
            };
            self.unrest(&tenant);
            let lease = Lease { index, tenant };
            match due(&lease, now) {
                Due::End(reason) => {
                    self.discard(lease, reason);
                    ended += 1;
                }
                Due::Ping => {
                    // Relaxed: an estimate for `tend`.
                    lease.tenant.seat.group.asked.fetch_add(1, Ordering::Relaxed);
                    quiet.push(lease);
                }
                // The limits have changed, or it was looked at before its time.
                Due::Nothing => self.put_back(lease),
            }
        }
        ended
    }

    /// A connection that was asked whether it lives has answered.
    pub fn answered(&self, mut lease: Lease<T, E, K>, now: Tick) {
        lease.tenant.unanswered = 0;
        lease.tenant.vouched = now;
        self.rest_on(lease, now);
    }

    /// A connection that was asked whether it lives has not answered, but may again.
    pub fn unanswered(&self, mut lease: Lease<T, E, K>, now: Tick) {
        lease.tenant.unanswered = lease.tenant.unanswered.saturating_add(1);
        if u32::from(lease.tenant.unanswered) >= lease.tenant.seat.group.limits.ping_max_failures()
        {
            return self.broke_off(lease);
        }
        self.rest_on(lease, now);
    }

    /// A connection that was asked goes on resting, until the next question is due.
    fn rest_on(&self, mut lease: Lease<T, E, K>, now: Tick) {
        lease.tenant.asked = now;
        let seat = Arc::clone(&lease.tenant.seat);
        self.put_back(lease);
        was_asked(&seat.group);
    }

    /// A connection that was asked whether it lives cannot be asked again: it ends.
    pub fn broke_off(&self, lease: Lease<T, E, K>) {
        let seat = Arc::clone(&lease.tenant.seat);
        self.discard(lease, CloseReason::PingFailed);
        was_asked(&seat.group);
    }

    /// Brings a group to where its policies want it: within lowered limits, no larger than its
    /// need, no smaller than its minimum. To be called a few times a second by one shard.
    ///
    /// `seats` are the group's, one for each of its lanes; dials in the background go round them.
    pub fn tend(&self, seats: &[Arc<Seat<T, E, K>>], now: Tick) {
        let Some(seat) = seats.first() else {
            return;
        };
        let group = &*seat.group;
        if group.demand.wanted().closed {
            return;
        }
        group.forget_suspicion(now);
        self.shrink(group);
        if group.limits.retention_period_ms() != NEVER {
            let census = census(group);
            let in_use = census.in_use();
            let need = in_use + census.wanted.waiting;
            group.retention.observe(need);
            // What was dialled ahead is there on purpose.
            let ahead = self.preconnect(group, need).saturating_sub(in_use);
            let min = group.limits.min_idle().max(ahead);
            let period = group.limits.retention_period_ms();
            let surplus = group.retention.tick(now, census.idle, in_use, min, period);
            self.close_resting(group, surplus, CloseReason::Shrunk);
        }
        self.dial_missing(seats, now);
        self.dial_owed(seats, now);
        // Recovery, the backoff and the pool's limits let more through as time passes.
        self.dial_if_needed(seat, now);
    }

    /// Whether a group needs [`Self::tend`]: callers wait, connections shall rest, or there are
    /// some, on whatever shard.
    pub fn wants_tending(&self, group: &Group<T, E, K>) -> bool {
        let wanted = group.demand.wanted();
        let idle = group.limits.min_idle().max(group.limits.warm_up());
        // Relaxed: a glance, as at the others.
        let owed = group.owed.load(Ordering::Relaxed);
        let live = group.permits.live() + group.overflow.live();
        !wanted.closed && (wanted.waiting > 0 || idle > 0 || owed > 0 || live > 0)
    }

    /// Begins the dials that are owed to a group: what the limits and the backoff let through now.
    /// [`Self::tend`] goes on with the others; each is begun once.
    pub fn dial_owed(&self, seats: &[Arc<Seat<T, E, K>>], now: Tick) {
        let Some(seat) = seats.first() else {
            return;
        };
        let Group { owed, permits, .. } = &*seat.group;
        // Relaxed: a count, here and below; one at a time counts it down.
        if owed.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(_turn) = seat.group.take_turn() else {
            return;
        };
        for seat in seats.iter().cycle() {
            if owed.load(Ordering::Relaxed) == 0 {
                break;
            }
            if !permits.is_free() {
                // Callers have seen to it.
                owed.store(0, Ordering::Relaxed);
            } else if self.dial_spare(seat, now).is_ok() {
                owed.fetch_sub(1, Ordering::Relaxed);
            } else {
                break;
            }
        }
    }

    /// Dials for those that shall rest, and ahead of need; part of [`Self::tend`].
    pub fn dial_missing(&self, seats: &[Arc<Seat<T, E, K>>], now: Tick) {
        let Some(group) = seats.first().map(|seat| &*seat.group) else {
            return;
        };
        let Some(_turn) = group.take_turn() else {
            return;
        };
        let census = census(group);
        let Census { wanted, live, idle } = census;
        let warm_up = if live == 0 { group.limits.warm_up() } else { 0 };
        let at_rest = group.limits.min_idle().max(warm_up).min(group.limits.max_idle());
        // Relaxed: as in `dial_owed`.
        let owed = group.owed.load(Ordering::Relaxed);
        let have = owed + idle + wanted.dialing.saturating_sub(wanted.waiting);
        let ahead = self.preconnect(group, census.callers()).saturating_sub(live);
        let missing = at_rest.saturating_sub(have).max(ahead);
        // A warm-up is for a group without connections, so it is all of it or never.
        let at_once = missing.min(SPARE_AT_ONCE.max(warm_up));
        for seat in seats.iter().cycle().take(at_once as usize) {
            if self.dial_spare_below(seat, live.saturating_add(missing), now).is_err() {
                break;
            }
        }
    }

    /// Dials ahead of need, as the preconnect ratio asks, a few for each caller that lined up:
    /// Envoy's `preconnect_policy`, with its bound of three.
    pub(super) fn dial_ahead(&self, seat: &Arc<Seat<T, E, K>>, now: Tick) {
        let group = &*seat.group;
        if group.limits.preconnect_percent() <= 100 {
            return;
        }
        // Who has the turn may not have seen this caller: what lacks then is `tend`'s.
        let Some(_turn) = group.take_turn() else {
            return;
        };
        let census = census(group);
        let wanted_live = self.preconnect(group, census.callers());
        for _ in 0..wanted_live.saturating_sub(census.live).min(AHEAD_AT_ONCE) {
            if self.dial_spare_below(seat, wanted_live, now).is_err() {
                return;
            }
        }
    }

    /// Dials although nobody waits, so that a connection will be at rest.
    ///
    /// # Errors
    /// As for [`Self::dial_fresh`], and while the backoff lasts.
    pub fn dial_spare(&self, seat: &Arc<Seat<T, E, K>>, now: Tick) -> Result<(), NoDial> {
        self.dial_spare_below(seat, u32::MAX, now)
    }

    /// As [`Self::dial_spare`], where the group has fewer than `most` connections: callers dial
    /// beside us.
    fn dial_spare_below(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        most: u32,
        now: Tick,
    ) -> Result<(), NoDial> {
        let group = &*seat.group;
        if let Err(left) = group.backoff.may_try(now) {
            return Err(NoDial::Open(left));
        }
        if !self.totals.may_rest() {
            // It would end another's rest, whose group would dial in its turn.
            return Err(NoDial::NoPermit);
        }
        let permit = self
            .totals
            .permit_below(seat, Class::Pooled, most, now)
            .map_err(|_| NoDial::NoPermit)?;
        let started = match group.demand.claim_spare() {
            false => Err(NoDial::Closed),
            true => self.charge_dial(seat, permit, now).inspect_err(|_| group.demand.dial_over()),
        };
        if started.is_err() {
            self.return_permits(seat, permit);
            // Our permits were out for a moment: somebody in line may have missed them.
            self.dial_if_needed(seat, now);
            self.feed(now);
        }
        started
    }

    /// How many connections a group should have where so many callers have or want one.
    fn preconnect(&self, group: &Group<T, E, K>, callers: u32) -> u32 {
        let percent = u64::from(group.limits.preconnect_percent());
        if percent <= 100 {
            return 0;
        }
        let wanted = (u64::from(callers) * percent).div_ceil(100);
        // No more than may rest: the others would be closed as they come.
        let most = callers.saturating_add(group.limits.max_idle());
        wanted.min(group.permits.limit().min(most).into()) as u32
    }

    /// Closes so many of a group's connections at rest, those of each lane in its order.
    pub(super) fn close_resting(&self, group: &Group<T, E, K>, count: u32, reason: CloseReason) {
        let mut left = count;
        loop {
            let before = left;
            // Round and round, so that no lane pays for the others.
            for shard in group.shards_from(group.first) {
                if left == 0 {
                    return;
                }
                if let Some(lease) = self.take(group, shard) {
                    self.discard(lease, reason);
                    left -= 1;
                }
            }
            if left == before {
                return;
            }
        }
    }

    /// Closes what rests above lowered limits. What is in use is closed as it comes back.
    pub(super) fn shrink(&self, group: &Group<T, E, K>) {
        let surplus = group.credits.collect().max(group.permits.excess());
        if surplus > 0 {
            self.close_resting(group, surplus, CloseReason::Shrunk);
            // Their credits pay, unless returns were faster: then the next pass goes on.
            group.credits.collect();
        }
    }
}

impl<T, E, K> Group<T, E, K> {
    /// The turn to dial in the background. One at a time: between a dial's permit to live and its
    /// count among the dials it looks like a connection in use, of which more would be dialled.
    fn take_turn(&self) -> Option<Turn<'_>> {
        // Acquire: what was begun in the turn before is counted; pairs with the Release below.
        (!self.in_background.swap(true, Ordering::Acquire)).then(|| Turn(&self.in_background))
    }
}

/// The turn to dial in the background, until it is dropped.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: see `take_turn`. No plain store: loom lets one be overtaken by a swap that came
        // before it.
        self.0.swap(false, Ordering::Release);
    }
}

/// What a group has at about this moment, for the policies that ask how much it needs.
struct Census {
    wanted: Wanted,
    live: u32,
    /// At rest, or out to be asked whether they live.
    idle: u32,
}

impl Census {
    fn in_use(&self) -> u32 {
        self.live.saturating_sub(self.idle).saturating_sub(self.wanted.dialing)
    }

    /// How many have a connection or want one. Callers too take their permits to live before they
    /// count their dials, so what is neither at rest nor counted belongs to those that wait first.
    /// Where two look after one caller, each has a permit for a moment; then this is one too many.
    fn callers(&self) -> u32 {
        let Wanted { waiting, dialing, .. } = self.wanted;
        self.live.saturating_sub(self.idle).saturating_sub(waiting.max(dialing)) + waiting
    }
}

fn census<T, E, K>(group: &Group<T, E, K>) -> Census {
    // Relaxed: an estimate, as all of these, in the order in which a connection passes through
    // them: what moves on meanwhile is not taken for one in use.
    let live = group.permits.live();
    let wanted = group.demand.wanted();
    let idle = group.credits.total_idle() + group.asked.load(Ordering::Relaxed);
    Census { wanted, live, idle }
}

/// A connection of the group is out to be asked no more.
fn was_asked<T, E, K>(group: &Group<T, E, K>) {
    // Relaxed: an estimate for `tend`.
    group.asked.fetch_sub(1, Ordering::Relaxed);
}

/// What is to be done about a connection that rests.
enum Due {
    End(CloseReason),
    Ping,
    Nothing,
}

fn due<T, E, K>(lease: &Lease<T, E, K>, now: Tick) -> Due {
    let tenant = &lease.tenant;
    let group = &*tenant.seat.group;
    if tenant.epoch != group.epoch() {
        return Due::End(CloseReason::Purged);
    }
    if tenant.ends.is_past(now) {
        return Due::End(CloseReason::MaxLifetime);
    }
    if now.since(tenant.rested) >= group.limits.idle_timeout_ms() {
        return Due::End(CloseReason::IdleTimeout);
    }
    match group.limits.ping_interval_ms() {
        NEVER => Due::Nothing,
        interval if now.since(tenant.quiet_since()) >= interval => Due::Ping,
        _ => Due::Nothing,
    }
}

/// Dials in the background that one pass may start for a group.
const SPARE_AT_ONCE: u32 = 64;
/// Dials ahead of need that one caller may start.
const AHEAD_AT_ONCE: u32 = 3;
