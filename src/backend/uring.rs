//! The driver on io_uring: one ring, made and used on the shard's own thread.
//!
//! Measured facts that shape it:
//! - Two plain phases, SOCKET for all and then CONNECT for all, are as fast as linked chains with
//!   direct descriptors and have fewer traps.
//! - Where no dial is under way socket(2) costs less than a round of the ring: SOCKET is for the
//!   second of a batch and those after it.
//! - The watch of a dial that cannot lose a race is linked to its CONNECT, and saves a submission.
//! - Connect timeouts are the worker's: a LINK_TIMEOUT costs 0.4 to 1.8 µs a connection.
//! - The death watch is one POLL_ADD for RDHUP alone, one-shot, armed once per life: data does
//!   not wake it, FIN and RST complete it.
//! - An armed poll holds the file, so that a plain close(2) sends no FIN: the watch is cancelled
//!   first, by its user_data (cancelling by descriptor walks every armed poll).
//! - user_data must be unique among what is in flight, because a cancel goes by it.
#![allow(unsafe_code)]

mod dials;
mod features;
mod ring;
#[cfg(test)]
mod tally;

use core::{
    fmt,
    task::{Context, Poll},
};
use std::{
    collections::VecDeque,
    io,
    net::Shutdown,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use io_uring::{opcode, squeue, types::Fd};
use nix::libc;

use self::dials::Dial;
pub(crate) use self::ring::Ring;
#[cfg(test)]
pub(crate) use self::{
    features::{Offer, Rung},
    tally::Tally,
};
use super::{
    Departure, DialId, Driver, Ending, Event, PortConflicts, Socket, Target, ports::Ports,
};
use crate::{engine::SlotIndex, numbers::ByNumber};

/// The dials, watches and closes of a shard, as operations on its ring.
pub(crate) struct Uring {
    ring: Ring,
    dials: ByNumber<DialId, Dial>,
    /// Of each slot the serial number of its current watch; odd while one is armed.
    watches: Box<[u32]>,
    /// Descriptors given to a CLOSE that has not completed, with the number of their submission.
    closing: ByNumber<SlotIndex, (RawFd, u64)>,
    /// The same for sockets that never got into the pool, until the kernel has taken them.
    asides: Vec<(RawFd, u64)>,
    closed: VecDeque<SlotIndex>,
    ports: Ports,
    /// The operations of one close, while they are put together.
    chain: Vec<squeue::Entry>,
}

/// What a completion belongs to: an operation in bits 60 to 63, a serial number in 24 to 55 and a
/// slot below. For a watch the serial tells a late completion from that of the slot's next life;
/// for a dial it is the dial's id, and there is no slot.
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

    const fn of_dial(op: Op, id: DialId) -> u64 {
        Self { op, serial: id.0, slot: 0 }.pack()
    }

    const fn of_slot(op: Op, serial: u32, slot: SlotIndex) -> u64 {
        Self { op, serial, slot: slot.get() as u32 }.pack()
    }
}

/// The name of what needs none.
const ASIDE: u64 = Name { op: Op::Aside, serial: 0, slot: 0 }.pack();

static ON: libc::c_int = 1;
/// A close with this much patience sends an RST.
static NO_LINGER: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// How often one turn goes round before other tasks of the thread get theirs.
const ROUNDS: usize = 16;

impl Uring {
    pub(crate) fn new(ring: Ring, slots: usize, conflicts: Arc<PortConflicts>) -> Self {
        Self {
            ring,
            dials: ByNumber::default(),
            watches: vec![0; slots].into_boxed_slice(),
            closing: ByNumber::default(),
            asides: Vec::new(),
            closed: VecDeque::new(),
            ports: Ports::new(conflicts),
            chain: Vec::new(),
        }
    }

    fn begin(&mut self, id: DialId, target: &Target, watch: Option<SlotIndex>) {
        debug_assert!(!self.dials.contains_key(&id), "an id names one dial");
        if let Err(error) = self.start(id, target, watch) {
            self.ring.report(Event::Dialed(id, Err(error)));
        }
    }

    /// The operation that watches a slot's socket.
    fn arm(&mut self, slot: SlotIndex, raw: RawFd) -> squeue::Entry {
        let serial = &mut self.watches[slot.get()];
        debug_assert!(serial.is_multiple_of(2), "a slot has one watch");
        *serial = serial.wrapping_add(1);
        opcode::PollAdd::new(Fd(raw), libc::POLLRDHUP as u32).build().user_data(Name::of_slot(
            Op::Poll,
            *serial,
            slot,
        ))
    }

