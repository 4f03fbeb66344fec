//! Which connections are out for too long, and who took them: without a lock, and without a word
//! that shards share.
//!
//! A pool that does not look for leaks has no [`Leaks`], and pays one branch. One that does pays
//! 16 bytes for each slot, two stores at a checkout and one read-modify-write at a return.

use core::{fmt, panic::Location};

use crossbeam_utils::atomic::AtomicCell;

use crate::{
    clock::Tick,
    engine::{ShardId, SlotIndex},
    sync::{AtomicU64, Ordering},
};

/// Where a connection is checked out, as a report of a leak has it.
pub(crate) type Caller = &'static Location<'static>;

/// For each slot of each shard: who has its connection, and since when.
pub(crate) struct Leaks {
    shards: Box<[Box<[Entry]>]>,
}

/// A connection that is, or was, out for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    /// Whose slot.
    pub(crate) shard: ShardId,
    /// Which slot.
    pub(crate) slot: SlotIndex,
    /// For how long it has been out, by the shard's clock.
    pub(crate) held_ms: u32,
    /// Where it was checked out.
    pub(crate) location: Caller,
}

struct Entry {
    /// Written by who has the connection, before it says so in `word`.
    location: AtomicCell<Option<Caller>>,
    word: AtomicU64,
}

/// The value of an entry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// Somebody has the connection.
    taken: bool,
    /// The sweep has said so.
    reported: bool,
    /// Which time out this is, in 30 bits: no two within 2^30 bear the same word.
    turn: u32,
    /// When it began.
    since: Tick,
}

impl Leaks {
    /// Nothing is out, for `shards` shards of `slots` slots each.
    pub(crate) fn new(shards: usize, slots: usize) -> Self {
        let entries = || (0..slots).map(|_| Entry::new()).collect();
        Self { shards: (0..shards).map(|_| entries()).collect() }
    }

    /// A caller has the connection of a slot, from `now` by the shard's clock on. Every call is
    /// followed by one of [`Self::returned`] before the slot has another owner.
    #[inline]
    pub(crate) fn taken(&self, shard: ShardId, slot: SlotIndex, location: Caller, now: Tick) {
        let entry = self.entry(shard, slot);
        // Relaxed: the last owner's changes came with the connection, and the sweep changes no
        // word that is not taken.
        let before = Word::unpack(entry.word.load(Ordering::Relaxed));
        debug_assert!(!before.taken, "taken twice: {before:?}, now by {location}");
        // A Release store: who reads this location knows that the turn before it is over, see
        // `Entry::claim`.
        entry.location.store(Some(location));
        let word = Word { taken: true, reported: false, turn: before.turn + 1, since: now };
        // Release: publishes the location to the sweep.
        entry.word.store(word.pack(), Ordering::Release);
    }

    /// A caller has the connection no more, however it ended. The leak that it seemed to be, if
    /// the sweep has reported it.
    #[inline]
    pub(crate) fn returned(&self, shard: ShardId, slot: SlotIndex, now: Tick) -> Option<Leak> {
        let entry = self.entry(shard, slot);
        // AcqRel: ordered among all changes of the word; of this and the sweep's CAS one is first.
        let before = Word::unpack(entry.word.fetch_and(!TAKEN, Ordering::AcqRel));
        if !(before.taken && before.reported) {
            return None;
        }
        let held_ms = now.since(before.since);
        // Our own: nobody writes it before the slot has another owner.
        entry.location.load().map(|location| Leak { shard, slot, held_ms, location })
    }

    /// Reports, once each, what has been out of a shard for as many milliseconds as `leak_after`
    /// says of its slot, or longer, at most 24 days. Sound on any thread; each leak is reported by one sweep.
    pub(crate) fn sweep(
        &self,
        shard: ShardId,
        now: Tick,
        leak_after: impl Fn(SlotIndex) -> u32,
        mut report: impl FnMut(Leak),
    ) {
        for (slot, entry) in (0..).map(SlotIndex::new).zip(&self.shards[shard.get()]) {
            // Acquire: sees the location that `taken` stored before its Release, or a later one.
            let word = Word::unpack(entry.word.load(Ordering::Acquire));
            let held_ms = now.since(word.since);
            if !word.taken || word.reported || held_ms < leak_after(slot) {
                continue;
            }
            if let Some(location) = entry.claim(word) {
                report(Leak { shard, slot, held_ms, location });
            }
        }
    }

