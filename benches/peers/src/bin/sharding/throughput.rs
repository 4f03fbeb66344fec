//! Checkouts and returns a second against shards: real threads, real sockets.

use std::{
    fmt::Write,
    hint::black_box,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use corepool::{Group, Pool, RawConnector};
use corepool_peers::report;
use nix::sys::socket::{Backlog, listen};

use crate::steal::Steal;

/// What came of one number of shards and one way to steal: medians.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub shards: usize,
    pub steal: Steal,
    /// Millions of pairs a second, all shards together: the median, the least and the most.
    pub rate: (f64, f64, f64),
    /// Of the checkouts, those of another shard's connection, as a percentage.
    stolen: f64,
    /// Open connections at the end.
    open: f64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    rate: f64,
    stolen: f64,
    open: f64,
}

/// How many pairs go between two looks at the clock's word and two yields: the shard's worker runs
/// on the same thread.
const BETWEEN: u64 = 256;

/// A count on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

pub fn run(shards: &[usize], quick: bool) -> Vec<Outcome> {
    let (repetitions, window) = match quick {
        true => (1, Duration::from_millis(50)),
        false => (7, Duration::from_millis(300)),
    };
    let mut outcomes = Vec::new();
    for shards in shards.iter().copied() {
        let mut samples = Steal::ALL.map(|_| Vec::new());
        // Whatever disturbs the machine for a while disturbs all three.
        for _ in 0..repetitions {
            for (steal, samples) in Steal::ALL.into_iter().zip(&mut samples) {
                samples.push(measure(shards, steal, window));
            }
        }
        let all = Steal::ALL.into_iter().zip(samples);
        outcomes.extend(all.map(|(steal, samples)| Outcome::of(shards, steal, &samples)));
    }
    outcomes
}

fn measure(shards: usize, steal: Steal, window: Duration) -> Sample {
    // It accepts nothing: the kernel answers for as many as the backlog holds, and nobody speaks.
    let origin = TcpListener::bind("127.0.0.1:0").expect("a port");
    listen(&origin, Backlog::MAXALLOWABLE).expect("a longer backlog");
    let to = origin.local_addr().expect("its address");
    let mut builder = Pool::builder(RawConnector).shards(shards).slots_per_shard(1024);
    if let Some(threshold) = steal.threshold() {
        builder = builder.steal_threshold(threshold);
    }
    let pool = builder.max_idle(1024).build().expect("a pool");
    let group = pool.group(to);
    warm(&pool, &group, shards);
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Arc<[Count]> = (0..shards).map(|_| Count::default()).collect();
    let workers: Vec<_> = pool
        .shards()
        .iter()
        .map(|shard| {
            let (group, stop, counts) = (group.clone(), Arc::clone(&stop), Arc::clone(&counts));
            let id = shard.id();
            shard.spawn(async move { pairs(&group, &stop, &counts[id].0).await })
        })
        .collect();
    let sum = || counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum::<u64>();
    // Until each shard has what it will have.
    thread::sleep(window / 3);
    let (began, before, at_first) = (Instant::now(), sum(), group.stats());
    thread::sleep(window);
    let (took, pairs, stats) = (began.elapsed(), sum() - before, group.stats());
    let reused = stats.reused - at_first.reused;
    stop.store(true, Ordering::Relaxed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for worker in workers {
            worker.await.expect("the shard lives");
        }
        drop(group);
        pool.close().await;
    });
    Sample {
        rate: pairs as f64 / took.as_secs_f64() / 1e6,
        stolen: 100.0 * (stats.stolen - at_first.stolen) as f64 / reused.max(1) as f64,
        open: f64::from(stats.idle + stats.in_use),
    }
}

/// As many idle connections as there are shards, all of them on the first: whether the others
/// dial their own or take these is what stealing decides.
fn warm(pool: &Pool<RawConnector>, group: &Group<RawConnector>, count: usize) {
    let group = group.clone();
    let ready = pool.shards()[0].spawn(async move {
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(group.checkout().await.expect("a connection"));
        }
        held.into_iter().for_each(|conn| conn.release());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(ready).expect("the shard lives");
}

async fn pairs(group: &Group<RawConnector>, stop: &AtomicBool, count: &AtomicU64) {
    let mut done = 0;
    // Relaxed: neither guards anything.
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BETWEEN {
            let conn = group.checkout().await.expect("a connection");
            black_box(conn).release();
        }
        done += BETWEEN;
        count.store(done, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

impl Outcome {
    fn of(shards: usize, steal: Steal, samples: &[Sample]) -> Self {
        let all = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<_>>();
        let rates = all(|sample| sample.rate);
        Self {
            shards,
            steal,
            rate: (
                report::median(&rates),
                rates.iter().copied().fold(f64::INFINITY, f64::min),
                rates.iter().copied().fold(0.0, f64::max),
            ),
            stolen: report::median(&all(|sample| sample.stolen)),
            open: report::median(&all(|sample| sample.open)),
        }
    }
}

pub fn table(outcomes: &[Outcome]) -> String {
    let cores = report::cores();
    let mut text = format!(
        "## Throughput against shards (real threads and sockets)\n\n\
         Every shard checks out and returns as fast as it can, one connection at a time, all of \
         them of one endpoint. At the start there are as many idle connections as shards, all on \
         the first shard. **This machine has {cores} cores: more than {cores} shards share them by \
         time slices, unpinned, and say what oversubscription costs, not what cores would bring.** \
         Medians of repetitions that alternate between the ways to steal.\n\n\
         | shards | stealing | million pairs/s | least..most | stolen | open connections |\n\
         |---|---|---|---|---|---|\n"
    );
    for Outcome { shards, steal, rate: (median, least, most), stolen, open } in outcomes {
        let note = if *shards > cores { " (oversubscribed)" } else { "" };
        let steal = steal.describe(*shards);
        let _ = writeln!(
            text,
            "| {shards}{note} | {steal} | {median:.2} | {least:.2}..{most:.2} | {stolen:.1} % | \
             {open:.0} |"
        );
    }
    text.push('\n');
    text
}
