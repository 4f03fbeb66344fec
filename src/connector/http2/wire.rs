//! The transport under an HTTP/2 connection. h2 reads and writes it, and the pool takes it away: h2
//! keeps what it was given until its connection is dropped, and the socket must be the pool's to
//! close.

use core::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};
use std::{io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::unconstrained,
};

use super::{
    Condition, Transport,
    shared::{Fault, Shared},
};
use crate::{
    Socket,
    sync::{AtomicBool, AtomicCell, Ordering},
};

/// Where the transport is, between two uses of it by the driver.
pub(super) struct Link<T> {
    plug: AtomicCell<Option<Box<T>>>,
    shared: Arc<Shared>,
    /// h2 has written whole frames only. Relaxed: the plug goes from hand to hand with it.
    between_frames: AtomicBool,
}

/// What the pool does with a link, whatever the transport.
pub(super) trait Unplug: Send + Sync {
    /// Takes the transport out, with a word to the peer, and ends the driver. The socket, if it can
    /// be had at this moment; else it is closed by whoever has it.
    fn unplug(&self) -> Option<Socket>;
}

/// GOAWAY (RFC 9113 §6.8): no stream of the peer's was processed, and there is no error.
const GOODBYE: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl<T: Transport> Unplug for Link<T> {
    fn unplug(&self) -> Option<Socket> {
        // First, so that a driver that has the transport at this moment closes it.
        self.shared.cut(Fault::Closed);
        let mut io = self.plug.take()?;
        if self.between_frames.load(Ordering::Relaxed) {
            // As far as it goes. Outside the scheduler's budget, which says nothing of the socket.
            let goodbye = poll_fn(|cx| {
                ready!(Pin::new(&mut io).poll_write(cx, &GOODBYE))?;
                Pin::new(&mut io).poll_flush(cx)
            });
            let _ = pin!(unconstrained(goodbye)).poll(&mut Context::from_waker(Waker::noop()));
        }
        io.into_socket()
    }
}

/// h2's end of the link.
pub(super) struct Wire<T> {
    link: Arc<Link<T>>,
    heads: Heads,
    allowance: Allowance,
    is_write_vectored: bool,
}

/// The heads of the frames that the peer sends (RFC 9113 §4.1), for what h2 does not look at, or
/// looks at too late.
#[derive(Default)]
struct Heads {
    head: [u8; HEAD],
    /// How much of it has come.
    len: usize,
    /// What is still to come of the frame's payload.
    payload: usize,
    /// Whether the first one was SETTINGS (RFC 9113 §3.4).
    is_greeted: bool,
    /// DATA frames that carried nothing and ended nothing.
    empty: u32,
    /// HEADERS frames since they were paid for.
    headers: u32,
}

/// What pays for HEADERS frames. h2 keeps each one until its stream's user takes it, and no window
/// bounds interim responses (RFC 9110 §15.2), of which there may be any number.
struct Allowance {
    left: u64,
    /// Streams begun and interim responses taken, as far as they were counted in.
    begun: u32,
    taken: u32,
}

/// What each stream brings: a response's head, its trailers, and what is usual before.
const EACH: u64 = 4;
/// What there is beside: answers to streams that were given up are still on their way.
const SPARE: u64 = 1024;

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// h2 ends a connection at the 101st empty DATA frame of its life, under all its streams. One that
/// has got to half of them takes no new streams, and those that are open can end well.
const MOST_EMPTY: u32 = 50;

impl<T: Unpin> Link<T> {
    /// Uses the transport, if it is there.
    fn with<R>(
        &self,
        used: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if let Some(fault) = self.shared.fault() {
            return Poll::Ready(Err(fault));
        }
        let Some(mut io) = self.plug.take() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let outcome = used(Pin::new(&mut *io));
        // Who wanted it meanwhile has woken the driver, whose next use ends it.
        self.plug.store(Some(io));
        outcome
    }

    fn write(
        &self,
        written: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.with(|io| {
            self.between_frames.store(false, Ordering::Relaxed);
            written(io)
        })
    }
}

impl<T: Transport> Wire<T> {
    pub(super) fn new(io: T, shared: Arc<Shared>) -> (Self, Arc<Link<T>>) {
        let is_write_vectored = io.is_write_vectored();
        let link = Arc::new(Link {
            plug: AtomicCell::new(Some(Box::new(io))),
            shared,
            between_frames: AtomicBool::new(false),
        });
        let (heads, allowance) = (Heads::default(), Allowance { left: SPARE, begun: 0, taken: 0 });
        (Self { link: Arc::clone(&link), heads, allowance, is_write_vectored }, link)
    }
}

