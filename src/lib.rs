//! A lock-free, sharded connection pool core on io_uring, for embedding in high-throughput Linux
//! proxies.
//!
//! One shard per core pins a thread and keeps the idle upstream sockets of that core in lock-free
//! queues; connects and closes are batched through io_uring; the checkout/return protocol is
//! model-checked with loom. Where io_uring is missing (another OS, a container that denies it) the
//! same pool runs on tokio's own reactor.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = origin.local_addr()?;
//! # tokio::spawn(async move {
//! #     let (mut stream, _) = origin.accept().await.unwrap();
//! #     let (mut from, mut to) = stream.split();
//! #     let _ = tokio::io::copy(&mut from, &mut to).await;
//! # });
//! use corepool::{Pool, TcpConnector};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let pool = Pool::builder(TcpConnector).max_live(64).build()?;
//! let group = pool.group(address); // an endpoint's connections: keep the handle
//!
//! let mut conn = group.checkout().await?; // idle, returned or dialled, whichever comes first
//! conn.write_all(b"ping").await?;
//! conn.read_exact(&mut [0; 4]).await?;
//! conn.release(); // the exchange is complete; a mere drop would close it now
//!
//! assert!(group.checkout().await?.is_reused());
//! pool.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # How it works
//! A [`Pool`] has shards and, for each [`Endpoint`], a [`Group`]. A checkout takes an idle
//! connection of its own shard with one compare-and-swap, a sibling's when the group has enough,
//! or lines up for whatever comes first, a return or a dial. The guard, [`Pooled`], says how the
//! exchange ended: [`release`](Pooled::release) or [`discard`](Pooled::discard). A
//! [`Connector`] makes what is pooled out of a dialled socket. [`design`] has the figures, the
//! races and the reasons.
//!
//! Three shapes of use, each with an example: tasks on the shards (`examples/thread_per_core.rs`,
//! `examples/proxy`), any multi-threaded runtime (`examples/multi_thread.rs`), tokio-uring
//! (`examples/tokio_uring.rs`).
//!
//! # The life of a connection
//! Every endpoint has a policy, [`EndpointSettings`]: how many connections, for how long, how they
//! are found dead, and what failed dials lead to. The pool's is the default, each endpoint may
//! differ, and all of it can change under way ([`Group::reconfigure`]). Limits hold for an endpoint
//! and for the whole pool; at the limit a checkout waits in strict order, fails, or gets a
//! connection above it. Connections end by idle timeout, age or use; some are kept ready, and a
//! burst shrinks by and by. A circuit breaker and a backoff after gRPC's guard each endpoint
//! ([`Group::breaker`]). A group can be suspended, evicted, filtered, drained, and given
//! connections that were made elsewhere. [`Observer`] and [`Pool::stats`] tell what happens,
//! [`alerts`] what is wrong with it. [`sizing`] helps to choose.
//!
//! # What it does not do (yet)
//! It does not share HTTP/2 connections. It does not retry: it tells what a retry needs
//! to know ([`Pooled::is_reused`], [`Pooled::was_written`], [`Group::checkout_fresh`]) and keeps a
//! budget ([`RetryBudget`]).
//!
//! # Features
//! All off by default; each only adds. `http1`: `Http1Connector` pools hyper's HTTP/1 connections.
//! `http2`: `Http2Connector` pools HTTP/2 connections, on the `h2` crate. `http`: `HttpConnector`
//! pools both, as the peer speaks it, and `HttpClient` sends requests over them.
//! `tls`: `TlsConnector` pools connections under TLS (rustls), which HTTP/1 can be put on; the
//! cryptography is the user's choice.
//! `serde`: [`Settings`] can be read from a file. `hickory`: `HickoryResolver` knows how long a
//! name's addresses are valid.
//! `tower`: `ConnectService` connects hyper-util's client through a pool.
//! `tokio-uring`: shards may host tokio-uring (Linux). `sim`: a scripted network for tests.
//!
//! # Kernel
//! The io_uring driver wants Linux 6.7 or later for all that it can do, 5.19 for nearly all of it,
//! and runs with less from 5.7 on; everything else runs on tokio's reactor, and so does any system but Linux. There, death
//! at rest is noticed when a connection is checked out. Pinning honours the process's affinity
//! mask and CPU quota.
//!
//! # MSRV
//! Rust 1.95, the version that it is tested with.
#![cfg_attr(any(loom, model), allow(dead_code, unreachable_pub))]

#[cfg(all(shuttle, not(model)))]
compile_error!("shuttle schedules the engine alone: `--cfg shuttle` goes with `--cfg model`");

