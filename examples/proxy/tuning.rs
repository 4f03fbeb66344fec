//! The flags that change settings of the pool. What is not given changes nothing.
//!
//! They are the settings that a user of this proxy is likely to want; all the others can be had
//! from a file (`--config`). Two are left out because they would do nothing, or harm: `health.peek`
//! (hyper reads the socket by itself, and there is no closer look than asking hyper) and the PROXY
//! protocol (its header speaks for all that is sent on a connection, so with one header for each
//! client no connection could ever serve two; the client is in `X-Forwarded-For`).

use core::time::Duration;
use std::net::IpAddr;

use clap::Args;
use corepool::{
    Backend, Settings,
    settings::{AtLimit, AtOpen, Order},
};

use crate::parse::{OrOff, choice, millis, or_off, seconds, whole};

/// All of them.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Tuning {
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    lifetime: Lifetime,
    #[command(flatten)]
    timeouts: Timeouts,
    #[command(flatten)]
    breaker: Breaker,
    #[command(flatten)]
    sockets: Sockets,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Threads")]
struct Threads {
    /// What the pool dials, watches and closes with: auto, io-uring or epoll. Default: auto.
    #[arg(long)]
    backend: Option<Backend>,

    /// Shards, each a thread. Default: as many as there are cores.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, 256))]
    shards: Option<usize>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits (of one origin, unless it says total)")]
struct Limits {
    /// Connections, dials included, at most. Default: 1024.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, CONNECTIONS))]
    max_live: Option<u32>,

    /// Of these, at rest, at most; more than --max-live is as good as that. Default: 128.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0, CONNECTIONS))]
    max_idle: Option<u32>,

    /// Requests that may wait for a connection; the next one gets a 503. Default: 4096.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, CONNECTIONS))]
    max_waiters: Option<u32>,

    /// Dials under way at once. Default: off, as many as requests need.
    #[arg(long, value_name = "N|off", value_parser = or_off(whole::<u32>(1, CONNECTIONS)))]
    max_dialing: Option<OrOff<u32>>,

    /// What a request does when --max-live is reached: wait for a connection, fail with a 503, or
    /// have one above the limit, which is closed afterwards. Default: wait.
    #[arg(long, value_name = "WHAT", value_parser = choice(AT_LIMIT))]
    at_limit: Option<AtLimit>,

    /// Connections to keep at rest, dialled ahead of need. Default: 0.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0, CONNECTIONS))]
    min_idle: Option<u32>,

    /// Connections to dial at the start. Default: 0.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0, CONNECTIONS))]
    warm_up: Option<u32>,

    /// Which connection at rest a request gets: the one that has rested longest (fifo) or that
    /// came back last (lifo). Default: fifo.
    #[arg(long, value_name = "ORDER", value_parser = choice(ORDER))]
    order: Option<Order>,

    /// Connections to all origins, dials included, at most. Default: off.
    #[arg(long, value_name = "N|off", value_parser = or_off(whole::<u32>(1, CONNECTIONS)))]
    max_live_total: Option<OrOff<u32>>,

    /// Of these, at rest, at most. Default: off.
    #[arg(long, value_name = "N|off", value_parser = or_off(whole::<u32>(0, CONNECTIONS)))]
    max_idle_total: Option<OrOff<u32>>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Lifetime and health of a connection")]
struct Lifetime {
    /// At rest for longer, it is closed; keep it below the origin's own limit. Default: 60.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    idle_timeout: Option<Duration>,

    /// Older, it is closed when it rests; less up to a tenth, by chance. Default: 3600.
    #[arg(long, value_name = "SECONDS|off", value_parser = or_off(seconds))]
    max_lifetime: Option<OrOff<Duration>>,

    /// Requests that it may serve. Default: off, any number.
    #[arg(long, value_name = "N|off", value_parser = or_off(whole::<u32>(1, u32::MAX)))]
    max_uses: Option<OrOff<u32>>,

