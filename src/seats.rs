//! An endpoint in a pool: what its group is the group of, and its seat on every shard.

use core::{fmt, hash::BuildHasher, ops::Deref, time::Duration};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use crate::{
    Connector, Endpoint, EndpointSettings, config,
    engine::ShardId,
    histogram::Histogram,
    inner::{Inner, PoolGroup, PoolSeat},
    policy::Policy,
    resolve::SharedNames,
    streams::AnyStreams,
};

/// An endpoint's seat on every shard. Cheap to clone, and one hop from each seat.
pub(crate) struct Seats<C: Connector>(Arc<[PoolSeat<C>]>);

/// The same, by a handle that does not keep them.
pub(crate) struct WeakSeats<C: Connector>(Weak<[PoolSeat<C>]>);

/// What a group is the group of: what each return asks for, and the rest out of its way. Two words,
/// so that it fits into the line of a group that a hit reads.
pub(crate) struct Key<C: Connector> {
    /// A guard finds its pool by the seat of its connection, so that a checkout touches no
    /// reference count that shards share. The circle (pool, registry, group, pool) is broken
    /// when the last handle is dropped.
    inner: Arc<Inner<C>>,
    about: Box<About>,
}

/// What is known of an endpoint.
pub(crate) struct About {
    endpoint: Endpoint,
    /// Which shard tends it.
    home: ShardId,
    policy: RwLock<Arc<Policy>>,
    /// The addresses of a host name.
    names: Option<SharedNames>,
    /// Made when somebody first asks for streams.
    streams: OnceLock<Arc<dyn AnyStreams>>,
    /// How long dials took that succeeded.
    pub(crate) connect_time: Histogram,
    /// How long callers waited that were served.
    pub(crate) wait_time: Histogram,
}

impl<C: Connector> Seats<C> {
    pub(crate) fn new(inner: &Arc<Inner<C>>, endpoint: &Endpoint) -> Self {
        let (shards, now) = (inner.shard_count(), inner.read_clock());
        let settings = inner.settings.for_endpoint(endpoint);
        let limits = config::limits(&settings);
        let owed = settings.capacity.warm_up.max(settings.capacity.min_idle);
        inner.look_for_leaks(&settings);
        let policy = Arc::new(Policy::new(inner, endpoint, settings));
        // Any shard may tend a group; this spreads them.
        let home = inner.parts.hashing.hash_one(endpoint) % shards as u64;
        let about = || About {
            endpoint: endpoint.clone(),
            home: ShardId(home as u16),
            policy: RwLock::new(Arc::clone(&policy)),
            names: endpoint
                .as_host()
                .map(|(name, port)| SharedNames::new(name, port, policy.lifetimes())),
            streams: OnceLock::new(),
            connect_time: Histogram::new(),
            wait_time: Histogram::new(),
        };
        let key = || Key { inner: Arc::clone(inner), about: Box::new(about()) };
        let group = |first: u16, lanes| {
            let group = PoolGroup::<C>::with_key(key(), ShardId(first), lanes, limits, now);
            group.begin(owed);
            PoolGroup::<C>::seats(&Arc::new(group)).into_vec()
        };
        Self(if C::SHARD_LOCAL {
            (0..shards as u16).flat_map(|shard| group(shard, 1)).collect()
        } else {
            group(0, shards).into()
        })
    }

    /// Dials what the policy wants to have from the start, once the group can be found.
    pub(crate) fn begin(&self, inner: &Inner<C>) {
        let now = inner.read_clock();
        for seats in self.engine_groups() {
            inner.engine.dial_owed(seats, now);
        }
        self.rouse(inner);
    }

