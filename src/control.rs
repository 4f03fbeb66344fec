//! What an owner does to a group as a whole.

use core::time::Duration;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    BreakerMode, BreakerState, CheckoutError, CloseReport, ConnectionInfo, Connector, DialError,
    EndpointSettings, Group, PoolEvent, SettingsError, Socket,
    engine::{NoDial, TotalLimits},
    inner::{Adopted, Inner},
    pool::wait_until_empty,
};

impl<C: Connector> Group<C> {
    /// The endpoint's policy as it is now.
    pub fn settings(&self) -> EndpointSettings {
        self.seats().policy().settings.clone()
    }

    /// Changes the endpoint's policy while it is in use. A lowered limit closes what rests above
    /// it at once, and what is in use above it as it comes back; a raised one serves those in line
    /// at once. The order of the lanes (`capacity.order`) and their room stay as the group was made:
    /// on each shard as many connections may rest as twice the `max_idle` of that time, or 256 if
    /// that is more. Socket options and timeouts hold from the next dial on.
    ///
    /// # Errors
    /// When a setting is out of range; then nothing has changed.
    pub fn reconfigure(
        &self,
        change: impl FnOnce(&mut EndpointSettings),
    ) -> Result<(), SettingsError> {
        let mut settings = self.settings();
        change(&mut settings);
        settings.check()?;
        self.seats().set_policy(self.pool().inner(), settings);
        Ok(())
    }

    /// Hands out nothing until [`Self::resume`]: checkouts line up, within their acquire timeout
    /// and `max_waiters`; connections that come back rest; no dial starts. `false` when it was
    /// suspended already. For the moment in which what stands behind the endpoint changes.
    pub fn suspend(&self) -> bool {
        let inner = self.inner();
        let mut first = false;
        for group in self.seats().groups() {
            first |= inner.engine.hold(group);
        }
        if let Some(streams) = self.seats().any_streams() {
            streams.hold();
        }
        if first {
            inner.tell(PoolEvent::Suspended { endpoint: self.endpoint() });
        }
        first
    }

    /// Ends a suspension; those in line are served first. `false` when there was none.
    pub fn resume(&self) -> bool {
        let inner = self.inner();
        let now = inner.read_clock();
        let mut first = false;
        for seats in self.seats().engine_groups() {
            first |= inner.engine.resume(&seats[0], now);
        }
        if let Some(streams) = self.seats().any_streams() {
            streams.resume();
        }
        if first {
            inner.tell(PoolEvent::Resumed { endpoint: self.endpoint() });
        }
        first
    }

    /// Ends every connection that the endpoint has now: those at rest at once, those in use when
    /// they come back, shared ones with their last stream. Checkouts go on, with new connections.
    pub fn evict(&self) {
        for group in self.seats().groups() {
            self.inner().engine.evict(group);
        }
        if let Some(streams) = self.seats().any_streams() {
            streams.drain();
        }
    }

