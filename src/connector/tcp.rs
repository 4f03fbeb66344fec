//! Pools tokio streams that stay registered with their shard's reactor.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Condition, Connection, Connector, Inspect, stream::inspect_tcp};
use crate::{BoxError, Endpoint, Socket};

/// Pools [`TcpStream`]s: a reuse costs no `epoll_ctl`. Refuses unix sockets; see
/// [`StreamConnector`](crate::StreamConnector).
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

/// A pooled tokio stream.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Connector for TcpConnector {
    type Connection = Tcp;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Tcp, BoxError> {
        Ok(Tcp(socket.into_tokio()?))
    }
}

impl Tcp {
    /// The stream itself. It stays registered with the shard's runtime and works only as long as
    /// the pool lives; [`TcpStream::into_std`] takes it off for another one.
    pub fn into_inner(self) -> TcpStream {
        self.0
    }
}

impl Connection for Tcp {
    /// Nothing to read: no FIN and no unexpected byte. While the reactor has seen nothing, which
    /// is the rule, a glance makes no system call; otherwise it makes one `recv(MSG_PEEK)`.
    fn inspect(&mut self, how: Inspect) -> Condition {
        inspect_tcp(&self.0, how)
    }

    fn into_socket(self) -> Option<Socket> {
        Some(self.0.into())
    }
}

impl core::ops::Deref for Tcp {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl core::ops::DerefMut for Tcp {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
