//! The ring itself: set-up by a ladder of flags, probing, batched submission, wake-up by tokio.

use core::{
    fmt,
    task::{Context, Poll},
};
use std::{collections::VecDeque, io, os::fd::AsRawFd};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types::Fd};
use nix::libc;
use tokio::io::{Interest, unix::AsyncFd};

use super::super::Event;

/// Submission entries: 256 take 16 KiB, and ring memory counts against `RLIMIT_MEMLOCK`.
const ENTRIES: u32 = 256;
/// Completion entries. What does not fit waits in the kernel (`IORING_FEAT_NODROP`).
const COMPLETIONS: u32 = 2048;
/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

/// What the kernel can do beyond the least that the driver needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    /// `IORING_OP_SOCKET`, 5.19.
    pub(crate) socket_op: bool,
    /// `SOCKET_URING_OP_SETSOCKOPT`, 6.7.
    pub(crate) setsockopt_op: bool,
    /// `IOSQE_CQE_SKIP_SUCCESS`, 5.17; empty where it is missing.
    pub(crate) skip_success: squeue::Flags,
    /// The rung of the ladder of set-up flags that the kernel accepted.
    pub(crate) rung: &'static str,
}

/// A ring that belongs to the current thread and is polled through its tokio runtime.
pub(crate) struct Ring {
    io: AsyncFd<IoUring>,
    caps: Caps,
    /// Entries ever pushed.
    pushed: u64,
    /// Outcomes that are known without asking the kernel.
    reports: VecDeque<Event>,
}

impl Ring {
    /// Makes a ring on this thread, which must run a tokio runtime, and tries it out.
    ///
    /// # Errors
    /// `ENOSYS`, `EPERM`, `EACCES` and `EINVAL` mean that there is no (sufficient) io_uring here,
    /// `ENOMEM` that `RLIMIT_MEMLOCK` has no room for another ring, `EMFILE` that the process is
    /// out of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (mut io, rung) = set_up()?;
        let mut probe = Probe::new();
        io.submitter().register_probe(&mut probe)?;
        for (code, name) in [
            (opcode::Connect::CODE, "CONNECT"),
            (opcode::Close::CODE, "CLOSE"),
            (opcode::PollAdd::CODE, "POLL_ADD"),
            (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        ] {
            if !probe.is_supported(code) {
                let what = format!("the kernel's io_uring has no {name}");
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        }
        if !io.params().is_feature_nodrop() || !io.params().is_feature_submit_stable() {
            let what = "the kernel's io_uring may drop completions (older than 5.5)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        // Some sandboxes allow the set-up and deny the enter.
        try_out(&mut io, &opcode::Nop::new().build())?;
        let caps = Caps {
            socket_op: probe.is_supported(opcode::Socket::CODE),
            setsockopt_op: probe.is_supported(opcode::SetSockOpt::CODE) && has_setsockopt(&mut io),
            skip_success: if io.params().is_feature_skip_cqe_on_success() {
                squeue::Flags::SKIP_SUCCESS
            } else {
                squeue::Flags::empty()
            },
            rung,
        };
        #[allow(deprecated)] // newer tokio has an unsafe twin; the ring keeps its descriptor
        let io = AsyncFd::with_interest(io, Interest::READABLE)?;
        Ok(Self { io, caps, pushed: 0, reports: VecDeque::new() })
    }

    pub(crate) fn caps(&self) -> Caps {
        self.caps
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

    /// Keeps an outcome for the next turn.
    pub(super) fn report(&mut self, event: Event) {
        self.reports.push_back(event);
    }

    pub(super) fn reported(&mut self) -> impl Iterator<Item = Event> {
        self.reports.drain(..)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("fd", &self.io.as_raw_fd())
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

/// The ladder of set-up flags: EINVAL sends us a rung down.
fn set_up() -> io::Result<(IoUring, &'static str)> {
    type Flags = fn(&mut io_uring::Builder);
    let rungs: [(Flags, &str); 3] = [
        (
            |builder| {
                // 6.0. The runtime polls the ring, so completions need no interrupt: they run at
                // the thread's next system call.
                builder.setup_single_issuer().setup_coop_taskrun();
                builder.setup_taskrun_flag().setup_submit_all();
            },
            "single_issuer, coop_taskrun",
        ),
        (
            |builder| {
                // 5.19.
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            },
            "coop_taskrun",
        ),
        (|_| {}, "plain"),
    ];
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for (flags, rung) in rungs {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).dontfork();
        flags(&mut builder);
        match builder.build(ENTRIES) {
            Ok(io) => return Ok((io, rung)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Runs one operation to its end.
fn try_out(io: &mut IoUring, entry: &squeue::Entry) -> io::Result<i32> {
    // SAFETY: the callers' entries refer to nothing, or to what outlives this call.
    unsafe { io.submission().push(entry) }.map_err(|_| io::ErrorKind::OutOfMemory)?;
    loop {
        match io.submit_and_wait(1) {
            Ok(_) => break,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    let entry = io.completion().next().ok_or(io::ErrorKind::Unsupported)?;
    Ok(entry.result())
}

/// The probe knows only URING_CMD as a whole, so the option is set for once.
fn has_setsockopt(io: &mut IoUring) -> bool {
    let Ok(socket) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
    else {
        return false;
    };
    let nodelay = opcode::SetSockOpt::new(
        Fd(socket.as_raw_fd()),
        libc::IPPROTO_TCP as u32,
        libc::TCP_NODELAY as u32,
        (&raw const super::ON).cast(),
        size_of_val(&super::ON) as u32,
    )
    .build();
    matches!(try_out(io, &nodelay), Ok(0)) && socket.tcp_nodelay().unwrap_or(false)
}
