//! What can go wrong, one small enum for each operation.

use core::{fmt, time::Duration};
use std::{
    error::Error,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::Endpoint;

/// The cause that a connector gives for a failure.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a checkout gave no connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError {
    /// The dial for this checkout failed. Usually the origin's doing.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No connection came free and no dial succeeded in time. The limit is too low for the load,
    /// or the origin holds on to its connections.
    #[error(
        "{endpoint}: no connection within {} ms ({live} of {max_live} connections live, {waiting} callers waiting)",
        after.as_millis()
    )]
    Timeout {
        /// Of which group.
        endpoint: Endpoint,
        /// The acquire timeout.
        after: Duration,
        /// Connections of the group at that moment.
        live: u32,
        /// How many it may have.
        max_live: u32,
        /// Callers that still wait.
        waiting: u32,
    },
    /// No stream came free and no dial succeeded in time: the limits are too low for the load, the
    /// origin allows too few streams, or it does not end them.
    #[error(
        "{endpoint}: no stream within {} ms ({leased} of {capacity} streams of {connections} connections leased, {waiting} callers waiting)",
        after.as_millis()
    )]
    StreamTimeout {
        /// Of which group.
        endpoint: Endpoint,
        /// The acquire timeout.
        after: Duration,
        /// Shared connections at that moment.
        connections: u32,
        /// Streams that were leased of them.
        leased: u32,
        /// How many they take together.
        capacity: u32,
        /// Callers that still wait.
        waiting: u32,
    },
    /// All shared connections have as many streams as they may, there are as many connections as
    /// may be, and the endpoint's policy is not to wait.
    #[error("{endpoint}: all streams of {connections} connections are in use ({leased})")]
    StreamsAtLimit {
        /// Of which group.
        endpoint: Endpoint,
        /// How many connections there are.
        connections: u32,
        /// How many streams are leased of them.
        leased: u32,
    },
    /// As many callers are in line as may, those whose dial is under way included: the load is
    /// above what `max_live` serves, or a burst is larger than `max_waiters`.
    #[error("{endpoint}: {max_waiters} callers are in line for a connection already")]
    WaitersFull {
        /// Of which group.
        endpoint: Endpoint,
        /// How many may wait.
        max_waiters: u32,
    },
    /// As many connections live as may, and the endpoint's policy is not to wait.
    #[error("{endpoint}: all {max_live} connections are in use")]
    AtLimit {
        /// Of which group.
        endpoint: Endpoint,
        /// How many may live.
        max_live: u32,
    },
    /// The circuit breaker is open: the endpoint failed lately, and is not dialled for a while.
    #[error("{endpoint}: the circuit breaker is open{}", fmt_left(*left))]
    BreakerOpen {
        /// Of which group.
        endpoint: Endpoint,
        /// How long it stays open; zero when probes are under way that will decide, `None` when it
        /// is forced open.
        left: Option<Duration>,
    },
    /// The shard's table of slots is full: `slots_per_shard` is too low for the limits.
    #[error("{endpoint}: all {slots} slots of the shard are in use")]
    Exhausted {
        /// Of which group.
        endpoint: Endpoint,
        /// Slots that the shard has.
        slots: usize,
    },
    /// The pool was closed.
    #[error("{endpoint}: the pool is closed")]
    Closed {
        /// Of which group.
        endpoint: Endpoint,
    },
    /// The connector's connections stay on their shard, and the caller runs on none.
    #[error(
        "{endpoint}: connections of this pool are bound to their shard's thread; check out there"
    )]
    OffShard {
        /// Of which group.
        endpoint: Endpoint,
    },
}

impl CheckoutError {
    /// Which endpoint it was about.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Dial(error) => error.endpoint(),
            Self::Timeout { endpoint, .. }
            | Self::StreamTimeout { endpoint, .. }
            | Self::StreamsAtLimit { endpoint, .. }
            | Self::WaitersFull { endpoint, .. }
            | Self::AtLimit { endpoint, .. }
            | Self::BreakerOpen { endpoint, .. }
            | Self::Exhausted { endpoint, .. }
            | Self::Closed { endpoint }
            | Self::OffShard { endpoint } => endpoint,
        }
    }
}

fn fmt_left(left: Option<Duration>) -> String {
    match left {
        Some(Duration::ZERO) => ", a probe is under way".to_owned(),
        Some(left) => format!(" for {} ms more", left.as_millis()),
        None => " by order".to_owned(),
    }
}

/// A dial that failed: which endpoint, and the cause.
#[derive(Clone)]
pub struct DialError(Arc<Failure>);

struct Failure {
    endpoint: Endpoint,
    kind: DialErrorKind,
    source: Option<BoxError>,
    detail: String,
}

/// What kind of failure a dial met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DialErrorKind {
    /// Nobody listens there (`ECONNREFUSED`).
    Refused,
    /// No route (`EHOSTUNREACH`, `ENETUNREACH`), or the address is not reachable from here.
    Unreachable,
    /// Not connected within the connect timeout, or not ready for use within the total one.
    TimedOut,
    /// The host name has no address.
    Resolve,
    /// The process or the system is out of descriptors (`EMFILE`, `ENFILE`), or of memory for one.
    Descriptors,
    /// No local port is free (`EADDRNOTAVAIL`).
    Ports,
    /// The peer went before the connection was ready for use.
    PeerClosed,
    /// The connector refused the connection: its handshake failed.
    Connector,
    /// The shard's driver failed, its worker panicked, or the shard is shutting down.
    Backend,
    /// Anything else; see the source.
    Other,
}

