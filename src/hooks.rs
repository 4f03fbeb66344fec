//! Code of the pool's user that sees connections come and go.

use core::{fmt, time::Duration};

use crate::{BoxError, Connector, Endpoint, clock::Tick, engine::Tenant, policy::millis};

/// What the pool knows of a connection that it shows to somebody.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo<'a> {
    /// Where it leads.
    pub endpoint: &'a Endpoint,
    /// The number of its shard.
    pub shard: usize,
    /// How long ago it was dialled, to 100 ms.
    pub age: Duration,
    /// How long it has been at rest, to 100 ms.
    pub idle_for: Duration,
    /// How often it was given back.
    pub uses: u32,
}

impl<'a> ConnectionInfo<'a> {
    /// Of the connection of a lease, as it rests.
    pub(crate) fn of<T, E, K>(endpoint: &'a Endpoint, tenant: &Tenant<T, E, K>, now: Tick) -> Self {
        Self {
            endpoint,
            shard: tenant.shard().get(),
            age: millis(now.since(tenant.opened)),
            idle_for: millis(now.since(tenant.rested)),
            uses: tenant.uses,
        }
    }
}

type Created<T> = dyn Fn(&mut T, &ConnectionInfo<'_>) -> Result<(), BoxError> + Send + Sync;
type Looked<T> = dyn Fn(&mut T, &ConnectionInfo<'_>) -> bool + Send + Sync;

/// The hooks of a pool; see the setters of [`crate::Builder`].
pub(crate) struct Hooks<C: Connector> {
    pub(crate) after_connect: Option<Box<Created<C::Connection>>>,
    pub(crate) before_reuse: Option<Box<Looked<C::Connection>>>,
    pub(crate) after_return: Option<Box<Looked<C::Connection>>>,
}

impl<C: Connector> Default for Hooks<C> {
    fn default() -> Self {
        Self { after_connect: None, before_reuse: None, after_return: None }
    }
}

impl<C: Connector> fmt::Debug for Hooks<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("after_connect", &self.after_connect.is_some())
            .field("before_reuse", &self.before_reuse.is_some())
            .field("after_return", &self.after_return.is_some())
            .finish()
    }
}
