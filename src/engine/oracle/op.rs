//! The operations, and how they are decoded from bytes.

use crate::engine::ShardId;

/// What happens next. Numbers pick from what there is, modulo its count.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A caller checks out.
    Checkout(Spot),
    /// A caller lines up.
    Wait(Spot),
    /// A caller dials for itself alone.
    DialFresh(Spot),
    /// A caller puts a connection back.
    GiveBack(u8),
    /// A caller ends a connection.
    Discard(u8),
    /// A caller takes a connection out of the pool.
    Detach(u8),
    /// A caller replaces a connection.
    Redial(u8),
    /// A waiting caller looks, and leaves with what is there.
    Poll(u8),
    /// A waiting caller leaves without looking.
    Cancel(u8),
    /// A dial succeeds.
    DialSucceeds(u8),
    /// A dial fails.
    DialFails(u8),
    /// A dial is given up for no cause.
    DialGivenUp(u8),
    /// A dial that was fulfilled or abandoned before completes once more.
    LateCompletion(u8),
    /// A driver has closed a connection.
    Vacate(u8),
    /// A peer hangs up, whatever the slot is doing.
    HangUp(ShardId, u8),
    /// A shard sweeps.
    Sweep(ShardId),
    /// Time passes.
    Advance(u8),
    /// A group is closed for good.
    Close(usize),
}

/// Where a caller stands, and from how many idle connections on it may steal.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub(super) group: usize,
    pub(super) shard: ShardId,
    pub(super) steal_min: u32,
}

/// The bytes that are left.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Bytes<'_> {
    pub(super) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number from `least` to `most`; `least` when no byte is left.
    pub(super) fn within(&mut self, least: u32, most: u32) -> u32 {
        least + u32::from(self.next().unwrap_or(0)) % (most - least + 1)
    }
}

impl Op {
    pub(super) fn decode(bytes: &mut Bytes<'_>) -> Option<Self> {
        let kind = bytes.next()?;
        let which = bytes.next()?;
        let shard = ShardId(u16::from(which & 1));
        let spot = Spot {
            group: usize::from(which >> 1 & 1),
            shard,
            steal_min: [1, 2, 3, u32::MAX][usize::from(which >> 2 & 3)],
        };
        Some(match kind % 64 {
            0..=7 => Self::Checkout(spot),
            8..=16 => Self::Wait(spot),
            17..=19 => Self::DialFresh(spot),
            20..=27 => Self::GiveBack(which),
            28..=29 => Self::Discard(which),
            30 => Self::Detach(which),
            31..=32 => Self::Redial(which),
            33..=38 => Self::Poll(which),
            39..=42 => Self::Cancel(which),
            43..=48 => Self::DialSucceeds(which),
            49..=50 => Self::DialFails(which),
            51 => Self::DialGivenUp(which),
            52 => Self::LateCompletion(which),
            53..=56 => Self::Vacate(which),
            57..=60 => Self::HangUp(shard, which >> 1),
            61 => Self::Sweep(shard),
            62 => Self::Advance(which),
            // Twice as rare as the rarest, because little happens after it.
            _ if which.is_multiple_of(4) => Self::Close(usize::from(which >> 7)),
            _ => Self::Advance(which),
        })
    }
}
