//! What everybody in a simulation shares.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use corepool::{
    BreakerState, Endpoint, EndpointSettings, Group, Pool,
    settings::AtOpen,
    sim::{self, GroupAudit, SlotCounts},
};
use tokio::time::Instant;

use crate::{
    account::Account,
    network::Maker,
    profile::{Profile, pause},
    random::Random,
};

/// How dials to an endpoint go at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    Slow,
    Refusing,
    Blackholed,
}

/// A bug of the simulation itself, which it has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The driver does not always say when a socket is closed: a permit leaks.
    ForgottenClose,
    /// The driver says that it has told the shard of a departure, and has not.
    HiddenHangUp,
    /// A wake-up of a shard is lost.
    LostWakeUp,
    /// A caller uses a connection on after it has given it back.
    TwoOwners,
}

pub struct State {
    pub random: Random,
    pub account: Account,
    pub weather: Vec<Weather>,
    /// Of the name.
    pub addresses: Vec<IpAddr>,
    /// The groups that the pool has had, each with the number of its endpoint. The last of an
    /// endpoint is the current one.
    pub groups: Vec<(usize, Group<Maker>)>,
    /// As they were after the last step.
    pub before: Vec<GroupAudit>,
    /// The pool's own limits, and what was out, after the last step.
    pub totals: Totals,
    pub pool: Option<Pool<Maker>>,
    /// By how much the clock has jumped so far.
    pub jumped: Duration,
}

/// The limits of the whole pool and what is out against them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub max_live: Option<u32>,
    pub max_idle: Option<u32>,
    pub live: u32,
    pub idle: u32,
}

