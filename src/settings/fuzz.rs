//! Any text as a file of settings: TOML, or JSON when it begins with a brace.
#![allow(unreachable_pub)] // re-exported to fuzz

use serde_json::Value;

use super::{Settings, SettingsError, endpoint::RANGES};
use crate::Endpoint;

/// Reads the text, checks what was read, writes it down and reads it again.
///
/// # Panics
/// When that makes a difference, when the check and the rules of [`is_sound`] disagree, or when an
/// error does not say where.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let settings =
        if text.trim_start().starts_with('{') { from_json(text) } else { from_toml(text) };
    let Some(settings) = settings else {
        return;
    };
    let value = serde_json::to_value(&settings).expect("settings are JSON");
    let again = serde_json::to_string(&settings).expect("settings are text");
    assert_eq!(serde_json::from_str::<Settings>(&again).expect("what was written"), settings);
    match settings.check() {
        Ok(()) => {
            assert!(is_sound(&settings), "passed the check: {settings:?}");
            let written = toml::to_string(&settings).expect("what passed the check is TOML");
            assert_eq!(toml::from_str::<Settings>(&written).expect("what was written"), settings);
            policies(&settings);
        }
        Err(error) => {
            assert!(!is_sound(&settings), "refused: {error}: {settings:?}");
            names_a_setting(&error, &settings, &value);
        }
    }
}

fn from_toml(text: &str) -> Option<Settings> {
    match toml::from_str(text) {
        Ok(settings) => Some(settings),
        Err(error) => {
            let within = |at: core::ops::Range<usize>| at.start <= at.end && at.end <= text.len();
            assert!(error.span().is_some_and(within), "says not where: {error}");
            None
        }
    }
}

fn from_json(text: &str) -> Option<Settings> {
    match serde_json::from_str(text) {
        Ok(settings) => Some(settings),
        Err(error) => {
            assert!(error.line() > 0, "says not where: {error}");
            None
        }
    }
}

/// What passed the check can be used: each endpoint is found by its name, has its own settings, and
/// no other entry is about the same one.
fn policies(settings: &Settings) {
    let mut met = std::collections::HashSet::new();
    for (name, overrides) in &settings.endpoints {
        let endpoint: Endpoint = name.parse().expect("a name that passed the check");
        let policy = settings.for_endpoint(&endpoint);
        assert_eq!(policy, overrides.apply_to(&settings.endpoint), "{name:?}");
        policy.check().expect("checked before");
        assert!(met.insert(endpoint), "two entries are about {name:?}");
    }
}

/// The error's field is one that there is, and it has the value that the error says.
fn names_a_setting(error: &SettingsError, settings: &Settings, value: &Value) {
    let field = error.field();
    assert!(error.to_string().starts_with(field), "{error}");
    assert!(!error.allowed().is_empty(), "{error}");
    let policies = settings.endpoints.iter();
    let mut tables = policies.map(|(name, own)| (format!("endpoints.{name:?}"), name, own));
    let own = tables.find(|(path, ..)| field.starts_with(path));
    let (found, path) = match own {
        Some((path, name, _)) if field == path => {
            assert_eq!(error.value(), name, "{error}");
            return;
        }
        Some((path, _, own)) => {
            // What an endpoint inherits may be what is wrong with it.
            let policy = own.apply_to(&settings.endpoint);
            let policy = serde_json::to_value(policy).expect("a policy is JSON");
            (policy, field[path.len() + 1..].to_owned())
        }
        None => (value.clone(), field.to_owned()),
    };
    let found = path.split('.').fold(&found, |table, key| {
        table.get(key).unwrap_or_else(|| panic!("no setting is called {field}: {error}"))
    });
    let written = match found {
        Value::Object(peek) => peek.values().next().map(Value::to_string),
        Value::Array(range) => Some(format!("[{}, {}]", range[0], range[1])),
        found => Some(found.to_string()),
    };
    assert_eq!(Some(error.value().to_owned()), written, "{error}");
}

