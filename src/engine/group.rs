//! The state of one endpoint: a lane on every shard and what all of them share.

use crossbeam_utils::CachePadded;

use super::{
    Backoff, BackoffRules, Breaker, BreakerRules, BreakerState, Class, GroupLimits, Lease, Ramp,
    Retention,
    credits::Credits,
    demand::Demand,
    hints::Order,
    lane::{Lane, SharedLane},
    limits::Limits,
    permits::Permits,
    waiters::Waiters,
};
use crate::{
    clock::Tick,
    sync::{Arc, AtomicBool, AtomicU32, Ordering, Setting},
};

/// Which shard of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The id as an index.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// One endpoint's share of the engine.
///
/// In this order: what a hit and a return read of it comes first, in one cache line, and is seldom
/// written; the key too, because a return asks it for its pool. With many endpoints it is lines that
/// a hit waits for.
#[derive(Debug)]
#[repr(C)]
pub struct Group<T, E, K = ()> {
    pub(super) demand: Demand,
    /// Grows with each eviction: connections of an earlier epoch are not handed out any more.
    pub(super) epoch: AtomicU32,
    /// When a connection last died by reset, odd; zero for never.
    suspect: Setting,
    key: K,
    pub(super) limits: Limits,
    pub(super) first: ShardId,
    pub(super) lanes: Box<[SharedLane]>,
    pub(super) credits: Credits<SharedLane>,
    pub(super) permits: Permits,
    /// Connections above `max_live`.
    pub(super) overflow: Permits,
    /// Dials at once.
    pub(super) dials: Permits,
    pub(super) waiters: Waiters<Outcome<T, E, K>>,
    pub(super) breaker: Breaker,
    pub(super) backoff: Backoff,
    pub(super) ramp: Ramp,
    pub(super) retention: Retention,
    /// Dials of a warm-up that could not begin yet.
    pub(super) owed: AtomicU32,
    /// Somebody dials in the background.
    pub(super) in_background: AtomicBool,
    /// Stands in the queue of those that a limit of the whole pool kept from a dial.
    pub(super) starving: AtomicBool,
    /// Connections out to be asked whether they live: they are as good as at rest.
    pub(super) asked: AtomicU32,
}

/// What a waiting caller is handed.
#[derive(Debug)]
pub enum Outcome<T, E, K = ()> {
    /// A connection.
    Ready(Lease<T, E, K>),
    /// A dial failed, for this cause.
    Failed(E),
    /// No shard of the group has a vacant slot.
    Exhausted,
    /// The breaker is open, for so many milliseconds more.
    Open(u32),
    /// The group was closed.
    Closed,
}

/// A group's reference on one shard: what a resting connection holds.
///
/// A checkout and a return touch the count of this reference, which is the shard's own cache
/// line, and not the count of the group, which all shards share.
#[derive(Debug)]
pub struct Seat<T, E, K = ()> {
    pub(super) group: Arc<Group<T, E, K>>,
    pub(super) shard: ShardId,
    /// The group's lane on this shard: a hit and a return need it at hand.
    pub(super) lane: SharedLane,
}

#[cfg(any(test, loom, model, fuzzing))]
impl<T, E> Group<T, E> {
    /// A group with lanes on `shards` shards from `first` on, without a key.
    pub fn new(first: ShardId, shards: usize, limits: GroupLimits) -> Self {
        Self::with_key((), first, shards, limits, Tick::from_millis(0))
    }
}

impl<T, E, K> Group<T, E, K> {
    /// A group of an endpoint that its owner knows by `key`, made at `now`.
    pub fn with_key(key: K, first: ShardId, shards: usize, limits: GroupLimits, now: Tick) -> Self {
        // Twice the cap: at least half of a full lane is stale, so making room finds a stale
        // hint soon. Capped, because a lane seldom holds all that the group may rest.
        let hints = (2 * limits.max_idle as usize).clamp(MIN_HINTS, MAX_HINTS);
        let order = if limits.lifo == 0 { Order::Fifo } else { Order::Lifo };
        let lanes: Box<[SharedLane]> =
            (0..shards).map(|_| Arc::new(CachePadded::new(Lane::new(order, hints)))).collect();
        Self {
            key,
            first,
            credits: Credits::new(lanes.clone(), limits.max_idle),
            lanes,
            permits: Permits::new(limits.max_live),
            overflow: Permits::new(limits.max_overflow),
            dials: Permits::new(limits.max_dialing),
            demand: Demand::new(),
            waiters: Waiters::new(),
            breaker: Breaker::new(),
            backoff: Backoff::new(),
            ramp: Ramp::new(),
            retention: Retention::new(now),
            epoch: AtomicU32::new(0),
            owed: AtomicU32::new(0),
            in_background: AtomicBool::new(false),
            starving: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            suspect: Setting::new(0),
            limits: Limits::new(&limits),
        }
    }

