//! The driver on io_uring: one ring, made and used on the shard's own thread.
//!
//! Measured facts that shape it:
//! - Two plain phases, SOCKET for all and then CONNECT for all, are as fast as linked chains with
//!   direct descriptors and have fewer traps.
//! - Connect timeouts are the worker's: a LINK_TIMEOUT costs 0.4 to 1.8 µs a connection.
//! - The death watch is one POLL_ADD for RDHUP alone, one-shot, armed once per life: data does
//!   not wake it, FIN and RST complete it.
//! - An armed poll holds the file, so that a plain close(2) sends no FIN: the watch is cancelled
//!   first, by its user_data (cancelling by descriptor walks every armed poll).
//! - user_data must be unique among what is in flight, because a cancel goes by it.
#![allow(unsafe_code)]

mod ring;

use core::{
    fmt,
    task::{Context, Poll},
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
};

use io_uring::{opcode, squeue, types::Fd};
use nix::libc;
use socket2::SockAddr;

pub(crate) use self::ring::Ring;
use super::{Driver, Event, Socket, socket::Kind};
use crate::engine::SlotIndex;

/// The dials, watches and closes of a shard, as operations on its ring.
pub(crate) struct Uring {
    ring: Ring,
    dials: HashMap<SlotIndex, Dial>,
    /// Of each slot the serial number of its current watch; odd while one is armed.
    watches: Box<[u32]>,
    /// Descriptors given to a CLOSE that has not completed, with the number of their submission.
    closing: HashMap<SlotIndex, (RawFd, u64)>,
    /// The same for sockets that never got into the pool, until the kernel has taken them.
    asides: Vec<(RawFd, u64)>,
    closed: VecDeque<SlotIndex>,
    serial: u32,
}

/// A dial under way. Its address stays put until the kernel has answered.
struct Dial {
    serial: u32,
    to: Box<SockAddr>,
    fd: Option<OwnedFd>,
    gave_up: bool,
}

/// What a completion belongs to: an operation in bits 60 to 63, a serial number in 24 to 55 and a
/// slot below. The serial tells a late completion from that of the slot's next life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    op: Op,
    serial: u32,
    slot: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Socket = 1,
    Connect = 2,
    Poll = 3,
    Close = 4,
    /// Operations whose completion tells nothing: options, cancels, closes of failed dials.
    Aside = 5,
}

impl Name {
    const fn pack(self) -> u64 {
        (self.op as u64) << 60 | (self.serial as u64) << 24 | self.slot as u64
    }

    const fn unpack(bits: u64) -> Option<Self> {
        let op = match bits >> 60 {
            1 => Op::Socket,
            2 => Op::Connect,
            3 => Op::Poll,
            4 => Op::Close,
            5 => Op::Aside,
            _ => return None,
        };
        Some(Self { op, serial: (bits >> 24) as u32, slot: bits as u32 & 0x00ff_ffff })
    }
}

static ON: libc::c_int = 1;

/// How often one turn goes round before other tasks of the thread get theirs.
const ROUNDS: usize = 16;

impl Uring {
    pub(crate) fn new(ring: Ring, slots: usize) -> Self {
        Self {
            ring,
            dials: HashMap::new(),
            watches: vec![0; slots].into_boxed_slice(),
            closing: HashMap::new(),
            asides: Vec::new(),
            closed: VecDeque::new(),
            serial: 0,
        }
    }

    fn name(op: Op, serial: u32, slot: SlotIndex) -> u64 {
        Name { op, serial, slot: slot.get() as u32 }.pack()
    }

    fn aside(slot: SlotIndex) -> u64 {
        Self::name(Op::Aside, 0, slot)
    }

    /// Second phase: NODELAY, then CONNECT behind it in one chain; one CQE if all goes well.
    fn connect(&mut self, slot: SlotIndex, dial: Dial) -> io::Result<()> {
        let Some(fd) = dial.fd.as_ref().map(AsRawFd::as_raw_fd) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let connect = opcode::Connect::new(Fd(fd), dial.to.as_ptr().cast(), dial.to.len())
            .build()
            .user_data(Self::name(Op::Connect, dial.serial, slot));
        if self.ring.caps().setsockopt_op {
            let nodelay = opcode::SetSockOpt::new(
                Fd(fd),
                libc::IPPROTO_TCP as u32,
                libc::TCP_NODELAY as u32,
                (&raw const ON).cast(),
                size_of_val(&ON) as u32,
            )
            .build()
            .user_data(Self::aside(slot))
            .flags(squeue::Flags::IO_LINK | self.ring.caps().skip_success);
            // SAFETY: INV-4: `ON` is static; the address is boxed in the dial, which stays in
            // `dials` until the CONNECT completes; the descriptor is owned by the same dial.
            unsafe { self.ring.push(&[nodelay, connect]) }?;
        } else {
            let socket = socket2::SockRef::from(dial.fd.as_ref().expect("checked above"));
            socket.set_tcp_nodelay(true)?;
            // SAFETY: as above.
            unsafe { self.ring.push(&[connect]) }?;
        }
        self.dials.insert(slot, dial);
        Ok(())
    }

