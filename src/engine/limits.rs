//! The limits and policies of a group: plain numbers in, settings that may change at run time.

use crate::sync::Setting;

/// Declares each limit once: as a plain value that an owner sets, and as the setting that the
/// engine reads.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $default:expr,)*) => {
        /// The limits of a group, checked before they get here. Its default sets no policy but
        /// the counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct GroupLimits {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl GroupLimits {
            /// Few connections, and no policy that needs time.
            pub const DEFAULT: Self = Self { $($name: $default,)* };
        }

        /// The same, as the group reads them. In this order: those that a hit and a return read
        /// come first, in one cache line.
        #[derive(Debug)]
        #[repr(C)]
        pub struct Limits {
            $($name: Setting,)*
        }

        impl Limits {
            /// The settings of a new group.
            pub fn new(limits: &GroupLimits) -> Self {
                Self { $($name: Setting::new(limits.$name),)* }
            }

            /// Changes every setting. Who decides at the same moment may see some of them changed
            /// and others not yet.
            pub fn set(&self, limits: &GroupLimits) {
                $(self.$name.set(limits.$name);)*
            }

            $(
                $(#[$doc])*
                #[inline]
                #[allow(dead_code)] // some are read once, when a group is made
                pub fn $name(&self) -> u32 {
                    self.$name.get()
                }
            )*
        }
    };
}

/// A setting that is off.
pub const NEVER: u32 = u32::MAX;

limits! {
    /// How long a connection may rest, in milliseconds.
    idle_timeout_ms = NEVER,
    /// How often a connection may serve.
    max_uses = NEVER,
    /// How long a connection rests before it is asked whether it lives, in milliseconds.
    ping_interval_ms = NEVER,
    /// A connection that rested at least so long is peeked at before it is handed out, in
    /// milliseconds.
    peek_after_ms = NEVER,
    /// How long a caller may hold a connection before it is taken for lost, in milliseconds.
    leak_after_ms = NEVER,
    /// Connections at once, dials and closes included.
    max_live = 64,
    /// Connections at rest at once.
    max_idle = 64,
    /// Callers that may wait at once.
    max_waiters = 64,
    /// Connections above `max_live`, each closed when it comes back, unless it may stay by then.
    max_overflow = 0,
    /// Dials at once.
    max_dialing = NEVER,
    /// Connections kept at rest by dials in the background.
    min_idle = 0,
    /// Connections dialled in the background whenever the group has run empty.
    warm_up = 0,
    /// Connections wanted per hundred that callers have or wait for.
    preconnect_percent = 100,
    /// Whether the connection that came to rest last is taken first: 0 or 1. A group keeps the
    /// order that it was made with.
    lifo = 0,
    /// How long a connection may live, in milliseconds.
    max_lifetime_ms = NEVER,
    /// By how much at most a connection's lifetime is shortened at random, in percent.
    lifetime_jitter_percent = 0,
    /// How often the need is estimated anew and half of the excess over it closed, in
    /// milliseconds.
    retention_period_ms = NEVER,
    /// Unanswered questions in a row that end a connection.
    ping_max_failures = 1,
    /// How long callers may wait, in milliseconds. This and the next two are for the engine's
    /// owner, who finds them here without a lock, as are `peek_after_ms` and `leak_after_ms`.
    acquire_timeout_ms = NEVER,
    /// What a caller does at `max_live`: 0 waits, 1 is refused, 2 gets one above the limit.
    at_limit = 0,
    /// What a caller does at an open breaker: 0 is refused, 1 dials past it.
    at_open = 0,
    /// A dial that takes longer counts as a failure for the breaker, in milliseconds.
    slow_connect_ms = NEVER,
    /// Whether there is a breaker: 0 or 1.
    breaker = 0,
    /// Failures in a row that open it; 0 for none.
    breaker_consecutive = 5,
    /// The share of failures in the window that opens it, in percent; 0 for none.
    breaker_rate_percent = 50,
    /// Outcomes that the window must hold for the share to count.
    breaker_min_dials = 20,
    /// An outcome so long after the last begins the window anew, in seconds.
    breaker_window_s = 60,
    /// Dials at once that a half-open breaker admits.
    half_open_probes = 1,
    /// Successes that close it.
    half_open_successes = 1,
    /// The first delay after a failure, in milliseconds.
    backoff_base_ms = 1_000,
    /// Each delay in percent of the one before.
    backoff_multiplier_percent = 160,
    /// By how much a delay varies, in percent.
    backoff_jitter_percent = 20,
    /// The longest delay, in milliseconds.
    backoff_max_ms = 120_000,
    /// How long after a recovery the limit of connections rises to its full height, in
    /// milliseconds; 0 for at once.
    slow_start_ms = 0,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        let limits = Limits::new(&GroupLimits::default());
        assert_eq!(limits.max_live(), 64);
        limits.set(&GroupLimits { max_live: 7, min_idle: 3, ..GroupLimits::DEFAULT });
        assert_eq!((limits.max_live(), limits.min_idle(), limits.max_idle()), (7, 3, 64));
    }
}
