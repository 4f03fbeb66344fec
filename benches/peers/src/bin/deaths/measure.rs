//! What the two records come to, laid side by side.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
};

use corepool_peers::report::{median, quantile};

use crate::{book::Book, child::Fin, load::Pace};

/// One run of one candidate.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From the FIN to the eviction, in microseconds, of the connections that the pool evicted by
    /// itself.
    latencies: Vec<f64>,
    closed: usize,
    /// Connections that the pool still had when the wait was over.
    kept: usize,
    dead: Vec<Age>,
    /// The moments of evictions that came so late that they want an explanation, in microseconds.
    late: Vec<f64>,
    checkouts_per_second: f64,
}

/// How old the FIN of a connection was that was handed out dead, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    /// From before the origin's call until the checkout began: as old as it can be.
    pub most_us: f64,
    /// From the return of that call: as old as it is at least.
    pub least_us: f64,
    /// For how much of the longer time its thread ran, or slept without need: when the pool could
    /// have known.
    pub ran_us: f64,
    /// Whether another thread watched over it, of which that cannot be said.
    pub stolen: bool,
}

impl Measured {
    pub fn of(
        book: &Book,
        fins: &HashMap<u16, Fin>,
        pace: Pace,
        end: u64,
        checkouts_per_second: f64,
    ) -> Self {
        let dead = book.dead();
        let met: HashSet<u16> = dead.iter().map(|dead| dead.port).collect();
        let mut gone = HashSet::new();
        let (mut latencies, mut late) = (Vec::new(), Vec::new());
        let apart = |late: u64, early: u64| (late as f64 - early as f64) / 1e3;
        for (port, at) in book.evicted() {
            let Some(fin) = fins.get(&port) else { continue };
            // A port may serve again, where the client dials anew.
            let its = at >= fin.before && at <= end;
            if its && gone.insert(port) && !met.contains(&port) {
                let took = apart(at, fin.before);
                latencies.push(took);
                if took >= VERY_LATE_US {
                    late.push(apart(at, 0));
                }
            }
        }
        let ages = dead.iter().filter_map(|dead| {
            let Fin { before, after } = *fins.get(&dead.port)?;
            let (most_us, least_us) = (apart(dead.called, before), apart(dead.called, after));
            let away = dead.gaps.iter().map(|gap| match pace {
                // Nobody sleeps: it was put off its core.
                Pace::Saturated => gap.within(before, dead.called),
                Pace::Paced => gap.within(before, dead.called).min(gap.starved),
            });
            let ran_us = most_us - away.sum::<u64>() as f64 / 1e3;
            // Otherwise the FIN came while the checkout, or the request, was under way.
            (most_us >= 0.0).then_some(Age { most_us, least_us, ran_us, stolen: dead.stolen })
        });
        Self {
            latencies,
            closed: fins.len(),
            kept: fins.keys().filter(|port| !gone.contains(port)).count(),
            dead: ages.collect(),
            late,
            checkouts_per_second,
        }
    }

    /// How many evictions came very late, and in how many batches: those of a thread that had no
    /// core come together as it runs again, and an event that was lost would come alone.
    pub fn late(&self) -> (usize, usize) {
        let mut moments = self.late.clone();
        moments.sort_by(f64::total_cmp);
        let breaks = moments.windows(2).filter(|pair| pair[1] - pair[0] > BATCH_US).count();
        (moments.len(), if moments.is_empty() { 0 } else { breaks + 1 })
    }

    /// Dead connections whose FIN may have been there a millisecond before their checkout began.
    pub fn old(&self) -> impl Iterator<Item = &Age> {
        self.dead.iter().filter(|age| age.most_us >= LATE_US)
    }
}

/// From when on an eviction wants an explanation: what a driver has missed, the worker's look at its
/// clock would find after 100 ms.
const VERY_LATE_US: f64 = 150_000.0;
/// Evictions less apart than this, in microseconds, are one batch: a thread has come back.
const BATCH_US: f64 = 50_000.0;
/// From when on a FIN should be known, in microseconds.
const LATE_US: f64 = 1000.0;

/// The heads of [`row`]'s columns.
pub const COLUMNS: &str = "| pool | load | checkouts/s | FIN to eviction, median | p99 | longest \
                           | never evicted | handed out dead | FIN there for 1 ms | of these \
                           stolen | of these, own thread at work for 1 ms | oldest FIN |\n\
                           |---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// A row of the table: medians over the runs of what is a time or a rate, sums of what is a count.
pub fn row(name: &str, load: &str, runs: &[Measured]) -> String {
    let over = |of: &dyn Fn(&Measured) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
    let at = |share: f64| over(&|run| quantile(&run.latencies, share));
    let longest = runs.iter().flat_map(|run| &run.latencies).copied().fold(0.0, f64::max);
    let dead: usize = runs.iter().map(|run| run.dead.len()).sum();
    let oldest = runs.iter().flat_map(|run| &run.dead).map(|age| age.most_us);
    let old = |which: &dyn Fn(&Age) -> bool| {
        runs.iter().flat_map(Measured::old).filter(|age| which(age)).count()
    };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "| {name} | {load} | {:.0} | {} | {} | {} | {} of {} | {dead} | {} | {} | {} | {} |",
        over(&|run| run.checkouts_per_second),
        time(at(0.5)),
        time(at(0.99)),
        time(longest),
        runs.iter().map(|run| run.kept).sum::<usize>(),
        runs.iter().map(|run| run.closed).sum::<usize>(),
        old(&|_| true),
        old(&|age| age.stolen),
        old(&|age| !age.stolen && age.ran_us >= LATE_US),
        if dead == 0 { "-".to_owned() } else { time(oldest.fold(f64::NEG_INFINITY, f64::max)) },
    );
    text
}

fn time(us: f64) -> String {
    match us.abs() {
        ..1000.0 => format!("{us:.0} µs"),
        ..1_000_000.0 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}
