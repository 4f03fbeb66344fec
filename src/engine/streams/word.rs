//! The word of a shared connection: how many streams are leased, how many may be, and how it goes
//! on.

/// What a cell's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    pub state: State,
    /// It takes no more streams, and ends when the last has ended.
    pub draining: bool,
    /// Streams that are leased.
    pub leases: u16,
    /// How many its peer allows.
    pub limit: u16,
    /// Of which of the connection's words about itself the limit is; `None` before the first.
    pub version: Option<u16>,
    /// Which connection of this cell.
    pub generation: u32,
}

/// How a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no connection.
    Vacant,
    /// Somebody puts one in, or takes it out.
    Moving,
    /// There is one.
    Open,
    /// There is one that is not needed: it takes no more streams, and rests when the last has
    /// ended.
    Leaving,
}

/// What happens to a cell.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Somebody is to put a connection in.
    Claim,
    /// It is there and takes so many streams.
    Open(Capacity),
    /// Nobody put one in, or it was taken out.
    Vacate,
    /// A stream is leased, if fewer than so many are and than the limit.
    Lease(u16),
    /// Somebody looks at the connection, which counts as a stream for as long, whatever the limit.
    Visit,
    /// A leased stream has ended.
    GiveBack,
    /// The connection is not needed.
    Leave,
    /// It is needed after all.
    Stay,
    /// It takes no more streams for good.
    Drain,
    /// Its peer allows another number of streams.
    Change(Capacity),
}

/// How many streams a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// So many.
    pub limit: u16,
    /// Grows with each change; its low bits tell the newer of two.
    pub version: u32,
}

const LEASES: u32 = 0;
const LIMIT: u32 = 16;
const VERSION: u32 = 32;
const VERSIONED: u32 = 43;
const STATE: u32 = 44;
const DRAINING: u32 = 46;
const GENERATION: u32 = 47;

/// Versions are told apart over this many changes, either way; a change that is told later than
/// that after it was made is taken for a newer one.
const VERSIONS: u16 = 1 << (VERSIONED - VERSION);
/// A cell's generation comes round after so many connections.
const GENERATIONS: u32 = 1 << (u64::BITS - GENERATION);

impl Word {
    /// Nothing was ever here.
    pub const VACANT: Self = Self {
        state: State::Vacant,
        draining: false,
        leases: 0,
        limit: 0,
        version: None,
        generation: 0,
    };

    pub const fn pack(self) -> u64 {
        let (versioned, version) = match self.version {
            Some(version) => (1, version),
            None => (0, 0),
        };
        (self.leases as u64) << LEASES
            | (self.limit as u64) << LIMIT
            | (version as u64) << VERSION
            | versioned << VERSIONED
            | (self.state as u64) << STATE
            | (self.draining as u64) << DRAINING
            | (self.generation as u64) << GENERATION
    }

    pub const fn unpack(bits: u64) -> Self {
        Self {
            state: match (bits >> STATE) & 3 {
                0 => State::Vacant,
                1 => State::Moving,
                2 => State::Open,
                _ => State::Leaving,
            },
            draining: bits >> DRAINING & 1 == 1,
            leases: (bits >> LEASES) as u16,
            limit: (bits >> LIMIT) as u16,
            version: match bits >> VERSIONED & 1 {
                1 => Some((bits >> VERSION) as u16 % VERSIONS),
                _ => None,
            },
            generation: (bits >> GENERATION) as u32,
        }
    }

    /// Whether it takes another stream, where `most` of them are what it may have.
    #[inline]
    pub const fn has_room(self, most: u16) -> bool {
        self.is_open() && self.leases < self.room(most)
    }

    /// How many streams it takes, where `most` are what it may have.
    #[inline]
    pub const fn room(self, most: u16) -> u16 {
        if self.limit < most { self.limit } else { most }
    }

    /// Whether it counts among the connections that streams are leased of.
    pub const fn is_open(self) -> bool {
        matches!(self.state, State::Open) && !self.draining
    }

    /// Whether a connection stands here, or is on its way in or out.
    pub const fn is_taken(self) -> bool {
        !matches!(self.state, State::Vacant)
    }

    /// Whether one is on its way in or out.
    pub const fn is_moving(self) -> bool {
        matches!(self.state, State::Moving)
    }

    /// The word after an event; `None` where it may not happen.
    ///
    /// The last lease of a connection that drains or leaves takes it out: the word turns `Moving`,
    /// and who made that change has the connection.
    #[inline]
    pub const fn on(self, event: Event) -> Option<Self> {
        use State::{Leaving, Moving, Open, Vacant};
        let mut next = self;
        match (event, self.state) {
            (Event::Claim, Vacant) => {
                next = Self { state: Moving, generation: self.generation, ..Self::VACANT };
            }
            (Event::Open(capacity), Moving) if !self.draining => {
                next = self.changed(capacity);
                next.state = Open;
            }
            (Event::Vacate, Moving) => {
                let generation = (self.generation + 1) % GENERATIONS;
                next = Self { generation, ..Self::VACANT };
            }
            (Event::Lease(most), Open) if self.has_room(most) => next.leases += 1,
            (Event::Visit, Open) if !self.draining && self.leases < u16::MAX => next.leases += 1,
            (Event::GiveBack, Open | Leaving) if self.leases > 0 => {
                next.leases -= 1;
                if next.leases == 0 && (self.draining || matches!(self.state, Leaving)) {
                    next.state = Moving;
                }
            }
            (Event::Leave, Open) if !self.draining => {
                next.state = if self.leases == 0 { Moving } else { Leaving };
            }
            (Event::Stay, Leaving) if !self.draining => next.state = Open,
            (Event::Drain, Open | Leaving) if !self.draining => {
                next.draining = true;
                if self.leases == 0 {
                    next.state = Moving;
                }
            }
            // Who moves it finds the mark.
            (Event::Drain, Moving) if !self.draining => next.draining = true,
            (Event::Change(capacity), Moving | Open | Leaving) => next = self.changed(capacity),
            _ => return None,
        }
        Some(next)
    }

