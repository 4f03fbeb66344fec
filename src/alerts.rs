//! Alerts from successive snapshots of a pool.
//!
//! [`Alerts`] is a state machine without a clock, a task or a log of its own: whoever collects the
//! statistics hands them in together with the time and passes on what comes out. A condition is
//! judged at each snapshot and taken to last until the next one; every 1 to 15 s is a good rhythm.
//!
//! ```
//! use std::time::Duration;
//!
//! use corepool::alerts::{AlertInput, AlertKind, AlertThresholds, Alerts};
//!
//! let mut alerts = Alerts::new(AlertThresholds::default())?;
//! let mut input = AlertInput::new("10.0.0.1:80".parse()?);
//! (input.live, input.max_live, input.waiting) = (64, Some(64), 3);
//!
//! assert!(alerts.observe(Duration::from_secs(0), [input.clone()]).is_empty());
//! let events = alerts.observe(Duration::from_secs(30), [input]);
//! assert_eq!(events[0].kind, AlertKind::PoolExhausted);
//! assert_eq!(
//!     events[0].to_string(),
//!     "10.0.0.1:80: pool_exhausted raised: 3 callers in line (threshold 0)"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod condition;
#[cfg(test)]
mod tests;

use core::{fmt, time::Duration};
use std::collections::HashMap;

use self::condition::{Share, Spell, Tally};
use crate::{Endpoint, GroupStats, SettingsError, settings::in_range};

/// When which alert is raised. The figures of the first three are those of the article on
/// tunnelto's pool; [`crate::sizing`] says what to make of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct AlertThresholds {
    /// For how long `max_live` connections are there and callers are in line. Default: 30 s.
    pub exhausted_for_ms: u32,
    /// Above which 99th percentile of the time that checkouts take. Default: 500 ms.
    pub acquire_p99_ms: u32,
    /// For how long. Default: 5 min.
    pub acquire_p99_for_ms: u32,
    /// Below which share of checkouts served by a connection that was there, 0 to 100. Default: 60.
    pub reuse_percent: u32,
    /// For how long. Default: 10 min.
    pub reuse_for_ms: u32,
    /// Checkouts that it takes to judge the share; fewer are added to those that follow. At least
    /// 1. Default: 100.
    pub reuse_min_checkouts: u32,
    /// Above which share of failed dials, 0 to 100. Default: 10.
    pub dial_failure_percent: u32,
    /// For how long. Default: 0, at once.
    pub dial_failure_for_ms: u32,
    /// Dials that it takes to judge the share; fewer are added to those that follow. At least 1.
    /// Default: 20.
    pub dial_failure_min_dials: u32,
    /// Above how many connections that callers hold for too long. Default: 0.
    pub leaked: u32,
    /// After so long without a checkout, or a dial, the last share of them counts no more, and its
    /// alert is cleared. Default: 5 min.
    pub forget_after_ms: u32,
}

impl Default for AlertThresholds {
    fn default() -> Self {
        Self {
            exhausted_for_ms: 30_000,
            acquire_p99_ms: 500,
            acquire_p99_for_ms: 300_000,
            reuse_percent: 60,
            reuse_for_ms: 600_000,
            reuse_min_checkouts: 100,
            dial_failure_percent: 10,
            dial_failure_for_ms: 0,
            dial_failure_min_dials: 20,
            leaked: 0,
            forget_after_ms: 300_000,
        }
    }
}

impl AlertThresholds {
    /// Checks every threshold that has a range.
    ///
    /// # Errors
    /// The first that is out of it.
    pub fn check(&self) -> Result<(), SettingsError> {
        let any = 1..=u64::from(u32::MAX);
        in_range("reuse_percent", &self.reuse_percent, 0..=100)?;
        in_range("reuse_min_checkouts", &self.reuse_min_checkouts, any.clone())?;
        in_range("dial_failure_percent", &self.dial_failure_percent, 0..=100)?;
        in_range("dial_failure_min_dials", &self.dial_failure_min_dials, any)
    }

    /// What the reading is held against.
    fn of(&self, kind: AlertKind) -> u32 {
        match kind {
            AlertKind::PoolExhausted => 0,
            AlertKind::AcquireSlow => self.acquire_p99_ms,
            AlertKind::ReuseLow => self.reuse_percent,
            AlertKind::DialsFailing => self.dial_failure_percent,
            AlertKind::ConnectionsLeaked => self.leaked,
        }
    }

