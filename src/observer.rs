//! What happens in a pool, told to whoever wants to count, log or alert.

use core::{panic::Location, time::Duration};
use std::{
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{BreakerState, CloseReason, DialError, Endpoint};

/// Is told what happens in a pool. Any `Fn(&PoolEvent<'_>)` is one.
///
/// There is no event for a checkout that finds an idle connection, nor for its return: the
/// statistics count those, and they must stay as cheap as they are.
///
/// # Threads
/// The pool calls from several threads at once, without a lock. Most events are told on the thread
/// of the shard that the connection or the timer belongs to, between two turns of its driver:
/// every connection of that shard waits meanwhile. Others are told where they are caused:
///
/// | events | on which thread |
/// |---|---|
/// | [`Opened`](PoolEvent::Opened), [`DialFailed`](PoolEvent::DialFailed), [`BreakerChanged`](PoolEvent::BreakerChanged) | the shard that dialled |
/// | [`Closed`](PoolEvent::Closed) | the shard of the connection, once it is closed |
/// | [`LeakSuspected`](PoolEvent::LeakSuspected) | the shard of the connection, in its sweep |
/// | [`DescriptorPressure`](PoolEvent::DescriptorPressure), [`AddressesChanged`](PoolEvent::AddressesChanged) | the shard that noticed |
/// | [`ShardPanicked`](PoolEvent::ShardPanicked) | the shard that panicked |
/// | [`LeakReturned`](PoolEvent::LeakReturned) | that of the guard's owner |
/// | [`WarmedUp`](PoolEvent::WarmedUp), [`Suspended`](PoolEvent::Suspended), [`Resumed`](PoolEvent::Resumed), [`Drained`](PoolEvent::Drained) | that of the call, or of its task |
///
/// # What it may do
/// Count, send into a channel that does not block, log without waiting for a disk. It must not
/// block, sleep, or wait for the pool: a checkout that it waits for may need this very thread. It
/// may ask the pool for its statistics. A panic in it is caught and logged, and the pool goes on.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use corepool::{Observer, PoolEvent};
///
/// #[derive(Default)]
/// struct Failures(AtomicU64);
///
/// impl Observer for Failures {
///     fn on_event(&self, event: &PoolEvent<'_>) {
///         if let PoolEvent::DialFailed { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// fn is_observer(_: impl Observer) {}
/// is_observer(Failures::default());
/// is_observer(|event: &PoolEvent<'_>| eprintln!("{event:?}"));
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something has happened.
    fn on_event(&self, event: &PoolEvent<'_>);
}

impl<F: Fn(&PoolEvent<'_>) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &PoolEvent<'_>) {
        self(event);
    }
}

