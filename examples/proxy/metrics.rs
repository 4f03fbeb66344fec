//! The pool's and the proxy's counters as Prometheus text, exposition format 0.0.4.
//!
//! What articles on connection pools call by other names (that on tunnelto's pool, most of all):
//!
//! | there | here |
//! |---|---|
//! | `connection_pool_size_current` | `corepool_connection_pool_size_current` |
//! | `connection_pool_size_max` | `corepool_connection_pool_size_max` |
//! | `connection_pool_idle_current` | `corepool_connections_idle` |
//! | `connection_acquire_time_p99` | `histogram_quantile(0.99, rate(corepool_connection_acquire_time_seconds_bucket[5m]))` |
//! | `connection_create_time_avg` | `corepool_connection_create_time_seconds_sum / …_count` |
//! | `connection_reuse_rate` | `rate(corepool_checkouts_reused_total[5m])`, over itself and that of `corepool_connections_opened_total` |
//! | `connection_validation_failure_rate` | `rate(corepool_connections_closed_total{reason=~"ping_failed\|unusable\|unexpected_bytes"}[5m])` |
//! | `connection_timeout_rate` | `rate(proxy_checkouts_failed_total{cause="timeout"}[5m])` |
//! | `connection_leak_detected` | `corepool_connections_leaked` |
//!
//! Rates and quantiles are left to whoever reads: a counter can be summed over proxies and taken
//! over any time, and a rate that was computed here cannot.

mod page;

use corepool::{BreakerState, GroupStats, HistogramSnapshot, PoolStats, ShardStats};

use self::page::{Kind, Page};
use crate::{counters::Counters, events::Told, snapshot::Snapshot};

/// The page served at `/metrics`.
pub(crate) fn page(snapshot: &Snapshot<'_>) -> String {
    let Snapshot { pool, shards, .. } = snapshot;
    let mut page = Page::default();
    page.family("corepool_backend_info", Kind::Gauge, "The driver in use; always 1.");
    page.sample(&[("backend", pool.backend.selected)], 1);
    for (name, help, read) in TOTALS {
        if let Some(value) = read(pool) {
            page.family(name, Kind::Gauge, help);
            page.sample(&[], value.into());
        }
    }
    endpoints(&mut page, snapshot);

    for (name, kind, help, read) in SHARDS {
        page.family(name, kind, help);
        for shard in &pool.shards {
            page.sample(&[("shard", &shard.id.to_string())], read(shard));
        }
    }
    for (name, kind, help, read) in COUNTERS {
        page.family(name, kind, help);
        for (id, counters) in shards.iter().enumerate() {
            page.sample(&[("shard", &id.to_string())], read(counters));
        }
    }
    page.family("proxy_responses_total", Kind::Counter, "Responses sent, by class of status.");
    for (id, counters) in shards.iter().enumerate() {
        for (class, count) in counters.responses() {
            page.sample(&[("shard", &id.to_string()), ("class", class)], count);
        }
    }
    let help = "Checkouts that gave no connection, by cause.";
    page.family("proxy_checkouts_failed_total", Kind::Counter, help);
    for (id, counters) in shards.iter().enumerate() {
        for (cause, count) in counters.refusals() {
            page.sample(&[("shard", &id.to_string()), ("cause", cause)], count);
        }
    }
    page.into_text()
}

fn endpoints(page: &mut Page, snapshot: &Snapshot<'_>) {
    let groups = &snapshot.pool.endpoints;
    for (name, kind, help, read) in GROUPS {
        page.family(name, kind, help);
        for group in groups {
            page.sample(&[("endpoint", &group.endpoint.to_string())], read(group));
        }
    }
    let help = "Connections that the endpoint may have.";
    page.family("corepool_connection_pool_size_max", Kind::Gauge, help);
    for group in groups {
        if let Some(settings) = snapshot.settings_of(&group.endpoint) {
            let max_live = settings.capacity.max_live.into();
            page.sample(&[("endpoint", &group.endpoint.to_string())], max_live);
        }
    }
    for (name, kind, help, read) in TOLD {
        page.family(name, kind, help);
        for group in groups {
            if let Some(told) = snapshot.events.of(&group.endpoint) {
                page.sample(&[("endpoint", &group.endpoint.to_string())], read(told));
            }
        }
    }
    let help = "Where the circuit breaker stands: 1 for its state, 0 for the others.";
    page.family("corepool_breaker_state", Kind::Gauge, help);
    for group in groups {
        let endpoint = group.endpoint.to_string();
        for state in BREAKER_STATES {
            let is = u64::from(group.breaker == state);
            page.sample(&[("endpoint", &endpoint), ("state", state.as_str())], is);
        }
    }
    let help = "Connections to the endpoint closed, by reason.";
    page.family("corepool_connections_closed_total", Kind::Counter, help);
    for group in groups {
        let endpoint = group.endpoint.to_string();
        for (reason, count) in &group.closed {
            page.sample(&[("endpoint", &endpoint), ("reason", reason.as_str())], *count);
        }
    }
    for (name, help, read) in TIMES {
        page.family(name, Kind::Histogram, help);
        for group in groups {
            page.histogram(&[("endpoint", &group.endpoint.to_string())], read(group));
        }
    }
}

