//! Death watch by epoll: a set of the shard's own, polled through tokio's reactor.

use core::task::{Context, Poll};
use std::{collections::VecDeque, io, os::fd::AsFd};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use tokio::io::unix::AsyncFd;

use super::{Departure, Event, Socket};
use crate::engine::SlotIndex;

/// The watched sockets of a shard.
///
/// Armed once per life, one-shot, for RDHUP alone, so that data does not wake it. Nothing is
/// taken off the set: closing a socket takes it off, and the event of a watch that was forgotten
/// is told by its serial number.
#[derive(Debug)]
pub(super) struct Watches {
    set: AsyncFd<Set>,
    /// Of each slot the serial number of its current watch; odd while one is armed.
    serials: Box<[u32]>,
}

#[derive(Debug)]
struct Set(Epoll);

impl std::os::fd::AsRawFd for Set {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0.0.as_fd())
    }
}

/// Events asked for in one go.
const BATCH: usize = 64;

impl Watches {
    pub(super) fn new(slots: usize) -> io::Result<Self> {
        let set = Set(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        #[allow(deprecated)] // newer tokio has an unsafe twin; `Set` owns its descriptor for life
        let set = AsyncFd::with_interest(set, tokio::io::Interest::READABLE)?;
        Ok(Self { set, serials: vec![0; slots].into_boxed_slice() })
    }

    pub(super) fn arm(&mut self, slot: SlotIndex, socket: &Socket) {
        self.forget(slot);
        let Some(fd) = socket.as_fd() else {
            return;
        };
        let serial = &mut self.serials[slot.get()];
        *serial = serial.wrapping_add(1);
        let name = u64::from(*serial) << 32 | slot.get() as u64;
        let event = EpollEvent::new(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLONESHOT, name);
        if let Err(error) = self.set.get_ref().0.add(fd, event) {
            // Out of watches (fs.epoll.max_user_watches) or memory: the connection is good all
            // the same, and the look at checkout finds it dead if it dies.
            tracing::warn!(%error, "a pooled connection goes unwatched");
            self.forget(slot);
        }
    }

    pub(super) fn forget(&mut self, slot: SlotIndex) {
        let serial = &mut self.serials[slot.get()];
        if *serial % 2 == 1 {
            *serial = serial.wrapping_add(1);
        }
    }

    pub(super) fn collect(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<Event>,
    ) -> io::Result<()> {
        while let Poll::Ready(ready) = self.set.poll_read_ready(cx) {
            ready?.clear_ready();
            // Cleared before the set is read to its end, so that what comes in between wakes us.
            loop {
                let mut found = [EpollEvent::empty(); BATCH];
                let count = match self.set.get_ref().0.wait(&mut found, EpollTimeout::ZERO) {
                    Ok(count) => count,
                    Err(Errno::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                for event in &found[..count] {
                    let (serial, slot) = ((event.data() >> 32) as u32, event.data() as u32);
                    let current = &mut self.serials[slot as usize];
                    if *current == serial {
                        *current = serial.wrapping_add(1);
                        let how = if event.events().contains(EpollFlags::EPOLLERR) {
                            Departure::Reset
                        } else {
                            Departure::Finished
                        };
                        events.push_back(Event::HungUp(SlotIndex::new(slot), how));
                    }
                }
                if count < found.len() {
                    break;
                }
            }
        }
        Ok(())
    }
}
