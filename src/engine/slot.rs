//! The place of one connection: a state word and a cell. The only `unsafe` of the engine is here.
#![allow(unsafe_code)]

use core::{fmt, mem::MaybeUninit};

use super::state::{Event, Generation, State, Word};
use crate::{
    clock::Tick,
    sync::{AtomicU32, AtomicU64, Ordering, Setting, UnsafeCell, guess},
};

/// One slot. Every change of its word is one CAS by [`Word::on`]; the winner of a CAS out of
/// `Idle` owns what the cell holds (INV-1).
pub struct Slot<T> {
    word: AtomicU64,
    /// When the sweep should look at the current idle period. Written before the slot turns idle.
    deadline: AtomicU32,
    /// When the current idle period began, for who looks for the oldest; of a connection that was
    /// given up while it was held, when that was.
    since: Setting,
    /// Why the watch or its owner gave the connection up, see [`Self::hang_up`].
    verdict: Setting,
    /// Full exactly while the word says `Idle`.
    cell: UnsafeCell<MaybeUninit<T>>,
}

/// What a hang-up found.
#[derive(Debug)]
#[must_use = "an idle connection that hung up must be closed"]
pub enum HangUp<T> {
    /// It was idle; the caller now owns it and must close it.
    Idle(T),
    /// A dial or a lease holds it; fulfilment or return will see the mark and close it.
    Held,
    /// Already on its way out, or never there.
    Gone,
}

