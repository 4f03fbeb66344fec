//! The pool's and the proxy's counters as Prometheus text, exposition format 0.0.4.

use core::fmt::Write as _;

use corepool::{GroupStats, PoolStats};

use crate::counters::Counters;

/// The page served at `/metrics`.
pub(crate) fn page(pool: &PoolStats, shards: &[impl AsRef<Counters>]) -> String {
    let mut page = Page::default();
    page.family("corepool_backend_info", Kind::Gauge, "The driver in use; always 1.");
    page.sample(&[("backend", pool.backend.selected)], 1);
    for (name, help, read) in GROUP_GAUGES {
        page.groups(name, Kind::Gauge, help, pool, read);
    }
    for (name, help, read) in GROUP_COUNTERS {
        page.groups(name, Kind::Counter, help, pool, read);
    }
    page.family(
        "corepool_connections_closed_total",
        Kind::Counter,
        "Connections to the endpoint closed, by reason.",
    );
    for group in &pool.endpoints {
        let endpoint = group.endpoint.to_string();
        for (reason, count) in &group.closed {
            page.sample(&[("endpoint", &endpoint), ("reason", reason.as_str())], *count);
        }
    }

    page.family("corepool_shard_slots", Kind::Gauge, "Slots of the shard.");
    for shard in &pool.shards {
        page.sample(&[("shard", &shard.id.to_string())], shard.slots as u64);
    }
    page.family("corepool_shard_slots_in_use", Kind::Gauge, "Slots of the shard that are taken.");
    for shard in &pool.shards {
        page.sample(&[("shard", &shard.id.to_string())], shard.slots_in_use as u64);
    }

    for (name, kind, help, read) in SHARD_COUNTERS {
        page.family(name, kind, help);
        for (id, counters) in shards.iter().enumerate() {
            page.sample(&[("shard", &id.to_string())], read(counters.as_ref()));
        }
    }
    page.family("proxy_responses_total", Kind::Counter, "Responses sent, by class of status.");
    for (id, counters) in shards.iter().enumerate() {
        for (class, count) in counters.as_ref().responses() {
            page.sample(&[("shard", &id.to_string()), ("class", class)], count);
        }
    }
    page.text
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Begins a metric; the samples that follow belong to it.
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.name = name;
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.text.push_str(self.name);
        for (nth, (label, value)) in labels.iter().enumerate() {
            self.text.push(if nth == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.escaped(value);
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    fn groups(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        pool: &PoolStats,
        read: fn(&GroupStats) -> u64,
    ) {
        self.family(name, kind, help);
        for group in &pool.endpoints {
            self.sample(&[("endpoint", &group.endpoint.to_string())], read(group));
        }
    }

    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
    }
}

type ReadGroup = (&'static str, &'static str, fn(&GroupStats) -> u64);

const GROUP_GAUGES: [ReadGroup; 4] = [
    ("corepool_connections_idle", "Connections to the endpoint at rest.", |g| g.idle.into()),
    ("corepool_connections_in_use", "Connections to the endpoint handed out.", |g| g.in_use.into()),
    ("corepool_connections_dialing", "Dials of the endpoint under way.", |g| g.dialing.into()),
    ("corepool_checkouts_waiting", "Callers that wait for a connection.", |g| g.waiting.into()),
];

const GROUP_COUNTERS: [ReadGroup; 4] = [
    ("corepool_connections_opened_total", "Connections to the endpoint made.", |g| g.opened),
    ("corepool_checkouts_reused_total", "Checkouts served by a connection at rest.", |g| g.reused),
    ("corepool_checkouts_stolen_total", "Of these, from another shard.", |g| g.stolen),
    ("corepool_dial_failures_total", "Dials of the endpoint that failed.", |g| g.dial_failures),
];

type ReadShard = (&'static str, Kind, &'static str, fn(&Counters) -> u64);

const SHARD_COUNTERS: [ReadShard; 3] = [
    ("proxy_clients_open", Kind::Gauge, "Clients connected.", Counters::open),
    ("proxy_clients_accepted_total", Kind::Counter, "Clients accepted.", Counters::accepted),
    (
        "proxy_retries_total",
        Kind::Counter,
        "Requests sent again because the reused connection was stale.",
        Counters::retries,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.family("m", Kind::Gauge, "A metric.");
        page.sample(&[("a", "x\\y\"z\n"), ("b", "")], 7);
        page.sample(&[], 8);
        let lines: Vec<_> = page.text.lines().collect();
        let expected =
            ["# HELP m A metric.", "# TYPE m gauge", r#"m{a="x\\y\"z\n",b=""} 7"#, "m 8"];
        assert_eq!(lines, expected);
    }
}