pub struct World {
    pub profile: Profile,
    pub plant: Option<Plant>,
    began: Instant,
    state: Mutex<State>,
    /// Callers that are not done yet.
    pub callers: AtomicUsize,
    /// Operators that are not done yet.
    pub operators: AtomicUsize,
    /// Warm-ups and adoptions under way, which hold connections for a moment.
    pub warming: AtomicUsize,
    pub over: AtomicBool,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl World {
    pub fn new(profile: Profile, plant: Option<Plant>, random: Random) -> Arc<Self> {
        let groups = profile.groups;
        let Profile { settings, .. } = &profile;
        let totals = Totals {
            max_live: settings.max_live_total,
            max_idle: settings.max_idle_total,
            ..Totals::default()
        };
        let state = State {
            random,
            account: Account::new(groups),
            weather: vec![Weather::Fair; groups],
            addresses: (1..=2).map(|last| IpAddr::from([198, 51, 100, last])).collect(),
            groups: Vec::new(),
            before: Vec::new(),
            totals,
            pool: None,
            jumped: Duration::ZERO,
        };
        let world = Self {
            profile,
            plant,
            began: Instant::now(),
            state: Mutex::new(state),
            callers: AtomicUsize::new(0),
            operators: AtomicUsize::new(0),
            warming: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        };
        let policy = world.profile.settings.endpoint.clone();
        (0..groups).for_each(|group| world.note_policy(group, &policy));
        Arc::new(world)
    }

    /// Whoever calls this must not call the pool meanwhile: its connections lock the same.
    pub fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn now_ms(&self) -> u128 {
        self.began.elapsed().as_millis()
    }

    pub fn note(&self, what: &'static str) {
        self.with(|state| state.account.tally.add(what));
    }

    pub fn trace(&self, what: fmt::Arguments<'_>) {
        let now = self.now_ms();
        self.with(|state| state.account.trace.line(now, what));
    }

    pub fn violate(&self, what: String) {
        self.with(|state| state.account.violate(what));
    }

    /// A wait that is none most of the time.
    pub fn delay(&self, what: &'static str, per_mille: u64, most: u64) -> Duration {
        let storm = self.profile.storm;
        self.with(|state| {
            if !state.random.chance(per_mille * storm) {
                return Duration::ZERO;
            }
            state.account.tally.add(what);
            pause(&mut state.random, most) + Duration::from_millis(1)
        })
    }

    /// Which endpoint an address belongs to.
    pub fn group_of(&self, address: SocketAddr) -> usize {
        match address.ip() {
            IpAddr::V4(ip) if ip.octets()[0] == 192 => usize::from(ip.octets()[3]),
            _ => self.profile.groups - 1,
        }
    }

    pub fn endpoint(&self, group: usize) -> Endpoint {
        if self.profile.has_name && group == self.profile.groups - 1 {
            return "origin.test:80".parse().unwrap();
        }
        format!("192.0.2.{group}:80").parse().unwrap()
    }

    pub fn address(&self, group: usize) -> SocketAddr {
        if self.profile.has_name && group == self.profile.groups - 1 {
            return SocketAddr::from(([198, 51, 100, 1], 80));
        }
        SocketAddr::from(([192, 0, 2, group as u8], 80))
    }

    pub fn pool(&self) -> Pool<Maker> {
        self.with(|state| state.pool.clone()).expect("the pool is there until the end")
    }

    /// The current group of an endpoint.
    pub fn group(&self, which: usize) -> Group<Maker> {
        let groups = |state: &mut State| {
            let mut groups = state.groups.iter().rev();
            groups.find(|(of, _)| *of == which).map(|(_, group)| group.clone())
        };
        self.with(groups).expect("every endpoint has a group")
    }

    /// A new group for an endpoint whose last one was drained.
    pub fn renew(&self, which: usize) {
        let known = self.with(|state| state.groups.iter().any(|(of, _)| *of == which));
        if known && !self.group(which).audit().closed {
            // Another operator has drained the last one as well.
            return;
        }
        let group = self.pool().group(self.endpoint(which));
        let policy = group.settings();
        self.note_policy(which, &policy);
        self.with(|state| {
            state.groups.push((which, group));
            state.before.push(GroupAudit::default());
            state.account.sides[which].held = false;
            state.account.sides[which].closed = false;
        });
    }

    /// What a policy lets the breaker of an endpoint do.
    pub fn note_policy(&self, which: usize, policy: &EndpointSettings) {
        self.with(|state| {
            let side = &mut state.account.sides[which];
            side.most_probes = side.most_probes.max(policy.failure.half_open_probes.into());
            side.direct |= policy.failure.at_open == AtOpen::Direct;
        });
    }

    /// The group of an endpoint whose dials tell of its breaker: one address, and nobody dials
    /// past it.
    pub fn breaker_of(&self, which: usize) -> Option<Group<Maker>> {
        let is_name = self.profile.has_name && which == self.profile.groups - 1;
        let tells = self.with(|state| {
            let groups = state.groups.iter().filter(|(of, _)| *of == which).count();
            !is_name && groups == 1 && !state.account.sides[which].direct
        });
        tells.then(|| self.group(which))
    }

    pub fn slots(&self) -> SlotCounts {
        sim::audit_slots(&self.pool())
    }

    /// What holds after every step.
    pub fn check(&self) {
        let (pool, groups) = self.with(|state| (state.pool.clone(), state.groups.clone()));
        let Some(pool) = pool else {
            return;
        };
        let slots = sim::audit_slots(&pool);
        let audits: Vec<GroupAudit> = groups.iter().map(|(_, group)| group.audit()).collect();
        let states: Vec<BreakerState> = groups.iter().map(|(_, group)| group.breaker()).collect();
        let all: Vec<Group<Maker>> = groups.into_iter().map(|(_, group)| group).collect();
        if let Err(what) = sim::audit_hints(&pool, &all) {
            self.violate(format!("INV-3: {what}"));
        }
        self.with(|state| {
            let out: u64 = state.account.sides.iter().map(|side| side.gate.out).sum();
            let mut totals = Totals { live: 0, idle: 0, ..state.totals };
            for (at, audit) in audits.iter().enumerate() {
                let (which, before) = (state.groups[at].0, state.before[at]);
                let account = &mut state.account;
                let mut most = |what: &str, now: u32, limits: [u32; 2], before: u32| {
                    let most = limits[0].max(limits[1]).max(before);
                    account.require(now <= most, || {
                        format!("INV-2: endpoint {which} has {now} {what}, and {most} may be")
                    });
                };
                most("live", audit.pooled, [audit.max_live, before.max_live], before.pooled);
                let limits = [audit.max_overflow, before.max_overflow];
                most("above the limit", audit.overflow, limits, before.overflow);
                most("idle", audit.idle, [audit.max_idle, before.max_idle], before.idle);
                let limits = [audit.max_waiters, before.max_waiters];
                most("waiting", audit.waiting, limits, before.waiting);
                if audit.closed {
                    account.require((audit.idle, audit.waiting) == (0, 0), || {
                        format!(
                            "INV-9: {} rest and {} wait in closed {which}",
                            audit.idle, audit.waiting
                        )
                    });
                }
                totals.live += audit.pooled + audit.overflow;
                totals.idle += audit.idle;
                let open = matches!(states[at], BreakerState::Open | BreakerState::ForcedOpen);
                let gate = &mut account.sides[which].gate;
                match open {
                    true => gate.shut(slots.dialing as u64, out),
                    false if states[at] == BreakerState::HalfOpen => gate.open = false,
                    false => gate.reset(),
                }
            }
            let account = &mut state.account;
            account.require(slots.idle as u32 == totals.idle, || {
                format!("INV-2: {} slots rest, and groups count {}", slots.idle, totals.idle)
            });
            let held = account.held() + account.asked();
            account.require(slots.in_use >= held, || {
                format!("INV-1: {held} connections are out of {} slots in use", slots.in_use)
            });
            let taken = slots.dialing + slots.in_use + slots.idle + slots.closing;
            // A connection that makes room for its own successor has passed its permit on.
            let least = (taken - slots.closing) as u32;
            let permits = totals.live;
            account.require((least..=taken as u32).contains(&permits), || {
                format!("INV-2: {permits} permits are out for {slots:?}")
            });
            let open = account
                .records
                .values()
                .filter(|it| it.made && it.closed == 0 && !it.detached)
                .count();
            account.require(open <= taken, || {
                format!("INV-4: {open} connections are open in {taken} slots")
            });
            let before = &state.totals;
            for (what, now, limit, before) in [
                ("live", totals.live, totals.max_live, before.live),
                ("idle", totals.idle, totals.max_idle, before.idle),
            ] {
                account.require(limit.is_none_or(|limit| now <= limit.max(before)), || {
                    format!("INV-2: {now} {what} in the whole pool, of {limit:?}")
                });
            }
            state.totals = totals;
            state.before = audits;
        });
    }

    /// What holds when nobody can get on, and before time does.
    pub fn check_rest(&self) {
        let (pool, groups) = self.with(|state| (state.pool.clone(), state.groups.clone()));
        let Some(pool) = pool else {
            return;
        };
        let (slots, duties) = (sim::audit_slots(&pool), sim::audit_duties(&pool));
        let warming = self.warming.load(Ordering::Relaxed) > 0;
        let limits = self.with(|state| state.totals);
        let evicts = limits.max_live.is_some();
        if duties > 0 {
            self.violate(format!("INV-5: {duties} shards sleep on their duties"));
        }
        for (which, group) in groups {
            let audit = group.audit();
            let needs = audit.waiting > audit.dialing && !audit.held && !audit.closed;
            if needs && audit.idle > 0 {
                self.violate(format!(
                    "INV-5: {} wait for endpoint {which} beside {} at rest",
                    audit.waiting, audit.idle
                ));
            }
            let open =
                !matches!(group.breaker(), BreakerState::Closed | BreakerState::ForcedClosed);
            if needs && !audit.lacks && !open && slots.vacant > 0 && !evicts {
                self.violate(format!(
                    "INV-5: {} wait for endpoint {which}, and nothing lacks",
                    audit.waiting
                ));
            }
        }
        self.with(|state| {
            let held = state.account.held() + state.account.asked();
            state.account.require(warming || slots.in_use == held, || {
                format!("INV-7: {} slots are in use for {held} connections", slots.in_use)
            });
        });
    }
}
