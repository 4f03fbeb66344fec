//! The command line, parsed into checked values: what comes out of here can be used as it is.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use corepool::Endpoint;

use crate::{
    parse::{choice, seconds},
    tuning::Tuning,
    upstream::upstream,
};

/// An HTTP/1.1 reverse proxy on the corepool connection pool: one thread per core, each with its
/// own listener and its own part of the pool.
#[derive(Clone, Debug, Parser)]
#[command(name = "proxy", allow_negative_numbers = true, next_help_heading = "Proxy")]
pub(crate) struct Args {
    /// Where clients connect to. Every shard has its own SO_REUSEPORT listener there.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// An origin: HOST:PORT, unix:/PATH, http://HOST[:PORT], https://HOST[:PORT] for TLS with HTTP/2 or
    /// HTTP/1.1, as it chooses (ALPN), or h2c://HOST:PORT for one that is known to speak HTTP/2
    /// without TLS. HOST may be a name, 1.2.3.4 or [::1]. Give it more than once to go round them.
    /// Without one an embedded origin starts.
    #[arg(long = "upstream", value_name = "ORIGIN", value_parser = upstream)]
    pub(crate) upstreams: Vec<Endpoint>,

    /// Who may vouch for https origins: a file of certificates (PEM). Default: the system's
    /// authorities.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Has clients speak TLS: a file (PEM) of the proxy's certificate and of those between it and the
    /// authority. HTTP/1.1 is all that clients are offered (ALPN http/1.1). Default: no TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The key to that certificate (PEM). Default: no TLS.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Where /pool and /metrics are served, and orders taken: keep it from strangers.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    pub(crate) admin: SocketAddr,

    /// Settings of the pool, in TOML (corepool::Settings). Flags win over what it says for all
    /// origins; what it says for a single one stays.
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub(crate) config: Option<PathBuf>,

    /// Settings to start from: lan, for origins in the same network, or wan, for origins across the
    /// internet.
    #[arg(long, value_name = "NET", hide_possible_values = true, value_parser = choice(PRESETS))]
    pub(crate) preset: Option<Preset>,

    /// An origin that has not begun to answer so long after the request gets the client a 504.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) response_timeout: Duration,

    /// A client that has not sent the whole head of a request so long after it came (with TLS, its
    /// handshake included), or after the
    /// end of its last response, is cut off, a quarter of that time sooner or later.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) client_timeout: Duration,

    /// How long requests in flight may take to finish after SIGTERM or SIGINT.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) drain_timeout: Duration,

    /// A connection per request, for comparison.
    #[arg(long)]
    pub(crate) no_reuse: bool,

    #[command(flatten)]
    pub(crate) tuning: Tuning,

    #[command(flatten)]
    pub(crate) demo: Demo,
}

/// Measuring instead of serving.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Demo")]
pub(crate) struct Demo {
    /// Measure: an embedded origin, bounded load over loopback, once pooled, once not.
    #[arg(long = "demo", conflicts_with_all = ["upstreams", "no_reuse", "tls_cert"])]
    pub(crate) on: bool,

    /// How long each half of the demo runs.
    #[arg(long, value_name = "SECONDS", default_value = "3", requires = "on")]
    #[arg(value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// End the demo with its figures as one line of JSON.
    #[arg(long, requires = "on")]
    pub(crate) json: bool,
}

/// What settings to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    Lan,
    Wan,
}

const PRESETS: &[(&str, Preset)] = &[("lan", Preset::Lan), ("wan", Preset::Wan)];

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let args = parse("proxy").unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(args.admin.to_string(), "127.0.0.1:9901");
        assert!(args.upstreams.is_empty() && !args.no_reuse && !args.demo.on);
    }

    #[test]
    fn absurd_values_are_named_in_the_error() {
        for (line, flag, allowed) in [
            ("proxy --shards 0", "--shards", "from 1 to 256"),
            ("proxy --max-live 0", "--max-live", "from 1 to 1000000"),
            ("proxy --max-idle -1", "--max-idle", "from 0 to 1000000"),
            ("proxy --idle-timeout 0", "--idle-timeout", "from 0.001 to 86400"),
            ("proxy --connect-timeout NaN", "--connect-timeout", "from 0.001 to 86400"),
            ("proxy --connect-timeout 1e99", "--connect-timeout", "from 0.001 to 86400"),
            ("proxy --max-lifetime never", "--max-lifetime", "from 0.001 to 86400, or off"),
            ("proxy --max-dialing 0", "--max-dialing", "from 1 to 1000000, or off"),
            ("proxy --breaker-failures 33", "--breaker-failures", "from 0 to 32"),
            ("proxy --half-open-probes 256", "--half-open-probes", "from 1 to 255"),
            ("proxy --port-window 65536", "--port-window", "from 1 to 65535, or off"),
            ("proxy --keepalive 32768", "--keepalive", "from 1 to 32767, or off"),
            ("proxy --at-limit queue", "--at-limit", "wait, reject, overflow"),
            ("proxy --at-open fail", "--at-open", "fail-fast, direct"),
            ("proxy --order random", "--order", "fifo, lifo"),
            ("proxy --breaker maybe", "--breaker", "on, off"),
            ("proxy --preset man", "--preset", "lan, wan"),
            ("proxy --preset lan --config x", "--preset", "--config"),
            ("proxy --source here", "--source", "IP"),
            ("proxy --upstream ftp://a:1", "--upstream", "host:port"),
            ("proxy --upstream http://a/path", "--upstream", "http://host[:port]"),
            ("proxy --upstream h2c://a", "--upstream", "h2c://host:port"),
            ("proxy --upstream https://", "--upstream", "https://host[:port]"),
            ("proxy --upstream unix:app.sock", "--upstream", "unix:/path"),
            ("proxy --backend uring", "--backend", "auto"),
            ("proxy --json", "--demo", "required"),
            ("proxy --tls-cert a.pem", "--tls-key", "required"),
            ("proxy --tls-key a.pem", "--tls-cert", "required"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(flag) && error.contains(allowed), "{line}: {error}");
        }
    }

    #[test]
    fn a_unix_socket_is_an_origin() {
        let args = parse("proxy --upstream unix:/run/app.sock").unwrap();
        assert_eq!(args.upstreams, [Endpoint::unix("/run/app.sock")]);
    }

    #[test]
    fn every_flag_of_a_time_or_a_number_says_its_unit_and_default() {
        let command = Args::command();
        let values = |flag: &&clap::Arg| flag.get_action().takes_values();
        for flag in command.get_arguments().filter(values) {
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let name = flag.get_long().unwrap_or_default();
            let unit = flag.get_value_names().unwrap_or_default();
            assert!(!unit.is_empty() || name == "backend", "{name}");
            let known = help.contains("Default: ") || !flag.get_default_values().is_empty();
            let none = ["upstream", "config", "preset"];
            assert!(known || none.contains(&name), "{name}: {help}");
        }
    }
}
