//! Callers that wait, in strict order of arrival, and the direct hand-off to them.

use core::{
    fmt,
    task::{Context, Poll},
};

use super::ring::{Inbox, Letter, Ring};
use crate::sync::{
    Arc, AtomicBool, AtomicU8, AtomicU32, AtomicWaker, Ordering, register as register_waker,
};

/// One caller's place in the queue and its letter box.
///
/// ```text
///            fill                 take
///   WAITING ──────▶ FILLED ──────────────▶ (outcome is the caller's)
///      │ cancel        │ cancel: hands the outcome over
///      ▼               ▼
///   CANCELLED       (outcome is the canceller's)
/// ```
/// Whoever popped a waiter from the queue is the only one that may fill it, so the letter box has
/// one writer; the caller reads it only after `FILLED`.
pub struct Waiter<V> {
    state: AtomicU8,
    waker: AtomicWaker,
    outcome: Letter<V>,
    in_line: bool,
}

const WAITING: u8 = 0;
const FILLED: u8 = 1;
const CANCELLED: u8 = 2;

impl<V> Waiter<V> {
    fn new(in_line: bool) -> Self {
        Self {
            state: AtomicU8::new(WAITING),
            waker: AtomicWaker::new(),
            outcome: Letter::new(),
            in_line,
        }
    }

    /// A caller that stands in no queue: a dial of its own will fill it.
    pub(super) fn alone() -> Self {
        Self::new(false)
    }

    /// Whether it stands, or stood, in a group's queue.
    pub fn is_in_line(&self) -> bool {
        self.in_line
    }

    /// Hands the outcome over. [`Self::wake`] follows, once the counts are settled, so that the
    /// caller does not run into its own waiting.
    ///
    /// # Errors
    /// Gives the outcome back when the caller has left. Of `fill` and `cancel` exactly one wins:
    /// - fill first: cancel finds `FILLED` and takes the outcome on;
    /// - cancel first: fill finds `CANCELLED` and takes the outcome back.
    pub fn fill(&self, outcome: V) -> Result<(), V> {
        if let Err(outcome) = self.outcome.put(outcome) {
            debug_assert!(false, "a waiter is filled by the one that popped it");
            return Err(outcome);
        }
        // Release: publishes the outcome; pairs with the Acquire in `poll` and `cancel`.
        // Acquire on failure is not needed: the letter box is still ours.
        match self.state.compare_exchange(WAITING, FILLED, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => match self.outcome.take() {
                Some(outcome) => Err(outcome),
                // Only the filler and, after FILLED, the caller pop.
                None => unreachable!("a cancelled caller leaves the letter box alone"),
            },
        }
    }

    /// Wakes the caller to its outcome.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Whether the outcome is there: a glance.
    pub fn is_filled(&self) -> bool {
        // Relaxed: who acts on it goes through `poll` or `cancel`.
        self.state.load(Ordering::Relaxed) == FILLED
    }

    /// The outcome once it is there. Not to be polled again after that.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<V> {
        register_waker(&self.waker, cx.waker());
        // Acquire: pairs with the Release in `fill`. Registered first, looked second, so that a
        // fill in between wakes us.
        if self.state.load(Ordering::Acquire) != FILLED {
            return Poll::Pending;
        }
        self.outcome.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// The caller leaves. Returns what was handed over just before and is now the caller's to
    /// put back.
    pub fn cancel(&self) -> Cancelled<V> {
        match self.state.compare_exchange(
            WAITING,
            CANCELLED,
            Ordering::AcqRel,
            // Acquire: sees the outcome that `fill` released.
            Ordering::Acquire,
        ) {
            Ok(_) => Cancelled::InTime,
            Err(_) => Cancelled::TooLate(self.outcome.take()),
        }
    }

    /// What the caller would be handed, without taking it. For a single thread that checks.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub(super) fn peek<R>(&self, look: impl FnOnce(&V) -> R) -> Option<R> {
        // Relaxed: one thread.
        if self.state.load(Ordering::Relaxed) != FILLED {
            return None;
        }
        let outcome = self.outcome.take()?;
        let seen = look(&outcome);
        let put = self.outcome.put(outcome);
        debug_assert!(put.is_ok(), "nobody else fills it");
        Some(seen)
    }

    fn is_cancelled(&self) -> bool {
        // Relaxed: only decides whether a place in the queue is worth keeping.
        self.state.load(Ordering::Relaxed) == CANCELLED
    }
}

