//! Connections that callers share: a group's multiplexed connections, lent stream by stream.

mod keeper;
mod lease;
mod shared;

use core::{
    fmt,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
};
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

pub use self::lease::StreamLease;
pub(crate) use self::shared::AnyStreams;
use self::shared::{Outcome, SharedStreams, Waiter};
use crate::{
    CheckoutError, Connector, Endpoint, Group, Multiplexed, Pool, Pooled, clock, engine::Refused,
    leaks::Caller, policy::millis, settings::AtStreamLimit,
};

/// A handle to the shared connections of one endpoint. Cheap to clone; keep it where the requests
/// are.
///
/// Streams are leased of the connection that has the fewest, never more of one than
/// `streams.max_streams` and than its peer allows at that moment. A further connection is dialled
/// only when callers are in line for whom there is no room: one while there is none, then at most as
/// many as there are already, and no more than those in line need. When half of the connections
/// would do, the others take no more streams and go back to the [`Group`], to rest there or be
/// closed by its rules; so do all when there is no stream for some 250 ms.
///
/// The group and its streams share the endpoint's limits, breaker and statistics: a connection whose
/// streams are lent is one in use. So `capacity.max_live` bounds both together, `capacity.min_idle`
/// keeps connections ready beside those in use, and `lifetime.max_lifetime_ms` has an old connection
/// take no more streams and end with its last one.
pub struct StreamGroup<C: Connector>
where
    C::Connection: Multiplexed,
{
    group: Group<C>,
    shared: Arc<SharedStreams<C>>,
}

/// The shared connections of an endpoint at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamStats {
    /// Connections that take streams.
    pub connections: u32,
    /// Streams that are leased of them.
    pub leased: u32,
    /// Streams that they take together.
    pub capacity: u32,
    /// Callers in line for a stream.
    pub waiting: u32,
}

impl<C: Connector> Pool<C>
where
    C::Connection: Multiplexed,
{
    /// The shared connections of an endpoint.
    ///
    /// Look it up once and keep the handle, as for [`Self::group`].
    pub fn streams(&self, endpoint: impl Into<Endpoint>) -> StreamGroup<C> {
        self.group(endpoint).streams()
    }
}

impl<C: Connector> Group<C>
where
    C::Connection: Multiplexed,
{
    /// The endpoint's connections, to be shared.
    pub fn streams(&self) -> StreamGroup<C> {
        const { assert!(!C::SHARD_LOCAL, "connections that stay on their shard are not shared") };
        StreamGroup { group: self.clone(), shared: SharedStreams::of(self) }
    }
}

