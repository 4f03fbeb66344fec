//! The scenarios: each has its mind on one part of the engine, and one on all.

use corepool::model::{GroupLimits, TotalLimits};

use super::{
    Deed, Habits, Luck, Plan, Report, Size,
    plan::{FAIR, PLAIN},
    run, streams,
};
use Play::Engine;

/// A scenario's name, and what it plays.
pub type Scenario = (&'static str, Play);

/// What a scenario plays.
#[derive(Clone, Copy, Debug)]
pub enum Play {
    /// The engine, by a plan for a size.
    Engine(fn(Size) -> Plan),
    /// The table of streams.
    Streams,
}

impl Play {
    /// Plays it.
    pub fn run(self, size: Size, seed: u64) -> Report {
        match self {
            Self::Engine(plan) => run(&plan(size), seed),
            Self::Streams => streams::run(size, seed),
        }
    }
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    ("reuse", Engine(reuse)),
    ("reuse_lifo", Engine(reuse_lifo)),
    ("queue", Engine(queue)),
    ("dials", Engine(dials)),
    ("death", Engine(death)),
    ("limits", Engine(limits)),
    ("hold", Engine(hold)),
    ("evict", Engine(evict)),
    ("totals", Engine(totals)),
    ("breaker", Engine(breaker)),
    ("close", Engine(close)),
    ("everything", Engine(everything)),
    ("streams", Play::Streams),
];

fn plan(size: Size, groups: Vec<GroupLimits>) -> Plan {
    let scale = size.scale as usize;
    Plan {
        size,
        slots: 8 * scale,
        groups,
        totals: TotalLimits::default(),
        habits: PLAIN,
        luck: FAIR,
        deeds: &[],
        ticks: false,
    }
}

/// Limits under which callers meet each other.
fn tight(size: Size) -> GroupLimits {
    let scale = size.scale;
    GroupLimits {
        max_live: 2 * scale,
        max_idle: 2 * scale,
        max_waiters: 4 * scale,
        ..GroupLimits::DEFAULT
    }
}

/// Checkout, return and stealing, with fewer places at rest than connections.
fn reuse(size: Size) -> Plan {
    let limits = GroupLimits { max_live: 4 * size.scale, max_idle: size.scale, ..tight(size) };
    let habits = Habits { keep: 30, impatient: 20, ..PLAIN };
    Plan { habits, ..plan(size, vec![limits]) }
}

/// The same in the order of a stack.
fn reuse_lifo(size: Size) -> Plan {
    let mut plan = reuse(size);
    plan.groups[0].lifo = 1;
    plan
}

/// Everybody wants the same few connections: hand-offs and callers that leave. Nobody looks after
/// the group, so a wake-up that is lost is lost for good.
fn queue(size: Size) -> Plan {
    let limits = GroupLimits { max_live: size.scale, ..tight(size) };
    let habits = Habits { impatient: 40, discard: 10, for_dial: 10, ..PLAIN };
    Plan { habits, ..plan(size, vec![limits]) }
}

/// Dials of every kind, and every way in which they end.
fn dials(size: Size) -> Plan {
    let limits = GroupLimits { max_overflow: size.scale, max_dialing: size.scale, ..tight(size) };
    let habits = Habits {
        impatient: 30,
        for_dial: 20,
        fresh: 10,
        overflow: 10,
        direct: 5,
        discard: 20,
        detach: 10,
        redial: 15,
        ..PLAIN
    };
    let luck = Luck { refused: 15, local: 5, given_up: 10, late: 20, linger: 50, ..FAIR };
    let deeds = &[Deed::Spare, Deed::Adopt];
    Plan { habits, luck, deeds, ..plan(size, vec![limits]) }
}

/// Peers that go at any moment, connections that rest or live too long, and pings.
fn death(size: Size) -> Plan {
    let limits = GroupLimits {
        idle_timeout_ms: 60,
        max_lifetime_ms: 400,
        lifetime_jitter_percent: 50,
        ping_interval_ms: 15,
        ping_max_failures: 2,
        max_uses: 20,
        ..tight(size)
    };
    let luck = Luck { hang_up: 30, all_hang_up: 1, sweep: 30, refused: 5, ..FAIR };
    let habits = Habits { impatient: 20, keep: 20, ..PLAIN };
    Plan { luck, habits, ..plan(size, vec![limits]) }
}

/// Limits that change while they are in use.
fn limits(size: Size) -> Plan {
    let limits = GroupLimits { max_overflow: size.scale, ..tight(size) };
    let habits = Habits { impatient: 40, overflow: 20, keep: 20, ..PLAIN };
    let deeds = &[Deed::Resize];
    // A caller that a lowered limit keeps from its dial is the next look's.
    Plan { habits, deeds, ticks: true, ..plan(size, vec![limits]) }
}

/// A group that is held and resumed.
fn hold(size: Size) -> Plan {
    let habits = Habits { impatient: 30, fresh: 10, discard: 10, ..PLAIN };
    Plan { habits, deeds: &[Deed::Hold], ..plan(size, vec![tight(size)]) }
}

/// Connections that end in the middle of a queue: evicted, not retained, relieved.
fn evict(size: Size) -> Plan {
    let limits = GroupLimits { max_live: 4 * size.scale, ..tight(size) };
    let deeds = &[Deed::Evict, Deed::Retain, Deed::Relieve];
    let habits = Habits { impatient: 20, keep: 20, ..PLAIN };
    Plan { habits, deeds, ..plan(size, vec![limits]) }
}

/// Three groups under limits of the whole pool: who gives a permit back looks after whoever starves.
fn totals(size: Size) -> Plan {
    let scale = size.scale;
    let totals = TotalLimits {
        max_live: Some(3 * scale),
        max_idle: Some(2 * scale),
        max_dialing: Some(2 * scale),
    };
    let habits = Habits { impatient: 30, discard: 10, ..PLAIN };
    Plan { totals, habits, ..plan(size, vec![tight(size); 3]) }
}

/// An endpoint that fails in half of the cases, and a breaker.
fn breaker(size: Size) -> Plan {
    let limits = GroupLimits {
        breaker: 1,
        breaker_consecutive: 2,
        half_open_probes: 2,
        half_open_successes: 2,
        backoff_base_ms: 20,
        backoff_max_ms: 100,
        slow_start_ms: 50,
        ..tight(size)
    };
    let habits = Habits { impatient: 30, direct: 10, fresh: 10, discard: 40, ..PLAIN };
    let luck = Luck { refused: 40, local: 5, given_up: 5, late: 10, ..FAIR };
    let deeds = &[Deed::Force, Deed::Reset, Deed::Spare];
    Plan { habits, luck, deeds, ticks: true, ..plan(size, vec![limits]) }
}

/// Groups that are closed in the middle of everything.
fn close(size: Size) -> Plan {
    let habits = Habits { impatient: 30, fresh: 10, discard: 10, redial: 10, keep: 20, ..PLAIN };
    let luck = Luck { refused: 10, hang_up: 5, late: 10, ..FAIR };
    // Rare enough that something happens before.
    let deeds = &[
        Deed::Close,
        Deed::Hold,
        Deed::Evict,
        Deed::Spare,
        Deed::Adopt,
        Deed::Retain,
        Deed::Spare,
        Deed::Hold,
    ];
    let groups = vec![tight(size); 2];
    Plan { habits, luck, deeds, ..plan(size, groups) }
}

/// All of it at once, but for the close.
fn everything(size: Size) -> Plan {
    let scale = size.scale;
    let first = GroupLimits {
        max_overflow: scale,
        max_dialing: 2 * scale,
        min_idle: 1,
        preconnect_percent: 150,
        idle_timeout_ms: 200,
        max_lifetime_ms: 2000,
        lifetime_jitter_percent: 50,
        ping_interval_ms: 50,
        ping_max_failures: 2,
        max_uses: 200,
        retention_period_ms: 300,
        breaker: 1,
        breaker_consecutive: 3,
        half_open_probes: 2,
        backoff_base_ms: 20,
        backoff_max_ms: 100,
        slow_start_ms: 50,
        ..tight(size)
    };
    let second = GroupLimits { lifo: 1, ..first };
    let totals = TotalLimits {
        max_live: Some(5 * scale),
        max_idle: Some(3 * scale),
        max_dialing: Some(3 * scale),
    };
    let habits = Habits {
        steal: &[1, 2, u32::MAX],
        impatient: 30,
        for_dial: 10,
        fresh: 3,
        overflow: 3,
        direct: 2,
        keep: 10,
        pause: 70,
        discard: 4,
        detach: 2,
        redial: 3,
    };
    let luck = Luck {
        refused: 10,
        local: 3,
        given_up: 3,
        late: 5,
        linger: 20,
        hang_up: 3,
        all_hang_up: 0,
        sweep: 5,
    };
    let deeds = &[
        Deed::Hold,
        Deed::Evict,
        Deed::Retain,
        Deed::Resize,
        Deed::ResizeTotals,
        Deed::Relieve,
        Deed::Spare,
        Deed::Adopt,
        Deed::Force,
        Deed::Reset,
    ];
    let groups = vec![first, second, tight(size)];
    Plan { totals, habits, luck, deeds, ticks: true, ..plan(size, groups) }
}

/// The same as a pool sees it most of the time: nearly every caller finds a connection at rest and
/// puts it back, and all the rest of it happens beside that.
pub fn soak(size: Size) -> Plan {
    let mut plan = everything(size);
    plan.habits = Habits {
        impatient: 20,
        for_dial: 1,
        fresh: 0,
        overflow: 0,
        direct: 0,
        keep: 1,
        pause: 1,
        discard: 0,
        detach: 0,
        redial: 0,
        ..plan.habits
    };
    for limits in &mut plan.groups {
        limits.max_uses = limits.max_uses.saturating_mul(500);
    }
    plan
}
