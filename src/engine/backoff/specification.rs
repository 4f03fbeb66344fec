//! What a backoff shall do, said once more, with a clock that never wraps. Seeded walks, and the
//! fuzzer's, compare the word with it.

use super::*;
use crate::engine::seeded::Chance;

/// What the page of gRPC says, with a clock that never wraps.
#[derive(Default)]
struct Specification {
    failures: u32,
    until: u64,
    /// Grows with every step; a dial remembers the one that it was begun in.
    step: u64,
}

struct Dial {
    started: u64,
    step: u64,
}

/// Walks so many steps, or until there is nothing to choose by.
///
/// # Panics
/// When the backoff and its specification disagree.
pub(in crate::engine) fn walk(random: &mut impl Chance, steps: usize) {
    let rules = BackoffRules {
        base_ms: 1 + random.below(3000),
        multiplier_percent: 100 + random.below(200),
        jitter_percent: random.below(101),
        max_ms: 1000 + random.below(100_000),
    };
    let backoff = Backoff::new();
    let mut model = Specification::default();
    let mut dials: Vec<Dial> = Vec::new();
    // Some walks begin just before the wrap.
    let mut now = u64::from(u32::MAX) - u64::from(random.below(200_000));
    for _ in 0..steps {
        if random.is_over() {
            break;
        }
        now += 1 + match random.below(20) {
            0 => u64::from(rules.max_ms),
            1..10 => u64::from(random.below(rules.base_ms)),
            _ => u64::from(random.below(100)),
        };
        if random.below(200) == 0 {
            // Weeks of silence; no dial takes that long.
            dials.clear();
            now += 86_400_000 * u64::from(1 + random.below(48));
        }
        // A wait that passed half the clock's range ago may read as ahead once more.
        if model.failures > 0 && now.saturating_sub(model.until) > 1 << 31 {
            assert!(backoff.reset());
            model.failures = 0;
        }
        let tick = Tick::from_millis(now as u32);
        let left = if model.failures == 0 { 0 } else { model.until.saturating_sub(now) };
        let may = if left == 0 { Ok(()) } else { Err(left as u32) };
        assert_eq!(backoff.may_try(tick), may, "at {now}");
        assert_eq!(u32::from(backoff.attempt()), model.failures.min(255));
        match random.below(16) {
            0..8 if may.is_ok() => dials.push(Dial { started: now, step: model.step }),
            0..14 if !dials.is_empty() => {
                let dial = dials.swap_remove(random.below(dials.len() as u32) as usize);
                let started = Tick::from_millis(dial.started as u32);
                let left = u64::from(backoff.failed(started, tick, &rules, random.next_u32()));
                if model.failures == 0 || dial.step == model.step {
                    let growth = f64::from(rules.multiplier_percent) / 100.0;
                    let wait = (f64::from(rules.base_ms) * growth.powf(model.failures.into()))
                        .min(rules.max_ms.into());
                    let swing = wait * f64::from(rules.jitter_percent) / 100.0;
                    if left > 0 {
                        let waited = (now + left - dial.started) as f64;
                        // Two roundings.
                        let range = wait - swing - 2.0..=wait + swing + 2.0;
                        assert!(range.contains(&waited), "{waited} not in {range:?}");
                    } else {
                        assert!((now - dial.started) as f64 >= (wait - swing - 2.0).max(1.0));
                    }
                    model.failures += 1;
                    model.step += 1;
                    model.until = now + left;
                } else {
                    assert_eq!(left, model.until.saturating_sub(now), "same step");
                }
            }
            14 if !dials.is_empty() => {
                dials.pop();
                assert_eq!(backoff.succeeded(), model.failures > 0);
                model.failures = 0;
            }
            15 if random.below(8) == 0 => {
                assert_eq!(backoff.reset(), model.failures > 0);
                model.failures = 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::seeded::Seeded;

    #[test]
    fn seeded_walks_agree_with_the_specification() {
        for seed in 1..=300 {
            let walk = std::panic::catch_unwind(|| super::walk(&mut Seeded::new(seed), 2000));
            walk.unwrap_or_else(|_| panic!("seed {seed} failed"));
        }
    }
}