impl<C: Connector> StreamGroup<C>
where
    C::Connection: Multiplexed,
{
    /// A stream of one of the connections: of one that has room, or the first that comes free.
    ///
    /// # Errors
    /// [`CheckoutError`] says which endpoint and why. A failed dial fails as many callers as the
    /// connection would have served.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a dial under way goes on, and a stream that was just
    /// handed over goes to the next in line.
    ///
    /// # Panics
    /// When it has to wait outside a tokio runtime with time enabled.
    #[track_caller]
    pub fn lease(&self) -> impl Future<Output = Result<StreamLease<C>, CheckoutError>> {
        self.lease_for(Location::caller())
    }

    /// The same for who asks on another's behalf.
    pub(crate) async fn lease_for(&self, caller: Caller) -> Result<StreamLease<C>, CheckoutError> {
        match self.try_lease_for(caller) {
            Some(lease) => Ok(lease),
            None => self.lease_next(caller).await,
        }
    }

    /// A stream, if a connection has room and nobody is in line, or a connection of one's own at
    /// rest, where they cannot be shared. Never dials.
    #[inline]
    #[track_caller]
    pub fn try_lease(&self) -> Option<StreamLease<C>> {
        self.try_lease_for(Location::caller())
    }

    #[inline]
    fn try_lease_for(&self, caller: Caller) -> Option<StreamLease<C>> {
        match self.try_exclusive_for(caller) {
            Some(guard) => Some(StreamLease::exclusive(guard)),
            None => self.try_shared(),
        }
    }

    /// Whether the endpoint's connections are thought to be such that cannot be shared.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.shared.is_exclusive()
    }

    /// A connection that cannot be shared, where they are thought to be such.
    #[inline]
    pub(crate) fn try_exclusive_for(&self, caller: Caller) -> Option<Pooled<C>> {
        if !self.is_exclusive() {
            return None;
        }
        self.shared.offer(self.group.try_checkout_for(caller)?).err()
    }

    /// A stream of a connection that is shared.
    #[inline]
    pub(crate) fn try_shared(&self) -> Option<StreamLease<C>> {
        self.shared.streams.lease().map(StreamLease::shared)
    }

    /// The next one that there is, for who has found none.
    #[cold]
    pub(crate) async fn lease_next(&self, caller: Caller) -> Result<StreamLease<C>, CheckoutError> {
        // In a box, for its state is large and what leases is moved about.
        Box::pin(self.lease_in_time(caller)).await
    }

    async fn lease_in_time(&self, caller: Caller) -> Result<StreamLease<C>, CheckoutError> {
        let timeout = self.group.seats().policy().settings.timeouts.acquire_timeout_ms;
        let deadline = clock::now() + millis(timeout);
        // Each wait in it ends by then as well, and says more; but there may be several.
        timeout_at(deadline, self.lease_by(deadline, caller))
            .await
            .unwrap_or_else(|_| Err(self.timed_out()))
    }

    async fn lease_by(
        &self,
        deadline: Instant,
        caller: Caller,
    ) -> Result<StreamLease<C>, CheckoutError> {
        loop {
            let next = match self.shared.is_exclusive() {
                true => self.exclusive(caller).await?,
                false => self.wait(deadline, caller).await?,
            };
            // It turned out that connections can be shared, or that they cannot: some may be there.
            if let Some(lease) = next.or_else(|| self.try_lease_for(caller)) {
                return Ok(lease);
            }
        }
    }

    /// Which endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        self.group.endpoint()
    }

    /// The group whose connections these are.
    pub fn group(&self) -> &Group<C> {
        &self.group
    }

    /// How many connections and streams there are.
    pub fn stats(&self) -> StreamStats {
        self.shared.stats()
    }

    /// A connection that cannot be shared, of one's own; `None` if it turned out that it can be, and
    /// is from now on.
    async fn exclusive(&self, caller: Caller) -> Result<Option<StreamLease<C>>, CheckoutError> {
        let guard = self.group.checkout_for(caller).await?;
        Ok(self.shared.offer(guard).err().map(StreamLease::exclusive))
    }

    async fn wait(
        &self,
        deadline: Instant,
        caller: Caller,
    ) -> Result<Option<StreamLease<C>>, CheckoutError> {
        let (streams, policy) = (&self.shared.streams, self.group.seats().policy());
        let settings = &policy.settings;
        let began = clock::now();
        if streams.is_exhausted() {
            match settings.streams.at_limit {
                AtStreamLimit::Wait | AtStreamLimit::Oversubscribe => {}
                AtStreamLimit::Reject => return Err(self.at_limit()),
                AtStreamLimit::Overflow => {
                    return self.group.checkout_for(caller).await.map(StreamLease::alone).map(Some);
                }
            }
        }
        let max_waiters = settings.capacity.max_waiters;
        let waiter = streams.line_up(max_waiters).map_err(|refused| match refused {
            Refused::Full => {
                CheckoutError::WaitersFull { endpoint: self.endpoint().clone(), max_waiters }
            }
            Refused::Closed | Refused::AtLimit | Refused::Open(_) => self.group.closed(),
        })?;
        let in_line = InLine { shared: &self.shared, waiter: Some(waiter) };
        self.shared.keep(&self.group);
        let lease = self.outcome(in_line, deadline).await?;
        if lease.is_some() {
            self.group.seats().note_wait(began.elapsed());
        }
        Ok(lease)
    }

    async fn outcome(
        &self,
        in_line: InLine<'_, C>,
        deadline: Instant,
    ) -> Result<Option<StreamLease<C>>, CheckoutError> {
        match timeout_at(deadline, in_line).await {
            Err(_) => Err(self.timed_out()),
            Ok(Outcome::<C>::Ready(lease)) => Ok(Some(StreamLease::shared(lease))),
            Ok(Outcome::<C>::Failed(error)) => Err(error),
            Ok(Outcome::<C>::Exclusive) => Ok(None),
            Ok(Outcome::<C>::Closed) => Err(self.group.closed()),
        }
    }

    fn at_limit(&self) -> CheckoutError {
        let StreamStats { connections, leased, .. } = self.stats();
        CheckoutError::StreamsAtLimit { endpoint: self.endpoint().clone(), connections, leased }
    }

    fn timed_out(&self) -> CheckoutError {
        let stats = self.stats();
        CheckoutError::StreamTimeout {
            endpoint: self.endpoint().clone(),
            after: millis(self.group.seats().policy().settings.timeouts.acquire_timeout_ms),
            connections: stats.connections,
            leased: stats.leased,
            capacity: stats.capacity,
            waiting: stats.waiting,
        }
    }
}

/// A place in line. Leaving it early puts back what was handed over (INV-7).
struct InLine<'a, C: Connector>
where
    C::Connection: Multiplexed,
{
    shared: &'a SharedStreams<C>,
    waiter: Option<Waiter<C>>,
}

impl<C: Connector> Future for InLine<'_, C>
where
    C::Connection: Multiplexed,
{
    type Output = Outcome<C>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<C>> {
        let Some(waiter) = &self.waiter else {
            return Poll::Pending;
        };
        let outcome = core::task::ready!(waiter.poll(cx));
        self.waiter = None;
        Poll::Ready(outcome)
    }
}

impl<C: Connector> Drop for InLine<'_, C>
where
    C::Connection: Multiplexed,
{
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.shared.streams.leave_line(&waiter);
        }
    }
}

impl<C: Connector> Clone for StreamGroup<C>
where
    C::Connection: Multiplexed,
{
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<C: Connector> fmt::Debug for StreamGroup<C>
where
    C::Connection: Multiplexed,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamGroup")
            .field("endpoint", self.endpoint())
            .field("stats", &self.stats())
            .finish()
    }
}