    #[inline]
    fn entry(&self, shard: ShardId, slot: SlotIndex) -> &Entry {
        &self.shards[shard.get()][slot.get()]
    }
}

impl Entry {
    fn new() -> Self {
        Self { location: AtomicCell::new(None), word: AtomicU64::new(Word::FREE.pack()) }
    }

    /// Marks a turn as reported and gives its location; `None` when it is over meanwhile.
    fn claim(&self, word: Word) -> Option<Caller> {
        // An Acquire load. Were it a later turn's location, then we had acquired what came before
        // its Release store: the end of the turn in `word`. Then the CAS, which sees the latest,
        // would not find `word` any more.
        let location = self.location.load();
        let reported = Word { reported: true, ..word };
        // AcqRel: as in `returned`. Relaxed on failure: the turn is over.
        self.word
            .compare_exchange(word.pack(), reported.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        location
    }
}

const TAKEN: u64 = 1;
const REPORTED: u64 = 1 << 1;
const TURN_BITS: u32 = 30;

impl Word {
    const FREE: Self = Self { taken: false, reported: false, turn: 0, since: Tick::from_millis(0) };

    /// The word as stored: taken in bit 0, reported in bit 1, turn in 2 to 31, since above. A turn
    /// past its last bit comes round.
    const fn pack(self) -> u64 {
        let turn = self.turn as u64 & ((1 << TURN_BITS) - 1);
        (self.taken as u64 * TAKEN)
            | (self.reported as u64 * REPORTED)
            | turn << 2
            | (self.since.as_millis() as u64) << 32
    }

    const fn unpack(bits: u64) -> Self {
        Self {
            taken: bits & TAKEN != 0,
            reported: bits & REPORTED != 0,
            turn: bits as u32 >> 2,
            since: Tick::from_millis((bits >> 32) as u32),
        }
    }
}

impl fmt::Debug for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaks").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::AtomicBool;

    const S0: ShardId = ShardId(0);
    const S1: ShardId = ShardId(1);

    fn slot(index: u32) -> SlotIndex {
        SlotIndex::new(index)
    }

    fn at(millis: u32) -> Tick {
        Tick::from_millis(millis)
    }

    #[track_caller]
    fn here() -> Caller {
        Location::caller()
    }

    fn swept(leaks: &Leaks, shard: ShardId, now: u32, leak_after_ms: u32) -> Vec<Leak> {
        let mut found = Vec::new();
        leaks.sweep(shard, at(now), |_| leak_after_ms, |leak| found.push(leak));
        found
    }

    #[test]
    fn a_location_fits_an_atomic_word() {
        assert!(AtomicCell::<Option<Caller>>::is_lock_free());
        assert_eq!(size_of::<Entry>(), 8 + size_of::<usize>());
    }

    #[test]
    fn a_leak_is_reported_once_and_again_when_it_comes_back() {
        let leaks = Leaks::new(2, 3);
        let location = here();
        leaks.taken(S1, slot(2), location, at(100));
        assert_eq!(swept(&leaks, S1, 599, 500), []);
        assert_eq!(swept(&leaks, S0, 600, 500), [], "another shard's");
        let leak = Leak { shard: S1, slot: slot(2), held_ms: 500, location };
        assert_eq!(swept(&leaks, S1, 600, 500), [leak]);
        assert_eq!(swept(&leaks, S1, 9_000, 500), [], "once");
        let back = leaks.returned(S1, slot(2), at(9_000));
        assert_eq!(back, Some(Leak { held_ms: 8_900, ..leak }));
        assert_eq!(leaks.returned(S1, slot(2), at(9_000)), None, "nobody has it");
    }

    #[test]
    fn who_is_back_in_time_is_no_leak() {
        let leaks = Leaks::new(1, 1);
        leaks.taken(S0, slot(0), here(), at(0));
        assert_eq!(leaks.returned(S0, slot(0), at(10_000)), None, "nobody has reported it");
        assert_eq!(swept(&leaks, S0, 20_000, 500), []);
    }

