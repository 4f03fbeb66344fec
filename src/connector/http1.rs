//! Pools hyper's HTTP/1 senders.

use core::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};
use std::{io, sync::Arc};

use hyper::{
    body::Body,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
};

use super::{Condition, Connection, Connector, Inspect, Stream};
use crate::{
    BoxError, Endpoint, Pooled, Socket,
    sync::{AtomicU64, Ordering},
};

/// Pools [`SendRequest`]s, over TCP or unix sockets: each connection's task runs on the shard
/// that dialled it.
pub struct Http1Connector<B> {
    builder: http1::Builder,
    body: PhantomData<fn(B)>,
}

/// A pooled HTTP/1 connection, by its sender.
///
/// Keep the guard until the response's body has been read: closing the connection, as dropping
/// the guard early does, ends the body too.
pub struct Http1<B> {
    sender: SendRequest<B>,
    /// hyper's task for the connection, which owns the socket.
    task: AbortHandle,
    carried: Arc<Carried>,
}

/// Bytes that a connection has carried, in each direction.
#[derive(Debug, Default)]
struct Carried {
    received: AtomicU64,
    sent: AtomicU64,
}

impl<B> Http1Connector<B> {
    /// hyper's defaults.
    pub fn new() -> Self {
        Self::with_builder(http1::Builder::new())
    }

    /// Settings of one's own: buffer sizes, limits on headers, how lenient to be.
    pub fn with_builder(builder: http1::Builder) -> Self {
        Self { builder, body: PhantomData }
    }
}

impl<B> Connector for Http1Connector<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Connection = Http1<B>;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Http1<B>, BoxError> {
        let carried = Arc::<Carried>::default();
        let stream = Counted { stream: socket.into_stream()?, carried: Arc::clone(&carried) };
        let (sender, connection) = self.builder.handshake(TokioIo::new(stream)).await?;
        let endpoint = endpoint.clone();
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                // The caller whose exchange it broke has the error too.
                tracing::debug!(%endpoint, %error, "an HTTP/1 connection ended");
            }
        });
        let mut http1 = Http1 { sender, task: task.abort_handle(), carried };
        // hyper calls a connection ready once its task has run. A caller on another thread may be
        // faster than that, and would take the connection for one that cannot be used.
        http1.sender.ready().await?;
        Ok(http1)
    }
}

impl<B> Connection for Http1<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    /// Usable when hyper has read the last response to its end and the connection is open.
    /// hyper's task reads the socket as soon as there is something to read, and ends the
    /// connection when nobody asked for it: there is no closer look than this one.
    fn inspect(&mut self, _: Inspect) -> Condition {
        if self.sender.is_ready() {
            Condition::Usable
        } else if self.sender.is_closed() {
            Condition::Closed
        } else {
            Condition::Unusable
        }
    }

    fn bytes_written(&self) -> Option<u64> {
        // Relaxed: see `Http1::bytes_received`.
        Some(self.carried.sent.load(Ordering::Relaxed))
    }
}

impl<B> Http1<B> {
    /// Bytes that the peer has sent on the connection so far.
    ///
    /// hyper does not tell a peer that closed instead of answering from one that broke off within
    /// the head of its answer. When this count is what it was before the request, there was no
    /// answer, and an idempotent request may be sent again.
    pub fn bytes_received(&self) -> u64 {
        // Relaxed: the error that makes a caller ask comes through a channel, which orders it.
        self.carried.received.load(Ordering::Relaxed)
    }
}

impl<B> Pooled<Http1Connector<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Releases the connection once hyper is ready for the next request, or closes it when the
    /// exchange leaves it unusable (`Connection: close`).
    ///
    /// Read or drop the response's body first: hyper is not ready before, however long that takes.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn release_when_ready(mut self) {
        if self.is_ready() || self.ready().await.is_ok() {
            self.release();
        } else {
            self.discard();
        }
    }
}

/// The task would go on for as long as somebody holds a body, and with it a socket that the pool
/// has counted out.
impl<B> Drop for Http1<B> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<B> core::ops::Deref for Http1<B> {
    type Target = SendRequest<B>;

    fn deref(&self) -> &SendRequest<B> {
        &self.sender
    }
}

impl<B> core::ops::DerefMut for Http1<B> {
    fn deref_mut(&mut self) -> &mut SendRequest<B> {
        &mut self.sender
    }
}

impl<B> Default for Http1Connector<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> fmt::Debug for Http1Connector<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1Connector").field("builder", &self.builder).finish()
    }
}

impl<B> fmt::Debug for Http1<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// A stream that counts what is read from it and written to it.
struct Counted {
    stream: Stream,
    carried: Arc<Carried>,
}

impl Counted {
    fn note_sent(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            // Relaxed: see `bytes_received`.
            self.carried.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        // Relaxed: see `bytes_received`.
        self.carried.received.fetch_add(count as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_sent(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
