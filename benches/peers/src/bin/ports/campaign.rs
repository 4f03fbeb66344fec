//! Fills a range of ports step by step and times connects at each.

use core::time::Duration;
use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use corepool::Backend;
use corepool_peers::report::{self, Options};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    candidates::{Candidate, Plain, Pooled},
    host,
};

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin ports -- \
                       --out benches/results/ports.md";

/// The range, and the shares of it that are taken.
const FIRST_PORT: u16 = 40_000;
const PORTS: u16 = 2_000;
const SHARES: [u32; 4] = [0, 60, 90, 97];
/// The window of corepool's default.
const WINDOW: u16 = 128;
/// Connects in a turn of a candidate; turns alternate.
const TURN: usize = 20;

/// # Errors
/// Without the privilege to make a network, and when no connection can be had.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let turns = if options.quick { 5 } else { 100 };
    let mut text = report::head("Connects while local ports run short", COMMAND, options.quick);
    host::own_network()?;
    let range = format!("{FIRST_PORT} {}", FIRST_PORT + PORTS - 1);
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", range)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // Outside the range, so that it takes no port of it.
    let to = serve()?;
    writeln!(
        text,
        "{PORTS} ports, one destination; {} connects of each candidate at each share, in \
         alternating turns of {TURN}",
        turns * TURN
    )?;
    let mut held = Vec::new();
    for share in SHARES {
        while (held.len() as u32) < u32::from(PORTS) * share / 100 {
            held.push(TcpStream::connect(to)?);
        }
        measure(to, share, turns, &mut text)?;
    }
    Ok(options.publish(&text)?)
}

/// A listener whose connections live until their client has gone.
fn serve() -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            // Those of the range that is held stay; the others have reset theirs.
            let _ = stream.set_nonblocking(true);
            open.push(stream);
            if open.len() > 2 * usize::from(PORTS) {
                open.retain_mut(is_open);
            }
        }
    });
    Ok(address)
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn measure(
    to: SocketAddr,
    share: u32,
    turns: usize,
    text: &mut String,
) -> Result<(), Box<dyn Error>> {
    eprintln!("{share} % of the ports are taken");
    let pools = [
        Pooled::new(to, Backend::IoUring, None),
        Pooled::new(to, Backend::IoUring, Some(WINDOW)),
        Pooled::new(to, Backend::Epoll, None),
        Pooled::new(to, Backend::Epoll, Some(WINDOW)),
    ];
    let plain = Plain(to);
    let mut candidates: Vec<(&dyn Candidate, Vec<Duration>)> = vec![(&plain, Vec::new())];
    candidates.extend(pools.iter().map(|pool| (pool as &dyn Candidate, Vec::new())));
    for _ in 0..turns {
        for (candidate, took) in &mut candidates {
            took.extend(candidate.connect(TURN));
        }
    }
    writeln!(text, "\n## {share} % taken: µs per connect\n")?;
    writeln!(text, "| candidate | median | p90 | p99 |\n|---|---|---|---|")?;
    for (candidate, took) in &mut candidates {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_nanos() as f64 / 1e3;
        let (p50, p90, p99) = (at(50), at(90), at(99));
        writeln!(text, "| {} | {p50:.1} | {p90:.1} | {p99:.1} |", candidate.name())?;
    }
    let connects = turns * TURN;
    let conflicts = [&pools[1], &pools[3]].map(|pool| pool.conflicts());
    writeln!(
        text,
        "\nWindows without a free port, in {connects} connects: {} on io_uring, {} on epoll.",
        conflicts[0], conflicts[1]
    )?;
    Ok(())
}
