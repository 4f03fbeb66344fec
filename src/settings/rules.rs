//! Settings that depend on each other.

use super::{
    Capacity, EndpointSettings, Failure, Health, Names, SettingsError, Sockets, Streams, Timeouts,
};

impl EndpointSettings {
    /// Checks each setting by itself, then against those that it depends on.
    ///
    /// # Errors
    /// The first that is out of its range, by its path from here, for instance
    /// `capacity.max_live`.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.check_ranges()?;
        capacity(&self.capacity)?;
        streams(&self.streams)?;
        health(&self.health)?;
        failure(&self.failure, &self.timeouts)?;
        timeouts(&self.timeouts)?;
        sockets(&self.sockets)?;
        names(&self.names)
    }
}

fn capacity(capacity: &Capacity) -> Result<(), SettingsError> {
    let Capacity { max_live, max_idle, min_idle, warm_up, rewarm, .. } = *capacity;
    at_most("capacity.max_idle", max_idle, "capacity.max_live", max_live)?;
    at_most("capacity.min_idle", min_idle, "capacity.max_idle", max_idle)?;
    at_most("capacity.warm_up", warm_up, "capacity.max_idle", max_idle)?;
    refuse(rewarm && warm_up == 0, "capacity.rewarm", true, "false while capacity.warm_up is 0")
}

fn streams(streams: &Streams) -> Result<(), SettingsError> {
    let (least, most) = ("streams.min_connections", "streams.max_connections");
    at_most(least, streams.min_connections, most, streams.max_connections)
}

fn health(health: &Health) -> Result<(), SettingsError> {
    match health.ping_interval_ms {
        Some(interval) => at_most(
            "health.ping_timeout_ms",
            health.ping_timeout_ms,
            "health.ping_interval_ms",
            interval,
        ),
        None => Ok(()),
    }
}

fn failure(failure: &Failure, timeouts: &Timeouts) -> Result<(), SettingsError> {
    let Failure { breaker_consecutive_failures, breaker_failure_rate_percent, .. } = *failure;
    refuse(
        failure.breaker && breaker_consecutive_failures == 0 && breaker_failure_rate_percent == 0,
        "failure.breaker",
        true,
        "false while failure.breaker_consecutive_failures and \
         failure.breaker_failure_rate_percent are 0",
    )?;
    if let Some(slow) = failure.slow_connect_ms {
        let limit = match timeouts.total_connect_timeout_ms {
            Some(_) => "timeouts.total_connect_timeout_ms",
            None => "timeouts.connect_timeout_ms",
        };
        at_most("failure.slow_connect_ms", slow, limit, timeouts.total_connect_ms())?;
    }
    let (base, longest) = (failure.backoff_base_ms, failure.backoff_max_ms);
    at_most("failure.backoff_base_ms", base, "failure.backoff_max_ms", longest)
}

fn timeouts(timeouts: &Timeouts) -> Result<(), SettingsError> {
    at_most(
        "timeouts.connect_timeout_ms",
        timeouts.connect_timeout_ms,
        "timeouts.total_connect_timeout_ms",
        timeouts.total_connect_ms(),
    )
}

fn sockets(sockets: &Sockets) -> Result<(), SettingsError> {
    if sockets.keepalive_idle_s.is_none() {
        for (field, setting) in [
            ("sockets.keepalive_interval_s", sockets.keepalive_interval_s),
            ("sockets.keepalive_probes", sockets.keepalive_probes),
        ] {
            let value = setting.unwrap_or_default();
            let allowed = "off while sockets.keepalive_idle_s is off";
            refuse(setting.is_some(), field, value, allowed)?;
        }
    }
    let Some((low, high)) = sockets.port_range else {
        return Ok(());
    };
    refuse(
        low == 0 || low > high,
        "sockets.port_range",
        format!("[{low}, {high}]"),
        "the lowest and the highest port, 1 to 65535, or off",
    )?;
    match sockets.port_window {
        Some(window) => {
            let ports = u32::from(high - low) + 1;
            let what = "ports of sockets.port_range";
            at_most("sockets.port_window", u32::from(window), what, ports)
        }
        None => Ok(()),
    }
}

fn names(names: &Names) -> Result<(), SettingsError> {
    let Names { dns_min_ttl_ms, dns_default_ttl_ms, dns_max_ttl_ms, .. } = *names;
    let (middle, least) = ("names.dns_default_ttl_ms", "names.dns_min_ttl_ms");
    at_most(least, dns_min_ttl_ms, middle, dns_default_ttl_ms)?;
    at_most(middle, dns_default_ttl_ms, "names.dns_max_ttl_ms", dns_max_ttl_ms)
}

