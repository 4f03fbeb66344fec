//! Pools connections of HTTP/1.1 and HTTP/2, as the peer speaks it.

use core::fmt;

use http::Version;
use hyper::{body::Body, client::conn::http1::Builder};
use sync_wrapper::SyncWrapper;

use super::{
    Condition, Connection, Connector, Http1, Http2, Http2Connector, Http2Options, Inspect,
    Multiplexed, SpeaksHttp1, StreamConnector, Transport, http1,
};
use crate::{BoxError, Endpoint, Host, Socket, StreamMeter};

/// Pools connections that speak HTTP/2 where that was agreed on with the peer (ALPN `h2`) or is
/// known of it ([`Endpoint::with_http2`]), and HTTP/1.1 elsewhere. [`HttpClient`](crate::HttpClient)
/// sends requests over both.
///
/// Over [`Pool::streams`](crate::Pool::streams) an endpoint's connections of HTTP/2 are shared, and
/// those of HTTP/1.1 serve one request at a time.
pub struct HttpConnector<B, T = StreamConnector> {
    http1: Builder,
    http2: Http2Connector<B, T>,
}

/// A pooled connection of HTTP/1.1 or HTTP/2.
pub struct Http<B: Body + 'static, S: Transport>(Kind<B, S>);

enum Kind<B: Body + 'static, S: Transport> {
    Http1 {
        /// Reached by who has the connection alone; so others may see that it is there.
        connection: SyncWrapper<Http1<B, S>>,
        /// It has no streams.
        meter: StreamMeter,
    },
    Http2(Http2<B>),
}

impl<B> HttpConnector<B> {
    /// Over TCP and unix sockets, with the default options. Without TLS nothing is agreed on, so
    /// that only endpoints that are known to speak HTTP/2 do.
    pub fn new() -> Self {
        Self { http1: Builder::new(), http2: Http2Connector::new() }
    }
}

impl<B, T> HttpConnector<B, T> {
    /// Over what another connector makes of the sockets: TLS, say.
    pub fn over<U>(self, transport: U) -> HttpConnector<B, U> {
        HttpConnector { http1: self.http1, http2: self.http2.over(transport) }
    }

    /// Settings of HTTP/1: buffer sizes, limits on headers, how lenient to be.
    #[must_use]
    pub fn http1(mut self, builder: Builder) -> Self {
        self.http1 = builder;
        self
    }

    /// Options of HTTP/2.
    #[must_use]
    pub fn http2(mut self, options: Http2Options) -> Self {
        self.http2 = self.http2.options(options);
        self
    }
}

impl<B, T> Connector for HttpConnector<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    type Connection = Http<B, T::Connection>;

    const SHARD_LOCAL: bool = T::SHARD_LOCAL;
    const HOST: Option<Host> = T::HOST;

    async fn connect(
        &self,
        socket: Socket,
        endpoint: &Endpoint,
    ) -> Result<Self::Connection, BoxError> {
        let stream = self.http2.transport.connect(socket, endpoint).await?;
        let is_http2 = match stream.alpn_protocol() {
            Some(b"h2") => true,
            Some(name) if name.starts_with(b"http/1.") => false,
            Some(name) => {
                let name = name.escape_ascii();
                return Err(format!("HTTP was wanted, and {name} was agreed on by ALPN").into());
            }
            None => endpoint.is_http2(),
        };
        Ok(Http(if is_http2 {
            Kind::Http2(self.http2.greet(stream, endpoint).await?)
        } else {
            Kind::Http1 {
                connection: SyncWrapper::new(http1::begin(&self.http1, stream).await?),
                meter: StreamMeter::new(0),
            }
        }))
    }

    async fn ping(&self, connection: &mut Self::Connection) -> Result<(), BoxError> {
        if let Kind::Http2(connection) = &mut connection.0 {
            return self.http2.ping(connection).await;
        }
        match connection.inspect(Inspect::Peek) {
            Condition::Usable => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }
}

impl<B, T> SpeaksHttp1 for HttpConnector<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    type Body = B;
    type Stream = T::Connection;

    fn http1(connection: &mut Self::Connection) -> &mut Http1<B, T::Connection> {
        match &mut connection.0 {
            Kind::Http1 { connection, .. } => connection.get_mut(),
            Kind::Http2(_) => panic!("the connection speaks HTTP/2"),
        }
    }
}

impl<B: Body + 'static, S: Transport> Http<B, S> {
    /// Which version the connection speaks.
    pub fn version(&self) -> Version {
        match self.0 {
            Kind::Http1 { .. } => Version::HTTP_11,
            Kind::Http2(_) => Version::HTTP_2,
        }
    }

    /// The connection, if it speaks HTTP/2.
    pub fn as_http2(&self) -> Option<&Http2<B>> {
        match &self.0 {
            Kind::Http1 { .. } => None,
            Kind::Http2(connection) => Some(connection),
        }
    }
}

impl<B, S> Connection for Http<B, S>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Transport,
{
    fn inspect(&mut self, how: Inspect) -> Condition {
        match &mut self.0 {
            Kind::Http1 { connection, .. } => connection.get_mut().inspect(how),
            Kind::Http2(connection) => connection.inspect(how),
        }
    }

    fn bytes_written(&self) -> Option<u64> {
        // Not through a shared reference: hyper's half is another's to touch.
        None
    }

    fn is_clean_on_drop(&self) -> bool {
        match &self.0 {
            Kind::Http1 { .. } => false,
            Kind::Http2(connection) => connection.is_clean_on_drop(),
        }
    }

    fn into_socket(self) -> Option<Socket> {
        match self.0 {
            Kind::Http1 { connection, .. } => connection.into_inner().into_socket(),
            Kind::Http2(connection) => connection.into_socket(),
        }
    }
}

impl<B, S> Multiplexed for Http<B, S>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Transport,
{
    fn meter(&self) -> &StreamMeter {
        match &self.0 {
            Kind::Http1 { meter, .. } => meter,
            Kind::Http2(connection) => connection.meter(),
        }
    }

    fn is_exclusive(&self) -> bool {
        matches!(self.0, Kind::Http1 { .. })
    }

    /// Where HTTP/2 is neither known of the peer nor offered to it.
    fn will_be_exclusive(endpoint: &Endpoint) -> bool {
        let is_offered = endpoint.tls().is_some_and(|tls| tls.alpn().any(|name| name == b"h2"));
        !endpoint.is_http2() && !is_offered
    }
}

impl<B> Default for HttpConnector<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, T: fmt::Debug> fmt::Debug for HttpConnector<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnector").field("http2", &self.http2).finish_non_exhaustive()
    }
}

impl<B: Body + 'static, S: Transport> fmt::Debug for Http<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("version", &self.version()).finish_non_exhaustive()
    }
}