/// A number in a table, if there is one.
fn number(table: &Value, path: &str) -> Option<u64> {
    let found = path.split('.').try_fold(table, |table, key| table.get(key))?;
    found.as_u64().or_else(|| found.get("idle_longer_than_ms")?.as_u64())
}

/// The rules said once more, over the settings as plain data.
fn is_sound(settings: &Settings) -> bool {
    let json = |what: &dyn Fn() -> serde_json::Result<Value>| what().expect("settings are JSON");
    let pool = json(&|| serde_json::to_value(settings));
    let most = 1 << 24;
    let own = [
        ("shards", 1, 256),
        ("slots_per_shard", 1, most),
        ("max_live_total", 1, most),
        ("max_idle_total", 0, most),
        ("max_dialing_total", 1, most),
    ];
    let own = own.into_iter().all(|(path, least, most)| {
        number(&pool, path).is_none_or(|number| (least..=most).contains(&number))
    });
    let default = [(None, settings.endpoint.clone())].into_iter();
    let others = settings.endpoints.iter();
    let others = others.map(|(name, own)| (Some(name), own.apply_to(&settings.endpoint)));
    own && at_most(&pool, "max_idle_total", &pool, "max_live_total")
        && default.chain(others).all(|(name, policy)| {
            let policy = json(&|| serde_json::to_value(&policy));
            let written = |name: &String| {
                name.parse::<Endpoint>().is_ok_and(|endpoint| endpoint.to_string() == *name)
            };
            name.is_none_or(written)
                && is_sound_policy(&policy)
                && at_most(&policy, "capacity.min_idle", &pool, "max_idle_total")
        })
}

/// Where there are both, one is no greater than the other.
fn at_most(table: &Value, lower: &str, other: &Value, upper: &str) -> bool {
    match (number(table, lower), number(other, upper)) {
        (Some(lower), Some(upper)) => lower <= upper,
        _ => true,
    }
}

fn is_sound_policy(policy: &Value) -> bool {
    let number = |path| number(policy, path);
    let is_on = |path: &str| policy.pointer(path) == Some(&Value::Bool(true));
    let ranges = RANGES
        .iter()
        .all(|(path, range)| number(path).is_none_or(|number| range.contains(&number)));
    let longest = match number("timeouts.total_connect_timeout_ms") {
        Some(_) => "timeouts.total_connect_timeout_ms",
        None => "timeouts.connect_timeout_ms",
    };
    let ordered = [
        ("capacity.min_idle", "capacity.max_idle"),
        ("capacity.warm_up", "capacity.max_idle"),
        ("capacity.max_idle", "capacity.max_live"),
        ("health.ping_timeout_ms", "health.ping_interval_ms"),
        ("failure.slow_connect_ms", longest),
        ("failure.backoff_base_ms", "failure.backoff_max_ms"),
        ("timeouts.connect_timeout_ms", longest),
        ("names.dns_min_ttl_ms", "names.dns_default_ttl_ms"),
        ("names.dns_default_ttl_ms", "names.dns_max_ttl_ms"),
    ];
    let ordered = ordered.into_iter().all(|(lower, upper)| at_most(policy, lower, policy, upper));
    let warm = !is_on("/capacity/rewarm") || number("capacity.warm_up") != Some(0);
    let breaks = !is_on("/failure/breaker")
        || number("failure.breaker_consecutive_failures") != Some(0)
        || number("failure.breaker_failure_rate_percent") != Some(0);
    let keepalive = number("sockets.keepalive_idle_s").is_some()
        || ["sockets.keepalive_interval_s", "sockets.keepalive_probes"]
            .into_iter()
            .all(|path| number(path).is_none());
    let ports = match policy.pointer("/sockets/port_range") {
        Some(Value::Array(range)) => {
            let [low, high] = [0, 1].map(|end| range[end].as_u64().expect("a port"));
            let count = (high + 1).saturating_sub(low);
            low > 0
                && count > 0
                && number("sockets.port_window").is_none_or(|window| window <= count)
        }
        _ => true,
    };
    ranges && ordered && warm && breaks && keepalive && ports
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_corpus_is_read_as_what_it_says() {
        crate::corpus::replay("settings", super::run);
    }
}