    /// How long the condition must last.
    fn hold_ms(&self, kind: AlertKind) -> u32 {
        match kind {
            AlertKind::PoolExhausted => self.exhausted_for_ms,
            AlertKind::AcquireSlow => self.acquire_p99_for_ms,
            AlertKind::ReuseLow => self.reuse_for_ms,
            AlertKind::DialsFailing => self.dial_failure_for_ms,
            AlertKind::ConnectionsLeaked => 0,
        }
    }
}

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlertKind {
    /// `max_live` connections are there and callers are in line.
    PoolExhausted,
    /// Checkouts take long.
    AcquireSlow,
    /// Most checkouts dial: `max_idle` or the idle timeout is too low, or the origin hangs up.
    ReuseLow,
    /// Dials fail.
    DialsFailing,
    /// Callers hold connections for longer than `leak_after_ms`.
    ConnectionsLeaked,
}

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::PoolExhausted,
        Self::AcquireSlow,
        Self::ReuseLow,
        Self::DialsFailing,
        Self::ConnectionsLeaked,
    ];

    /// The kind as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoolExhausted => "pool_exhausted",
            Self::AcquireSlow => "acquire_slow",
            Self::ReuseLow => "reuse_low",
            Self::DialsFailing => "dials_failing",
            Self::ConnectionsLeaked => "connections_leaked",
        }
    }

    /// What its value and threshold count.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::PoolExhausted => "callers in line",
            Self::AcquireSlow => "ms at the 99th percentile",
            Self::ReuseLow => "% of checkouts reuse",
            Self::DialsFailing => "% of dials fail",
            Self::ConnectionsLeaked => "connections held too long",
        }
    }
}

/// An endpoint's part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlertInput {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Connections and dials.
    pub live: u32,
    /// How many there may be. `None`: not told, and exhaustion is not judged.
    pub max_live: Option<u32>,
    /// Callers in line.
    pub waiting: u32,
    /// The 99th percentile of the time that the checkouts since the last snapshot took, in
    /// milliseconds. `None`: not told, or there was none.
    pub acquire_p99_ms: Option<u32>,
    /// Checkouts served by a connection that was there already, so far.
    pub reused: u64,
    /// Connections made so far.
    pub opened: u64,
    /// Dials that failed so far.
    pub dial_failures: u64,
    /// Connections that callers hold for too long.
    pub leaked: u32,
}

impl AlertInput {
    /// An endpoint of which nothing is told yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            live: 0,
            max_live: None,
            waiting: 0,
            acquire_p99_ms: None,
            reused: 0,
            opened: 0,
            dial_failures: 0,
            leaked: 0,
        }
    }
}

/// All but [`AlertInput::max_live`], [`AlertInput::acquire_p99_ms`] and [`AlertInput::leaked`],
/// which the statistics do not hold.
impl From<&GroupStats> for AlertInput {
    fn from(stats: &GroupStats) -> Self {
        Self {
            live: stats.idle + stats.in_use + stats.dialing,
            waiting: stats.waiting,
            reused: stats.reused,
            opened: stats.opened,
            dial_failures: stats.dial_failures,
            ..Self::new(stats.endpoint.clone())
        }
    }
}

/// An alert that was raised or cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlertEvent {
    /// Of which endpoint.
    pub endpoint: Endpoint,
    /// About what.
    pub kind: AlertKind,
    /// Whether it was raised; otherwise it was cleared.
    pub raised: bool,
    /// The reading, in [`AlertKind::unit`]s; `None` where there is none any more.
    pub value: Option<u32>,
    /// What it is held against.
    pub threshold: u32,
}

impl fmt::Display for AlertEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, kind, threshold, .. } = self;
        let what = if self.raised { "raised" } else { "cleared" };
        write!(f, "{endpoint}: {} {what}: ", kind.as_str())?;
        match self.value {
            Some(value) => write!(f, "{value} {}", kind.unit())?,
            None => f.write_str("nothing to go by")?,
        }
        write!(f, " (threshold {threshold})")
    }
}

/// The state machine. An alert is raised once, and cleared once.
#[derive(Debug)]
pub struct Alerts {
    thresholds: AlertThresholds,
    endpoints: HashMap<Endpoint, Watched>,
    /// The time of the last snapshot.
    now: Duration,
    /// Its number, to find the endpoints that are gone.
    round: u64,
}

