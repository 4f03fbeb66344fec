//! The pool's handle.

use core::{fmt, time::Duration};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::{
    BackendReport, Builder, Connector, Endpoint, Group, GroupStats, PoolStats, Shard, ShardStats,
    inner::Inner,
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
    /// Held while the limits of the pool change: one caller at a time.
    resizing: Mutex<()>,
    /// Whether the pool ends with it. Not with what it holds for itself.
    is_owner: bool,
}

/// A handle that keeps no pool.
pub(crate) struct WeakPool<C: Connector>(Weak<Keep<C>>);

impl<C: Connector> WeakPool<C> {
    pub(crate) fn upgrade(&self) -> Option<Pool<C>> {
        self.0.upgrade().map(Pool)
    }
}

/// What a close or a drain left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "connections may be left in use"]
#[non_exhaustive]
pub struct CloseReport {
    /// Connections still in use, or still being closed, when the deadline came.
    pub left: usize,
    /// To which endpoints these led, and how many to each.
    pub endpoints: Vec<(Endpoint, usize)>,
}

impl<C: Connector> Pool<C> {
    /// Settings for a pool of what `connector` makes.
    pub fn builder(connector: C) -> Builder<C> {
        Builder::new(connector)
    }

    pub(crate) fn assemble(inner: Arc<Inner<C>>, shards: Vec<Shard>) -> Self {
        let shards = shards.into_boxed_slice();
        Self(Arc::new(Keep { inner, shards, resizing: Mutex::new(()), is_owner: true }))
    }

    /// A handle for a checkout of the pool's own. It does not keep the pool from its end, and has no
    /// shards to show.
    pub(crate) fn loose(&self) -> Self {
        let (inner, shards) = (Arc::clone(self.inner()), Box::default());
        Self(Arc::new(Keep { inner, shards, resizing: Mutex::new(()), is_owner: false }))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<C>> {
        &self.0.inner
    }

    pub(crate) fn downgrade(&self) -> WeakPool<C> {
        WeakPool(Arc::downgrade(&self.0))
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
        let shards = self
            .shards()
            .iter()
            .zip(inner.drivers())
            .map(|(shard, (backend, reason))| ShardStats {
                id: shard.id(),
                core: shard.core(),
                backend,
                reason,
                slots: inner.engine.slots_per_shard(),
                slots_in_use: inner.engine.slots_in_use(shard.shard_id()),
                port_conflicts: inner.port_conflicts(shard.shard_id()).get(),
                panics: inner.panics(shard.shard_id()),
            })
            .collect();
        let mut endpoints: Vec<GroupStats> =
            inner.groups().iter().map(|seats| inner.group_stats(seats)).collect();
        endpoints.sort_by_cached_key(|group| group.endpoint.to_string());
        PoolStats {
            backend: inner.backend_report(),
            live_total: inner.engine.total_live(),
            idle_total: inner.engine.total_idle(),
            shards,
            endpoints,
        }
    }

    /// Changes the limits of the whole pool. A limit can be changed where there was one from the
    /// start ([`Builder::max_live_total`] and its siblings); `None` leaves it as it is.
    ///
    /// What rests above a lowered limit is closed at once, the longest at rest first; what is in
    /// use stays.
    pub fn resize_totals(
        &self,
        max_live: Option<u32>,
        max_idle: Option<u32>,
        max_dialing: Option<u32>,
    ) {
        let limits = crate::engine::TotalLimits { max_live, max_idle, max_dialing };
        let _one = self.0.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner().resize_totals(&limits);
    }

    /// Closes up to `count` connections at rest, of whatever endpoints, the longest at rest first.
    /// Returns how many there were.
    pub fn evict_idle(&self, count: usize) -> usize {
        self.inner().engine.relieve(count)
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner().is_closed()
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
    /// those in use when they come back. Waits at most `deadline` for that, and says what was
    /// left.
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
        wait_until_empty(inner, deadline, || inner.is_empty()).await;
        let mut groups = inner.groups();
        groups.extend(inner.drained());
        let counts = groups.iter().map(|seats| (seats.endpoint().clone(), seats.live(inner)));
        let mut endpoints: Vec<_> = counts.filter(|(_, live)| *live > 0).collect();
        endpoints.sort_by_cached_key(|(endpoint, _)| endpoint.to_string());
        // A drained group and its successor are of the same endpoint.
        endpoints.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        CloseReport { left: inner.slots_in_use(), endpoints }
    }
}

/// Waits until `is_empty`, which workers make true and tell, or for `deadline`.
pub(crate) async fn wait_until_empty<C: Connector>(
    inner: &Inner<C>,
    deadline: Option<Duration>,
    is_empty: impl Fn() -> bool,
) {
    let emptied = async {
        loop {
            let emptied = inner.emptied.notified();
            tokio::pin!(emptied);
            // Listen first, look second, so that the last close in between is not missed.
            emptied.as_mut().enable();
            if is_empty() {
                break;
            }
            // Workers tell when they are empty; one group of several may be so before.
            let _ = tokio::time::timeout(CLOSE_RECHECK, emptied).await;
        }
    };
    match deadline {
        None => emptied.await,
        Some(deadline) => drop(tokio::time::timeout(deadline, emptied).await),
    }
}

/// How often a close looks for itself.
const CLOSE_RECHECK: Duration = Duration::from_millis(50);

impl<C: Connector> Drop for Keep<C> {
    fn drop(&mut self) {
        if !self.is_owner {
            return;
        }
        self.inner.abandon();
        for shard in &self.shards {
            self.inner.engine.wake_driver(shard.shard_id());
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
