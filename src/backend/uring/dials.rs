//! A dial on the ring: SOCKET, then what its options ask for, then CONNECT.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
};

use io_uring::{opcode, types::Fd};
use nix::libc;
use socket2::{SockAddr, SockRef};

use super::{
    super::{
        Destination, DialId, Event, Socket, Target, options, ports, ports::Choice, socket::Kind,
        target::unix_failure,
    },
    ASIDE, Name, ON, Op, Uring, link,
};
use crate::engine::SlotIndex;

/// A dial under way. Its address stays put until the kernel has answered.
pub(super) struct Dial {
    to: Box<SockAddr>,
    target: Target,
    fd: Option<OwnedFd>,
    /// Connects that found no port where they looked.
    tries: u8,
    gave_up: bool,
    /// The slot whose watch follows the connect.
    watch: Option<SlotIndex>,
}

impl Dial {
    fn is_ip(&self) -> bool {
        matches!(self.target.to, Destination::Ip(_))
    }
}

impl Uring {
    /// First phase: a socket. The ring makes those of a batch; where no dial is under way, socket(2)
    /// costs less than a round of the ring, and for the first of a batch it makes no difference.
    pub(super) fn start(
        &mut self,
        id: DialId,
        target: &Target,
        watch: Option<SlotIndex>,
    ) -> io::Result<()> {
        let to = match &target.to {
            Destination::Ip(to) => SockAddr::from(*to),
            Destination::Unix(path) => SockAddr::unix(path)?,
        };
        let domain = to.domain();
        let target = target.clone();
        let to = Box::new(to);
        let mut dial = Dial { to, target, fd: None, tries: 0, gave_up: false, watch };
        if self.ring.features().socket && !self.dials.is_empty() {
            let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let socket = opcode::Socket::new(domain.into(), kind, 0)
                .build()
                .user_data(Name::of_dial(Op::Socket, id));
            // SAFETY: SOCKET takes numbers only.
            unsafe { self.ring.push(&[socket]) }?;
            self.dials.insert(id, dial);
            return Ok(());
        }
        let kind = socket2::Type::STREAM.nonblocking().cloexec();
        dial.fd = Some(socket2::Socket::new(domain, kind, None)?.into());
        self.set_up(id, dial)
    }

    /// Ends a dial early. A CONNECT that it has in flight is cancelled; the one that it may be
    /// about to make is not made.
    pub(super) fn end(&mut self, id: DialId) {
        let Some(dial) = self.dials.get_mut(&id) else {
            return;
        };
        dial.gave_up = true;
        if dial.fd.is_some() {
            let cancel = opcode::AsyncCancel::new(Name::of_dial(Op::Connect, id))
                .build()
                .user_data(ASIDE)
                .flags(self.ring.features().quiet());
            // SAFETY: a cancel takes numbers only. If the ring is broken the next turn says so.
            let _ = unsafe { self.ring.push(&[cancel]) };
        }
    }

    /// Second phase: the options, by a system call each, and the first connect. With none but
    /// `TCP_NODELAY` there is no system call.
    fn set_up(&mut self, id: DialId, dial: Dial) -> io::Result<()> {
        let Some(fd) = &dial.fd else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let asked = &*dial.target.options;
        let choice = match &dial.target.to {
            Destination::Ip(to) => {
                options::set_up_tcp(&SockRef::from(fd), to.ip(), asked)?;
                self.ports.choose(asked, 0).unwrap_or(Choice::Any)
            }
            Destination::Unix(_) => {
                options::run_hook(fd, asked)?;
                Choice::Any
            }
        };
        let nodelay = dial.is_ip() && asked.nodelay;
        self.connect(id, dial, choice, nodelay)
    }

