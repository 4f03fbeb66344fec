//! The pool's settings: a preset or a file, and the flags on top.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use corepool::{Settings, SettingsError};

use crate::args::{Args, Preset};

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// `toml`'s errors end their own last line.
    #[error("{}: {}", path.display(), cause.trim_end())]
    File { path: PathBuf, cause: String },
    #[error("{}: {error}", flag.as_deref().unwrap_or("with the flags given"))]
    Flag { flag: Option<String>, error: SettingsError },
}

/// What the command line says, for so many origins.
pub(crate) fn settings(args: &Args, origins: usize) -> Result<Settings, ConfigError> {
    let mut settings = match (&args.config, args.preset) {
        (Some(path), _) => read(path)?,
        (None, Some(Preset::Lan)) => Settings::lan(),
        (None, Some(Preset::Wan)) => Settings::wan(),
        (None, None) => Settings::default(),
    };
    args.tuning.apply_to(&mut settings, origins);
    settings.check().map_err(|error| ConfigError::Flag { flag: flag_of(&error), error })?;
    Ok(settings)
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let wrong = |cause: String| ConfigError::File { path: path.to_owned(), cause };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let settings: Settings = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    // By itself, so that a mistake in the file is not blamed on a flag.
    settings.check().map_err(|error| wrong(error.to_string()))?;
    Ok(settings)
}

/// The flag for a setting: the setting's name, without its unit.
fn flag_of(error: &SettingsError) -> Option<String> {
    let name = error.field().rsplit('.').next()?;
    let name = name.strip_suffix("_ms").or_else(|| name.strip_suffix("_s")).unwrap_or(name);
    let name = name.replace('_', "-");
    let command = Args::command();
    let known = command.get_arguments().any(|flag| flag.get_long() == Some(name.as_str()));
    known.then(|| format!("--{name}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use corepool::{
        Backend,
        settings::{AtLimit, AtOpen, Order},
    };

    use super::*;

    fn of(line: &str) -> Result<Settings, String> {
        let args = Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        settings(&args, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_they_are_the_pools_own() {
        assert_eq!(of("proxy").unwrap(), Settings::default());
        assert_eq!(of("proxy --preset lan").unwrap(), Settings::lan());
        assert_eq!(of("proxy --preset wan").unwrap(), Settings::wan());
    }

    #[test]
    fn each_flag_changes_its_setting() {
        let line = "proxy --backend epoll --shards 3 --max-live 5000 --max-idle 50 --max-waiters 7 \
            --max-dialing 8 --at-limit overflow --min-idle 2 --warm-up 4 --order lifo \
            --max-live-total 9000 --max-idle-total 900 --idle-timeout 4 --max-lifetime off \
            --max-uses 11 --ping-interval 0.5 --leak-after 12 --connect-timeout 1.5 \
            --acquire-timeout 2.5 --breaker off --breaker-failures 3 --half-open-probes 2 \
            --at-open direct --backoff-base 0.2 --backoff-max 0.4 --slow-start 13 \
            --source 127.0.0.2 --port-window 128 --keepalive 60";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut expected = Settings::default();
        expected.backend = Backend::Epoll;
        expected.shards = Some(3);
        expected.slots_per_shard = 10_000;
        expected.max_live_total = Some(9000);
        expected.max_idle_total = Some(900);
        let capacity = &mut expected.endpoint.capacity;
        (capacity.max_live, capacity.max_idle, capacity.max_waiters) = (5000, 50, 7);
        (capacity.min_idle, capacity.warm_up, capacity.max_dialing) = (2, 4, Some(8));
        (capacity.at_limit, capacity.order) = (AtLimit::Overflow, Order::Lifo);
        let lifetime = &mut expected.endpoint.lifetime;
        (lifetime.idle_timeout_ms, lifetime.max_lifetime_ms) = (4_000, None);
        lifetime.max_uses = Some(11);
        let health = &mut expected.endpoint.health;
        (health.ping_interval_ms, health.ping_timeout_ms) = (Some(500), 500);
        health.leak_after_ms = Some(12_000);
        let timeouts = &mut expected.endpoint.timeouts;
        (timeouts.connect_timeout_ms, timeouts.acquire_timeout_ms) = (1_500, 2_500);
        let failure = &mut expected.endpoint.failure;
        (failure.breaker, failure.at_open) = (false, AtOpen::Direct);
        (failure.breaker_consecutive_failures, failure.half_open_probes) = (3, 2);
        (failure.backoff_base_ms, failure.backoff_max_ms) = (200, 400);
        failure.slow_start_ms = Some(13_000);
        let sockets = &mut expected.endpoint.sockets;
        sockets.source = Some([127, 0, 0, 2].into());
        (sockets.port_window, sockets.keepalive_idle_s) = (Some(128), Some(60));
        assert_eq!(of(&line).unwrap(), expected);
    }

    #[test]
    fn a_lowered_limit_lowers_what_it_bounds() {
        let settings = of("proxy --preset lan --max-idle 3").unwrap();
        let capacity = settings.endpoint.capacity;
        assert_eq!((capacity.max_idle, capacity.min_idle, capacity.warm_up), (3, 3, 3));
        assert!(!of("proxy --preset wan --max-idle 0").unwrap().endpoint.capacity.rewarm);
        assert_eq!(of("proxy --backoff-max 0.5").unwrap().endpoint.failure.backoff_base_ms, 500);
        let timeouts = of("proxy --preset wan --connect-timeout 30").unwrap().endpoint.timeouts;
        assert_eq!(timeouts.total_connect_timeout_ms, Some(30_000));
        let sockets = of("proxy --preset wan --keepalive off").unwrap().endpoint.sockets;
        assert_eq!((sockets.keepalive_idle_s, sockets.keepalive_probes), (None, None));
    }

    #[test]
    fn flags_that_contradict_each_other_are_named() {
        for (line, expected) in [
            (
                "proxy --min-idle 200",
                "--min-idle: endpoint.capacity.min_idle is 200, but must be at most 128 \
                 (capacity.max_idle)",
            ),
            (
                "proxy --max-idle-total 2 --max-live-total 1",
                "--max-idle-total: max_idle_total is 2, but must be at most 1 (max_live_total)",
            ),
            (
                "proxy --backoff-base 2 --backoff-max 1",
                "--backoff-base: endpoint.failure.backoff_base_ms is 2000, but must be at most \
                 1000 (failure.backoff_max_ms)",
            ),
        ] {
            assert_eq!(of(line).unwrap_err(), expected, "{line}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = of("proxy --config /nowhere/pool.toml").unwrap_err();
        assert!(error.starts_with("/nowhere/pool.toml: "), "{error}");
    }
}
