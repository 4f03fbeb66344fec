//! I/O only: turns duties into kernel operations and completions into events.
//!
//! A [`Driver`] belongs to one shard and runs on its thread. All three have the same four verbs:
//! dial, watch, close, and a turn that carries out what was asked and collects what happened.

mod dials;
#[cfg(target_os = "linux")]
mod epoll;
mod options;
mod ports;
mod probe;
mod reactor;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod sim;
pub(crate) mod socket;
mod target;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(target_os = "linux")]
mod uring;

pub(crate) use options::is_refused;
pub(crate) use ports::PortConflicts;
pub use probe::{Backend, ParseBackendError};
pub(crate) use probe::{Opened, open};
pub(crate) use reactor::Reactor;
pub use socket::Socket;
pub(crate) use target::{Destination, DialId, Target};

use core::task::{Context, Poll};
use std::{collections::VecDeque, io};

use crate::engine::SlotIndex;

/// What a shard's worker asks of the kernel.
///
/// A dial has a name of its own; a slot has at most one watch and one close at a time, which the
/// slot's index names.
pub(crate) trait Driver {
    /// Connects. [`Event::Dialed`] follows, always, also after [`Self::give_up`]; until then the
    /// id must not be given to another dial.
    fn dial(&mut self, id: DialId, target: &Target);

    /// Connects for a slot and, where one step can do both, has [`Self::watch`] follow the connect in
    /// the kernel itself: `true`. Then the socket that comes of it is watched already and may be handed
    /// on at once; of a dial that fails no watch is left.
    fn dial_and_watch(&mut self, id: DialId, target: &Target, slot: SlotIndex) -> bool {
        let _ = slot;
        self.dial(id, target);
        false
    }

    /// Ends a dial early. It may still succeed.
    fn give_up(&mut self, id: DialId);

    /// Watches for the peer's FIN or RST, once. [`Event::HungUp`] follows when one comes, unless
    /// the slot is closed before. The socket may be handed on after the next [`Self::turn`].
    fn watch(&mut self, slot: SlotIndex, socket: &Socket);

    /// Ends the watch and closes the socket, or only the watch when the socket is not the
    /// driver's to close. [`Event::Closed`] follows.
    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>, how: Ending);

    /// Carries out what was asked, in one batch, and collects what happened. Pending means that
    /// the task is woken when more happens.
    ///
    /// # Errors
    /// When the kernel interface itself fails: the driver is of no more use.
    fn turn(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) -> io::Result<Poll<()>>;

    /// What the driver is, for the statistics.
    fn name(&self) -> &'static str;

    /// Who takes over once this one has failed; `None` for tokio's reactor.
    fn successor(&self) -> Option<Box<dyn Driver>> {
        None
    }
}

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order: what was written is sent, then a FIN.
    Fin,
    /// At once, by an RST: the peer learns that nothing more comes, and neither side keeps the
    /// ports in `TIME_WAIT`. Unix sockets end in order all the same.
    Reset,
}

/// How a watched peer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // no watch elsewhere
pub(crate) enum Departure {
    /// It sent a FIN.
    Finished,
    /// The connection broke: an RST, or the network's word that the peer is out of reach.
    Reset,
}

/// What happened to a dial or a slot.
#[derive(Debug)]
pub(crate) enum Event {
    /// A dial is over.
    Dialed(DialId, io::Result<Socket>),
    /// The watched peer went.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))] // no watch elsewhere
    HungUp(SlotIndex, Departure),
    /// The watch is over and the socket, if it was given, is closed.
    Closed(SlotIndex),
}
