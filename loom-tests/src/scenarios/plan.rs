//! What a scenario is made of: limits, how many take part, and what they are likely to do.

use corepool::model::{GroupLimits, TotalLimits};

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Shards, each with a driver of its own.
    pub shards: u16,
    /// Callers.
    pub callers: usize,
    /// What each caller does, and half as much by each owner.
    pub operations: usize,
    /// Limits of groups are so many times those of the smallest run.
    pub scale: u32,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long it is.
    pub size: Size,
    /// Slots of each shard.
    pub slots: usize,
    /// The groups' limits, which an owner may change meanwhile and puts back.
    pub groups: Vec<GroupLimits>,
    /// The pool's limits, likewise.
    pub totals: TotalLimits,
    /// What callers do.
    pub habits: Habits,
    /// What becomes of dials and connections.
    pub luck: Luck,
    /// What owners do; none where nobody does anything.
    pub deeds: &'static [Deed],
    /// Time passes, and drivers that have nothing to do look after their groups. Otherwise they
    /// sleep: what needs no time may not wait for a look.
    pub ticks: bool,
}

/// What callers do, in percent of what they begin, or end, with.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// From how many idle connections on they steal.
    pub steal: &'static [u32],
    /// They leave the line when they have looked a few times.
    pub impatient: u32,
    /// They do not wait for a return.
    pub for_dial: u32,
    /// They dial for themselves alone.
    pub fresh: u32,
    /// The same above the limit.
    pub overflow: u32,
    /// The same past an open breaker.
    pub direct: u32,
    /// They hold a connection while they begin with the next.
    pub keep: u32,
    /// They let others run while they hold one.
    pub pause: u32,
    /// They end a connection.
    pub discard: u32,
    /// They take it out of the pool.
    pub detach: u32,
    /// They have it replaced.
    pub redial: u32,
}

/// What becomes of dials and connections, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Luck {
    /// Dials that the peer refuses.
    pub refused: u32,
    /// Dials that fail for a reason of our own.
    pub local: u32,
    /// Dials that are given up.
    pub given_up: u32,
    /// Turns of a driver in which a dial that is over completes once more.
    pub late: u32,
    /// Turns of a driver that leave what is under way as it is.
    pub linger: u32,
    /// Turns of a driver in which a peer goes.
    pub hang_up: u32,
    /// Turns of a driver in which every peer of its shard goes.
    pub all_hang_up: u32,
    /// Turns of a driver in which it sweeps.
    pub sweep: u32,
}

/// What an owner does to a group, or to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Serves nobody for a while.
    Hold,
    /// Ends all connections.
    Evict,
    /// Ends every other one that rests.
    Retain,
    /// Changes the limits.
    Resize,
    /// Changes the limits of the pool.
    ResizeTotals,
    /// Ends what rests longest.
    Relieve,
    /// Dials for nobody.
    Spare,
    /// Brings a connection along.
    Adopt,
    /// Forces the breaker, and lets go of it.
    Force,
    /// Says that the endpoint is back.
    Reset,
    /// Closes the group, in the middle of everything.
    Close,
}

/// Callers that come, use and go, and peers that stay.
pub(super) const PLAIN: Habits = Habits {
    steal: &[1, 2, u32::MAX],
    impatient: 0,
    for_dial: 0,
    fresh: 0,
    overflow: 0,
    direct: 0,
    keep: 0,
    pause: 70,
    discard: 0,
    detach: 0,
    redial: 0,
};

/// Dials succeed, and nobody hangs up.
pub(super) const FAIR: Luck = Luck {
    refused: 0,
    local: 0,
    given_up: 0,
    late: 0,
    linger: 30,
    hang_up: 0,
    all_hang_up: 0,
    sweep: 0,
};