    /// A seat on each shard that the group has a lane on.
    pub fn seats(group: &Arc<Self>) -> Box<[Arc<Seat<T, E, K>>]> {
        (0..group.lanes.len())
            .map(|lane| {
                Arc::new(Seat::new(Arc::clone(group), ShardId(group.first.0 + lane as u16)))
            })
            .collect()
    }

    /// The limits, as they are now.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it was closed for good.
    pub fn is_closed(&self) -> bool {
        self.demand.wanted().closed
    }

    /// Where the breaker stands, as a dial would find it.
    pub fn breaker_state(&self, now: Tick) -> BreakerState {
        match self.breaker.glance(now) {
            // Switched off, it holds nobody up.
            BreakerState::Open | BreakerState::HalfOpen if self.limits.breaker() == 0 => {
                BreakerState::Closed
            }
            state => state,
        }
    }

    /// So many dials ahead of all callers are owed to a group that was made just now:
    /// [`Engine::dial_owed`](super::Engine::dial_owed).
    pub fn begin(&self, owed: u32) {
        // Relaxed: nobody else knows the group yet.
        self.owed.store(owed, Ordering::Relaxed);
    }

    pub(super) fn breaker_rules(&self) -> BreakerRules {
        let limits = &self.limits;
        BreakerRules {
            enabled: limits.breaker() != 0,
            consecutive: limits.breaker_consecutive() as u8,
            rate_percent: limits.breaker_rate_percent() as u8,
            min_dials: limits.breaker_min_dials() as u8,
            window_s: limits.breaker_window_s() as u16,
            probes: limits.half_open_probes() as u8,
            successes: limits.half_open_successes() as u8,
            backoff: self.backoff_rules(),
        }
    }

    pub(super) fn backoff_rules(&self) -> BackoffRules {
        let limits = &self.limits;
        BackoffRules {
            base_ms: limits.backoff_base_ms(),
            multiplier_percent: limits.backoff_multiplier_percent(),
            jitter_percent: limits.backoff_jitter_percent(),
            max_ms: limits.backoff_max_ms(),
        }
    }

    /// Which eviction a connection must not be older than.
    #[inline]
    pub(super) fn epoch(&self) -> u32 {
        // Relaxed: who ended an epoch before this in the order of things that the caller knows of
        // is seen; a checkout that runs beside an eviction may come before it.
        self.epoch.load(Ordering::Relaxed)
    }

    /// A connection died by reset: its siblings may have, too.
    pub fn suspect(&self, since: Tick) {
        self.suspect.set(since.as_millis() | 1);
    }

    /// Forgets a reset so old that it would soon read as one to come.
    pub(super) fn forget_suspicion(&self, now: Tick) {
        let since = self.suspect.get();
        if since != 0 && now.since(Tick::from_millis(since)) > Tick::FAR / 2 {
            self.suspect.set(0);
        }
    }

    /// Whether a sibling died by reset since this connection was last seen to live.
    #[inline]
    pub fn suspects(&self, lease: &Lease<T, E, K>) -> bool {
        let since = self.suspect.get();
        since != 0 && {
            let (since, tenant) = (Tick::from_millis(since), &lease.tenant);
            // Resting again after use is as good a sign of life as a ping.
            tenant.vouched.is_past(since) && tenant.rested.is_past(since)
        }
    }

    /// The permits that a connection lives by.
    pub(super) fn lives(&self, class: Class) -> &Permits {
        match class {
            Class::Pooled | Class::Direct => &self.permits,
            Class::Overflow => &self.overflow,
        }
    }

    /// For how long the breaker refuses a dial, if it does, nothing rests and no dial is to spare:
    /// each that is under way is for one who waits already.
    pub(super) fn rejects(&self, now: Tick) -> Option<u32> {
        let rules = self.breaker_rules();
        let wanted = self.demand.wanted();
        // Of a held group everybody waits: what it is held for may bring the endpoint back.
        if self.breaker.is_closed() || wanted.held || wanted.dialing > wanted.waiting {
            return None;
        }
        let left = self.breaker.rejects(&rules, now)?;
        (self.credits.total_idle() == 0).then_some(left)
    }