/// What has happened. Times are the pool's own: what is said to be since the last sweep is exact
/// to a quarter of a second, what is taken from the coarse clock to 100 ms.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PoolEvent<'a> {
    /// A connection is ready for use.
    Opened {
        /// To where.
        endpoint: &'a Endpoint,
        /// From the start of the dial on, resolving and the connector's handshake included.
        took: Duration,
    },
    /// A dial failed. Whoever waited for it is told as well.
    DialFailed {
        /// To where, and why.
        error: &'a DialError,
        /// From the start of the dial on.
        took: Duration,
    },
    /// A connection is closed, or out of the pool ([`CloseReason::Detached`]).
    Closed {
        /// To where it led.
        endpoint: &'a Endpoint,
        /// Why.
        reason: CloseReason,
        /// From when it was ready for use on.
        age: Duration,
        /// How often it was given back.
        uses: u32,
    },
    /// The circuit breaker of an endpoint changed its state.
    BreakerChanged {
        /// Which endpoint.
        endpoint: &'a Endpoint,
        /// What it was.
        from: BreakerState,
        /// What it is.
        to: BreakerState,
        /// For how long no dial goes through; `None` unless it is open now.
        open_for: Option<Duration>,
    },
    /// A warm-up is over.
    WarmedUp {
        /// Which endpoint.
        endpoint: &'a Endpoint,
        /// Connections that are ready.
        ready: usize,
        /// Connections that could not be had.
        failed: usize,
    },
    /// A connection has been out for longer than callers are expected to take. Told once for each
    /// time that it is out.
    LeakSuspected {
        /// To where it leads.
        endpoint: &'a Endpoint,
        /// For how long it has been out.
        held: Duration,
        /// Where it was checked out.
        location: &'static Location<'static>,
    },
    /// A connection that was suspected to have leaked came back, or was closed by its owner.
    LeakReturned {
        /// To where it leads, or led.
        endpoint: &'a Endpoint,
        /// For how long it was out.
        held: Duration,
        /// Where it was checked out.
        location: &'static Location<'static>,
    },
    /// Descriptors run short: idle connections were closed to have some.
    DescriptorPressure {
        /// How many were closed.
        closed: usize,
    },
    /// A host name leads to other addresses than before.
    AddressesChanged {
        /// Which endpoint.
        endpoint: &'a Endpoint,
        /// Addresses that are new.
        added: &'a [IpAddr],
        /// Addresses that are gone. Connections to them are retired by and by.
        removed: &'a [IpAddr],
    },
    /// The worker of a shard panicked: a bug in this crate, or in a `tracing` subscriber that it
    /// logs to. Dials that were under way on the shard have failed, connections at rest on it are
    /// closed, those in use are closed when they come back, and tasks on its thread go on. A new
    /// worker takes over.
    ShardPanicked {
        /// Which shard.
        shard: usize,
        /// What the panic said.
        message: &'a str,
        /// When the new worker starts: at once after the first few panics, later after more of
        /// them, and never (`Duration::MAX`) after one that took the shard's runtime along. Until then
        /// dials on the shard fail.
        restart_in: Duration,
    },
    /// A group was suspended: it hands out nothing until it is resumed.
    Suspended {
        /// Which endpoint.
        endpoint: &'a Endpoint,
    },
    /// A group was resumed.
    Resumed {
        /// Which endpoint.
        endpoint: &'a Endpoint,
    },
    /// A drain is over: no connection of the group is left.
    Drained {
        /// Which endpoint.
        endpoint: &'a Endpoint,
    },
}

impl<'a> PoolEvent<'a> {
    /// Which endpoint it is about; `None` when it is about the pool.
    pub fn endpoint(&self) -> Option<&'a Endpoint> {
        match *self {
            Self::DialFailed { error, .. } => Some(error.endpoint()),
            Self::Opened { endpoint, .. }
            | Self::Closed { endpoint, .. }
            | Self::BreakerChanged { endpoint, .. }
            | Self::WarmedUp { endpoint, .. }
            | Self::LeakSuspected { endpoint, .. }
            | Self::LeakReturned { endpoint, .. }
            | Self::AddressesChanged { endpoint, .. }
            | Self::Suspended { endpoint }
            | Self::Resumed { endpoint }
            | Self::Drained { endpoint } => Some(endpoint),
            Self::DescriptorPressure { .. } | Self::ShardPanicked { .. } => None,
        }
    }

    /// The kind of event as a metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::DialFailed { .. } => "dial_failed",
            Self::Closed { .. } => "closed",
            Self::BreakerChanged { .. } => "breaker_changed",
            Self::WarmedUp { .. } => "warmed_up",
            Self::LeakSuspected { .. } => "leak_suspected",
            Self::LeakReturned { .. } => "leak_returned",
            Self::DescriptorPressure { .. } => "descriptor_pressure",
            Self::AddressesChanged { .. } => "addresses_changed",
            Self::ShardPanicked { .. } => "shard_panicked",
            Self::Suspended { .. } => "suspended",
            Self::Resumed { .. } => "resumed",
            Self::Drained { .. } => "drained",
        }
    }
}

