//! Operators, the weather and the machine: what is done to the pool, its origins and its clock.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use corepool::{Adoption, BreakerMode, sim::Script};
use tokio::time::{advance, sleep};

use crate::{
    executor::{Frost, poll_at_most},
    profile::{endpoint, pause},
    random::Random,
    world::{Weather, World},
};

pub struct Operator {
    pub world: Arc<World>,
    pub random: Random,
    pub script: Script,
    pub frost: Frost,
}

impl Operator {
    /// Does something now and then, for as long as there are callers.
    pub async fn run(mut self) {
        // Relaxed: one thread.
        while self.world.callers.load(Ordering::Relaxed) > 0 {
            sleep(pause(&mut self.random, 600)).await;
            self.act().await;
            // One act a step, so that the account can tell before from after.
            tokio::task::yield_now().await;
        }
        self.world.operators.fetch_sub(1, Ordering::Relaxed);
    }

    async fn act(&mut self) {
        let world = Arc::clone(&self.world);
        let which = self.random.below(world.profile.groups as u64) as usize;
        let group = world.group(which);
        let act = self.random.below(100);
        match act {
            0..=5 => {
                self.says("evict", which);
                group.evict();
                world.with(|state| state.account.sides[which].evictions += 1);
            }
            6..=10 => {
                self.says("retain", which);
                let mut random = self.random.fork();
                group.retain(|_, _| random.chance(500));
            }
            11..=18 => {
                self.says("suspend", which);
                world.with(|state| state.account.sides[which].held = true);
                group.suspend();
                sleep(pause(&mut self.random, 800)).await;
                self.says("resume", which);
                group.resume();
                world.with(|state| state.account.sides[which].held = false);
            }
            19..=28 => {
                let new = endpoint(&mut self.random);
                self.says("reconfigure", which);
                world.note_policy(which, &new);
                group.reconfigure(|policy| *policy = new).expect("a policy within its ranges");
            }
            29..=33 => {
                let pool = world.pool();
                let [live, idle, dials] = [(1, 10), (0, 6), (1, 3)]
                    .map(|(low, high)| Some(self.random.between(low, high) as u32));
                self.says("resize totals", which);
                world.with(|state| {
                    let totals = &mut state.totals;
                    totals.max_live = totals.max_live.and(live);
                    totals.max_idle = totals.max_idle.and(idle);
                });
                pool.resize_totals(live, idle, dials);
            }
            34..=38 => {
                self.says("adopt", which);
                let socket = self.script.connection(world.address(which));
                match group.adopt(socket).await {
                    Ok(()) => world.note("adopted"),
                    Err(Adoption::Refused { .. }) => world.note("adoption refused"),
                    Err(_) => world.note("adoption failed"),
                }
            }
            39..=45 => {
                let mode = self.random.pick(&[
                    BreakerMode::Auto,
                    BreakerMode::ForcedOpen,
                    BreakerMode::ForcedClosed,
                ]);
                self.says("force breaker", which);
                group.force_breaker(mode);
                sleep(pause(&mut self.random, 500)).await;
                group.force_breaker(BreakerMode::Auto);
            }
            46..=48 => {
                self.says("reset breaker", which);
                group.reset_breaker();
            }
            49..=54 => {
                self.says("warm up", which);
                world.warming.fetch_add(1, Ordering::Relaxed);
                let count = self.random.between(1, 6) as usize;
                let times = if self.random.chance(300) { 2 } else { u32::MAX };
                let _ = poll_at_most(times, group.warm_up(count)).await;
                world.warming.fetch_sub(1, Ordering::Relaxed);
            }
            55..=57 => {
                self.says("evict idle", which);
                world.pool().evict_idle(self.random.between(1, 3) as usize);
            }
            58..=62 => {
                self.says("drain", which);
                world.with(|state| state.account.sides[which].closed = true);
                let report = group.drain(pause(&mut self.random, 500)).await;
                world.trace(format_args!("{} left of {which}", report.left));
                world.renew(which);
            }
            63..=67 => {
                let by = match self.random.below(4) {
                    0 => Duration::from_secs(self.random.between(10, 100_000)),
                    _ => Duration::from_millis(self.random.between(100, 5_000)),
                };
                self.says("clock jump", which);
                world.trace(format_args!("the clock jumps by {by:?}"));
                world.with(|state| state.jumped += by);
                advance(by).await;
            }
            68..=74 => {
                let shard = self.random.below(world.profile.shards as u64) as usize;
                self.says("frozen shard", which);
                if self.frost.borrow_mut().insert(shard) {
                    sleep(pause(&mut self.random, 1_500)).await;
                    world.trace(format_args!("shard {shard} gets on"));
                    self.frost.borrow_mut().remove(&shard);
                }
            }
            75..=78 => {
                self.says("names change", which);
                let addresses: Vec<IpAddr> = (1..=4_u8)
                    .filter(|_| self.random.chance(500))
                    .map(|last| IpAddr::from([198, 51, 100, last]))
                    .collect();
                world.with(|state| state.addresses = addresses);
            }
            79 if self.random.chance(300) => {
                self.says("close", which);
                world.with(|state| {
                    state.account.sides.iter_mut().for_each(|side| side.closed = true);
                });
                let _ = world.pool().close_within(pause(&mut self.random, 500)).await;
            }
            _ => {
                let weather = match world.profile.storm {
                    0 => Weather::Fair,
                    _ => self.random.pick(&[
                        Weather::Fair,
                        Weather::Fair,
                        Weather::Slow,
                        Weather::Refusing,
                        Weather::Blackholed,
                    ]),
                };
                world.trace(format_args!("the weather of {which}: {weather:?}"));
                world.with(|state| state.weather[which] = weather);
            }
        }
    }

    fn says(&self, what: &'static str, which: usize) {
        self.world.note(what);
        self.world.trace(format_args!("operator: {what}, endpoint {which}"));
    }
}
