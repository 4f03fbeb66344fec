//! A face for tower and hyper-util: a service that answers a URI with a connection.

mod io;

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use std::sync::Arc;

use hyper::Uri;
use tower_service::Service;

pub use self::io::PooledIo;
use crate::{BoxError, CheckoutError, Connector, Endpoint, Pool, Transport};

/// Connects hyper-util's client (`hyper_util::client::legacy::Client`) through a pool.
///
/// That client keeps connections itself and uses them again. So all that it asks for, and all that
/// it gets here, are connections that nobody used before: a spare that rests (`capacity.min_idle`,
/// [`Group::warm_up`](crate::Group::warm_up), preconnect), or a dial. What a request was sent on
/// never comes back: hyper drops it when it is done with it, and the pool closes it.
///
/// So this pool's own reuse is no part of it; a client that keeps nothing
/// (`pool_max_idle_per_host(0)`) takes a new connection for each request. What the pool gives is
/// everything before the first byte: spares, dials in batches, limits ([`CheckoutError`] when they
/// are reached), a circuit breaker with a backoff, a resolver that knows how long an answer is
/// valid, RFC 8305, endpoints with a source address, a mark, a PROXY header or a unix path,
/// statistics and alerts. To have requests pooled by this crate, send them by its own connections
/// (`Http1Connector`, feature `http1`) instead of that client.
///
/// ```
/// # async fn run(origin: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
/// use corepool::{ConnectService, Pool, StreamConnector};
/// use http_body_util::Empty;
/// use hyper::body::Bytes;
/// use hyper_util::{client::legacy::Client, rt::{TokioExecutor, TokioTimer}};
///
/// let pool = Pool::builder(StreamConnector).max_live(64).build()?;
/// let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new())
///     .pool_timer(TokioTimer::new()) // without it what rests there is never closed
///     .build(ConnectService::new(pool.clone()));
/// let response = client.get(format!("http://{origin}/").parse()?).await?;
/// # Ok(())
/// # }
/// ```
///
/// # What to watch
/// * A connection that rests in hyper's pool is one in use here: it counts against `max_live`, and
///   its idle timeout is the client's (`pool_idle_timeout`, and `pool_timer` with it). A wide
///   `pool_max_idle_per_host` lets one host hold what `max_live_total` grants to all.
/// * At `max_live` a request waits here for at most the acquire timeout. When the client finds a
///   connection of its own for it first, it leaves the request's place in line taken until then, so
///   that other clients of the pool wait behind nobody. Keep that timeout short.
/// * A spare may have been closed by its server a moment ago, and hyper does not send a request
///   again that failed on what is a fresh connection to it. Servers give a connection some time for
///   its first request (20 to 60 s are usual): keep `lifetime.idle_timeout_ms` below it.
/// * [`Pool::close`] waits for connections that the client keeps: drop the client first.
/// * I/O goes through the reactor of the shard that dialled. Run the client on the shards' threads
///   ([`Shard::spawn`](crate::Shard::spawn)) to save a wake-up across cores for each exchange.
///
/// # Errors
/// In the box is a [`CheckoutError`], a [`UriError`](crate::UriError), an [`HttpsError`], or what
/// the function of [`Self::with_endpoints`] gives; [`PoolClosed`] comes from `poll_ready`. The
/// client's error has it as its source.
///
/// # Cancel safety
/// As for [`Group::checkout`](crate::Group::checkout): a dial whose caller left goes on, and is the
/// next caller's.
pub struct ConnectService<C: Connector> {
    pool: Pool<C>,
    endpoints: Arc<Endpoints>,
}

type Endpoints = dyn Fn(&Uri) -> Result<Endpoint, BoxError> + Send + Sync;

/// The pool was closed, so its service has ended too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool is closed")]
pub struct PoolClosed;

/// An `https` URI, where nobody said that the pool's connector speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("https takes a connector that speaks TLS: say so by ConnectService::with_endpoints")]
pub struct HttpsError;

impl<C: Connector<Connection: Transport>> ConnectService<C> {
    /// A service for `http` URIs: host and port are the endpoint.
    ///
    /// It refuses `https` ([`HttpsError`]), because a connector that does not look at an endpoint's
    /// TLS identity would send what is secret in the clear.
    pub fn new(pool: Pool<C>) -> Self {
        const { assert!(!C::SHARD_LOCAL, "hyper uses connections on any thread") };
        Self { pool, endpoints: Arc::new(http_only) }
    }

    /// Endpoints by a function of one's own: for tags and sources, for unix sockets, and for
    /// `https` where the connector speaks TLS. It is called once for each new connection; the
    /// client asks by scheme, host and port alone, and reuses connections by these.
    ///
    /// ```
    /// # use corepool::{ConnectService, Endpoint, Pool, StreamConnector};
    /// # fn make(pool: Pool<StreamConnector>) {
    /// let service = ConnectService::new(pool)
    ///     .with_endpoints(|uri| Ok(Endpoint::try_from(uri)?.with_tag("crawler")));
    /// # }
    /// ```
    #[must_use]
    pub fn with_endpoints(
        self,
        endpoints: impl Fn(&Uri) -> Result<Endpoint, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self { endpoints: Arc::new(endpoints), ..self }
    }

    /// The pool that the connections come from.
    pub fn pool(&self) -> &Pool<C> {
        &self.pool
    }
}

fn http_only(uri: &Uri) -> Result<Endpoint, BoxError> {
    let endpoint = Endpoint::try_from(uri)?;
    if endpoint.tls().is_some() { Err(HttpsError.into()) } else { Ok(endpoint) }
}

/// A connection of an endpoint that nobody used: one at rest, or dialled.
async fn unused<C: Connector>(
    pool: Pool<C>,
    endpoint: Endpoint,
) -> Result<crate::Pooled<C>, CheckoutError> {
    let group = pool.group(endpoint);
    let guard = group.checkout().await?;
    if guard.uses() == 0 {
        return Ok(guard);
    }
    // Somebody else uses the group too, and speaks whatever protocol: it goes back to rest.
    drop(guard);
    group.checkout_fresh().await
}

impl<C: Connector<Connection: Transport>> Service<Uri> for ConnectService<C> {
    type Response = PooledIo<C>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<PooledIo<C>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.pool.is_closed() {
            Poll::Ready(Err(PoolClosed.into()))
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (pool, endpoint) = (self.pool.clone(), (self.endpoints)(&uri));
        Box::pin(async move { Ok(PooledIo::new(unused(pool, endpoint?).await?)) })
    }
}

impl<C: Connector> Clone for ConnectService<C> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), endpoints: Arc::clone(&self.endpoints) }
    }
}

impl<C: Connector> fmt::Debug for ConnectService<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectService").field("pool", &self.pool).finish_non_exhaustive()
    }
}
