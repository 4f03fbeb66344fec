//! Connections that can tell when they have two owners, are closed twice, forgotten, or handed out
//! dead, whatever the engine says of them.
//!
//! All of it is Relaxed, so that it orders nothing for the engine and hides no race of the engine's
//! from a sanitizer. What it compares is ordered all the same: a hang-up, a checkout and a return
//! are each an AcqRel CAS of the slot's word, and if the later one in that order reads what the
//! earlier one's thread wrote before it, the reverse would contradict coherence.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

/// The engine has it.
const POOL: u64 = 1;
/// A caller, or a driver that asks it, has it.
const HELD: u64 = 2;
/// It was seen dead before its owner gave it back: only a close may follow.
const DOOMED: u64 = 3;

/// Never evicted so often.
const NOT_SEEN: u32 = u32::MAX;

/// Every open connection of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Box<[Entry]>,
    serials: AtomicU64,
    /// Grows with each death: what a checkout is compared with.
    deaths: AtomicU32,
    open: AtomicU64,
    /// Of each group: connections that live by its permits, and how many there may be.
    counts: Box<[Count]>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The serial number and, in the two bits below, who has it; zero for nobody.
    word: AtomicU64,
    /// The serial number of one seen dead and, in the 32 bits below, which death that was.
    dead: AtomicU64,
}

#[derive(Debug)]
struct Count {
    live: AtomicU32,
    most: u32,
}

/// Which connection, for a driver that watches it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    entry: usize,
    serial: u64,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    /// `None` once it is closed.
    ledger: Option<Arc<Ledger>>,
    name: Name,
    group: Option<usize>,
    // Plain: a sanitizer sees two owners, or one whom nothing orders after the last.
    uses: u64,
    epoch: u32,
}

impl Ledger {
    /// A ledger of `entries` connections at once, and of groups that may have `most` each.
    pub(super) fn new(entries: usize, most: impl Iterator<Item = u32>) -> Arc<Self> {
        Arc::new(Self {
            entries: (0..entries).map(|_| Entry::default()).collect(),
            serials: AtomicU64::new(0),
            deaths: AtomicU32::new(0),
            open: AtomicU64::new(0),
            counts: most.map(|most| Count { live: AtomicU32::new(0), most }).collect(),
        })
    }

    /// A new connection of a group; `None` for one that no permit was taken for.
    ///
    /// # Panics
    /// When the group has as many as it may.
    pub(super) fn open(self: &Arc<Self>, group: Option<usize>) -> Conn {
        if let Some(Count { live, most }) = group.map(|group| &self.counts[group]) {
            let now = live.fetch_add(1, Relaxed) + 1;
            assert!(now <= *most, "INV-2: {now} connections live, {most} may");
        }
        self.open.fetch_add(1, Relaxed);
        let serial = self.serials.fetch_add(1, Relaxed) + 1;
        let word = serial << 2 | POOL;
        let free = |entry: &Entry| entry.word.compare_exchange(0, word, Relaxed, Relaxed).is_ok();
        let first = serial as usize;
        let entry = (first..first + self.entries.len())
            .map(|at| at % self.entries.len())
            .find(|at| free(&self.entries[*at]))
            .expect("the ledger has an entry for every connection of a run");
        let name = Name { entry, serial };
        Conn { ledger: Some(Arc::clone(self)), name, group, uses: 0, epoch: NOT_SEEN }
    }

    /// How many are open.
    pub(super) fn open_now(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// How many have died so far: what [`Conn::hit`] wants to know from before a checkout.
    pub(super) fn deaths(&self) -> u32 {
        self.deaths.load(Relaxed)
    }

    /// A connection was hung up on: to be called when that is over.
    pub(super) fn died(&self, name: Name) {
        let Name { entry, serial } = name;
        if self.death(name).is_some() {
            return;
        }
        let which = self.deaths.fetch_add(1, Relaxed) + 1;
        self.entries[entry].dead.store(serial << 32 | u64::from(which), Relaxed);
    }

    /// Which death, if it is dead.
    fn death(&self, Name { entry, serial }: Name) -> Option<u32> {
        let dead = self.entries[entry].dead.load(Relaxed);
        (dead >> 32 == serial & u64::from(u32::MAX)).then_some(dead as u32)
    }
}

impl Conn {
    /// Which one.
    pub(super) fn name(&self) -> Name {
        self.name
    }

