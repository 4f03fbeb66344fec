//! What a breaker shall do, said once more: plain fields, a clock that never wraps, every pass
//! remembered. Seeded walks, and the fuzzer's, compare the word with it.

use super::*;
use crate::engine::seeded::Chance;

#[derive(Debug)]
enum Now {
    Closed { outcomes: Vec<bool>, since: u64 },
    Open { until: u64, open_for: u32 },
    HalfOpen { out: usize, passed: u32 },
    Forced { open: bool },
}

struct Model {
    now: Now,
    trips: u32,
    /// Grows with every change of state, and with every reset.
    period: u64,
}

/// A pass and what the model knows of it.
struct Dial {
    pass: Pass,
    period: u64,
    probe: bool,
}

/// What a model expects of a call.
type Told = Option<(State, State)>;

impl Model {
    fn state(&self) -> State {
        match self.now {
            Now::Closed { .. } => State::Closed,
            Now::Open { .. } => State::Open,
            Now::HalfOpen { .. } => State::HalfOpen,
            Now::Forced { open: true } => State::ForcedOpen,
            Now::Forced { open: false } => State::ForcedClosed,
        }
    }

    fn turn(&mut self, to: Now) -> Told {
        let from = self.state();
        self.now = to;
        self.period += 1;
        (from != self.state()).then_some((from, self.state()))
    }

    /// `Ok` says whether it is a probe, `Err` how long to wait.
    fn admit(&mut self, rules: &BreakerRules, now: u64) -> (Result<bool, u32>, Told) {
        match &mut self.now {
            Now::Forced { open: true } => (Err(u32::MAX), None),
            Now::Open { until, .. } if rules.enabled => {
                if now < *until {
                    return (Err((*until - now) as u32), None);
                }
                (Ok(true), self.turn(Now::HalfOpen { out: 1, passed: 0 }))
            }
            Now::HalfOpen { out, .. } if rules.enabled => {
                if *out >= usize::from(rules.probes.max(1)) {
                    return (Err(0), None);
                }
                *out += 1;
                (Ok(true), None)
            }
            _ => (Ok(false), None),
        }
    }

    /// A dial ended: well, badly or without a verdict.
    fn end(&mut self, dial: &Dial, verdict: Option<bool>, rules: &BreakerRules, now: u64) -> Told {
        if dial.period != self.period {
            return None;
        }
        let verdict = if rules.enabled { verdict } else { None };
        match (&mut self.now, verdict) {
            (Now::Closed { outcomes, since }, Some(well)) => {
                if rules.window_s > 0
                    && now.saturating_sub(*since) > u64::from(rules.window_s) * 1000
                {
                    outcomes.clear();
                    self.trips = 0;
                }
                *since = now;
                outcomes.push(!well);
                let last = &outcomes[outcomes.len().saturating_sub(32)..];
                let failures = last.iter().filter(|failed| **failed).count();
                let row = last.iter().rev().take_while(|failed| **failed).count();
                let too_many = rules.consecutive > 0 && row >= rules.consecutive.into();
                let too_often = rules.rate_percent > 0
                    && last.len() >= usize::from(rules.min_dials.min(32))
                    && failures as f64 / last.len() as f64
                        >= f64::from(rules.rate_percent) / 100.0 - 1e-9;
                if !well && (too_many || too_often) {
                    return self.turn(Now::Open { until: 0, open_for: 0 });
                }
                if outcomes.len() >= 32 {
                    self.trips = 0;
                }
                None
            }
            (Now::HalfOpen { out, .. }, None) if dial.probe => {
                *out -= 1;
                None
            }
            (Now::HalfOpen { out, passed }, Some(true)) if dial.probe => {
                *out -= 1;
                *passed += 1;
                if *passed < rules.successes.max(1).into() {
                    return None;
                }
                self.turn(Now::Closed { outcomes: Vec::new(), since: now })
            }
            (Now::HalfOpen { .. }, Some(false)) if dial.probe => {
                self.turn(Now::Open { until: 0, open_for: 0 })
            }
            _ => None,
        }
    }

