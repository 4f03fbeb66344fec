//! Makes a pool: settings in, running shards out.

use core::time::Duration;
use std::{
    cell::Cell,
    io,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
    sync::mpsc as std_mpsc,
    thread,
};

use tokio::{runtime::Handle, sync::mpsc, task::LocalSet};

use crate::{
    Backend, BoxError, BuildError, ConnectionInfo, Connector, EndpointSettings, Host, Observer,
    Pool, Resolver, Settings, Shard, SocketOptions,
    backend::{self, Opened},
    clock::millis,
    config::MAX_SHARDS,
    engine::ShardId,
    inner::{Inner, Parts},
    shard,
    worker::{Worker, bury},
};

/// Settings of a pool. Each has a default that suits a proxy on a LAN; see the setters.
///
/// The setters here are those that most pools need; [`Builder::settings`] takes all there are, and
/// [`Builder::endpoint`] the policy of endpoints.
#[must_use = "a builder does nothing until it builds"]
pub struct Builder<C: Connector> {
    connector: C,
    settings: Settings,
    parts: Parts<C>,
    #[cfg(any(test, feature = "sim"))]
    sim: Option<crate::sim::Script>,
}

impl<C: Connector> Builder<C> {
    pub(crate) fn new(connector: C) -> Self {
        Self {
            connector,
            settings: Settings::default(),
            parts: Parts::default(),
            #[cfg(any(test, feature = "sim"))]
            sim: None,
        }
    }

    /// All settings at once, for instance from a file. Setters that come after change single ones.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Changes the policy of every endpoint that has none of its own.
    ///
    /// ```
    /// # use corepool::{Pool, TcpConnector};
    /// let builder = Pool::builder(TcpConnector).endpoint(|policy| {
    ///     policy.lifetime.max_uses = Some(1000);
    ///     policy.failure.half_open_probes = 3;
    /// });
    /// ```
    pub fn endpoint(mut self, change: impl FnOnce(&mut EndpointSettings)) -> Self {
        change(&mut self.settings.endpoint);
        self
    }