    fn start(&mut self, slot: SlotIndex, to: SocketAddr) -> io::Result<()> {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let mut dial = Dial { serial, to: Box::new(SockAddr::from(to)), fd: None, gave_up: false };
        let domain = i32::from(dial.to.family());
        if self.ring.caps().socket_op {
            let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let socket = opcode::Socket::new(domain, kind, 0).build().user_data(Self::name(
                Op::Socket,
                serial,
                slot,
            ));
            // SAFETY: SOCKET takes numbers only.
            unsafe { self.ring.push(&[socket]) }?;
            self.dials.insert(slot, dial);
            return Ok(());
        }
        let kind = socket2::Type::STREAM.nonblocking().cloexec();
        dial.fd = Some(socket2::Socket::new(domain.into(), kind, None)?.into());
        self.connect(slot, dial)
    }

    /// A socket came out of SOCKET.
    fn on_socket(&mut self, name: Name, result: i32, events: &mut VecDeque<Event>) {
        let slot = SlotIndex::new(name.slot);
        let fd = (result >= 0).then(|| {
            // SAFETY: INV-4: the kernel has just made this descriptor for us and nobody else
            // knows of it.
            unsafe { OwnedFd::from_raw_fd(result) }
        });
        let Some(mut dial) = self.take_dial(slot, name.serial) else {
            return;
        };
        let outcome = match fd {
            None => Err(io::Error::from_raw_os_error(-result)),
            Some(_) if dial.gave_up => Err(io::ErrorKind::TimedOut.into()),
            Some(fd) => {
                dial.fd = Some(fd);
                self.connect(slot, dial)
            }
        };
        if let Err(error) = outcome {
            events.push_back(Event::Dialed(slot, Err(error)));
        }
    }

