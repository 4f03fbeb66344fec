//! Where the walks that compare a state machine with its specification take their choices from: a
//! seed, or the fuzzer's bytes.

/// A source of choices.
pub(super) trait Chance {
    /// Any number.
    fn next_u32(&mut self) -> u32;

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u32) -> u32;

    /// Whether there is nothing left to choose by.
    fn is_over(&self) -> bool;
}

/// xorshift64*: good enough to pick operations, and the same in every run.
#[cfg(test)]
pub(super) struct Seeded(u64);

#[cfg(test)]
impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).max(1))
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next_u32()) * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
impl Chance for Seeded {
    fn next_u32(&mut self) -> u32 {
        Self::next_u32(self)
    }

    fn below(&mut self, bound: u32) -> u32 {
        Self::below(self, bound)
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Choices by the bytes that are left; zeroes where there are none.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> u32 {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

impl Chance for Bytes<'_> {
    fn next_u32(&mut self) -> u32 {
        self.take(4)
    }

    /// Takes no more bytes than the bound needs, so that a byte more or less changes little.
    fn below(&mut self, bound: u32) -> u32 {
        let bits = u32::BITS - (bound - 1).leading_zeros();
        self.take(bits.div_ceil(8) as usize) % bound
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}
