//! Makes a pool: settings in, running shards out.

use core::time::Duration;
use std::{io, num::NonZero, sync::Arc, sync::mpsc as std_mpsc, thread};

use tokio::{runtime::Handle, sync::mpsc, task::LocalSet};

use crate::{
    Backend, BuildError, Connector, Host, Pool, Shard,
    backend::{self, Opened},
    config::{Config, MAX_SHARDS},
    engine::ShardId,
    pool::Inner,
    shard,
    worker::Worker,
};

/// Settings of a pool. Each has a default that suits a proxy on a LAN; see the setters.
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct Builder<C> {
    connector: C,
    config: Config,
    #[cfg(any(test, feature = "sim"))]
    sim: Option<crate::sim::Script>,
}

impl<C: Connector> Builder<C> {
    pub(crate) fn new(connector: C) -> Self {
        Self {
            connector,
            config: Config::default(),
            #[cfg(any(test, feature = "sim"))]
            sim: None,
        }
    }

    /// What to dial, watch and close with. Default: [`Backend::Auto`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.config.backend = backend;
        self
    }

    /// What runs on the shards' threads. Default: [`Host::Tokio`].
    pub fn host(mut self, host: Host) -> Self {
        self.config.host = host;
        self
    }

    /// How many shards, 1 to 256. Default: one for each core that the calling thread may run on,
    /// and no more than the CPU quota allows.
    pub fn shards(mut self, shards: usize) -> Self {
        self.config.shards = Some(shards);
        self
    }

    /// Whether each shard's thread is pinned to a core. Default: yes; not done where there are
    /// more shards than cores or less CPU quota than cores, because pinned threads of several
    /// containers would choose the same ones.
    pub fn pin(mut self, pin: bool) -> Self {
        self.config.pin = pin;
        self
    }

    /// Slots of each shard: connections that it can have, over all endpoints. About 128 bytes
    /// each, allocated at once. Default: 4096.
    pub fn slots_per_shard(mut self, slots: usize) -> Self {
        self.config.slots_per_shard = slots;
        self
    }

    /// Connections to one endpoint at once, dials and closes included. Default: 1024.
    pub fn max_live(mut self, connections: u32) -> Self {
        self.config.max_live = connections;
        self
    }

    /// Connections of one endpoint at rest at once, exact over all shards. What comes back above
    /// it is closed. Zero: none rests, so a connection is reused only when somebody waits for it as it
    /// comes back. Default: 128.
    pub fn max_idle(mut self, connections: u32) -> Self {
        self.config.max_idle = connections;
        self
    }

    /// Callers that may be in line for a connection of one endpoint, those whose dial is under
    /// way included; the next fails at once. At least 1, because every miss lines up. To fail
    /// fast at `max_live` and still take a burst of dials, set it to `max_live`. Default: 4096.
    pub fn max_waiters(mut self, callers: u32) -> Self {
        self.config.max_waiters = callers;
        self
    }

    /// A caller on a shard takes a connection of another shard only when the endpoint has at
    /// least this many idle ones; below, it dials. 1 shares always. Default: twice the number of
    /// shards, so that each shard gets a few of its own first (HAProxy's `pool-low-conn`).
    pub fn steal_threshold(mut self, idle: u32) -> Self {
        self.config.steal_threshold = Some(idle);
        self
    }

    /// How long a dial may take, from the resolver to the end of the connector's handshake.
    /// Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long a checkout may wait, for whatever. Default: 10 s.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.config.acquire_timeout = timeout;
        self
    }

    /// How long a connection may rest. Keep it below the origin's. Noticed up to 350 ms late.
    /// Default: 60 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = timeout;
        self
    }

    /// Dials by a script in memory instead of the network, for tests.
    #[cfg(any(test, feature = "sim"))]
    pub fn sim(mut self, script: crate::sim::Script) -> Self {
        self.sim = Some(script);
        self
    }

    /// Starts the shards.
    ///
    /// Blocks for the moment that they take to start, so call it before the proxy serves.
    ///
    /// # Errors
    /// When a setting is out of range, a thread cannot be started, or a shard gets no driver.
    pub fn build(mut self) -> Result<Pool<C>, BuildError> {
        self.config.check()?;
        if let Some(host) = C::HOST
            && host != self.config.host
        {
            return Err(BuildError::Setting {
                setting: "host",
                value: format!("{:?}", self.config.host),
                allowed: "Host::TokioUring for this connector",
            });
        }
        if self.config.backend == Backend::Auto
            && let Some(name) = std::env::var_os("COREPOOL_BACKEND")
        {
            let name = name.to_string_lossy();
            self.config.backend = name.parse().map_err(|_| BuildError::Setting {
                setting: "COREPOOL_BACKEND",
                value: name.into_owned(),
                allowed: "auto, io-uring or epoll",
            })?;
        }
        let cores = Cores::allowed();
        let count = self.config.shards.unwrap_or_else(|| cores.shards());
        let cores = if self.config.pin { cores.for_pinning(count) } else { Vec::new() };
        let inner = Arc::new(Inner::new(self.config.clone(), self.connector, count));
        let mut shards = Vec::with_capacity(count);
        for id in 0..count {
            let start = Start {
                inner: Arc::clone(&inner),
                id: ShardId(id as u16),
                core: cores.get(id).copied(),
                #[cfg(any(test, feature = "sim"))]
                sim: self.sim.clone(),
            };
            // On an error the shards that run already end: their pool has no handle.
            match start.run() {
                Ok(shard) => shards.push(shard),
                Err(error) => {
                    drop(Pool::assemble(inner, shards));
                    return Err(error);
                }
            }
        }
        let pool = Pool::assemble(inner, shards);
        let report = pool.backend();
        tracing::info!(
            backend = report.selected,
            reason = report.reason,
            shards = count,
            pinned = !cores.is_empty(),
            "connection pool started"
        );
        Ok(pool)
    }
}

