//! A reverse proxy on corepool: thread per core, streaming both ways, HTTP/1.1 for clients, and
//! HTTP/1.1 or HTTP/2 towards origins.
//!
//! ```text
//! cargo run --release --example proxy                        # with an embedded origin
//! cargo run --release --example proxy -- --upstream 127.0.0.1:3000 --upstream unix:/run/app.sock
//! cargo run --release --example proxy -- --upstream https://origin.test --ca ca.pem
//! cargo run --release --example proxy -- --tls-cert proxy.pem --tls-key proxy.key
//! cargo run --release --example proxy -- --demo              # what pooling is worth here
//! cargo run --release --example proxy -- --help              # limits, timeouts, breaker, sockets
//! curl http://127.0.0.1:8080/headers                         # the request as the origin sees it
//! curl http://127.0.0.1:9901/pool                            # and /metrics
//! ```
//!
//! # How it works
//! Each shard of the pool is a thread with a listener of its own (`SO_REUSEPORT`), on which hyper
//! serves clients. A request checks a connection out where it runs, is sent on it, and the guard
//! travels with the response's body: at its end the connection is released. No request leaves its
//! thread unless its shard has no idle connection and another has some to spare.
//!
//! An origin that speaks HTTP/2 has its connections shared by all shards, each request a stream; the
//! guard is then one of the stream. See `upstream.rs` for how it is known which one it is, and for
//! origins behind TLS.
//!
//! # What it does
//! * Header fields that concern one connection are removed, `Via` and `X-Forwarded-*` are added;
//!   see `headers.rs`.
//! * Several origins take turns. One whose circuit breaker is open is passed over as long as
//!   another's is not. A request whose origin cannot be dialled goes to the next one, once: nothing
//!   of it was sent yet, so it may be any request. See `origins.rs`.
//! * An idempotent request without a body, whose *reused* connection dies before a byte of the
//!   response, is sent once more on a fresh one, to the next origin if there is one. So is any
//!   request of which nothing was sent, or that an origin of HTTP/2 says it has not looked at.
//! * Clients speak TLS with it where it is given a certificate; the handshake has to be through as
//!   soon as a request would have to be.
//! * Failures are told apart, 502, 503 and 504; see `failure.rs`.
//! * An origin whose certificate nobody vouches for that is known (`--ca`, or the system's
//!   authorities), or that is not for its name, gets no request: 502, with the reason.
//! * Settings of the pool come from flags, those that have none from a file (`--config`); the
//!   documentation of `corepool::sizing` has one.
//! * An operator has a say at the admin address: `POST /breaker`, `/evict`, `/suspend`, `/resume`;
//!   see `orders.rs`. Whoever reaches that address is taken for one: it is loopback unless told
//!   otherwise.
//! * SIGTERM and SIGINT stop it from accepting; requests in flight have 10 s to finish.
//!
//! # An origin that dies, by hand
//! A second proxy, with its embedded origin, is an origin that can be killed:
//!
//! ```text
//! cargo build --release --example proxy; proxy=target/release/examples/proxy
//! $proxy --listen 127.0.0.1:3000 --admin 127.0.0.1:9902 & origin=$!
//! $proxy --upstream 127.0.0.1:3000 --backoff-base 0.2 --backoff-max 1 &
//! while sleep 0.05; do                                       # in another terminal
//!   curl -so /dev/null -w '%{http_code} %{time_total}\n' http://127.0.0.1:8080/
//! done
//! kill -9 $origin
//! curl -s http://127.0.0.1:9901/pool | grep -o '"breaker":"[a-z_]*"'
//! curl -i http://127.0.0.1:8080/                             # 503, Retry-After: 1
//! $proxy --listen 127.0.0.1:3000 --admin 127.0.0.1:9902 &
//! curl -X POST 'http://127.0.0.1:9901/breaker?endpoint=127.0.0.1:3000&mode=open'
//! ```
//! The loop shows 200, then 502 for each dial that is refused, five in a row, and from there on 503,
//! at once: nothing is dialled. After 0.2 s, 0.32 s and so on, up to 1 s, give or take a
//! fifth, one request is the probe and gets the 502. Once the origin is back the next probe gets its
//! 200, and so does everybody. The log has a line for each change of the breaker, with `from`, `to`
//! and, when it opens, `open_for`. The last command takes the origin out of service, whether it is
//! well or not; `mode=auto` puts it back. With a second `--upstream` no client notices any of this,
//! unless it was waiting for the answer to a POST.
//!
//! # What it does not do
//! * Upgrades: the `Upgrade` field is removed, as RFC 9110 §7.8 allows, and the request goes on
//!   as an ordinary one; a WebSocket client gets the origin's ordinary answer. CONNECT gets 501.
//! * Trailers: the `Trailer` field is removed, and the trailers with it.
//! * HTTP/2 with clients, with or without TLS: they are offered HTTP/1.1 alone.
//! * Certificates of its own towards origins, and clients' certificates.
//! * `--no-reuse` with origins of HTTP/2: their connections are shared all the same.
//! * Judge an origin by its answers: the breaker counts dials. One that accepts connections and
//!   answers 500 to everything keeps its turn.
//! * The PROXY protocol towards the origin; see `tuning.rs`.

