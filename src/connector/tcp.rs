//! Pools tokio streams that stay registered with their shard's reactor.

use core::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Connection, Connector};
use crate::{BoxError, Endpoint, Socket};

/// Pools [`TcpStream`]s: a reuse costs no `epoll_ctl`.
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
    /// is the rule, this makes no system call; otherwise it makes one `recv(MSG_PEEK)`.
    fn is_usable(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = ReadBuf::new(&mut byte);
        // Unconstrained: a task that has used up its share of the scheduler would be told
        // "pending" without a look, and would take a response that nobody asked for as its own.
        let look = tokio::task::unconstrained(poll_fn(|cx| self.0.poll_peek(cx, &mut byte)));
        pin!(look).poll(&mut cx).is_pending()
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