    /// How often one at rest is asked whether it lives. Nothing is sent: hyper says what it has
    /// seen of the socket. Default: off.
    #[arg(long, value_name = "SECONDS|off", value_parser = or_off(seconds))]
    ping_interval: Option<OrOff<Duration>>,

    /// Held by one request for longer, it is reported as leaked, in the log and at /metrics.
    /// Default: off.
    #[arg(long, value_name = "SECONDS|off", value_parser = or_off(seconds))]
    leak_after: Option<OrOff<Duration>>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Timeouts")]
struct Timeouts {
    /// A dial that takes longer fails; the request gets a 504. Default: 5.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,

    /// A request that waits longer for a connection gets a 504. Default: 10.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    acquire_timeout: Option<Duration>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Circuit breaker (of one origin)")]
struct Breaker {
    /// Whether dials that keep failing stop further ones for a while: on or off. Default: on.
    #[arg(long, value_name = "WHETHER", hide_possible_values = true, value_parser = choice(ON_OFF))]
    breaker: Option<bool>,

    /// Dials that fail in a row and open it, 0 to 32; 0: only their share does. Default: 5.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0, 32))]
    breaker_failures: Option<u32>,

    /// Dials at once that a half-open one lets through, 1 to 255. Default: 1.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, 255))]
    half_open_probes: Option<u32>,

    /// What a request does that would have to dial while it is open: fail with a 503, or dial a
    /// connection of its own. Default: fail-fast.
    #[arg(long, value_name = "WHAT", value_parser = choice(AT_OPEN))]
    at_open: Option<AtOpen>,

    /// How long it stays open at first; 1.6 times as long each further time, give or take a fifth.
    /// Default: 1.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    backoff_base: Option<Duration>,

    /// How long it stays open at most, give or take a fifth. Default: 120.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    backoff_max: Option<Duration>,

    /// How long --max-live grows back, from 1, after it has closed. Default: off, at once.
    #[arg(long, value_name = "SECONDS|off", value_parser = or_off(seconds))]
    slow_start: Option<OrOff<Duration>>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sockets")]
struct Sockets {
    /// The address to connect from. Default: the one that the route says.
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,

    /// Each dial looks for its port among so many at a place of chance (Linux 6.3). Default: off,
    /// wherever the kernel looks.
    #[arg(long, value_name = "N|off", value_parser = or_off(whole::<u16>(1, u16::MAX as u32)))]
    port_window: Option<OrOff<u16>>,

