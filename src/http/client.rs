//! Requests, each on a connection or a stream of the pool's, and tried again where that can do no
//! harm.

use core::{fmt, panic::Location};
use std::sync::Arc;

use http::{Method, Request, Response};
use http_body::Body;

use super::{Attempts, HttpBody, HttpLease, RequestError, endpoint_of, error::Cause};
use crate::{
    BoxError, CheckoutError, Connector, Endpoint, HttpConnector, Pool, StreamGroup, Transport,
    leaks::Caller,
};

/// Makes a copy of a request that may be sent again, if it can.
type Copy<B> = dyn Fn(&Request<B>) -> Option<Request<B>> + Send + Sync;

/// Sends requests over a pool of HTTP connections. Cheap to clone.
///
/// An endpoint that speaks HTTP/2 has its connections shared, each request a stream; one that speaks
/// HTTP/1.1 has connections that carry one request at a time. Where HTTP/2 is offered by ALPN, which
/// one it is shows with the first connection, and callers that come meanwhile wait for that.
///
/// # Retries
/// At most three attempts, the last one of HTTP/1 on a fresh connection; those that met nothing but
/// the end of a shared connection do not count ([`Attempts`]).
///
/// A request that was not begun is sent again whatever it is. One that may have been begun is sent
/// again if a copy was kept and the peer has surely not looked at it (`REFUSED_STREAM`, above a
/// GOAWAY's last stream), or if it is idempotent (RFC 9110 §9.2.2) and its connection had served
/// before and broke before anything was answered. Copies are kept of idempotent requests without a
/// body, or of what [`Self::keep_copies`] says. Nothing is ever sent again once a response's head is
/// there.
///
/// ```no_run
/// use bytes::Bytes;
/// use corepool::{HttpClient, HttpConnector, Pool};
/// use http::Request;
/// use http_body_util::{BodyExt, Empty};
///
/// # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(HttpConnector::new()).build()?;
/// let client = HttpClient::new(pool);
/// let request = Request::get("http://127.0.0.1:8080/").body(Empty::<Bytes>::new())?;
/// let response = client.request(request).await?;
/// let page = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
/// # let _ = page;
/// # Ok(())
/// # }
/// ```
pub struct HttpClient<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    pool: Pool<HttpConnector<B, T>>,
    copy: Arc<Copy<B>>,
}

/// One endpoint of an [`HttpClient`]'s. Keep it where the requests are: it spares each of them the
/// look-up.
pub struct HttpOrigin<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    group: StreamGroup<HttpConnector<B, T>>,
    copy: Arc<Copy<B>>,
}

/// How often a request is tried.
const ATTEMPTS: u32 = 3;

impl<B, T> HttpClient<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    /// A client that may send idempotent requests without a body again.
    pub fn new(pool: Pool<HttpConnector<B, T>>) -> Self
    where
        B: Default,
    {
        Self { pool, copy: Arc::new(copy_without_body) }
    }

    /// A client that sends only what was not begun again, for bodies that cannot be made empty.
    pub fn without_copies(pool: Pool<HttpConnector<B, T>>) -> Self {
        Self { pool, copy: Arc::new(|_| None) }
    }

    /// What is kept of a request, before it is sent, to send again: `None` for nothing. Asked for
    /// idempotent requests only.
    #[must_use]
    pub fn keep_copies(
        mut self,
        copy: impl Fn(&Request<B>) -> Option<Request<B>> + Send + Sync + 'static,
    ) -> Self {
        self.copy = Arc::new(move |request| match is_idempotent(request.method()) {
            true => copy(request),
            false => None,
        });
        self
    }

    /// The pool.
    pub fn pool(&self) -> &Pool<HttpConnector<B, T>> {
        &self.pool
    }

    /// An endpoint to send requests to, whatever their URIs say.
    pub fn origin(&self, endpoint: impl Into<Endpoint>) -> HttpOrigin<B, T> {
        HttpOrigin { group: self.pool.streams(endpoint), copy: Arc::clone(&self.copy) }
    }

    /// Sends a request to where its URI leads ([`endpoint_of`]) and waits for the head of the
    /// response.
    ///
    /// # Errors
    /// When the URI names no endpoint, and as for [`HttpOrigin::request`].
    ///
    /// # Cancel safety
    /// As for [`HttpOrigin::request`].
    #[track_caller]
    pub fn request(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<HttpBody<B, T>>, RequestError<B>>> {
        let caller = Location::caller();
        async move {
            match endpoint_of(request.uri()) {
                Ok(endpoint) => self.origin(endpoint).request_for(request, caller).await,
                Err(error) => Err(RequestError::new(Cause::Uri(error, Some(Box::new(request))), 0)),
            }
        }
    }
}