    fn on_connect(&mut self, name: Name, result: i32, events: &mut VecDeque<Event>) {
        let slot = SlotIndex::new(name.slot);
        let Some(Dial { fd: Some(fd), gave_up, .. }) = self.take_dial(slot, name.serial) else {
            return;
        };
        let outcome = if result == 0 {
            Ok(Socket(Kind::Plain(fd.into())))
        } else {
            // A cancelled CONNECT leaves the socket in SYN_SENT: it has to be closed.
            self.close_aside(slot, fd);
            match -result {
                libc::ECANCELED if gave_up => Err(io::ErrorKind::TimedOut.into()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        };
        events.push_back(Event::Dialed(slot, outcome));
    }

    fn take_dial(&mut self, slot: SlotIndex, serial: u32) -> Option<Dial> {
        (self.dials.get(&slot)?.serial == serial).then(|| self.dials.remove(&slot)).flatten()
    }

    /// Closes a socket that never got into the pool.
    fn close_aside(&mut self, slot: SlotIndex, fd: OwnedFd) {
        let raw = fd.into_raw_fd();
        let close = opcode::Close::new(Fd(raw))
            .build()
            .user_data(Self::aside(slot))
            .flags(self.ring.caps().skip_success);
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

    /// Ends a slot's watch. Returns the operation that does so, if one is armed.
    fn unwatch(&mut self, slot: SlotIndex) -> Option<squeue::Entry> {
        let serial = &mut self.watches[slot.get()];
        if serial.is_multiple_of(2) {
            return None;
        }
        let armed = Self::name(Op::Poll, *serial, slot);
        *serial = serial.wrapping_add(1);
        Some(
            opcode::AsyncCancel::new(armed)
                .build()
                .user_data(Self::aside(slot))
                .flags(self.ring.caps().skip_success),
        )
    }

    fn on_completion(&mut self, name: Name, result: i32, events: &mut VecDeque<Event>) {
        let slot = SlotIndex::new(name.slot);
        match name.op {
            Op::Socket => self.on_socket(name, result, events),
            Op::Connect => self.on_connect(name, result, events),
            Op::Poll => {
                let serial = &mut self.watches[slot.get()];
                if *serial == name.serial {
                    *serial = serial.wrapping_add(1);
                    if result >= 0 {
                        events.push_back(Event::HungUp(slot));
                    }
                }
            }
            Op::Close => {
                self.closing.remove(&slot);
                events.push_back(Event::Closed(slot));
            }
            Op::Aside => {}
        }
    }
}

impl Driver for Uring {
    fn dial(&mut self, slot: SlotIndex, to: SocketAddr) {
        if let Err(error) = self.start(slot, to) {
            self.dials.remove(&slot);
            self.ring.report(Event::Dialed(slot, Err(error)));
        }
    }

    fn give_up(&mut self, slot: SlotIndex) {
        let Some(dial) = self.dials.get_mut(&slot) else {
            return;
        };
        dial.gave_up = true;
        if dial.fd.is_some() {
            let cancel = opcode::AsyncCancel::new(Self::name(Op::Connect, dial.serial, slot))
                .build()
                .user_data(Self::aside(slot))
                .flags(self.ring.caps().skip_success);
            // SAFETY: a cancel takes numbers only. If the ring is broken the next turn says so.
            let _ = unsafe { self.ring.push(&[cancel]) };
        }
    }

    fn watch(&mut self, slot: SlotIndex, socket: &Socket) {
        let Some(fd) = socket.as_fd() else {
            return;
        };
        let serial = &mut self.watches[slot.get()];
        debug_assert!(serial.is_multiple_of(2), "a slot has one watch");
        *serial = serial.wrapping_add(1);
        let poll = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLRDHUP as u32)
            .build()
            .user_data(Self::name(Op::Poll, *serial, slot));
        // SAFETY: INV-4: the worker keeps the socket until the next turn has submitted this;
        // from then on the kernel holds the file itself.
        if unsafe { self.ring.push(&[poll]) }.is_err() {
            *serial = serial.wrapping_add(1);
        }
    }

    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>) {
        let cancel = self.unwatch(slot);
        let fd = socket.and_then(|socket| match socket.into_std() {
            Ok(stream) => Some(OwnedFd::from(stream)),
            Err(error) => {
                // The reactor did not let go; the stream is dropped, which closes it.
                tracing::debug!(%error, "a socket was closed by its reactor");
                None
            }
        });
        let Some(fd) = fd else {
            if let Some(cancel) = cancel {
                // SAFETY: a cancel takes numbers only.
                let _ = unsafe { self.ring.push(&[cancel]) };
            }
            self.closed.push_back(slot);
            return;
        };
        let raw = fd.into_raw_fd();
        let close = opcode::Close::new(Fd(raw)).build().user_data(Self::name(Op::Close, 0, slot));
        // A hard link: the close follows also when the poll had fired already (ENOENT).
        let chain = cancel.map(|cancel| [hardlink(cancel), close.clone()]);
        let entries =
            chain.as_ref().map_or_else(|| core::slice::from_ref(&close), |chain| &chain[..]);
        // SAFETY: INV-4: we gave up ownership with `into_raw_fd`; the poll, the only other
        // operation that refers to the file, is cancelled ahead of the close.
        match unsafe { self.ring.push(entries) } {
            Ok(number) => {
                self.closing.insert(slot, (raw, number));
            }
            Err(_) => {
                // SAFETY: INV-4: the ring took nothing, so the descriptor is ours again.
                let fd = unsafe { OwnedFd::from_raw_fd(raw) };
                // The poll could not be cancelled and holds the file: a close alone would send no
                // FIN. This does, and it completes the poll.
                let _ = std::net::TcpStream::from(fd).shutdown(Shutdown::Both);
                self.closed.push_back(slot);
            }
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) -> io::Result<Poll<()>> {
        for _ in 0..ROUNDS {
            events.extend(self.closed.drain(..).map(Event::Closed));
            let all_submitted = self.ring.submit()?;
            events.extend(self.ring.reported());
            let submitted = self.ring.submitted();
            self.asides.retain(|(_, number)| *number > submitted);
            while let Some((user_data, result)) = self.ring.completion() {
                if let Some(name) = Name::unpack(user_data) {
                    self.on_completion(name, result, events);
                }
            }
            // The second phase of the dials that have their socket now.
            if all_submitted && self.ring.has_queued() {
                continue;
            }
            if !events.is_empty() {
                return Ok(Poll::Ready(()));
            }
            match self.ring.poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        // More to do, but the thread has other tasks too.
        Ok(Poll::Ready(()))
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

fn hardlink(entry: squeue::Entry) -> squeue::Entry {
    // `flags` adds to those that are set.
    entry.flags(squeue::Flags::IO_HARDLINK)
}

impl Drop for Uring {
    /// Closes what the kernel was never told to close (INV-4). Whatever it was told is its own.
    fn drop(&mut self) {
        let submitted = self.ring.submitted();
        let closing = self.closing.drain().map(|(_, close)| close);
        for (fd, number) in closing.chain(self.asides.drain(..)) {
            if number > submitted {
                // SAFETY: INV-4: the submission queue still holds this CLOSE and nobody will
                // ever submit it.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("ring", &self.ring)
            .field("dials", &self.dials.len())
            .field("closing", &self.closing.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_packing() {
        for op in [Op::Socket, Op::Connect, Op::Poll, Op::Close, Op::Aside] {
            for (serial, slot) in [(0, 0), (u32::MAX, 0x00ff_ffff), (7, 1)] {
                let name = Name { op, serial, slot };
                assert_eq!(Name::unpack(name.pack()), Some(name));
            }
        }
        assert_eq!(Name::unpack(0), None);
    }
}