pub(super) fn at_most(
    field: &str,
    value: u32,
    limit: &str,
    most: u32,
) -> Result<(), SettingsError> {
    if value <= most {
        return Ok(());
    }
    Err(SettingsError::new(field, value, format!("at most {most} ({limit})")))
}

fn refuse(
    wrong: bool,
    field: &str,
    value: impl ToString,
    allowed: &str,
) -> Result<(), SettingsError> {
    if wrong { Err(SettingsError::new(field, value, allowed)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        type Change = fn(&mut EndpointSettings);
        let contradictions: [(&str, &str, &str, Change); 15] = [
            ("capacity.max_idle", "65", "at most 64 (capacity.max_live)", |s| {
                (s.capacity.max_live, s.capacity.max_idle) = (64, 65);
            }),
            ("capacity.min_idle", "129", "at most 128 (capacity.max_idle)", |s| {
                s.capacity.min_idle = 129;
            }),
            ("capacity.warm_up", "129", "at most 128 (capacity.max_idle)", |s| {
                s.capacity.warm_up = 129;
            }),
            ("capacity.rewarm", "true", "false while capacity.warm_up is 0", |s| {
                s.capacity.rewarm = true;
            }),
            ("health.ping_timeout_ms", "1000", "at most 999 (health.ping_interval_ms)", |s| {
                s.health.ping_interval_ms = Some(999);
            }),
            (
                "failure.breaker",
                "true",
                "false while failure.breaker_consecutive_failures and \
                 failure.breaker_failure_rate_percent are 0",
                |s| {
                    s.failure.breaker_consecutive_failures = 0;
                    s.failure.breaker_failure_rate_percent = 0;
                },
            ),
            (
                "failure.slow_connect_ms",
                "5001",
                "at most 5000 (timeouts.connect_timeout_ms)",
                |s| s.failure.slow_connect_ms = Some(5_001),
            ),
            (
                "failure.slow_connect_ms",
                "6001",
                "at most 6000 (timeouts.total_connect_timeout_ms)",
                |s| {
                    s.failure.slow_connect_ms = Some(6_001);
                    s.timeouts.total_connect_timeout_ms = Some(6_000);
                },
            ),
            ("failure.backoff_base_ms", "120001", "at most 120000 (failure.backoff_max_ms)", |s| {
                s.failure.backoff_base_ms = 120_001;
            }),
            (
                "timeouts.connect_timeout_ms",
                "5000",
                "at most 4999 (timeouts.total_connect_timeout_ms)",
                |s| s.timeouts.total_connect_timeout_ms = Some(4_999),
            ),
            (
                "sockets.keepalive_interval_s",
                "15",
                "off while sockets.keepalive_idle_s is off",
                |s| s.sockets.keepalive_interval_s = Some(15),
            ),
            (
                "sockets.port_range",
                "[2, 1]",
                "the lowest and the highest port, 1 to 65535, or off",
                |s| s.sockets.port_range = Some((2, 1)),
            ),
            ("sockets.port_window", "101", "at most 100 (ports of sockets.port_range)", |s| {
                s.sockets.port_range = Some((20_000, 20_099));
                s.sockets.port_window = Some(101);
            }),
            ("names.dns_min_ttl_ms", "30001", "at most 30000 (names.dns_default_ttl_ms)", |s| {
                s.names.dns_min_ttl_ms = 30_001;
            }),
            ("names.dns_default_ttl_ms", "30000", "at most 29999 (names.dns_max_ttl_ms)", |s| {
                s.names.dns_max_ttl_ms = 29_999;
            }),
        ];
        for (field, value, allowed, contradict) in contradictions {
            let mut settings = EndpointSettings::default();
            contradict(&mut settings);
            let error = settings.check().unwrap_err();
            assert_eq!((error.field(), error.value(), error.allowed()), (field, value, allowed));
        }
    }

    #[test]
    fn what_just_fits_is_taken() {
        let mut settings = EndpointSettings::default();
        settings.capacity.max_live = 128;
        settings.capacity.min_idle = 128;
        settings.capacity.warm_up = 128;
        settings.capacity.rewarm = true;
        settings.health.ping_interval_ms = Some(1_000);
        settings.failure.slow_connect_ms = Some(5_000);
        settings.failure.breaker_consecutive_failures = 0;
        settings.timeouts.total_connect_timeout_ms = Some(5_000);
        settings.sockets.keepalive_idle_s = Some(1);
        settings.sockets.keepalive_probes = Some(1);
        settings.sockets.port_range = Some((1, u16::MAX));
        settings.sockets.port_window = Some(u16::MAX);
        settings.names.dns_min_ttl_ms = 300_000;
        settings.names.dns_default_ttl_ms = 300_000;
        settings.check().unwrap();

        settings.failure.breaker = false;
        settings.failure.breaker_failure_rate_percent = 0;
        settings.check().unwrap();
    }
}