    #[test]
    fn each_turn_has_its_own_report_location_and_time() {
        let leaks = Leaks::new(1, 2);
        for turn in 0..3 {
            let location = if turn % 2 == 0 { here() } else { Location::caller() };
            let (began, found) = (turn * 10_000, turn * 10_000 + 700);
            leaks.taken(S0, slot(1), location, at(began));
            let leak = Leak { shard: S0, slot: slot(1), held_ms: 700, location };
            assert_eq!(swept(&leaks, S0, found, 500), [leak]);
            assert_eq!(leaks.returned(S0, slot(1), at(found)), Some(leak));
        }
    }

    #[test]
    fn a_turn_may_lie_across_the_wrap_of_the_clock() {
        let leaks = Leaks::new(1, 1);
        leaks.taken(S0, slot(0), here(), at(u32::MAX - 99));
        assert_eq!(swept(&leaks, S0, 399, 500), []);
        assert_eq!(swept(&leaks, S0, 400, 500).len(), 1);
    }

    #[test]
    fn turns_come_round_and_nothing_else_of_the_word_does() {
        let last = Word { taken: true, reported: true, turn: (1 << 30) - 1, since: at(u32::MAX) };
        assert_eq!(Word::unpack(last.pack()), last);
        let next = Word { turn: last.turn + 1, ..last };
        assert_eq!(Word::unpack(next.pack()), Word { turn: 0, ..last });
    }

    /// The sweep finds a turn that is over: what it read of it must not be reported, neither with
    /// the next one's location nor at all.
    #[test]
    fn a_turn_that_ended_under_the_sweep_is_not_claimed() {
        let leaks = Leaks::new(1, 1);
        let entry = leaks.entry(S0, slot(0));
        leaks.taken(S0, slot(0), here(), at(0));
        let seen = Word::unpack(entry.word.load(Ordering::Relaxed));
        leaks.returned(S0, slot(0), at(1));
        assert_eq!(entry.claim(seen), None);
        // The next turn, of the same tick even.
        leaks.taken(S0, slot(0), Location::caller(), at(0));
        assert_eq!(entry.claim(seen), None);
        assert_eq!(leaks.returned(S0, slot(0), at(1)), None, "was not reported");
    }

    /// Turns at one location are old enough at once, turns at the other never are: so whatever
    /// names the other is a mistake. Each report is answered by one return.
    #[test]
    fn no_turn_is_reported_with_the_location_of_another() {
        const TURNS: u32 = 200_000;
        const NOW: u32 = 10_000;
        let leaks = Leaks::new(1, 2);
        let (old, fresh) = (here(), Location::caller());
        let over = AtomicBool::new(false);
        let met = AtomicBool::new(false);
        let (reports, answers) = std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                let mut reports = 0;
                // Relaxed: only ends the loop.
                while !over.load(Ordering::Relaxed) {
                    leaks.sweep(
                        S0,
                        at(NOW),
                        |_| 500,
                        |leak| {
                            met.store(true, Ordering::Relaxed);
                            assert_eq!((leak.location, leak.held_ms), (old, NOW), "{leak:?}");
                            reports += 1;
                        },
                    );
                }
                reports
            });
            let owners: [_; 2] = core::array::from_fn(|owner| {
                let (leaks, met) = (&leaks, &met);
                scope.spawn(move || {
                    let slot = slot(owner as u32);
                    let mut answers = 0;
                    for turn in 0..100 * TURNS {
                        // Enough, unless the sweep got no processor yet.
                        if turn > TURNS && met.load(Ordering::Relaxed) {
                            break;
                        }
                        let (location, since) = if turn % 2 == 0 { (old, 0) } else { (fresh, NOW) };
                        leaks.taken(S0, slot, location, at(since));
                        if turn % 64 == 0 {
                            std::thread::yield_now();
                        }
                        if let Some(leak) = leaks.returned(S0, slot, at(NOW)) {
                            assert_eq!((leak.location, leak.held_ms), (old, NOW), "{leak:?}");
                            answers += 1;
                        }
                    }
                    answers
                })
            });
            let answers: u32 = owners.map(|owner| owner.join().unwrap()).iter().sum();
            over.store(true, Ordering::Relaxed);
            (sweeper.join().unwrap(), answers)
        });
        assert!(reports > 0, "the sweep never met a turn");
        assert_eq!(reports, answers, "each report is answered by its return, and no other");
    }
}