    /// What to dial, watch and close with. Default: [`Backend::Auto`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.settings.backend = backend;
        self
    }

    /// What runs on the shards' threads. Default: [`Host::Tokio`].
    pub fn host(mut self, host: Host) -> Self {
        self.parts.host = host;
        self
    }

    /// How many shards, 1 to 256. Default: one for each core that the calling thread may run on,
    /// and no more than the CPU quota allows.
    pub fn shards(mut self, shards: usize) -> Self {
        self.settings.shards = Some(shards);
        self
    }

    /// Whether each shard's thread is pinned to a core. Default: yes; not done where there are
    /// more shards than cores or less CPU quota than cores, because pinned threads of several
    /// containers would choose the same ones.
    pub fn pin(mut self, pin: bool) -> Self {
        self.settings.pin = pin;
        self
    }

    /// Slots of each shard: connections that it can have, over all endpoints. About 128 bytes
    /// each, allocated at once. Default: 4096.
    pub fn slots_per_shard(mut self, slots: usize) -> Self {
        self.settings.slots_per_shard = slots;
        self
    }

    /// Connections of all endpoints at once, dials and closes included. A dial above it has the
    /// connection that rests longest make room, of whatever endpoint. Default: no limit.
    pub fn max_live_total(mut self, connections: u32) -> Self {
        self.settings.max_live_total = Some(connections);
        self
    }

    /// Connections of all endpoints at rest at once, exact over all shards. One that comes back
    /// above it has the one that rests longest closed. Default: no limit.
    pub fn max_idle_total(mut self, connections: u32) -> Self {
        self.settings.max_idle_total = Some(connections);
        self
    }

    /// Dials of all endpoints at once. Default: no limit.
    pub fn max_dialing_total(mut self, dials: u32) -> Self {
        self.settings.max_dialing_total = Some(dials);
        self
    }

    /// Connections to one endpoint at once, dials and closes included. Default: 1024. Lowers
    /// [`Self::max_idle`] and its like along with it.
    pub fn max_live(mut self, connections: u32) -> Self {
        self.settings.endpoint.capacity.set_max_live(connections);
        self
    }

    /// Connections of one endpoint at rest at once, exact over all shards. What comes back above
    /// it is closed. Zero: none rests, so a connection is reused only when somebody waits for it as it
    /// comes back. At most [`Self::max_live`]: what is above that is as good as that. Default: 128.
    pub fn max_idle(mut self, connections: u32) -> Self {
        let capacity = &mut self.settings.endpoint.capacity;
        capacity.max_idle = connections.min(capacity.max_live);
        self
    }

    /// Callers that may be in line for a connection of one endpoint, those whose dial is under
    /// way included; the next fails at once. At least 1, because every miss lines up. To fail
    /// fast at `max_live` and still take a burst of dials, set `capacity.at_limit`. Default: 4096.
    pub fn max_waiters(mut self, callers: u32) -> Self {
        self.settings.endpoint.capacity.max_waiters = callers;
        self
    }

    /// A caller on a shard takes a connection of another shard only when the endpoint has at
    /// least this many idle ones; below, it dials. 1 shares always. Default: twice the number of
    /// shards, so that each shard gets a few of its own first (HAProxy's `pool-low-conn`).
    pub fn steal_threshold(mut self, idle: u32) -> Self {
        self.settings.steal_threshold = Some(idle);
        self
    }

    /// How long a dial may take, from the resolver to the end of the connector's handshake.
    /// Default: 5 s. For a limit of its own on the connect alone, see
    /// `timeouts.total_connect_timeout_ms`.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.endpoint.timeouts.connect_timeout_ms = millis(timeout);
        self
    }

    /// How long a checkout may wait, for whatever. Default: 10 s.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.settings.endpoint.timeouts.acquire_timeout_ms = millis(timeout);
        self
    }

    /// How long a connection may rest. Keep it below the origin's. Noticed up to 350 ms late.
    /// Default: 60 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.endpoint.lifetime.idle_timeout_ms = millis(timeout);
        self
    }

    /// How long a connection may live, less a jitter of up to `lifetime.lifetime_jitter_percent`.
    /// Default: 1 h.
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.endpoint.lifetime.max_lifetime_ms = Some(millis(lifetime));
        self
    }

    /// Whether there is a circuit breaker for each endpoint. Default: yes; see the settings under
    /// `failure`.
    pub fn breaker(mut self, breaker: bool) -> Self {
        self.settings.endpoint.failure.breaker = breaker;
        self
    }

    /// How sockets are set up before they connect. Default: [`SocketOptions::default`], which is
    /// `TCP_NODELAY` and nothing else. What the settings under `sockets` set comes on top, and
    /// what the endpoint itself says on top of that.
    pub fn sockets(mut self, options: SocketOptions) -> Self {
        self.parts.sockets = Some(options);
        self
    }

    /// Whether connections that the pool ends at rest are closed by an RST: no `TIME_WAIT` is left
    /// behind, and the peer need not answer. Only for connections that give their socket up
    /// ([`crate::Connection::into_socket`]); unix sockets know no RST. Default: no, they end by a
    /// FIN.
    pub fn reset_evicted(mut self, reset: bool) -> Self {
        self.settings.endpoint.sockets.reset_evicted = reset;
        self
    }

    /// Who finds the addresses of host names. Default: [`crate::SystemResolver`].
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.parts.resolver = Arc::new(resolver);
        self
    }

    /// Who is told what happens in the pool. Default: nobody.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.parts.observer = Some(Arc::new(observer));
        self
    }

    /// Sees each connection once it is ready, on its shard's thread, before anybody else does. An
    /// error refuses it: the dial has failed for that cause. Default: none.
    pub fn after_connect(
        mut self,
        hook: impl Fn(&mut C::Connection, &ConnectionInfo<'_>) -> Result<(), BoxError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.parts.hooks.after_connect = Some(Box::new(hook));
        self
    }

    /// Sees each connection that was at rest before it is handed out, on the caller's thread;
    /// `false` ends it, and the caller gets another one. Must not block. Default: none.
    pub fn before_reuse(
        mut self,
        hook: impl Fn(&mut C::Connection, &ConnectionInfo<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.parts.hooks.before_reuse = Some(Box::new(hook));
        self
    }

    /// Sees each connection that comes back clean, on the caller's thread; `false` ends it. Must
    /// not block. Default: none.
    pub fn after_return(
        mut self,
        hook: impl Fn(&mut C::Connection, &ConnectionInfo<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.parts.hooks.after_return = Some(Box::new(hook));
        self
    }

    /// Hashes all endpoints alike, so that only their comparison tells them apart, for tests.
    #[cfg(any(test, feature = "sim"))]
    pub fn collide_hashes(mut self) -> Self {
        self.parts.hashing = crate::endpoint::Hashing::Same;
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
        self.check()?;
        let cores = Cores::allowed();
        let count = self.settings.shards.unwrap_or_else(|| cores.shards());
        let cores = if self.settings.pin { cores.for_pinning(count) } else { Vec::new() };
        let inner = Arc::new(Inner::new(self.settings, self.parts, self.connector, count));
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

    /// Makes a pool that runs on no thread of its own: whoever polls its shards, in whatever
    /// order, decides what happens when. One shard unless [`Self::shards`] says otherwise; what is
    /// left to chance comes from `seed`. Call it inside a tokio runtime with time enabled.
    ///
    /// # Errors
    /// When a setting is out of range.
    #[cfg(any(test, feature = "sim"))]
    pub fn simulate(
        mut self,
        script: crate::sim::Script,
        seed: u64,
    ) -> Result<crate::sim::Simulation<C>, BuildError> {
        self.check()?;
        if matches!(self.parts.hashing, crate::endpoint::Hashing::Random(_)) {
            self.parts.hashing = crate::endpoint::Hashing::Seeded(seed);
        }
        let count = self.settings.shards.unwrap_or(1);
        let inner = Arc::new(Inner::new(self.settings, self.parts, self.connector, count));
        let (shards, workers) = (0..count as u16)
            .map(|id| {
                let (id, (jobs, queue)) = (ShardId(id), mpsc::unbounded_channel());
                let Opened { driver, reason } = script.open(id);
                inner.note_driver(id, driver.name(), &reason);
                let mut worker = Worker::new(Arc::clone(&inner), id, driver, queue);
                worker.seed(seed.wrapping_add(id.get() as u64));
                let shard = Shard::new(id, None, Handle::current(), jobs);
                let script = script.clone();
                let worker = worker.run(move || Ok(script.open(id)));
                (shard, crate::sim::SimShard::new(inner.engine_id(), id, worker))
            })
            .unzip();
        Ok(crate::sim::Simulation { pool: Pool::assemble(inner, shards), shards: workers })
    }

    fn check(&mut self) -> Result<(), BuildError> {
        self.settings.check()?;
        if let Some(sockets) = &self.parts.sockets {
            sockets.check()?;
        }
        SocketOptions::default().with_settings(&self.settings.endpoint.sockets).check()?;
        for overrides in self.settings.endpoints.values() {
            let policy = overrides.apply_to(&self.settings.endpoint);
            SocketOptions::default().with_settings(&policy.sockets).check()?;
        }
        if let Some(host) = C::HOST
            && host != self.parts.host
        {
            return Err(BuildError::Setting {
                setting: "host",
                value: format!("{:?}", self.parts.host),
                allowed: "Host::TokioUring for this connector",
            });
        }
        if self.settings.backend == Backend::Auto
            && let Some(name) = std::env::var_os("COREPOOL_BACKEND")
        {
            let name = name.to_string_lossy();
            self.settings.backend = name.parse().map_err(|_| BuildError::Setting {
                setting: "COREPOOL_BACKEND",
                value: name.into_owned(),
                allowed: "auto, io-uring or epoll",
            })?;
        }
        Ok(())
    }
}

impl<C: Connector> core::fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Builder")
            .field("settings", &self.settings)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
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
        let backend = self.inner.settings.backend;
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
        let host = self.inner.parts.host;
        let (inner, id, started) = (Arc::clone(&self.inner), self.id, Rc::new(Cell::new(false)));
        let (tell, has_started) = (report.clone(), Rc::clone(&started));
        let worker = as_task(async move {
            match self.open_driver() {
                Ok(Opened { driver, reason }) => {
                    self.inner.note_driver(id, driver.name(), &reason);
                    has_started.set(true);
                    let _ = tell.send(Ok((Handle::current(), core)));
                    let worker = Worker::new(Arc::clone(&self.inner), id, driver, jobs);
                    worker.run(|| self.open_driver()).await;
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        });
        // AssertUnwindSafe: what is used after a panic is the pool, which other threads use too.
        let ended = catch_unwind(AssertUnwindSafe(|| match host {
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
        }));
        // Before it has started, whoever builds the pool learns of it: our end of `report` goes.
        if ended.is_err() && started.get() {
            bury(inner, id);
        }
    }

    /// Opens a driver on this thread, inside its runtime.
    fn open_driver(&self) -> io::Result<Opened> {
        #[cfg(any(test, feature = "sim"))]
        if let Some(script) = &self.sim {
            return Ok(script.open(self.id));
        }
        let settings = &self.inner.settings;
        let conflicts = self.inner.port_conflicts(self.id);
        backend::open(settings.backend, settings.slots_per_shard, conflicts)
    }
}

/// Runs a shard's worker as one task among the proxy's own. As the future that the runtime blocks on
/// it would cost a look at the reactor, a system call, each time that one of them wakes it.
async fn as_task(worker: impl Future<Output = ()> + 'static) {
    if let Err(ended) = tokio::task::spawn_local(worker).await
        && ended.is_panic()
    {
        resume_unwind(ended.into_panic());
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