#[cfg(not(any(loom, model)))]
pub mod alerts;
#[cfg(not(any(loom, model)))]
mod backend;
#[cfg(any(loom, all(feature = "http1", not(model))))]
mod bell;
#[cfg(not(any(loom, model)))]
mod builder;
mod clock;
#[cfg(not(any(loom, model)))]
mod config;
#[cfg(not(any(loom, model)))]
mod connector;
#[cfg(not(any(loom, model)))]
mod control;
#[cfg(all(any(test, fuzzing), not(any(loom, model))))]
mod corpus;
#[cfg(not(any(loom, model)))]
pub mod design;
#[cfg(not(any(loom, model)))]
mod endpoint;
mod engine;
#[cfg(not(any(loom, model)))]
mod error;
#[cfg(not(any(loom, model)))]
mod eyeballs;
#[cfg(not(any(loom, model)))]
mod group;
#[cfg(not(any(loom, model)))]
mod histogram;
#[cfg(not(any(loom, model)))]
mod hooks;
#[cfg(all(not(any(loom, model)), feature = "http"))]
mod http;
#[cfg(not(any(loom, model)))]
mod inner;
#[cfg(not(any(loom, model)))]
mod leaks;
#[cfg(not(any(loom, model)))]
mod look;
#[cfg(not(any(loom, model)))]
mod meter;
#[cfg(any(loom, not(model)))]
mod notice;
#[cfg(not(any(loom, model)))]
mod numbers;
#[cfg(not(any(loom, model)))]
mod observer;
#[cfg(not(any(loom, model)))]
mod policy;
#[cfg(not(any(loom, model)))]
mod pool;
#[cfg(not(any(loom, model)))]
mod pooled;
#[cfg(not(any(loom, model)))]
mod proxy_header;
#[cfg(not(any(loom, model)))]
mod resolve;
mod retry_budget;
#[cfg(not(any(loom, model)))]
mod seats;
#[cfg(not(any(loom, model)))]
pub mod settings;
#[cfg(not(any(loom, model)))]
mod shard;
#[cfg(all(not(any(loom, model)), any(test, feature = "sim")))]
pub mod sim;
#[cfg(not(any(loom, model)))]
pub mod sizing;
#[cfg(not(any(loom, model)))]
mod sockets;
#[cfg(not(any(loom, model)))]
mod stats;
#[cfg(not(any(loom, model)))]
mod streams;
mod sync;
#[cfg(all(not(any(loom, model)), feature = "tower"))]
mod tower;
#[cfg(not(any(loom, model)))]
mod worker;

#[cfg(all(not(any(loom, model)), feature = "http1"))]
pub use self::connector::{ExchangeError, Http1, Http1Body, Http1Connector, SpeaksHttp1};
#[cfg(all(not(any(loom, model)), feature = "http2"))]
pub use self::connector::{
    Http2, Http2Body, Http2Connector, Http2Keepalive, Http2Options, StreamError, StreamErrorKind,
};
#[cfg(all(not(any(loom, model)), feature = "tls"))]
pub use self::connector::{TlsConnector, TlsConnectorBuilder, TlsError, TlsStream};
#[cfg(all(not(any(loom, model)), target_os = "linux", feature = "tokio-uring"))]
pub use self::connector::{TokioUring, TokioUringConnector};
#[cfg(all(not(any(loom, model)), any(feature = "http", feature = "tower")))]
pub use self::endpoint::UriError;
#[cfg(all(not(any(loom, model)), feature = "hickory"))]
pub use self::resolve::HickoryResolver;
#[cfg(all(not(any(loom, model)), feature = "tower"))]
pub use self::tower::{ConnectService, HttpsError, PoolClosed, PooledIo};
#[cfg(not(any(loom, model)))]
pub use self::{
    backend::{Backend, ParseBackendError, Socket},
    builder::Builder,
    config::Host,
    connector::{
        Condition, Connection, Connector, Inspect, Multiplexed, Raw, RawConnector, Stream,
        StreamConnector, Tcp, TcpConnector, Transport,
    },
    control::Adoption,
    endpoint::{Endpoint, ParseEndpointError, TlsIdentity, Verification},
    engine::{BreakerMode, BreakerState, CloseReason},
    error::{BoxError, BuildError, CheckoutError, DialError, DialErrorKind},
    group::{Group, WarmUp},
    histogram::HistogramSnapshot,
    hooks::ConnectionInfo,
    meter::{StreamCapacity, StreamMeter},
    observer::{Observer, PoolEvent},
    pool::{CloseReport, Pool},
    pooled::Pooled,
    proxy_header::{ProxyHeader, ProxyHeaderError},
    resolve::{Answer, Resolver, Resolving, SystemResolver},
    retry_budget::RetryBudget,
    settings::{EndpointOverrides, EndpointSettings, Settings, SettingsError},
    shard::{LocalTask, Shard, ShardGone},
    sockets::{Keepalive, PortWindow, SocketOptions},
    stats::{BackendReport, GroupStats, PoolStats, ShardStats},
    streams::{StreamGroup, StreamLease, StreamStats},
};
#[cfg(all(not(any(loom, model)), feature = "http"))]
pub use self::{
    connector::{Http, HttpConnector},
    http::{
        Attempts, HttpBody, HttpClient, HttpLease, HttpOrigin, RequestError, RequestErrorKind,
        endpoint_of,
    },
};

/// The engine's inside, for the models and the fuzzer. No part of the public interface.
#[cfg(any(loom, model, fuzzing))]
#[doc(hidden)]
pub mod model {
    #[cfg(loom)]
    pub use crate::{bell::Bell, notice::Notice};
    pub use crate::{clock::Tick, engine::*, retry_budget::RetryBudget};
}

/// The bodies of the fuzz targets, each beside what it is about. No part of the public interface.
#[cfg(all(
    fuzzing,
    not(any(loom, model)),
    feature = "hickory",
    feature = "http1",
    feature = "http2",
    feature = "serde",
    feature = "sim"
))]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::{
        connector::{fuzz::run as http1, http2_fuzz::run as http2},
        endpoint::fuzz::run as endpoint,
        engine::{fuzz::run as breaker, oracle::run as engine, streams::oracle::run as streams},
        proxy_header::fuzz::run as proxy_header,
        resolve::fuzz::run as dns,
        settings::fuzz::run as settings,
    };
}
