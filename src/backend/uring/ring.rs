//! The ring itself: set-up by a ladder of flags, batched submission, wake-up by tokio.

use core::{
    fmt,
    task::{Context, Poll},
};
use std::{collections::VecDeque, io, os::fd::AsRawFd};

use io_uring::{IoUring, cqueue, squeue};
use nix::libc;
use tokio::io::{Interest, unix::AsyncFd};

#[cfg(test)]
use super::tally::Tally;
use super::{
    super::Event,
    features::{Features, Offer, Rung},
};

/// Submission entries: 256 take 16 KiB, and ring memory counts against `RLIMIT_MEMLOCK`.
const ENTRIES: u32 = 256;
/// Completion entries. What does not fit waits in the kernel (`IORING_FEAT_NODROP`).
const COMPLETIONS: u32 = 2048;
/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

/// A ring that belongs to the current thread and is polled through its tokio runtime.
pub(crate) struct Ring {
    io: AsyncFd<IoUring>,
    features: Features,
    /// Entries ever pushed.
    pushed: u64,
    /// Outcomes that are known without asking the kernel.
    reports: VecDeque<Event>,
    #[cfg(test)]
    tally: Tally,
}

impl Ring {
    /// Makes a ring on this thread, which must run a tokio runtime, and tries it out.
    ///
    /// # Errors
    /// `ENOSYS`, `EPERM`, `EACCES` and `EINVAL` mean that there is no (sufficient) io_uring here,
    /// `ENOMEM` that `RLIMIT_MEMLOCK` has no room for another ring, `EMFILE` that the process is
    /// out of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (mut io, rung) = set_up(&Rung::LADDER)?;
        let offer = Offer::of(&mut io, rung)?;
        Self::make(io, &offer)
    }

    /// A ring as an older kernel would have it: `lose` takes away what that one has not.
    ///
    /// # Errors
    /// As for [`Self::new`].
    #[cfg(test)]
    pub(crate) fn on_older(top: Rung, lose: fn(&mut Offer)) -> io::Result<Self> {
        let rungs: Vec<Rung> = Rung::LADDER.into_iter().filter(|rung| *rung >= top).collect();
        let (mut io, rung) = set_up(&rungs)?;
        let mut offer = Offer::of(&mut io, rung)?;
        lose(&mut offer);
        Self::make(io, &offer)
    }

    fn make(io: IoUring, offer: &Offer) -> io::Result<Self> {
        let features = Features::choose(offer)?;
        #[allow(deprecated)] // newer tokio has an unsafe twin; the ring keeps its descriptor
        let io = AsyncFd::with_interest(io, Interest::READABLE)?;
        Ok(Self {
            io,
            features,
            pushed: 0,
            reports: VecDeque::new(),
            #[cfg(test)]
            tally: Tally::default(),
        })
    }

    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Queues entries that belong together, for the next submission. Returns the number of the
    /// last; see [`Self::submitted`].
    ///
    /// # Errors
    /// When the ring is broken; then it took none of them.
    ///
    /// # Safety
    /// What the entries refer to must stay valid until they complete.
    pub(super) unsafe fn push(&mut self, entries: &[squeue::Entry]) -> io::Result<u64> {
        let room = |io: &mut IoUring| {
            let queue = io.submission();
            queue.capacity() - queue.len()
        };
        if room(self.io.get_mut()) < entries.len() {
            self.submit()?;
            if room(self.io.get_mut()) < entries.len() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.io.get_mut().submission().push_multiple(entries) }
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.pushed += entries.len() as u64;
        #[cfg(test)]
        self.tally.pushed(entries);
        Ok(self.pushed)
    }

    pub(super) fn has_queued(&mut self) -> bool {
        !self.io.get_mut().submission().is_empty()
    }

    /// The number of the last entry that the kernel has taken.
    pub(super) fn submitted(&mut self) -> u64 {
        self.pushed - self.io.get_mut().submission().len() as u64
    }

    /// Tells the kernel what is queued, and lets it run completions that wait for an enter.
    /// `false` when it cannot take all of it now: reap, and try again on a later turn.
    pub(super) fn submit(&mut self) -> io::Result<bool> {
        let io = self.io.get_mut();
        loop {
            let queue = io.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(true);
            }
            drop(queue);
            match io.submit() {
                Ok(_) if io.submission().is_empty() => return Ok(true),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The completion queue is full, or memory is short.
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(false),
                    _ => return Err(error),
                },
            }
        }
    }

    /// The next completion: its user_data and result.
    pub(super) fn completion(&mut self) -> Option<(u64, i32)> {
        let entry: cqueue::Entry = self.io.get_mut().completion().next()?;
        #[cfg(test)]
        self.tally.completed();
        Some((entry.user_data(), entry.result()))
    }

    /// Has completions that found no place in their queue moved there, without a submission; `false`
    /// when there is none.
    pub(super) fn fetch_overflow(&mut self) -> bool {
        let io = self.io.get_mut();
        if !io.submission().cq_overflow() {
            return false;
        }
        // SAFETY: nothing is submitted, and there is no argument.
        let fetched = unsafe { io.submitter().enter::<()>(0, 0, GET_EVENTS, None) };
        fetched.is_ok() && !io.completion().is_empty()
    }

    /// Whether completions wait in the kernel for want of a place.
    #[cfg(test)]
    pub(super) fn has_overflown(&mut self) -> bool {
        self.io.get_mut().submission().cq_overflow()
    }

    /// What a turn would find, left where it is.
    #[cfg(test)]
    pub(super) fn glance(&mut self) -> Vec<(u64, i32)> {
        let mut queue = self.io.get_mut().completion();
        let found = queue.by_ref().map(|entry| (entry.user_data(), entry.result())).collect();
        // Its drop would tell the kernel that they were taken.
        core::mem::forget(queue);
        found
    }

    /// Ready when the ring may have completions; the task is woken otherwise.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Cleared before the queue is read again, so that what comes in between wakes us.
        self.io.poll_read_ready(cx).map(|ready| ready.map(|mut ready| ready.clear_ready()))
    }

    /// What it was asked and answered so far.
    #[cfg(test)]
    pub(crate) fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Keeps an outcome for the next turn.
    pub(super) fn report(&mut self, event: Event) {
        self.reports.push_back(event);
    }

    /// The next outcome that was kept.
    pub(super) fn reported(&mut self) -> Option<Event> {
        self.reports.pop_front()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("fd", &self.io.as_raw_fd())
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// The ladder of set-up flags: EINVAL sends us a rung down.
fn set_up(ladder: &[Rung]) -> io::Result<(IoUring, Rung)> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for &rung in ladder {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).dontfork();
        rung.ask(&mut builder);
        match builder.build(ENTRIES) {
            Ok(io) => return Ok((io, rung)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