/// Tells an observer, if there is one. Its panic ends here: it is someone else's code, and must
/// not end the shard.
pub(crate) fn notify(observer: &Option<Arc<dyn Observer>>, event: PoolEvent<'_>) {
    let Some(observer) = observer else {
        return;
    };
    // AssertUnwindSafe: the event is not used again; what the observer left of itself is its own.
    if catch_unwind(AssertUnwindSafe(|| observer.on_event(&event))).is_err() {
        tracing::error!(event = event.as_str(), "the observer panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DialErrorKind,
        sync::{AtomicU32, Ordering},
    };

    fn endpoint() -> Endpoint {
        Endpoint::host("origin", 80)
    }

    #[test]
    fn a_closure_observes_and_nobody_is_nobody() {
        let calls = Arc::new(AtomicU32::new(0));
        let endpoint = endpoint();
        let seen = Arc::clone(&calls);
        let observer: Option<Arc<dyn Observer>> = Some(Arc::new(move |event: &PoolEvent<'_>| {
            assert_eq!(event.endpoint(), Some(&Endpoint::host("origin", 80)));
            // Relaxed: one thread.
            seen.fetch_add(1, Ordering::Relaxed);
        }));
        notify(&observer, PoolEvent::Suspended { endpoint: &endpoint });
        notify(&None, PoolEvent::Resumed { endpoint: &endpoint });
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_panic_of_the_observer_stays_with_it() {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&calls);
        let observer: Option<Arc<dyn Observer>> = Some(Arc::new(move |_: &PoolEvent<'_>| {
            // Relaxed: one thread.
            if seen.fetch_add(1, Ordering::Relaxed) == 0 {
                // Without the panic hook's report.
                std::panic::resume_unwind(Box::new("the observer's own"));
            }
        }));
        notify(&observer, PoolEvent::DescriptorPressure { closed: 3 });
        notify(&observer, PoolEvent::DescriptorPressure { closed: 4 });
        assert_eq!(calls.load(Ordering::Relaxed), 2, "told again after its panic");
    }

    #[test]
    fn every_event_has_a_label_of_its_own_and_its_endpoint() {
        let endpoint = endpoint();
        let endpoint = &endpoint;
        let error = DialError::timed_out(endpoint.clone(), Duration::from_secs(1));
        assert_eq!(error.kind(), DialErrorKind::TimedOut);
        let (took, held, location) = (Duration::ZERO, Duration::ZERO, Location::caller());
        let (from, to) = (BreakerState::Closed, BreakerState::Open);
        let events = [
            PoolEvent::Opened { endpoint, took },
            PoolEvent::DialFailed { error: &error, took },
            PoolEvent::Closed { endpoint, reason: CloseReason::Dirty, age: took, uses: 1 },
            PoolEvent::BreakerChanged { endpoint, from, to, open_for: Some(took) },
            PoolEvent::WarmedUp { endpoint, ready: 1, failed: 0 },
            PoolEvent::LeakSuspected { endpoint, held, location },
            PoolEvent::LeakReturned { endpoint, held, location },
            PoolEvent::AddressesChanged { endpoint, added: &[], removed: &[] },
            PoolEvent::Suspended { endpoint },
            PoolEvent::Resumed { endpoint },
            PoolEvent::Drained { endpoint },
        ];
        assert!(events.iter().all(|event| event.endpoint() == Some(endpoint)));
        let of_the_pool = [
            PoolEvent::DescriptorPressure { closed: 0 },
            PoolEvent::ShardPanicked { shard: 0, message: "", restart_in: took },
        ];
        assert!(of_the_pool.iter().all(|event| event.endpoint().is_none()));
        let all = || events.iter().chain(&of_the_pool);
        let labels: std::collections::BTreeSet<_> = all().map(PoolEvent::as_str).collect();
        assert_eq!(labels.len(), all().count());
        assert!(
            labels.iter().all(|label| label.chars().all(|c| c == '_' || c.is_ascii_lowercase()))
        );
    }
}
