//! A group handle: checkouts from one endpoint.

use core::{
    fmt,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    CheckoutError, Connector, Endpoint, GroupStats, Pool, PoolEvent, Pooled, clock,
    config::{DIRECT, OVERFLOW, WAIT},
    engine::{NEVER, NoDial, Outcome, Refused, ShardId},
    inner::{Inner, PoolLease, PoolSeat, PoolWaiter},
    leaks::Caller,
    look::When,
    policy::millis,
    pool::WeakPool,
    seats::{Key, Seats, WeakSeats},
    shard,
};

/// A handle to the connections of one endpoint. Cheap to clone; keep it where the checkouts are.
pub struct Group<C: Connector> {
    pool: Pool<C>,
    seats: Seats<C>,
}

/// A handle that keeps neither pool nor group.
pub(crate) struct WeakGroup<C: Connector> {
    pool: WeakPool<C>,
    seats: WeakSeats<C>,
}

impl<C: Connector> WeakGroup<C> {
    pub(crate) fn upgrade(&self) -> Option<Group<C>> {
        Some(Group { pool: self.pool.upgrade()?, seats: self.seats.upgrade()? })
    }
}

/// What a warm-up achieved.
#[derive(Debug)]
#[must_use = "a warm-up may have failed"]
#[non_exhaustive]
pub struct WarmUp {
    /// Connections that are ready.
    pub ready: usize,
    /// Why the others are not.
    pub failures: Vec<CheckoutError>,
}

impl<C: Connector> Group<C> {
    pub(crate) fn new(pool: Pool<C>, seats: Seats<C>) -> Self {
        Self { pool, seats }
    }