    /// The breaker said how long it is open; whether that is right is checked here.
    fn opened(&mut self, rules: &BreakerRules, now: u64, open_for: u32) {
        let growth = f64::from(rules.backoff.multiplier_percent) / 100.0;
        let wait = (f64::from(rules.backoff.base_ms) * growth.powf(self.trips.into()))
            .min(rules.backoff.max_ms.into());
        // A step of a wait is rounded down to 2^-16 ms; what that takes away grows with the wait.
        let lost = 2.0 + wait * f64::from(self.trips) / 65_536.0 / f64::from(rules.backoff.base_ms);
        let swing = wait * f64::from(rules.backoff.jitter_percent) / 100.0;
        let range = (wait - swing - lost).max(1.0)..=(wait + swing + 2.0).min(Tick::FAR.into());
        assert!(range.contains(&open_for.into()), "{open_for} not in {range:?}");
        self.trips = (self.trips + 1).min(31);
        self.now = Now::Open { until: now + u64::from(open_for), open_for };
    }

    fn forgetful(&mut self, to: Now) -> Told {
        self.trips = 0;
        self.turn(to)
    }

    fn force(&mut self, mode: Mode, now: u64) -> Told {
        match (&self.now, mode) {
            (Now::Forced { open: true }, Mode::ForcedOpen)
            | (Now::Forced { open: false }, Mode::ForcedClosed) => None,
            (_, Mode::ForcedOpen) => self.forgetful(Now::Forced { open: true }),
            (_, Mode::ForcedClosed) => self.forgetful(Now::Forced { open: false }),
            (Now::Forced { .. }, Mode::Auto) => self.closed_anew(now),
            (_, Mode::Auto) => None,
        }
    }

    fn reset(&mut self, now: u64) -> Told {
        if let Now::Forced { .. } = self.now { None } else { self.closed_anew(now) }
    }

    fn closed_anew(&mut self, now: u64) -> Told {
        self.forgetful(Now::Closed { outcomes: Vec::new(), since: now })
    }

    /// Whether the word may keep or forget the outcomes, because its stamp is coarse.
    fn is_in_doubt(&self, rules: &BreakerRules, now: u64) -> bool {
        let Now::Closed { since, .. } = self.now else { return false };
        let window = u64::from(rules.window_s) * 1000;
        (window + 1..window + window / 4).contains(&now.saturating_sub(since))
    }

    /// Whether the end of an open time that nobody asked about may read as ahead again: all that is
    /// left of the clock's wrap, about as long as that time was, once in 49 days; see [`Deadline`].
    fn has_come_round(&self, now: u64) -> bool {
        let Now::Open { until, open_for } = self.now else { return false };
        let bits = (33 - open_for.max(1 << 12).leading_zeros()).min(31);
        now > until && (now - until) % (1 << 32) >= (1 << 32) - (1 << bits)
    }

    /// Whether the stamp may soon come round, because no outcome has come for so long.
    fn is_forgotten(&self, rules: &BreakerRules, now: u64) -> bool {
        let Now::Closed { since, .. } = self.now else { return false };
        let round = if rules.window_s > 0 { u64::from(rules.window_s) * 400_000 } else { u64::MAX };
        now.saturating_sub(since) > round
    }
}

fn rules(random: &mut impl Chance) -> BreakerRules {
    let wide = random.below(8) == 0;
    let most = |usual: u32, most: u32| if wide { most } else { usual };
    BreakerRules {
        enabled: true,
        consecutive: random.below(7) as u8,
        rate_percent: [0, 1, 30, 50, 90, 100][random.below(6) as usize],
        min_dials: random.below(36) as u8,
        window_s: [0, 1, 10, 60, 3600][random.below(5) as usize],
        probes: random.below(most(5, 256)) as u8,
        successes: random.below(most(5, 256)) as u8,
        backoff: BackoffRules {
            base_ms: 1 + random.below(2000),
            multiplier_percent: 100 + random.below(most(150, 901)),
            jitter_percent: random.below(101),
            max_ms: 1000 + random.below(most(60_000, Tick::FAR / 2)),
        },
    }
}

fn told(change: Option<Change>) -> Told {
    change.map(|change| (change.from, change.to))
}

