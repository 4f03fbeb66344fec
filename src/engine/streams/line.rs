//! The line of callers for whom there is no stream, and how one gets to who waits longest.

use super::{Carrier, StreamOutcome, StreamWaiter, Streams};
use crate::{
    engine::{demand::Refused, line::may_stand, waiters::Cancelled},
    sync::{Arc, Ordering, fence},
};

impl<T: Carrier, E> Streams<T, E> {
    /// Takes the last place in line, and is served at once if it is the first as well and there is
    /// a stream.
    ///
    /// # Errors
    /// When the table is closed or as many callers are in line as may.
    pub fn line_up(&self, max_waiters: u32) -> Result<Arc<StreamWaiter<T, E>>, Refused> {
        if self.line.is_clogged(may_stand(max_waiters)) {
            self.purge();
            if self.line.is_clogged(may_stand(max_waiters)) {
                return Err(Refused::Full);
            }
        }
        self.demand.register(max_waiters)?;
        let waiter = self.line.enter();
        // SeqCst: pairs with the fences in `serve_line`, `call_keeper` and `close` (INV-5). Either they
        // see us in line, or we see what they changed.
        fence(Ordering::SeqCst);
        self.serve();
        if !waiter.is_filled() {
            self.keeper.wake();
        }
        Ok(waiter)
    }

    /// A caller leaves the line. What was handed to it just before goes to the next.
    pub fn leave_line(&self, waiter: &StreamWaiter<T, E>) {
        match waiter.cancel() {
            Cancelled::InTime => {
                self.demand.left();
                self.line.note_cancelled();
                if self.line.is_clogged(self.demand.wanted().waiting) {
                    self.purge();
                }
            }
            // A stream goes back by its drop.
            Cancelled::TooLate(outcome) => drop(outcome),
        }
    }

    /// Lends nothing from now on; who is in line is told. Connections leave as their streams end.
    pub fn close(&self) {
        if !self.demand.close() {
            return;
        }
        // SeqCst: pairs with the fences in `line_up` and `serve_line`.
        fence(Ordering::SeqCst);
        self.tell_closed();
        (0..self.cells.len()).for_each(|at| self.leave(at));
        self.keeper.wake();
    }

    /// Lends nothing until [`Self::resume`].
    pub fn hold(&self) {
        self.demand.hold();
    }

    /// Lends again; those in line come first.
    pub fn resume(&self) {
        if self.demand.resume() {
            self.look_after_line();
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.demand.wanted().closed
    }

    /// The first `count` in line are told that there is nothing for them. Who lines up meanwhile is
    /// not.
    pub fn turn_away(&self, count: u32, why: impl Fn() -> StreamOutcome<T, E>) {
        let mut left = count.min(self.demand.wanted().waiting);
        while left > 0
            && let Some(waiter) = self.line.next()
        {
            left -= u32::from(self.tell(&waiter, why()));
        }
    }

    fn tell_closed(&self) {
        while let Some(waiter) = self.line.next() {
            self.tell(&waiter, StreamOutcome::Closed);
        }
    }

    /// Whether a caller was still there to be told.
    fn tell(&self, waiter: &StreamWaiter<T, E>, outcome: StreamOutcome<T, E>) -> bool {
        let told = waiter.fill(outcome).is_ok();
        if told {
            self.demand.left();
            waiter.wake();
        } else {
            self.line.forget_one();
        }
        told
    }

    /// Clears those that left from the head of the line.
    #[cold]
    fn purge(&self) {
        self.line.purge();
        // It had the first in line in its hands for a moment.
        self.look_after_line();
    }

    /// Hands streams to those in line for as long as there are both, and leaves nobody behind in a
    /// closed table.
    fn serve(&self) {
        self.hand_out();
        if self.is_closed() {
            self.tell_closed();
        }
    }

    fn hand_out(&self) {
        let mut spare = None;
        while self.is_serving() {
            let Some(lease) = spare.take().or_else(|| self.lease_any()) else {
                return;
            };
            let Some(waiter) = self.line.next() else {
                // Who is counted and not in line yet looks for itself, once it is.
                self.let_go(lease);
                // SeqCst: pairs with the fence in `line_up`. Who came into line while we held the
                // stream is seen here.
                fence(Ordering::SeqCst);
                if self.line.is_empty() {
                    return;
                }
                continue;
            };
            match waiter.fill(StreamOutcome::Ready(lease)) {
                Ok(()) => {
                    self.demand.left();
                    waiter.wake();
                }
                Err(outcome) => {
                    self.line.forget_one();
                    if let StreamOutcome::Ready(lease) = outcome {
                        spare = Some(lease);
                    }
                }
            }
        }
    }

    fn is_serving(&self) -> bool {
        let wanted = self.demand.wanted();
        wanted.waiting > 0 && wanted.is_open()
    }

    /// Something has changed that those in line, or who finds connections for them, may wait for.
    pub(super) fn look_after_line(&self) {
        if self.serve_line() {
            self.keeper.wake();
        }
    }

    /// A stream may have come free. Whether somebody may be in line.
    #[inline]
    pub(super) fn serve_line(&self) -> bool {
        // SeqCst: pairs with the fences in `line_up` and `close` (INV-5). Either we see who is in
        // line, or who lines up sees what we changed.
        fence(Ordering::SeqCst);
        let is_contended = self.demand.is_contended();
        if is_contended {
            self.serve();
        }
        is_contended
    }
}
