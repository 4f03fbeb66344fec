//! Pools tokio-uring streams, on shards that host its runtime.

use send_wrapper::SendWrapper;
use tokio_uring::net::TcpStream;

use super::{Condition, Connection, Connector, Inspect, look};
use crate::{BoxError, Endpoint, Host, Socket};

/// Pools [`tokio_uring::net::TcpStream`]s. Build the pool with
/// [`Host::TokioUring`]. Refuses unix sockets.
///
/// A stream is made once, when its socket is dialled; a checkout makes no system call. It belongs
/// to its shard's thread, so checkouts succeed only there (see [`Connector::SHARD_LOCAL`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioUringConnector;

/// A pooled tokio-uring stream.
///
/// # Panics
/// Using it on any other thread than its shard's panics. Dropping its guard there is fine: the
/// stream goes home to be closed.
pub struct TokioUring(SendWrapper<TcpStream>);

impl Connector for TokioUringConnector {
    type Connection = TokioUring;

    const SHARD_LOCAL: bool = true;
    const HOST: Option<Host> = Some(Host::TokioUring);

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<TokioUring, BoxError> {
        let stream = socket.into_std()?;
        // tokio-uring waits in the kernel, not by readiness.
        stream.set_nonblocking(false)?;
        Ok(TokioUring(SendWrapper::new(TcpStream::from_std(stream))))
    }
}

impl Connection for TokioUring {
    /// At a glance nothing can be said without a system call. On another thread than its shard's
    /// the stream cannot be reached, and is not looked at.
    fn inspect(&mut self, how: Inspect) -> Condition {
        match how {
            Inspect::Peek if self.0.valid() => look::condition(&look::peek(&*self.0)),
            Inspect::Glance | Inspect::Peek => Condition::Usable,
        }
    }
}

impl core::ops::Deref for TokioUring {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl core::fmt::Debug for TokioUring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("TokioUring")
    }
}
