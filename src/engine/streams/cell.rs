//! The place of one shared connection: its word, and the connection, which all its leases may look
//! at. With the slot's the engine's only `unsafe`.
#![allow(unsafe_code)]

use core::{fmt, mem::MaybeUninit};

use super::word::{Capacity, Event, State, Word};
use crate::sync::{AtomicU64, Ordering, UnsafeCell, guess};

/// One cell. Every change of its word is one CAS by [`Word::on`].
pub(super) struct Cell<T> {
    word: AtomicU64,
    /// Full while the word says `Open` or `Leaving`. Written and emptied by who made the word
    /// `Moving`; in between whoever has a lease reads it.
    content: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the content is owned by who made the word `Moving`, on whatever thread (`T: Send`), and
// is read by all who have a lease at once (`T: Sync`).
unsafe impl<T: Send + Sync> Sync for Cell<T> {}

/// A lease of one stream: for as long as it is there, so is the connection. Means something only
/// to the cell that it is of.
#[derive(Debug)]
#[must_use = "a lease must be given back"]
pub(super) struct Held {
    generation: u32,
    of: Owner,
}

/// A connection that is to be put in, or was taken out: its cell is `Moving` until it is vacated.
#[derive(Debug)]
#[must_use = "a cell that moves must be vacated or opened"]
pub(super) struct Moving {
    generation: u32,
    draining: bool,
    of: Owner,
}

/// Which cell a lease or a connection that moves is of: looked at where assertions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner(#[cfg(debug_assertions)] usize);

impl<T> Cell<T> {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(Word::VACANT.pack()),
            content: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The word at this moment: a glance, which a CAS must confirm.
    #[inline]
    pub(super) fn glance(&self) -> Word {
        // Relaxed: nothing is read that the word guards.
        Word::unpack(self.word.load(Ordering::Relaxed))
    }

    /// Vacant → Moving.
    pub(super) fn claim(&self) -> Option<Moving> {
        self.step(Event::Claim).ok().map(|word| self.moving(word))
    }

    /// Moving → Open.
    ///
    /// # Errors
    /// Gives the connection back when it ended before it was there; the cell moves still.
    pub(super) fn open(
        &self,
        moving: Moving,
        content: T,
        capacity: Capacity,
    ) -> Result<(), (Moving, T)> {
        debug_assert_eq!(moving.of, self.owner(), "put into another cell");
        self.content.with_mut(|cell| {
            // SAFETY: who has the `Moving` made the word so, and nobody else reads or writes the
            // content before the CAS below.
            unsafe { (*cell).write(content) };
        });
        match self.step(Event::Open(capacity)) {
            Ok(_) => Ok(()),
            Err(word) => Err((self.moving(word), self.take())),
        }
    }

    /// Moving → Vacant.
    pub(super) fn vacate(&self, moving: Moving) {
        debug_assert_eq!(moving.of, self.owner(), "taken out of another cell");
        let word = self.step(Event::Vacate);
        debug_assert!(
            word.is_ok_and(|word| word.generation != moving.generation),
            "{moving:?} of {word:?}"
        );
    }

    /// One more stream, where fewer than `most` are leased and than its peer allows.
    #[inline]
    pub(super) fn lease(&self, most: u16) -> Option<Held> {
        self.step(Event::Lease(most)).ok().map(|word| self.held(word))
    }

    /// Keeps the connection there for who looks at it, whatever its limit, if it is this one.
    pub(super) fn visit(&self, generation: u32) -> Option<Held> {
        self.step_of(Event::Visit, generation).ok().map(|(word, _)| self.held(word))
    }

    /// One stream fewer. The last one of a connection that goes takes it out.
    #[inline]
    pub(super) fn give_back(&self, held: Held) -> Option<(Moving, T)> {
        debug_assert_eq!(held.of, self.owner(), "given back to another cell");
        let word = self.step(Event::GiveBack);
        debug_assert!(
            word.is_ok_and(|word| word.generation == held.generation),
            "INV-10: {held:?} of {word:?}"
        );
        self.taken_out(word.ok()?)
    }

    /// The connection is not needed; if no stream is leased it comes out.
    pub(super) fn leave(&self) -> Option<(Moving, T)> {
        self.taken_out(self.step(Event::Leave).ok()?)
    }

