//! What happens to connections because time passes: one pass per shard over its slots, and one
//! over the groups that call it home. No timer per connection.

use super::{CloseReason, Engine, Group, Lease, Seat, ShardId, demand::Wanted, limits::NEVER};
use crate::{
    clock::Tick,
    sync::{Arc, Ordering},
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
        // Acquire: before the dials, among which they count later; see `dial_owed`.
        let owed = group.owed.load(Ordering::Acquire);
        let wanted = group.demand.wanted();
        if wanted.closed {
            return;
        }
        group.forget_suspicion(now);
        self.shrink(group);
        let Census { live, idle, in_use } = census(group, wanted);
        let wanted_live = self.preconnect(group, in_use + wanted.waiting);
        if group.limits.retention_period_ms() != NEVER {
            group.retention.observe(in_use + wanted.waiting);
            // What was dialled ahead is there on purpose.
            let min = group.limits.min_idle().max(wanted_live.saturating_sub(in_use));
            let period = group.limits.retention_period_ms();
            let surplus = group.retention.tick(now, idle, in_use, min, period);
            self.close_resting(group, surplus, CloseReason::Shrunk);
        }
        let warm_up = if live == 0 { group.limits.warm_up() } else { 0 };
        let at_rest = group.limits.min_idle().max(warm_up).min(group.limits.max_idle());
        let have = owed + idle + wanted.dialing.saturating_sub(wanted.waiting);
        let missing = at_rest.saturating_sub(have).max(wanted_live.saturating_sub(live));
        // A warm-up is for a group without connections, so it is all of it or never.
        let at_once = missing.min(SPARE_AT_ONCE.max(warm_up));
        for seat in seats.iter().cycle().take(at_once as usize) {
            if self.dial_spare(seat, now).is_err() {
                break;
            }
        }
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
        let Group { owed, warming, permits, .. } = &*seat.group;
        // Acquire: pairs with the Release below; one at a time counts them down.
        if owed.load(Ordering::Relaxed) == 0 || warming.swap(true, Ordering::Acquire) {
            return;
        }
        for seat in seats.iter().cycle() {
            // Relaxed: a count, here and below.
            if owed.load(Ordering::Relaxed) == 0 {
                break;
            }
            if !permits.is_free() {
                // Callers have seen to it.
                owed.store(0, Ordering::Relaxed);
            } else if self.dial_spare(seat, now).is_ok() {
                // Release: counted as a dial first, so that `tend` counts it once or twice.
                owed.fetch_sub(1, Ordering::Release);
            } else {
                break;
            }
        }
        warming.store(false, Ordering::Release);
    }

    /// Dials ahead of need, as the preconnect ratio asks, a few for each caller that lined up:
    /// Envoy's `preconnect_policy`, with its bound of three.
    pub(super) fn dial_ahead(&self, seat: &Arc<Seat<T, E, K>>, now: Tick) {
        let group = &*seat.group;
        if group.limits.preconnect_percent() <= 100 {
            return;
        }
        let wanted = group.demand.wanted();
        let Census { live, in_use, .. } = census(group, wanted);
        let missing = self.preconnect(group, in_use + wanted.waiting).saturating_sub(live);
        for _ in 0..missing.min(AHEAD_AT_ONCE) {
            if self.dial_spare(seat, now).is_err() {
                return;
            }
        }
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

/// What a group has at about this moment, for the policies that ask how much it needs.
struct Census {
    live: u32,
    /// At rest, or out to be asked whether they live.
    idle: u32,
    in_use: u32,
}

fn census<T, E, K>(group: &Group<T, E, K>, wanted: Wanted) -> Census {
    // Relaxed: an estimate, as all of these.
    let idle = group.credits.total_idle() + group.asked.load(Ordering::Relaxed);
    let live = group.permits.live();
    Census { live, idle, in_use: live.saturating_sub(idle).saturating_sub(wanted.dialing) }
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