impl DialError {
    pub(crate) fn new(endpoint: Endpoint, kind: DialErrorKind, source: BoxError) -> Self {
        // Someone else's code: a panic in it must not end the shard.
        let detail = catch_unwind(AssertUnwindSafe(|| source.to_string()))
            .unwrap_or_else(|_| "its cause panicked when it was asked for a text".to_owned());
        Self(Arc::new(Failure { endpoint, kind, source: Some(source), detail }))
    }

    pub(crate) fn plain(endpoint: Endpoint, kind: DialErrorKind, detail: String) -> Self {
        Self(Arc::new(Failure { endpoint, kind, source: None, detail }))
    }

    pub(crate) fn timed_out(endpoint: Endpoint, after: Duration) -> Self {
        let detail = format!("not connected within {} ms", after.as_millis());
        Self::plain(endpoint, DialErrorKind::TimedOut, detail)
    }

    /// As [`Self::timed_out`], of a connector that is still at its handshake.
    pub(crate) fn not_ready(endpoint: Endpoint, after: Duration) -> Self {
        let detail = format!("connected, but not ready for use within {} ms", after.as_millis());
        Self::plain(endpoint, DialErrorKind::TimedOut, detail)
    }

    /// As [`Self::io`], of one address of a name.
    pub(crate) fn io_at(endpoint: Endpoint, address: Option<SocketAddr>, error: io::Error) -> Self {
        let mut this = Self::io(endpoint, error);
        if let Some(address) = address
            && let Some(failure) = Arc::get_mut(&mut this.0)
        {
            failure.detail = format!("{address}: {}", failure.detail);
        }
        this
    }

    /// Whether it was our own doing and says nothing of the endpoint.
    pub(crate) fn is_local(&self) -> bool {
        let source = self.0.source.as_ref();
        #[cfg(feature = "tls")]
        if source.and_then(|source| source.downcast_ref()).is_some_and(crate::TlsError::is_ours) {
            return true;
        }
        matches!(
            self.kind(),
            DialErrorKind::Descriptors | DialErrorKind::Ports | DialErrorKind::Backend
        ) || source.and_then(|source| source.downcast_ref()).is_some_and(crate::backend::is_refused)
    }

    pub(crate) fn io(endpoint: Endpoint, error: io::Error) -> Self {
        use io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::ConnectionRefused => DialErrorKind::Refused,
            Io::HostUnreachable | Io::NetworkUnreachable => DialErrorKind::Unreachable,
            Io::TimedOut => DialErrorKind::TimedOut,
            Io::AddrNotAvailable => DialErrorKind::Ports,
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::NotConnected => {
                DialErrorKind::PeerClosed
            }
            _ if is_out_of_descriptors(&error) => DialErrorKind::Descriptors,
            _ => DialErrorKind::Other,
        };
        Self::new(endpoint, kind, error.into())
    }

    /// Which endpoint was dialled.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> DialErrorKind {
        self.0.kind
    }
}

/// `EMFILE`, `ENFILE`, `ENOBUFS` and `ENOMEM`, by their numbers on the unix systems.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::OutOfMemory => true,
        #[cfg(target_os = "linux")]
        _ => {
            use nix::libc::{EMFILE, ENFILE, ENOBUFS};
            matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS))
        }
        #[cfg(not(target_os = "linux"))]
        _ => false,
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { endpoint, kind, detail, .. } = &*self.0;
        let what = match kind {
            DialErrorKind::Refused => "refused",
            DialErrorKind::Unreachable => "unreachable",
            DialErrorKind::TimedOut => "timed out",
            DialErrorKind::Resolve => "cannot be resolved",
            DialErrorKind::Descriptors => "no descriptor left",
            DialErrorKind::Ports => "no local port left",
            DialErrorKind::PeerClosed => "the peer closed",
            DialErrorKind::Connector => "handshake failed",
            DialErrorKind::Backend => "driver failed",
            DialErrorKind::Other => "failed",
        };
        write!(f, "dial of {endpoint}: {what}: {detail}")
    }
}

impl fmt::Debug for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialError")
            .field("endpoint", &self.0.endpoint)
            .field("kind", &self.0.kind)
            .field("detail", &self.0.detail)
            .finish()
    }
}

impl Error for DialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is out of its range.
    #[error(transparent)]
    Settings(#[from] crate::SettingsError),
    /// Something else that the builder was given is out of its range.
    #[error("{setting} is {value}, but must be {allowed}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A shard has no driver: the backend asked for cannot be had, or none can.
    #[error("shard {shard}: backend {backend}: {source}")]
    Backend {
        /// Which shard.
        shard: usize,
        /// What was asked for.
        backend: crate::Backend,
        /// Why not.
        source: io::Error,
    },
    /// A shard's thread or runtime could not be started.
    #[error("shard {shard}: its thread cannot be started: {source}")]
    Thread {
        /// Which shard.
        shard: usize,
        /// Why not.
        source: io::Error,
    },
}
