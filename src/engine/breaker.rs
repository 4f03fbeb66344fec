//! Circuit breaker: dials to an endpoint that keeps failing are refused for a while, and then a few
//! of them find out whether it is back.
//!
//! ```text
//!              trip: too many failures                 the time is over: first probe
//!   Closed ─────────────────────────────▶ Open ───────────────────────────────────▶ HalfOpen
//!     ▲ ▲                                  │ ▲             a probe failed             │ │
//!     │ └──────────── reset ───────────────┘ └────────────────────────────────────────┘ │
//!     └───────────────────────── enough probes succeeded, or reset ─────────────────────┘
//!
//!   any ── force ──▶ ForcedOpen | ForcedClosed ── force(Auto) ──▶ Closed
//! ```
//! What happens is the whole of [`word::Word::on`]; this file is the word's owner and the passes.

use crate::{
    clock::Tick,
    engine::BackoffRules,
    sync::{AtomicU64, Ordering, guess},
};

mod rules;
#[cfg(all(any(test, fuzzing), not(any(loom, model))))]
pub(super) mod specification;
#[cfg(all(test, not(loom)))]
mod table;
mod window;
mod word;

pub use rules::BreakerRules;
use word::{Event, Ticket, Word};

/// Where the circuit breaker of an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Every dial is admitted, and its outcome is counted.
    Closed = 0,
    /// Every dial is admitted, and none is counted, because an operator says so.
    ForcedClosed = 1,
    /// No dial is admitted until a time has passed.
    Open = 2,
    /// A few dials at a time are admitted, as probes.
    HalfOpen = 3,
    /// No dial is admitted, because an operator says so.
    ForcedOpen = 4,
}

impl State {
    /// The state as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ForcedClosed => "forced_closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
        }
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operator may have of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The breaker follows its rules.
    Auto,
    /// It stays open, whatever its rules say, also while they are not enabled.
    ForcedOpen,
    /// It stays closed.
    ForcedClosed,
}

/// A change of state, told once, by the call that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state since.
    pub to: State,
    /// For how many milliseconds, when that is [`State::Open`]; else 0.
    pub open_for_ms: u32,
}

/// The permission to dial once.
///
/// Its holder ends it in exactly one of three calls, whatever becomes of the dial:
/// [`Breaker::succeeded`], [`Breaker::failed`] or [`Breaker::withdrawn`]. A pass that is merely
/// dropped keeps a probe's place for good: with all places kept, a half-open breaker admits nobody
/// until it is reset. It may be ended by any thread that it was handed to. It is cloned only with
/// the reservation of a dial, whose ticket lets one of the clones end it.
#[derive(Clone, Debug)]
#[must_use = "a pass must be ended in exactly one of `succeeded`, `failed` and `withdrawn`"]
pub struct Pass {
    ticket: Ticket,
    change: Option<Change>,
}

impl Pass {
    /// Whether the dial is a probe: the breaker's state hangs on its outcome.
    #[cfg(any(test, loom, model, fuzzing))]
    pub fn is_probe(&self) -> bool {
        self.ticket.probe
    }

    /// The change from Open to HalfOpen, when this admission made it. To be told once.
    pub fn change(&self) -> Option<Change> {
        self.change
    }
}

/// A dial was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// [`State::Open`], [`State::HalfOpen`] or [`State::ForcedOpen`].
    pub state: State,
    /// Milliseconds until a dial may be admitted, at least 1 while the breaker is open. 0 while it
    /// is half-open: no time can be told, because the probes under way decide, and any of them may
    /// end at once. `u32::MAX` while it is forced open.
    pub left_ms: u32,
}

/// The breaker of one endpoint, in one word (INV-8).
///
/// Everything is Relaxed: the word guards nothing but itself, and all its changes are in one order.
/// An answer that changes nothing may come from a reading that is just out of date; it is the answer
/// to a call that came a moment before. An outcome is never judged by a word older than its pass,
/// since the pass was made from it. Whoever lines up callers by the breaker's state has to fence.
#[derive(Debug)]
pub struct Breaker(AtomicU64);

impl Breaker {
    /// Closed; nothing has failed.
    pub fn new() -> Self {
        Self(AtomicU64::new(Word::NEW.pack()))
    }

