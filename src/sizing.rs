//! How large, how long, how many: rules of thumb and where they go wrong. Documentation only.
//!
//! The rules are those that articles on connection pools repeat: on [tunnelto's pool], on
//! Pingora's, on blocking and multiplexed pools, and on gRPC pools. Each is followed by what it
//! overlooks and by the setting that it comes down to here. All limits here are of one endpoint,
//! and exact over all shards.
//!
//! [tunnelto's pool]: https://github.com/agrinman/tunnelto
//!
//! # A file
//! ```
//! use corepool::settings::Settings;
//!
//! let file = r#"
//! max_live_total = 20_000         # below `ulimit -n`, with room for the clients' own
//!
//! [endpoint.capacity]             # every endpoint, unless it says otherwise
//! max_live = 512                  # 4000 requests/s, 20 ms each: 80 in use; times six for a bad day
//! max_idle = 120                  # 80, times 1.5
//!
//! [endpoint.lifetime]
//! idle_timeout_ms = 60_000        # the origins are nginx: they hang up after 75 s
//! max_lifetime_ms = 3_600_000
//!
//! [endpoint.timeouts]
//! connect_timeout_ms = 2_000      # one lost SYN
//! acquire_timeout_ms = 5_000
//!
//! [endpoints."billing.example:443"]   # far away, few requests, dear handshakes
//! capacity = { max_live = 64, max_idle = 16, min_idle = 2, warm_up = 4, rewarm = true }
//! lifetime.idle_timeout_ms = 4_000    # a Node.js server: it hangs up after 5 s
//! lifetime.max_lifetime_ms = "off"
//! timeouts = { connect_timeout_ms = 10_000, total_connect_timeout_ms = 20_000, acquire_timeout_ms = 30_000 }
//! "#;
//!
//! # #[cfg(feature = "serde")] {
//! let settings: Settings = toml::from_str(file)?; // or any other format that serde reads
//! settings.check()?;
//!
//! let billing = settings.for_endpoint(&"billing.example:443".parse()?);
//! assert_eq!(billing.capacity.max_live, 64);
//! assert_eq!(billing.lifetime.max_lifetime_ms, None);
//! assert_eq!(billing.lifetime.retention_period_ms, Some(30_000), "left out: the default");
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! [`Settings::lan`](crate::Settings::lan) and [`Settings::wan`](crate::Settings::wan) are two
//! starting points with the figures below, and [`Settings::grpc`](crate::Settings::grpc) a third.
//!
//! # How many connections
//! ## "Pool size = concurrency × upstreams × 1.5"
//! Concurrency is counted over all upstreams already, so the product counts each request once for
//! every upstream. In Pingora, which the rule is from, the size is a cap on idle connections only,
//! and each thread has one of its own, so 256 on eight threads are up to 2048. Instead, for one
//! endpoint, by Little's law:
//!
//! ```
//! /// Connections in use on average: requests per second, times the seconds that each holds one.
//! fn in_use(requests_per_second: f64, held_ms: f64) -> f64 {
//!     requests_per_second * held_ms / 1000.0
//! }
//!
//! assert_eq!(in_use(4_000.0, 20.0), 80.0);
//! assert_eq!(in_use(4_000.0, 20.0) * 1.5, 120.0); // `max_idle`: what a burst leaves behind
//! assert_eq!(in_use(4_000.0, 120.0), 480.0); // `max_live`: the same on a day six times as slow
//! ```
//! Take the peak of the load, and the time up to the end of the response, not to its first byte.
//!
//! ## "CPU-bound 20 to 50, I/O-bound 50 to 100"
//! That is advice for pools of threads. A connection at rest costs memory here, no thread and no
//! context switch. What is scarce is at the other end: the upstream's own limit, divided by the
//! proxies that share it, is the ceiling of `max_live`. Against a database with 200 connections
//! and four proxies it is 50, whatever binds the application.
//!
//! ## "Keep 10 to 100 idle"
//! Good for one endpoint and one proxy; `max_idle` is 128 by default. Multiply before raising it:
//! 1000 idle connections on each of 100 proxies are 100 000 at the upstream. Too low is worse than
//! too high: connections come back, find no room, are closed, and are dialled again. That shows as
//! closes for the reason [`Surplus`](crate::CloseReason::Surplus) and as a low
//! [`reuse_ratio`](crate::GroupStats::reuse_ratio). Raise `max_idle` then, not `max_live`.
//!
//! ## "Keep at least 5 to 10 idle"
//! `min_idle` is paid for by every endpoint of every proxy, and renewed as often as the connections
//! time out: 10 for each of 500 endpoints with an idle timeout of 60 s are 83 dials a second that
//! serve nobody. Set it for endpoints with steady traffic or dear handshakes, and leave the others
//! at 0. `preconnect_percent` dials ahead only where there is demand.
//!
//! ## "Warm up 20 to 30 % of the maximum"
//! Of what rests, not of `max_live`, which is a guard and not a size; more than `max_idle` is
//! refused. A loop that takes one connection and gives it back before it takes the next warms one,
//! ten times. `warm_up` and [`Group::warm_up`](crate::Group::warm_up) hold all of them until the
//! last is there. With `rewarm` it is done again when the last connection has gone.
//!
//! ## "Double when it is full, shrink to max idle when nobody uses it"
//! Under steady load nothing is ever unused, and such a pool never shrinks. Here it grows by need,
//! one dial for each caller that waits, and shrinks by `retention_period_ms`: each period closes
//! half of what the recent peak did not need.
//!
//! # How many streams
//! ## "Concurrent streams are what max idle is to blocking connections"
//! They bound what waits, not what is kept. One connection of a peer's 100 streams serves 5000
//! requests a second of 20 ms each, by Little's law as above: most endpoints need one. A second is
//! dialled by itself when callers are in line. Lower `streams.max_streams` where a single
//! connection does not fill the way to the peer, or one peer behind a balancer would get all of the
//! load; raise `streams.min_connections` where lost packets are common: the streams of one
//! connection wait for each other's.
//!
//! ## "Logical connections = physical ones × concurrent streams"
//! As long as they are counted. Where callers are dealt out by a hash or by turns, one connection has
//! more than that and another fewer, and the surplus waits in the client, unseen. Here each stream is
//! counted against the connection's own limit, and callers wait in one line
//! ([`StreamGroup::stats`](crate::StreamGroup::stats)).
//!
//! # How long
//! ## "Idle timeout slightly below the server's"
//! The one rule that must be kept, and it needs a figure: below by the lateness of the sweep
//! (350 ms), plus the way of a request there, plus a margin for clocks. One second is enough on a
//! LAN; take a tenth where in doubt.
//!
//! | origin | hangs up after | `idle_timeout_ms` |
//! |---|---|---|
//! | nginx, `keepalive_timeout` | 75 s | 60 000 |
//! | AWS application load balancer | 60 s | 54 000 |
//! | Node.js, `server.keepAliveTimeout` | 5 s | 4 000 |
//! | Apache httpd, `KeepAliveTimeout` | 5 s | 4 000 |
//!
//! These are the origins' defaults; ask yours. A request can still meet a FIN on its way, so a
//! proxy needs the one retry on a fresh connection all the same
//! ([`Pooled::is_reused`](crate::Pooled::is_reused),
//! [`Group::checkout_fresh`](crate::Group::checkout_fresh)).
//!
//! ## "LAN 60 to 120 s, WAN 300 to 600 s"
//! As long as the origin waits longer, which across the internet it seldom does. Address
//! translators in between forget silent flows too, some after four minutes, and send no FIN when
//! they do: the `wan` preset has keepalive on for that reason.
//!
//! ## "Time to live"
//! Some pools have one figure, compared with the age of a connection but meant for the server's
//! idle timeout. A busy connection then dies for nothing, and one that has rested too long is handed
//! out. Here they are two: `idle_timeout_ms`, and `max_lifetime_ms`, which is there so that
//! connections follow a load balancer's changes; `lifetime_jitter_percent` keeps those that were
//! made together from ending together.
//!
//! ## "Connect timeout: LAN 2 to 5 s, WAN 10 to 30 s"
//! What decides is how many lost SYNs a dial survives. Linux sends them again after 1, 2, 3, 4, 5,
//! 7 and 11 s (`tcp_syn_linear_timeouts`, 6.5), before 6.5 after 1, 3, 7 and 15 s. So 2 s forgives
//! one, 5 s four (before: two), 10 s six (three); anything below 1 s forgives none. TLS is on top:
//! `total_connect_timeout_ms`.
//!
//! ## "Acquire timeout"
//! At least as long as a dial may take, or a caller that had to dial gives up before its dial does.
//! The dial goes on then and is pooled, so nothing is lost but the caller. Shorter is right where a
//! late answer is worth no more than none.
//!
//! ## "Clean up every 30 s"
//! There is nothing to set: each shard sweeps four times a second, and does not while it has no
//! connection.
//!
//! # Dead or alive
//! ## "Check that the peer address can be had"
//! It can, of a socket whose peer has sent a FIN. Here each connection is watched for FIN and RST
//! while it rests; `peek` looks again at checkout for 150 to 280 ns. A ping at each checkout
//! doubles the latency of a small request: `ping_interval_ms` does it at rest, where the connector
//! can. Neither sees a peer that vanished a moment ago; the retry does.
//!
//! ## "Retry twice from the pool, the third time fresh"
//! What killed one idle connection, a restart for instance, has killed its siblings at the same
//! moment, so the second attempt meets the same fate. Retry once, on a fresh connection, and only
//! what may be repeated. Under [`RetryBudget`](crate::RetryBudget) the retries of a proxy do not
//! add up to an attack on an upstream that struggles.
//!
//! ## "Open the breaker after N failures in a row"
//! With many shards and a half-dead upstream, successes keep interrupting the row. So there is a
//! share of failures in a window as well, which counts when there were at least
//! `breaker_min_dials`. Half-open, `half_open_probes` dials go through, not all of them.
//!
//! ## "Fall back to unpooled connections"
//! `at_open = "direct"` does so, and `at_limit = "overflow"` where the limit is what stops. Both
//! give an upstream that is in trouble more connections than were meant for it. They are for a
//! breaker or a limit that you trust less than the upstream.
//!
//! # What to watch
//! Exhausted for 30 s; 99th percentile of checkouts above 500 ms for 5 min; reuse below 60 % for
//! 10 min; more than 10 % of dials fail: [`alerts`](crate::alerts) has these as defaults. 500 ms
//! suits pools of database connections. A hit here makes no system call, and a miss on a LAN costs
//! a round trip or two, so 50 ms there is an alarm already. Reuse below 60 % is normal for
//! an endpoint with one request a minute; judge it where there is traffic.
//!
//! # Multiplexed connections
//! "Connections = logical connections / streams of one, and a new one when all are full" is for
//! HTTP/2 and gRPC. This pool hands out a connection to one caller at a time.