    /// TCP keepalive: silence before the first probe. Default: off.
    #[arg(long, value_name = "SECONDS|off", value_parser = or_off(whole::<u32>(1, 32_767)))]
    keepalive: Option<OrOff<u32>>,
}

impl Tuning {
    /// Makes the changes that were asked for. `origins` is how many there are.
    pub(crate) fn apply_to(&self, settings: &mut Settings, origins: usize) {
        self.threads.apply_to(settings);
        self.limits.apply_to(settings, origins);
        self.lifetime.apply_to(settings);
        self.timeouts.apply_to(settings);
        self.breaker.apply_to(settings);
        self.sockets.apply_to(settings);
    }
}

impl Threads {
    fn apply_to(&self, settings: &mut Settings) {
        set(&mut settings.backend, self.backend);
        settings.shards = self.shards.or(settings.shards);
    }
}

impl Limits {
    fn apply_to(&self, settings: &mut Settings, origins: usize) {
        set_or_off(&mut settings.max_live_total, self.max_live_total);
        set_or_off(&mut settings.max_idle_total, self.max_idle_total);
        let capacity = &mut settings.endpoint.capacity;
        if let Some(max_live) = self.max_live {
            capacity.set_max_live(max_live);
            // All of them may be on one shard.
            let all = (max_live as usize).saturating_mul(origins).min(SLOTS_MOST);
            settings.slots_per_shard = settings.slots_per_shard.max(all);
        }
        if let Some(max_idle) = self.max_idle {
            capacity.max_idle = max_idle.min(capacity.max_live);
            capacity.min_idle = capacity.min_idle.min(max_idle);
            capacity.warm_up = capacity.warm_up.min(max_idle);
        }
        set(&mut capacity.max_waiters, self.max_waiters);
        set_or_off(&mut capacity.max_dialing, self.max_dialing);
        set(&mut capacity.at_limit, self.at_limit);
        set(&mut capacity.min_idle, self.min_idle);
        set(&mut capacity.warm_up, self.warm_up);
        capacity.rewarm &= capacity.warm_up > 0;
        set(&mut capacity.order, self.order);
    }
}

impl Lifetime {
    fn apply_to(&self, settings: &mut Settings) {
        let lifetime = &mut settings.endpoint.lifetime;
        set(&mut lifetime.idle_timeout_ms, self.idle_timeout.map(millis));
        set_or_off(&mut lifetime.max_lifetime_ms, self.max_lifetime.map(in_millis));
        set_or_off(&mut lifetime.max_uses, self.max_uses);
        let health = &mut settings.endpoint.health;
        set_or_off(&mut health.ping_interval_ms, self.ping_interval.map(in_millis));
        if let Some(OrOff(Some(interval))) = self.ping_interval {
            health.ping_timeout_ms = health.ping_timeout_ms.min(millis(interval));
        }
        set_or_off(&mut health.leak_after_ms, self.leak_after.map(in_millis));
    }
}

impl Timeouts {
    fn apply_to(&self, settings: &mut Settings) {
        let timeouts = &mut settings.endpoint.timeouts;
        if let Some(connect) = self.connect_timeout.map(millis) {
            timeouts.connect_timeout_ms = connect;
            timeouts.total_connect_timeout_ms =
                timeouts.total_connect_timeout_ms.map(|total| total.max(connect));
        }
        set(&mut timeouts.acquire_timeout_ms, self.acquire_timeout.map(millis));
    }
}

impl Breaker {
    fn apply_to(&self, settings: &mut Settings) {
        let failure = &mut settings.endpoint.failure;
        set(&mut failure.breaker, self.breaker);
        set(&mut failure.breaker_consecutive_failures, self.breaker_failures);
        set(&mut failure.half_open_probes, self.half_open_probes);
        set(&mut failure.at_open, self.at_open);
        if let Some(longest) = self.backoff_max.map(millis) {
            failure.backoff_max_ms = longest;
            failure.backoff_base_ms = failure.backoff_base_ms.min(longest);
        }
        set(&mut failure.backoff_base_ms, self.backoff_base.map(millis));
        set_or_off(&mut failure.slow_start_ms, self.slow_start.map(in_millis));
    }
}

impl Sockets {
    fn apply_to(&self, settings: &mut Settings) {
        let sockets = &mut settings.endpoint.sockets;
        sockets.source = self.source.or(sockets.source);
        set_or_off(&mut sockets.port_window, self.port_window);
        set_or_off(&mut sockets.keepalive_idle_s, self.keepalive);
        if sockets.keepalive_idle_s.is_none() {
            (sockets.keepalive_interval_s, sockets.keepalive_probes) = (None, None);
        }
    }
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

fn set_or_off<T>(setting: &mut Option<T>, given: Option<OrOff<T>>) {
    if let Some(OrOff(given)) = given {
        *setting = given;
    }
}

fn in_millis(OrOff(given): OrOff<Duration>) -> OrOff<u32> {
    OrOff(given.map(millis))
}

const AT_LIMIT: &[(&str, AtLimit)] =
    &[("wait", AtLimit::Wait), ("reject", AtLimit::Reject), ("overflow", AtLimit::Overflow)];

const ORDER: &[(&str, Order)] = &[("fifo", Order::Fifo), ("lifo", Order::Lifo)];

const ON_OFF: &[(&str, bool)] = &[("on", true), ("off", false)];

const AT_OPEN: &[(&str, AtOpen)] = &[("fail-fast", AtOpen::FailFast), ("direct", AtOpen::Direct)];

const CONNECTIONS: u32 = 1_000_000;

/// More than one address has ports.
const SLOTS_MOST: usize = 65_536;
