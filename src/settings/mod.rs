//! Settings as plain data: for a configuration file, and for whoever builds a pool in code.
//!
//! [`Settings`] is the pool's; its [`endpoint`](Settings::endpoint) is the policy that every
//! endpoint starts from, and [`endpoints`](Settings::endpoints) changes single settings of single
//! endpoints. Units are in the names. [`Settings::check`] is the one check; its error names the
//! field, the value and what is allowed.
//!
//! ```
//! use corepool::settings::Settings;
//!
//! let mut settings = Settings::lan();
//! settings.endpoint.capacity.set_max_live(256);
//! let slow = settings.endpoints.entry("10.0.0.9:8080".to_owned()).or_default();
//! slow.timeouts.connect_timeout_ms = Some(4_000);
//! settings.check()?;
//!
//! let policy = settings.for_endpoint(&"10.0.0.9:8080".parse()?);
//! assert_eq!(policy.timeouts.connect_timeout_ms, 4_000);
//! assert_eq!(policy.capacity.max_live, 256);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # As text
//! With the feature `serde` all of them are `Serialize` and `Deserialize`. Every field may be left
//! out; an unknown one is an error. A setting that can be off is its value or `"off"`, because TOML
//! has no null; a null where the format has one is the same. The format must describe itself, as
//! TOML, JSON and YAML do. [`crate::sizing`] has a whole file.

mod choices;
mod endpoint;
mod error;
#[cfg(all(any(test, fuzzing), feature = "serde"))]
pub(crate) mod fuzz;
mod presets;
mod ranges;
mod rules;
mod table;
#[cfg(feature = "serde")]
mod text;

pub use self::{
    choices::{AtLimit, AtOpen, AtStreamLimit, Order, Peek},
    endpoint::{
        Capacity, CapacityOverrides, EndpointOverrides, EndpointSettings, Failure,
        FailureOverrides, Health, HealthOverrides, Lifetime, LifetimeOverrides, Names,
        NamesOverrides, Sockets, SocketsOverrides, Streams, StreamsOverrides, Timeouts,
        TimeoutsOverrides,
    },
    error::SettingsError,
};

pub(crate) use self::ranges::in_range;

use std::collections::BTreeMap;

use self::ranges::MAX_CONNECTIONS;
use crate::{Backend, Endpoint, config::MAX_SHARDS, engine::SlotIndex};

/// Settings of a whole pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct Settings {
    /// What to dial, watch and close with. Default: [`Backend::Auto`].
    #[cfg_attr(feature = "serde", serde(with = "text::name"))]
    pub backend: Backend,
    /// How many shards, 1 to 256. Default: one for each core that the thread which builds the pool
    /// may run on, and no more than the CPU quota allows.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub shards: Option<usize>,
    /// Whether each shard's thread is pinned to a core. Default: true.
    pub pin: bool,
    /// Slots of each shard, 1 to 16777216: connections that it can have, over all endpoints. About
    /// 128 bytes each, allocated at once. Default: 4096.
    pub slots_per_shard: usize,
    /// A caller on a shard takes a connection of another shard only when the endpoint has at least
    /// this many idle ones; below, it dials. 1 shares always. Default: twice the number of shards.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub steal_threshold: Option<u32>,
    /// Connections over all endpoints, dials and closes included, 1 to 16777216. Default: off.
    #[cfg_attr(feature = "serde", serde(with = "text::setting"))]
    pub max_live_total: Option<u32>,
    /// Connections at rest over all endpoints, 0 to 16777216. Default: off.
    #[cfg_attr(feature = "serde", serde(with = "text::setting"))]
    pub max_idle_total: Option<u32>,
    /// Dials under way over all endpoints, 1 to 16777216. Default: off.
    #[cfg_attr(feature = "serde", serde(with = "text::setting"))]
    pub max_dialing_total: Option<u32>,
    /// The policy of every endpoint that has none of its own.
    pub endpoint: EndpointSettings,
    /// What differs for single endpoints, by the endpoint's text: `host:port`, `1.2.3.4:port` or
    /// `[::1]:port`, written as [`Endpoint`] writes it.
    pub endpoints: BTreeMap<String, EndpointOverrides>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            shards: None,
            pin: true,
            slots_per_shard: 4096,
            steal_threshold: None,
            max_live_total: None,
            max_idle_total: None,
            max_dialing_total: None,
            endpoint: EndpointSettings::default(),
            endpoints: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Checks every setting, each by itself and against those that it depends on, for the default
    /// policy and for each endpoint that differs from it.
    ///
    /// # Errors
    /// The first setting that is out of its range, by its path from here, for instance
    /// `endpoints."10.0.0.1:80".capacity.max_live`.
    pub fn check(&self) -> Result<(), SettingsError> {
        if let Some(shards) = self.shards {
            in_range("shards", &shards, 1..=MAX_SHARDS as u64)?;
        }
        in_range("slots_per_shard", &self.slots_per_shard, 1..=SlotIndex::MAX as u64)?;
        in_range("max_live_total", &self.max_live_total, 1..=MAX_CONNECTIONS)?;
        in_range("max_idle_total", &self.max_idle_total, 0..=MAX_CONNECTIONS)?;
        in_range("max_dialing_total", &self.max_dialing_total, 1..=MAX_CONNECTIONS)?;
        if let (Some(idle), Some(live)) = (self.max_idle_total, self.max_live_total) {
            rules::at_most("max_idle_total", idle, "max_live_total", live)?;
        }
        self.check_policy(&self.endpoint).map_err(|error| error.within("endpoint"))?;
        for (name, overrides) in &self.endpoints {
            let path = format!("endpoints.{name:?}");
            check_name(name).map_err(|allowed| SettingsError::new(&path, name, allowed))?;
            self.check_policy(&overrides.apply_to(&self.endpoint))
                .map_err(|error| error.within(&path))?;
        }
        Ok(())
    }

    /// The policy of one endpoint: the default one, with what [`Self::endpoints`] changes.
    pub fn for_endpoint(&self, endpoint: &Endpoint) -> EndpointSettings {
        match self.endpoints.get(&endpoint.to_string()) {
            Some(overrides) => overrides.apply_to(&self.endpoint),
            None => self.endpoint.clone(),
        }
    }

    fn check_policy(&self, policy: &EndpointSettings) -> Result<(), SettingsError> {
        policy.check()?;
        match self.max_idle_total {
            Some(total) => {
                let min_idle = policy.capacity.min_idle;
                rules::at_most("capacity.min_idle", min_idle, "max_idle_total", total)
            }
            None => Ok(()),
        }
    }
}

