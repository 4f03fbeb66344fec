//! The small state machines against what they shall do, by the fuzzer's choices: breaker, backoff,
//! slow start and retention.

use super::{Ramp, Retention, backoff, breaker, seeded::Bytes, seeded::Chance};
use crate::clock::Tick;

/// The first byte says which, the others what happens.
///
/// # Panics
/// When one of them does not do what its specification says.
pub fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let mut random = Bytes(bytes);
    match which % 4 {
        0 => drop(breaker::specification::walk(&mut random, usize::MAX)),
        1 => backoff::specification::walk(&mut random, usize::MAX),
        2 => ramp(&mut random),
        _ => retention(&mut random),
    }
}

/// A step of time: little, some, or up to twelve days.
fn pass(random: &mut impl Chance) -> u64 {
    match random.below(16) {
        0 => u64::from(random.below(1 << 30)),
        1..6 => u64::from(random.below(1 << 16)),
        _ => u64::from(random.below(1 << 8)),
    }
}

/// The clock of another shard may be behind, by so little.
fn lag(random: &mut impl Chance) -> u64 {
    if random.below(8) == 0 { u64::from(random.below(900)) } else { 0 }
}

fn tick(time: u64) -> Tick {
    Tick::from_millis(time as u32)
}

/// Near the wrap of the 32-bit clock.
fn start(random: &mut impl Chance) -> u64 {
    u64::from(u32::MAX) - u64::from(random.below(1 << 16))
}

fn ramp(random: &mut impl Chance) {
    let ramp = Ramp::new();
    let mut window = 1 + random.below(1 << 16);
    let mut time = start(random);
    let mut began = None;
    while !random.is_over() {
        time += pass(random);
        // Unasked for 49 days, a start would read as a new one.
        if began.is_some_and(|began| time - began > 1 << 31) {
            ramp.start(tick(time));
            began = Some(time);
        }
        match random.below(8) {
            0 => {
                ramp.start(tick(time));
                began = Some(time);
            }
            1 => window = random.below(1 << 31),
            _ => {
                let full = random.below(1 << 12);
                let now = time - lag(random);
                let mut expected = full;
                if let Some(start) = began {
                    let since = now.saturating_sub(start);
                    if since >= window.into() {
                        began = None;
                    } else {
                        let part = u64::from(full) * since / u64::from(window);
                        expected = (part as u32).max(full.min(1));
                    }
                }
                assert_eq!(ramp.allowed(full, tick(now), window), expected);
            }
        }
        assert_eq!(ramp.is_over(), began.is_none());
    }
}

/// The clock of a retention: units of 64 ms, of which 2^20 come round.
const UNIT: u64 = 64;
const LONGEST: u64 = (1 << 20) - 1 - 16;

fn retention(random: &mut impl Chance) {
    let mut time = start(random);
    let retention = Retention::new(tick(time));
    let (mut began, mut peak, mut estimate) = (time / UNIT, 0, 0);
    let mut period = 1 + random.below(1 << 18);
    while !random.is_over() {
        let now = (time + pass(random)).min((began + LONGEST) * UNIT);
        time = now;
        match random.below(8) {
            0..3 => {
                let in_use = count(random);
                retention.observe(in_use);
                peak = peak.max(in_use.min(MOST));
            }
            3 => period = random.below(1 << 26),
            _ => {
                let now = now - lag(random);
                let [idle, in_use, min_idle] = [(); 3].map(|()| count(random));
                let closed = retention.tick(tick(now), idle, in_use, min_idle, period);
                let age = (now / UNIT).saturating_sub(began);
                if age < u64::from(period).div_ceil(UNIT).clamp(1, LONGEST) {
                    assert_eq!(closed, 0, "no period is over");
                    continue;
                }
                let used = in_use.min(MOST);
                peak = peak.max(used);
                // A higher need counts at once, a lower one by half.
                estimate =
                    if peak > estimate { peak } else { estimate - (estimate - peak).div_ceil(2) };
                (peak, began) = (used, now / UNIT);
                let live = u64::from(idle) + u64::from(in_use);
                let kept = (u64::from(in_use) + u64::from(min_idle)).max(estimate.into());
                let surplus = live.min(u32::MAX.into()).saturating_sub(kept.min(u32::MAX.into()));
                assert_eq!(
                    u64::from(closed),
                    surplus.div_ceil(2),
                    "half of what is above the need"
                );
                assert!(closed <= idle.saturating_sub(min_idle), "fewer than shall rest are left");
            }
        }
        assert_eq!(retention.estimate(), estimate);
    }
}

/// What a retention can count.
const MOST: u32 = (1 << 22) - 1;

/// A count of connections: few, or up to more than can be counted.
fn count(random: &mut impl Chance) -> u32 {
    if random.below(16) == 0 { random.next_u32() } else { random.below(1 << 8) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::seeded::Seeded;

    #[test]
    fn seeded_walks_agree_with_the_specifications() {
        for seed in 1..=400 {
            let mut random = Seeded::new(seed);
            let bytes: Vec<u8> = (0..2000).map(|_| random.below(256) as u8).collect();
            let walk = std::panic::catch_unwind(|| run(&bytes));
            walk.unwrap_or_else(|_| panic!("seed {seed} failed"));
        }
    }

    #[test]
    fn the_fuzz_corpus_agrees_with_the_specifications() {
        crate::corpus::replay("breaker", run);
    }
}
