//! The state word of a slot as a plain value, and its whole transition relation.

/// Where a slot stands in the life of a connection; the figure is in [`crate::design`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nobody's. Its index rests in the slab's ring of vacant places.
    Vacant = 0,
    /// A dial is under way; its ticket may fulfil or abandon it.
    Dialing = 1,
    /// A lease owns the connection.
    InUse = 2,
    /// At rest, with a hint in some lane; whoever wins the CAS owns the connection.
    Idle = 3,
    /// On its way out; only the shard's driver may touch it.
    Closing = 4,
}

#[cfg(test)]
impl State {
    /// Every state, in the order of its number.
    pub const ALL: [Self; 5] =
        [Self::Vacant, Self::Dialing, Self::InUse, Self::Idle, Self::Closing];
}

/// What can happen to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A dial takes a vacant slot.
    Reserve,
    /// The dial succeeded.
    Fulfil,
    /// The dial failed, timed out or was given up.
    Abandon,
    /// A caller takes an idle connection.
    Checkout,
    /// A caller puts a clean connection to rest.
    Return,
    /// A caller ends a connection.
    Discard,
    /// The watch saw the peer go.
    HangUp,
    /// Policy ends an idle connection: idle timeout, eviction, drain.
    Expire,
    /// The driver has closed the connection.
    Vacate,
}

#[cfg(test)]
impl Event {
    /// Every event.
    pub const ALL: [Self; 9] = [
        Self::Reserve,
        Self::Fulfil,
        Self::Abandon,
        Self::Checkout,
        Self::Return,
        Self::Discard,
        Self::HangUp,
        Self::Expire,
        Self::Vacate,
    ];
}

/// Names one idle period of one slot; see [`Word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    /// How many bits a generation has: 40, so that one slot returned 100,000 times a second takes
    /// 127 days to come round. Two under the model, so that wrap-around is explored.
    pub const BITS: u32 = if cfg!(loom) { 2 } else { 40 };
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// The generation's bits, right-aligned.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A generation from its bits; higher ones are dropped.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::MASK)
    }

    const fn next(self) -> Self {
        Self::from_bits(self.0.wrapping_add(1))
    }
}

/// A slot's word: its state, whether its peer was seen to go, and its generation.
///
/// The generation grows when an idle period begins ([`Event::Return`]) and when the slot is
/// vacated, so that a stale hint or a late completion never matches the next owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where the slot stands.
    pub state: State,
    /// The watch saw the peer go while a dial or a lease held the connection: it must neither be
    /// handed out nor rest again.
    pub dead: bool,
    /// The current idle period, or the one before.
    pub generation: Generation,
}

impl Word {
    /// A slot that was never used.
    pub const VACANT: Self =
        Self { state: State::Vacant, dead: false, generation: Generation::from_bits(0) };

    /// The word as stored: state in bits 0 to 2, dead in bit 3, generation above.
    pub const fn pack(self) -> u64 {
        self.state as u64 | (self.dead as u64) << 3 | self.generation.0 << 4
    }

    /// The value of a stored word.
    pub const fn unpack(bits: u64) -> Self {
        let state = match bits & 0b111 {
            0 => State::Vacant,
            1 => State::Dialing,
            2 => State::InUse,
            3 => State::Idle,
            // Only `pack` writes words, so 5 to 7 do not occur.
            _ => State::Closing,
        };
        Self { state, dead: bits & 0b1000 != 0, generation: Generation::from_bits(bits >> 4) }
    }

    /// The whole transition relation, a line for each edge of the figure; `None` refuses.
    pub const fn on(self, event: Event) -> Option<Self> {
        let (state, dead, generation) = match (self.state, event) {
            (State::Vacant, Event::Reserve) => (State::Dialing, false, self.generation),
            (State::Dialing, Event::Fulfil) if !self.dead => (State::InUse, false, self.generation),
            // The watch is armed before the connection is made ready for use.
            (State::Dialing, Event::HangUp) => (State::Dialing, true, self.generation),
            (State::Dialing, Event::Abandon) => (State::Vacant, false, self.generation.next()),
            (State::Idle, Event::Checkout) => (State::InUse, false, self.generation),
            (State::InUse, Event::Return) if !self.dead => {
                (State::Idle, false, self.generation.next())
            }
            (State::InUse, Event::Discard) => (State::Closing, self.dead, self.generation),
            (State::InUse, Event::HangUp) if !self.dead => (State::InUse, true, self.generation),
            (State::Idle, Event::HangUp) => (State::Closing, true, self.generation),
            (State::Idle, Event::Expire) => (State::Closing, false, self.generation),
            (State::Closing, Event::Vacate) => (State::Vacant, false, self.generation.next()),
            _ => return None,
        };
        Some(Self { state, dead, generation })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every state against every event, living and dead: the table of the design page.
    #[test]
    fn the_transition_table_is_the_one_in_the_figure() {
        let mut table = String::new();
        for state in State::ALL {
            for dead in [false, true] {
                for event in Event::ALL {
                    let from = Word { state, dead, generation: Generation::from_bits(7) };
                    if let Some(to) = from.on(event) {
                        let mark = |word: Word| if word.dead { "†" } else { "" };
                        table += &format!(
                            "{:?}{} {:?} {:?}{} +{}\n",
                            from.state,
                            mark(from),
                            event,
                            to.state,
                            mark(to),
                            to.generation.bits() - 7,
                        );
                    }
                }
            }
        }
        assert_eq!(table, TABLE);
    }

    const TABLE: &str = "\
Vacant Reserve Dialing +0
Vacant† Reserve Dialing +0
Dialing Fulfil InUse +0
Dialing Abandon Vacant +1
Dialing HangUp Dialing† +0
Dialing† Abandon Vacant +1
Dialing† HangUp Dialing† +0
InUse Return Idle +1
InUse Discard Closing +0
InUse HangUp InUse† +0
InUse† Discard Closing† +0
Idle Checkout InUse +0
Idle HangUp Closing† +0
Idle Expire Closing +0
Idle† Checkout InUse +0
Idle† HangUp Closing† +0
Idle† Expire Closing +0
Closing Vacate Vacant +1
Closing† Vacate Vacant +1
";

    #[test]
    fn a_word_survives_packing() {
        for state in State::ALL {
            for dead in [false, true] {
                for bits in [0, 1, 12_345, Generation::MASK] {
                    let word = Word { state, dead, generation: Generation::from_bits(bits) };
                    assert_eq!(Word::unpack(word.pack()), word);
                }
            }
        }
    }

    #[test]
    fn a_generation_wraps_at_its_last_bit() {
        let last = Word {
            state: State::InUse,
            dead: false,
            generation: Generation::from_bits(Generation::MASK),
        };
        assert_eq!(last.on(Event::Return).unwrap().generation.bits(), 0);
    }
}