    /// How many connections may live at this moment, while the group recovers.
    pub(super) fn allowed(&self, now: Tick) -> u32 {
        match self.limits.slow_start_ms() {
            0 => u32::MAX,
            window => self.ramp.allowed(self.permits.limit(), now, window),
        }
    }

    #[inline]
    pub(super) fn lane_index(&self, shard: ShardId) -> usize {
        usize::from(shard.0 - self.first.0)
    }

    #[inline]
    pub(super) fn lane(&self, shard: ShardId) -> &SharedLane {
        &self.lanes[self.lane_index(shard)]
    }

    /// The group's lanes as shards, from one on and round.
    pub(super) fn shards_from(&self, first: ShardId) -> impl Iterator<Item = ShardId> {
        let (base, lanes, start) = (self.first.0, self.lanes.len(), self.lane_index(first));
        (0..lanes).map(move |step| ShardId(base + ((start + step) % lanes) as u16))
    }

    /// The endpoint that this is the group of, in its owner's terms.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<T, E, K> Seat<T, E, K> {
    /// The seat of a group on a shard that it has a lane on.
    pub(super) fn new(group: Arc<Group<T, E, K>>, shard: ShardId) -> Self {
        let lane = Arc::clone(group.lane(shard));
        Self { group, shard, lane }
    }

