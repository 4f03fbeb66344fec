//! The pool itself, behind its handles: the engine, the registry of groups, and what all share.

use core::fmt;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use crossbeam_utils::CachePadded;
use tokio::sync::{Notify, oneshot};

use crate::{
    BackendReport, Connector, DialError, Endpoint, EndpointSettings, GroupStats, Observer,
    PoolEvent, Resolver, Settings, Socket, SocketOptions, SystemResolver,
    backend::PortConflicts,
    clock::{self, CoarseClock, Tick},
    config,
    endpoint::Hashing,
    engine::{
        self, Engine, GroupWaiter, Inbox, Lease, NEVER, Place, Reservation, Seat, ShardId,
        SlotIndex,
    },
    hooks::Hooks,
    leaks::Leaks,
    observer::notify,
    seats::{Key, Seats},
    sync::{AtomicBool, AtomicU32, Ordering, fence},
};

/// The pool itself.
pub(crate) struct Inner<C: Connector> {
    pub(crate) engine: PoolEngine<C>,
    pub(crate) connector: C,
    pub(crate) settings: Settings,
    pub(crate) parts: Parts<C>,
    /// The stealing threshold of callers on shards.
    pub(crate) steal_threshold: u32,
    clocks: Box<[CachePadded<CoarseClock>]>,
    /// Which shards sleep without a timer.
    asleep: Box<[CachePadded<AtomicBool>]>,
    port_conflicts: Box<[Arc<PortConflicts>]>,
    /// Read and written when a group is looked up, never by a checkout.
    groups: RwLock<HashMap<Endpoint, Seats<C>, Hashing>>,
    /// Groups off the registry that had connections left when somebody last looked.
    drained: Mutex<Vec<Seats<C>>>,
    drivers: RwLock<Vec<(&'static str, String)>>,
    /// What was in the hands of a worker that panicked, by shard.
    pub(crate) wrecks: Box<[Inbox<Wreck<C>>]>,
    panics: Box<[AtomicU32]>,
    /// Sockets on their way into the pool from outside.
    adopted: Mutex<HashMap<(ShardId, SlotIndex), Adopted>>,
    /// Made with the first policy that looks for leaks.
    leaks: OnceLock<Leaks>,
    closed: AtomicBool,
    /// Grows with each group that is closed, so that shards give up its dials.
    closes: AtomicU32,
    abandoned: AtomicBool,
    /// A shard has no connection left.
    pub(crate) emptied: Notify,
}

/// What a builder's user brings beside settings.
pub(crate) struct Parts<C: Connector> {
    pub(crate) host: config::Host,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) hooks: Hooks<C>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) sockets: Option<SocketOptions>,
    pub(crate) hashing: Hashing,
}

impl<C: Connector> Default for Parts<C> {
    fn default() -> Self {
        Self {
            host: config::Host::default(),
            resolver: Arc::new(SystemResolver),
            hooks: Hooks::default(),
            observer: None,
            sockets: None,
            hashing: Hashing::default(),
        }
    }
}

impl<C: Connector> fmt::Debug for Parts<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("host", &self.host)
            .field("resolver", &self.resolver)
            .field("hooks", &self.hooks)
            .field("observer", &self.observer.is_some())
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// A connection that was made elsewhere, and who waits to hear what became of it.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) socket: Socket,
    pub(crate) done: oneshot::Sender<Result<(), DialError>>,
}

pub(crate) type PoolEngine<C> = Engine<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolGroup<C> = engine::Group<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolLease<C> = Lease<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolSeat<C> = Arc<Seat<<C as Connector>::Connection, DialError, Key<C>>>;
pub(crate) type PoolDial<C> = Reservation<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolPlace<C> = Place<<C as Connector>::Connection, DialError, Key<C>>;
pub(crate) type PoolWaiter<C> = Arc<GroupWaiter<<C as Connector>::Connection, DialError, Key<C>>>;

/// What a shard owes the engine although its worker is gone.
pub(crate) enum Wreck<C: Connector> {
    Dial(PoolDial<C>),
    Place(PoolPlace<C>),
}

