//! The proxy as a whole: a pool, and on each of its shards a listener.

use core::{convert::Infallible, net::SocketAddr, time::Duration};
use std::{io, rc::Rc, sync::Arc};

use corepool::{BuildError, Endpoint, HttpClient, HttpConnector, PoolEvent, Settings, TlsError};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    args::Args,
    counters::Counters,
    events::Events,
    forward::Forwarder,
    listener::{self, Host},
    origins::Origins,
    settings::ConfigError,
    tls::{self, FileError, Shown},
    upstream::{Group, Pool, Transport, Upstream},
};

/// What a proxy is made from.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) upstreams: Vec<Endpoint>,
    pub(crate) settings: Settings,
    pub(crate) response_timeout: Duration,
    pub(crate) client_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) reuse: bool,
    pub(crate) transport: Transport,
    /// With it, clients speak TLS.
    pub(crate) shown: Option<Shown>,
}

/// A proxy at work.
#[derive(Debug)]
pub(crate) struct Proxy {
    pool: Pool,
    groups: Vec<Group>,
    events: Arc<Events>,
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
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot start the pool: {0}")]
    Pool(#[from] BuildError),
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot start the embedded origin: {0}")]
    Origin(io::Error),
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl StartError {
    /// 2 where the command line is to blame, as for what does not parse.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::File(_)
            | Self::Pool(BuildError::Setting { .. } | BuildError::Settings(_)) => 2,
            _ => 1,
        }
    }
}

impl Config {
    /// The command line's. Reads the files that it names.
    pub(crate) fn new(args: &Args, settings: Settings) -> Result<Self, StartError> {
        let shown = match (&args.tls_cert, &args.tls_key) {
            (Some(chain), Some(key)) => Some(Shown::read(chain, key)?),
            // Neither, as clap has it.
            _ => None,
        };
        Ok(Self {
            listen: args.listen,
            upstreams: args.upstreams.clone(),
            settings,
            response_timeout: args.response_timeout,
            client_timeout: args.client_timeout,
            drain_timeout: args.drain_timeout,
            reuse: !args.no_reuse,
            transport: tls::transport(args)?,
            shown,
        })
    }
}

impl Proxy {
    /// Starts the pool and listens. Blocks for the moment that the shards' threads take.
    pub(crate) fn start(config: &Config) -> Result<Self, StartError> {
        let events = Arc::new(Events::new(&config.upstreams));
        let noted = Arc::clone(&events);
        // Starts the shards' threads.
        let pool = Pool::builder(HttpConnector::new().over(config.transport.clone()))
            .settings(config.settings.clone())
            .observer(move |event: &PoolEvent<'_>| noted.note(event))
            .build()?;
        let shards = pool.shards();
        let listeners = listener::bind(config.listen, shards.len())
            .map_err(|error| StartError::Listen(config.listen, error))?;
        let address =
            listeners[0].local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
        // Made last: what is to be dialled at the start is dialled from here on.
        let client = HttpClient::without_copies(pool.clone());
        let upstreams = config.upstreams.iter().map(|upstream| client.origin(upstream.clone()));
        let upstreams: Vec<Upstream> = upstreams.collect();
        let (stop, stopped) = watch::channel(false);
        let (working, finished) = mpsc::channel(1);
        let mut counters = Vec::new();
        for (shard, listener) in shards.iter().zip(listeners) {
            let own = Arc::new(Counters::default());
            counters.push(Arc::clone(&own));
            let upstreams = upstreams.clone();
            let id = shard.id();
            let Config { reuse, response_timeout, client_timeout, .. } = *config;
            let (stopped, working) = (stopped.clone(), working.clone());
            let shown = config.shown.clone();
            // Detached: `working` tells when it ends.
            drop(shard.spawn_local(move || async move {
                // Each shard starts at another origin, so that few clients reach them all.
                let origins = Origins::new(upstreams, id);
                let forwarder = Forwarder::new(origins, reuse, response_timeout, own);
                let host = Host { forwarder: Rc::new(forwarder), shown, client_timeout };
                let served = host.serve(listener, stopped, working);
                if let Err(error) = served.await {
                    tracing::error!(%error, shard = id, "the shard cannot serve clients");
                }
            }));
        }
        let drain_timeout = config.drain_timeout;
        let groups = upstreams.iter().map(|upstream| upstream.streams().group().clone()).collect();
        Ok(Self { pool, groups, events, address, counters, stop, finished, drain_timeout })
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Each origin's connections.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What the pool has told.
    pub(crate) fn events(&self) -> &Arc<Events> {
        &self.events
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

/// What closing the pool may take on top of draining.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
