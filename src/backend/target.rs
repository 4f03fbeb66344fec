//! What a dial is asked for.

use std::{net::SocketAddr, sync::Arc};

use crate::sockets::SocketOptions;

/// Names a dial among those under way on a shard. Its worker gives it, and may have several for
/// one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DialId(pub(crate) u32);

/// Where a dial leads, and how its socket is set up.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) to: Destination,
    pub(crate) options: Arc<SocketOptions>,
}

/// An address that needs no resolving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Ip(SocketAddr),
    /// The path of a unix socket.
    #[cfg(unix)]
    Unix(Arc<std::path::Path>),
}

/// What a unix connect failed for. `EAGAIN` there means that the listener's queue is full, where
/// TCP would send its SYN once more: the peer refuses for now.
#[cfg(unix)]
pub(super) fn unix_failure(error: std::io::Error) -> std::io::Error {
    use std::io::{Error, ErrorKind};
    if error.kind() == ErrorKind::WouldBlock {
        return Error::new(ErrorKind::ConnectionRefused, "the listener's queue is full (EAGAIN)");
    }
    error
}