    /// It is needed after all. Whether it could stay.
    pub(super) fn stay(&self) -> bool {
        self.step(Event::Stay).is_ok()
    }

    /// It takes no more streams, if it is this one; if none is leased it comes out.
    pub(super) fn drain(&self, generation: u32) -> Option<(Moving, T)> {
        let (word, moved_before) = self.step_of(Event::Drain, generation).ok()?;
        // One that moved before is somebody else's.
        if moved_before { None } else { self.taken_out(word) }
    }

    /// It takes another number of streams from now on, if it is this one.
    pub(super) fn change(&self, generation: u32, capacity: Capacity) -> bool {
        self.step_of(Event::Change(capacity), generation).is_ok()
    }

    /// The connection, for who has a lease of it.
    #[inline]
    pub(super) fn look<'a>(&'a self, held: &'a Held) -> &'a T {
        debug_assert_eq!(held.of, self.owner(), "a look into another cell");
        self.content.with(|cell| {
            // SAFETY: the lease was counted by a CAS with Acquire after `open` had filled the cell,
            // and as long as it is counted nobody takes the content out. The reference lives no
            // longer than the lease, whose reference the caller shows. `MaybeUninit<T>` is laid out
            // as `T`.
            unsafe { &*cell.cast::<T>() }
        })
    }

    fn owner(&self) -> Owner {
        Owner(
            #[cfg(debug_assertions)]
            core::ptr::from_ref(self).addr(),
        )
    }

    fn held(&self, word: Word) -> Held {
        Held { generation: word.generation, of: self.owner() }
    }

    fn moving(&self, word: Word) -> Moving {
        Moving { generation: word.generation, draining: word.draining, of: self.owner() }
    }

    #[inline]
    fn taken_out(&self, word: Word) -> Option<(Moving, T)> {
        (word.state == State::Moving).then(|| (self.moving(word), self.take()))
    }

    /// Reads the content out. Callers have just made the word `Moving`, or have filled the cell
    /// themselves and it was not opened.
    #[cold]
    fn take(&self) -> T {
        self.content.with_mut(|cell| {
            // SAFETY: as the callers are: the cell is full, no lease is counted, and nobody reads
            // it again before the next `open`. `MaybeUninit<T>` is laid out as `T`.
            unsafe { cell.cast::<T>().read() }
        })
    }

    #[inline]
    fn step(&self, event: Event) -> Result<Word, Word> {
        let mut bits = guess(&self.word);
        loop {
            let word = Word::unpack(bits);
            let Some(next) = word.on(event) else {
                return Err(word);
            };
            match self.swap(bits, next) {
                Ok(()) => return Ok(next),
                Err(found) => bits = found,
            }
        }
    }

    /// The same for one connection of this cell only: the word after, and whether it moved before.
    fn step_of(&self, event: Event, generation: u32) -> Result<(Word, bool), Word> {
        let mut bits = guess(&self.word);
        loop {
            let word = Word::unpack(bits);
            let Some(next) = word.on(event).filter(|_| word.generation == generation) else {
                return Err(word);
            };
            match self.swap(bits, next) {
                Ok(()) => return Ok((next, word.state == State::Moving)),
                Err(found) => bits = found,
            }
        }
    }

    #[inline]
    fn swap(&self, bits: u64, next: Word) -> Result<(), u64> {
        // Release: publishes the content that `open` wrote, and all that a lease did before it was
        // given back. Acquire: a lease sees the content, and who takes it out sees what all leases
        // did. Relaxed on failure: the word is only looked at again.
        self.word
            .compare_exchange_weak(bits, next.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .map(drop)
    }
}

impl Held {
    /// Of which of the cell's connections.
    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }
}

impl Moving {
    /// Which of the cell's connections.
    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether it was taken out because it takes no more streams.
    pub(super) const fn is_draining(&self) -> bool {
        self.draining
    }
}

impl<T> Drop for Cell<T> {
    fn drop(&mut self) {
        if matches!(self.glance().state, State::Open | State::Leaving) {
            drop(self.take());
        }
    }
}

impl<T> fmt::Debug for Cell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.glance().fmt(f)
    }
}