mod admin;
mod args;
mod coalescing;
mod counters;
mod demo;
mod download;
mod events;
mod failure;
mod forward;
mod headers;
mod listener;
mod load;
mod metrics;
mod orders;
mod origin;
mod origins;
mod parse;
mod proxy;
mod settings;
mod snapshot;
mod tls;
mod tuning;
mod upload;
mod upstream;
mod visits;

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser as _;
use corepool::Endpoint;
use tokio::{net::TcpListener, runtime};
use tracing_subscriber::filter::LevelFilter;

use crate::{
    admin::Admin,
    args::Args,
    origin::Origin,
    proxy::{Config, Proxy, StartError},
};

fn main() -> ExitCode {
    let args = Args::parse();
    let level = env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .init();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Not by the log: this is for whoever typed the command.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whether all went well.
fn run(args: &Args) -> Result<bool, StartError> {
    // First, so that a mistake in them is told whatever else is in the way.
    let settings = settings::settings(args, args.upstreams.len().max(1))?;
    let config = Config::new(args, settings)?;
    // For signals and the admin pages; requests run on the shards.
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?;
    if args.demo.on {
        return demo::run(args, &config, &runtime);
    }
    // Before the shards listen: a second proxy would silently share their port, as
    // SO_REUSEPORT has it, but fails here.
    let admin_listener = runtime
        .block_on(TcpListener::bind(args.admin))
        .map_err(|error| StartError::Listen(args.admin, error))?;
    let mut upstreams = config.upstreams.clone();
    let mut origin = None;
    if upstreams.is_empty() {
        let origin = origin.insert(Origin::start(1).map_err(StartError::Origin)?);
        upstreams.push(Endpoint::from(origin.address()));
    }
    let config = Config { upstreams, ..config };
    let proxy = Proxy::start(&config)?;
    let admin = Admin {
        pool: proxy.pool().clone(),
        groups: proxy.groups().to_vec(),
        limits: config.settings.clone(),
        events: Arc::clone(proxy.events()),
        shards: proxy.counters().to_vec(),
    };
    let admin_address =
        admin_listener.local_addr().map_err(|error| StartError::Listen(args.admin, error))?;

    runtime.block_on(async {
        let mut signals = Signals::new().map_err(StartError::Runtime)?;
        tokio::spawn(admin.serve(admin_listener));
        // Whoever closed our output does not want to read it.
        let _ = greet(&proxy, &config, origin.is_some(), admin_address);
        let signal = signals.next().await;
        tracing::info!(signal, "draining; a second signal ends it at once");
        tokio::select! {
            () = proxy.drain() => tracing::info!("drained"),
            signal = signals.next() => tracing::warn!(signal, "ended before it was drained"),
        }
        Ok(true)
    })
}

fn greet(
    proxy: &Proxy,
    config: &Config,
    embedded: bool,
    admin: core::net::SocketAddr,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let backend = proxy.pool().backend();
    let scheme = if config.shown.is_some() { "https" } else { "http" };
    writeln!(out, "proxy     {scheme}://{}/", proxy.address())?;
    writeln!(out, "admin     http://{admin}/pool and /metrics")?;
    for upstream in &config.upstreams {
        writeln!(out, "upstream  {upstream}{}", if embedded { " (embedded)" } else { "" })?;
    }
    writeln!(out, "backend   {}: {}", backend.selected, backend.reason)?;
    writeln!(out, "shards    {}", proxy.pool().shards().len())?;
    out.flush()
}

/// The signals that end the proxy.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) -> &'static str {
        // Where there is no signal to wait for, the process is ended from outside.
        if tokio::signal::ctrl_c().await.is_err() {
            core::future::pending::<()>().await;
        }
        "ctrl-c"
    }
}
