//! Connections that callers share: leases of single streams, counted exactly.
//!
//! A group lends whole connections. Here stand those that it lent to this table, one in each cell,
//! and the table lends streams of them: no more at once than a connection takes, from the one with
//! the fewest. A connection of which no stream is leased for a while goes back to the group, to
//! rest there like any other.
//!
//! - **INV-10** Of no connection are more streams leased than its limit was, at the moment of each
//!   lease; and its last lease, or who finds that there is none, takes it out exactly once.

mod cell;
mod growth;
mod keep;
mod line;
#[cfg(all(any(test, fuzzing), not(any(loom, model))))]
pub mod oracle;
#[cfg(all(test, not(loom)))]
mod tests;
mod word;

use core::{fmt, ops::Deref};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crossbeam_utils::CachePadded;

use super::{
    demand::Demand,
    waiters::{Waiter, Waiters},
};
use crate::sync::{Arc, AtomicWaker, Ordering, Setting, fence};
use cell::{Cell, Held, Moving};
pub use growth::{Bounds, Census, decayed};
pub use word::Capacity;

/// What carries streams: a connection in the hands of the table.
pub trait Carrier: Send + Sync {
    /// Whether it takes another stream, as far as it knows itself. Must not block. One that panics
    /// takes none.
    fn is_usable(&self) -> bool;

    /// The same for the stream that is about to be lent, which counts from now on.
    fn admit(&self) -> bool {
        self.is_usable()
    }

    /// It is not needed any more.
    fn rest(self);

    /// It takes no more streams, and the last has ended.
    fn end(self);
}

/// The shared connections of one endpoint. A handle: clones share the table.
pub struct Streams<T: Carrier, E>(Arc<Table<T, E>>);

/// The table itself.
pub struct Table<T: Carrier, E> {
    cells: Box<[CachePadded<Cell<T>>]>,
    demand: Demand,
    line: Waiters<StreamOutcome<T, E>>,
    /// Who finds connections for those in line.
    keeper: AtomicWaker,
    limits: Limits,
}

/// The bounds, which may change at run time.
#[derive(Debug)]
struct Limits {
    min: Setting,
    max: Setting,
    streams: Setting,
    exceed: Setting,
}

/// Where a connection stands, and which of those that stood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    cell: u32,
    generation: u32,
}

/// One stream of a shared connection. Dropping it gives it back.
pub struct StreamLease<T: Carrier, E> {
    table: Streams<T, E>,
    cell: u32,
    /// `None` only while it is dropped.
    held: Option<Held>,
}

/// What a caller in line is handed.
pub enum StreamOutcome<T: Carrier, E> {
    /// A stream.
    Ready(StreamLease<T, E>),
    /// No connection could be had, for this cause.
    Failed(E),
    /// The endpoint's connections carry one exchange at a time.
    Exclusive,
    /// The table was closed.
    Closed,
}

/// A caller in line for a stream.
pub type StreamWaiter<T, E> = Waiter<StreamOutcome<T, E>>;

impl<T: Carrier, E> Streams<T, E> {
    /// An empty table.
    pub fn new(bounds: Bounds) -> Self {
        // A connection that drains keeps its cell until its last stream has ended, which must keep
        // nobody from another one. Beyond twice as many, new ones wait for that.
        let cells = 2 * bounds.max;
        let limits = Limits {
            min: Setting::new(bounds.min),
            max: Setting::new(bounds.max),
            streams: Setting::new(bounds.streams),
            exceed: Setting::new(0),
        };
        Self(Arc::new(Table {
            cells: (0..cells).map(|_| CachePadded::new(Cell::new())).collect(),
            demand: Demand::new(),
            line: Waiters::new(),
            keeper: AtomicWaker::new(),
            limits,
        }))
    }

    /// A stream of the connection that has the fewest, if one has room and nobody is in line.
    #[inline]
    pub fn lease(&self) -> Option<StreamLease<T, E>> {
        if self.demand.is_contended() { None } else { self.lease_any() }
    }

    /// Puts a connection in. `stand` tells it where it stands, from where on it may tell of changes,
    /// and gives what it takes now.
    ///
    /// # Errors
    /// Gives it back when there are as many as may be.
    ///
    /// # Panics
    /// When `stand` does; then the connection is dropped.
    pub fn put_in(&self, carrier: T, stand: impl FnOnce(&T, Spot) -> Capacity) -> Result<(), T> {
        let free = self.cells.iter().enumerate().find_map(|(at, cell)| Some((at, cell.claim()?)));
        let Some((at, moving)) = free else {
            return Err(carrier);
        };
        let spot = Spot { cell: at as u32, generation: moving.generation() };
        // The connection's own code has a say in it.
        let capacity = match catch_unwind(AssertUnwindSafe(|| stand(&carrier, spot))) {
            Ok(capacity) => capacity,
            Err(panic) => {
                self.vacate(at, moving);
                resume_unwind(panic);
            }
        };
        if let Err((moving, carrier)) = self.cells[at].open(moving, carrier, capacity) {
            self.see_off(at, moving, carrier);
        }
        self.look_after_line();
        // After the fence in there, which pairs with the one in `close`.
        if self.is_closed() {
            self.leave(at);
        }
        Ok(())
    }

    /// The connection that stands there takes so many streams from now on.
    pub fn change(&self, at: Spot, capacity: Capacity) {
        if let Some(cell) = self.cells.get(at.cell as usize)
            && cell.change(at.generation, capacity)
        {
            self.look_after_line();
        }
    }

