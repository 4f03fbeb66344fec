//! Proves what a connection at rest costs: memory, tasks, timers, processor time.
//!
//! `cargo run --release --bin idle -- [--quick] [--out FILE]`
//!
//! Where a process may not have as many descriptors as there are to be connections, several share
//! them, and what they found is added up.

use std::{env, fmt::Write as _};

use corepool_peers::{
    idle::{self, Finding, KEEPERS, Keeper},
    memory::Counting,
    origin::{self, Origin},
    report::{self, Options},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Descriptors that are no connections, and some room.
const SPARE: usize = 500;

/// Sweeps a second of a corepool shard.
const SWEEPS: f64 = 4.0;

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin idle -- \
                       --out benches/results/idle.md";

fn main() -> Result<(), String> {
    origin::serve_if_origin();
    idle::measure_if_client();
    let options = Options::parse(env::args().skip(1))?;
    let counts: &[usize] = if options.quick { &[1_000] } else { &[1_000, 10_000, 50_000] };
    let most = descriptors().saturating_sub(SPARE);

    let mut text = report::head("Idle connections", COMMAND, options.quick);
    let _ = writeln!(
        text,
        "Per connection: bytes and pieces that the allocator was asked for and has not had back,\n\
         growth of the resident set, tasks. Of the whole process at rest: processor time a second.\n\
         A process may have {} descriptors here.\n",
        descriptors()
    );
    text.push_str(
        "| keeper | connections | processes | bytes | pieces | resident | tasks | timers | CPU µs/s |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut swept = Vec::new();
    for &count in counts {
        for keeper in KEEPERS.iter().filter(|keeper| options.wants(keeper.name)) {
            let processes = count.div_ceil(most);
            let found = measure(keeper, count, processes);
            row(&mut text, keeper, processes, &found);
            if keeper.name.starts_with("corepool") {
                swept.push((keeper, count, processes, found));
            }
            eprintln!("{} {count} done", keeper.name);
        }
    }
    text.push_str(
        "\n## corepool's sweep\n\nA shard's processor time at rest, less that of one with 100\n\
         connections (it wakes ten times a second to read the clock), by four sweeps a second.\n\n\
         | keeper | connections | µs a sweep | µs for 10,000 connections |\n|---|---|---|---|\n",
    );
    for (keeper, count, processes, found) in swept {
        let few = measure(keeper, idle::KEYS, 1);
        let processes = processes as f64;
        let sweep = (found.cpu / processes - few.cpu) / SWEEPS / 1000.0;
        let of_each = found.connections / processes - few.connections;
        if of_each > 1.0 {
            let ten_thousand = sweep / of_each * 10_000.0;
            let _ =
                writeln!(text, "| {} | {count} | {sweep:.1} | {ten_thousand:.1} |", keeper.name);
        }
    }
    options.publish(&text)
}

fn row(text: &mut String, keeper: &Keeper, processes: usize, found: &Finding) {
    let of_one = |what: f64| what / found.connections;
    let _ = writeln!(
        text,
        "| {} | {} | {processes} | {:.0} | {:.1} | {:.0} | {:.2} | {} | {:.0} |",
        keeper.name,
        found.connections,
        of_one(found.bytes),
        of_one(found.blocks),
        of_one(found.resident),
        of_one(found.tasks),
        keeper.timers,
        found.cpu / 1000.0,
    );
}

/// Each process with an origin of its own: that one needs as many descriptors.
fn measure(keeper: &Keeper, count: usize, processes: usize) -> Finding {
    let running: Vec<_> = (0..processes)
        .map(|_| {
            let origin = Origin::start();
            (keeper.start(count / processes, origin.port()), origin)
        })
        .collect();
    let found = running.into_iter().map(|(measuring, _origin)| measuring.finding());
    found.fold(Finding::default(), Finding::plus)
}

/// How many this process and those that it starts may have; the soft limit is raised to the hard
/// one by the standard library on no system, so `ulimit -n` may have to be.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    soft.unwrap_or(1024)
}
