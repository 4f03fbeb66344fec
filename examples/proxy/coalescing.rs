//! A stream to a client: small responses go out in one piece, and what goes out is noted.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::{
    io::{self, IoSlice},
    rc::Rc,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::visits::Visit;

/// A stream that sends a small response in one piece: to the kernel one send(2) is cheaper
/// than writev(2) of a head and a body, by more than it costs us to put the two together. Under TLS
/// it is one record.
#[derive(Debug)]
pub(crate) struct Coalescing<S> {
    stream: S,
    visit: Rc<Visit>,
}

impl<S> Coalescing<S> {
    pub(crate) fn new(stream: S, visit: Rc<Visit>) -> Self {
        Self { stream, visit }
    }

    /// A client that reads is not one that keeps us waiting.
    fn note(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.visit.wrote();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if length > SMALL {
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
            self.note(&written);
            return written;
        }
        let mut whole = [0; SMALL];
        let mut end = 0;
        for buf in bufs {
            whole[end..][..buf.len()].copy_from_slice(buf);
            end += buf.len();
        }
        self.poll_write(cx, &whole[..length])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// About what goes into one packet on Ethernet.
const SMALL: usize = 1460;
