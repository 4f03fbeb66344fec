//! What one request needs: a connection of HTTP/1.1, or a stream of one of HTTP/2.

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Method, Request, Response, Uri, Version, header::HOST, uri::PathAndQuery};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{HttpBody, RequestError, error::Cause};
use crate::{
    BoxError, Connector, Endpoint, ExchangeError, Http1Body, Http2Body, HttpConnector, Pooled,
    StreamError, StreamLease, Transport, connector::exchange_http1,
};

/// A stream of a shared connection, or all of one that nobody else has.
type Stream<B, T> = StreamLease<HttpConnector<B, T>>;

/// A connection of HTTP/1.1 for one request, or a stream of one of HTTP/2; see
/// [`HttpOrigin::checkout`](crate::HttpOrigin::checkout).
#[must_use = "dropping it gives it back"]
pub struct HttpLease<B, T>(Kind<B, T>)
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>;

enum Kind<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    Http1(Pooled<HttpConnector<B, T>>),
    Http2(Stream<B, T>),
}

impl<B, T> HttpLease<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    /// What is leased, as what it is.
    pub(super) fn new(lease: Stream<B, T>) -> Self {
        match lease.into_exclusive() {
            Ok(guard) => Self::of(guard),
            Err(lease) => Self(Kind::Http2(lease)),
        }
    }

    /// A connection that cannot be shared.
    #[inline]
    pub(super) fn exclusive(guard: Pooled<HttpConnector<B, T>>) -> Self {
        Self(Kind::Http1(guard))
    }

    /// A stream of one that is.
    #[inline]
    pub(super) fn shared(lease: Stream<B, T>) -> Self {
        Self(Kind::Http2(lease))
    }

    /// All of a connection, whichever it is.
    pub(super) fn of(guard: Pooled<HttpConnector<B, T>>) -> Self {
        Self(match guard.glance().as_http2() {
            None => Kind::Http1(guard),
            Some(_) => Kind::Http2(StreamLease::exclusive(guard)),
        })
    }

    /// Whether it is a connection that only a fresh one can replace.
    pub(super) fn is_stale_risk(&self) -> bool {
        matches!(&self.0, Kind::Http1(guard) if guard.is_reused())
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        match &self.0 {
            Kind::Http1(guard) => guard.endpoint(),
            Kind::Http2(lease) => lease.endpoint(),
        }
    }

    /// Which version it speaks.
    pub fn version(&self) -> Version {
        match self.0 {
            Kind::Http1(_) => Version::HTTP_11,
            Kind::Http2(_) => Version::HTTP_2,
        }
    }

    /// Whether its connection may have served others before: one of HTTP/2 may, however new.
    pub fn is_reused(&self) -> bool {
        match &self.0 {
            Kind::Http1(guard) => guard.is_reused(),
            Kind::Http2(_) => true,
        }
    }

    /// Sends a request, once, and waits for the head of the response. The response's body takes the
    /// connection, or the stream, along.
    ///
    /// HTTP/1.1 gets the path of an absolute URI, and its authority as `Host` if there is none.
    ///
    /// # Errors
    /// When the connection or the stream broke off before the head of the response was complete. A
    /// request of which nothing was sent comes back.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, or resets the stream: a response is owed on it.
    pub fn send(
        self,
        mut request: Request<B>,
    ) -> impl Future<Output = Result<Response<HttpBody<B, T>>, RequestError<B>>> {
        match self.0 {
            Kind::Http1(guard) => {
                to_origin_form(&mut request);
                Exchange::Http1 { under_way: exchange_http1(guard, request) }
            }
            Kind::Http2(lease) => {
                let Some(connection) = lease.as_http2() else {
                    unreachable!("one of HTTP/1.1 is nobody else's");
                };
                let outbound = connection.outbound(request);
                Exchange::Http2 { under_way: Box::pin(outbound.keeping(lease)) }
            }
        }
    }
}

pin_project! {
    /// A request under way. By hand, as a request that an async block passes on is copied twice.
    #[project = UnderWay]
    enum Exchange<H1, H2> {
        Http1 { #[pin] under_way: H1 },
        // In a box, for its state is large and would be moved about with requests of HTTP/1 too.
        Http2 { under_way: Pin<Box<H2>> },
    }
}

impl<H1, H2, B, T> Future for Exchange<H1, H2>
where
    H1: Future<Output = Result<Response<Http1Body<HttpConnector<B, T>>>, ExchangeError<B>>>,
    H2: Future<Output = Result<Response<Http2Body<Stream<B, T>>>, StreamError<B>>>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    type Output = Result<Response<HttpBody<B, T>>, RequestError<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project() {
            UnderWay::Http1 { under_way } => match ready!(under_way.poll(cx)) {
                Ok(response) => Ok(response.map(Into::into)),
                Err(error) => Err(RequestError::new(Cause::Http1(error), 1)),
            },
            UnderWay::Http2 { under_way } => match ready!(under_way.as_mut().poll(cx)) {
                Ok(response) => Ok(response.map(Into::into)),
                Err(error) => Err(RequestError::new(Cause::Http2(error), 1)),
            },
        })
    }
}

/// As an origin wants it (RFC 9112 §3.2.1): the path, and the authority as a field.
fn to_origin_form<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else {
        return;
    };
    if request.method() == Method::CONNECT {
        return;
    }
    let named = authority.as_str();
    let host = named.rsplit_once('@').map_or(named, |(_, host)| host);
    if let Ok(host) = HeaderValue::try_from(host) {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    let path = request.uri().path_and_query().cloned();
    let path = path.filter(|path| path.as_str() != "").unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
}

impl<B, T> fmt::Debug for HttpLease<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpLease")
            .field("endpoint", self.endpoint())
            .field("version", &self.version())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_gets_the_path_and_the_host() {
        for (uri, path, host) in [
            ("http://a.test", "/", Some("a.test")),
            ("http://a.test:81/b?c", "/b?c", Some("a.test:81")),
            ("http://user:secret@a.test/b", "/b", Some("a.test")),
            ("/b", "/b", None),
        ] {
            let mut sent = Request::get(uri).body(()).unwrap();
            to_origin_form(&mut sent);
            assert_eq!(sent.uri(), path, "{uri}");
            let said = sent.headers().get(HOST).map(|host| host.to_str().unwrap());
            assert_eq!(said, host, "{uri}");
        }
        let mut named = Request::get("http://a.test/").header(HOST, "b.test").body(()).unwrap();
        to_origin_form(&mut named);
        assert_eq!(named.headers()[HOST], "b.test", "its own goes before");
    }
}
