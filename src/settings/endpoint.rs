//! The policy of an endpoint: every setting once, with its unit, default and range.
//!
//! The longest time is what a tick can look ahead, 2147483646 ms (24 days).

use std::net::IpAddr;

use super::{
    AtLimit, AtOpen, AtStreamLimit, Order, Peek, SettingsError, ranges::in_range,
    table::endpoint_settings,
};

endpoint_settings! {
    /// How many connections, dials and callers.
    capacity: Capacity, CapacityOverrides {
        /// Connections at once, dials and closes included.
        max_live: u32 = 1024, in 1..=16_777_216;
        /// Connections at rest at once, exact over all shards; what comes back above it is closed.
        /// Zero: none rests, so a connection is reused only when somebody waits for it as it comes
        /// back.
        max_idle: u32 = 128, in 0..=16_777_216;
        /// Callers in line, those whose dial is under way included; the next fails at once.
        max_waiters: u32 = 4096, in 1..=16_777_216;
        /// What a checkout does when `max_live` is reached and nothing is idle.
        at_limit: AtLimit = AtLimit::Wait;
        /// Connections above `max_live` at once, with [`AtLimit::Overflow`].
        max_overflow: u32 = 1024, in 1..=16_777_216;
        /// Dials under way at once. Off: as many as callers need.
        max_dialing: Option<u32> = None, in 1..=16_777_216;
        /// Connections to keep at rest, dialled ahead of need. For each endpoint: a proxy with a
        /// thousand endpoints keeps a thousand times as many.
        min_idle: u32 = 0, in 0..=16_777_216;
        /// Dials for every hundred connections that callers need: 150 has every second miss dial
        /// one more, ahead of the next caller (Envoy's per-upstream preconnect ratio, which ends
        /// at 3.0 as well). 100 dials for those who wait and nobody else.
        preconnect_percent: u32 = 100, in 100..=300;
        /// Connections to dial when the endpoint is first used.
        warm_up: u32 = 0, in 0..=16_777_216;
        /// Whether to warm up again when no connection is left.
        rewarm: bool = false;
        /// Which of the idle connections a checkout takes.
        order: Order = Order::Fifo;
    }

    /// Connections that callers share, each for a stream at a time
    /// ([`Pool::streams`](crate::Pool::streams)).
    streams: Streams, StreamsOverrides {
        /// Streams of one connection at once, if its peer allows as many
        /// (`SETTINGS_MAX_CONCURRENT_STREAMS`; RFC 9113 recommends to allow no fewer than 100).
        max_streams: u32 = 100, in 1..=65_534;
        /// Connections to spread streams over, however few there are. Several keep one lost packet
        /// from holding all streams up.
        min_connections: u32 = 1, in 1..=1_024;
        /// Connections at once, if `capacity.max_live` allows as many. Room is made for as many
        /// when the endpoint is first used; afterwards it can be lowered and raised up to that.
        max_connections: u32 = 8, in 1..=1_024;
        /// What a caller does when all connections have all the streams that they may, and there
        /// are as many connections as may be.
        at_limit: AtStreamLimit = AtStreamLimit::Wait;
    }

    /// When a connection ends without anybody's fault.
    lifetime: Lifetime, LifetimeOverrides {
        /// How long a connection may rest. Keep it below the origin's own timeout, and noticed
        /// up to 350 ms late it still is.
        idle_timeout_ms: u32 = 60_000, in 1..=2_147_483_646;
        /// How old a connection may grow; an older one is closed when it rests. The default is
        /// nginx's `keepalive_time`, 1 h.
        max_lifetime_ms: Option<u32> = Some(3_600_000), in 1..=2_147_483_646;
        /// By how much of `max_lifetime_ms`, at most, chance shortens the life of a connection,
        /// so that those that were made together do not end together.
        lifetime_jitter_percent: u32 = 10, in 0..=50;
        /// Checkouts that a connection may serve; where it is shared, streams. Off: any number.
        max_uses: Option<u32> = None, in 1..=4_294_967_295;
        /// Each period closes half of the idle connections above the decayed peak of need
        /// (HAProxy's `pool-purge-delay`). Off: only the idle timeout shrinks the pool.
        retention_period_ms: Option<u32> = Some(30_000), in 1..=2_147_483_646;
    }

    /// How a connection is found dead, or lost.
    health: Health, HealthOverrides {
        /// Whether a checkout looks at the socket before it hands it out.
        peek: Peek = Peek::Never, in 1..=2_147_483_646;
        /// How often an idle connection is pinged, where the connector can. Off: never.
        ping_interval_ms: Option<u32> = None, in 1..=2_147_483_646;
        /// How long a ping may take.
        ping_timeout_ms: u32 = 1_000, in 1..=2_147_483_646;
        /// Pings that may fail in a row before the connection is closed.
        ping_max_failures: u32 = 2, in 1..=255;
        /// A connection that a caller holds longer than this is reported as leaked. Off: none is.
        leak_after_ms: Option<u32> = None, in 1..=2_147_483_646;
    }

    /// What failed dials lead to.
    failure: Failure, FailureOverrides {
        /// Whether there is a circuit breaker.
        breaker: bool = true;
        /// Dials that fail in a row and open it. Zero: that does not.
        breaker_consecutive_failures: u32 = 5, in 0..=32;
        /// The share of failed dials in the window that opens it. Zero: no share does.
        breaker_failure_rate_percent: u32 = 50, in 0..=100;
        /// Dials that the window must hold before their share counts.
        breaker_min_dials: u32 = 20, in 1..=32;
        /// How far the window looks back.
        breaker_window_s: u32 = 60, in 1..=2047;
        /// A dial that takes longer than this counts as failed. Off: however long it takes.
        slow_connect_ms: Option<u32> = None, in 1..=2_147_483_646;
        /// Dials at once that a half-open breaker lets through.
        half_open_probes: u32 = 1, in 1..=255;
        /// Of these, successes in a row that close it.
        half_open_successes: u32 = 1, in 1..=255;
        /// What a checkout that would have to dial does while it is open.
        at_open: AtOpen = AtOpen::FailFast;
        /// The wait after the first failure. This and the next three are gRPC's figures
        /// (`doc/connection-backoff.md`).
        backoff_base_ms: u32 = 1_000, in 1..=2_147_483_646;
        /// Each further wait, in hundredths of the one before.
        backoff_multiplier_percent: u32 = 160, in 100..=1000;
        /// By how much of it, at most, chance shortens or prolongs a wait.
        backoff_jitter_percent: u32 = 20, in 0..=100;
        /// The longest wait, before jitter.
        backoff_max_ms: u32 = 120_000, in 1..=2_147_483_646;
        /// How long the endpoint's share of connections grows back after the breaker closes. Off:
        /// all of it is there at once.
        slow_start_ms: Option<u32> = None, in 1..=2_147_483_646;
    }

    /// How long to wait for what.
    timeouts: Timeouts, TimeoutsOverrides {
        /// How long a TCP connection may take to be established.
        connect_timeout_ms: u32 = 5_000, in 1..=2_147_483_646;
        /// How long a dial may take, from the resolver to the end of the connector's handshake.
        /// Off: as long as `connect_timeout_ms`.
        total_connect_timeout_ms: Option<u32> = None, in 1..=2_147_483_646;
        /// How long a checkout may wait, for whatever.
        acquire_timeout_ms: u32 = 10_000, in 1..=2_147_483_646;
    }

    /// Options of the sockets.
    sockets: Sockets, SocketsOverrides {
        /// `TCP_NODELAY`.
        nodelay: bool = true;
        /// `SO_KEEPALIVE`, and `TCP_KEEPIDLE`: seconds of silence before the first probe. Off: no
        /// keepalive. Linux ends this and the interval at 32767 s, the probes at 127.
        keepalive_idle_s: Option<u32> = None, in 1..=32_767;
        /// `TCP_KEEPINTVL`: seconds between probes. Off: the system's, 75 s on Linux.
        keepalive_interval_s: Option<u32> = None, in 1..=32_767;
        /// `TCP_KEEPCNT`: probes without an answer that end the connection. Off: the system's, 9
        /// on Linux.
        keepalive_probes: Option<u32> = None, in 1..=127;
        /// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged. Off: the system's.
        user_timeout_ms: Option<u32> = None, in 1..=2_147_483_647;
        /// The address to connect from. Off: the one that the route says.
        source: Option<IpAddr> = None;
        /// `SO_MARK`, which needs `CAP_NET_ADMIN`.
        fwmark: Option<u32> = None, in 0..=4_294_967_295;
        /// Each dial chooses its port from a window of this many at a place of chance
        /// (`IP_LOCAL_PORT_RANGE`, Linux 6.3). Without, a dial to an address that half of the
        /// ports are taken for searches for a thousand times as long as it connects; 128 avoids
        /// that.
        port_window: Option<u16> = None, in 1..=65_535;
        /// The lowest and the highest port to connect from. Off: the system's
        /// (`ip_local_port_range`).
        port_range: Option<(u16, u16)> = None;
        /// Whether an idle connection that the pool ends is reset, which leaves no `TIME_WAIT`
        /// and no port taken, as HAProxy does.
        reset_evicted: bool = false;
    }

    /// Host names.
    names: Names, NamesOverrides {
        /// An answer is kept at least as long as this, whatever it says.
        dns_min_ttl_ms: u32 = 1_000, in 0..=2_147_483_646;
        /// How long an answer is kept that does not say.
        dns_default_ttl_ms: u32 = 30_000, in 1..=2_147_483_646;
        /// An answer is kept at most as long as this.
        dns_max_ttl_ms: u32 = 300_000, in 1..=2_147_483_646;
        /// Over how long a time the idle connections to an address that has left the answer are
        /// closed. Zero: at once.
        retire_over_ms: u32 = 10_000, in 0..=2_147_483_646;
        /// How long an address may take before the next one is tried beside it: RFC 8305 §5, whose
        /// least is 10 ms and whose recommended most is 2 s.
        attempt_delay_ms: u32 = 250, in 10..=2_000;
    }
}