/// Walks so many steps, or until there is nothing to choose by. Returns how often each state was
/// met.
///
/// # Panics
/// When the breaker and its specification disagree.
pub(in crate::engine) fn walk(random: &mut impl Chance, steps: usize) -> [u32; 5] {
    let mut rules = rules(random);
    // How often dials go wrong, in percent; it changes as the walk goes on.
    let mut badness = 50;
    let breaker = Breaker::new();
    // Some walks begin just before the wrap.
    let mut time = u64::from(u32::MAX) - u64::from(random.below(100_000));
    let closed = Now::Closed { outcomes: Vec::new(), since: time };
    let mut model = Model { now: closed, trips: 0, period: 0 };
    let mut dials: Vec<Dial> = Vec::new();
    let mut met = [0; 5];
    for _ in 0..steps {
        if random.is_over() {
            break;
        }
        time += match random.below(24) {
            0 => u64::from(rules.backoff.max_ms),
            1..6 => u64::from(random.below(rules.backoff.base_ms * 2)),
            6 if random.below(8) == 0 => u64::from(rules.window_s) * 1300,
            _ => u64::from(random.below(50)),
        };
        // The clock of another shard, behind by less than a second.
        let lag = if random.below(16) == 0 { u64::from(random.below(900)) } else { 0 };
        if model.is_in_doubt(&rules, time) {
            time += u64::from(rules.window_s) * 250;
        }
        let lag = if model.is_in_doubt(&rules, time - lag) { 0 } else { lag };
        let now = time - lag;
        if model.is_forgotten(&rules, now) || model.has_come_round(now) {
            assert_eq!(told(breaker.reset()), model.reset(now));
        }
        if random.below(60) == 0 {
            badness = random.below(101);
        }
        if random.below(100) == 0 {
            rules.enabled = random.below(4) > 0;
        }
        // A dial that sleeps through 1024 changes counts as one of the new period; none does.
        dials.retain(|dial| model.period - dial.period < 1000);
        let tick = Tick::from_millis(now as u32);
        met[model.state() as usize] += 1;
        let glanced = match (&model.now, model.state()) {
            (Now::Open { until, .. }, _) if *until <= now => State::HalfOpen,
            (_, state) => state,
        };
        assert_eq!(breaker.glance(tick), glanced);
        match random.below(100) {
            0..50 => {
                let rejected = breaker.rejects(&rules, tick);
                let (expected, change) = model.admit(&rules, now);
                assert_eq!(rejected, expected.err(), "what it says beforehand");
                match (breaker.admit(&rules, tick), expected) {
                    (Ok(pass), Ok(probe)) => {
                        assert_eq!((pass.is_probe(), told(pass.change())), (probe, change));
                        dials.push(Dial { pass, period: model.period, probe });
                    }
                    (Err(rejected), Err(left_ms)) => {
                        assert_eq!(rejected, Rejected { state: model.state(), left_ms });
                    }
                    (found, expected) => panic!("{found:?} instead of {expected:?}"),
                }
            }
            50..97 if !dials.is_empty() => {
                let dial = dials.swap_remove(random.below(dials.len() as u32) as usize);
                let verdict = (random.below(10) > 0).then(|| random.below(100) >= badness);
                let expected = model.end(&dial, verdict, &rules, now);
                let change = match verdict {
                    Some(true) => breaker.succeeded(dial.pass, &rules, tick),
                    Some(false) => breaker.failed(dial.pass, &rules, tick, random.next_u32()),
                    None => {
                        breaker.withdrawn(dial.pass);
                        None
                    }
                };
                assert_eq!(told(change), expected);
                if let Some(Change { to: State::Open, open_for_ms, .. }) = change {
                    model.opened(&rules, now, open_for_ms);
                }
            }
            97 => assert_eq!(told(breaker.reset()), model.reset(now)),
            98..100 => {
                let mode = match random.below(4) {
                    0 => Mode::ForcedOpen,
                    1 => Mode::ForcedClosed,
                    _ => Mode::Auto,
                };
                assert_eq!(told(breaker.force(mode)), model.force(mode, now));
            }
            _ => {}
        }
        let closed = matches!(model.state(), State::Closed | State::ForcedClosed);
        assert_eq!(breaker.is_closed(), closed);
        if let Now::HalfOpen { out, .. } = model.now {
            assert!(out <= rules.probes.max(1).into(), "INV-8");
        }
    }
    met
}

#[cfg(test)]
mod tests {
    use crate::engine::seeded::Seeded;

    #[test]
    fn seeded_walks_agree_with_the_specification() {
        let mut met = [0_u32; 5];
        for seed in 1..=400 {
            let walk = std::panic::catch_unwind(|| super::walk(&mut Seeded::new(seed), 1500));
            let states = walk.unwrap_or_else(|_| panic!("seed {seed} failed"));
            met.iter_mut().zip(states).for_each(|(sum, more)| *sum += more);
        }
        assert!(met.iter().all(|count| *count > 1000), "some state was hardly met: {met:?}");
    }
}
