//! The driver on tokio's own reactor: every OS, and Linux where io_uring is denied.

use core::task::{Context, Poll};
use std::{collections::VecDeque, io, net::SocketAddr};

use tokio::net::TcpSocket;

#[cfg(not(target_os = "linux"))]
use self::no_watch::Watches;
#[cfg(target_os = "linux")]
use super::epoll::Watches;
use super::{Driver, Event, Socket, dials::Dials};
use crate::engine::SlotIndex;

/// Dials through tokio; watches, on Linux, through an epoll set of its own, because tokio offers
/// no readiness of a descriptor that another task owns.
#[derive(Debug)]
pub(crate) struct Reactor {
    dials: Dials,
    watches: Watches,
    closed: VecDeque<SlotIndex>,
}

impl Reactor {
    /// # Errors
    /// When no epoll set can be had, for want of descriptors.
    pub(crate) fn new(slots: usize) -> io::Result<Self> {
        Ok(Self { dials: Dials::default(), watches: Watches::new(slots)?, closed: VecDeque::new() })
    }
}

impl Driver for Reactor {
    fn dial(&mut self, slot: SlotIndex, to: SocketAddr) {
        self.dials.start(slot, connect(to));
    }

    fn give_up(&mut self, slot: SlotIndex) {
        self.dials.give_up(slot);
    }

    fn watch(&mut self, slot: SlotIndex, socket: &Socket) {
        self.watches.arm(slot, socket);
    }

    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>) {
        self.watches.forget(slot);
        drop(socket);
        self.closed.push_back(slot);
    }

    fn turn(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) -> io::Result<Poll<()>> {
        events.extend(self.closed.drain(..).map(Event::Closed));
        self.dials.collect(cx, events);
        self.watches.collect(cx, events)?;
        Ok(if events.is_empty() { Poll::Pending } else { Poll::Ready(()) })
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}

async fn connect(to: SocketAddr) -> io::Result<Socket> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    Ok(socket.connect(to).await?.into())
}

/// Other systems have no watch: a dead connection is met by the look at tokio's readiness at
/// checkout, and otherwise rests until its idle timeout.
#[cfg(not(target_os = "linux"))]
mod no_watch {
    use super::*;

    #[derive(Debug)]
    pub(super) struct Watches;

    impl Watches {
        pub(super) fn new(_slots: usize) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn arm(&mut self, _slot: SlotIndex, _socket: &Socket) {}

        pub(super) fn forget(&mut self, _slot: SlotIndex) {}

        pub(super) fn collect(
            &mut self,
            _cx: &mut Context<'_>,
            _events: &mut VecDeque<Event>,
        ) -> io::Result<()> {
            Ok(())
        }
    }
}
