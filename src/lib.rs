//! corepool
#![cfg_attr(loom, allow(dead_code, unreachable_pub))]

#[cfg(not(loom))]
mod backend;
#[cfg(not(loom))]
mod builder;
mod clock;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod connector;
#[cfg(not(loom))]
mod endpoint;
mod engine;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod group;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod pooled;
#[cfg(not(loom))]
mod shard;
#[cfg(all(not(loom), any(test, feature = "sim")))]
pub mod sim;
#[cfg(not(loom))]
mod stats;
mod sync;
#[cfg(not(loom))]
mod worker;

#[cfg(all(not(loom), feature = "http1"))]
pub use self::connector::{Http1, Http1Connector};
#[cfg(all(not(loom), target_os = "linux", feature = "tokio-uring"))]
pub use self::connector::{TokioUring, TokioUringConnector};
#[cfg(not(loom))]
pub use self::{
    backend::{Backend, ParseBackendError, Socket},
    builder::Builder,
    config::Host,
    connector::{Connection, Connector, Raw, RawConnector, Tcp, TcpConnector},
    endpoint::{Endpoint, ParseEndpointError},
    engine::CloseReason,
    error::{BoxError, BuildError, CheckoutError, DialError, DialErrorKind},
    group::{Group, WarmUp},
    pool::{CloseReport, Pool},
    pooled::Pooled,
    shard::{LocalTask, Shard, ShardGone},
    stats::{BackendReport, GroupStats, PoolStats, ShardStats},
};

/// The engine's inside, for the models and the fuzzer. No part of the public interface.
#[cfg(any(loom, fuzzing))]
#[doc(hidden)]
pub mod model {
    pub use crate::{clock::Tick, engine::*};
}
