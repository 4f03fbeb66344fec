//! The guard of a checked-out connection.

use core::{
    fmt,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{io, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    CloseReason, Connection, Connector, Endpoint,
    pool::{Inner, PoolLease},
    sync::{AtomicBool, Ordering},
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
    idle_ms: u32,
    touched: AtomicBool,
}

impl<C: Connector> Pooled<C> {
    #[inline]
    pub(crate) fn new(lease: PoolLease<C>) -> Self {
        let idle_ms = if lease.is_reused() {
            inner(&lease).clock(lease.shard()).now().since(lease.tenant.rested)
        } else {
            0
        };
        Self { lease: Some(lease), idle_ms, touched: AtomicBool::new(false) }
    }

    /// The exchange is complete: the connection may serve the next caller. It is closed instead
    /// when its peer has gone, it says itself that it cannot be used, or enough are at rest.
    #[inline]
    pub fn release(mut self) {
        if let Some(lease) = self.lease.take() {
            give_back(lease);
        }
    }

    /// The connection is in no state to be used again: it is closed.
    pub fn discard(mut self) {
        self.end(CloseReason::Discarded);
    }

    /// Takes the connection out of the pool for good. It counts against no limit any more.
    ///
    /// What it does its I/O through stays the shard's: a tokio stream's registration, an HTTP/1
    /// connection's task. It works for as long as the pool lives; to outlive it, take a tokio
    /// stream off the reactor ([`TcpStream::into_std`](tokio::net::TcpStream::into_std)).
    pub fn detach(mut self) -> C::Connection {
        let lease = self.lease.take().expect(CONSUMED);
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
        Duration::from_millis(self.idle_ms.into())
    }

    /// How long ago it was dialled, to 100 ms.
    pub fn age(&self) -> Duration {
        let lease = self.lease();
        let now = inner(lease).clock(lease.shard()).now();
        Duration::from_millis(now.since(lease.tenant.opened).into())
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        self.lease().seat().group().key().endpoint()
    }

    /// The number of the shard that it belongs to.
    pub fn shard(&self) -> usize {
        self.lease().shard().get()
    }

    pub(crate) fn into_lease(mut self) -> PoolLease<C> {
        self.lease.take().expect(CONSUMED)
    }

    #[inline]
    fn lease(&self) -> &PoolLease<C> {
        self.lease.as_ref().expect(CONSUMED)
    }

    fn end(&mut self, reason: CloseReason) {
        if let Some(lease) = self.lease.take() {
            let seat = Arc::clone(lease.seat());
            let engine = &seat.group().key().inner().engine;
            let reason = if engine.is_dead(&lease) { CloseReason::PeerClosed } else { reason };
            engine.discard(lease, reason);
        }
    }
}

/// The methods that take the lease take the guard too, so no caller meets this.
const CONSUMED: &str = "a guard holds its lease until it is consumed";

#[inline]
fn inner<C: Connector>(lease: &PoolLease<C>) -> &Inner<C> {
    lease.seat().group().key().inner()
}

#[inline]
fn give_back<C: Connector>(lease: PoolLease<C>) {
    // The seat keeps the pool; its count is the shard's own cache line.
    let seat = Arc::clone(lease.seat());
    let inner = seat.group().key().inner();
    if let Some(lease) = inner.if_usable(lease) {
        inner.engine.give_back_to(&seat, lease, inner.clock(seat.shard()).now());
    }
}

impl<C: Connector> Drop for Pooled<C> {
    fn drop(&mut self) {
        // Relaxed: the guard is ours alone here.
        let touched = self.touched.load(Ordering::Relaxed);
        let Some(lease) = &self.lease else {
            return;
        };
        if touched && !lease.tenant.conn.is_clean_on_drop() {
            self.end(CloseReason::Dirty);
        } else if let Some(lease) = self.lease.take() {
            give_back(lease);
        }
    }
}

/// Any access counts as use: whether it did I/O cannot be told.
impl<C: Connector> Deref for Pooled<C> {
    type Target = C::Connection;

    #[inline]
    fn deref(&self) -> &C::Connection {
        // Relaxed: only the drop reads it, and it has the guard to itself.
        self.touched.store(true, Ordering::Relaxed);
        &self.lease().tenant.conn
    }
}

impl<C: Connector> DerefMut for Pooled<C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut C::Connection {
        self.touched.store(true, Ordering::Relaxed);
        &mut self.lease.as_mut().expect(CONSUMED).tenant.conn
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
        Pin::new(&mut **self.get_mut()).poll_read(cx, buf)
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
        Pin::new(&mut **self.get_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.get_mut()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.get_mut()).poll_write_vectored(cx, bufs)
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
