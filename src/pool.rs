//! The pool: shards, groups, and their end.

use core::{fmt, time::Duration};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use crate::{
    BackendReport, Builder, CloseReason, Connector, DialError, Endpoint, Group, GroupStats,
    PoolStats, Shard, ShardStats,
    clock::{self, CoarseClock},
    config::Config,
    engine::{self, Engine, GroupWaiter, Lease, Seat, ShardId},
    sync::{AtomicBool, Ordering},
};

/// A pool of connections to many endpoints, spread over shards.
///
/// A handle: clones share the pool. When the last handle and the last [`Group`] are dropped, idle
/// connections are closed at once and those in use when they come back; then the shards' threads
/// end. [`Pool::close`] waits for that.
pub struct Pool<C: Connector>(Arc<Keep<C>>);

/// What handles share, and guards and workers do not: its drop ends the pool.
struct Keep<C: Connector> {
    inner: Arc<Inner<C>>,
    shards: Box<[Shard]>,
}

/// The pool itself.
pub(crate) struct Inner<C: Connector> {
    pub(crate) engine: PoolEngine<C>,
    pub(crate) connector: C,
    pub(crate) config: Config,
    /// The stealing threshold of callers on shards.
    pub(crate) steal_threshold: u32,
    clocks: Box<[CachePadded<CoarseClock>]>,
    /// Read and written when a group is looked up, never by a checkout.
    groups: RwLock<HashMap<Endpoint, Arc<Seats<C>>>>,
    drivers: RwLock<Vec<(&'static str, String)>>,
    closed: AtomicBool,
    abandoned: AtomicBool,
    /// A shard has no connection left.
    emptied: Notify,
}

/// What a group is the group of.
pub(crate) struct Key<C: Connector> {
    endpoint: Endpoint,
    /// A guard finds its pool by the seat of its connection, so that a checkout touches no
    /// reference count that shards share. The circle (pool, registry, group, pool) is broken
    /// when the last handle is dropped.
    inner: Arc<Inner<C>>,
}

pub(crate) type PoolEngine<C> = Engine<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolGroup<C> = engine::Group<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolLease<C> = Lease<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolSeat<C> = Arc<Seat<<C as Connector>::Connection, DialError, Key<C>>>;
pub(crate) type PoolWaiter<C> = Arc<GroupWaiter<<C as Connector>::Connection, DialError, Key<C>>>;

/// An endpoint's seat on every shard.
pub(crate) struct Seats<C: Connector>(Box<[PoolSeat<C>]>);

/// What a close left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "connections may be left in use"]
#[non_exhaustive]
pub struct CloseReport {
    /// Connections still in use, or still being closed, when the deadline came.
    pub left: usize,
}

impl<C: Connector> Pool<C> {
    /// Settings for a pool of what `connector` makes.
    pub fn builder(connector: C) -> Builder<C> {
        Builder::new(connector)
    }

