//! The proxy as a whole: a pool, and on each of its shards a listener.

use core::{convert::Infallible, net::SocketAddr, time::Duration};
use std::{io, rc::Rc, sync::Arc};

use corepool::{Backend, BuildError, Endpoint, Http1Connector, Pool};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{args::Args, counters::Counters, forward::Forwarder, listener, upload::Upload};

/// What a proxy is made from.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) upstreams: Vec<Endpoint>,
    pub(crate) backend: Backend,
    pub(crate) shards: Option<usize>,
    pub(crate) max_live: Option<u32>,
    pub(crate) max_idle: Option<u32>,
    pub(crate) max_waiters: Option<u32>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) acquire_timeout: Option<Duration>,
    pub(crate) response_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) reuse: bool,
}

/// A proxy at work.
#[derive(Debug)]
pub(crate) struct Proxy {
    pool: Pool<Http1Connector<Upload>>,
    address: SocketAddr,
    counters: Vec<Arc<Counters>>,
    stop: watch::Sender<bool>,
    /// Closed once every listener and every client has finished.
    finished: mpsc::Receiver<Infallible>,
    drain_timeout: Duration,
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    #[error("cannot start the pool: {0}")]
    Pool(#[from] BuildError),
    #[error("cannot start the embedded origin: {0}")]
    Origin(io::Error),
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl StartError {
    /// 2 where the command line is to blame, as for what does not parse.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::Pool(BuildError::Setting { .. })) { 2 } else { 1 }
    }
}

impl Config {
    /// The command line's, for these origins.
    pub(crate) fn new(args: &Args, upstreams: Vec<Endpoint>) -> Self {
        Self {
            listen: args.listen,
            upstreams,
            backend: args.backend,
            shards: args.shards,
            max_live: args.max_live,
            max_idle: args.max_idle,
            max_waiters: args.max_waiters,
            idle_timeout: args.idle_timeout,
            connect_timeout: args.connect_timeout,
            acquire_timeout: args.acquire_timeout,
            response_timeout: args.response_timeout,
            drain_timeout: args.drain_timeout,
            reuse: !args.no_reuse,
        }
    }

    /// Starts the shards' threads.
    fn build_pool(&self) -> Result<Pool<Http1Connector<Upload>>, BuildError> {
        let mut builder = Pool::builder(Http1Connector::new()).backend(self.backend);
        if let Some(shards) = self.shards {
            builder = builder.shards(shards);
        }
        if let Some(max_live) = self.max_live {
            // All of them may be on one shard.
            let all = (max_live as usize).saturating_mul(self.upstreams.len());
            let slots = all.clamp(SLOTS_LEAST, SLOTS_MOST);
            builder = builder.max_live(max_live).slots_per_shard(slots);
        }
        if let Some(max_idle) = self.max_idle {
            builder = builder.max_idle(max_idle);
        }
        if let Some(max_waiters) = self.max_waiters {
            builder = builder.max_waiters(max_waiters);
        }
        if let Some(idle_timeout) = self.idle_timeout {
            builder = builder.idle_timeout(idle_timeout);
        }
        if let Some(connect_timeout) = self.connect_timeout {
            builder = builder.connect_timeout(connect_timeout);
        }
        if let Some(acquire_timeout) = self.acquire_timeout {
            builder = builder.acquire_timeout(acquire_timeout);
        }
        builder.build()
    }
}

impl Proxy {
    /// Starts the pool and listens. Blocks for the moment that the shards' threads take.
    pub(crate) fn start(config: &Config) -> Result<Self, StartError> {
        let pool = config.build_pool()?;
        let shards = pool.shards();
        let listeners = listener::bind(config.listen, shards.len())
            .map_err(|error| StartError::Listen(config.listen, error))?;
        let address =
            listeners[0].local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
        let (stop, stopped) = watch::channel(false);
        let (working, finished) = mpsc::channel(1);
        let mut counters = Vec::new();
        for (shard, listener) in shards.iter().zip(listeners) {
            let own = Arc::new(Counters::default());
            counters.push(Arc::clone(&own));
            let groups = config.upstreams.iter().map(|upstream| pool.group(upstream.clone()));
            let groups: Vec<_> = groups.collect();
            let id = shard.id();
            let (reuse, response_timeout) = (config.reuse, config.response_timeout);
            let (stopped, working) = (stopped.clone(), working.clone());
            // Detached: `working` tells when it ends.
            drop(shard.spawn_local(move || async move {
                // Each shard starts at another origin, so that few clients reach them all.
                let forwarder = Forwarder::new(groups, id, reuse, response_timeout, own);
                let served = listener::serve(listener, Rc::new(forwarder), stopped, working);
                if let Err(error) = served.await {
                    tracing::error!(%error, shard = id, "the shard cannot serve clients");
                }
            }));
        }
        let drain_timeout = config.drain_timeout;
        Ok(Self { pool, address, counters, stop, finished, drain_timeout })
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pool(&self) -> &Pool<Http1Connector<Upload>> {
        &self.pool
    }

    /// Each shard's counters.
    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Stops accepting, lets requests in flight finish, closes the pool.
    pub(crate) async fn drain(mut self) {
        self.stop.send_replace(true);
        if timeout(self.drain_timeout, self.finished.recv()).await.is_err() {
            let clients: u64 = self.counters.iter().map(|counters| counters.open()).sum();
            tracing::warn!(clients, "cut off: requests were still in flight at the deadline");
        }
        let report = self.pool.close_within(CLOSE_TIMEOUT).await;
        if report.left > 0 {
            tracing::warn!(connections = report.left, "not closed in time");
        }
    }
}

/// Slots of a shard: the pool's default, and more than one address has ports.
const SLOTS_LEAST: usize = 4096;
const SLOTS_MOST: usize = 65_536;

/// What closing the pool may take on top of draining.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