    /// With a limit that is newer than its own, if it is.
    const fn changed(mut self, capacity: Capacity) -> Self {
        let version = capacity.version as u16 % VERSIONS;
        let is_newer = match self.version {
            Some(known) => version.wrapping_sub(known) % VERSIONS < VERSIONS / 2,
            None => true,
        };
        if is_newer {
            self.limit = capacity.limit;
            self.version = Some(version);
        }
        self
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const fn capacity(limit: u16, version: u32) -> Capacity {
        Capacity { limit, version }
    }

    #[test]
    fn a_word_survives_being_packed() {
        let words = [State::Vacant, State::Moving, State::Open, State::Leaving].map(|state| Word {
            state,
            draining: state == State::Leaving,
            leases: u16::MAX - 1,
            limit: 0x1234,
            version: Some(VERSIONS - 1),
            generation: GENERATIONS - 1,
        });
        for word in words.into_iter().chain([Word::VACANT]) {
            assert_eq!(Word::unpack(word.pack()), word);
        }
    }

    /// Every event in every state, with and without leases and the mark.
    #[test]
    fn the_transition_relation_is_this() {
        let events = [
            ("claim", Event::Claim),
            ("open", Event::Open(capacity(2, 0))),
            ("vacate", Event::Vacate),
            ("lease", Event::Lease(9)),
            ("lease one", Event::Lease(1)),
            ("visit", Event::Visit),
            ("give back", Event::GiveBack),
            ("leave", Event::Leave),
            ("stay", Event::Stay),
            ("drain", Event::Drain),
            ("change", Event::Change(capacity(2, 0))),
        ];
        let mut relation = Vec::new();
        for (name, event) in events {
            for state in [State::Vacant, State::Moving, State::Open, State::Leaving] {
                for draining in [false, true] {
                    for leases in 0..=2 {
                        let word = Word { state, draining, leases, limit: 2, ..Word::VACANT };
                        // Nothing is leased of what is not there.
                        let impossible = match state {
                            State::Vacant => draining || leases > 0,
                            State::Moving => leases > 0,
                            State::Open => draining && leases == 0,
                            State::Leaving => leases == 0,
                        };
                        if let (false, Some(next)) = (impossible, word.on(event)) {
                            let show = |word: Word| {
                                let mark = if word.draining { "*" } else { "" };
                                format!("{:?}{mark} {}", word.state, word.leases)
                            };
                            relation.push(format!("{name}: {} -> {}", show(word), show(next)));
                        }
                    }
                }
            }
        }
        assert_eq!(relation.join("\n"), include_str!("relation.txt").trim_end());
    }

    #[test]
    fn what_is_told_late_changes_nothing() {
        let moving = Word::VACANT.on(Event::Claim).unwrap();
        // Told while the connection is put in: what it said before that is older.
        let told = moving.on(Event::Change(capacity(3, 8))).unwrap();
        let open = told.on(Event::Open(capacity(9, 7))).unwrap();
        assert_eq!((open.limit, open.has_room(9)), (3, true));
        let raised = open.on(Event::Change(capacity(5, 9))).unwrap();
        assert_eq!(raised.limit, 5);
        assert_eq!(raised.on(Event::Change(capacity(3, 8))).unwrap().limit, 5);
        // Over the point where versions come round.
        let last = u32::from(VERSIONS) - 1;
        let word = Word { version: Some(VERSIONS - 1), limit: 7, ..open };
        assert_eq!(word.on(Event::Change(capacity(1, last + 1))).unwrap().limit, 1);
        assert_eq!(word.on(Event::Change(capacity(1, last - 1))).unwrap().limit, 7);
    }

    #[test]
    fn one_that_ended_while_it_was_put_in_is_never_open() {
        let moving = Word::VACANT.on(Event::Claim).unwrap();
        let ended = moving.on(Event::Drain).unwrap();
        assert!(ended.on(Event::Open(capacity(9, 0))).is_none());
        let vacant = ended.on(Event::Vacate).unwrap();
        assert_eq!((vacant.state, vacant.draining, vacant.generation), (State::Vacant, false, 1));
    }

    #[test]
    fn a_lowered_limit_ends_no_stream_and_lends_none() {
        let word = Word { state: State::Open, leases: 3, limit: 3, ..Word::VACANT };
        let lowered = word.on(Event::Change(capacity(2, 0))).unwrap();
        assert_eq!((lowered.leases, lowered.limit), (3, 2));
        let returned = lowered.on(Event::GiveBack).unwrap();
        assert!(!returned.has_room(9));
        assert!(returned.on(Event::GiveBack).unwrap().has_room(9));
    }
}