// SAFETY: the cell is reached only by the winner of a CAS on `word` (INV-1), which hands the
// value from one thread to another but never shares it; that needs `T: Send` and no more.
unsafe impl<T: Send> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// A vacant slot.
    pub fn new() -> Self {
        Self {
            word: AtomicU64::new(Word::VACANT.pack()),
            deadline: AtomicU32::new(0),
            since: Setting::new(0),
            verdict: Setting::new(0),
            cell: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Idle → InUse: takes the connection if this very idle period still lasts.
    ///
    /// Of a checkout and a hang-up (or an expiry, or another checkout) exactly one wins:
    /// - checkout first: the hang-up finds `InUse` and leaves its mark;
    /// - hang-up first: the checkout finds `Closing` and tries the next hint.
    #[inline]
    pub fn checkout(&self, period: Generation) -> Option<T> {
        self.take(Event::Checkout, period)
    }

    /// InUse → Idle: puts the connection to rest and names the idle period that begins.
    ///
    /// # Errors
    /// Gives the connection back when the peer was seen to go while it was in use (INV-6).
    #[inline]
    pub fn give_back(&self, conn: T, rested: Tick, until: Tick) -> Result<Generation, T> {
        // Relaxed: published by the Release in `step`; the sweep re-checks the generation.
        self.deadline.store(until.as_millis(), Ordering::Relaxed);
        self.since.set(rested.as_millis());
        self.cell.with_mut(|cell| {
            // SAFETY: INV-1: the caller holds the lease, so the word says `InUse` until the CAS
            // below and nobody else reads or writes the cell.
            unsafe { (*cell).write(conn) };
        });
        match self.step(Event::Return, None) {
            Ok(word) => Ok(word.generation),
            Err(found) => {
                debug_assert!(found.state == State::InUse && found.dead, "return of {found:?}");
                Err(self.empty_cell())
            }
        }
    }

    /// The connection is given up, in whatever state the slot is, for a reason that its owner
    /// knows by a number.
    pub fn hang_up(&self, verdict: u32, now: Tick) -> HangUp<T> {
        self.verdict.set(verdict);
        self.since.set(now.as_millis());
        match self.step(Event::HangUp, None) {
            Ok(Word { state: State::Closing, .. }) => HangUp::Idle(self.empty_cell()),
            Ok(_) => HangUp::Held,
            Err(_) => HangUp::Gone,
        }
    }

    /// Idle → Closing, if this very idle period still lasts.
    pub fn expire(&self, period: Generation) -> Option<T> {
        self.take(Event::Expire, period)
    }

    /// Vacant → Dialing; the generation is the ticket that `fulfil` and `abandon` must show.
    pub fn reserve(&self) -> Option<Generation> {
        self.step(Event::Reserve, None).ok().map(|word| word.generation)
    }

    /// Dialing → InUse: the dial has a connection. `false` when the peer has hung up already or
    /// the dial was abandoned before.
    #[must_use]
    pub fn fulfil(&self, ticket: Generation) -> bool {
        self.step(Event::Fulfil, Some(ticket)).is_ok()
    }

    /// Dialing → Vacant. `false` when it was fulfilled before.
    #[must_use]
    pub fn abandon(&self, ticket: Generation) -> bool {
        self.step(Event::Abandon, Some(ticket)).is_ok()
    }

    /// InUse → Closing, by the holder of the lease. Whether it had been given up before.
    pub fn discard(&self) -> bool {
        let word = self.step(Event::Discard, None);
        debug_assert!(word.is_ok(), "discard of {word:?}");
        word.is_ok_and(|word| word.dead)
    }

    /// Closing → Vacant, by the driver once the connection is closed.
    pub fn vacate(&self) {
        let word = self.step(Event::Vacate, None);
        debug_assert!(word.is_ok(), "vacate of {word:?}");
    }

    /// Whether the peer was seen to go while a lease holds the connection.
    #[inline]
    pub fn is_dead(&self) -> bool {
        // Relaxed: a mark that arrives later is seen by `give_back`, whose CAS decides.
        Word::unpack(self.word.load(Ordering::Relaxed)).dead
    }

    /// Why and when the connection was given up; means something only while it is dead.
    pub fn verdict(&self) -> (u32, Tick) {
        (self.verdict.get(), Tick::from_millis(self.since.get()))
    }

    /// The idle period under way and its beginning, for who looks for the oldest; `expire`
    /// confirms it.
    pub fn resting_since(&self) -> Option<(Generation, Tick)> {
        let (period, _) = self.resting()?;
        Some((period, Tick::from_millis(self.since.get())))
    }

    /// Whether this very idle period still lasts: a glance, which a CAS must confirm.
    pub fn is_resting(&self, period: Generation) -> bool {
        // Relaxed: only decides whether a hint is worth keeping.
        let word = Word::unpack(self.word.load(Ordering::Relaxed));
        word.state == State::Idle && word.generation == period
    }

    /// The idle period under way and its end, for the sweep; `expire` confirms it.
    pub fn resting(&self) -> Option<(Generation, Tick)> {
        // Acquire: sees the deadline that `give_back` stored before its Release. A deadline of
        // another period cannot do harm, because `expire` checks the generation.
        let word = Word::unpack(self.word.load(Ordering::Acquire));
        (word.state == State::Idle).then(|| {
            // Relaxed: ordered by the Acquire above.
            (word.generation, Tick::from_millis(self.deadline.load(Ordering::Relaxed)))
        })
    }

    /// The state at this moment, for statistics and tests.
    pub fn state(&self) -> State {
        // Relaxed: a snapshot.
        Word::unpack(self.word.load(Ordering::Relaxed)).state
    }

    /// Out of this very idle period. What names the period names the whole word, so there is
    /// nothing to read before the CAS, and nothing to try again after it.
    #[inline]
    fn take(&self, event: Event, period: Generation) -> Option<T> {
        let resting = Word { state: State::Idle, dead: false, generation: period };
        let next = resting.on(event)?.pack();
        // Acquire: sees the cell that `give_back` filled before its Release; the next change of the
        // word, by this owner, publishes what it does. Relaxed on failure: the period is over.
        self.word
            .compare_exchange(resting.pack(), next, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(self.empty_cell())
    }

    /// Reads the cell out. Callers have just won a CAS out of `Idle`, or hold the lease and have
    /// filled the cell themselves.
    #[inline]
    fn empty_cell(&self) -> T {
        self.cell.with_mut(|cell| {
            // SAFETY: INV-1: `give_back` filled the cell before its Release CAS, the caller won
            // the slot after it, and nobody reads the cell again before the next `give_back`.
            // `MaybeUninit<T>` is laid out as `T`.
            unsafe { cell.cast::<T>().read() }
        })
    }

    /// Applies one event by CAS, if the word allows it and, where `only` is given, if its
    /// generation is that one.
    #[inline]
    fn step(&self, event: Event, only: Option<Generation>) -> Result<Word, Word> {
        let mut bits = guess(&self.word);
        loop {
            let word = Word::unpack(bits);
            if only.is_some_and(|generation| generation != word.generation) {
                return Err(word);
            }
            let Some(next) = word.on(event) else {
                return Err(word);
            };
            // Release: publishes the cell that `give_back` filled. Acquire: the next owner sees it.
            // Relaxed on failure: the word is only looked at again.
            match self.word.compare_exchange_weak(
                bits,
                next.pack(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(next),
                Err(found) => bits = found,
            }
        }
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        if self.state() == State::Idle {
            drop(self.empty_cell());
        }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("state", &self.state()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_period_of_rest_is_over_with_its_checkout_and_is_not_the_next() {
        let slot = Slot::new();
        let ticket = slot.reserve().expect("vacant");
        assert!(slot.fulfil(ticket));
        let (rested, until) = (Tick::from_millis(5), Tick::from_millis(9));
        let first = slot.give_back('a', rested, until).expect("alive");
        assert!(slot.is_resting(first));
        assert_eq!(slot.resting(), Some((first, until)));
        assert_eq!(slot.resting_since(), Some((first, rested)));
        assert_eq!(slot.checkout(first), Some('a'));
        assert!(!slot.is_resting(first), "in use");
        assert_eq!((slot.resting(), slot.resting_since()), (None, None));
        let second = slot.give_back('b', until, until).expect("alive");
        assert!(!slot.is_resting(first) && slot.is_resting(second), "another period");
        assert_eq!((slot.checkout(first), slot.expire(first)), (None, None));
        assert_eq!(slot.expire(second), Some('b'));
        assert_eq!(slot.state(), State::Closing);
    }
}
