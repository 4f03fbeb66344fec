//! A stream to a client whose small responses go out in one piece.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::{
    io::{self, IoSlice},
    rc::Rc,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::visits::Visit;

/// A TCP stream that sends a small response in one piece: to the kernel one send(2) is cheaper
/// than writev(2) of a head and a body, by more than it costs us to put the two together.
#[derive(Debug)]
pub(crate) struct Coalescing {
    stream: TcpStream,
    visit: Rc<Visit>,
}

impl Coalescing {
    pub(crate) fn new(stream: TcpStream, visit: Rc<Visit>) -> Self {
        Self { stream, visit }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.visit.wrote();
        }
    }
}

impl AsyncRead for Coalescing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Coalescing {
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
        let mut whole = [0; SMALL];
        let mut rest = &mut whole[..];
        for buf in bufs {
            let Some((place, after)) = rest.split_at_mut_checked(buf.len()) else {
                let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
                self.note(&written);
                return written;
            };
            place.copy_from_slice(buf);
            rest = after;
        }
        let length = SMALL - rest.len();
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
