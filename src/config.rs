//! Settings, their defaults, and their one check.

use core::time::Duration;

use crate::{
    Backend, BuildError,
    clock::{Tick, millis},
    engine::{GroupLimits, SlotIndex},
};

/// What runs on a shard's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Host {
    /// A tokio current_thread runtime with a `LocalSet`.
    #[default]
    Tokio,
    /// A tokio-uring runtime, for [`crate::TokioUringConnector`].
    #[cfg(all(target_os = "linux", feature = "tokio-uring"))]
    TokioUring,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) backend: Backend,
    pub(crate) host: Host,
    pub(crate) shards: Option<usize>,
    pub(crate) pin: bool,
    pub(crate) slots_per_shard: usize,
    pub(crate) max_live: u32,
    pub(crate) max_idle: u32,
    pub(crate) max_waiters: u32,
    pub(crate) steal_threshold: Option<u32>,
    pub(crate) connect_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            host: Host::Tokio,
            shards: None,
            pin: true,
            slots_per_shard: 4096,
            max_live: 1024,
            max_idle: 128,
            max_waiters: 4096,
            steal_threshold: None,
            connect_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// The most shards a pool can have.
pub(crate) const MAX_SHARDS: usize = 256;
/// The longest timeout: what a [`Tick`] can look ahead.
const MAX_TIMEOUT: Duration = Duration::from_millis(Tick::FAR as u64);
/// The most connections a group may have.
const MAX_CONNECTIONS: u32 = 1 << 24;

impl Config {
    /// Checks every setting once.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if let Some(shards) = self.shards {
            within("shards", shards, 1..=MAX_SHARDS, "1 to 256")?;
        }
        let slots = self.slots_per_shard;
        within("slots_per_shard", slots, 1..=SlotIndex::MAX, "1 to 16777216")?;
        within("max_live", self.max_live, 1..=MAX_CONNECTIONS, "1 to 16777216")?;
        within("max_idle", self.max_idle, 0..=MAX_CONNECTIONS, "0 to 16777216")?;
        within("max_waiters", self.max_waiters, 1..=MAX_CONNECTIONS, "1 to 16777216")?;
        for (setting, value) in [
            ("connect_timeout", self.connect_timeout),
            ("acquire_timeout", self.acquire_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            if value < Duration::from_millis(1) || value > MAX_TIMEOUT {
                let value = format!("{value:?}");
                return Err(BuildError::Setting { setting, value, allowed: "1 ms to 24 days" });
            }
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> GroupLimits {
        GroupLimits {
            max_live: self.max_live,
            max_idle: self.max_idle.min(self.max_live),
            max_waiters: self.max_waiters,
            idle_timeout_ms: millis(self.idle_timeout),
        }
    }
}

fn within<N: PartialOrd + ToString>(
    setting: &'static str,
    value: N,
    range: core::ops::RangeInclusive<N>,
    allowed: &'static str,
) -> Result<(), BuildError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(BuildError::Setting { setting, value: value.to_string(), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_the_check() {
        Config::default().check().unwrap();
    }

    #[test]
    fn zero_and_absurd_settings_are_refused_by_name() {
        type Change = fn(&mut Config);
        let changes: [(&str, Change); 10] = [
            ("shards", |c| c.shards = Some(0)),
            ("shards", |c| c.shards = Some(257)),
            ("slots_per_shard", |c| c.slots_per_shard = 0),
            ("slots_per_shard", |c| c.slots_per_shard = usize::MAX),
            ("max_live", |c| c.max_live = 0),
            ("max_live", |c| c.max_live = u32::MAX),
            ("max_waiters", |c| c.max_waiters = 0),
            ("connect_timeout", |c| c.connect_timeout = Duration::ZERO),
            ("acquire_timeout", |c| c.acquire_timeout = Duration::MAX),
            ("idle_timeout", |c| c.idle_timeout = Duration::ZERO),
        ];
        for (name, change) in changes {
            let mut config = Config::default();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("must be"), "{error}");
        }
    }
}
