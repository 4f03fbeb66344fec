//! The whole pool under a simulator: shards, dials, timers, breakers, callers, operators and
//! origins are futures that one thread polls in an order drawn from a seed, with the clock stopped
//! between the steps. After each step what the pool says is held against an account that the
//! simulator keeps by itself. A seed is a run: it can be had again.
//!
//! `COREPOOL_SIM_SEEDS` says how many seeds, `COREPOOL_SIM_SEED` which one to replay, and
//! `COREPOOL_SIM_TRACE` has all of its trace printed.
#![allow(unreachable_pub)] // the modules are this test's own

#[path = "simulation/account.rs"]
mod account;
#[path = "simulation/callers.rs"]
mod callers;
#[path = "simulation/executor.rs"]
mod executor;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/observer.rs"]
mod observer;
#[path = "simulation/operators.rs"]
mod operators;
#[path = "simulation/profile.rs"]
mod profile;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/world.rs"]
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use account::Tally;
use run::run;
use world::Plant;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

#[test]
fn replay() {
    let Some(seed) = number("COREPOOL_SIM_SEED") else {
        return;
    };
    let outcome = run(seed, None);
    println!("seed {seed}: {} steps, trace {:016x}", outcome.steps, outcome.hash);
    if let Some(failure) = outcome.failure {
        panic!("{failure}");
    }
}

/// Runs seeds on as many threads as there are cores, each in a simulation of its own.
fn run_all(seeds: u64) -> (Tally, u64, Option<String>) {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let (mut tally, mut steps, mut failure) = (Tally::default(), 0, None);
        while failure.is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            let outcome = run(seed, None);
            tally.join(&outcome.tally);
            steps += outcome.steps;
            failure = outcome.failure;
        }
        // The others need not go on.
        if failure.is_some() {
            next.store(seeds, Ordering::Relaxed);
        }
        (tally, steps, failure)
    };
    thread::scope(|scope| {
        let runs: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = (Tally::default(), 0, None);
        for run in runs {
            let (tally, steps, failure) = run.join().expect("a run notes its panics");
            all.0.join(&tally);
            all.1 += steps;
            all.2 = all.2.or(failure);
        }
        all
    })
}

#[test]
fn no_seed_breaks_an_invariant() {
    let seeds = number("COREPOOL_SIM_SEEDS").unwrap_or(SEEDS);
    let (tally, steps, failure) = run_all(seeds);
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    println!("{seeds} seeds, {steps} steps");
    for (what, count) in &tally.0 {
        println!("{count:>9} {what}");
    }
    for kind in KINDS {
        assert!(tally.count(kind) > 0 || seeds < SEEDS, "{kind} never happened");
    }
}

/// How many seeds run unless somebody says otherwise.
const SEEDS: u64 = 4_000;

/// What has to happen at least once among them.
const KINDS: [&str; 58] = [
    "FIN at rest",
    "FIN instead of an answer",
    "RST at rest",
    "RST instead of an answer",
    "addresses changed",
    "adopt",
    "adopted",
    "blackholed",
    "breaker changed",
    "cancelled checkout",
    "checkout",
    "checkout fresh",
    "clock jump",
    "close",
    "completed after it was given up",
    "connector failed",
    "connector hung",
    "connector panicked",
    "detached",
    "discarded",
    "drain",
    "driver failed",
    "dropped clean",
    "dropped dirty",
    "evict",
    "evict idle",
    "failed by its dial",
    "force breaker",
    "fresh",
    "frozen shard",
    "half-closed",
    "half-closed while the caller writes",
    "held for long",
    "hook panicked",
    "hook refused",
    "late hang-up",
    "leak returned",
    "leak suspected",
    "look-up",
    "look-up failed",
    "look-up hung",
    "names change",
    "no answer",
    "out of descriptors",
    "ping",
    "ping hung",
    "reconfigure",
    "refused",
    "refused late",
    "released",
    "reset breaker",
    "resize totals",
    "retain",
    "reuse",
    "slow close",
    "slow dial",
    "suspend",
    "unexpected bytes",
];

#[test]
fn a_seed_runs_the_same_each_time() {
    for seed in 0..60 {
        let [one, two] = [run(seed, None), run(seed, None)];
        assert_eq!((one.hash, one.steps), (two.hash, two.steps), "seed {seed}");
        assert!(one.steps > 50, "seed {seed} does next to nothing");
    }
}

/// How many seeds it takes to find a bug of the simulation's own.
fn seeds_to_find(plant: Plant, label: &str) -> u64 {
    const BUDGET: u64 = 200;
    for seed in 0..BUDGET {
        if let Some(failure) = run(seed, Some(plant)).failure {
            assert!(failure.contains(label), "found for another reason:\n{failure}");
            return seed + 1;
        }
    }
    panic!("{plant:?} was not found by {BUDGET} seeds");
}

#[test]
fn planted_bugs_are_found() {
    for (plant, label) in [
        (Plant::ForgottenClose, "INV-"),
        (Plant::HiddenHangUp, "INV-6"),
        (Plant::LostWakeUp, "INV-5"),
        (Plant::TwoOwners, "INV-"),
    ] {
        println!("{plant:?}: found by seed {} of 200", seeds_to_find(plant, label));
    }
}
