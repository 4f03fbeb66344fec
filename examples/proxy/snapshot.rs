//! What the admin pages show, read once for a page, and `/pool`, which is JSON.

use core::time::Duration;
use std::sync::Arc;

use corepool::{Endpoint, EndpointSettings, GroupStats, HistogramSnapshot, PoolStats, Settings};
use serde_json::{Map, Value, json};

use crate::{admin::Admin, counters::Counters, events::Events, upstream::Group};

/// The state of things.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    pub(crate) pool: PoolStats,
    /// The policy of each origin, as it is now.
    settings: Vec<(Endpoint, EndpointSettings)>,
    pub(crate) limits: &'a Settings,
    pub(crate) events: &'a Events,
    pub(crate) shards: &'a [Arc<Counters>],
}

impl Snapshot<'_> {
    /// Reads everything.
    pub(crate) fn read(admin: &Admin) -> Snapshot<'_> {
        let settings = |group: &Group| (group.endpoint().clone(), group.settings());
        Snapshot {
            pool: admin.pool.stats(),
            settings: admin.groups.iter().map(settings).collect(),
            limits: &admin.limits,
            events: &admin.events,
            shards: &admin.shards,
        }
    }

    /// The page served at `/pool`.
    pub(crate) fn to_json(&self) -> Value {
        let pool = &self.pool;
        let shards = pool.shards.iter().map(|shard| {
            json!({
                "id": shard.id,
                "core": shard.core,
                "backend": shard.backend,
                "slots": shard.slots,
                "slots_in_use": shard.slots_in_use,
                "port_conflicts_total": shard.port_conflicts,
            })
        });
        json!({
            "backend": pool.backend.selected,
            "backend_requested": pool.backend.requested.as_str(),
            "backend_reason": pool.backend.reason,
            "totals": self.totals(),
            "shards": shards.collect::<Vec<_>>(),
            "endpoints": pool.endpoints.iter().map(|group| self.endpoint(group)).collect::<Vec<_>>(),
        })
    }

    /// The policy of an endpoint.
    pub(crate) fn settings_of(&self, endpoint: &Endpoint) -> Option<&EndpointSettings> {
        self.settings.iter().find(|(other, _)| other == endpoint).map(|(_, settings)| settings)
    }

    /// Sums over the endpoints, and the limits on them; those that are off are null.
    fn totals(&self) -> Value {
        let sum = |read: fn(&GroupStats) -> u32| -> u64 {
            self.pool.endpoints.iter().map(|group| u64::from(read(group))).sum()
        };
        let (idle, in_use, dialing) = (sum(|g| g.idle), sum(|g| g.in_use), sum(|g| g.dialing));
        json!({
            "live": idle + in_use + dialing,
            "idle": idle,
            "in_use": in_use,
            "dialing": dialing,
            "waiting": sum(|g| g.waiting),
            "max_live": self.limits.max_live_total,
            "max_idle": self.limits.max_idle_total,
            "max_dialing": self.limits.max_dialing_total,
        })
    }

    fn endpoint(&self, group: &GroupStats) -> Value {
        let closed =
            group.closed.iter().map(|(reason, count)| (reason.as_str().to_owned(), json!(count)));
        let told = self.events.of(&group.endpoint);
        let capacity = self.settings_of(&group.endpoint).map(|settings| &settings.capacity);
        json!({
            "address": group.endpoint.to_string(),
            "breaker": group.breaker.as_str(),
            "breaker_trips_total": told.map(|told| told.trips()),
            "suspended": told.map(|told| told.is_suspended()),
            "idle": group.idle,
            "in_use": group.in_use,
            "overflow": group.overflow,
            "dialing": group.dialing,
            "waiting": group.waiting,
            "max_live": capacity.map(|capacity| capacity.max_live),
            "max_idle": capacity.map(|capacity| capacity.max_idle),
            "opened_total": group.opened,
            "reused_total": group.reused,
            "stolen_total": group.stolen,
            "dial_failures_total": group.dial_failures,
            "leaked": told.map(|told| told.leaked()),
            "leaks_total": told.map(|told| told.leaks()),
            "connect_time": times(&group.connect_time),
            "wait_time": times(&group.wait_time),
            "closed_total": closed.collect::<Map<_, _>>(),
        })
    }
}

/// Since the start, in milliseconds; null when nothing was recorded. A quantile may be up to half
/// above the exact one.
fn times(times: &HistogramSnapshot) -> Value {
    let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
    json!({
        "count": times.count(),
        "mean_ms": ms(times.mean()),
        "p50_ms": ms(times.quantile(0.5)),
        "p99_ms": ms(times.quantile(0.99)),
    })
}
