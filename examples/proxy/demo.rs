//! `--demo`: what pooling is worth on this machine, in a few seconds.
//!
//! The load, the proxy and the origin share this machine's cores, so the figures compare the two
//! ways with each other; they are no measure of what the proxy can do.

use core::net::{Ipv4Addr, SocketAddr};
use std::{
    io::{self, Write as _},
    thread,
};

use corepool::Endpoint;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    args::Args,
    load::{Load, Report},
    origin::Origin,
    proxy::{Config, Proxy, StartError},
};

/// One half of the demo.
struct Half {
    report: Report,
    opened: u64,
    reused: u64,
    backend: String,
    reason: String,
}

/// Measures and prints. Without an error every request was answered.
pub(crate) fn run(args: &Args, config: &Config, runtime: &Runtime) -> Result<bool, StartError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let helpers = (cores / 4).clamp(1, 8);
    let pooled = Half::run(args, config, runtime, helpers, true)?;
    let unpooled = Half::run(args, config, runtime, helpers, false)?;
    let mut out = io::stdout().lock();
    // Whoever closed our output does not want to read it.
    let _ = print_table(&mut out, args, &pooled, &unpooled);
    if args.demo.json {
        let line = json!({
            "backend": pooled.backend,
            "pooled": pooled.to_json(),
            "unpooled": unpooled.to_json(),
        });
        let _ = writeln!(out, "{line}");
    }
    Ok(pooled.report.errors + unpooled.report.errors == 0)
}

impl Half {
    fn run(
        args: &Args,
        config: &Config,
        runtime: &Runtime,
        helpers: usize,
        reuse: bool,
    ) -> Result<Self, StartError> {
        // Both halves start from nothing: ports in use before and sockets left behind by the
        // first must not bear on the second.
        let origin = Origin::start(helpers).map_err(StartError::Origin)?;
        let config = Config {
            upstreams: vec![Endpoint::from(origin.address())],
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            reuse,
            ..config.clone()
        };
        let proxy = Proxy::start(&config)?;
        let load = Load {
            target: proxy.address(),
            clients: CLIENTS,
            threads: helpers,
            duration: args.demo.seconds,
            requests_most: if reuse { u64::MAX } else { CONNECTIONS_MOST },
        };
        let report = load.run().map_err(StartError::Runtime)?;
        let stats = proxy.pool().stats();
        runtime.block_on(proxy.drain());
        Ok(Self {
            report,
            opened: stats.endpoints.iter().map(|group| group.opened).sum(),
            reused: stats.endpoints.iter().map(|group| group.reused).sum(),
            backend: stats.backend.selected.to_string(),
            reason: stats.backend.reason,
        })
    }

    fn latency(&self, quantile: f64) -> u64 {
        self.report.latency_us.value_at_quantile(quantile)
    }

    /// Of 100 checkouts, how many got a connection that was there already.
    fn reuse_percent(&self) -> f64 {
        100.0 * self.reused as f64 / (self.reused + self.opened).max(1) as f64
    }

    fn to_json(&self) -> Value {
        json!({
            "requests": self.report.requests,
            "errors": self.report.errors,
            "requests_per_second": self.report.requests_per_second().round(),
            "p50_us": self.latency(0.50),
            "p99_us": self.latency(0.99),
            "connections_opened": self.opened,
        })
    }
}

fn print_table(
    out: &mut impl io::Write,
    args: &Args,
    pooled: &Half,
    unpooled: &Half,
) -> io::Result<()> {
    let row = |out: &mut dyn io::Write, name: &str, cell: &dyn Fn(&Half) -> String| {
        writeln!(out, "  {name:<22}{:>14}{:>14}", cell(pooled), cell(unpooled))
    };
    let seconds = args.demo.seconds.as_secs_f64();
    writeln!(out, "{CLIENTS} clients > proxy > origin, over loopback, {seconds} s each way\n")?;
    writeln!(out, "  {:<22}{:>14}{:>14}", "", "pooled", "not pooled")?;
    row(out, "requests/s", &|half| format!("{:.0}", half.report.requests_per_second()))?;
    row(out, "latency p50", &|half| time(half.latency(0.50)))?;
    row(out, "latency p99", &|half| time(half.latency(0.99)))?;
    row(out, "requests", &|half| half.report.requests.to_string())?;
    row(out, "errors", &|half| half.report.errors.to_string())?;
    row(out, "connections opened", &|half| half.opened.to_string())?;
    row(out, "reuse ratio", &|half| format!("{:.2} %", half.reuse_percent()))?;
    row(out, "backend", &|half| half.backend.clone())?;
    writeln!(out, "\n  backend: {}", pooled.reason)?;
    if unpooled.report.requests >= CONNECTIONS_MOST {
        writeln!(out, "  not pooled: stopped early, at {CONNECTIONS_MOST} connections")?;
    }
    for half in [pooled, unpooled] {
        if let Some(error) = &half.report.first_error {
            writeln!(out, "  first error: {error}")?;
        }
    }
    Ok(())
}

fn time(us: u64) -> String {
    if us < 10_000 { format!("{us} us") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}

const CLIENTS: usize = 64;

/// Every connection of the half without the pool leaves a port behind that stays taken for a
/// minute, and there are some 28 000.
const CONNECTIONS_MOST: u64 = 10_000;
