//! The word of a breaker as a plain value, and its whole transition relation.

use super::{
    BreakerRules, Mode, State,
    window::{Outcomes, Stamp},
};
use crate::{clock::Tick, engine::backoff::Deadline};

/// What can happen to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A dial asks to begin.
    Admit,
    /// It succeeded.
    Success(Ticket),
    /// It failed.
    Failure(Ticket),
    /// It ended without a verdict.
    Withdrawal(Ticket),
    /// An operator speaks.
    Force(Mode),
    /// All is to be forgotten.
    Reset,
}

/// What a pass says of its dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The period that it was admitted in.
    pub epoch: Epoch,
    /// It takes a probe's place.
    pub probe: bool,
}

/// Names one period between two changes of state, so that the outcome of a dial that was begun in
/// an older one is told. Comes round after 1024 changes, of which a dial would have to sleep
/// through every one; if it does, it counts as one of the new period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(u16);

impl Epoch {
    const BITS: u32 = 10;

    /// The epoch in the lowest bits; higher ones are dropped.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits as u16 & ((1 << Self::BITS) - 1))
    }

    /// The bits, right-aligned.
    pub const fn bits(self) -> u64 {
        self.0 as u64
    }

    const fn next(self) -> Self {
        Self::from_bits(self.0 as u64 + 1)
    }
}

/// The state, with what it has to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// See [`State::Closed`].
    Closed {
        /// The last ones, of this period.
        outcomes: Outcomes,
        /// When the last of them came, or the period began.
        stamp: Stamp,
    },
    /// See [`State::ForcedClosed`].
    ForcedClosed,
    /// See [`State::Open`].
    Open {
        /// When the first probe may begin.
        until: Deadline,
    },
    /// See [`State::HalfOpen`].
    HalfOpen {
        /// Probes under way.
        out: u8,
        /// Probes that succeeded.
        passed: u8,
    },
    /// See [`State::ForcedOpen`].
    ForcedOpen,
}

/// A breaker's word: state in bits 0 to 2, epoch in 3 to 12, trips in 13 to 17, and above what the
/// state has to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The state, with what it has to remember.
    pub phase: Phase,
    /// The current period.
    pub epoch: Epoch,
    /// How often the breaker tripped in a row: the exponent of its open time.
    ///
    /// Closing does not end the row. An endpoint that answers a lone probe and breaks down under
    /// the load that follows would be tried at the shortest interval for ever, and a first success
    /// after closing says no more than the probe did. The row ends when a whole window of outcomes
    /// has come in without a trip, or when the outcomes are forgotten because none came for the
    /// length of the window.
    pub trips: u8,
}

const STATE_BITS: u32 = 3;
const TRIPS_BITS: u32 = 5;
const TRIPS_AT: u32 = STATE_BITS + Epoch::BITS;
const REST_AT: u32 = TRIPS_AT + TRIPS_BITS;
const _: () = assert!(REST_AT + Outcomes::BITS + Stamp::BITS <= u64::BITS);
const _: () = assert!(REST_AT + Deadline::BITS <= u64::BITS);

impl Word {
    /// A breaker that knows nothing.
    pub const NEW: Self = Self { phase: Phase::NEW, epoch: Epoch(0), trips: 0 };
    /// The highest count of trips; with the default backoff the open time grows no more after 11.
    pub const MOST_TRIPS: u8 = (1 << TRIPS_BITS) - 1;

    /// The word as stored.
    pub const fn pack(self) -> u64 {
        let (state, rest) = match self.phase {
            Phase::Closed { outcomes, stamp } => {
                (State::Closed, outcomes.bits() | stamp.bits() << Outcomes::BITS)
            }
            Phase::ForcedClosed => (State::ForcedClosed, 0),
            Phase::Open { until } => (State::Open, until.pack()),
            Phase::HalfOpen { out, passed } => (State::HalfOpen, out as u64 | (passed as u64) << 8),
            Phase::ForcedOpen => (State::ForcedOpen, 0),
        };
        state as u64
            | self.epoch.bits() << STATE_BITS
            | (self.trips as u64) << TRIPS_AT
            | rest << REST_AT
    }

    /// The value of a stored word.
    pub const fn unpack(bits: u64) -> Self {
        let rest = bits >> REST_AT;
        let phase = match bits & ((1 << STATE_BITS) - 1) {
            0 => Phase::Closed {
                outcomes: Outcomes::from_bits(rest),
                stamp: Stamp::from_bits(rest >> Outcomes::BITS),
            },
            1 => Phase::ForcedClosed,
            2 => Phase::Open { until: Deadline::unpack(rest) },
            3 => Phase::HalfOpen { out: rest as u8, passed: (rest >> 8) as u8 },
            // Only `pack` writes words, so 5 to 7 do not occur.
            _ => Phase::ForcedOpen,
        };
        Self {
            phase,
            epoch: Epoch::from_bits(bits >> STATE_BITS),
            trips: (bits >> TRIPS_AT) as u8 & Self::MOST_TRIPS,
        }
    }

    /// Whether a stored word is closed, forced or not.
    pub const fn is_closed(bits: u64) -> bool {
        bits & ((1 << STATE_BITS) - 1) <= State::ForcedClosed as u64
    }

