//! An owner: does to groups and to the pool what operators and policies do.

use std::sync::{Arc, atomic::Ordering};

use corepool::model::{BreakerMode, GroupLimits, TotalLimits};

use super::{
    Deed,
    rt::Rng,
    world::{Part, Report, World},
};

/// The owner of all groups of a run: one thread, because limits are changed by one caller at a
/// time.
#[derive(Debug)]
pub(super) struct Owner {
    world: Arc<World>,
    rng: Rng,
    report: Report,
}

impl Part for Owner {
    type Left = Report;

    fn play(mut self) -> Report {
        let world = Arc::clone(&self.world);
        let deeds = world.plan.size.operations / 2;
        for _ in 0..deeds {
            let deed = *self.rng.pick(world.plan.deeds);
            self.act(deed);
            self.report.operations += 1;
            self.wait_a_little();
        }
        // As they were: what is checked at the end.
        if world.plan.deeds.contains(&Deed::Resize) {
            for party in &world.parties {
                world.engine.resize(&party.seats, &party.limits, world.now());
            }
        }
        if world.plan.deeds.contains(&Deed::ResizeTotals) {
            world.engine.resize_totals(&world.plan.totals, world.now());
        }
        self.report
    }
}

impl Owner {
    pub(super) fn new(world: Arc<World>, number: usize) -> Self {
        let rng = Rng::new(world.seed, number as u64);
        Self { world, rng, report: Report::default() }
    }

    fn wait_a_little(&mut self) {
        for _ in 0..self.rng.below(6) {
            self.world.rt.yield_now();
        }
    }

    fn act(&mut self, deed: Deed) {
        let world = Arc::clone(&self.world);
        let (engine, now) = (&world.engine, world.now());
        let party = self.rng.pick(&world.parties);
        let seat = self.rng.pick(&party.seats);
        match deed {
            Deed::Hold => {
                assert!(engine.hold(&party.group) || party.group.is_closed(), "nobody else holds");
                self.wait_a_little();
                engine.resume(seat, now);
            }
            Deed::Evict => {
                // Relaxed: an upper bound; who has a connection reads it after the engine did.
                party.evicting.fetch_add(1, Ordering::Relaxed);
                engine.evict(&party.group);
                // Release: pairs with the Acquire of a caller that is about to check out.
                party.evicted.fetch_add(1, Ordering::Release);
            }
            Deed::Retain => {
                let ended = engine.retain(&party.group, |tenant| !tenant.conn.is_odd());
                if ended > 0 {
                    self.report.note("not retained");
                }
            }
            Deed::Resize => {
                let limits = self.other_limits(&party.limits);
                engine.resize(&party.seats, &limits, now);
            }
            Deed::ResizeTotals => {
                let totals = world.plan.totals;
                let mut vary = |limit: Option<u32>| limit.map(|limit| self.vary(limit, 1));
                let limits = TotalLimits {
                    max_live: vary(totals.max_live),
                    max_idle: vary(totals.max_idle),
                    max_dialing: vary(totals.max_dialing),
                };
                engine.resize_totals(&limits, now);
            }
            Deed::Relieve => {
                if engine.relieve(1) > 0 {
                    self.report.note("relieved");
                }
            }
            Deed::Spare => {
                if engine.dial_spare(seat, now).is_ok() {
                    self.report.note("spare");
                }
            }
            Deed::Adopt => {
                if let Ok(dial) = engine.adopt(seat, now) {
                    self.report.note("adopted");
                    engine.begin(dial);
                }
            }
            Deed::Force => {
                let mode = *self.rng.pick(&[BreakerMode::ForcedOpen, BreakerMode::ForcedClosed]);
                engine.force_breaker(seat, mode, now);
                self.wait_a_little();
                engine.force_breaker(seat, BreakerMode::Auto, world.now());
            }
            Deed::Reset => engine.reset_breaker(seat, now),
            Deed::Close => engine.close(&party.group),
        }
    }

    fn other_limits(&mut self, limits: &GroupLimits) -> GroupLimits {
        GroupLimits {
            max_live: self.vary(limits.max_live, 1),
            max_idle: self.vary(limits.max_idle, 0),
            max_waiters: self.vary(limits.max_waiters, 1),
            max_overflow: self.vary(limits.max_overflow, 0),
            ..*limits
        }
    }

    /// Up to twice as much, and not less than `least`.
    fn vary(&mut self, limit: u32, least: u32) -> u32 {
        let most = limit.saturating_mul(2).max(least) as usize;
        least + self.rng.below(most + 1 - least as usize) as u32
    }
}