    /// CONNECT, with NODELAY ahead of it and the watch behind it in one chain, as they are asked for;
    /// one CQE if all goes well. Of a chain that breaks the kernel does nothing more.
    fn connect(&mut self, id: DialId, dial: Dial, choice: Choice, nodelay: bool) -> io::Result<()> {
        let Some(fd) = &dial.fd else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        self.ports.confine(fd.as_fd(), choice)?;
        let raw = fd.as_raw_fd();
        let connect = opcode::Connect::new(Fd(raw), dial.to.as_ptr().cast(), dial.to.len())
            .build()
            .user_data(Name::of_dial(Op::Connect, id));
        let by_ring = self.ring.features().setsockopt;
        if nodelay && !by_ring {
            SockRef::from(fd).set_tcp_nodelay(true)?;
        }
        self.chain.clear();
        if nodelay && by_ring {
            let nodelay = opcode::SetSockOpt::new(
                Fd(raw),
                libc::IPPROTO_TCP as u32,
                libc::TCP_NODELAY as u32,
                (&raw const ON).cast(),
                size_of_val(&ON) as u32,
            );
            let quiet = self.ring.features().quiet();
            self.chain.push(link(nodelay.build().user_data(ASIDE).flags(quiet)));
        }
        match dial.watch {
            Some(slot) => {
                let watch = self.arm(slot, raw);
                self.chain.extend([link(connect), watch]);
            }
            None => self.chain.push(connect),
        }
        // SAFETY: INV-4: `ON` is static; the address is boxed in the dial, which stays in `dials`
        // until the CONNECT completes; the descriptor is owned by the same dial until then. The poll
        // follows in the kernel before this thread is back from there with the CONNECT's completion,
        // and holds the file itself.
        if let Err(error) = unsafe { self.ring.push(&self.chain) } {
            self.disarm(&dial);
            return Err(error);
        }
        self.dials.insert(id, dial);
        Ok(())
    }

    /// A socket came out of SOCKET.
    pub(super) fn on_socket(&mut self, id: DialId, result: i32, events: &mut VecDeque<Event>) {
        let fd = (result >= 0).then(|| {
            // SAFETY: INV-4: the kernel has just made this descriptor for us and nobody else
            // knows of it.
            unsafe { OwnedFd::from_raw_fd(result) }
        });
        let Some(mut dial) = self.dials.remove(&id) else {
            return;
        };
        let outcome = match fd {
            None => Err(io::Error::from_raw_os_error(-result)),
            Some(_) if dial.gave_up => Err(io::ErrorKind::TimedOut.into()),
            Some(fd) => {
                dial.fd = Some(fd);
                self.set_up(id, dial)
            }
        };
        if let Err(error) = outcome {
            events.push_back(Event::Dialed(id, Err(error)));
        }
    }

    pub(super) fn on_connect(&mut self, id: DialId, result: i32, events: &mut VecDeque<Event>) {
        let Some(mut dial) = self.dials.remove(&id) else {
            return;
        };
        let Some(fd) = dial.fd.take() else {
            return;
        };
        let error = match -result {
            // Linux (6.18) also says 0 of a connect that an ICMP error ended. The watch tells, and
            // the worker asks where it matters: not by a system call for each dial.
            0 => None,
            libc::ECANCELED if dial.gave_up => Some(io::ErrorKind::TimedOut.into()),
            errno => Some(io::Error::from_raw_os_error(errno)),
        };
        let Some(mut error) = error else {
            let kind =
                if dial.is_ip() { Kind::Plain(fd.into()) } else { Kind::PlainUnix(fd.into()) };
            events.push_back(Event::Dialed(id, Ok(Socket(kind))));
            return;
        };
        if !dial.is_ip() {
            error = unix_failure(error);
        } else if ports::is_conflict(&error) {
            self.ports.conflict();
            dial.tries = dial.tries.saturating_add(1);
            let choice = self.ports.choose(&dial.target.options, dial.tries);
            if let Some(choice) = choice.filter(|_| !dial.gave_up) {
                dial.fd = Some(fd);
                self.disarm(&dial);
                if let Err(error) = self.connect(id, dial, choice, false) {
                    events.push_back(Event::Dialed(id, Err(error)));
                }
                return;
            }
        }
        self.disarm(&dial);
        // A cancelled CONNECT leaves the socket in SYN_SENT: it has to be closed.
        self.close_aside(fd);
        events.push_back(Event::Dialed(id, Err(error)));
    }

    /// The watch of a dial whose chain broke was never armed.
    fn disarm(&mut self, dial: &Dial) {
        if let Some(slot) = dial.watch {
            self.forget(slot);
        }
    }

    /// Closes a socket that never got into the pool.
    fn close_aside(&mut self, fd: OwnedFd) {
        let raw = fd.into_raw_fd();
        let close = opcode::Close::new(Fd(raw))
            .build()
            .user_data(ASIDE)
            .flags(self.ring.features().quiet());
        // SAFETY: INV-4: we gave up ownership with `into_raw_fd`, and nothing in flight but this
        // refers to the descriptor: its CONNECT has completed.
        match unsafe { self.ring.push(&[close]) } {
            Ok(number) => self.asides.push((raw, number)),
            Err(_) => {
                // SAFETY: INV-4: the ring took nothing, so the descriptor is ours again.
                drop(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
    }
}