impl Capacity {
    /// Sets [`Self::max_live`], and lowers what may not exceed it: `max_idle`, `min_idle` and
    /// `warm_up`.
    pub fn set_max_live(&mut self, connections: u32) {
        self.max_live = connections;
        self.max_idle = self.max_idle.min(connections);
        self.min_idle = self.min_idle.min(self.max_idle);
        self.warm_up = self.warm_up.min(self.max_idle);
    }
}

impl Timeouts {
    /// How long a dial may take in all: [`Self::total_connect_timeout_ms`], or what stands for it.
    pub fn total_connect_ms(&self) -> u32 {
        self.total_connect_timeout_ms.unwrap_or(self.connect_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Tick,
        settings::{Settings, ranges::MAX_CONNECTIONS},
    };

    #[test]
    fn the_ranges_are_what_the_engine_can_do() {
        for (path, range) in RANGES {
            let most = match path.rsplit(['.', '_']).next().unwrap() {
                _ if *path == "sockets.user_timeout_ms" => i32::MAX as u64,
                _ if *path == "names.attempt_delay_ms" => 2_000,
                "ms" | "peek" => u64::from(Tick::FAR),
                _ if path.starts_with("capacity.") && !path.ends_with("percent") => MAX_CONNECTIONS,
                _ => continue,
            };
            assert_eq!(*range.end(), most, "{path}");
        }
    }

    /// Every number has a range, and both of its ends hold.
    #[cfg(feature = "serde")]
    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        use serde_json::{Value, json};

        let check = |path: &str, value: &Value| {
            let (group, setting) = path.split_once('.').unwrap();
            let value = match group {
                _ if path == "health.peek" => json!({ "idle_longer_than_ms": value }),
                _ => value.clone(),
            };
            let policy = json!({ group: { setting: value } });
            let policy: EndpointSettings = serde_json::from_value(policy).ok()?;
            Some(policy.check_ranges().map_err(|error| (error.field().to_owned(), error)))
        };
        for (path, range) in RANGES {
            let (low, high) = (*range.start(), *range.end());
            for within in [low, high] {
                assert!(matches!(check(path, &json!(within)), Some(Ok(()))), "{path} = {within}");
            }
            for beyond in [low.checked_sub(1), high.checked_add(1)].into_iter().flatten() {
                // What the type cannot hold is refused by the format.
                let Some(outcome) = check(path, &json!(beyond)) else {
                    assert!(beyond > u64::from(u16::MAX), "{path} = {beyond}");
                    continue;
                };
                let (field, error) = outcome.unwrap_err();
                assert_eq!(field, *path);
                assert_eq!(error.value(), beyond.to_string());
                assert!(error.allowed().starts_with(&format!("{low} to {high}")), "{error}");
            }
        }

        let defaults = serde_json::to_value(EndpointSettings::default()).unwrap();
        for (group, settings) in defaults.as_object().unwrap() {
            for (setting, value) in settings.as_object().unwrap() {
                let path = format!("{group}.{setting}");
                let ranged = RANGES.iter().any(|(ranged, _)| *ranged == path);
                assert!(ranged || !value.is_number(), "{path} has no range");
            }
        }
    }

    #[test]
    fn a_lower_limit_takes_the_others_along() {
        let mut policy = EndpointSettings::default();
        (policy.capacity.min_idle, policy.capacity.warm_up) = (20, 40);
        policy.capacity.set_max_live(10);
        policy.check().unwrap();
        let Capacity { max_live, max_idle, min_idle, warm_up, .. } = policy.capacity;
        assert_eq!([max_live, max_idle, min_idle, warm_up], [10; 4]);
    }

    #[test]
    fn the_total_timeout_stands_in_for_itself() {
        let mut timeouts = Timeouts::default();
        assert_eq!(timeouts.total_connect_ms(), 5_000);
        timeouts.total_connect_timeout_ms = Some(9_000);
        assert_eq!(timeouts.total_connect_ms(), 9_000);
    }

    #[test]
    fn no_change_changes_nothing() {
        let wan = Settings::wan().endpoint;
        assert_eq!(EndpointOverrides::default().apply_to(&wan), wan);
    }
}