    /// The connection that stands there takes no more streams. It ends with the last of them.
    pub fn drain(&self, at: Spot) {
        let Some(cell) = self.cells.get(at.cell as usize) else {
            return;
        };
        if let Some((moving, carrier)) = cell.drain(at.generation) {
            self.see_off(at.cell as usize, moving, carrier);
        }
        self.look_after_line();
    }

    /// All connections of an epoch that is over drain.
    pub fn drain_all(&self) {
        for at in 0..self.cells.len() {
            let generation = self.cells[at].glance().generation;
            self.drain(Spot { cell: at as u32, generation });
        }
    }

    fn lease_any(&self) -> Option<StreamLease<T, E>> {
        self.lease_of_least(self.most()).or_else(|| match self.limits.exceed.get() {
            0 => None,
            _ if self.census().open < self.bounds().max => None,
            // Then the peer's own limit is all that holds.
            _ => self.lease_of_least(u16::MAX),
        })
    }

    /// A stream of the connection that has the fewest, and fewer than `most`.
    fn lease_of_least(&self, most: u16) -> Option<StreamLease<T, E>> {
        // Ends: a turn that gets none found that another caller was faster, or takes a connection
        // out of use.
        loop {
            let mut least: Option<(usize, u16)> = None;
            for (at, cell) in self.cells.iter().enumerate() {
                let word = cell.glance();
                if word.has_room(most) && least.is_none_or(|(_, leases)| word.leases < leases) {
                    least = Some((at, word.leases));
                    if word.leases == 0 {
                        break;
                    }
                }
            }
            let (at, _) = least?;
            let Some(held) = self.cells[at].lease(most) else {
                continue;
            };
            let lease = self.lease_of(at as u32, held);
            // A panic in the connection's own code is no caller's fault.
            let asked = catch_unwind(AssertUnwindSafe(|| lease.carrier().admit()));
            if asked.unwrap_or(false) {
                return Some(lease);
            }
            // Not the last lease of it: ours is out.
            let out = self.cells[at].drain(lease.spot().generation);
            debug_assert!(out.is_none(), "INV-10: taken out from under a lease");
            self.let_go(lease);
            self.call_keeper();
        }
    }

    fn lease_of(&self, cell: u32, held: Held) -> StreamLease<T, E> {
        StreamLease { table: self.clone(), cell, held: Some(held) }
    }

    /// A stream comes back, and nobody is told.
    fn let_go(&self, mut lease: StreamLease<T, E>) {
        let at = lease.cell as usize;
        if let Some(held) = lease.held.take()
            && let Some((moving, carrier)) = self.cells[at].give_back(held)
        {
            self.see_off(at, moving, carrier);
        }
    }

    /// The connection is not needed, if it stands there.
    fn leave(&self, at: usize) {
        if let Some((moving, carrier)) = self.cells[at].leave() {
            self.see_off(at, moving, carrier);
        }
    }

    /// A connection that was taken out goes where it belongs. Only then is its cell vacant: who sees
    /// no cell that moves finds it at rest.
    #[cold]
    fn see_off(&self, at: usize, moving: Moving, carrier: T) {
        let is_draining = moving.is_draining();
        let goes = || if is_draining { carrier.end() } else { carrier.rest() };
        // As above: whoever had the last stream is done, and others may be in line.
        let _ = catch_unwind(AssertUnwindSafe(goes));
        self.vacate(at, moving);
    }

    /// A connection may be put where there is none any more.
    fn vacate(&self, at: usize, moving: Moving) {
        self.cells[at].vacate(moving);
        self.call_keeper();
    }

    /// A connection has gone that those in line may miss.
    fn call_keeper(&self) {
        // SeqCst: pairs with the fence in `line_up`. Either we see who is in line, or they wake the
        // keeper after this, which finds no cell that moves.
        fence(Ordering::SeqCst);
        if self.demand.is_contended() {
            self.keeper.wake();
        }
    }
}

impl<T: Carrier, E> StreamLease<T, E> {
    /// The connection that it is a stream of.
    pub fn carrier(&self) -> &T {
        let held = self.held.as_ref().expect("only a lease that is dropped holds nothing");
        self.table.cells[self.cell as usize].look(held)
    }

    /// Where the connection stands.
    pub fn spot(&self) -> Spot {
        let generation = self.held.as_ref().map_or(0, Held::generation);
        Spot { cell: self.cell, generation }
    }
}

impl<T: Carrier, E> Drop for StreamLease<T, E> {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let at = self.cell as usize;
        if let Some((moving, carrier)) = self.table.cells[at].give_back(held) {
            self.table.see_off(at, moving, carrier);
        }
        // A stream that ends makes no connection needed: the keeper sleeps on.
        self.table.serve_line();
    }
}

impl<T: Carrier, E> Clone for Streams<T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Carrier, E> Deref for Streams<T, E> {
    type Target = Table<T, E>;

    #[inline]
    fn deref(&self) -> &Table<T, E> {
        &self.0
    }
}

impl<T: Carrier, E> fmt::Debug for Streams<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Streams").field(&self.census()).finish()
    }
}

impl<T: Carrier, E> fmt::Debug for Table<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.cells.iter().filter(|cell| cell.glance().is_taken())).finish()
    }
}

impl<T: Carrier, E> fmt::Debug for StreamLease<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamLease").field(&self.spot()).finish()
    }
}

impl<T: Carrier, E> fmt::Debug for StreamOutcome<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Failed(_) => "Failed",
            Self::Exclusive => "Exclusive",
            Self::Closed => "Closed",
        })
    }
}

impl Spot {
    /// As one number.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.cell as u64
    }

    /// From that number.
    pub const fn from_bits(bits: u64) -> Self {
        Self { cell: bits as u32, generation: (bits >> 32) as u32 }
    }
}