    /// An odd one: for predicates.
    pub(super) fn is_odd(&self) -> bool {
        self.name.serial % 2 == 1
    }

    /// Somebody owns it from here on.
    ///
    /// # Panics
    /// When somebody owns it already (INV-1), or it was dead before its last owner gave it back
    /// (INV-6).
    pub(super) fn take(&mut self) {
        if let Err(found) = self.turn(POOL, HELD) {
            let id = self.name.serial;
            assert_ne!(found, id << 2 | DOOMED, "INV-6: {id} was handed out after its death");
            panic!("INV-1: {id} has another owner: {found:x}");
        }
        self.uses += 1;
    }

    /// A checkout found it at rest: `deaths` and `evictions` had been counted before that began.
    ///
    /// # Panics
    /// As [`Self::take`], and when it was dead or evicted by then (INV-6).
    pub(super) fn hit(&mut self, deaths: u32, evictions: u32) {
        self.take();
        let id = self.name.serial;
        if let Some(which) = self.ledger().death(self.name) {
            assert!(which > deaths, "INV-6: {id} was handed out from rest after its death");
        }
        assert!(self.epoch >= evictions, "INV-6: {id} was handed out after its eviction");
    }

    /// By now its group was evicted so often, so it is no younger.
    pub(super) fn note_evictions(&mut self, evictions: u32) {
        if self.epoch == NOT_SEEN {
            self.epoch = evictions;
        }
    }

    /// Its owner gives it up.
    pub(super) fn back(&mut self) {
        self.uses += 1;
        let next = if self.is_dead() { DOOMED } else { POOL };
        let turned = self.turn(HELD, next);
        assert!(turned.is_ok(), "INV-1: {} has another owner: {turned:x?}", self.name.serial);
    }

    /// It lives by no permit any more: its owner takes it out, or dials in its stead.
    pub(super) fn leave_group(&mut self) {
        if let Some(group) = self.group.take() {
            self.ledger().counts[group].live.fetch_sub(1, Relaxed);
        }
    }

    /// Whether somebody owns it.
    pub(super) fn is_held(&self) -> bool {
        let Name { entry, serial } = self.name;
        self.ledger().entries[entry].word.load(Relaxed) == serial << 2 | HELD
    }

    /// Whether it was seen dead.
    pub(super) fn is_dead(&self) -> bool {
        self.ledger().death(self.name).is_some()
    }

    /// Checks one that rests while nothing else happens: `evictions` are all there were.
    pub(super) fn check_at_rest(&self, evictions: u32) {
        let id = self.name.serial;
        assert!(!self.is_dead(), "INV-6: {id} rests dead");
        assert!(self.epoch >= evictions, "INV-6: {id} rests after its eviction");
        let found = self.ledger().entries[self.name.entry].word.load(Relaxed);
        assert_eq!(found, id << 2 | POOL, "INV-1: {id} rests and has an owner");
    }

    fn ledger(&self) -> &Arc<Ledger> {
        self.ledger.as_ref().expect("an open connection is in a ledger")
    }

    fn turn(&self, from: u64, to: u64) -> Result<u64, u64> {
        let Name { entry, serial } = self.name;
        let (from, to) = (serial << 2 | from, serial << 2 | to);
        self.ledger().entries[entry].word.compare_exchange(from, to, Relaxed, Relaxed)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if thread::panicking() {
            // It may be a second copy, whose reference to the ledger is not its own.
            mem::forget(self.ledger.take());
            return;
        }
        self.uses += 1;
        self.leave_group();
        let Name { entry, serial } = self.name;
        let found = self.ledger().entries[entry].word.swap(0, Relaxed);
        assert_eq!(found >> 2, serial, "INV-4: {serial} was closed twice");
        self.ledger().open.fetch_sub(1, Relaxed);
    }
}