    /// Whether every dial is admitted, forced or not, by one load.
    #[inline]
    pub fn is_closed(&self) -> bool {
        Word::is_closed(self.0.load(Ordering::Relaxed))
    }

    /// The state that a dial would meet now: an open breaker whose time is over counts as half-open,
    /// though it turns only when a dial asks.
    pub fn glance(&self, now: Tick) -> State {
        match self.word() {
            word if word.state() == State::Open && word.left(now) == 0 => State::HalfOpen,
            word => word.state(),
        }
    }

    /// For how many milliseconds a dial that asked now would be rejected, if it were; as
    /// [`Rejected::left_ms`].
    pub fn rejects(&self, rules: &BreakerRules, now: Tick) -> Option<u32> {
        let word = self.word();
        word.on(Event::Admit, rules, now, 0).is_none().then(|| word.left(now))
    }

    /// Asks whether a dial may begin.
    ///
    /// # Errors
    /// When the breaker is open, or half-open with all its probes under way.
    #[inline]
    pub fn admit(&self, rules: &BreakerRules, now: Tick) -> Result<Pass, Rejected> {
        match self.step(|word| word.on(Event::Admit, rules, now, 0)) {
            // Only a probe's admission changes the word.
            Ok((from, to)) => Ok(Pass {
                ticket: Ticket { epoch: to.epoch, probe: from != to },
                change: change(from, to, 0),
            }),
            Err(found) => Err(Rejected { state: found.state(), left_ms: found.left(now) }),
        }
    }

    /// The dial succeeded. A dial that took too long is to be reported as [failed](Self::failed).
    pub fn succeeded(&self, pass: Pass, rules: &BreakerRules, now: Tick) -> Option<Change> {
        let (from, to) =
            self.step(|word| word.on(Event::Success(pass.ticket), rules, now, 0)).ok()?;
        change(from, to, 0)
    }

    /// The dial failed, and the endpoint is to blame. `random` varies the open time.
    pub fn failed(
        &self,
        pass: Pass,
        rules: &BreakerRules,
        now: Tick,
        random: u32,
    ) -> Option<Change> {
        let failure = Event::Failure(pass.ticket);
        let (from, to) = self.step(|word| word.on(failure, rules, now, random)).ok()?;
        change(from, to, to.left(now))
    }

    /// The dial says nothing about the endpoint: it was cancelled, or failed for a local cause such
    /// as EMFILE. A probe's place comes back; nothing is counted.
    pub fn withdrawn(&self, pass: Pass) {
        let event = Event::Withdrawal(pass.ticket);
        // A withdrawal follows no rule and no clock. That its pass is of an older period is fine.
        let _ = self.step(|word| word.on(event, &BreakerRules::default(), Tick::from_millis(0), 0));
    }

    /// An operator's word, which holds until the next one. [`Mode::Auto`] after a forced mode
    /// begins with a closed breaker that remembers nothing.
    pub fn force(&self, mode: Mode) -> Option<Change> {
        self.order(Event::Force(mode))
    }

    /// A hint from outside that the endpoint is back or another one: closes an open breaker, and
    /// forgets all outcomes, those of dials under way included. What is forced stays.
    pub fn reset(&self) -> Option<Change> {
        self.order(Event::Reset)
    }

    fn order(&self, event: Event) -> Option<Change> {
        let rules = BreakerRules::default();
        let (from, to) = self.step(|word| word.on(event, &rules, Tick::from_millis(0), 0)).ok()?;
        change(from, to, 0)
    }

    /// Takes one step: the word before and after, or as `Err` the word that refused.
    #[inline]
    fn step(&self, next: impl Fn(Word) -> Option<Word>) -> Result<(Word, Word), Word> {
        let mut bits = guess(&self.0);
        loop {
            let from = Word::unpack(bits);
            let to = next(from).ok_or(from)?;
            if to == from {
                return Ok((from, to));
            }
            match self.0.compare_exchange_weak(
                bits,
                to.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok((from, to)),
                Err(found) => bits = found,
            }
        }
    }

    fn word(&self) -> Word {
        Word::unpack(self.0.load(Ordering::Relaxed))
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

fn change(from: Word, to: Word, open_for_ms: u32) -> Option<Change> {
    let change = Change { from: from.state(), to: to.state(), open_for_ms };
    (change.from != change.to).then_some(change)
}
