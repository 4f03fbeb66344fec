//! Seeded sequences, and the fuzzer's corpus.

use super::*;

/// xorshift64*: good enough to pick operations.
struct Seeded(u64);

impl Seeded {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut byte = || {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
        };
        (0..count).map(|_| byte()).collect()
    }
}

struct NameIt<'a>(&'a dyn fmt::Display);

impl Drop for NameIt<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0);
        }
    }
}

#[test]
fn seeded_sequences_keep_the_invariants() {
    for seed in 1..=3_000_u64 {
        let name = format!("seed {seed}");
        let _named = NameIt(&name);
        let mut random = Seeded(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let length = 20 + (seed as usize * 7) % 600;
        run(&random.bytes(length));
    }
}

/// Of everything, with the clock's leaps and lags: each await is given up at, many times over.
#[test]
fn seeded_sequences_of_everything_keep_the_invariants() {
    let mut sum = [0; 9];
    for seed in 1..=3_000_u64 {
        let name = format!("seed {seed} of everything");
        let _named = NameIt(&name);
        let mut random = Seeded(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut bytes = random.bytes(20 + (seed as usize * 7) % 600);
        bytes[0] = 192 + bytes[0] % 24;
        let GivenUp { in_line, dialling, alone, told, filled, guard, probe, adoption, place } =
            drive(&bytes);
        let counts = [in_line, dialling, alone, told, filled, guard, probe, adoption, place];
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    assert!(sum.iter().all(|count| *count >= 30), "given up too rarely: {sum:?}");
}

#[test]
fn a_ring_full_of_stale_hints_makes_room() {
    make_room(3, 0);
}

#[test]
fn a_stack_full_of_stale_hints_makes_room() {
    make_room(7, 1);
}

fn make_room(rest: u8, lifo: u32) {
    // Four slots; one may live, one may rest: room for two hints.
    let mut world = World::new(&mut Bytes(&[3, 0, 1, 0, rest]));
    assert_eq!(world.sides[0].limits.lifo, lifo);
    let spot = Spot { group: 0, shard: ShardId(0), steal_min: 1 };
    // No checkout and no wait in between, which would clear the stale hints away.
    let rest_one = |world: &mut World| {
        world.step(Op::DialFresh(spot));
        world.step(Op::DialSucceeds(0));
        world.step(Op::Poll(0));
        world.step(Op::GiveBack(0));
    };
    for _ in 0..5 {
        rest_one(&mut world);
        assert_eq!(world.idle(0).count(), 1);
        (0..4).for_each(|slot| world.step(Op::HangUp(ShardId(0), slot)));
        world.step(Op::Vacate(0));
    }
    rest_one(&mut world);
    world.step(Op::Checkout(spot));
    assert_eq!(world.leases.len(), 1, "INV-3: idle without a hint");
    world.end(true);
}

/// A connection above the limit came back to a caller in line although the group was held.
#[test]
fn a_connection_above_the_limit_serves_nobody_while_held() {
    // Three slots; group 0: one may live, one more above it, one may wait.
    let mut world = World::rich(&mut Bytes(&[2, 0, 0, 0, 0b1000_0100, 0, 0, 0]));
    let spot = Spot { group: 0, shard: ShardId(0), steal_min: 1 };
    world.step(Op::DialFresh(spot));
    world.step(Op::DialOverflow(spot));
    (0..2).for_each(|_| world.step(Op::DialSucceeds(0)));
    (0..2).for_each(|_| world.step(Op::Poll(0)));
    assert_eq!(world.leases[1].tenant.class, Class::Overflow);
    world.step(Op::Hold(0));
    world.step(Op::Wait(spot));
    world.step(Op::GiveBack(1));
    assert!(world.callers[0].found().is_none(), "served while held");
    world.end(true);
}

#[test]
fn what_served_as_often_as_it_may_ends() {
    // One slot; group 0: twice.
    let mut world = World::rich(&mut Bytes(&[0, 0, 0, 0, 0b0100, 0, 0, 0b100]));
    assert_eq!(world.sides[0].limits.max_uses, 2);
    let spot = Spot { group: 0, shard: ShardId(0), steal_min: 1 };
    world.step(Op::DialFresh(spot));
    world.step(Op::DialSucceeds(0));
    world.step(Op::Poll(0));
    world.step(Op::GiveBack(0));
    world.step(Op::Checkout(spot));
    world.step(Op::GiveBack(0));
    assert_eq!((world.idle(0).count(), world.closes.len()), (0, 1));
    world.end(true);
}

#[test]
fn what_has_lived_long_enough_ends() {
    let mut world = World::rich(&mut Bytes(&[0, 0, 0, 0, 0b0100, 0, 0, 0]));
    let World { engine, sides, now, .. } = &mut world;
    sides[0].limits = GroupLimits { max_lifetime_ms: 1000, max_uses: NEVER, ..sides[0].limits };
    engine.resize(&sides[0].seats, &sides[0].limits, *now);
    let spot = Spot { group: 0, shard: ShardId(0), steal_min: 1 };
    for (lived, ended) in [(999, 0), (1000, 1)] {
        world.step(Op::DialFresh(spot));
        world.step(Op::DialSucceeds(0));
        world.step(Op::Poll(0));
        world.now = world.now.after(lived);
        world.step(Op::GiveBack(0));
        assert_eq!(world.closes.len(), ended, "after {lived} ms");
        world.step(Op::Checkout(spot));
        world.step(Op::Discard(0));
        world.step(Op::Vacate(0));
    }
    world.end(true);
}

#[test]
fn what_a_refused_dial_had_of_the_breaker_comes_back() {
    // Four slots; one dial in the whole pool; four may live, and there is a breaker.
    let group = [0b0111, 16, 0, 0];
    let mut world = World::rich(&mut Bytes(&[&[3, 0, 0, 1][..], &group, &group].concat()));
    let [spot, other] = [0, 1].map(|group| Spot { group, shard: ShardId(0), steal_min: 1 });
    world.step(Op::DialFresh(spot));
    world.step(Op::DialFails(0));
    world.step(Op::Poll(0));
    world.step(Op::Leap(10));
    world.step(Op::Wait(other));
    world.step(Op::DialFresh(spot));
    assert_eq!(world.callers.len(), 1, "no permit to dial is left");
    world.step(Op::DialSucceeds(0));
    world.step(Op::DialFresh(spot));
    assert_eq!((world.callers.len(), world.probes(0)), (2, 1), "INV-8: the probe's place is lost");
    world.end(true);
}

#[test]
fn what_is_above_a_lowered_limit_is_not_handed_over() {
    // Four slots; group 0: two may live, three may wait.
    let mut world = World::rich(&mut Bytes(&[3, 0, 0, 0, 0b0010_0101, 0, 0, 0]));
    let spot = Spot { group: 0, shard: ShardId(0), steal_min: 1 };
    for _ in 0..2 {
        world.step(Op::DialFresh(spot));
        world.step(Op::DialSucceeds(0));
        world.step(Op::Poll(0));
    }
    world.step(Op::Wait(spot));
    world.step(Op::Resize(0, [0b0010_0100, 0, 0]));
    world.step(Op::GiveBack(0));
    assert_eq!((world.waiting(0), world.closes.len()), (1, 1), "handed over above the limit");
    world.step(Op::Vacate(0));
    world.step(Op::GiveBack(0));
    assert_eq!((world.waiting(0), world.closes.len()), (0, 0));
    world.end(true);
}

#[test]
fn the_fuzz_corpus_keeps_the_invariants() {
    crate::corpus::replay("engine", run);
}