    /// The group.
    pub fn group(&self) -> &Arc<Group<T, E, K>> {
        &self.group
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

/// What the default cap comes to: a lane keeps its room when the cap is raised.
const MIN_HINTS: usize = if cfg!(any(test, loom, model, fuzzing)) { 2 } else { 256 };
const MAX_HINTS: usize = 1 << 16;

#[cfg(all(test, not(loom)))]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::engine::{BreakerMode, Engine, Tenant, regressions};

    type TestGroup = Group<u32, &'static str>;

    fn at(millis: u32) -> Tick {
        Tick::from_millis(millis)
    }

    /// With a key of two words, as the pool's is.
    #[test]
    fn what_a_hit_reads_of_a_group_and_of_a_connection_is_a_cache_line_each() {
        const LINE: usize = 64;
        type Keyed = Group<[usize; 3], (), [usize; 2]>;
        let hot_limits = 5 * size_of::<Setting>();
        assert!(offset_of!(Keyed, limits) + hot_limits <= LINE);
        assert!(align_of::<Keyed>() >= LINE);
        assert_eq!(size_of::<Tenant<[usize; 3], ()>>(), LINE);
        // tokio's sockets have 32 bytes.
        assert!(offset_of!(Tenant<[usize; 4], ()>, unanswered) <= LINE);
    }

    #[test]
    fn lanes_are_shards_from_the_first_on_and_round() {
        let group = Arc::new(TestGroup::new(ShardId(2), 3, GroupLimits::DEFAULT));
        let round = |first| group.shards_from(ShardId(first)).map(ShardId::get).collect::<Vec<_>>();
        assert_eq!(round(2), [2, 3, 4]);
        assert_eq!(round(4), [4, 2, 3]);
        assert_eq!([2, 3, 4].map(|shard| group.lane_index(ShardId(shard))), [0, 1, 2]);
        let seats = Group::seats(&group);
        assert_eq!(seats.iter().map(|seat| seat.shard().get()).collect::<Vec<_>>(), [2, 3, 4]);
        for (at, seat) in seats.iter().enumerate() {
            assert!(Arc::ptr_eq(&seat.lane, &group.lanes[at]));
        }
    }

    #[test]
    fn overflow_lives_by_permits_of_its_own() {
        let limits = GroupLimits { max_live: 3, max_overflow: 2, ..GroupLimits::DEFAULT };
        let group = TestGroup::new(ShardId(0), 1, limits);
        let limit = |class| group.lives(class).limit();
        assert_eq!([Class::Pooled, Class::Direct, Class::Overflow].map(limit), [3, 3, 2]);
    }

    #[test]
    fn a_breaker_that_is_switched_off_holds_nobody_up() {
        for (breaker, state) in [(1, BreakerState::Open), (0, BreakerState::Closed)] {
            let limits = GroupLimits { breaker: 1, breaker_consecutive: 1, ..GroupLimits::DEFAULT };
            let (engine, seats) = (Engine::new(1, 8), regressions::seats(1, limits));
            let group = seats[0].group();
            engine.dial_spare(&seats[0], at(0)).unwrap();
            let Some(crate::engine::Duty::Dial(dial)) = engine.next_duty(ShardId(0)) else {
                panic!()
            };
            engine.abandon(&dial, crate::engine::Failure::Peer("refused"), at(1));
            engine.resize(&seats, &GroupLimits { breaker, ..limits }, at(1));
            assert_eq!(group.breaker_state(at(2)), state);
            assert_eq!(group.rejects(at(2)).is_some(), breaker == 1);
        }
    }

    #[test]
    fn an_open_breaker_rejects_whom_nothing_serves() {
        let (engine, seats) = (Engine::new(1, 8), regressions::seats(1, GroupLimits::DEFAULT));
        let (seat, group) = (&seats[0], seats[0].group());
        assert_eq!(group.rejects(at(0)), None, "it is closed");
        let lease = regressions::leased(&engine, seat, 1, at(0));
        engine.force_breaker(seat, BreakerMode::ForcedOpen, at(1));
        assert!(group.rejects(at(1)).is_some());
        engine.hold(group);
        assert_eq!(group.rejects(at(1)), None, "of a held group everybody waits");
        engine.resume(seat, at(1));
        engine.give_back(lease, at(2));
        assert_eq!(group.rejects(at(2)), None, "one rests");
        assert!(!group.is_closed());
        engine.close(group);
        assert!(group.is_closed());
    }

    #[test]
    fn a_reset_at_any_tick_makes_suspect_what_lived_until_then() {
        let (engine, seats) = (Engine::new(1, 8), regressions::seats(1, GroupLimits::DEFAULT));
        let mut lease = regressions::leased(&engine, &seats[0], 1, at(1));
        for now in [1, 200, 201] {
            (lease.tenant.vouched, lease.tenant.rested) = (at(now), at(now));
            seats[0].group().suspect(at(now));
            assert!(seats[0].group().suspects(&lease), "{now}");
        }
        engine.discard(lease, crate::engine::CloseReason::Surplus);
    }

    #[test]
    fn the_rules_of_a_breaker_and_a_backoff_are_the_limits() {
        let limits = GroupLimits {
            breaker: 1,
            breaker_consecutive: 2,
            breaker_rate_percent: 3,
            breaker_min_dials: 4,
            breaker_window_s: 5,
            half_open_probes: 6,
            half_open_successes: 7,
            backoff_base_ms: 8,
            backoff_multiplier_percent: 109,
            backoff_jitter_percent: 10,
            backoff_max_ms: 11,
            ..GroupLimits::DEFAULT
        };
        let group = TestGroup::new(ShardId(0), 1, limits);
        let backoff =
            BackoffRules { base_ms: 8, multiplier_percent: 109, jitter_percent: 10, max_ms: 11 };
        let rules = BreakerRules {
            enabled: true,
            consecutive: 2,
            rate_percent: 3,
            min_dials: 4,
            window_s: 5,
            probes: 6,
            successes: 7,
            backoff,
        };
        assert_eq!((group.breaker_rules(), group.backoff_rules()), (rules, backoff));
    }

    #[test]
    fn a_sign_of_life_after_the_reset_ends_suspicion() {
        let (engine, seats) = (Engine::new(1, 8), regressions::seats(1, GroupLimits::DEFAULT));
        let (seat, group) = (&seats[0], seats[0].group());
        let mut lease = regressions::leased(&engine, seat, 1, at(100));
        assert!(!group.suspects(&lease), "nobody died");
        group.suspect(at(200));
        assert!(group.suspects(&lease));
        lease.tenant.vouched = at(300);
        assert!(!group.suspects(&lease), "it has answered since");
        (lease.tenant.vouched, lease.tenant.rested) = (at(100), at(300));
        assert!(!group.suspects(&lease), "it has served since");
        lease.tenant.rested = at(100);
        // It is kept as 201.
        group.forget_suspicion(at(201).after(Tick::FAR / 2));
        assert!(group.suspects(&lease));
        group.forget_suspicion(at(202).after(Tick::FAR / 2));
        assert!(!group.suspects(&lease), "it was long ago");
        engine.discard(lease, crate::engine::CloseReason::Surplus);
    }
}