    /// The state.
    pub const fn state(self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::ForcedClosed => State::ForcedClosed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::ForcedOpen => State::ForcedOpen,
        }
    }

    /// Milliseconds until a dial may be admitted, as [`super::Rejected`] has them.
    pub fn left(self, now: Tick) -> u32 {
        match self.phase {
            Phase::Open { until } => until.left(now),
            Phase::ForcedOpen => u32::MAX,
            _ => 0,
        }
    }

    /// The whole transition relation, a line or two for each edge of the figure. `None` refuses a
    /// dial, and ignores what does not concern this state or this period.
    pub fn on(self, event: Event, rules: &BreakerRules, now: Tick, random: u32) -> Option<Self> {
        use Event::*;
        let on = rules.enabled;
        Some(match (self.phase, event) {
            (Phase::ForcedOpen, Admit) => return None,
            (Phase::Open { until }, Admit) if on => {
                if until.left(now) > 0 {
                    return None;
                }
                self.turned(Phase::HalfOpen { out: 1, passed: 0 })
            }
            (Phase::HalfOpen { out, passed }, Admit) if on => {
                if out >= rules.probes.max(1) {
                    return None;
                }
                self.with(Phase::HalfOpen { out: out + 1, passed })
            }
            (_, Admit) => self,

            (_, Success(ticket) | Failure(ticket) | Withdrawal(ticket))
                if ticket.epoch != self.epoch =>
            {
                return None;
            }
            (Phase::Closed { outcomes, stamp }, Success(_)) if on => {
                self.counted(outcomes, stamp, false, rules, now, random)
            }
            (Phase::Closed { outcomes, stamp }, Failure(_)) if on => {
                self.counted(outcomes, stamp, true, rules, now, random)
            }
            // Admitted while the rules were off.
            (Phase::HalfOpen { .. }, Success(ticket) | Failure(ticket)) if !ticket.probe => {
                return None;
            }
            (Phase::HalfOpen { out, passed }, Success(_)) if on => {
                let passed = passed.saturating_add(1);
                if passed >= rules.successes {
                    let stamp = Stamp::at(now, rules.window_s);
                    self.turned(Phase::Closed { outcomes: Outcomes::NONE, stamp })
                } else {
                    self.with(Phase::HalfOpen { out: out.saturating_sub(1), passed })
                }
            }
            (Phase::HalfOpen { .. }, Failure(_)) if on => self.tripped(rules, now, random),
            (Phase::HalfOpen { out, passed }, Success(t) | Failure(t) | Withdrawal(t))
                if t.probe =>
            {
                self.with(Phase::HalfOpen { out: out.saturating_sub(1), passed })
            }
            (_, Success(_) | Failure(_) | Withdrawal(_)) => return None,

            (Phase::ForcedOpen, Force(Mode::ForcedOpen))
            | (Phase::ForcedClosed, Force(Mode::ForcedClosed)) => return None,
            (_, Force(Mode::ForcedOpen)) => self.forgetful(Phase::ForcedOpen),
            (_, Force(Mode::ForcedClosed)) => self.forgetful(Phase::ForcedClosed),
            (Phase::ForcedOpen | Phase::ForcedClosed, Force(Mode::Auto)) => {
                self.forgetful(Phase::NEW)
            }
            (_, Force(Mode::Auto)) => return None,
            (Phase::ForcedOpen | Phase::ForcedClosed, Reset) => return None,
            (_, Reset) => self.forgetful(Phase::NEW),
        })
    }

    /// The same period goes on.
    const fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// A new period begins.
    const fn turned(self, phase: Phase) -> Self {
        Self { phase, epoch: self.epoch.next(), ..self }
    }

    /// A new period begins and knows nothing of the past.
    const fn forgetful(self, phase: Phase) -> Self {
        Self { phase, epoch: self.epoch.next(), trips: 0 }
    }

    fn tripped(self, rules: &BreakerRules, now: Tick, random: u32) -> Self {
        let until = now.after(rules.backoff.delay(self.trips, random));
        let trips = Self::MOST_TRIPS.min(self.trips + 1);
        Self { trips, ..self.turned(Phase::Open { until: Deadline::new(until, now) }) }
    }

    /// One more outcome of a closed breaker. Only a failure trips it.
    fn counted(
        self,
        outcomes: Outcomes,
        stamp: Stamp,
        failed: bool,
        rules: &BreakerRules,
        now: Tick,
        random: u32,
    ) -> Self {
        let (outcomes, trips) = if stamp.is_old(now, rules.window_s) {
            (Outcomes::NONE, 0)
        } else {
            (outcomes, self.trips)
        };
        let outcomes = outcomes.and(failed);
        if failed && outcomes.trip(rules) {
            return Self { trips, ..self }.tripped(rules, now, random);
        }
        let stamp = Stamp::at(now, rules.window_s);
        let trips = if outcomes.is_full() { 0 } else { trips };
        Self { phase: Phase::Closed { outcomes, stamp }, trips, ..self }
    }
}

impl Phase {
    const NEW: Self = Self::Closed { outcomes: Outcomes::NONE, stamp: Stamp::from_bits(0) };
}
