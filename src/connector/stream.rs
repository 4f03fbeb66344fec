//! Pools tokio streams of either kind: TCP, or a unix socket.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::io;
#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};

#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{Condition, Connection, Connector, Inspect, look};
use crate::{BoxError, Endpoint, Socket};

/// Pools [`Stream`]s, so that one pool serves TCP endpoints and unix sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamConnector;

/// A tokio stream of one kind or the other. It stays registered with its shard's reactor.
#[derive(Debug)]
pub enum Stream {
    /// To a TCP endpoint.
    Tcp(TcpStream),
    /// To a unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Connector for StreamConnector {
    type Connection = Stream;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Stream, BoxError> {
        Ok(socket.into_stream()?)
    }
}

impl Connection for Stream {
    fn inspect(&mut self, how: Inspect) -> Condition {
        match self {
            Self::Tcp(stream) => inspect_tcp(stream, how),
            #[cfg(unix)]
            Self::Unix(stream) => inspect_unix(stream, how),
        }
    }

    fn into_socket(self) -> Option<Socket> {
        Some(self.into())
    }
}

/// At a glance: nothing to read as far as the reactor has seen, or by one look of our own where
/// it has seen something.
///
/// Not `poll_peek`: a task that has used up its share of the scheduler would be told "pending"
/// without a look, and would take a response that nobody asked for as its own.
pub(super) fn inspect_tcp(stream: &TcpStream, how: Inspect) -> Condition {
    look::condition(&match how {
        Inspect::Glance => stream.try_io(Interest::READABLE, || look::peek(stream)),
        Inspect::Peek => look::peek(stream),
    })
}

#[cfg(unix)]
fn inspect_unix(stream: &UnixStream, how: Inspect) -> Condition {
    look::condition(&match how {
        Inspect::Glance => stream.try_io(Interest::READABLE, || look::peek(stream)),
        Inspect::Peek => look::peek(stream),
    })
}

/// Hands a call on to the stream, whichever kind it is.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            #[cfg(unix)]
            Stream::Unix($inner) => $call,
        }
    };
}

#[cfg(feature = "tls")]
impl Stream {
    /// Reads without waiting: at a glance only where the reactor has seen something.
    pub(super) fn read_at_once(&self, buf: &mut [u8], how: Inspect) -> io::Result<usize> {
        use io::Read as _;
        match how {
            Inspect::Glance => either!(self, stream => stream.try_read(buf)),
            // The reactor's sockets do not wait.
            Inspect::Peek => either!(self, stream => (&*socket2::SockRef::from(stream)).read(buf)),
        }
    }

    /// Writes without waiting.
    pub(super) fn write_at_once(&self, buf: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(buf))
    }
}

#[cfg(unix)]
impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        either!(self, stream => stream.as_raw_fd())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Stream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}