const BREAKER_STATES: [BreakerState; 5] = [
    BreakerState::Closed,
    BreakerState::Open,
    BreakerState::HalfOpen,
    BreakerState::ForcedOpen,
    BreakerState::ForcedClosed,
];

/// A metric: its name, kind and meaning, and where its value is found.
type Metric<T> = (&'static str, Kind, &'static str, fn(&T) -> u64);

const GROUPS: [Metric<GroupStats>; 10] = [
    ("corepool_connection_pool_size_current", Kind::Gauge, "Connections, dials included.", |g| {
        u64::from(g.idle) + u64::from(g.in_use) + u64::from(g.dialing)
    }),
    ("corepool_connections_idle", Kind::Gauge, "Connections to the endpoint at rest.", |g| {
        g.idle.into()
    }),
    ("corepool_connections_in_use", Kind::Gauge, "Connections to the endpoint handed out.", |g| {
        g.in_use.into()
    }),
    (
        "corepool_connections_overflow",
        Kind::Gauge,
        "Connections to the endpoint above its limit.",
        |g| g.overflow.into(),
    ),
    ("corepool_connections_dialing", Kind::Gauge, "Dials of the endpoint under way.", |g| {
        g.dialing.into()
    }),
    ("corepool_checkouts_waiting", Kind::Gauge, "Callers that wait for a connection.", |g| {
        g.waiting.into()
    }),
    (
        "corepool_connections_opened_total",
        Kind::Counter,
        "Connections to the endpoint made.",
        |g| g.opened,
    ),
    (
        "corepool_checkouts_reused_total",
        Kind::Counter,
        "Checkouts served by a connection that was there already.",
        |g| g.reused,
    ),
    ("corepool_checkouts_stolen_total", Kind::Counter, "Of these, from another shard.", |g| {
        g.stolen
    }),
    ("corepool_dial_failures_total", Kind::Counter, "Dials of the endpoint that failed.", |g| {
        g.dial_failures
    }),
];

const TOLD: [Metric<Told>; 4] = [
    (
        "corepool_breaker_trips_total",
        Kind::Counter,
        "How often the circuit breaker has opened.",
        Told::trips,
    ),
    (
        "corepool_connections_leaked",
        Kind::Gauge,
        "Connections that are out for longer than --leak-after.",
        Told::leaked,
    ),
    (
        "corepool_connection_leaks_total",
        Kind::Counter,
        "Connections that were out for longer than --leak-after.",
        Told::leaks,
    ),
    (
        "corepool_suspended",
        Kind::Gauge,
        "Whether an operator has suspended the endpoint.",
        |told| u64::from(told.is_suspended()),
    ),
];

/// A distribution of times, likewise.
type Time = (&'static str, &'static str, fn(&GroupStats) -> &HistogramSnapshot);

const TIMES: [Time; 2] = [
    (
        "corepool_connection_acquire_time_seconds",
        "How long callers waited that found nothing idle and were served in the end.",
        |g| &g.wait_time,
    ),
    ("corepool_connection_create_time_seconds", "How long dials took that succeeded.", |g| {
        &g.connect_time
    }),
];

type Total = (&'static str, &'static str, fn(&PoolStats) -> Option<u32>);

const TOTALS: [Total; 2] = [
    (
        "corepool_connections_live_total_current",
        "Connections to all endpoints, dials included; where there is a limit.",
        |pool| pool.live_total,
    ),
    (
        "corepool_connections_idle_total_current",
        "Connections to all endpoints at rest; where there is a limit.",
        |pool| pool.idle_total,
    ),
];

const SHARDS: [Metric<ShardStats>; 3] = [
    ("corepool_shard_slots", Kind::Gauge, "Slots of the shard.", |s| s.slots as u64),
    ("corepool_shard_slots_in_use", Kind::Gauge, "Slots of the shard that are taken.", |s| {
        s.slots_in_use as u64
    }),
    (
        "corepool_port_conflicts_total",
        Kind::Counter,
        "Dials that found no free local port where they looked.",
        |s| s.port_conflicts,
    ),
];

const COUNTERS: [Metric<Counters>; 5] = [
    ("proxy_clients_open", Kind::Gauge, "Clients connected.", Counters::open),
    ("proxy_clients_accepted_total", Kind::Counter, "Clients accepted.", Counters::accepted),
    (
        "proxy_retries_total",
        Kind::Counter,
        "Requests sent again: the reused connection was stale, or the origin refused the stream.",
        Counters::retries,
    ),
    (
        "proxy_detours_total",
        Kind::Counter,
        "Requests taken to another origin because theirs could not be dialled.",
        Counters::detours,
    ),
    (
        "proxy_tls_handshakes_failed_total",
        Kind::Counter,
        "Clients with whom TLS did not come about.",
        Counters::failed_handshakes,
    ),
];