impl Heads {
    /// Looks at what has come.
    fn hear(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let passed = self.payload.min(bytes.len());
            self.payload -= passed;
            bytes = &bytes[passed..];
            let (_, missing) = self.head.split_at_mut(self.len);
            let count = missing.len().min(bytes.len());
            missing[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.len += count;
            if self.len == HEAD {
                self.len = 0;
                self.look()?;
            }
        }
        Ok(())
    }

    /// At a head that is complete.
    fn look(&mut self) -> io::Result<()> {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
        if !self.is_greeted {
            self.is_greeted = kind == SETTINGS && flags & ACK == 0 && stream == [0; 4];
            if !self.is_greeted {
                let head = self.head.escape_ascii();
                let message = format!("the peer does not speak HTTP/2: it began with \"{head}\"");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        self.headers += u32::from(kind == HEADERS);
        self.empty += u32::from(kind == DATA && self.payload == 0 && flags & END_STREAM == 0);
        Ok(())
    }
}

impl Allowance {
    /// Pays for so many HEADERS frames, if it can.
    fn pay(&mut self, headers: u32, shared: &Shared) -> io::Result<()> {
        let (open, begun) = shared.counts();
        let new = u64::from(begun.wrapping_sub(core::mem::replace(&mut self.begun, begun)));
        if new > 0 {
            // What streams of the past have not used is no credit for those of the future.
            self.left = self.left.min(SPARE + EACH * u64::from(open)) + EACH * new;
        }
        let taken = shared.interim_taken();
        self.left += u64::from(taken.wrapping_sub(core::mem::replace(&mut self.taken, taken)));
        let Some(left) = self.left.checked_sub(headers.into()) else {
            let message = "the peer sends more interim responses than are taken";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        self.left = left;
        if left < SPARE {
            shared.count_interim();
        }
        Ok(())
    }
}

impl<T: Transport> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(this.link.with(|io| io.poll_read(cx, buf)))?;
        let came = &buf.filled()[before..];
        let shared = &this.link.shared;
        shared.note_received(came.len() as u64);
        let heard = this.heads.hear(came);
        if this.heads.empty > MOST_EMPTY {
            shared.end(Condition::Unusable);
        }
        Poll::Ready(heard.and_then(|()| match core::mem::take(&mut this.heads.headers) {
            0 => Ok(()),
            headers => this.allowance.pay(headers, shared),
        }))
    }
}

impl<T: Transport> AsyncWrite for Wire<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.write(|io| io.poll_write(cx, buf))
    }

    /// h2 asks for it whenever it has written all that it had: whole frames.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.with(|io| {
            let flushed = io.poll_flush(cx);
            self.link.between_frames.store(flushed.is_ready(), Ordering::Relaxed);
            flushed
        })
    }

    /// Nothing: the pool, or who has the connection last, closes the socket next, and the FIN goes
    /// out with that.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.link.write(|io| match bufs {
            // send(2) costs the kernel less than writev(2).
            [buf] => io.poll_write(cx, buf),
            bufs => io.poll_write_vectored(cx, bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.is_write_vectored
    }
}

impl<T> Drop for Wire<T> {
    fn drop(&mut self) {
        // The pool wanted it while the driver had it.
        if self.link.shared.is_closed() {
            drop(self.link.plug.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: [u8; 15] = [0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];

    #[test]
    fn heads_are_found_however_the_bytes_come() {
        let empty = [0, 0, 0, DATA, 0, 0, 0, 0, 1];
        let full = [&[0, 0, 9, DATA, 0, 0, 0, 0, 1][..], &empty].concat();
        let last = [0, 0, 0, DATA, END_STREAM, 0, 0, 0, 1];
        let said = [&GREETING[..], &empty, &full, &empty, &last].concat();
        for size in 1..=said.len() {
            let mut heads = Heads::default();
            for piece in said.chunks(size) {
                heads.hear(piece).unwrap();
            }
            assert_eq!((heads.empty, heads.len, heads.payload), (2, 0, 0), "pieces of {size}");
        }
    }

    #[test]
    fn a_peer_that_begins_with_something_else_does_not_speak_http_2() {
        let ack = [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];
        let of_a_stream = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 1];
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0];
        for head in [&ack, &of_a_stream, &ping, b"HTTP/1.1 "] {
            let mut heads = Heads::default();
            heads.hear(&head[..8]).unwrap();
            assert!(heads.hear(&head[8..]).is_err(), "{head:?}");
        }
    }
}