impl<B, T> HttpOrigin<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    /// Which endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        self.group.endpoint()
    }

    /// The endpoint's connections.
    pub fn streams(&self) -> &StreamGroup<HttpConnector<B, T>> {
        &self.group
    }

    /// Sends a request and waits for the head of the response. The response's body takes the
    /// connection, or the stream, along.
    ///
    /// HTTP/1.1 gets the path of an absolute URI, and its authority as `Host` if there is none.
    ///
    /// # Errors
    /// When there is no connection, or the last attempt broke off before the head of the response
    /// was complete. A request of which nothing was sent comes back.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, or resets the stream, that a response is owed on.
    ///
    /// # Panics
    /// As [`StreamGroup::lease`].
    #[track_caller]
    pub fn request(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<HttpBody<B, T>>, RequestError<B>>> {
        self.request_for(request, Location::caller())
    }

    /// The same for who asks on another's behalf.
    async fn request_for(
        &self,
        mut request: Request<B>,
        caller: Caller,
    ) -> Result<Response<HttpBody<B, T>>, RequestError<B>> {
        let mut attempts = Attempts::at_most(ATTEMPTS);
        loop {
            let copy = (self.copy)(&request);
            let mut error = match self.attempt(request, attempts.is_last(), caller).await {
                Ok(response) => return Ok(response),
                Err(error) => error.at_attempt(attempts.made()),
            };
            let is_there = error.is_unsent() || copy.is_some();
            let may_help = error.is_safe_to_retry() || error.is_stale_reuse();
            let is_repeatable = is_there && may_help && error.checkout().is_none();
            if !is_repeatable || !attempts.another(&error).await {
                return Err(error);
            }
            match error.take_unsent().or(copy) {
                Some(again) => request = again,
                None => return Err(error),
            }
        }
    }

    /// A connection of HTTP/1.1 for one request, or a stream of one of HTTP/2.
    ///
    /// # Errors
    /// As for [`StreamGroup::lease`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Panics
    /// As [`StreamGroup::lease`].
    #[track_caller]
    pub fn checkout(&self) -> impl Future<Output = Result<HttpLease<B, T>, CheckoutError>> {
        self.checkout_for(Location::caller())
    }

    /// A connection of HTTP/1.1 at rest, or a stream of one of HTTP/2 that has room, if there is
    /// one. Never dials.
    #[inline]
    #[track_caller]
    pub fn try_checkout(&self) -> Option<HttpLease<B, T>> {
        self.try_checkout_for(Location::caller())
    }

    /// The same, for the one retry after a reused connection turned out stale: of HTTP/1.1 a
    /// connection that nobody has used. One of HTTP/2 that has ended takes no streams any more.
    ///
    /// # Errors
    /// As for [`StreamGroup::lease`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Panics
    /// As [`StreamGroup::lease`].
    #[track_caller]
    pub fn checkout_fresh(&self) -> impl Future<Output = Result<HttpLease<B, T>, CheckoutError>> {
        self.checkout_fresh_for(Location::caller())
    }

    #[inline]
    fn try_checkout_for(&self, caller: Caller) -> Option<HttpLease<B, T>> {
        match self.group.try_exclusive_for(caller) {
            Some(guard) => Some(HttpLease::exclusive(guard)),
            None => self.group.try_shared().map(HttpLease::shared),
        }
    }

    async fn checkout_for(&self, caller: Caller) -> Result<HttpLease<B, T>, CheckoutError> {
        match self.try_checkout_for(caller) {
            Some(lease) => Ok(lease),
            None => self.group.lease_next(caller).await.map(HttpLease::new),
        }
    }

    async fn checkout_fresh_for(&self, caller: Caller) -> Result<HttpLease<B, T>, CheckoutError> {
        // One that is given back unused goes to the next in line, whose own dial is for nothing then.
        if !self.group.is_exclusive() {
            let lease = self.group.lease_for(caller).await.map(HttpLease::new)?;
            if !lease.is_stale_risk() {
                return Ok(lease);
            }
            // It goes back to rest, or makes room.
            drop(lease);
        }
        self.group.group().checkout_fresh_for(caller).await.map(HttpLease::of)
    }

    async fn attempt(
        &self,
        request: Request<B>,
        fresh: bool,
        caller: Caller,
    ) -> Result<Response<HttpBody<B, T>>, RequestError<B>> {
        let lease = match fresh {
            true => self.checkout_fresh_for(caller).await,
            false => self.checkout_for(caller).await,
        };
        match lease {
            Ok(lease) => lease.send(request).await,
            Err(error) => {
                Err(RequestError::new(Cause::Checkout(error, Some(Box::new(request))), 1))
            }
        }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

fn copy_without_body<B: Body + Default>(request: &Request<B>) -> Option<Request<B>> {
    if !is_idempotent(request.method()) || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

impl<B, T> Clone for HttpClient<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), copy: Arc::clone(&self.copy) }
    }
}

impl<B, T> Clone for HttpOrigin<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), copy: Arc::clone(&self.copy) }
    }
}

impl<B, T> fmt::Debug for HttpClient<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl<B, T> fmt::Debug for HttpOrigin<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpOrigin").field(self.endpoint()).finish()
    }
}
