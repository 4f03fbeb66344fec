//! The table of the checkout bench: all candidates by turns within one run, so that the noise of a
//! shared machine falls on all of them alike. Criterion measures one after the other.
//!
//! `cargo run --release --bin checkout_table -- [--quick] [--out FILE]`

use std::{env, fmt::Write as _, time::Duration};

use corepool_peers::{
    case::{Candidate, Case, Shape},
    checkout, floors, origin,
    report::{self, Options, median, quantile},
    shards,
};

/// Shorter than a scheduler's slice, so that many laps of a thread alone run undisturbed.
const LAP: Duration = Duration::from_millis(2);

/// How often and how long each case runs.
struct Plan {
    rounds: usize,
    lap: Duration,
}

/// A case and what it took, in ns a pair.
struct Entry {
    name: &'static str,
    shape: Shape,
    case: Case,
    samples: Vec<f64>,
}

impl Entry {
    fn new(candidate: Candidate, shape: Shape) -> Self {
        let case = (candidate.prepare)(shape);
        Self { name: candidate.name, shape, case, samples: Vec::new() }
    }
}

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin \
                       checkout_table -- --out benches/results/checkout.md";

fn main() -> Result<(), String> {
    origin::serve_if_origin();
    let options = Options::parse(env::args().skip(1))?;
    let plan = match options.quick {
        true => Plan { rounds: 3, lap: LAP },
        false => Plan { rounds: 61, lap: LAP },
    };
    let mut all = checkout::candidates();
    // The first is what the others are set against.
    let first = all[0].name;
    all.retain(|candidate| candidate.name == first || options.wants(candidate.name));
    let tables: Vec<_> = Shape::ALL
        .iter()
        .map(|&shape| {
            let mut entries: Vec<_> = all.iter().map(|&one| Entry::new(one, shape)).collect();
            alternate(&mut entries, &plan);
            entries.into_iter().map(|entry| (entry.name, entry.samples)).collect::<Vec<_>>()
        })
        .collect();

    let mut text = report::head("Checkout and return", COMMAND, options.quick);
    let _ = writeln!(
        text,
        "ns a pair, median of {} laps of {:?} each (first and third quartile); all candidates by\n\
         turns. Wall time of the slowest thread; with 8 threads divided by the threads a core has.\n",
        plan.rounds, plan.lap
    );
    by_shape(&mut text, &tables, |samples, _| {
        let (low, high) = (quantile(samples, 0.25), quantile(samples, 0.75));
        format!("{:.0} ({low:.0}-{high:.0})", median(samples))
    });
    text.push_str("\n## The same as multiples of corepool's median\n\n");
    by_shape(&mut text, &tables, |samples, corepool| {
        format!("{:.2}", median(samples) / median(corepool))
    });
    text.push_str("\n## Shapes by turns: what a second thread and many keys cost\n\n");
    scaling(&mut text, &plan);
    options.publish(&text)
}

type Samples = Vec<(&'static str, Vec<f64>)>;

/// A row for each candidate, a column for each shape.
fn by_shape(text: &mut String, tables: &[Samples], cell: impl Fn(&[f64], &[f64]) -> String) {
    text.push_str("| candidate |");
    for shape in Shape::ALL {
        let _ = write!(text, " {shape} |");
    }
    text.push_str("\n|---|---|---|---|---|---|---|\n");
    for (row, (name, _)) in tables[0].iter().enumerate() {
        let _ = write!(text, "| {name} |");
        for table in tables {
            let _ = write!(text, " {} |", cell(&table[row].1, &table[0].1));
        }
        text.push('\n');
    }
}

/// The candidates that are meant to scale, with their shapes taking turns.
fn scaling(text: &mut String, plan: &Plan) {
    text.push_str(
        "| candidate | 1x1 | 1x1000 | 2x1 | 2x1000 | 1x1000 / 1x1 | 2x1 / 1x1 | 2x1000 / 2x1 |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for &candidate in shards::CANDIDATES.iter().chain(&floors::CANDIDATES) {
        let mut entries: Vec<_> =
            Shape::ALL[..4].iter().map(|&shape| Entry::new(candidate, shape)).collect();
        alternate(&mut entries, plan);
        let of: Vec<f64> = entries.iter().map(|entry| median(&entry.samples)).collect();
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
            candidate.name,
            of[0],
            of[1],
            of[2],
            of[3],
            of[1] / of[0],
            of[2] / of[0],
            of[3] / of[2],
        );
    }
}

/// A lap of each in turn, as often as planned.
fn alternate(entries: &mut [Entry], plan: &Plan) {
    let pairs: Vec<u64> = entries.iter().map(|entry| calibrate(&entry.case, plan.lap)).collect();
    for round in 0..plan.rounds {
        for (entry, &pairs) in entries.iter_mut().zip(&pairs) {
            entry.samples.push(entry.case.run(pairs).as_nanos() as f64 / pairs as f64);
        }
        eprint!("\r{} round {}   ", entries[0].shape, round + 1);
    }
    eprintln!();
}

/// How many pairs fill a lap.
fn calibrate(case: &Case, lap: Duration) -> u64 {
    let mut pairs = 64;
    loop {
        let took = case.run(pairs);
        if took * 4 >= lap {
            return ((pairs as f64 * lap.as_secs_f64() / took.as_secs_f64()) as u64).max(16);
        }
        pairs *= 4;
    }
}
