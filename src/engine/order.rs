//! FIFO against LIFO: what each keeps of a burst, and how old what it hands out is.
//!
//! A simulation on the engine itself, with chance from a seed. `cargo test --lib engine::order --
//! --nocapture` prints the table that [`crate::design`] cites.

use core::task::{Context, Poll, Waker};

use super::{Doomed, Duty, Engine, Group, GroupLimits, Lease, Outcome, Seat, ShardId};
use crate::{clock::Tick, sync::Arc};

const S0: ShardId = ShardId(0);
const STEP_MS: u32 = 10;
const HELD_MS: u32 = 50;
const THINK_MS: f64 = 950.0;
const BURST: u32 = 128;
const MINUTE: u32 = 60_000;

struct Random(u64);

impl Random {
    /// xorshift*, shaped to an exponential distribution.
    fn think(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let uniform = (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 1.0;
        (-THINK_MS * (uniform / (1u64 << 53) as f64).ln()).max(1.0) as u32
    }
}

#[derive(Debug, Default)]
struct Outcomes {
    kept: [u32; 3],
    mean_age_s: f64,
    max_age_s: f64,
    dialled: u32,
}

fn open(engine: &Engine<u32, ()>, seat: &Arc<Seat<u32, ()>>, now: Tick) -> Lease<u32, ()> {
    let waiter = engine.dial_fresh(seat, now).unwrap();
    let Some(Duty::Dial(dial)) = engine.next_duty(S0) else { panic!("no dial") };
    engine.fulfil(&dial, 0, now).unwrap();
    match waiter.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Outcome::Ready(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

/// After a burst that left 128 at rest, ten minutes of a low steady load.
fn ten_minutes(users: usize, lifo: u32, retention_period_ms: u32) -> Outcomes {
    let limits = GroupLimits {
        max_live: 1024,
        max_idle: BURST,
        idle_timeout_ms: MINUTE,
        lifo,
        retention_period_ms,
        ..GroupLimits::DEFAULT
    };
    let engine: Engine<u32, ()> = Engine::new(1, 1024);
    let group = Arc::new(Group::new(S0, 1, limits));
    let seats = Group::seats(&group);
    let burst: Vec<_> = (0..BURST).map(|_| open(&engine, &seats[0], Tick::ZERO)).collect();
    for (n, lease) in (0..).zip(burst) {
        engine.give_back(lease, Tick::from_millis(n * 8));
    }
    let (mut random, mut outcomes) = (Random(0x9E37_79B9_7F4A_7C15), Outcomes::default());
    let start = 1_100;
    let mut wakes: Vec<u32> = (0..users).map(|_| start + random.think()).collect();
    let mut held: Vec<Option<Lease<u32, ()>>> = (0..users).map(|_| None).collect();
    let (mut checkouts, mut ages, mut oldest) = (0.0, 0.0, 0);
    for ms in (start..start + 10 * MINUTE).step_by(STEP_MS as usize) {
        let now = Tick::from_millis(ms);
        if ms % 250 == 0 {
            engine.sweep(S0, now, &mut Vec::new());
            engine.tend(&seats, now);
            while let Some(Duty::Close(Doomed { place, .. })) = engine.next_duty(S0) {
                engine.vacate(place, now);
            }
        }
        for (minute, kept) in [1, 2].into_iter().zip(&mut outcomes.kept) {
            if ms == start + minute * MINUTE {
                *kept = engine.counts(&group).live;
            }
        }
        for (wake, held) in wakes.iter_mut().zip(&mut held) {
            if *wake > ms {
                continue;
            }
            if let Some(lease) = held.take() {
                engine.give_back(lease, now);
                *wake = ms + random.think();
                continue;
            }
            *wake = ms + HELD_MS;
            *held = Some(match engine.checkout(&group, S0, 1) {
                Some(lease) => {
                    let age = now.since(lease.tenant.rested);
                    checkouts += 1.0;
                    ages += f64::from(age);
                    oldest = oldest.max(age);
                    lease
                }
                None => {
                    outcomes.dialled += 1;
                    open(&engine, &seats[0], now)
                }
            });
        }
    }
    outcomes.kept[2] = engine.counts(&group).live;
    outcomes.mean_age_s = ages / checkouts / 1000.0;
    outcomes.max_age_s = f64::from(oldest) / 1000.0;
    for lease in held.into_iter().flatten() {
        engine.give_back(lease, Tick::ZERO);
    }
    outcomes
}

#[test]
fn what_each_order_keeps_of_a_burst() {
    println!("users  order  retention   after 1, 2, 10 min   mean age s   max age s   dialled");
    for users in [1, 4, 16] {
        let run = |lifo, period| {
            let outcomes = ten_minutes(users, lifo, period);
            let order = ["fifo", "lifo"][lifo as usize];
            let retention = if period == u32::MAX { "off" } else { "30 s" };
            let Outcomes { kept: [one, two, ten], mean_age_s, max_age_s, dialled } = &outcomes;
            println!(
                "{users:5}  {order:>5}  {retention:>9}   {one:4} {two:4} {ten:8}   \
                 {mean_age_s:10.1}   {max_age_s:9.1}   {dialled:7}"
            );
            outcomes
        };
        let [fifo, lifo] = [0, 1].map(|lifo| run(lifo, u32::MAX));
        assert!(lifo.kept[2] < fifo.kept[2], "the same few serve, and the others time out");
        assert!(lifo.mean_age_s < fifo.mean_age_s);
        let [shrunk, both] = [0, 1].map(|lifo| run(lifo, 30_000));
        assert!(shrunk.kept[2] < fifo.kept[2] / 2, "retention shrinks what FIFO keeps warm");
        assert!(shrunk.kept[0] > shrunk.kept[2], "and does so by and by");
        assert!(both.kept[2] <= shrunk.kept[2]);
    }
}