    /// A slot's watch is none any more, or never was: what is still said of it means nothing.
    fn forget(&mut self, slot: SlotIndex) {
        let serial = &mut self.watches[slot.get()];
        if !serial.is_multiple_of(2) {
            *serial = serial.wrapping_add(1);
        }
    }

    /// Ends a slot's watch. Returns the operation that does so, if one is armed.
    fn unwatch(&mut self, slot: SlotIndex) -> Option<squeue::Entry> {
        let serial = self.watches[slot.get()];
        if serial.is_multiple_of(2) {
            return None;
        }
        let armed = Name::of_slot(Op::Poll, serial, slot);
        self.forget(slot);
        Some(
            opcode::AsyncCancel::new(armed)
                .build()
                .user_data(ASIDE)
                .flags(self.ring.features().quiet()),
        )
    }

    /// Has the close that follows send an RST.
    fn reset(&self, raw: RawFd) -> squeue::Entry {
        let linger = opcode::SetSockOpt::new(
            Fd(raw),
            libc::SOL_SOCKET as u32,
            libc::SO_LINGER as u32,
            (&raw const NO_LINGER).cast(),
            size_of_val(&NO_LINGER) as u32,
        );
        linger.build().user_data(ASIDE).flags(self.ring.features().quiet())
    }