impl<C: Connector> Inner<C> {
    pub(crate) fn new(settings: Settings, parts: Parts<C>, connector: C, shards: usize) -> Self {
        let start = clock::now();
        // Below twice the shards, each shard is better served by a connection of its own: the
        // rule that HAProxy gives for its pool-low-conn.
        let steal_threshold = settings.steal_threshold.unwrap_or(2 * shards as u32);
        let slots = settings.slots_per_shard;
        Self {
            engine: Engine::with_totals(shards, slots, &config::totals(&settings)),
            connector,
            steal_threshold,
            clocks: (0..shards).map(|_| CachePadded::new(CoarseClock::new(start))).collect(),
            asleep: (0..shards).map(|_| CachePadded::new(AtomicBool::new(false))).collect(),
            port_conflicts: (0..shards).map(|_| Arc::default()).collect(),
            groups: RwLock::new(HashMap::with_hasher(parts.hashing.clone())),
            drained: Mutex::new(Vec::new()),
            drivers: RwLock::new(vec![("none", String::new()); shards]),
            wrecks: (0..shards).map(|_| Inbox::new()).collect(),
            panics: (0..shards).map(|_| AtomicU32::new(0)).collect(),
            adopted: Mutex::new(HashMap::new()),
            leaks: OnceLock::new(),
            closed: AtomicBool::new(false),
            closes: AtomicU32::new(0),
            abandoned: AtomicBool::new(false),
            emptied: Notify::new(),
            settings,
            parts,
        }
    }

    #[inline]
    pub(crate) fn clock(&self, shard: ShardId) -> &CoarseClock {
        &self.clocks[shard.get()]
    }

    /// The time, for those that wait: a shard that sleeps has a clock that stands still.
    pub(crate) fn read_clock(&self) -> Tick {
        self.clocks[0].read()
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.clocks.len()
    }

    pub(crate) fn port_conflicts(&self, shard: ShardId) -> &Arc<PortConflicts> {
        &self.port_conflicts[shard.get()]
    }

    pub(crate) fn note_driver(&self, shard: ShardId, name: &'static str, reason: &str) {
        let mut drivers = self.drivers.write().unwrap_or_else(PoisonError::into_inner);
        drivers[shard.get()] = (name, reason.to_owned());
    }

    /// A shard's worker has panicked.
    pub(crate) fn note_panic(&self, shard: ShardId) {
        // Relaxed: a counter.
        self.panics[shard.get()].fetch_add(1, Ordering::Relaxed);
    }

    /// How often a shard's worker has panicked.
    pub(crate) fn panics(&self, shard: ShardId) -> u64 {
        // Relaxed: a snapshot.
        u64::from(self.panics[shard.get()].load(Ordering::Relaxed))
    }

    pub(crate) fn drivers(&self) -> Vec<(&'static str, String)> {
        self.drivers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A shard goes to sleep without a timer, or has woken.
    pub(crate) fn note_asleep(&self, shard: ShardId, asleep: bool) {
        // SeqCst: pairs with the fence in `rouse`. Either the shard sees what there is to tend after
        // it has said that it sleeps, or who made it sees that the shard sleeps. A fence, because
        // what there is to tend is read and written without that order.
        self.asleep[shard.get()].store(asleep, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Wakes a shard that sleeps without a timer, so that it looks for what there is to tend.
    pub(crate) fn rouse(&self, shard: ShardId) {
        // SeqCst: see `note_asleep`.
        fence(Ordering::SeqCst);
        if self.asleep[shard.get()].load(Ordering::Relaxed) {
            self.engine.wake_driver(shard);
        }
    }

    /// A group was closed.
    pub(crate) fn note_close(&self) {
        // Release: pairs with the Acquire in `closes`; who sees it sees that the group is closed.
        self.closes.fetch_add(1, Ordering::Release);
    }

    /// How many groups were closed so far.
    pub(crate) fn closes(&self) -> u32 {
        // Acquire: see `note_close`.
        self.closes.load(Ordering::Acquire)
    }

    pub(crate) fn note_empty(&self) {
        self.emptied.notify_waiters();
    }

    /// Whether no handle is left: workers end when their connections are closed.
    pub(crate) fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the Release in `abandon`.
        self.abandoned.load(Ordering::Acquire)
    }

    /// No handle is left.
    pub(crate) fn abandon(&self) {
        self.close_groups();
        self.groups.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.drained.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Release: pairs with the Acquire in `is_abandoned`.
        self.abandoned.store(true, Ordering::Release);
    }

    pub(crate) fn slots_in_use(&self) -> usize {
        (0..self.shard_count()).map(|shard| self.engine.slots_in_use(ShardId(shard as u16))).sum()
    }

    /// Whether no slot is taken and every permit has come back.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots_in_use() == 0 && self.groups().iter().all(|seats| seats.is_empty(self))
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Relaxed: a flag that guards nothing; the groups' own marks decide.
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn backend_report(&self) -> BackendReport {
        let drivers = self.drivers();
        let first = drivers.first();
        let selected = first.map_or("none", |(name, _)| name);
        let same = drivers.iter().all(|(name, _)| *name == selected);
        BackendReport {
            requested: self.settings.backend,
            selected: if same { selected } else { "mixed" },
            reason: first.map(|(_, reason)| reason.clone()).unwrap_or_default(),
        }
    }

    /// Every group that is registered.
    pub(crate) fn groups(&self) -> Vec<Seats<C>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().cloned().collect()
    }

    pub(crate) fn seats(self: &Arc<Self>, endpoint: Endpoint) -> Seats<C> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = groups.get(&endpoint) {
            return seats.clone();
        }
        drop(groups);
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if groups.len() >= GROUPS_KEPT {
            groups.retain(|_, seats| seats.is_shared() || !seats.is_unused(self));
        }
        let mut made = false;
        let entry = groups.entry(endpoint.clone()).or_insert_with(|| {
            made = true;
            Seats::new(self, &endpoint)
        });
        let seats = entry.clone();
        // Checked under the lock that `close_groups` holds when it sets the mark.
        let is_closed = self.closed.load(Ordering::Relaxed);
        drop(groups);
        if is_closed {
            seats.close(self);
        }
        if made {
            seats.begin(self);
        }
        seats
    }