    pub(crate) fn assemble(inner: Arc<Inner<C>>, shards: Vec<Shard>) -> Self {
        Self(Arc::new(Keep { inner, shards: shards.into_boxed_slice() }))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<C>> {
        &self.0.inner
    }

    /// The group of an endpoint, made at its first mention.
    ///
    /// Look it up once and keep the handle: the look-up hashes and takes a read lock, a checkout
    /// from the handle does neither. A group that has no handle, no connection and no waiter is
    /// forgotten when the registry has grown past 1024 groups, and so are its counters.
    pub fn group(&self, endpoint: impl Into<Endpoint>) -> Group<C> {
        Group::new(self.clone(), self.inner().seats(endpoint.into()))
    }

    /// The shards, for tasks of one's own on their threads.
    pub fn shards(&self) -> &[Shard] {
        &self.0.shards
    }

    /// What the pool runs on, and why.
    pub fn backend(&self) -> BackendReport {
        self.inner().backend_report()
    }

    /// A snapshot of everything.
    pub fn stats(&self) -> PoolStats {
        let inner = self.inner();
        let drivers = inner.drivers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let shards = self
            .shards()
            .iter()
            .zip(drivers)
            .map(|(shard, (backend, reason))| ShardStats {
                id: shard.id(),
                core: shard.core(),
                backend,
                reason,
                slots: inner.engine.slots_per_shard(),
                slots_in_use: inner.engine.slots_in_use(shard.shard_id()),
            })
            .collect();
        let groups = inner.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut endpoints: Vec<GroupStats> =
            groups.values().map(|seats| inner.group_stats(seats)).collect();
        endpoints.sort_by_cached_key(|group| group.endpoint.to_string());
        PoolStats { backend: inner.backend_report(), shards, endpoints }
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        // Relaxed: a flag that guards nothing; the groups' own marks decide.
        self.inner().closed.load(Ordering::Relaxed)
    }

    /// Closes the pool for good and waits until every connection is closed, however long their
    /// users hold on to them; see [`Self::close_within`].
    ///
    /// # Cancel safety
    /// The pool stays closed when the future is dropped; only the waiting ends.
    pub async fn close(&self) {
        let _ = self.finish(None).await;
    }

    /// Closes the pool for good: callers that wait fail with
    /// [`CheckoutError::Closed`](crate::CheckoutError::Closed), idle connections are closed now,
    /// those in use when they come back. Waits at most `deadline` for that.
    ///
    /// The shards' threads go on until the last handle is dropped.
    ///
    /// # Cancel safety
    /// As for [`Self::close`].
    pub async fn close_within(&self, deadline: Duration) -> CloseReport {
        self.finish(Some(deadline)).await
    }

    async fn finish(&self, deadline: Option<Duration>) -> CloseReport {
        let inner = self.inner();
        inner.close_groups();
        let emptied = async {
            loop {
                let emptied = inner.emptied.notified();
                tokio::pin!(emptied);
                // Listen first, look second, so that the last close in between is not missed.
                emptied.as_mut().enable();
                if inner.is_empty() {
                    break;
                }
                // Workers tell; a caller that takes and gives back a permit meanwhile does not.
                let _ = tokio::time::timeout(CLOSE_RECHECK, emptied).await;
            }
        };
        match deadline {
            None => emptied.await,
            Some(deadline) => drop(tokio::time::timeout(deadline, emptied).await),
        }
        CloseReport { left: inner.slots_in_use() }
    }
}

impl<C: Connector> Inner<C> {
    pub(crate) fn new(config: Config, connector: C, shards: usize) -> Self {
        let start = clock::now();
        // Below twice the shards, each shard is better served by a connection of its own: the
        // rule that HAProxy gives for its pool-low-conn.
        let steal_threshold = config.steal_threshold.unwrap_or(2 * shards as u32);
        Self {
            engine: Engine::new(shards, config.slots_per_shard),
            connector,
            steal_threshold,
            clocks: (0..shards).map(|_| CachePadded::new(CoarseClock::new(start))).collect(),
            groups: RwLock::new(HashMap::new()),
            drivers: RwLock::new(vec![("none", String::new()); shards]),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            emptied: Notify::new(),
            config,
        }
    }

    #[inline]
    pub(crate) fn clock(&self, shard: ShardId) -> &CoarseClock {
        &self.clocks[shard.get()]
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.clocks.len()
    }

    pub(crate) fn note_driver(&self, shard: ShardId, name: &'static str, reason: &str) {
        let mut drivers = self.drivers.write().unwrap_or_else(PoisonError::into_inner);
        drivers[shard.get()] = (name, reason.to_owned());
    }

    pub(crate) fn note_empty(&self) {
        self.emptied.notify_waiters();
    }

    /// Whether no handle is left: workers end when their connections are closed.
    pub(crate) fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the Release in `Keep::drop`.
        self.abandoned.load(Ordering::Acquire)
    }

    fn slots_in_use(&self) -> usize {
        (0..self.shard_count()).map(|shard| self.engine.slots_in_use(ShardId(shard as u16))).sum()
    }

    /// Whether no slot is taken and every permit has come back.
    fn is_empty(&self) -> bool {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        self.slots_in_use() == 0
            && groups.values().flat_map(|seats| seats.groups()).all(|group| {
                let counts = self.engine.counts(group);
                counts.live == 0 && counts.dialing == 0
            })
    }

    fn backend_report(&self) -> BackendReport {
        let drivers = self.drivers.read().unwrap_or_else(PoisonError::into_inner);
        let first = drivers.first();
        let selected = first.map_or("none", |(name, _)| name);
        let same = drivers.iter().all(|(name, _)| *name == selected);
        BackendReport {
            requested: self.config.backend,
            selected: if same { selected } else { "mixed" },
            reason: first.map(|(_, reason)| reason.clone()).unwrap_or_default(),
        }
    }

