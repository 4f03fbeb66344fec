//! The socket under an HTTP/1 connection, and the body that goes out over it: what passes is
//! counted, and what is still to pass is known.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::{io, sync::Arc};

use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Condition, Inspect, Transport,
    sync::{AtomicBool, AtomicU64, Ordering},
};

/// What has passed on a connection so far. All of it Relaxed: whoever drives the connection writes
/// it, and who reads it has been told through a channel, or drives the connection itself.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    /// hyper is not done with the request's body.
    uploading: AtomicBool,
    /// The socket took less than hyper had for it.
    congested: AtomicBool,
    /// The next read is to look at the socket itself, whatever the reactor knows.
    peeking: AtomicBool,
}

impl Traffic {
    /// Bytes that came from the peer.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that went to it.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether some of a request is still to be sent.
    pub(super) fn is_sending(&self) -> bool {
        self.uploading.load(Ordering::Relaxed) || self.congested.load(Ordering::Relaxed)
    }

    /// Whether reads from here on look at the socket itself.
    pub(super) fn peek(&self, peeking: bool) {
        self.peeking.store(peeking, Ordering::Relaxed);
    }
}

/// What a look at the stream has found, as the error of a read.
#[derive(Debug, thiserror::Error)]
#[error("found {0:?}")]
struct Found(Condition);

/// What an error of the stream says of the connection.
#[cold]
pub(super) fn condition(error: &io::Error) -> Condition {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(&Found(condition)) => condition,
        None => match error.kind() {
            // A TLS peer's FIN that came without its close_notify.
            io::ErrorKind::UnexpectedEof => Condition::Closed,
            // What came is no record of the TLS session.
            io::ErrorKind::InvalidData => Condition::Unusable,
            _ => Condition::Reset,
        },
    }
}

/// A stream that counts what is read from it and written to it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, traffic: Arc<Traffic>) -> Self {
        Self { stream, traffic }
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    fn note_sent(&self, written: &Poll<io::Result<usize>>) {
        // Whoever meets a full socket has to come back.
        self.traffic.congested.store(written.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(count)) = written {
            self.traffic.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
    }
}

impl<S: Transport> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.traffic.peeking.load(Ordering::Relaxed) {
            let found = self.stream.inspect(Inspect::Peek);
            if found != Condition::Usable {
                return Poll::Ready(Err(io::Error::other(Found(found))));
            }
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        self.traffic.received.fetch_add(count as u64, Ordering::Relaxed);
        read
    }
}

impl<S: Transport> AsyncWrite for Wire<S> {
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
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS takes more than the socket does, and owns up to it here.
        self.traffic.congested.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    /// Nothing: the pool, or who has the connection last, closes the stream next, and what is to
    /// be said at the end, a FIN at the least, goes out with that.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A request without a body, mostly: send(2) costs the kernel less than writev(2).
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

pin_project! {
    /// A request's body on its way out. hyper drops it once it wants no more of it.
    pub(super) struct Outgoing<B> {
        #[pin]
        body: B,
        under_way: UnderWay,
    }
}

/// As long as it lives, some of the body is to be sent.
struct UnderWay(Arc<Traffic>);

impl<B> Outgoing<B> {
    pub(super) fn new(body: B, traffic: &Arc<Traffic>) -> Self {
        traffic.uploading.store(true, Ordering::Relaxed);
        Self { body, under_way: UnderWay(Arc::clone(traffic)) }
    }

    pub(super) fn into_inner(self) -> B {
        self.body
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.uploading.store(false, Ordering::Relaxed);
    }
}

impl<B: Body> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