    /// Ends the connections at rest that `keep` refuses, and says how many those were. Connections
    /// in use are not asked about.
    ///
    /// The connections of a shard are out of reach while it looks at them; checkouts that come
    /// meanwhile wait or dial. `keep` must not block. If it panics, nothing is lost.
    pub fn retain(
        &self,
        mut keep: impl FnMut(&mut C::Connection, &ConnectionInfo<'_>) -> bool,
    ) -> usize {
        let inner = self.inner();
        let now = inner.read_clock();
        let mut ended = 0;
        for group in self.seats().groups() {
            ended += inner.engine.retain(group, |tenant| {
                let info = ConnectionInfo::of(group.key().endpoint(), tenant, now);
                keep(&mut tenant.conn, &info)
            });
        }
        ended
    }

    /// Takes the endpoint out of the pool: checkouts from this and every other handle of the group
    /// fail with [`CheckoutError::Closed`], idle connections are closed now, those in use when
    /// they come back. Waits at most `deadline` for that, and says what was left. The next
    /// [`Pool::group`](crate::Pool::group) of the same endpoint makes a new group.
    ///
    /// # Cancel safety
    /// The group stays closed when the future is dropped; only the waiting ends.
    pub async fn drain(&self, deadline: Duration) -> CloseReport {
        let (inner, seats) = (self.inner(), self.seats());
        inner.forget(seats);
        seats.close(inner);
        wait_until_empty(inner, Some(deadline), || seats.is_empty(inner)).await;
        let left = seats.live(inner);
        if left == 0 {
            inner.tell(PoolEvent::Drained { endpoint: self.endpoint() });
            return CloseReport { left, endpoints: Vec::new() };
        }
        CloseReport { left, endpoints: vec![(self.endpoint().clone(), left)] }
    }

    /// Where the endpoint's circuit breaker stands, as a dial would find it.
    pub fn breaker(&self) -> BreakerState {
        let now = self.inner().read_clock();
        let states = self.seats().groups().map(|group| group.breaker_state(now));
        states.max().unwrap_or(BreakerState::Closed)
    }

    /// Forces the circuit breaker open or closed, or lets it follow its rules again. Forced open,
    /// no dial starts; idle connections are still handed out, and [`Self::evict`] ends those.
    pub fn force_breaker(&self, mode: BreakerMode) {
        let inner = self.inner();
        let now = inner.read_clock();
        for seats in self.seats().engine_groups() {
            inner.engine.force_breaker(&seats[0], mode, now);
        }
    }

    /// A hint that the endpoint is back: closes the breaker, unless it is forced, and ends the
    /// backoff.
    pub fn reset_breaker(&self) {
        let inner = self.inner();
        let now = inner.read_clock();
        for seats in self.seats().engine_groups() {
            inner.engine.reset_breaker(&seats[0], now);
        }
    }

    /// Takes a connection that was made elsewhere into the pool, where the connector makes it
    /// ready as if it had been dialled. It counts against the limits like any other.
    ///
    /// The socket must be connected to the endpoint, with nothing in flight on it, and in
    /// non-blocking mode.
    ///
    /// # Errors
    /// [`Adoption::Refused`] when there is no room for it; the socket comes back.
    /// [`Adoption::Failed`] when the connector refused it; it is closed.
    ///
    /// # Cancel safety
    /// The adoption goes on when the future is dropped.
    pub async fn adopt(&self, socket: impl Into<Socket>) -> Result<(), Adoption> {
        let socket = socket.into();
        let inner = self.inner();
        let at = match self.at() {
            Ok(at) => at,
            Err(error) => return Err(Adoption::Refused { socket, error }),
        };
        let seat = self.seats().on(at);
        let dial = match inner.engine.adopt(seat, inner.read_clock()) {
            Ok(dial) => dial,
            Err(no) => return Err(Adoption::Refused { socket, error: self.no_room(no) }),
        };
        let (done, outcome) = oneshot::channel();
        inner.leave(at, dial.index(), Adopted { socket, done });
        inner.engine.begin(dial);
        match outcome.await {
            Ok(outcome) => outcome.map_err(Adoption::Failed),
            Err(_) => Err(Adoption::Failed(self.shard_gone())),
        }
    }

    fn no_room(&self, no: NoDial) -> CheckoutError {
        match no {
            NoDial::Exhausted => self.exhausted(),
            NoDial::NoPermit => self.at_limit(),
            NoDial::Closed | NoDial::Held | NoDial::Open(_) => self.closed(),
        }
    }

    fn shard_gone(&self) -> DialError {
        let endpoint = self.endpoint().clone();
        DialError::new(endpoint, crate::DialErrorKind::Backend, crate::ShardGone.into())
    }
}

/// Why a connection was not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Adoption {
    /// There is no room for it.
    #[error("not adopted: {error}")]
    Refused {
        /// The connection, as it was given.
        socket: Socket,
        /// What there is no room in.
        error: CheckoutError,
    },
    /// The connector refused it, and it is closed.
    #[error("not adopted: {0}")]
    Failed(DialError),
}

impl<C: Connector> Inner<C> {
    /// Changes the limits of the whole pool.
    pub(crate) fn resize_totals(self: &Arc<Self>, limits: &TotalLimits) {
        self.engine.resize_totals(limits, self.read_clock());
    }
}