/// What a shard's thread needs to start.
struct Start<C: Connector> {
    inner: Arc<Inner<C>>,
    id: ShardId,
    core: Option<usize>,
    #[cfg(any(test, feature = "sim"))]
    sim: Option<crate::sim::Script>,
}

/// What a shard's thread reports when it runs.
type Started = Result<(Handle, Option<usize>), io::Error>;

impl<C: Connector> Start<C> {
    fn run(self) -> Result<Shard, BuildError> {
        let (id, shard) = (self.id, self.id.get());
        let backend = self.inner.config.backend;
        let (jobs, queue) = mpsc::unbounded_channel();
        let (report, started) = std_mpsc::sync_channel(1);
        thread::Builder::new()
            .name(format!("corepool-{shard}"))
            .spawn(move || self.serve(queue, &report))
            .map_err(|source| BuildError::Thread { shard, source })?;
        match started.recv() {
            Ok(Ok((runtime, core))) => Ok(Shard::new(id, core, runtime, jobs)),
            Ok(Err(source)) => Err(BuildError::Backend { shard, backend, source }),
            Err(_) => {
                let source = io::Error::other("the thread ended while it started");
                Err(BuildError::Thread { shard, source })
            }
        }
    }

    fn serve(
        self,
        jobs: mpsc::UnboundedReceiver<crate::worker::Job>,
        report: &std_mpsc::SyncSender<Started>,
    ) {
        shard::enter(self.inner.engine_id(), self.id);
        let core = self.core.filter(|core| {
            let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: *core });
            if !pinned {
                // The cpuset may have changed since it was read.
                tracing::warn!(shard = self.id.get(), core, "the shard's thread stays unpinned");
            }
            pinned
        });
        let host = self.inner.config.host;
        let worker = async {
            match self.open() {
                Ok(worker) => {
                    let _ = report.send(Ok((Handle::current(), core)));
                    worker(jobs).run().await;
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        };
        match host {
            Host::Tokio => {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                match builder.enable_all().build() {
                    Ok(runtime) => LocalSet::new().block_on(&runtime, worker),
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            }
            #[cfg(all(target_os = "linux", feature = "tokio-uring"))]
            Host::TokioUring => serve_on_tokio_uring(worker),
        }
    }

    /// Opens the driver on this thread, inside its runtime.
    fn open(
        self,
    ) -> io::Result<impl FnOnce(mpsc::UnboundedReceiver<crate::worker::Job>) -> Worker<C>> {
        let Opened { driver, reason } = self.open_driver()?;
        self.inner.note_driver(self.id, driver.name(), &reason);
        Ok(move |jobs| Worker::new(self.inner, self.id, driver, jobs))
    }

    fn open_driver(&self) -> io::Result<Opened> {
        #[cfg(any(test, feature = "sim"))]
        if let Some(script) = &self.sim {
            return Ok(script.open());
        }
        let config = &self.inner.config;
        backend::open(config.backend, config.slots_per_shard)
    }
}

/// A tokio-uring runtime with the flags that spare it an interrupted `epoll_wait` for each
/// completion.
#[cfg(all(target_os = "linux", feature = "tokio-uring"))]
fn serve_on_tokio_uring(worker: impl Future<Output = ()>) {
    let mut builder = tokio_uring::builder();
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun();
    builder.entries(TOKIO_URING_ENTRIES).uring_builder(&ring).start(worker);
}

/// A small ring: its memory counts against `RLIMIT_MEMLOCK`.
#[cfg(all(target_os = "linux", feature = "tokio-uring"))]
const TOKIO_URING_ENTRIES: u32 = 256;

/// The cores that the calling thread may run on.
struct Cores {
    allowed: Vec<usize>,
    /// What affinity and CPU quota leave together.
    parallelism: usize,
}

impl Cores {
    fn allowed() -> Self {
        let allowed =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let parallelism = thread::available_parallelism().map_or(1, NonZero::get);
        Self { allowed, parallelism }
    }

    fn shards(&self) -> usize {
        let cores = if self.allowed.is_empty() { self.parallelism } else { self.allowed.len() };
        cores.min(self.parallelism).clamp(1, MAX_SHARDS)
    }

    /// A core for each shard; none when they had to share, or when a CPU quota says that the
    /// cores are not ours.
    fn for_pinning(self, shards: usize) -> Vec<usize> {
        if shards > self.allowed.len() || self.parallelism < self.allowed.len() {
            return Vec::new();
        }
        self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_pinned_only_to_cores_of_their_own() {
        let cores =
            |allowed: usize, parallelism| Cores { allowed: (0..allowed).collect(), parallelism };
        assert_eq!(cores(4, 4).shards(), 4);
        assert_eq!(cores(4, 4).for_pinning(2), [0, 1, 2, 3]);
        assert!(cores(4, 4).for_pinning(5).is_empty(), "more shards than cores");
        assert_eq!(cores(4, 1).shards(), 1);
        assert!(cores(4, 1).for_pinning(1).is_empty(), "a quota below the cores");
        assert_eq!(cores(0, 3).shards(), 3);
    }
}
