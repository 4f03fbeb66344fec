//! When a breaker trips, and how it closes again.

use super::BackoffRules;

/// The rules of a breaker. They come with each call, so that they may change at run time.
///
/// With both `consecutive` and `rate_percent` 0 a closed breaker never trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// Whether the breaker acts at all; `true` by default. If not, every dial is admitted unless an
    /// operator forced the breaker open, and no outcome is counted.
    pub enabled: bool,
    /// Trips when so many dials in a row failed; 5 by default, as Envoy's `consecutive_5xx`. 0 is
    /// off, more than 32 is taken for 32.
    pub consecutive: u8,
    /// Trips when so many percent of the last 32 dials failed; 50 by default, as Hystrix's
    /// `errorThresholdPercentage`. 0 is off.
    pub rate_percent: u8,
    /// The rate is judged from so many outcomes on; 20 by default, as Hystrix's
    /// `requestVolumeThreshold`. More than 32 is taken for 32.
    pub min_dials: u8,
    /// Outcomes are forgotten when none has come for so many seconds; 10 by default, as Hystrix's
    /// rolling window. A gap so long keeps them, one a quarter longer does not. 0 keeps them for
    /// ever. After a change of this, one gap may be misjudged.
    pub window_s: u16,
    /// How many probes a half-open breaker has under way at most; 1 by default. 0 is taken for 1.
    pub probes: u8,
    /// How many probes must succeed, with none that fails in between, to close a half-open breaker;
    /// 1 by default. 0 is taken for 1.
    pub successes: u8,
    /// How long the breaker stays open: the attempt is the number of trips since it was last closed
    /// for good (see `Word::trips`).
    pub backoff: BackoffRules,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive: 5,
            rate_percent: 50,
            min_dials: 20,
            window_s: 10,
            probes: 1,
            successes: 1,
            backoff: BackoffRules::default(),
        }
    }
}