    /// Which endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        self.seats.endpoint()
    }

    /// A connection: an idle one, or the first that comes back or is dialled.
    ///
    /// On a shard's thread the shard's own connections come first. On any other thread each
    /// thread keeps to one shard; the connection's readiness is then reported by that shard.
    ///
    /// # Errors
    /// [`CheckoutError`] says which endpoint and why. A failed dial fails one caller.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a dial under way goes on and is pooled, a connection
    /// that was just handed over goes to the next in line or to rest.
    ///
    /// # Panics
    /// When it has to wait outside a tokio runtime with time enabled.
    #[track_caller]
    pub fn checkout(&self) -> impl Future<Output = Result<Pooled<C>, CheckoutError>> {
        self.checkout_for(Location::caller())
    }

    /// The same for who asks on another's behalf.
    pub(crate) async fn checkout_for(&self, caller: Caller) -> Result<Pooled<C>, CheckoutError> {
        let at = self.at()?;
        let lease = match self.take_idle(at) {
            Some(lease) => lease,
            None => self.wait(at, self.deadline()).await?,
        };
        Ok(Pooled::new(self.inner(), lease, caller))
    }

    /// An idle connection, if there is one within reach and nobody waits for it. Never dials.
    // Always: left to itself the compiler inlines it or not by what else there is, which is worth
    // thirty instructions of a hit.
    #[inline(always)]
    #[track_caller]
    pub fn try_checkout(&self) -> Option<Pooled<C>> {
        self.try_checkout_for(Location::caller())
    }

    /// The same for who asks on another's behalf.
    #[inline]
    pub(crate) fn try_checkout_for(&self, caller: Caller) -> Option<Pooled<C>> {
        self.take_idle(self.at().ok()?).map(|lease| Pooled::new(self.inner(), lease, caller))
    }

    /// A connection that nobody has used: for the one retry after a reused connection turned out
    /// stale. Where `max_live` is reached, an idle connection makes room for it.
    ///
    /// # Errors
    /// As for [`Self::checkout`].
    ///
    /// # Cancel safety
    /// As for [`Self::checkout`].
    ///
    /// # Panics
    /// As for [`Self::checkout`].
    #[track_caller]
    pub fn checkout_fresh(&self) -> impl Future<Output = Result<Pooled<C>, CheckoutError>> {
        self.checkout_fresh_for(Location::caller())
    }

    /// The same for who asks on another's behalf.
    pub(crate) async fn checkout_fresh_for(
        &self,
        caller: Caller,
    ) -> Result<Pooled<C>, CheckoutError> {
        Ok(Pooled::new(self.inner(), self.fresh().await?, caller))
    }

    async fn fresh(&self) -> Result<PoolLease<C>, CheckoutError> {
        let at = self.at()?;
        let inner = self.inner();
        let deadline = self.deadline();
        loop {
            let waiter = match inner.engine.dial_fresh(self.seats.on(at), inner.read_clock()) {
                Err(NoDial::NoPermit | NoDial::Held) => {
                    let lease = match self.take_idle(at) {
                        Some(lease) => lease,
                        None => self.wait(at, deadline).await?,
                    };
                    if !lease.is_reused() {
                        return Ok(lease);
                    }
                    inner.engine.redial(lease, inner.read_clock())
                }
                other => other,
            };
            let waiter = match waiter {
                // Suspended since the look above.
                Err(NoDial::Held) => continue,
                other => other.map_err(|no| self.refused(no))?,
            };
            let lease = self.outcome(at, waiter, deadline).await?;
            // It may have died on its way to us.
            if let Some(lease) = inner.look_at(lease, When::Checkout) {
                return Ok(lease);
            }
        }
    }

    /// Has `count` connections ready, dialling what is missing, spread over the shards. At most
    /// as many as may rest (`max_idle`); returns when each has succeeded or failed.
    ///
    /// # Cancel safety
    /// Dials under way go on and are pooled.
    ///
    /// # Panics
    /// As for [`Self::checkout`].
    pub async fn warm_up(&self, count: usize) -> WarmUp {
        let inner = self.inner();
        let shards = inner.shard_count();
        let limits = self.seats.on(ShardId(0)).group().limits();
        let scope = if C::SHARD_LOCAL { shards } else { 1 };
        let count = count.min((limits.max_idle() as usize).saturating_mul(scope));
        let deadline = self.deadline();
        let mut report = WarmUp { ready: 0, failures: Vec::new() };
        let mut leases = Held { inner, leases: Vec::with_capacity(count) };
        let at_once = (limits.max_waiters() as usize).clamp(1, WARM_UP_AT_ONCE);
        let mut next = 0;
        while next < count {
            let batch = next..count.min(next + at_once);
            next = batch.end;
            // All are in line before the first is awaited, so that they are dialled as one batch.
            let lined_up: Vec<_> = batch
                .map(|n| {
                    let at = ShardId((n % shards) as u16);
                    (at, self.line_up(at))
                })
                .collect();
            for (at, waiter) in lined_up {
                let outcome = match waiter {
                    Ok(in_line) => in_line.outcome(self, at, deadline).await,
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(lease) => leases.leases.push(lease),
                    Err(error) => report.failures.push(error),
                }
            }
        }
        report.ready = leases.leases.len();
        let (ready, failed) = (report.ready, report.failures.len());
        inner.tell(PoolEvent::WarmedUp { endpoint: self.endpoint(), ready, failed });
        report
    }

    /// The group's counters.
    pub fn stats(&self) -> GroupStats {
        self.inner().group_stats(&self.seats)
    }

    /// The pool that this is a group of.
    pub fn pool(&self) -> &Pool<C> {
        &self.pool
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner<C> {
        self.pool.inner()
    }

    /// The same group, by a handle that does not keep the pool from its end.
    pub(crate) fn loose(&self) -> Self {
        Self { pool: self.pool.loose(), seats: self.seats.clone() }
    }

    pub(crate) fn downgrade(&self) -> WeakGroup<C> {
        WeakGroup { pool: self.pool.downgrade(), seats: self.seats.downgrade() }
    }

    pub(crate) fn seats(&self) -> &Seats<C> {
        &self.seats
    }

    /// Which shard serves this thread.
    #[inline]
    pub(crate) fn at(&self) -> Result<ShardId, CheckoutError> {
        let inner = self.inner();
        match shard::current(inner.engine_id()) {
            Some(shard) => Ok(shard),
            None if C::SHARD_LOCAL => {
                Err(CheckoutError::OffShard { endpoint: self.endpoint().clone() })
            }
            None => Ok(shard::of_thread(inner.shard_count())),
        }
    }

    /// The stealing threshold for a caller: threads that are no shard's have no lane of their
    /// own to keep warm.
    #[inline]
    fn reach(&self) -> u32 {
        let inner = self.inner();
        if shard::current(inner.engine_id()).is_some() { inner.steal_threshold } else { 1 }
    }

    #[inline]
    fn take_idle(&self, at: ShardId) -> Option<PoolLease<C>> {
        let (inner, seat) = (self.inner(), self.seats.on(at));
        match inner.engine.checkout_own(seat).map(|lease| inner.look_at(lease, When::Reuse)) {
            Some(Some(lease)) => Some(lease),
            own => self.take_another(at, own.is_some()),
        }
    }

    /// The seat's own lane has none, or `has_own` one that was not fit to serve.
    #[cold]
    #[inline(never)]
    fn take_another(&self, at: ShardId, mut has_own: bool) -> Option<PoolLease<C>> {
        let (inner, seat) = (self.inner(), self.seats.on(at));
        loop {
            let own = if has_own { inner.engine.checkout_own(seat) } else { None };
            let lease = own.or_else(|| inner.engine.checkout_elsewhere(seat, self.reach()))?;
            if let Some(lease) = inner.look_at(lease, When::Reuse) {
                return Some(lease);
            }
            has_own = true;
        }
    }

    #[cold]
    async fn wait(&self, at: ShardId, deadline: Instant) -> Result<PoolLease<C>, CheckoutError> {
        let began = clock::now();
        loop {
            let served = match self.line_up(at) {
                Ok(in_line) => in_line.outcome(self, at, deadline).await,
                Err(refused) => Err(refused),
            };
            let lease = match served {
                // Also when it opened while we stood in line, or its probes are under way.
                Err(CheckoutError::BreakerOpen { .. }) if self.dials_past_breaker(at) => {
                    self.direct(at, deadline).await?
                }
                served => served?,
            };
            // It may have died, or have been found unusable, on its way to us.
            if let Some(lease) = self.inner().look_at(lease, When::Checkout) {
                self.seats.note_wait(began.elapsed());
                return Ok(lease);
            }
        }
    }

    /// A connection dialled past an open breaker. There is no line to stand in then, so at the
    /// limit who may wait asks again.
    #[cold]
    async fn direct(&self, at: ShardId, deadline: Instant) -> Result<PoolLease<C>, CheckoutError> {
        let (inner, seat) = (self.inner(), self.seats.on(at));
        loop {
            match inner.engine.dial_direct(seat, inner.read_clock()) {
                Ok(waiter) => return self.outcome(at, waiter, deadline).await,
                Err(NoDial::NoPermit)
                    if seat.group().limits().at_limit() == WAIT && clock::now() < deadline =>
                {
                    sleep(ASK_AGAIN).await;
                }
                Err(no) => return Err(self.refused(no)),
            }
        }
    }

    fn dials_past_breaker(&self, at: ShardId) -> bool {
        self.seats.on(at).group().limits().at_open() == DIRECT
    }

    /// Takes a place in line, or, by the endpoint's policy, a dial of its own.
    fn line_up(&self, at: ShardId) -> Result<InLine<'_, C>, CheckoutError> {
        let inner = self.inner();
        let seat = self.seats.on(at);
        let (now, limits) = (inner.read_clock(), seat.group().limits());
        let waiter = match limits.at_limit() {
            WAIT => inner.engine.wait(seat, self.reach(), now),
            _ => inner.engine.wait_for_dial(seat, self.reach(), now),
        };
        let waiter = match waiter {
            Ok(waiter) => Ok(waiter),
            Err(Refused::AtLimit) if limits.at_limit() == OVERFLOW => {
                inner.engine.dial_overflow(seat, now).map_err(|no| self.refused(no))
            }
            Err(Refused::Open(left)) => Err(self.open(left)),
            Err(Refused::AtLimit) => Err(self.at_limit()),
            Err(Refused::Closed) => Err(self.closed()),
            Err(Refused::Full) => Err(CheckoutError::WaitersFull {
                endpoint: self.endpoint().clone(),
                max_waiters: limits.max_waiters(),
            }),
        }?;
        // A group whose home sleeps is tended by nobody.
        self.seats.rouse(inner);
        Ok(InLine { inner, seat, waiter: Some(waiter) })
    }

    async fn outcome(
        &self,
        at: ShardId,
        waiter: PoolWaiter<C>,
        deadline: Instant,
    ) -> Result<PoolLease<C>, CheckoutError> {
        let in_line = InLine { inner: self.inner(), seat: self.seats.on(at), waiter: Some(waiter) };
        in_line.outcome(self, at, deadline).await
    }

    fn deadline(&self) -> Instant {
        clock::now() + self.acquire_timeout()
    }

    fn acquire_timeout(&self) -> Duration {
        millis(self.seats.on(ShardId(0)).group().limits().acquire_timeout_ms())
    }

    fn refused(&self, no: NoDial) -> CheckoutError {
        match no {
            NoDial::Exhausted => self.exhausted(),
            NoDial::Open(left) => self.open(left),
            // Held, by a suspension that came a moment ago: for now there is no dial.
            NoDial::NoPermit | NoDial::Held => self.at_limit(),
            NoDial::Closed => self.closed(),
        }
    }

    pub(crate) fn closed(&self) -> CheckoutError {
        CheckoutError::Closed { endpoint: self.endpoint().clone() }
    }

    pub(crate) fn at_limit(&self) -> CheckoutError {
        let limits = self.seats.on(ShardId(0)).group().limits();
        CheckoutError::AtLimit { endpoint: self.endpoint().clone(), max_live: limits.max_live() }
    }

    fn open(&self, left_ms: u32) -> CheckoutError {
        let left = (left_ms != NEVER).then(|| millis(left_ms));
        CheckoutError::BreakerOpen { endpoint: self.endpoint().clone(), left }
    }

    pub(crate) fn exhausted(&self) -> CheckoutError {
        CheckoutError::Exhausted {
            endpoint: self.endpoint().clone(),
            slots: self.inner().engine.slots_per_shard(),
        }
    }

    fn timed_out(&self, at: ShardId) -> CheckoutError {
        let group = self.seats.on(at).group();
        let counts = self.inner().engine.counts(group);
        CheckoutError::Timeout {
            endpoint: self.endpoint().clone(),
            after: self.acquire_timeout(),
            live: counts.live,
            max_live: group.limits().max_live(),
            waiting: counts.waiting,
        }
    }
}

