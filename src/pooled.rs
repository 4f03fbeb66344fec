//! The guard of a checked-out connection.

use core::{
    fmt,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    CloseReason, Connection, Connector, Endpoint, PoolEvent,
    clock::Tick,
    engine::{NEVER, SlotIndex},
    inner::{Inner, PoolLease, PoolSeat},
    leaks::{Caller, Leak},
    look::When,
    policy::millis,
    sync::{AtomicU8, Ordering},
};

/// A checked-out connection.
///
/// Say how it ended: [`release`](Self::release) when the exchange is complete,
/// [`discard`](Self::discard) when it is not. Dropping the guard after any access to the
/// connection closes it, because half a response left on a reused socket is another request's
/// response; dropping it before any access gives it back.
#[must_use = "dropping a guard gives the connection back"]
pub struct Pooled<C: Connector> {
    /// `None` only while the guard is being consumed.
    lease: Option<PoolLease<C>>,
    /// When it was checked out.
    taken: Tick,
    /// What the connection had counted as written before.
    written: u64,
    /// What was done with the connection: bits of the constants below.
    touched: AtomicU8,
}

/// Nothing.
const UNTOUCHED: u8 = 0;
/// It was read from through the guard.
const READ: u8 = 1;
/// It was written to through the guard.
const WRITTEN: u8 = 1 << 1;
/// It was reached into; whether that did I/O cannot be told.
const REACHED_INTO: u8 = 1 << 2;

impl<C: Connector> Pooled<C> {
    #[inline]
    pub(crate) fn new(inner: &Inner<C>, lease: PoolLease<C>, caller: Caller) -> Self {
        let taken = inner.clock(lease.shard()).now();
        if let Some(leaks) = inner.leaks()
            && lease.seat().group().limits().leak_after_ms() != NEVER
        {
            leaks.taken(lease.shard(), lease.index(), caller, taken);
        }
        let touched = AtomicU8::new(UNTOUCHED);
        let mut guard = Self { lease: Some(lease), taken, written: 0, touched };
        // In the guard already: a panic in it must not lose the lease.
        guard.written = guard.lease().tenant.conn.bytes_written().unwrap_or(0);
        guard
    }

    /// The exchange is complete: the connection may serve the next caller. It is closed instead
    /// when its peer has gone, it says itself that it cannot be used, or enough are at rest.
    #[inline]
    pub fn release(self) {
        // The lease is taken out before anything can panic, so a drop would find nothing.
        ManuallyDrop::new(self).give_back();
    }

    /// The connection is in no state to be used again: it is closed.
    pub fn discard(mut self) {
        self.end(CloseReason::Discarded);
    }

    /// Takes the connection out of the pool for good. It counts against no limit any more.
    ///
    /// What it does its I/O through stays the shard's: a tokio stream's registration, an HTTP/1
    /// connection's stream. It works for as long as the pool lives; to outlive it, take a tokio
    /// stream off the reactor ([`TcpStream::into_std`](tokio::net::TcpStream::into_std)).
    pub fn detach(mut self) -> C::Connection {
        let lease = self.take().expect(CONSUMED);
        let seat = Arc::clone(lease.seat());
        seat.group().key().inner().engine.detach(lease)
    }

    /// Whether it was at rest, or with another caller, before. The next request on a reused
    /// connection may meet a peer that has just closed it; one on a fresh connection does not.
    pub fn is_reused(&self) -> bool {
        self.lease().is_reused()
    }

    /// How long it was at rest before this checkout, to 100 ms; zero for a fresh one.
    pub fn idle_for(&self) -> Duration {
        match self.lease() {
            lease if lease.is_reused() => millis(self.taken.since(lease.tenant.rested)),
            _ => Duration::ZERO,
        }
    }

