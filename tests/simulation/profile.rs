//! What a seed is like: settings of the pool, and how much goes wrong.

use std::time::Duration;

use corepool::{
    EndpointSettings, Settings,
    settings::{AtLimit, AtOpen, Order, Peek},
};

use crate::random::Random;

/// How a seed runs.
#[derive(Clone, Debug)]
pub struct Profile {
    /// 0: nothing goes wrong by itself; 3: hardly anything goes right.
    pub storm: u64,
    pub shards: usize,
    pub groups: usize,
    /// The last of the groups is that of a name.
    pub has_name: bool,
    pub callers: usize,
    pub rounds: u64,
    /// Callers hardly pause.
    pub busy: bool,
    pub operators: usize,
    /// Hooks look at connections and refuse some.
    pub has_hooks: bool,
    /// All endpoints hash alike.
    pub collides: bool,
    /// Connections see for themselves that their peer went or spoke unasked. Otherwise only the
    /// watch tells.
    pub sees: bool,
    pub settings: Settings,
}

impl Profile {
    pub fn draw(random: &mut Random) -> Self {
        let storm = random.pick(&[0, 1, 1, 2, 2, 3]);
        let shards = random.between(1, 4) as usize;
        let groups = random.between(1, 3) as usize;
        let mut settings = Settings::default();
        settings.slots_per_shard = random.pick(&[2, 4, 8, 24]);
        settings.shards = Some(shards);
        settings.steal_threshold = random.pick(&[None, Some(1), Some(2), Some(3)]);
        if random.chance(300) {
            settings.max_live_total = Some(random.between(2, 10) as u32);
        }
        if random.chance(300) {
            let most = settings.max_live_total.unwrap_or(5);
            settings.max_idle_total = Some(random.between(1, most.into()) as u32);
        }
        if random.chance(300) {
            let most = settings.max_live_total.unwrap_or(3).min(3);
            settings.max_dialing_total = Some(random.between(1, most.into()) as u32);
        }
        settings.endpoint = endpoint(random);
        let capacity = &mut settings.endpoint.capacity;
        let most = settings.max_idle_total.unwrap_or(u32::MAX);
        capacity.min_idle = capacity.min_idle.min(most);
        capacity.warm_up = capacity.warm_up.min(most);
        Self {
            storm,
            shards,
            groups,
            has_name: random.chance(400),
            callers: random.between(2, 14) as usize,
            rounds: random.between(2, 12),
            busy: random.chance(500),
            has_hooks: random.chance(300),
            collides: random.chance(100),
            operators: if random.chance(250) { 0 } else { random.between(1, 2) as usize },
            sees: random.chance(500),
            settings,
        }
    }
}

fn maybe(random: &mut Random, per_mille: u64, low: u64, high: u64) -> Option<u32> {
    random.chance(per_mille).then(|| random.between(low, high) as u32)
}

/// A policy, within what the pool accepts.
pub fn endpoint(random: &mut Random) -> EndpointSettings {
    let mut policy = EndpointSettings::default();

    let capacity = &mut policy.capacity;
    capacity.max_live = random.between(1, 8) as u32;
    capacity.max_idle = random.between(0, capacity.max_live.into()) as u32;
    capacity.max_waiters = random.pick(&[1, 3, 64, 64]);
    capacity.at_limit =
        random.pick(&[AtLimit::Wait, AtLimit::Wait, AtLimit::Reject, AtLimit::Overflow]);
    capacity.max_overflow = random.between(1, 3) as u32;
    capacity.max_dialing = maybe(random, 300, 1, 3);
    capacity.preconnect_percent = random.pick(&[100, 100, 150, 300]);
    if random.chance(300) {
        capacity.min_idle = random.between(0, capacity.max_idle.into()) as u32;
    }
    if random.chance(300) {
        capacity.warm_up = random.between(0, capacity.max_idle.into()) as u32;
        capacity.rewarm = capacity.warm_up > 0 && random.chance(500);
    }
    capacity.order = random.pick(&[Order::Fifo, Order::Lifo]);

    let lifetime = &mut policy.lifetime;
    lifetime.idle_timeout_ms = random.pick(&[50, 400, 3_000, 60_000]);
    lifetime.max_lifetime_ms = maybe(random, 400, 300, 5_000);
    lifetime.max_uses = maybe(random, 300, 1, 4);
    lifetime.retention_period_ms = maybe(random, 500, 200, 2_000);

    let health = &mut policy.health;
    health.peek = random.pick(&[Peek::Never, Peek::Always, Peek::IdleLongerThanMs(100)]);
    health.ping_interval_ms = maybe(random, 400, 200, 800);
    health.ping_timeout_ms = 100;
    health.ping_max_failures = random.between(1, 2) as u32;
    health.leak_after_ms = maybe(random, 300, 200, 2_000);

    let failure = &mut policy.failure;
    failure.breaker = random.chance(800);
    failure.breaker_consecutive_failures = random.between(1, 5) as u32;
    failure.breaker_min_dials = random.between(2, 10) as u32;
    failure.half_open_probes = random.between(1, 3) as u32;
    failure.half_open_successes = random.between(1, 2) as u32;
    failure.at_open = random.pick(&[AtOpen::FailFast, AtOpen::FailFast, AtOpen::Direct]);
    failure.backoff_base_ms = random.pick(&[20, 200, 1_000]);
    failure.backoff_max_ms = 5_000;
    failure.slow_start_ms = maybe(random, 200, 200, 2_000);

    let timeouts = &mut policy.timeouts;
    timeouts.connect_timeout_ms = random.pick(&[50, 200, 1_000]);
    timeouts.total_connect_timeout_ms = random.chance(300).then(|| timeouts.connect_timeout_ms * 2);
    timeouts.acquire_timeout_ms = random.pick(&[20, 300, 2_000, 10_000]);
    failure.slow_connect_ms =
        random.chance(200).then(|| random.between(10, timeouts.connect_timeout_ms.into()) as u32);

    let names = &mut policy.names;
    names.dns_min_ttl_ms = 100;
    names.dns_default_ttl_ms = 500;
    names.dns_max_ttl_ms = 2_000;
    names.retire_over_ms = random.pick(&[0, 300, 2_000]);
    names.attempt_delay_ms = random.pick(&[10, 100, 250]);
    policy
}

/// A time of up to so many milliseconds, short ones more often.
pub fn pause(random: &mut Random, most: u64) -> Duration {
    let most = match random.below(4) {
        0 => 0,
        1 => most / 16,
        2 => most / 4,
        _ => most,
    };
    Duration::from_millis(random.between(0, most))
}
