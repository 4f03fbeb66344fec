//! The look at a connection before it is handed out, and when it comes back.

use core::time::Duration;

use crate::{
    CloseReason, Condition, Connection, ConnectionInfo, Connector, Inspect,
    engine::NEVER,
    inner::{Inner, PoolLease},
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
    /// Whether the connection of a lease can serve; otherwise it is ended and the lease gone. Where
    /// the lease is, it stays: it is moved about no more than it must.
    #[inline]
    pub(crate) fn is_usable(&self, lease: &mut Option<PoolLease<C>>, when: When) -> bool {
        // Whatever becomes of the connection's own look, a panic too, the lease ends.
        let mut look = Look { inner: self, lease, found: Condition::Unusable, passed: false };
        let Some(lease) = look.lease.as_mut() else {
            return false;
        };
        let how = match when {
            When::Checkout if self.is_doubtful(lease) => Inspect::Peek,
            _ => Inspect::Glance,
        };
        look.found = lease.tenant.conn.inspect(how);
        // Nobody has asked anything on a fresh connection yet: what came is its peer's greeting.
        let sound = match look.found {
            Condition::UnexpectedBytes => when == When::Checkout && !lease.is_reused(),
            found => found == Condition::Usable,
        };
        look.passed = sound && !self.engine.is_dead(lease);
        if look.passed && how == Inspect::Peek {
            lease.tenant.vouched = self.clock(lease.shard()).now();
        }
        if look.passed && self.has_hook(when) {
            (look.found, look.passed) = (Condition::Unusable, false);
            look.passed = self.ask_hook(lease, when);
        }
        look.passed
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
        let mut info = ConnectionInfo::of(seat.group().key().endpoint(), tenant, now);
        if when == When::Return {
            // It has not come to rest yet.
            info.idle_for = Duration::ZERO;
        }
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
            Condition::Reset => {
                lease.seat().group().suspect(self.clock(lease.shard()).now());
                CloseReason::PeerReset
            }
            // Fit to serve, and given up: with its group, or, as the engine knows, alone.
            Condition::Usable => CloseReason::Purged,
            Condition::Unusable => CloseReason::Unusable,
        };
        // The engine knows better when the watch saw the peer go.
        self.engine.discard(lease, reason);
    }
}

/// A lease that is being looked at. Dropping it ends a connection that has not passed.
struct Look<'a, C: Connector> {
    inner: &'a Inner<C>,
    lease: &'a mut Option<PoolLease<C>>,
    found: Condition,
    passed: bool,
}

impl<C: Connector> Drop for Look<'_, C> {
    #[inline]
    fn drop(&mut self) {
        if !self.passed
            && let Some(lease) = self.lease.take()
        {
            self.inner.discard_unusable(lease, self.found);
        }
    }
}
