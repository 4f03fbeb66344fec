//! How much sharding costs in reuse, and what stealing gives back. Simulated: no noise.

use std::{cell::RefCell, fmt::Write, rc::Rc, thread, time::Duration};

use corepool::{Group, Settings, sim::SimConnector};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    model::{self, SimPool},
    steal::Steal,
};

/// Endpoints.
const KEYS: usize = 100;
/// Requests under way on average, over all endpoints and shards.
const CONCURRENCY: f64 = 64.0;
/// How long a request has its connection.
const SERVICE: Duration = Duration::from_millis(20);
/// How long a connection may rest: a second less than the 5 s after which a Node.js or an Apache
/// origin closes it.
const IDLE_TIMEOUT_MS: u32 = 4_000;
const SEEDS: [u64; 3] = [1, 2, 3];
/// Where thresholds are compared.
const MANY_SHARDS: usize = 32;

/// What came of one number of shards and one way to steal.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub shards: usize,
    pub steal: Steal,
    seeds: usize,
    /// Of all requests, those served by a connection that was there, as a percentage: the mean of
    /// the seeds, the least and the most.
    pub reuse: (f64, f64, f64),
    /// Of all requests, those served by another shard's connection, as a percentage.
    pub stolen: f64,
    /// Open connections, over all endpoints, on average.
    pub open: f64,
    /// Dials for a thousand requests.
    pub dials: f64,
}

/// The counts of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    served: u64,
    reused: u64,
    stolen: u64,
    opened: u64,
    open: u64,
    samples: u64,
}

pub fn run(shards: &[usize], quick: bool) -> Vec<Outcome> {
    let cells = shards.iter().flat_map(|shards| Steal::ALL.map(|steal| (*shards, steal)));
    outcomes(cells, quick)
}

/// Thresholds between always and never, where there are many shards.
pub fn thresholds(quick: bool) -> Vec<Outcome> {
    let thresholds = [1, 2, 4, 8, 16, 32, 64, 128].map(Steal::From);
    outcomes(thresholds.into_iter().map(|steal| (MANY_SHARDS, steal)), quick)
}

fn outcomes(cells: impl Iterator<Item = (usize, Steal)>, quick: bool) -> Vec<Outcome> {
    let (settle, measure, seeds) = match quick {
        true => (Duration::from_secs(6), Duration::from_secs(6), &SEEDS[..1]),
        false => (Duration::from_secs(15), Duration::from_secs(60), &SEEDS[..]),
    };
    let outcome = |(shards, steal): (usize, Steal)| {
        // Each seed is a simulation of its own.
        let runs: Vec<Tally> = thread::scope(|scope| {
            let run = |seed: &u64| {
                let seed = *seed;
                scope.spawn(move || simulate(shards, steal, seed, settle, measure))
            };
            let runs: Vec<_> = seeds.iter().map(run).collect();
            runs.into_iter().map(|run| run.join().expect("a run does not panic")).collect()
        });
        Outcome::of(shards, steal, &runs)
    };
    cells.map(outcome).collect()
}

fn simulate(shards: usize, steal: Steal, seed: u64, settle: Duration, measure: Duration) -> Tally {
    let mut settings = Settings::default();
    settings.shards = Some(shards);
    settings.steal_threshold = steal.threshold();
    settings.endpoint.lifetime.idle_timeout_ms = IDLE_TIMEOUT_MS;
    model::play(settings, seed, async |pool, _peers| {
        let groups: Rc<[Group<SimConnector>]> =
            (0..KEYS).map(|key| pool.group(model::address(key))).collect();
        let tally = Rc::new(RefCell::new(Tally::default()));
        let begin = Instant::now() + settle;
        let arrivals = arrive(&pool, &groups, &tally, seed, shards, begin, begin + measure);
        let watch = async {
            sleep_until(begin).await;
            let before = totals(&groups);
            for _ in 0..measure.as_secs() {
                sleep(Duration::from_secs(1)).await;
                let mut tally = tally.borrow_mut();
                tally.open += totals(&groups).open;
                tally.samples += 1;
            }
            (before, totals(&groups))
        };
        let ((), (before, after)) = tokio::join!(arrivals, watch);
        let mut tally = *tally.borrow();
        tally.stolen = after.stolen - before.stolen;
        tally.opened = after.opened - before.opened;
        tally
    })
}

