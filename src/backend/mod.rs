//! I/O only: turns duties into kernel operations and completions into events.
//!
//! A [`Driver`] belongs to one shard and runs on its thread. All three have the same four verbs:
//! dial, watch, close, and a turn that carries out what was asked and collects what happened.

mod dials;
#[cfg(target_os = "linux")]
mod epoll;
mod probe;
mod reactor;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod sim;
pub(crate) mod socket;
#[cfg(target_os = "linux")]
mod uring;

pub use probe::{Backend, ParseBackendError};
pub(crate) use probe::{Opened, open};
pub(crate) use reactor::Reactor;
pub use socket::Socket;

use core::task::{Context, Poll};
use std::{collections::VecDeque, io, net::SocketAddr};

use crate::engine::SlotIndex;

/// What a shard's worker asks of the kernel.
///
/// A slot has at most one dial, one watch and one close at a time; the slot's index names them.
pub(crate) trait Driver {
    /// Connects. [`Event::Dialed`] follows, always, also after [`Self::give_up`].
    fn dial(&mut self, slot: SlotIndex, to: SocketAddr);

    /// Ends a dial early. It may still succeed.
    fn give_up(&mut self, slot: SlotIndex);

    /// Watches for the peer's FIN or RST, once. [`Event::HungUp`] follows when one comes, unless
    /// the slot is closed before. The socket may be handed on after the next [`Self::turn`].
    fn watch(&mut self, slot: SlotIndex, socket: &Socket);

    /// Ends the watch and closes the socket, or only the watch when the socket is not the
    /// driver's to close. [`Event::Closed`] follows.
    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>);

    /// Carries out what was asked, in one batch, and collects what happened. Pending means that
    /// the task is woken when more happens.
    ///
    /// # Errors
    /// When the kernel interface itself fails: the driver is of no more use.
    fn turn(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) -> io::Result<Poll<()>>;

    /// What the driver is, for the statistics.
    fn name(&self) -> &'static str;
}

/// What happened to a slot.
#[derive(Debug)]
pub(crate) enum Event {
    /// A dial is over.
    Dialed(SlotIndex, io::Result<Socket>),
    /// The watched peer went.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))] // no watch elsewhere
    HungUp(SlotIndex),
    /// The watch is over and the socket, if it was given, is closed.
    Closed(SlotIndex),
}
