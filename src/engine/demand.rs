//! What a group's callers want: one word that a return looks at.

use crate::sync::{AtomicU64, Ordering, guess};

/// How many callers wait, how many dials are under way for them, and whether the group is held or
/// closed, in one word: dialing in bits 0 to 31, waiting in 32 to 61,
/// held in 62, closed in 63.
///
/// One word, so that "a dial for every waiter and no more" is a single CAS, and so that a hit and
/// a return learn with one load of a rarely written line whether they may take the fast path.
#[derive(Debug)]
pub struct Demand(AtomicU64);

/// The value of the word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Callers that wait for a connection.
    pub waiting: u32,
    /// Dials under way.
    pub dialing: u32,
    /// Nobody is served until the group is resumed.
    pub held: bool,
    /// Nobody may wait or rest any more.
    pub closed: bool,
}

/// Why a caller may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The group is closed.
    Closed,
    /// As many callers wait as may.
    Full,
    /// As many connections live as may, and the caller is not willing to wait.
    AtLimit,
    /// The breaker is open, for so many milliseconds more.
    Open(u32),
}

const DIALING: u64 = 1;
const WAITING: u64 = 1 << 32;
const HELD: u64 = 1 << 62;
const CLOSED: u64 = 1 << 63;
const FLAGS: u64 = HELD | CLOSED;

impl Demand {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether callers wait or the group is held or closed: then no fast path is open.
    #[inline]
    pub fn is_contended(&self) -> bool {
        // Relaxed: the callers that need an order put a SeqCst fence before (INV-5).
        self.0.load(Ordering::Relaxed) >= WAITING
    }

    /// The counts at this moment.
    pub fn wanted(&self) -> Wanted {
        // Relaxed: as in `is_contended`.
        Wanted::unpack(self.0.load(Ordering::Relaxed))
    }

    /// One more caller waits.
    ///
    /// # Errors
    /// When the group is closed or `limit` callers wait already.
    pub fn register(&self, limit: u32) -> Result<(), Refused> {
        self.update(|wanted| {
            if wanted.closed {
                return Err(Refused::Closed);
            }
            if wanted.waiting >= limit {
                return Err(Refused::Full);
            }
            Ok(WAITING)
        })
    }

    /// A caller waits no more: it was served by a return, or it left.
    pub fn left(&self) {
        self.sub(WAITING);
    }

    /// A caller waits no more, unless a dial is under way for it: whether it left.
    #[must_use]
    pub fn leave_undialed(&self) -> bool {
        let mut bits = guess(&self.0);
        loop {
            let wanted = Wanted::unpack(bits);
            if wanted.waiting <= wanted.dialing {
                return false;
            }
            // AcqRel: as in `sub`.
            match self.0.compare_exchange_weak(
                bits,
                bits - WAITING,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(found) => bits = found,
            }
        }
    }

    /// A dial ended and its outcome went to a caller. In one step, so that no newcomer between
    /// the two counts a dial that is over as its own.
    pub fn served_by_dial(&self) {
        self.sub(WAITING + DIALING);
    }

    /// A dial ended and nobody waited for it.
    pub fn dial_over(&self) {
        self.sub(DIALING);
    }

    /// Counts one more dial, if callers wait that no dial is under way for.
    #[must_use]
    pub fn claim_dial(&self) -> bool {
        self.update(|wanted| if wanted.needs_dial() { Ok(DIALING) } else { Err(()) }).is_ok()
    }

    /// Counts one more dial, whether or not a caller waits for it.
    #[must_use]
    pub fn claim_spare(&self) -> bool {
        self.update(|wanted| if wanted.is_open() { Ok(DIALING) } else { Err(()) }).is_ok()
    }

    /// Serves nobody from now on. `true` for the one that did it.
    pub fn hold(&self) -> bool {
        // AcqRel: as in `close`.
        self.0.fetch_or(HELD, Ordering::AcqRel) & HELD == 0
    }

    /// Serves again. `true` for the one that did it.
    pub fn resume(&self) -> bool {
        // AcqRel: ordered among all changes of the word; `Engine::resume` fences after it.
        self.0.fetch_and(!HELD, Ordering::AcqRel) & HELD != 0
    }

    /// Closes for good. `true` for the one that did it.
    pub fn close(&self) -> bool {
        // AcqRel: ordered among all changes of the word; `Engine::close` fences after it.
        self.0.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    fn sub(&self, what: u64) {
        // AcqRel: an RMW keeps the order of all changes; see the partner fences in `engine`.
        let before = self.0.fetch_sub(what, Ordering::AcqRel);
        debug_assert!(
            before as u32 as u64 >= what as u32 as u64 && (before & !FLAGS) >> 32 >= what >> 32,
            "INV-2: {what:#x} taken from {before:#x}"
        );
    }

    fn update<E>(&self, add: impl Fn(Wanted) -> Result<u64, E>) -> Result<(), E> {
        let mut bits = guess(&self.0);
        loop {
            let what = add(Wanted::unpack(bits))?;
            // AcqRel: as in `sub`.
            match self.0.compare_exchange_weak(
                bits,
                bits + what,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(found) => bits = found,
            }
        }
    }
}

impl Default for Demand {
    fn default() -> Self {
        Self::new()
    }
}

impl Wanted {
    const fn unpack(bits: u64) -> Self {
        Self {
            waiting: ((bits & !FLAGS) >> 32) as u32,
            dialing: bits as u32,
            held: bits & HELD != 0,
            closed: bits & CLOSED != 0,
        }
    }

    /// Whether callers wait that no dial is under way for.
    pub const fn needs_dial(self) -> bool {
        self.waiting > self.dialing && self.is_open()
    }

    /// Whether callers are served at all.
    pub const fn is_open(self) -> bool {
        !self.closed && !self.held
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_dials_than_callers_that_wait() {
        let demand = Demand::new();
        demand.register(2).unwrap();
        demand.register(2).unwrap();
        assert_eq!(demand.register(2), Err(Refused::Full));
        assert!(demand.claim_dial());
        assert!(demand.claim_dial());
        assert!(!demand.claim_dial());
        demand.served_by_dial();
        assert_eq!(demand.wanted(), Wanted { waiting: 1, dialing: 1, held: false, closed: false });
    }

    #[test]
    fn a_spare_dial_is_one_that_the_next_caller_need_not_start() {
        let demand = Demand::new();
        assert!(demand.claim_spare());
        demand.register(9).unwrap();
        assert!(!demand.claim_dial());
        demand.served_by_dial();
        assert_eq!(demand.wanted(), Wanted::default());
    }

    #[test]
    fn nobody_is_served_while_held() {
        let demand = Demand::new();
        assert!(demand.hold() && !demand.hold());
        demand.register(9).unwrap();
        assert!(demand.is_contended() && !demand.claim_dial() && !demand.claim_spare());
        assert_eq!(demand.wanted().waiting, 1, "the flag is no caller");
        assert!(demand.resume() && !demand.resume());
        assert!(demand.claim_dial());
    }

    #[test]
    fn nobody_waits_or_dials_once_closed() {
        let demand = Demand::new();
        demand.register(9).unwrap();
        assert!(demand.close());
        assert!(!demand.close());
        assert_eq!(demand.register(9), Err(Refused::Closed));
        assert!(!demand.claim_dial());
        demand.left();
        assert!(demand.is_contended(), "closed counts as contended");
    }
}
