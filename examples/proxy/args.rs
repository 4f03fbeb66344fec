//! The command line, parsed into checked values: what comes out of here can be used as it is.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use corepool::{Backend, Endpoint};

/// An HTTP/1.1 reverse proxy on the corepool connection pool: one thread per core, each with its
/// own listener and its own part of the pool.
#[derive(Clone, Debug, Parser)]
#[command(name = "proxy", allow_negative_numbers = true)]
pub(crate) struct Args {
    /// Where clients connect to. Every shard has its own SO_REUSEPORT listener there.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// An origin; give it more than once to go round them. Without one an embedded origin starts.
    #[arg(long = "upstream", value_name = "HOST:PORT")]
    pub(crate) upstreams: Vec<Endpoint>,

    /// Where /metrics and /pool are served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    pub(crate) admin: SocketAddr,

    /// What the pool dials, watches and closes with: auto, io-uring or epoll.
    #[arg(long, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,

    /// Shards, each a thread; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, 256))]
    pub(crate) shards: Option<usize>,

    /// Connections to one origin, at most.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, 1_000_000))]
    pub(crate) max_live: Option<u32>,

    /// Of these, at rest, at most.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, 1_000_000))]
    pub(crate) max_idle: Option<u32>,

    /// Requests that may wait for a connection to one origin; the next one gets a 503.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, 1_000_000))]
    pub(crate) max_waiters: Option<u32>,

    /// A connection at rest for longer is closed.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) idle_timeout: Option<Duration>,

    /// A dial that takes longer fails; the request gets a 504.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) connect_timeout: Option<Duration>,

    /// A request that waits longer for a connection to come free gets a 504.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) acquire_timeout: Option<Duration>,

    /// An origin that has not begun to answer so long after the request gets the client a 504.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) response_timeout: Duration,

    /// How long requests in flight may take to finish after SIGTERM or SIGINT.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) drain_timeout: Duration,

    /// A connection per request, for comparison.
    #[arg(long)]
    pub(crate) no_reuse: bool,

    /// Measure: an embedded origin, bounded load over loopback, once pooled, once not.
    #[arg(long, conflicts_with_all = ["upstreams", "no_reuse"])]
    pub(crate) demo: bool,

    /// How long each half of the demo runs.
    #[arg(long, value_name = "SECONDS", default_value = "3", requires = "demo")]
    #[arg(value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// End the demo with its figures as one line of JSON.
    #[arg(long, requires = "demo")]
    pub(crate) json: bool,
}

/// A whole number within bounds; the error says which.
fn whole<T>(least: u32, most: u32) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u32>,
{
    move |text| {
        let number = text.parse::<u32>().ok().filter(|n| (least..=most).contains(n));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
    }
}

/// Seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        // Also refuses NaN, which is in no range.
        .filter(|seconds| (SECONDS_LEAST..=SECONDS_MOST).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("expected seconds from {SECONDS_LEAST} to {SECONDS_MOST}"))
}

/// The pool's clock ticks in milliseconds.
const SECONDS_LEAST: f64 = 0.001;

/// A day.
const SECONDS_MOST: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let args = parse("proxy").unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(args.admin.to_string(), "127.0.0.1:9901");
        assert_eq!(args.backend, Backend::Auto);
        assert!(args.upstreams.is_empty() && !args.no_reuse && !args.demo);
    }

    #[test]
    fn absurd_values_are_named_in_the_error() {
        for (line, flag) in [
            ("proxy --shards 0", "--shards"),
            ("proxy --max-live 0", "--max-live"),
            ("proxy --max-idle -1", "--max-idle"),
            ("proxy --idle-timeout 0", "--idle-timeout"),
            ("proxy --connect-timeout NaN", "--connect-timeout"),
            ("proxy --connect-timeout 1e99", "--connect-timeout"),
            ("proxy --upstream http://a:1", "--upstream"),
            ("proxy --backend uring", "--backend"),
            ("proxy --json", "--demo"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(flag), "{line}: {error}");
        }
    }

    #[test]
    fn seconds_may_be_fractions() {
        let args = parse("proxy --idle-timeout 0.25 --connect-timeout 2").unwrap();
        assert_eq!(args.idle_timeout, Some(Duration::from_millis(250)));
        assert_eq!(args.connect_timeout, Some(Duration::from_secs(2)));
    }
}
