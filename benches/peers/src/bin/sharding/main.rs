//! What sharding costs and brings: reuse and throughput against shards and ways to steal, FIFO
//! against LIFO, the cost of a checkout against threads.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin sharding -- \
//!     --out benches/results/sharding.md
//! ```
//! Minutes; `--quick` takes seconds. Prints the tables; `--out FILE` writes them, and the figures
//! beside it as an SVG.
//!
//! # The workloads
//! *Reuse*, simulated: requests arrive as a Poisson process; each comes to a shard and wants an
//! endpoint, both drawn evenly; each has its connection for a fixed time. By Little's law the rate
//! times that time is how many are under way on average. More shards leave each lane fewer
//! requests: a connection rests longer until its shard wants its endpoint again, times out, and
//! is dialled anew. Time goes in steps of a millisecond, tokio's own.
//!
//! *Order*, simulated: one lane with a base load and a burst every two minutes.
//!
//! *Throughput* and *contention*: threads and sockets, without any use of the connection between
//! the checkout and the return, so that nothing hides what the pool costs.
//!
//! The simulated parts take all chance from seeds: two runs print the same.

#![allow(unreachable_pub)] // the modules are this program's own

mod contention;
mod model;
mod order;
mod plot;
mod reuse;
mod steal;
mod throughput;

use std::{process::ExitCode, time::Instant};

use corepool_peers::report::{self, Options};

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin sharding \
                       -- --out benches/results/sharding.md";

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sharding: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let shards: &[usize] = if options.quick { &[1, 4, 64] } else { &[1, 2, 4, 8, 16, 32, 64] };
    let head = report::head("Sharding, stealing, order, contention", COMMAND, options.quick);
    let began = Instant::now();
    let stage = |what: &str| eprintln!("{:>6.1} s: {what}", began.elapsed().as_secs_f64());
    stage("reuse");
    let reuse = reuse::run(shards, options.quick);
    stage("thresholds");
    let thresholds = reuse::thresholds(options.quick);
    stage("order");
    let order = order::run(options.quick);
    stage("throughput");
    let throughput = throughput::run(shards, options.quick);
    stage("contention");
    let contention = contention::run(options.quick);
    stage("done");
    let figure = options.out.as_ref().map(|out| out.with_extension("svg"));
    let shown =
        figure.as_ref().and_then(|figure| figure.file_name()).map_or_else(String::new, |name| {
            format!("![The figures below as curves]({})\n\n", name.display())
        });
    let tables = [
        reuse::table(&reuse),
        reuse::threshold_table(&thresholds),
        throughput::table(&throughput),
        order::table(&order),
        contention::table(&contention),
    ];
    options.publish(&format!("{head}{shown}{}", tables.concat()))?;
    if let Some(figure) = figure {
        let subtitle = report::subtitle();
        let figures = plot::Figures {
            reuse: &reuse,
            throughput: &throughput,
            order: &order,
            contention: &contention,
            subtitle: &subtitle,
        };
        let svg = plot::draw(&figures).map_err(|error| format!("the figures: {error}"))?;
        report::write(&figure, &svg)?;
    }
    Ok(())
}