    fn on_completion(&mut self, name: Name, result: i32, events: &mut VecDeque<Event>) {
        let slot = SlotIndex::new(name.slot);
        match name.op {
            Op::Socket => self.on_socket(DialId(name.serial), result, events),
            Op::Connect => self.on_connect(DialId(name.serial), result, events),
            Op::Poll => {
                let serial = &mut self.watches[slot.get()];
                if *serial == name.serial {
                    *serial = serial.wrapping_add(1);
                    if result >= 0 {
                        let broke = result & i32::from(libc::POLLERR) != 0;
                        let how = if broke { Departure::Reset } else { Departure::Finished };
                        events.push_back(Event::HungUp(slot, how));
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
    fn dial(&mut self, id: DialId, target: &Target) {
        self.begin(id, target, None);
    }

    fn dial_and_watch(&mut self, id: DialId, target: &Target, slot: SlotIndex) -> bool {
        self.begin(id, target, Some(slot));
        true
    }

    fn give_up(&mut self, id: DialId) {
        self.end(id);
    }

    fn watch(&mut self, slot: SlotIndex, socket: &Socket) {
        let Some(fd) = socket.as_fd() else {
            return;
        };
        let poll = self.arm(slot, fd.as_raw_fd());
        // SAFETY: INV-4: the worker keeps the socket until the next turn has submitted this;
        // from then on the kernel holds the file itself.
        if unsafe { self.ring.push(&[poll]) }.is_err() {
            self.forget(slot);
        }
    }

    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>, how: Ending) {
        let cancel = self.unwatch(slot);
        let by_ring = self.ring.features().setsockopt;
        if let (Some(socket), Ending::Reset, false) = (&socket, how, by_ring) {
            socket.reset_on_close();
        }
        let fd = socket.and_then(|socket| match socket.into_fd() {
            Ok(fd) => Some(fd),
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
        self.chain.clear();
        // Hard links: the close follows also when the poll had fired already (ENOENT).
        self.chain.extend(cancel.map(hardlink));
        if how == Ending::Reset && by_ring {
            self.chain.push(hardlink(self.reset(raw)));
        }
        let close = opcode::Close::new(Fd(raw)).build();
        self.chain.push(close.user_data(Name::of_slot(Op::Close, 0, slot)));
        // SAFETY: INV-4: we gave up ownership with `into_raw_fd`; the poll, the only other
        // operation that refers to the file, is cancelled ahead of the close. `NO_LINGER` is
        // static.
        match unsafe { self.ring.push(&self.chain) } {
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
            // One by one, here and below: a drain of nothing, which is the rule, has its price.
            while let Some(slot) = self.closed.pop_front() {
                events.push_back(Event::Closed(slot));
            }
            let all_submitted = self.ring.submit()?;
            while let Some(event) = self.ring.reported() {
                events.push_back(event);
            }
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

fn link(entry: squeue::Entry) -> squeue::Entry {
    // `flags` adds to those that are set.
    entry.flags(squeue::Flags::IO_LINK)
}

fn hardlink(entry: squeue::Entry) -> squeue::Entry {
    // `flags` adds to those that are set.
    entry.flags(squeue::Flags::IO_HARDLINK)
}

impl Drop for Uring {
    /// Closes what the kernel was never told to close (INV-4), and what it made and nobody fetched.
    /// Whatever it was told is its own.
    fn drop(&mut self) {
        loop {
            while let Some((user_data, result)) = self.ring.completion() {
                let op = Name::unpack(user_data).map(|name| name.op);
                if op == Some(Op::Socket) && result >= 0 {
                    // SAFETY: INV-4: the kernel made this descriptor for us, and its completion,
                    // the only word of it, is ours alone.
                    drop(unsafe { OwnedFd::from_raw_fd(result) });
                }
            }
            if !self.ring.fetch_overflow() {
                break;
            }
        }
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
    use core::task::Waker;
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{SocketOptions, backend::Destination};

    /// What a descriptor of this process names; numbers alone are taken again at once.
    fn named(fd: RawFd) -> Option<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{fd}")).ok()
    }

    /// A panic, or a ring that breaks between two enters, ends a driver at any point.
    #[tokio::test]
    async fn a_socket_that_was_made_and_never_fetched_is_closed_with_its_driver() {
        if std::env::var_os("COREPOOL_TEST_NO_URING").is_some() {
            return;
        }
        let ring = Ring::new().unwrap();
        if !ring.features().socket {
            return;
        }
        let mut driver = Uring::new(ring, 4, Arc::default());
        let to = Destination::Ip(([127, 0, 0, 1], 9).into());
        let target = Target { to, options: Arc::new(SocketOptions::default()) };
        // The first gets its socket by a system call.
        (0..3).for_each(|id| driver.dial(DialId(id), &target));
        assert!(driver.ring.submit().unwrap());
        let mut made = driver.ring.glance();
        made.retain(|(name, _)| Name::unpack(*name).is_some_and(|name| name.op == Op::Socket));
        let made: Vec<_> = made.iter().map(|(_, fd)| (*fd, named(*fd).unwrap())).collect();
        assert_eq!(made.len(), 2);
        drop(driver);
        for (fd, socket) in made {
            assert_ne!(named(fd), Some(socket), "descriptor {fd} has leaked");
        }
    }

    /// More operations complete at once than their queue has places for; the kernel keeps the rest.
    #[tokio::test]
    async fn completions_above_the_queue_are_kept_and_fetched() {
        if std::env::var_os("COREPOOL_TEST_NO_URING").is_some() {
            return;
        }
        let mut driver = Uring::new(Ring::new().unwrap(), 4, Arc::default());
        let nothing = || opcode::AsyncCancel::new(ASIDE).build().user_data(ASIDE);
        let mut filled = 0;
        while !driver.ring.has_overflown() {
            // SAFETY: a cancel takes numbers only.
            unsafe { driver.ring.push(&[nothing()]) }.unwrap();
            driver.ring.submit().unwrap();
            filled += 1;
            assert!(filled <= 1 << 16, "the queue does not fill");
        }
        let to = Destination::Ip(([127, 0, 0, 1], 9).into());
        driver.dial(DialId(1), &Target { to, options: Arc::new(SocketOptions::default()) });
        let mut events = VecDeque::new();
        for _ in 0..1000 {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = driver.turn(&mut cx, &mut events).unwrap();
            if let Some(event) = events.pop_front() {
                assert!(matches!(event, Event::Dialed(DialId(1), _)), "{event:?}");
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the dial's completions are lost behind {filled} others");
    }

    #[tokio::test]
    async fn a_driver_that_is_dropped_leaves_the_sockets_of_others_alone() {
        if std::env::var_os("COREPOOL_TEST_NO_URING").is_some() {
            return;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut driver = Uring::new(Ring::new().unwrap(), 4, Arc::default());
        let to = Destination::Ip(listener.local_addr().unwrap());
        driver.dial(DialId(1), &Target { to, options: Arc::new(SocketOptions::default()) });
        let mut events = VecDeque::new();
        while events.is_empty() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = driver.turn(&mut cx, &mut events).unwrap();
            tokio::task::yield_now().await;
        }
        let Some(Event::Dialed(DialId(1), Ok(socket))) = events.pop_front() else { panic!() };
        driver.watch(SlotIndex::new(0), &socket);
        let fd = socket.as_fd().unwrap().as_raw_fd();
        let before = named(fd).unwrap();
        drop(driver);
        assert_eq!(named(fd), Some(before), "the socket is its holder's");
    }

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