impl Alerts {
    /// No alert raised.
    ///
    /// # Errors
    /// When a threshold is out of its range.
    pub fn new(thresholds: AlertThresholds) -> Result<Self, SettingsError> {
        thresholds.check()?;
        Ok(Self { thresholds, endpoints: HashMap::new(), now: Duration::ZERO, round: 0 })
    }

    /// Takes a snapshot: one input for each endpoint. An endpoint that is missing is gone, and its
    /// alerts are cleared.
    ///
    /// `now` is the time since some moment, always the same one. Where it goes back it is taken to
    /// stand still.
    pub fn observe(
        &mut self,
        now: Duration,
        inputs: impl IntoIterator<Item = AlertInput>,
    ) -> Vec<AlertEvent> {
        self.now = self.now.max(now);
        self.round += 1;
        let Self { thresholds, endpoints, now, round } = self;
        let mut events = Vec::new();
        for input in inputs {
            let watched = endpoints
                .entry(input.endpoint.clone())
                .or_insert_with(|| Watched::new(*now, &input));
            watched.round = *round;
            watched.observe(*now, thresholds, &input, &mut events);
        }
        endpoints.retain(|endpoint, watched| {
            let stays = watched.round == *round;
            if !stays {
                events.extend(watched.raised().map(|kind| AlertEvent {
                    endpoint: endpoint.clone(),
                    kind,
                    raised: false,
                    value: None,
                    threshold: thresholds.of(kind),
                }));
            }
            stays
        });
        events
    }

    /// The alerts that are raised now, in no order.
    pub fn raised(&self) -> impl Iterator<Item = (&Endpoint, AlertKind)> {
        self.endpoints
            .iter()
            .flat_map(|(endpoint, watched)| watched.raised().map(move |kind| (endpoint, kind)))
    }
}

/// An endpoint's conditions.
#[derive(Debug)]
struct Watched {
    /// The last snapshot that it was in.
    round: u64,
    reuse: Share,
    dial_failures: Share,
    spells: [Spell; AlertKind::ALL.len()],
}

impl Watched {
    fn new(now: Duration, input: &AlertInput) -> Self {
        Self {
            round: 0,
            reuse: Share::new(now, reuse(input)),
            dial_failures: Share::new(now, dial_failures(input)),
            spells: Default::default(),
        }
    }

    fn observe(
        &mut self,
        now: Duration,
        thresholds: &AlertThresholds,
        input: &AlertInput,
        events: &mut Vec<AlertEvent>,
    ) {
        let AlertThresholds { reuse_min_checkouts, dial_failure_min_dials, .. } = *thresholds;
        let forget = thresholds.forget_after_ms;
        let reuse = self.reuse.update(now, reuse(input), reuse_min_checkouts, forget);
        let failures =
            self.dial_failures.update(now, dial_failures(input), dial_failure_min_dials, forget);
        for kind in AlertKind::ALL {
            let threshold = thresholds.of(kind);
            let (holds, value) = match kind {
                AlertKind::PoolExhausted => {
                    let full = input.max_live.is_some_and(|max_live| input.live >= max_live);
                    (full && input.waiting > threshold, Some(input.waiting))
                }
                AlertKind::AcquireSlow => {
                    let p99 = input.acquire_p99_ms;
                    (p99.is_some_and(|p99| p99 > threshold), p99)
                }
                // A share is compared as it is, not as the whole percent that is told.
                AlertKind::ReuseLow => (
                    reuse.is_some_and(|share| share.is_below(threshold)),
                    reuse.map(Tally::percent),
                ),
                AlertKind::DialsFailing => (
                    failures.is_some_and(|share| share.is_above(threshold)),
                    failures.map(Tally::percent),
                ),
                AlertKind::ConnectionsLeaked => (input.leaked > threshold, Some(input.leaked)),
            };
            let spell = &mut self.spells[kind as usize];
            if let Some(raised) = spell.update(now, holds, thresholds.hold_ms(kind)) {
                let endpoint = input.endpoint.clone();
                events.push(AlertEvent { endpoint, kind, raised, value, threshold });
            }
        }
    }

    fn raised(&self) -> impl Iterator<Item = AlertKind> {
        AlertKind::ALL.into_iter().filter(|kind| self.spells[*kind as usize].is_raised())
    }
}

fn reuse(input: &AlertInput) -> Tally {
    Tally { part: input.reused, whole: input.reused.saturating_add(input.opened) }
}

fn dial_failures(input: &AlertInput) -> Tally {
    Tally { part: input.dial_failures, whole: input.dial_failures.saturating_add(input.opened) }
}
