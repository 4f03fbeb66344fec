//! A checked-out connection as hyper takes it.

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use std::io;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};

use crate::{Connector, Pooled, Transport};

/// A connection of a pool that nobody used before: what a [`ConnectService`](crate::ConnectService)
/// answers with.
///
/// Dropping it closes it, as hyper does when it is done with it.
pub struct PooledIo<C: Connector> {
    io: TokioIo<Pooled<C>>,
    is_http2: bool,
}

impl<C: Connector<Connection: Transport>> PooledIo<C> {
    /// From here on a drop closes the connection, whatever was done with it: at rest again it
    /// would count as used, and hyper would never have it.
    pub(super) fn new(guard: Pooled<C>) -> Self {
        let is_http2 = guard.alpn_protocol() == Some(b"h2");
        Self { io: TokioIo::new(guard), is_http2 }
    }
}

impl<C: Connector> PooledIo<C> {
    /// The guard, for what it knows: endpoint, shard, age.
    pub fn guard(&self) -> &Pooled<C> {
        self.io.inner()
    }

    /// The guard itself, for who uses hyper's connections without its client. One that is released
    /// is for other users of the pool; no [`ConnectService`](crate::ConnectService) gives it again.
    pub fn into_guard(self) -> Pooled<C> {
        self.io.into_inner()
    }
}

/// Tells hyper-util's client whether the peer agreed on HTTP/2 (ALPN).
impl<C: Connector> Connection for PooledIo<C> {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.is_http2 { connected.negotiated_h2() } else { connected }
    }
}

impl<C: Connector<Connection: Transport>> Read for PooledIo<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<C: Connector<Connection: Transport>> Write for PooledIo<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

impl<C: Connector> fmt::Debug for PooledIo<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledIo")
            .field("endpoint", self.guard().endpoint())
            .field("is_http2", &self.is_http2)
            .finish_non_exhaustive()
    }
}