/// An endpoint has one spelling here, so that no two entries are about the same one.
fn check_name(name: &str) -> Result<(), String> {
    let Ok(endpoint) = name.parse::<Endpoint>() else {
        return Err("an endpoint: host:port, 1.2.3.4:port or [::1]:port, port 1 to 65535".into());
    };
    let canonical = endpoint.to_string();
    if canonical == name { Ok(()) } else { Err(format!("written as {canonical}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_the_presets_pass_the_check() {
        for settings in [Settings::default(), Settings::lan(), Settings::wan(), Settings::grpc()] {
            settings.check().unwrap();
        }
    }

    #[test]
    fn the_pools_own_settings_are_refused_by_name() {
        type Change = fn(&mut Settings);
        let changes: [(&str, Change, &str); 10] = [
            ("shards", |s| s.shards = Some(0), "1 to 256"),
            ("shards", |s| s.shards = Some(257), "1 to 256"),
            ("slots_per_shard", |s| s.slots_per_shard = 0, "1 to 16777216"),
            ("slots_per_shard", |s| s.slots_per_shard = usize::MAX, "1 to 16777216"),
            ("max_live_total", |s| s.max_live_total = Some(0), "1 to 16777216, or off"),
            ("max_idle_total", |s| s.max_idle_total = Some(u32::MAX), "0 to 16777216, or off"),
            ("max_dialing_total", |s| s.max_dialing_total = Some(0), "1 to 16777216, or off"),
            (
                "max_idle_total",
                |s| (s.max_idle_total, s.max_live_total) = (Some(2), Some(1)),
                "at most 1 (max_live_total)",
            ),
            (
                "endpoint.capacity.min_idle",
                |s| (s.endpoint.capacity.min_idle, s.max_idle_total) = (2, Some(1)),
                "at most 1 (max_idle_total)",
            ),
            ("endpoint.capacity.max_live", |s| s.endpoint.capacity.max_live = 0, "1 to 16777216"),
        ];
        for (field, change, allowed) in changes {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.check().unwrap_err();
            assert_eq!((error.field(), error.allowed()), (field, allowed), "{error}");
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }

    #[test]
    fn an_endpoint_of_its_own_is_named_with_its_setting() {
        let mut settings = Settings::default();
        let own = settings.endpoints.entry("10.0.0.1:80".to_owned()).or_default();
        own.capacity.max_live = Some(0);
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            r#"endpoints."10.0.0.1:80".capacity.max_live is 0, but must be 1 to 16777216"#
        );
        // What is inherited counts as well.
        settings.endpoints.get_mut("10.0.0.1:80").unwrap().capacity.max_live = Some(100);
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            r#"endpoints."10.0.0.1:80".capacity.max_idle is 128, but must be at most 100 (capacity.max_live)"#
        );
    }

    #[test]
    fn an_endpoint_has_one_spelling() {
        for (name, allowed) in [
            ("", "an endpoint: "),
            ("10.0.0.1", "an endpoint: "),
            ("a\"b\n:1", "an endpoint: "),
            ("[0:0:0:0:0:0:0:1]:80", "written as [::1]:80"),
            ("10.0.0.1:080", "written as 10.0.0.1:80"),
            ("localhost:080", "written as localhost:80"),
            ("unix:/run//app.sock", "written as unix:/run/app.sock"),
        ] {
            let mut settings = Settings::default();
            settings.endpoints.insert(name.to_owned(), EndpointOverrides::default());
            let error = settings.check().unwrap_err();
            assert_eq!(error.field(), format!("endpoints.{name:?}"));
            assert!(error.allowed().starts_with(allowed), "{error}");
        }
    }

    #[test]
    fn an_endpoint_gets_the_default_policy_with_its_own_changes() {
        let mut settings = Settings::wan();
        let own = settings.endpoints.entry("[::1]:80".to_owned()).or_default();
        own.lifetime.max_lifetime_ms = Some(None);
        own.health.peek = Some(Peek::Always);
        settings.check().unwrap();

        let mut expected = settings.endpoint.clone();
        assert_eq!(settings.for_endpoint(&"[::2]:80".parse().unwrap()), expected);
        expected.lifetime.max_lifetime_ms = None;
        expected.health.peek = Peek::Always;
        assert_eq!(settings.for_endpoint(&"[::1]:80".parse().unwrap()), expected);
    }
}
