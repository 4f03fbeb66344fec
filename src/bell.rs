//! A bell: whether there is something to do, and who is to hear of it.
#![allow(unreachable_pub)] // re-exported to the models

use core::task::Waker;

use crate::sync::{AtomicBool, AtomicWaker, Ordering, forget, register};

/// Rung by many, heard by one, who answers.
#[derive(Debug)]
pub struct Bell {
    rung: AtomicBool,
    hearer: AtomicWaker,
}

impl Bell {
    /// A bell that has been rung, and that nobody hears.
    pub fn rung() -> Self {
        Self { rung: AtomicBool::new(true), hearer: AtomicWaker::new() }
    }

    /// There is something to do.
    pub fn ring(&self) {
        // Release: with the swap in `answer`, after which what we ring for is looked at. A swap, so
        // that an answer to two rings comes after both: a store would cut off the other's release
        // sequence. Who rang first wakes.
        if !self.rung.swap(true, Ordering::Release) {
            self.hearer.wake();
        }
    }

    /// Whether it was rung since the last answer.
    #[inline]
    pub fn is_rung(&self) -> bool {
        // Relaxed: a glance; `answer` makes sure of it.
        self.rung.load(Ordering::Relaxed)
    }

    /// Whether it was rung, and from here on not any more.
    #[inline]
    pub fn answer(&self) -> bool {
        // Mostly it is silent, and a glance is cheaper. Acquire: with the store in `ring`.
        self.is_rung() && self.rung.swap(false, Ordering::Acquire)
    }

    /// Has a waker hear the next ring; `false` if it was rung by now, which nobody may have heard.
    pub fn listen(&self, waker: &Waker) -> bool {
        register(&self.hearer, waker);
        // After the registration: who rings in between is seen here, or wakes the waker.
        !self.is_rung()
    }

    /// Lets go of the waker that would hear it.
    pub fn hush(&self) {
        forget(&self.hearer);
    }
}
