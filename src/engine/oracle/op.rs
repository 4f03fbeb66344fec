//! The operations, and how they are decoded from bytes.

use crate::engine::{BreakerMode, CloseReason, ShardId};

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
    /// A caller lines up, but not for a return.
    WaitForDial(Spot),
    /// A caller dials for itself alone above the limit.
    DialOverflow(Spot),
    /// A caller dials for itself alone past an open breaker.
    DialDirect(Spot),
    /// A policy dials for nobody.
    DialSpare(Spot),
    /// An owner brings a connection along.
    Adopt(Spot),
    /// A dial fails for a reason of our own.
    DialFailsHere(u8),
    /// A connection that was asked whether it lives answers.
    Answer(u8),
    /// It does not.
    KeepSilent(u8),
    /// An owner gives a connection up, or the watch does, for a reason.
    GiveUp(ShardId, u8, CloseReason),
    /// A group serves nobody until it is resumed.
    Hold(usize),
    /// A group serves again.
    Resume(usize),
    /// All connections of a group are to end.
    Evict(usize),
    /// Of those at rest, the ones with an odd number end.
    Retain(usize),
    /// The limits of a group change.
    Resize(usize, [u8; 3]),
    /// The limits of the pool change.
    ResizeTotals([u8; 3]),
    /// An operator speaks to a breaker.
    Force(usize, BreakerMode),
    /// A breaker is told that its endpoint is back.
    Reset(usize),
    /// A group is tended.
    Tend(usize),
    /// The pool is tended.
    TendTotals,
    /// The connection that rests longest ends.
    EvictOldest,
    /// Much time passes.
    Leap(u8),
    /// A caller puts back a connection that it has not used.
    PutBack(u8),
    /// A connection that was asked whether it lives cannot be asked again.
    BreakOff(u8),
    /// A shard's watch ends: all that it watched is given up.
    HangUpAll(ShardId),
    /// An owner has a place for a connection, and has not begun with it.
    Place(Spot),
    /// The dials that a group is owed are begun.
    DialOwed(usize),
    /// Of those that rest longest, so many end.
    Relieve(u8),
    /// A sibling is said to have died by reset.
    Suspect(usize),
    /// The next step is by a shard whose clock is behind.
    SetBack(u8),
    /// Days pass: the 32-bit tick wraps.
    LeapFar(u8),
    /// What chance brings next.
    Chance(u8),
}

/// Where a caller stands, and from how many idle connections on it may steal.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub(super) group: usize,
    pub(super) shard: ShardId,
    pub(super) steal_min: u32,
}

impl Spot {
    fn from_byte(which: u8) -> Self {
        Self {
            group: usize::from(which >> 1 & 1),
            shard: ShardId(u16::from(which & 1)),
            steal_min: [1, 2, 3, u32::MAX][usize::from(which >> 2 & 3)],
        }
    }
}

const GIVEN_UP: [CloseReason; 4] = [
    CloseReason::PeerClosed,
    CloseReason::PeerReset,
    CloseReason::UnexpectedBytes,
    CloseReason::Retired,
];
const FORCED: [BreakerMode; 4] =
    [BreakerMode::ForcedOpen, BreakerMode::ForcedClosed, BreakerMode::Auto, BreakerMode::Auto];

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
    /// The next of all operations.
    pub(super) fn decode_all(bytes: &mut Bytes<'_>) -> Option<Self> {
        if *bytes.0.first()? < 192 {
            return Self::decode_any(bytes);
        }
        let kind = bytes.next()?;
        let which = bytes.next()?;
        let spot = Spot::from_byte(which);
        Some(match kind % 64 {
            0..12 => Self::PutBack(which),
            12..16 => Self::BreakOff(which),
            16 | 17 => Self::HangUpAll(spot.shard),
            18..26 => Self::Place(spot),
            26..32 => Self::DialOwed(spot.group),
            32..38 => Self::Relieve(which),
            38..44 => Self::Suspect(spot.group),
            44..54 => Self::SetBack(which),
            54..58 => Self::LeapFar(which),
            _ => Self::Chance(which),
        })
    }

    /// The next of those that policies know, and of those that need none.
    pub(super) fn decode_any(bytes: &mut Bytes<'_>) -> Option<Self> {
        if bytes.0.first()? % 128 < 64 {
            return Self::decode(bytes);
        }
        let kind = bytes.next()?;
        let which = bytes.next()?;
        let spot = Spot::from_byte(which);
        let group = spot.group;
        let mut three = || [0; 3].map(|_: u8| bytes.next().unwrap_or(0));
        Some(match kind % 64 {
            0..=6 => Self::WaitForDial(spot),
            7..=12 => Self::DialOverflow(spot),
            13..=15 => Self::DialDirect(spot),
            16..=18 => Self::DialSpare(spot),
            19..=21 => Self::Adopt(spot),
            22..=23 => Self::DialFailsHere(which),
            24..=27 => Self::Answer(which),
            28 => Self::KeepSilent(which),
            29..=31 => Self::GiveUp(spot.shard, which >> 3, GIVEN_UP[usize::from(which >> 1 & 3)]),
            32..=34 => Self::Hold(group),
            35..=38 => Self::Resume(group),
            39..=40 => Self::Evict(group),
            41..=42 => Self::Retain(group),
            43..=46 => Self::Resize(group, three()),
            47..=48 => Self::ResizeTotals(three()),
            49..=50 => Self::Force(group, FORCED[usize::from(which >> 2 & 3)]),
            51 => Self::Reset(group),
            52..=57 => Self::Tend(group),
            58..=59 => Self::TendTotals,
            60 => Self::EvictOldest,
            61..=62 => Self::Leap(which),
            _ => Self::Sweep(spot.shard),
        })
    }

    /// The next of those that need no policy.
    pub(super) fn decode(bytes: &mut Bytes<'_>) -> Option<Self> {
        let kind = bytes.next()?;
        let which = bytes.next()?;
        let spot = Spot::from_byte(which);
        let shard = spot.shard;
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
