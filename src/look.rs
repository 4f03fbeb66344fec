//! The look at a connection before it is handed out, and when it comes back.

use crate::{
    CloseReason, Condition, Connection, ConnectionInfo, Connector, Inspect,
    engine::NEVER,
    inner::{Inner, PoolLease, millis},
};

/// On which occasion a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before it is handed out.
    Checkout,
    /// As it comes back.
    Return,
}

impl<C: Connector> Inner<C> {
    /// The lease, if its connection can serve; otherwise the connection is ended.
    #[inline]
    pub(crate) fn if_usable(&self, lease: PoolLease<C>, when: When) -> Option<PoolLease<C>> {
        // Whatever becomes of the connection's own look, a panic too, the lease ends.
        let mut look = Look { inner: self, lease: Some(lease), found: Condition::Unusable };
        let lease = look.lease.as_mut()?;
        let how = match when {
            When::Checkout if self.is_doubtful(lease) => Inspect::Peek,
            _ => Inspect::Glance,
        };
        look.found = lease.tenant.conn.inspect(how);
        let mut usable = look.found == Condition::Usable && !self.engine.is_dead(lease);
        if usable && how == Inspect::Peek {
            lease.tenant.vouched = self.clock(lease.shard()).now();
        }
        if usable && self.has_hook(when) {
            look.found = Condition::Unusable;
            usable = self.ask_hook(lease, when);
        }
        if usable { look.lease.take() } else { None }
    }

    /// Whether the kernel is to be asked about a connection that was at rest: by the peek policy,
    /// or because a sibling died by reset since this one last gave a sign of life.
    #[inline]
    fn is_doubtful(&self, lease: &PoolLease<C>) -> bool {
        if !lease.is_reused() {
            return false;
        }
        let group = lease.seat().group();
        let peek_after = group.limits().peek_after_ms();
        let long = peek_after != NEVER
            && self.clock(lease.shard()).now().since(lease.tenant.rested) >= peek_after;
        long || group.suspects(lease)
    }

    #[inline]
    fn has_hook(&self, when: When) -> bool {
        match when {
            When::Checkout => self.parts.hooks.before_reuse.is_some(),
            When::Return => self.parts.hooks.after_return.is_some(),
        }
    }

    #[cold]
    fn ask_hook(&self, lease: &mut PoolLease<C>, when: When) -> bool {
        let seat = std::sync::Arc::clone(lease.seat());
        let now = self.clock(lease.shard()).now();
        let tenant = &mut lease.tenant;
        let info = ConnectionInfo {
            endpoint: seat.group().key().endpoint(),
            shard: seat.shard().get(),
            age: millis(now.since(tenant.opened)),
            idle_for: millis(if when == When::Return { 0 } else { now.since(tenant.rested) }),
            uses: tenant.uses,
        };
        let hooks = &self.parts.hooks;
        let hook = match when {
            // A fresh connection has had its own hook.
            When::Checkout if tenant.is_fresh() => return true,
            When::Checkout => &hooks.before_reuse,
            When::Return => &hooks.after_return,
        };
        hook.as_ref().is_none_or(|hook| hook(&mut tenant.conn, &info))
    }

    #[cold]
    fn discard_unusable(&self, lease: PoolLease<C>, found: Condition) {
        let reason = match found {
            Condition::UnexpectedBytes => CloseReason::UnexpectedBytes,
            Condition::Closed => CloseReason::PeerClosed,
            Condition::Usable | Condition::Unusable => CloseReason::Unusable,
        };
        // The engine knows better when the watch saw the peer go.
        self.engine.discard(lease, reason);
    }
}

/// A lease that is being looked at. Dropping it ends its connection.
struct Look<'a, C: Connector> {
    inner: &'a Inner<C>,
    lease: Option<PoolLease<C>>,
    found: Condition,
}

impl<C: Connector> Drop for Look<'_, C> {
    #[inline]
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.inner.discard_unusable(lease, self.found);
        }
    }
}
