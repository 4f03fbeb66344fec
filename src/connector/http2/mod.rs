//! Pools HTTP/2 connections, each for many requests at once.
//!
//! h2 does the framing: streams, flow control, header compression. A connection has one task, on the
//! shard that dialled it, which moves frames for all its streams; whoever has a stream works on h2's
//! state of it, from any thread, and is woken by that task. The task reads all the time, at rest too:
//! SETTINGS, GOAWAY and PING come when the peer likes. It tells the pool by two words that anybody
//! may read: how many streams the peer allows ([`StreamMeter`]), and how the connection ended.
//!
//! The socket lies in a [`wire::Link`] between the task and the pool. h2 keeps what it is given, but
//! the pool closes its sockets itself, in a batch with others, when nothing refers to them any more
//! (INV-4).

mod body;
mod driver;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod head;
mod options;
mod outbound;
mod pings;
mod shared;
#[cfg(test)]
mod tests;
mod upload;
mod wire;

use core::{fmt, future::poll_fn, marker::PhantomData};
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Request, Response};
use http_body::Body;

pub(crate) use self::outbound::Outbound;
pub use self::{
    body::Http2Body,
    error::{StreamError, StreamErrorKind},
    options::{Http2Keepalive, Http2Options},
};
use self::{
    driver::{Driver, UNSETTLED},
    pings::{Pace, Pings},
    shared::Shared,
    wire::{Unplug, Wire},
};
use super::{Condition, Connection, Connector, Inspect, Multiplexed, StreamConnector, Transport};
use crate::{BoxError, Endpoint, Host, Socket, StreamMeter};

/// Pools HTTP/2 connections; [`Http2::send`] sends a request on one.
///
/// The peer is known to speak HTTP/2 (RFC 9113 §3.3): over TLS because it was agreed on (ALPN `h2`),
/// over TCP and unix sockets because somebody said so. A connection is ready once the peer's first
/// SETTINGS have come, so that the number of its streams is known before the first request; until
/// then a dial takes a round trip more than the socket, and its timeout bounds that too.
///
/// `T` makes what the frames go over, out of the socket.
///
/// ```no_run
/// use corepool::{Http2Connector, Pool};
/// use http::Request;
/// use http_body_util::{BodyExt, Empty};
/// use bytes::Bytes;
///
/// # async fn ask(origin: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(Http2Connector::<Empty<Bytes>>::new()).build()?;
/// let connection = pool.group(origin).checkout().await?;
/// let ask = |path| Request::get(path).header("host", "origin").body(Empty::new());
/// // Both at once.
/// let (one, other) = tokio::join!(connection.send(ask("/1")?), connection.send(ask("/2")?));
/// let page = one?.into_body().collect().await?.to_bytes();
/// # let _ = (page, other);
/// # Ok(())
/// # }
/// ```
pub struct Http2Connector<B, T = StreamConnector> {
    pub(super) transport: T,
    options: Http2Options,
    pace: Option<Arc<Pace>>,
    body: PhantomData<fn(B)>,
}

/// A pooled HTTP/2 connection.
///
/// Requests go by a shared reference, from any thread. Dropping it closes the connection, under
/// whatever streams are open; its peer is told that nothing is wrong (GOAWAY), as far as that goes
/// without waiting.
pub struct Http2<B> {
    sender: SendRequest<Bytes>,
    shared: Arc<Shared>,
    link: Arc<dyn Unplug>,
    body: PhantomData<fn(B)>,
}

impl<B> Http2Connector<B> {
    /// Over TCP and unix sockets, with the default options.
    pub fn new() -> Self {
        let options = Http2Options::default();
        Self { transport: StreamConnector, options, pace: None, body: PhantomData }
    }
}

impl<B, T> Http2Connector<B, T> {
    /// Over what another connector makes of the sockets.
    pub fn over<U>(self, transport: U) -> Http2Connector<B, U> {
        let Self { options, pace, body, .. } = self;
        Http2Connector { transport, options, pace, body }
    }

    /// With options of one's own.
    #[must_use]
    pub fn options(mut self, options: Http2Options) -> Self {
        self.pace = options.keepalive.map(|keepalive| Arc::new(Pace::new(keepalive.interval)));
        self.options = options;
        self
    }
}

