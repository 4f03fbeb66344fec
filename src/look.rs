//! The look at a connection before it is handed out, and when it comes back.

use core::time::Duration;

use crate::{
    CloseReason, Condition, Connection, ConnectionInfo, Connector, Inspect,
    engine::{Lease, NEVER},
    inner::{Inner, PoolLease},
};

/// On which occasion a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before it is handed out, straight from its rest.
    Reuse,
    /// Before it is handed out to a caller that stood in line for it.
    Checkout,
    /// As it comes back.
    Return,
}

impl<C: Connector> Inner<C> {
    /// The lease again, if its connection can serve; otherwise it is ended.
    ///
    /// Always inlined, because each caller names the occasion, which decides most of what follows.
    #[inline(always)]
    pub(crate) fn look_at(&self, lease: PoolLease<C>, when: When) -> Option<PoolLease<C>> {
        if self.has_hook(when) || self.is_doubtful(&lease, when) {
            return self.look_closely(lease, when);
        }
        let mut look = Look { inner: self, lease: Some(lease), found: Condition::Unusable };
        let lease = look.lease.as_mut()?;
        look.found = lease.tenant.conn.inspect(Inspect::Glance);
        // What has left its rest this moment was neither dead nor of an evicted group, and what
        // comes back is asked by the engine.
        let settled = when != When::Checkout || !self.engine.is_dead(lease);
        let passed = is_sound(look.found, lease, when) && settled;
        if passed { look.lease.take() } else { None }
    }

    /// The look that asks the kernel, or the user's hook.
    #[cold]
    #[inline(never)]
    fn look_closely(&self, lease: PoolLease<C>, when: When) -> Option<PoolLease<C>> {
        let how = if self.is_doubtful(&lease, when) { Inspect::Peek } else { Inspect::Glance };
        let mut look = Look { inner: self, lease: Some(lease), found: Condition::Unusable };
        let lease = look.lease.as_mut()?;
        look.found = lease.tenant.conn.inspect(how);
        let mut passed = is_sound(look.found, lease, when) && !self.engine.is_dead(lease);
        if passed && how == Inspect::Peek {
            lease.tenant.vouched = self.clock(lease.shard()).now();
        }
        if passed && self.has_hook(when) {
            look.found = Condition::Unusable;
            passed = self.ask_hook(lease, when);
        }
        if passed { look.lease.take() } else { None }
    }

    /// Whether the kernel is to be asked about a connection that was at rest: by the peek policy,
    /// or because a sibling died by reset since this one last gave a sign of life.
    #[inline]
    fn is_doubtful(&self, lease: &PoolLease<C>, when: When) -> bool {
        match when {
            When::Return => return false,
            When::Checkout if !lease.is_reused() => return false,
            When::Checkout | When::Reuse => {}
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
            When::Reuse | When::Checkout => self.parts.hooks.before_reuse.is_some(),
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
            When::Reuse | When::Checkout if tenant.is_fresh() => return true,
            When::Reuse | When::Checkout => &hooks.before_reuse,
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

#[inline]
fn is_sound<T, E, K>(found: Condition, lease: &Lease<T, E, K>, when: When) -> bool {
    match found {
        // Nobody has asked anything on a fresh connection yet: what came is its peer's greeting.
        Condition::UnexpectedBytes => when == When::Checkout && !lease.is_reused(),
        found => found == Condition::Usable,
    }
}

/// A lease that is being looked at. What has not passed by the end, a panic's too, is ended.
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