    fn seats(self: &Arc<Self>, endpoint: Endpoint) -> Arc<Seats<C>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = groups.get(&endpoint) {
            return Arc::clone(seats);
        }
        drop(groups);
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if groups.len() >= GROUPS_KEPT {
            groups.retain(|_, seats| Arc::strong_count(seats) > 1 || !seats.is_unused(self));
        }
        let seats =
            groups.entry(endpoint.clone()).or_insert_with(|| Arc::new(Seats::new(self, &endpoint)));
        // Checked under the lock that `close_groups` takes after it has set the mark.
        if self.closed.load(Ordering::Relaxed) {
            seats.close(self);
        }
        Arc::clone(seats)
    }

    pub(crate) fn group_stats(&self, seats: &Seats<C>) -> GroupStats {
        let mut stats = GroupStats {
            endpoint: seats.endpoint().clone(),
            idle: 0,
            in_use: 0,
            dialing: 0,
            waiting: 0,
            opened: 0,
            reused: 0,
            stolen: 0,
            dial_failures: 0,
            closed: CloseReason::ALL.iter().map(|reason| (*reason, 0)).collect(),
        };
        for group in seats.groups() {
            let counts = self.engine.counts(group);
            stats.idle += counts.idle;
            stats.in_use += counts.live.saturating_sub(counts.idle + counts.dialing);
            stats.dialing += counts.dialing;
            stats.waiting += counts.waiting;
            stats.opened += counts.opened;
            stats.reused += counts.reused;
            stats.stolen += counts.stolen;
            stats.dial_failures += counts.dial_failures;
            for ((_, sum), count) in stats.closed.iter_mut().zip(counts.closed) {
                *sum += count;
            }
        }
        stats
    }

    fn close_groups(&self) {
        let groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: read under the same lock.
        self.closed.store(true, Ordering::Relaxed);
        for seats in groups.values() {
            seats.close(self);
        }
    }
}

/// Groups that are kept although nobody uses them.
const GROUPS_KEPT: usize = 1024;
/// How often a close looks for itself.
const CLOSE_RECHECK: Duration = Duration::from_millis(50);

impl<C: Connector> Seats<C> {
    fn new(inner: &Arc<Inner<C>>, endpoint: &Endpoint) -> Self {
        let shards = inner.shard_count();
        let limits = inner.config.limits();
        let key = || Key { endpoint: endpoint.clone(), inner: Arc::clone(inner) };
        let group = |first: u16, lanes| {
            let group = PoolGroup::<C>::with_key(key(), ShardId(first), lanes, limits);
            PoolGroup::<C>::seats(&Arc::new(group)).into_vec()
        };
        Self(if C::SHARD_LOCAL {
            (0..shards as u16).flat_map(|shard| group(shard, 1)).collect()
        } else {
            group(0, shards).into_boxed_slice()
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0[0].group().key().endpoint
    }

    /// The seat on a shard.
    #[inline]
    pub(crate) fn on(&self, shard: ShardId) -> &PoolSeat<C> {
        &self.0[shard.get()]
    }

    /// The engine's groups: one, or one for each shard.
    fn groups(&self) -> impl Iterator<Item = &Arc<PoolGroup<C>>> {
        let count = if C::SHARD_LOCAL { self.0.len() } else { 1 };
        self.0[..count].iter().map(|seat| seat.group())
    }

    fn close(&self, inner: &Inner<C>) {
        for group in self.groups() {
            inner.engine.close(group);
        }
    }

    fn is_unused(&self, inner: &Inner<C>) -> bool {
        self.groups().all(|group| {
            let counts = inner.engine.counts(group);
            counts.live == 0 && counts.waiting == 0
        })
    }
}

impl<C: Connector> Key<C> {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner<C> {
        &self.inner
    }
}

impl<C: Connector> Drop for Keep<C> {
    fn drop(&mut self) {
        let inner = &self.inner;
        inner.close_groups();
        inner.groups.write().unwrap_or_else(PoisonError::into_inner).clear();
        // Release: pairs with the Acquire in `is_abandoned`.
        inner.abandoned.store(true, Ordering::Release);
        for shard in &self.shards {
            inner.engine.wake_driver(shard.shard_id());
        }
    }
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("backend", &self.backend().selected)
            .field("shards", &self.shards().len())
            .finish_non_exhaustive()
    }
}

impl<C: Connector> fmt::Debug for Key<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}