    /// Takes a group off the registry, if it is this one.
    pub(crate) fn forget(&self, gone: &Seats<C>) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if groups.get(gone.endpoint()).is_some_and(|seats| seats.is(gone)) {
            groups.remove(gone.endpoint());
            let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
            drained.retain(|seats| !seats.is_empty(self));
            drained.push(gone.clone());
        }
    }

    /// Groups that were drained, also those with connections left.
    pub(crate) fn drained(&self) -> Vec<Seats<C>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn group_stats(&self, seats: &Seats<C>) -> GroupStats {
        let mut stats = GroupStats::new(seats.endpoint().clone());
        let now = self.read_clock();
        for group in seats.groups() {
            let counts = self.engine.counts(group);
            stats.breaker = stats.breaker.max(group.breaker_state(now));
            stats.idle += counts.idle;
            stats.in_use += counts.live.saturating_sub(counts.idle + counts.dialing);
            stats.overflow += counts.overflow;
            stats.dialing += counts.dialing;
            stats.waiting += counts.waiting;
            stats.opened += counts.opened;
            stats.reused += counts.reused;
            stats.stolen += counts.stolen;
            stats.dial_failures += counts.dial_failures;
            let key = group.key();
            stats.connect_time.add(&key.connect_time.snapshot());
            stats.wait_time.add(&key.wait_time.snapshot());
            for ((_, sum), count) in stats.closed.iter_mut().zip(counts.closed) {
                *sum += count;
            }
        }
        stats
    }

    pub(crate) fn close_groups(&self) {
        let groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: read under the same lock.
        self.closed.store(true, Ordering::Relaxed);
        let seats: Vec<_> = groups.values().cloned().collect();
        drop(groups);
        // Not under the lock: shared connections go back by code that is not ours.
        for seats in seats {
            seats.close(self);
        }
    }

    /// Where leaks are looked for, if they are.
    #[inline]
    pub(crate) fn leaks(&self) -> Option<&Leaks> {
        self.leaks.get()
    }

    /// Leaves a socket for the shard that adopts it.
    pub(crate) fn leave(&self, shard: ShardId, slot: SlotIndex, adopted: Adopted) {
        let mut sockets = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.insert((shard, slot), adopted);
    }

    /// The socket that was left for a slot.
    pub(crate) fn fetch(&self, shard: ShardId, slot: SlotIndex) -> Option<Adopted> {
        let mut sockets = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.remove(&(shard, slot))
    }

    pub(crate) fn tell(&self, event: PoolEvent<'_>) {
        notify(&self.parts.observer, event);
    }

    /// Tells this pool from others in the same process.
    #[inline]
    pub(crate) fn engine_id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// Groups that are kept although nobody uses them.
const GROUPS_KEPT: usize = 1024;

impl<C: Connector> Inner<C> {
    /// Makes the table of who holds what, once a policy asks for it.
    pub(crate) fn look_for_leaks(&self, settings: &EndpointSettings) {
        if settings.health.leak_after_ms.is_some_and(|after| after != NEVER) {
            let (shards, slots) = (self.shard_count(), self.engine.slots_per_shard());
            self.leaks.get_or_init(|| Leaks::new(shards, slots));
        }
    }
}
