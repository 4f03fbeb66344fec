//! Makes the tables out of what `./run` has measured, from standard input.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
};

use corepool_proxies::{
    samples::{Call, Cell, Sample, Samples},
    spread::Spread,
};

fn main() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let all = Samples::read(text.lines()).map_err(io::Error::other)?;
    let mut cells: Vec<&Cell> = Vec::new();
    for sample in &all.samples {
        if !cells.contains(&&sample.cell) {
            cells.push(&sample.cell);
        }
    }
    println!("\n{}", quietness(&all.samples));
    for cell in cells {
        print_cell(cell, &all);
    }
    print_calls(&all.calls);
    Ok(())
}

/// How much else went on: a proxy that waits for its core shares it.
fn quietness(samples: &[Sample]) -> String {
    match Spread::of(samples.iter().map(|sample| 100.0 * sample.waited)) {
        Some(waited) => format!(
            "Others on the machine: the proxy waited for its core for {:.1} % of a run (median), \
             {:.1} % at most.",
            waited.median, waited.most
        ),
        None => String::new(),
    }
}

fn print_cell(cell: &Cell, all: &Samples) {
    let here: Vec<_> = all.samples.iter().filter(|sample| sample.cell == *cell).collect();
    let names = in_order(here.iter().map(|sample| &sample.name));
    let first = names[0];
    println!("\n## {}, {} clients\n", title(&cell.mode), cell.clients);
    println!(
        "| proxy | CPU µs per request | user + sys | against {first} | syscalls per request | \
         requests/s | p50 µs | p99 µs | p99.9 µs | errors |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let base: Vec<_> = here.iter().filter(|sample| sample.name == *first).collect();
    for name in names {
        let own: Vec<_> = here.iter().filter(|sample| sample.name == *name).collect();
        let of =
            |figure: &dyn Fn(&Sample) -> f64| Spread::of(own.iter().map(|sample| figure(sample)));
        let (Some(cpu), Some(system), Some(rate)) =
            (of(&|s| s.cpu_us), of(&|s| s.system), of(&|s| s.rate))
        else {
            continue;
        };
        // Within a round: what slowed the machine down slowed both down.
        let ratio = Spread::of(own.iter().filter_map(|sample| {
            let base = base.iter().find(|base| base.rep == sample.rep)?;
            Some(sample.cpu_us / base.cpu_us)
        }));
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median));
        let calls = all.syscalls.iter().find(|calls| calls.name == *name && calls.cell == *cell);
        let calls = calls.map_or_else(String::new, |calls| format!("{:.2}", calls.each));
        let [p50, p99, p999] = [0, 1, 2].map(|nth| {
            of(&|s| s.latency_us[nth]).map_or_else(String::new, |us| format!("{us:.0}"))
        });
        let errors: u64 = own.iter().map(|sample| sample.errors).sum();
        let in_system = cpu.median * system.median;
        println!(
            "| {name} | {cpu:.2} | {:.1} + {in_system:.1} | {ratio} | {calls} | {rate:.0} | {p50} | \
             {p99} | {p999} | {errors} |",
            cpu.median - in_system
        );
    }
}

/// What the system calls are, most of them first; those that hardly happen are left out.
fn print_calls(calls: &[Call]) {
    println!("\n## System calls per request, by strace, 64 clients\n");
    println!(
        "A traced proxy is slow, so that each wake-up finds more to do: fewer waits than above."
    );
    for mode in in_order(calls.iter().map(|call| &call.mode)) {
        println!("\n| {} | calls |\n|---|---|", title(mode));
        let here: Vec<_> = calls.iter().filter(|call| call.mode == *mode).collect();
        for name in in_order(here.iter().map(|call| &call.name)) {
            let mut own: Vec<_> =
                here.iter().filter(|call| call.name == *name && call.each >= 0.01).collect();
            own.sort_by(|a, b| b.each.total_cmp(&a.each));
            let own: Vec<_> =
                own.iter().map(|call| format!("{} {:.2}", call.call, call.each)).collect();
            println!("| {name} | {} |", own.join(", "));
        }
    }
}

fn title(mode: &str) -> &'static str {
    if mode == "keep-alive" { "Keep-alive to the origin" } else { "A connection per request" }
}

/// Each once, sorted as `./run` names them: ours first, the rest by the alphabet.
fn in_order<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let rank = |name: &&String| match name.as_str() {
        "corepool-io_uring" | "keep-alive" => 0,
        name if name.starts_with("corepool") => 1,
        _ => 2,
    };
    let mut sorted: Vec<_> = names.collect::<BTreeSet<_>>().into_iter().collect();
    sorted.sort_by_key(rank);
    sorted
}
