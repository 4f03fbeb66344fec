//! The driver on tokio's own reactor: every OS, and Linux where io_uring is denied.

use core::task::{Context, Poll};
use std::{collections::VecDeque, io, net::SocketAddr, rc::Rc, sync::Arc};

use socket2::SockRef;
use tokio::net::TcpSocket;

#[cfg(not(target_os = "linux"))]
use self::no_watch::Watches;
#[cfg(target_os = "linux")]
use super::epoll::Watches;
use super::{
    Destination, DialId, Driver, Ending, Event, PortConflicts, Socket, Target, dials::Dials,
    options, ports, ports::Ports,
};
use crate::{engine::SlotIndex, sockets::SocketOptions};

/// Dials through tokio; watches, on Linux, through an epoll set of its own, because tokio offers
/// no readiness of a descriptor that another task owns.
#[derive(Debug)]
pub(crate) struct Reactor {
    dials: Dials,
    watches: Watches,
    closed: VecDeque<SlotIndex>,
    ports: Rc<Ports>,
}

impl Reactor {
    /// # Errors
    /// When no epoll set can be had, for want of descriptors.
    pub(crate) fn new(slots: usize, conflicts: Arc<PortConflicts>) -> io::Result<Self> {
        Ok(Self {
            dials: Dials::default(),
            watches: Watches::new(slots)?,
            closed: VecDeque::new(),
            ports: Rc::new(Ports::new(conflicts)),
        })
    }
}

impl Driver for Reactor {
    fn dial(&mut self, id: DialId, target: &Target) {
        let options = Arc::clone(&target.options);
        match &target.to {
            Destination::Ip(to) => {
                self.dials.start(id, connect(*to, options, Rc::clone(&self.ports)));
            }
            #[cfg(unix)]
            Destination::Unix(path) => {
                self.dials.start(id, connect_unix(Arc::clone(path), options));
            }
        }
    }

    fn give_up(&mut self, id: DialId) {
        self.dials.give_up(id);
    }

    fn watch(&mut self, slot: SlotIndex, socket: &Socket) {
        self.watches.arm(slot, socket);
    }

    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>, how: Ending) {
        self.watches.forget(slot);
        if let (Some(socket), Ending::Reset) = (&socket, how) {
            socket.reset_on_close();
        }
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

/// A socket for each choice of ports: tokio's connect does not give one back.
async fn connect(
    to: SocketAddr,
    options: Arc<SocketOptions>,
    ports: Rc<Ports>,
) -> io::Result<Socket> {
    let mut tries = 0;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    while let Some(choice) = ports.choose(&options, tries) {
        tries += 1;
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if options.nodelay {
            socket.set_nodelay(true)?;
        }
        options::set_up_tcp(&SockRef::from(&socket), to.ip(), &options)?;
        #[cfg(target_os = "linux")]
        ports.confine(std::os::fd::AsFd::as_fd(&socket), choice)?;
        #[cfg(not(target_os = "linux"))]
        ports.confine(&socket, choice)?;
        match socket.connect(to).await {
            Ok(stream) => return Ok(stream.into()),
            Err(error) if ports::is_conflict(&error) => {
                ports.conflict();
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[cfg(unix)]
async fn connect_unix(
    path: Arc<std::path::Path>,
    options: Arc<SocketOptions>,
) -> io::Result<Socket> {
    let socket = tokio::net::UnixSocket::new_stream()?;
    options::run_hook(&socket, &options)?;
    let stream = socket.connect(path).await.map_err(super::target::unix_failure)?;
    Ok(stream.into())
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
