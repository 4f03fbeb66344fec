//! How soon a pool knows that an idle connection's peer has gone, and how many dead connections it
//! hands out meanwhile.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin deaths -- \
//!     --out benches/results/deaths.md
//! ```
//! Minutes; `--quick` takes seconds, `--only TEXT` takes the pools whose name has the text in it.
//! Prints the table; `--out FILE` writes it too.
//!
//! The origin is this program once more, in a process of its own. It accepts 10,000 connections
//! and closes them over five seconds, in an order and at moments of chance, with
//! `CLOCK_MONOTONIC` noted around each close. Meanwhile 32 callers on two threads check out idle
//! connections, look at each with `recv(MSG_PEEK)`, and give it back: what that look finds closed
//! was handed out dead. Nobody dials, so that no connection comes in after the first. The pool's
//! side notes when each connection is given up: corepool's by its connector, as the shard's worker
//! closes it; Pingora's and hyper's by the drop of the stream.
//!
//! A FIN that comes while a checkout is under way is nobody's fault; that is why each dead one's
//! FIN is dated, and those that were there for a millisecond are counted by themselves.

#![allow(unreachable_pub)] // the modules are this program's own

mod away;
mod book;
mod child;
mod clock;
mod corepool_idle;
mod hyper_idle;
mod load;
mod measure;
mod noted;
mod origin;
mod pingora_idle;
mod run;

use std::{process::ExitCode, time::Duration};

use corepool::{
    Backend, RawConnector, TcpConnector,
    settings::{Order, Peek},
};
use corepool_peers::report::{self, Options};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::{
    corepool_idle::Corepool,
    hyper_idle::Hyper,
    load::Pace,
    pingora_idle::Pingora,
    run::{Candidate, Failure, Size},
};

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin deaths \
                       -- --out benches/results/deaths.md";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["origin", address, count] => {
            let count = count.parse().map_err(Failure::from);
            count.and_then(|count| {
                let _ = descriptors();
                origin::run(address, count)
            })
        }
        _ => Options::parse(args.into_iter())
            .map_err(Failure::from)
            .and_then(|options| bench(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deaths: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Descriptors that this process may have: as many as its hard limit allows.
fn descriptors() -> Result<u64, Failure> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

fn candidates() -> Vec<Box<dyn Candidate>> {
    fn corepool<C>(connector: C, backend: Backend, peek: Peek, order: Order) -> Box<dyn Candidate>
    where
        Corepool<C>: Candidate + 'static,
    {
        Box::new(Corepool { connector, backend, peek, order })
    }
    let (ring, epoll, fifo) = (Backend::IoUring, Backend::Epoll, Order::Fifo);
    vec![
        corepool(RawConnector, ring, Peek::Never, fifo),
        corepool(TcpConnector, ring, Peek::Never, fifo),
        corepool(RawConnector, epoll, Peek::Never, fifo),
        corepool(TcpConnector, epoll, Peek::Never, fifo),
        // Pingora and hyper prefer what came back last.
        corepool(RawConnector, ring, Peek::Never, Order::Lifo),
        corepool(RawConnector, ring, Peek::Always, fifo),
        Box::new(Pingora { reads: false }),
        Box::new(Pingora { reads: true }),
        Box::new(Hyper),
    ]
}

/// What else a process needs descriptors for.
const OTHER_DESCRIPTORS: u64 = 200;

fn bench(options: &Options) -> Result<(), Failure> {
    let room = descriptors()?.saturating_sub(OTHER_DESCRIPTORS) as usize;
    let (wanted, over, repetitions) = match options.quick {
        true => (1_000, Duration::from_millis(500), 1),
        false => (10_000, Duration::from_secs(5), 3),
    };
    let size = Size { count: wanted.min(room), over };
    let mut text = report::head("Deaths at rest", COMMAND, options.quick);
    let candidates: Vec<_> =
        candidates().into_iter().filter(|candidate| options.wants(&candidate.name())).collect();
    let cells: Vec<_> = [Pace::Paced, Pace::Saturated]
        .into_iter()
        .flat_map(|pace| candidates.iter().map(move |candidate| (candidate, pace)))
        .collect();
    let mut runs = vec![Vec::new(); cells.len()];
    let mut nth = 0_u64;
    for _ in 0..repetitions {
        for ((candidate, pace), runs) in cells.iter().zip(&mut runs) {
            nth += 1;
            let host = format!("127.0.{}.{}", 1 + nth / 200, 1 + nth % 200);
            eprintln!("{}, {}", candidate.name(), pace.name());
            let measured = run::run(&***candidate, *pace, size, &host, nth)?;
            for age in measured.old() {
                eprintln!(
                    "  handed out dead: FIN there for {:.0} to {:.0} µs, the thread at work for {:.0} of it",
                    age.least_us, age.most_us, age.ran_us
                );
            }
            let (late, batches) = measured.late();
            if late > 0 {
                eprintln!("  evicted later than 150 ms: {late}, in {batches} batches");
            }
            runs.push(measured);
        }
    }
    text.push_str(&format!(
        "{} idle connections, closed by the origin (another process) at random moments over \
         {:.1} s; {} callers on two threads check out, look and give back; {repetitions} runs of \
         each that alternate. Times and rates are medians over the runs, counts are sums. \
         `paced`: each caller pauses for 1 ms after each checkout. `saturated`: none pauses.\n\n",
        size.count,
        over.as_secs_f64(),
        2 * load::CALLERS,
    ));
    text.push_str(measure::COLUMNS);
    for ((candidate, pace), runs) in cells.iter().zip(&runs) {
        text.push_str(&measure::row(&candidate.name(), pace.name(), runs));
    }
    text.push_str(NOTES);
    Ok(options.publish(&text)?)
}

const NOTES: &str = "
*FIN to eviction* counts from before the origin's call that sends the FIN, and only connections that
the pool gave up by itself, not those that a caller met dead. *Never evicted*: still there a second
after the last close. *Handed out dead*: the origin's call that sends the FIN had begun before the
checkout did; *FIN there for 1 ms*: a millisecond before. *Stolen*: another shard's, whose thread is
the one that watches it. *Own thread at work*: the watch needs the thread that the callers use, and
a thread without a core sees nothing; the stretches without a core are taken off (gaps between the
callers' turns for which `schedstat` says that the thread was ready to run; where nobody pauses, all
gaps).

In FIFO order, the default, corepool hands out what has rested longest, so that a dead connection's
turn always comes; LIFO, Pingora's queue of 16 and hyper's list hand out the same few again, and
nearly all the others die untouched: compare their counts with the LIFO row's. hyper's callers make
whole requests, because its pool has no checkout of its own, and its client may not retry here; a
dead connection is one on which the request failed.
";
