//! What a pool was built with, and the engine's view of it.

use crate::{
    Settings,
    engine::{GroupLimits, NEVER, SlotIndex, TotalLimits},
    settings::{AtLimit, AtOpen, EndpointSettings, Order, Peek},
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

/// The most shards a pool can have.
pub(crate) const MAX_SHARDS: usize = 256;
const _: () = assert!(SlotIndex::MAX == 1 << 24, "the settings name the bound");

/// The limits of the whole pool.
pub(crate) fn totals(settings: &Settings) -> TotalLimits {
    TotalLimits {
        max_live: settings.max_live_total,
        max_idle: settings.max_idle_total,
        max_dialing: settings.max_dialing_total,
    }
}

/// The policy of an endpoint in the engine's terms. What is off is a limit that nothing reaches.
pub(crate) fn limits(policy: &EndpointSettings) -> GroupLimits {
    let EndpointSettings { capacity, lifetime, health, failure, timeouts, .. } = policy;
    let or_never = |setting: Option<u32>| setting.unwrap_or(NEVER);
    GroupLimits {
        max_live: capacity.max_live,
        max_idle: capacity.max_idle,
        max_waiters: capacity.max_waiters,
        max_overflow: match capacity.at_limit {
            AtLimit::Overflow => capacity.max_overflow,
            _ => 0,
        },
        max_dialing: or_never(capacity.max_dialing),
        min_idle: capacity.min_idle,
        warm_up: if capacity.rewarm { capacity.warm_up } else { 0 },
        preconnect_percent: capacity.preconnect_percent,
        lifo: u32::from(capacity.order == Order::Lifo),
        idle_timeout_ms: lifetime.idle_timeout_ms,
        max_lifetime_ms: or_never(lifetime.max_lifetime_ms),
        lifetime_jitter_percent: lifetime.lifetime_jitter_percent,
        max_uses: or_never(lifetime.max_uses),
        retention_period_ms: or_never(lifetime.retention_period_ms),
        ping_interval_ms: or_never(health.ping_interval_ms),
        ping_max_failures: health.ping_max_failures,
        peek_after_ms: match health.peek {
            Peek::Never => NEVER,
            Peek::Always => 0,
            // Longer than, and ticks are whole.
            Peek::IdleLongerThanMs(millis) => millis.saturating_add(1),
        },
        acquire_timeout_ms: timeouts.acquire_timeout_ms,
        at_limit: match capacity.at_limit {
            AtLimit::Wait => WAIT,
            AtLimit::Reject => REJECT,
            AtLimit::Overflow => OVERFLOW,
        },
        at_open: match failure.at_open {
            AtOpen::FailFast => FAIL_FAST,
            AtOpen::Direct => DIRECT,
        },
        leak_after_ms: or_never(health.leak_after_ms),
        slow_connect_ms: or_never(failure.slow_connect_ms),
        breaker: u32::from(failure.breaker),
        breaker_consecutive: failure.breaker_consecutive_failures,
        breaker_rate_percent: failure.breaker_failure_rate_percent,
        breaker_min_dials: failure.breaker_min_dials,
        breaker_window_s: failure.breaker_window_s,
        half_open_probes: failure.half_open_probes,
        half_open_successes: failure.half_open_successes,
        backoff_base_ms: failure.backoff_base_ms,
        backoff_multiplier_percent: failure.backoff_multiplier_percent,
        backoff_jitter_percent: failure.backoff_jitter_percent,
        backoff_max_ms: failure.backoff_max_ms,
        slow_start_ms: failure.slow_start_ms.unwrap_or(0),
    }
}

/// [`AtLimit::Wait`] in [`GroupLimits::at_limit`].
pub(crate) const WAIT: u32 = 0;
/// [`AtLimit::Reject`].
pub(crate) const REJECT: u32 = 1;
/// [`AtLimit::Overflow`].
pub(crate) const OVERFLOW: u32 = 2;
/// [`AtOpen::FailFast`] in [`GroupLimits::at_open`].
pub(crate) const FAIL_FAST: u32 = 0;
/// [`AtOpen::Direct`].
pub(crate) const DIRECT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_is_never_reached() {
        let mut policy = EndpointSettings::default();
        policy.lifetime.max_lifetime_ms = None;
        let limits = limits(&policy);
        assert_eq!([limits.max_uses, limits.max_lifetime_ms, limits.ping_interval_ms], [NEVER; 3]);
        assert_eq!((limits.slow_start_ms, limits.max_overflow, limits.warm_up), (0, 0, 0));
        assert_eq!((limits.max_live, limits.max_idle, limits.breaker), (1024, 128, 1));
    }

    #[test]
    fn longer_than_is_not_as_long_as() {
        let mut policy = EndpointSettings::default();
        policy.health.peek = Peek::IdleLongerThanMs(500);
        assert_eq!(limits(&policy).peek_after_ms, 501);
    }
}