    /// Whether anything was written to it during this checkout: a request of which nothing was
    /// sent may be sent again whatever it is. `None` when that cannot be told, because the
    /// connection was reached into and does not count itself
    /// ([`Connection::bytes_written`]).
    pub fn was_written(&self) -> Option<bool> {
        // Relaxed: a thread that wrote through the guard had it to itself.
        let touched = self.touched.load(Ordering::Relaxed);
        if touched & WRITTEN != 0 {
            return Some(true);
        }
        if touched & REACHED_INTO == 0 {
            return Some(false);
        }
        Some(self.lease().tenant.conn.bytes_written()? != self.written)
    }

    /// How many callers it has served before.
    pub fn uses(&self) -> u32 {
        self.lease().tenant.uses
    }

    /// How long ago it was dialled, to 100 ms.
    pub fn age(&self) -> Duration {
        let lease = self.lease();
        let now = inner(lease).clock(lease.shard()).now();
        millis(now.since(lease.tenant.opened))
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        self.lease().seat().group().key().endpoint()
    }

    /// The number of the shard that it belongs to.
    pub fn shard(&self) -> usize {
        self.lease().shard().get()
    }

    /// Ends the connection for a reason that its owner knows.
    pub(crate) fn end_as(mut self, reason: CloseReason) {
        self.end(reason);
    }

    /// The connection, for a look that is no use of it.
    pub(crate) fn glance(&self) -> &C::Connection {
        &self.lease().tenant.conn
    }

    /// Whether the connection was given up while it was out, alone or with its group.
    pub(crate) fn is_given_up(&self) -> bool {
        let lease = self.lease();
        inner(lease).engine.is_dead(lease)
    }

    /// It has served so many more than it was checked out.
    pub(crate) fn count_uses(&mut self, more: u32) {
        if let Some(lease) = &mut self.lease {
            lease.tenant.uses = lease.tenant.uses.saturating_add(more);
        }
    }

    /// How many uses it may have; [`NEVER`] for any number.
    pub(crate) fn max_uses(&self) -> u32 {
        self.lease().seat().group().limits().max_uses()
    }

    /// Whether it has lived as long as it may.
    pub(crate) fn is_old(&self) -> bool {
        let lease = self.lease();
        let inner = inner(lease);
        inner.engine.is_old(lease, inner.clock(lease.shard()).now())
    }

    /// It is not lent to a caller, so nobody may hold it too long.
    pub(crate) fn untrack(&self) {
        let lease = self.lease();
        untrack(lease.seat(), lease.index());
    }

    /// Takes the lease out, and the guard off the books of who holds what.
    #[inline(always)] // as for `give_back`
    fn take(&mut self) -> Option<PoolLease<C>> {
        if let Some(lease) = &self.lease {
            untrack(lease.seat(), lease.index());
        }
        self.lease.take()
    }

    #[inline]
    fn touch(&self, how: u8) {
        // Relaxed: only the drop and `was_written` read it, and they have the guard to themselves.
        // No read-modify-write: two threads that share the guard can only reach into it.
        let touched = self.touched.load(Ordering::Relaxed);
        if touched & how == 0 {
            self.touched.store(touched | how, Ordering::Relaxed);
        }
    }

    #[inline]
    fn lease(&self) -> &PoolLease<C> {
        self.lease.as_ref().expect(CONSUMED)
    }

    #[inline(always)] // the other half of a hit; its calls would be a tenth of it
    fn give_back(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        // The seat keeps the pool; its count is the shard's own cache line.
        let seat = Arc::clone(lease.seat());
        let inner = seat.group().key().inner();
        untrack(&seat, lease.index());
        if let Some(lease) = inner.look_at(lease, When::Return) {
            inner.engine.give_back_to(&seat, lease, inner.clock(seat.shard()).now());
        }
    }

    fn end(&mut self, reason: CloseReason) {
        if let Some(lease) = self.take() {
            let seat = Arc::clone(lease.seat());
            seat.group().key().inner().engine.discard(lease, reason);
        }
    }
}

/// The methods that take the lease take the guard too, so no caller meets this.
const CONSUMED: &str = "a guard holds its lease until it is consumed";

