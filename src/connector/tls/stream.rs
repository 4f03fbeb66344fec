//! What is pooled: a stream under TLS, or a plain one where the endpoint wants none.

use core::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};
use std::io;
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, rustls::ClientConnection};

use super::rest;
use crate::{Condition, Connection, Inspect, Socket, Stream, Transport};

/// A stream under TLS; or a plain one, to an endpoint without a TLS identity.
///
/// What is written may stay in the session until it is flushed. Dropping the stream, or closing it
/// through the pool, sends a `close_notify` where that goes without waiting; what was shut down
/// must not be released.
pub struct TlsStream(Layer);

pub(super) type Secured = client::TlsStream<Stream>;

enum Layer {
    Plain(Stream),
    /// Boxed: a session is more than a kilobyte, and a checkout moves its connection.
    Secured(Box<Secured>),
    /// Its socket was given up, and the stream with it.
    Gone,
}

/// Hands a call on to the stream, whichever kind it is.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Layer::Plain($inner) => $call,
            Layer::Secured($inner) => $call,
            Layer::Gone => unreachable!("who gives the socket up consumes the stream"),
        }
    };
}

impl TlsStream {
    pub(super) fn plain(stream: Stream) -> Self {
        Self(Layer::Plain(stream))
    }

    pub(super) fn secured(stream: Secured) -> Self {
        Self(Layer::Secured(Box::new(stream)))
    }

    /// The TLS session: the protocol's version, the server's certificates, whether an earlier
    /// session was resumed. `None` for a plain stream.
    pub fn session(&self) -> Option<&ClientConnection> {
        match &self.0 {
            Layer::Secured(stream) => Some(stream.get_ref().1),
            Layer::Plain(_) | Layer::Gone => None,
        }
    }

    /// The application protocol that the server chose (ALPN). `None` if it chose none.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session()?.alpn_protocol()
    }

    /// The stream below: to ask the socket something. Whoever reads from it or writes to it breaks
    /// the session.
    pub fn stream(&self) -> &Stream {
        match &self.0 {
            Layer::Plain(stream) => stream,
            Layer::Secured(stream) => stream.get_ref().0,
            Layer::Gone => unreachable!("who gives the socket up consumes the stream"),
        }
    }
}

impl Connection for TlsStream {
    /// Nothing to read but what is the session's own business, such as a ticket for the next
    /// handshake: that is dealt with here. While the reactor has seen nothing, a glance makes no
    /// system call.
    fn inspect(&mut self, how: Inspect) -> Condition {
        match &mut self.0 {
            Layer::Plain(stream) => stream.inspect(how),
            Layer::Secured(stream) => rest::inspect(stream, how),
            Layer::Gone => Condition::Closed,
        }
    }

    fn into_socket(mut self) -> Option<Socket> {
        match mem::replace(&mut self.0, Layer::Gone) {
            Layer::Plain(stream) => stream.into_socket(),
            Layer::Secured(mut stream) => {
                rest::say_goodbye(&mut stream);
                stream.into_inner().0.into_socket()
            }
            Layer::Gone => None,
        }
    }
}

impl Transport for TlsStream {
    fn alpn_protocol(&self) -> Option<&[u8]> {
        self.alpn_protocol()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if let Layer::Secured(stream) = &mut self.0 {
            rest::say_goodbye(stream);
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.0, stream => stream.is_write_vectored())
    }
}

#[cfg(unix)]
impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}

#[cfg(unix)]
impl AsRawFd for TlsStream {
    fn as_raw_fd(&self) -> RawFd {
        self.stream().as_raw_fd()
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Layer::Plain(stream) => f.debug_tuple("Plain").field(stream).finish(),
            Layer::Secured(stream) => f
                .debug_struct("Secured")
                .field("stream", stream.get_ref().0)
                .field("version", &stream.get_ref().1.protocol_version())
                .finish_non_exhaustive(),
            Layer::Gone => f.write_str("Gone"),
        }
    }
}
