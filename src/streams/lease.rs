//! The guard of one stream.

use core::{fmt, ops::Deref};

use super::shared::Carried;
use crate::{
    CheckoutError, CloseReason, Connector, Endpoint, Multiplexed, Pooled, engine::streams,
};

/// One stream of a connection that others share. Dropping it says that the stream has ended, one way
/// or the other; the connection stays what it is.
///
/// It lends the connection by a shared reference, from any thread.
#[must_use = "dropping a lease ends its stream"]
pub struct StreamLease<C: Connector>(Kind<C>)
where
    C::Connection: Multiplexed;

enum Kind<C: Connector>
where
    C::Connection: Multiplexed,
{
    Shared(streams::StreamLease<Carried<C>, CheckoutError>),
    /// Of a connection above the limit that nobody else has. `None` only while it is dropped.
    Alone(Option<Pooled<C>>),
    /// All of a connection that cannot be shared.
    Exclusive(Pooled<C>),
}

impl<C: Connector> StreamLease<C>
where
    C::Connection: Multiplexed,
{
    #[inline]
    pub(super) fn shared(lease: streams::StreamLease<Carried<C>, CheckoutError>) -> Self {
        Self(Kind::Shared(lease))
    }

    pub(super) fn alone(guard: Pooled<C>) -> Self {
        Self(Kind::Alone(Some(guard)))
    }

    pub(crate) fn exclusive(guard: Pooled<C>) -> Self {
        Self(Kind::Exclusive(guard))
    }

    /// The connection itself, where it [is exclusive](Multiplexed::is_exclusive): say how the
    /// exchange on it ended, as with any other.
    ///
    /// # Errors
    /// Gives the lease back where others may share its connection.
    pub fn into_exclusive(mut self) -> Result<Pooled<C>, Self> {
        match core::mem::replace(&mut self.0, Kind::Alone(None)) {
            Kind::Exclusive(guard) => Ok(guard),
            Kind::Alone(Some(guard)) if guard.glance().is_exclusive() => Ok(guard),
            other => {
                self.0 = other;
                Err(self)
            }
        }
    }

    fn guard(&self) -> &Pooled<C> {
        match &self.0 {
            Kind::Shared(lease) => &lease.carrier().guard,
            Kind::Alone(guard) => guard.as_ref().expect("only a lease that is dropped has none"),
            Kind::Exclusive(guard) => guard,
        }
    }

    /// Where the connection leads.
    pub fn endpoint(&self) -> &Endpoint {
        self.guard().endpoint()
    }

    /// The number of the shard that drives the connection.
    pub fn shard(&self) -> usize {
        self.guard().shard()
    }

    /// Whether others share the connection, or may.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Shared(_))
    }
}

impl<C: Connector> Deref for StreamLease<C>
where
    C::Connection: Multiplexed,
{
    type Target = C::Connection;

    #[inline]
    fn deref(&self) -> &C::Connection {
        match &self.0 {
            Kind::Exclusive(guard) => guard,
            _ => self.guard().glance(),
        }
    }
}

impl<C: Connector> Drop for StreamLease<C>
where
    C::Connection: Multiplexed,
{
    fn drop(&mut self) {
        if let Kind::Alone(guard) = &mut self.0
            && let Some(guard) = guard.take()
        {
            guard.end_as(CloseReason::Overflow);
        }
    }
}

impl<C: Connector> fmt::Debug for StreamLease<C>
where
    C::Connection: Multiplexed,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamLease")
            .field("endpoint", self.endpoint())
            .field("is_shared", &self.is_shared())
            .finish()
    }
}
