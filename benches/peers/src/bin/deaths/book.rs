//! What the client writes down while the origin closes.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};

use crate::{
    away::{self, Gap},
    clock::now,
};

/// The record of one scenario.
#[derive(Debug, Default)]
pub struct Book {
    evicted: Mutex<Vec<(u16, u64)>>,
    dead: Mutex<Vec<Dead>>,
    checkouts: AtomicU64,
}

/// A connection that was handed out although its peer had gone.
#[derive(Clone, Debug)]
pub struct Dead {
    pub port: u16,
    /// The clock before the checkout.
    pub called: u64,
    /// Whether it was another thread's, so that its death was that one's to see.
    pub stolen: bool,
    /// When the thread did not run, of late.
    pub gaps: Vec<Gap>,
}

impl Book {
    /// The pool lets go of a connection.
    pub fn evict(&self, port: u16) {
        let at = now();
        self.evicted.lock().expect("nobody panics with it").push((port, at));
    }

    /// A dead connection was handed out, on this thread, to who asked for it at `called`.
    pub fn hand_out_dead(&self, port: u16, called: u64, stolen: bool) {
        let dead = Dead { port, called, stolen, gaps: away::gaps() };
        self.dead.lock().expect("nobody panics with it").push(dead);
    }

    /// A connection was handed out.
    pub fn check_out(&self) {
        // Relaxed: a count, read when all is over.
        self.checkouts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn checkouts(&self) -> u64 {
        self.checkouts.load(Ordering::Relaxed)
    }

    pub fn evicted(&self) -> Vec<(u16, u64)> {
        self.evicted.lock().expect("nobody panics with it").clone()
    }

    pub fn dead(&self) -> Vec<Dead> {
        self.dead.lock().expect("nobody panics with it").clone()
    }
}

/// Whether the kernel knows that the peer of a socket has gone.
pub fn is_dead(fd: BorrowedFd<'_>) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !matches!(recv(fd.as_raw_fd(), &mut [0; 1], flags), Err(Errno::EAGAIN) | Ok(1..))
}