#[inline]
fn inner<C: Connector>(lease: &PoolLease<C>) -> &Inner<C> {
    lease.seat().group().key().inner()
}

/// Takes a guard off the books of who holds what.
#[inline(always)] // as for `give_back`
fn untrack<C: Connector>(seat: &PoolSeat<C>, slot: SlotIndex) {
    let (inner, shard) = (seat.group().key().inner(), seat.shard());
    if let Some(leaks) = inner.leaks()
        && let Some(leak) = leaks.returned(shard, slot, inner.clock(shard).now())
    {
        leak_returned(seat, leak);
    }
}

/// A connection that was taken for lost has come back.
#[cold]
fn leak_returned<C: Connector>(seat: &PoolSeat<C>, leak: Leak) {
    let key = seat.group().key();
    let (endpoint, held) = (key.endpoint(), millis(leak.held_ms));
    let location = leak.location;
    tracing::info!(%endpoint, ?held, %location, "a connection that seemed lost came back");
    key.inner().tell(PoolEvent::LeakReturned { endpoint, held, location });
}

impl<C: Connector> Drop for Pooled<C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Hooks and connections are someone else's code: a second panic, out of a drop, would
            // end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.leave()));
        } else {
            self.leave();
        }
    }
}

impl<C: Connector> Pooled<C> {
    /// The guard ends without a word: what was used is dirty, unless the connection knows better.
    #[inline(never)]
    fn leave(&mut self) {
        // Relaxed: the guard is ours alone here.
        let touched = self.touched.load(Ordering::Relaxed) != UNTOUCHED;
        // Whatever becomes of the connection's own word, a panic too, the lease ends.
        let ends = Ends(self);
        let Some(lease) = &ends.0.lease else {
            return;
        };
        if !touched || lease.tenant.conn.is_clean_on_drop() {
            ends.0.give_back();
        }
    }
}

/// A guard that is being dropped: what it still holds then is dirty.
struct Ends<'a, C: Connector>(&'a mut Pooled<C>);

impl<C: Connector> Drop for Ends<'_, C> {
    #[inline]
    fn drop(&mut self) {
        self.0.end(CloseReason::Dirty);
    }
}

/// Any access counts as use: whether it did I/O cannot be told.
impl<C: Connector> Deref for Pooled<C> {
    type Target = C::Connection;

    #[inline]
    fn deref(&self) -> &C::Connection {
        self.touch(REACHED_INTO);
        &self.lease().tenant.conn
    }
}

impl<C: Connector> DerefMut for Pooled<C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut C::Connection {
        self.touch(REACHED_INTO);
        &mut self.lease.as_mut().expect(CONSUMED).tenant.conn
    }
}

impl<C: Connector> Pooled<C> {
    /// The connection, for I/O through the guard itself.
    #[inline]
    fn through(self: Pin<&mut Self>, how: u8) -> &mut C::Connection {
        let this = self.get_mut();
        this.touch(how);
        &mut this.lease.as_mut().expect(CONSUMED).tenant.conn
    }
}

impl<C> AsyncRead for Pooled<C>
where
    C: Connector,
    C::Connection: AsyncRead + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.through(READ)).poll_read(cx, buf)
    }
}

impl<C> AsyncWrite for Pooled<C>
where
    C: Connector,
    C::Connection: AsyncWrite + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.through(WRITTEN)).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.through(READ)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.through(WRITTEN)).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.through(WRITTEN)).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lease().tenant.conn.is_write_vectored()
    }
}

/// The guard is moved, never the connection inside it; nothing is pinned to it.
impl<C: Connector> Unpin for Pooled<C> {}

impl<C> fmt::Debug for Pooled<C>
where
    C: Connector,
    C::Connection: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled")
            .field("endpoint", self.endpoint())
            .field("reused", &self.is_reused())
            .field("connection", &self.lease().tenant.conn)
            .finish()
    }
}