    /// Sees to it that who tends the group is awake.
    pub(crate) fn rouse(&self, inner: &Inner<C>) {
        if C::SHARD_LOCAL {
            for seat in &*self.0 {
                inner.rouse(seat.shard());
            }
        } else {
            inner.rouse(self.key().home);
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.key().endpoint
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.key().policy()
    }

    /// Which shard tends it.
    pub(crate) fn home(&self) -> ShardId {
        self.key().home
    }

    /// The shared connections of the endpoint.
    pub(crate) fn streams(
        &self,
        make: impl FnOnce() -> Arc<dyn AnyStreams>,
    ) -> &Arc<dyn AnyStreams> {
        let key = self.key();
        let mut made = false;
        let streams = key.streams.get_or_init(|| {
            made = true;
            make()
        });
        if made {
            // Under the lock that a change of the policy holds: either it finds the streams, or they
            // find the new policy.
            let policy = key.policy.read().unwrap_or_else(PoisonError::into_inner);
            streams.configure(&policy.settings);
        }
        streams
    }

    /// The same, if there are any.
    pub(crate) fn any_streams(&self) -> Option<&Arc<dyn AnyStreams>> {
        self.key().streams.get()
    }

    /// A caller was served after so long a wait.
    pub(crate) fn note_wait(&self, took: Duration) {
        self.key().wait_time.record(took.as_micros() as u64);
    }

    /// Changes the policy of the endpoint.
    pub(crate) fn set_policy(&self, inner: &Arc<Inner<C>>, settings: EndpointSettings) {
        let limits = config::limits(&settings);
        inner.look_for_leaks(&settings);
        let policy = Arc::new(Policy::new(inner, self.endpoint(), settings));
        let now = inner.read_clock();
        for seats in self.engine_groups() {
            let key = seats[0].group().key();
            // One caller at a time resizes: this lock is held meanwhile.
            let mut current = key.policy.write().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::clone(&policy);
            // Streams that are made from now on find the new policy.
            if let Some(streams) = key.streams.get() {
                streams.configure(&policy.settings);
            }
            if let Some(names) = key.names() {
                names.set_lifetimes(policy.lifetimes());
            }
            inner.engine.resize(seats, &limits, now);
        }
        self.rouse(inner);
    }

    /// Whether these are the seats of the same group.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether anybody but the caller has them.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(crate) fn downgrade(&self) -> WeakSeats<C> {
        WeakSeats(Arc::downgrade(&self.0))
    }

    /// The seat on a shard.
    #[inline]
    pub(crate) fn on(&self, shard: ShardId) -> &PoolSeat<C> {
        &self.0[shard.get()]
    }

    /// The seats of the engine's groups: of one, or of one for each shard.
    pub(crate) fn engine_groups(&self) -> impl Iterator<Item = &[PoolSeat<C>]> {
        let lanes = if C::SHARD_LOCAL { 1 } else { self.0.len() };
        self.0.chunks(lanes)
    }

    /// The engine's groups: one, or one for each shard.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<PoolGroup<C>>> {
        self.engine_groups().map(|seats| seats[0].group())
    }

    /// What a shard is to tend of it.
    pub(crate) fn to_tend(&self, shard: ShardId) -> Option<&[PoolSeat<C>]> {
        if C::SHARD_LOCAL {
            Some(&self.0[shard.get()..=shard.get()])
        } else {
            (shard == self.key().home).then_some(&self.0[..])
        }
    }

    pub(crate) fn close(&self, inner: &Inner<C>) {
        for group in self.groups() {
            inner.engine.close(group);
        }
        if let Some(streams) = self.any_streams() {
            streams.close();
        }
        inner.note_close();
        for seat in &*self.0 {
            inner.engine.wake_driver(seat.shard());
        }
    }

    /// Whether no connection and no dial is left.
    pub(crate) fn is_empty(&self, inner: &Inner<C>) -> bool {
        self.live(inner) == 0
    }

    /// Connections, dials and closes under way.
    pub(crate) fn live(&self, inner: &Inner<C>) -> usize {
        let count = |group: &Arc<PoolGroup<C>>| {
            let counts = inner.engine.counts(group);
            counts.live.max(counts.dialing) as usize
        };
        self.groups().map(count).sum()
    }

    /// Connections at rest.
    pub(crate) fn idle(&self, inner: &Inner<C>) -> usize {
        self.groups().map(|group| inner.engine.counts(group).idle as usize).sum()
    }

    pub(crate) fn is_unused(&self, inner: &Inner<C>) -> bool {
        self.groups().all(|group| {
            let counts = inner.engine.counts(group);
            counts.live == 0 && counts.waiting == 0
        })
    }

    fn key(&self) -> &Key<C> {
        self.0[0].group().key()
    }
}

impl<C: Connector> Clone for Seats<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connector> WeakSeats<C> {
    pub(crate) fn upgrade(&self) -> Option<Seats<C>> {
        self.0.upgrade().map(Seats)
    }
}

impl<C: Connector> Key<C> {
    #[inline]
    pub(crate) fn inner(&self) -> &Inner<C> {
        &self.inner
    }
}

impl<C: Connector> Deref for Key<C> {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
}

impl About {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn home(&self) -> ShardId {
        self.home
    }

    pub(crate) fn names(&self) -> Option<&SharedNames> {
        self.names.as_ref()
    }
}

impl<C: Connector> fmt::Debug for Key<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}