/// A place in line. Leaving it early puts back what was handed over (INV-7).
struct InLine<'a, C: Connector> {
    inner: &'a Inner<C>,
    seat: &'a PoolSeat<C>,
    waiter: Option<PoolWaiter<C>>,
}

impl<C: Connector> InLine<'_, C> {
    async fn outcome(
        self,
        group: &Group<C>,
        at: ShardId,
        deadline: Instant,
    ) -> Result<PoolLease<C>, CheckoutError> {
        match timeout_at(deadline, self).await {
            Err(_) => Err(group.timed_out(at)),
            Ok(Outcome::Ready(lease)) => Ok(lease),
            Ok(Outcome::Failed(error)) => Err(error.into()),
            Ok(Outcome::Exhausted) => Err(group.exhausted()),
            Ok(Outcome::Open(left)) => Err(group.open(left)),
            Ok(Outcome::Closed) => Err(group.closed()),
        }
    }
}

impl<C: Connector> Future for InLine<'_, C> {
    type Output = Outcome<C::Connection, crate::DialError, Key<C>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(waiter) = &self.waiter else {
            return Poll::Pending;
        };
        let outcome = core::task::ready!(waiter.poll(cx));
        self.waiter = None;
        Poll::Ready(outcome)
    }
}

impl<C: Connector> Drop for InLine<'_, C> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.inner.engine.cancel(&waiter, self.seat.group());
        }
    }
}

/// Leases of a warm-up, held until all are there. Dropping gives them back.
struct Held<'a, C: Connector> {
    inner: &'a Inner<C>,
    leases: Vec<PoolLease<C>>,
}

impl<C: Connector> Drop for Held<'_, C> {
    fn drop(&mut self) {
        for lease in self.leases.drain(..) {
            // Nobody has used it.
            self.inner.engine.put_back(lease);
        }
    }
}

/// How soon who dials past an open breaker asks again for a permit.
const ASK_AGAIN: Duration = Duration::from_millis(2);

/// Dials that a warm-up has under way at once.
const WARM_UP_AT_ONCE: usize = 64;

impl<C: Connector> Clone for Group<C> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), seats: self.seats.clone() }
    }
}

impl<C: Connector> fmt::Debug for Group<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(self.endpoint()).finish()
    }
}