/// How a caller's leaving went.
#[derive(Debug)]
#[must_use = "an outcome that was handed over must be put back"]
pub enum Cancelled<V> {
    /// It was waiting still; whoever counted it must count it no more.
    InTime,
    /// It had been served: here is the outcome, unless the caller took it itself.
    TooLate(Option<V>),
}

impl<V> fmt::Debug for Waiter<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state.load(Ordering::Relaxed) {
            WAITING => "waiting",
            FILLED => "filled",
            _ => "cancelled",
        };
        f.debug_tuple("Waiter").field(&state).finish()
    }
}

/// The queue of a group's waiters, oldest first.
///
/// Bounded by `Demand::register`, which counts live waiters, and by [`Self::is_clogged`], which
/// counts those that left but still stand in the queue.
#[derive(Debug)]
pub struct Waiters<V> {
    queue: Inbox<Arc<Waiter<V>>>,
    /// The oldest, when the purge met it alive and may not put it at the end.
    front: Ring<Arc<Waiter<V>>>,
    /// Those in the queue that were cancelled.
    left: AtomicU32,
    purging: AtomicBool,
}

impl<V> Waiters<V> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            queue: Inbox::new(),
            front: Ring::new(1),
            left: AtomicU32::new(0),
            purging: AtomicBool::new(false),
        }
    }

    /// Takes the last place in the queue.
    pub fn enter(&self) -> Arc<Waiter<V>> {
        let waiter = Arc::new(Waiter::new(true));
        self.queue.push(Arc::clone(&waiter));
        waiter
    }

    /// The first caller in the queue that has not left.
    pub fn next(&self) -> Option<Arc<Waiter<V>>> {
        loop {
            let waiter = self.front.pop().or_else(|| self.queue.pop())?;
            if !waiter.is_cancelled() {
                return Some(waiter);
            }
            self.forget_one();
        }
    }

    /// A waiter that `next` gave turned out cancelled after all.
    pub fn forget_one(&self) {
        // Relaxed: a count that only bounds memory.
        self.left.fetch_sub(1, Ordering::Relaxed);
    }

    /// A waiter was cancelled and stays in the queue until its turn.
    pub fn note_cancelled(&self) {
        // Relaxed: as in `forget_one`.
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nobody is in the queue, not even those that left.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.front.is_empty()
    }

    /// Whether more than `limit` that left still stand in the queue.
    pub fn is_clogged(&self, limit: u32) -> bool {
        // A cancel counts after its CAS and a pop may discount before: the count may pass below
        // zero for a moment, which must not read as four billion.
        i64::from(self.left.load(Ordering::Relaxed) as i32) > i64::from(limit)
    }

    /// Clears those that left from the head of the queue.
    ///
    /// For a moment the first in line stands nowhere, and who looks takes the queue for empty: the
    /// caller must look after the queue when this returns.
    #[cold]
    pub fn purge(&self) {
        // Acquire and Release: one purge at a time, or two of them could meet two live waiters
        // and have one place in front.
        if self.purging.swap(true, Ordering::Acquire) {
            return;
        }
        while let Some(waiter) = self.front.pop().or_else(|| self.queue.pop()) {
            if !waiter.is_cancelled() {
                let pushed = self.front.push(waiter);
                debug_assert!(pushed.is_ok(), "only the purge fills the place in front");
                break;
            }
            self.forget_one();
        }
        self.purging.store(false, Ordering::Release);
    }
}

impl<V> Default for Waiters<V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn leave(waiters: &Waiters<u8>, waiter: &Waiter<u8>) {
        assert!(matches!(waiter.cancel(), Cancelled::InTime));
        waiters.note_cancelled();
    }

    #[test]
    fn a_purge_gets_past_one_in_front_that_left() {
        let waiters = Waiters::new();
        let first = waiters.enter();
        for _ in 0..3 {
            leave(&waiters, &waiters.enter());
        }
        waiters.purge();
        assert!(waiters.is_clogged(2), "the first still waits, three behind it left");
        leave(&waiters, &first);
        waiters.purge();
        assert!(!waiters.is_clogged(2), "nobody waits");
        assert!(waiters.is_empty());
    }

    #[test]
    fn a_purge_keeps_the_order() {
        let waiters = Waiters::new();
        leave(&waiters, &waiters.enter());
        leave(&waiters, &waiters.enter());
        let (first, second) = (waiters.enter(), waiters.enter());
        waiters.purge();
        assert!(!waiters.is_clogged(1));
        assert!(Arc::ptr_eq(&waiters.next().unwrap(), &first));
        assert!(Arc::ptr_eq(&waiters.next().unwrap(), &second));
        assert!(waiters.next().is_none());
    }
}