/// Requests of a Poisson process, each on a shard and to an endpoint of chance, the way that
/// `SO_REUSEPORT` spreads clients. Those that come from `begin` on are counted.
async fn arrive(
    pool: &SimPool,
    groups: &Rc<[Group<SimConnector>]>,
    tally: &Rc<RefCell<Tally>>,
    seed: u64,
    shards: usize,
    begin: Instant,
    end: Instant,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let per_second = CONCURRENCY / SERVICE.as_secs_f64();
    let mut next = Instant::now();
    loop {
        next += model::gap(&mut random, per_second);
        if next >= end {
            return;
        }
        sleep_until(next).await;
        let (shard, key) = (random.usize(..shards), random.usize(..KEYS));
        let (groups, tally, counts) = (Rc::clone(groups), Rc::clone(tally), next >= begin);
        model::spawn_at(pool, shard, async move {
            let conn = groups[key].checkout().await.expect("nothing fails on this network");
            if counts {
                let mut tally = tally.borrow_mut();
                tally.served += 1;
                tally.reused += u64::from(conn.is_reused());
            }
            sleep(SERVICE).await;
            conn.release();
        });
    }
}

fn totals(groups: &[Group<SimConnector>]) -> Tally {
    let mut sum = Tally::default();
    for stats in groups.iter().map(Group::stats) {
        sum.stolen += stats.stolen;
        sum.opened += stats.opened;
        sum.open += u64::from(stats.idle + stats.in_use);
    }
    sum
}

impl Outcome {
    fn of(shards: usize, steal: Steal, runs: &[Tally]) -> Self {
        let sum = |of: fn(&Tally) -> u64| runs.iter().map(of).sum::<u64>() as f64;
        let served = sum(|run| run.served);
        let ratios = runs.iter().map(|run| 100.0 * run.reused as f64 / run.served as f64);
        Self {
            shards,
            steal,
            seeds: runs.len(),
            reuse: (
                100.0 * sum(|run| run.reused) / served,
                ratios.clone().fold(f64::INFINITY, f64::min),
                ratios.fold(0.0, f64::max),
            ),
            stolen: 100.0 * sum(|run| run.stolen) / served,
            open: sum(|run| run.open) / sum(|run| run.samples),
            dials: 1000.0 * sum(|run| run.opened) / served,
        }
    }
}

pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "## Reuse against shards (simulated, no noise)\n\n\
         Requests arrive as a Poisson process, each on a shard and to one of {KEYS} endpoints of \
         chance; each has its connection for {} ms, so that {CONCURRENCY:.0} are under way on \
         average ({:.0} requests a second). A dial takes {} ms; a connection rests at most {} s. \
         Mean over {} seeds. A simulated shard needs no core, so that 64 of them are as good as 2.\n\n",
        SERVICE.as_millis(),
        CONCURRENCY / SERVICE.as_secs_f64(),
        model::DIAL.as_millis(),
        IDLE_TIMEOUT_MS / 1000,
        outcomes.first().map_or(0, |outcome| outcome.seeds),
    );
    rows(&mut text, outcomes);
    text
}

pub fn threshold_table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "### The threshold of stealing at {MANY_SHARDS} shards\n\n\
         The same load. The threshold is `steal_threshold`, idle connections of the endpoint over \
         all shards; by default it is {} here.\n\n",
        2 * MANY_SHARDS
    );
    rows(&mut text, outcomes);
    text
}

fn rows(text: &mut String, outcomes: &[Outcome]) {
    text.push_str(
        "| shards | stealing | reuse | least..most of the seeds | stolen | dials per 1000 requests \
         | open connections |\n|---|---|---|---|---|---|---|\n",
    );
    for Outcome { shards, steal, reuse: (mean, least, most), stolen, open, dials, .. } in outcomes {
        let steal = steal.describe(*shards);
        let _ = writeln!(
            text,
            "| {shards} | {steal} | {mean:.2} % | {least:.2}..{most:.2} | {stolen:.1} % | \
             {dials:.1} | {open:.0} |"
        );
    }
    text.push('\n');
}