impl<B, T> Connector for Http2Connector<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    type Connection = Http2<B>;

    const SHARD_LOCAL: bool = T::SHARD_LOCAL;

    const HOST: Option<Host> = T::HOST;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Http2<B>, BoxError> {
        let transport = self.transport.connect(socket, endpoint).await?;
        if let Some(protocol) = transport.alpn_protocol().filter(|protocol| *protocol != b"h2") {
            let protocol = protocol.escape_ascii();
            return Err(format!("the peer wants to speak {protocol}, not HTTP/2 (ALPN)").into());
        }
        self.greet(transport, endpoint).await
    }

    /// A PING and its answer.
    async fn ping(&self, connection: &mut Http2<B>) -> Result<(), BoxError> {
        connection.shared.ping().await
    }
}

impl<B, T> Http2Connector<B, T>
where
    T: Connector<Connection: Transport>,
{
    /// Puts HTTP/2 on what the transport has connected.
    pub(super) async fn greet(
        &self,
        transport: T::Connection,
        endpoint: &Endpoint,
    ) -> Result<Http2<B>, BoxError> {
        self.begin(self.options.builder(), transport, endpoint).await
    }

    /// Greets the peer, waits for its SETTINGS, and leaves the connection to its task.
    async fn begin(
        &self,
        mut builder: Builder,
        transport: T::Connection,
        endpoint: &Endpoint,
    ) -> Result<Http2<B>, BoxError> {
        let shared = Shared::new(endpoint.clone());
        let (wire, link) = Wire::new(transport, Arc::clone(&shared));
        builder.initial_max_send_streams(UNSETTLED);
        let (sender, mut moving) = builder.handshake(wire).await?;
        let Some(pinger) = moving.ping_pong() else {
            return Err("h2 gives its PINGs to somebody else".into());
        };
        let pings = Pings::new(pinger, self.options.keepalive.zip(self.pace.clone()));
        let mut driver = Driver::new(moving, sender.clone(), pings, Arc::clone(&shared));
        poll_fn(|cx| driver.poll_settled(cx)).await?;
        shared.runtime.spawn(driver);
        Ok(Http2 { sender, shared, link, body: PhantomData })
    }
}

impl<B> Http2<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Sends a request and waits for the head of its response. It does not wait for a stream: where
    /// as many are open as the peer allows, it fails at once, and gives the request back.
    ///
    /// The request may be of HTTP/1: `:scheme` and `:authority` come from its URI or, where that has
    /// none, from the endpoint (`https` with TLS) and `Host`, and header fields that are about one
    /// connection stay behind (RFC 9113 §8.2.2). A body of known length gets a `content-length`.
    ///
    /// A stream ends with its connection: keep the connection checked out for as long as there is
    /// something to read. Informational responses are passed over.
    ///
    /// Who waits here sends the request's body meanwhile. What is left of it when the response
    /// begins goes on by itself, whether or not the response is read, until five seconds after the
    /// response is complete. An error of that body, then or before, resets the stream (`CANCEL`).
    ///
    /// # Errors
    /// When the request was not begun, or the stream ended before the response's head was complete.
    /// The error says what is known about a repetition.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream (`CANCEL`). The connection goes on.
    pub fn send(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Http2Body>, StreamError<B>>> + Send + use<B> {
        self.outbound(request).keeping(())
    }

    /// A request for this connection, with all that it needs to be sent without it.
    pub(crate) fn outbound(&self, request: Request<B>) -> Outbound<B> {
        Outbound::new(&self.shared, &self.sender, request)
    }
}

impl<B> Http2<B> {
    /// Streams that are open, a request's rest under way included.
    pub fn open_streams(&self) -> u32 {
        self.shared.open()
    }
}

impl<B> Connection for Http2<B>
where
    B: 'static,
{
    /// Usable for as long as it takes new streams. Its task reads what comes, so that whatever the
    /// look, it is at what is known.
    fn inspect(&mut self, _: Inspect) -> Condition {
        self.shared.ended().unwrap_or(Condition::Usable)
    }

    /// Yes: a stream that is given up is reset, and the others do not care.
    fn is_clean_on_drop(&self) -> bool {
        true
    }

    fn into_socket(self) -> Option<Socket> {
        self.link.unplug()
    }
}

impl<B> Multiplexed for Http2<B>
where
    B: 'static,
{
    fn meter(&self) -> &StreamMeter {
        &self.shared.meter
    }
}

impl<B> Drop for Http2<B> {
    fn drop(&mut self) {
        // Nothing, after `into_socket`.
        drop(self.link.unplug());
    }
}

impl<B> Default for Http2Connector<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, T: fmt::Debug> fmt::Debug for Http2Connector<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Connector")
            .field("transport", &self.transport)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Http2<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2")
            .field("endpoint", &self.shared.endpoint)
            .field("streams", &self.shared.open())
            .field("meter", &self.shared.meter)
            .field("ended", &self.shared.ended())
            .finish_non_exhaustive()
    }
}
