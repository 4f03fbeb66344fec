//! Pools hyper's HTTP/1 connections.
//!
//! hyper takes an HTTP/1 connection apart into a sender of requests and a future that moves the
//! bytes, which is usually spawned. Here it has no task: whoever waits for the response drives the
//! connection, so that a request costs no switch between tasks, and one at rest is a socket that
//! nobody reads, which the pool watches, looks at and closes like any other. Only an upload that
//! outlasts its response's head gets a task, because who reads the response may stop for a while.

mod exchange;
mod mover;
#[cfg(all(test, unix))]
mod tests;
mod wire;

use core::{
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use std::{error::Error as _, io, sync::Arc};

use hyper::{
    body::Body,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    runtime::Handle,
    task::{AbortHandle, unconstrained},
};

#[cfg(feature = "http")]
pub(crate) use self::exchange::exchange;
pub use self::exchange::{ExchangeError, Http1Body};
use self::{
    mover::Mover,
    wire::{Outgoing, Traffic, Wire},
};
use super::{Condition, Connection, Connector, Inspect, Stream, StreamConnector, Transport};
use crate::{BoxError, Endpoint, Host, Socket};

/// Pools HTTP/1 connections, over TCP or unix sockets or what else `T` makes of those;
/// [`Pooled::exchange`](crate::Pooled::exchange) sends a request on one.
///
/// ```no_run
/// use corepool::{Http1Connector, Pool};
/// use http_body_util::{BodyExt, Empty};
/// use hyper::{Request, body::Bytes};
///
/// # async fn ask(origin: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(Http1Connector::<Empty<Bytes>>::new()).build()?;
/// let group = pool.group(origin);
/// let request = Request::get("/").header("host", "origin").body(Empty::new())?;
/// let response = group.checkout().await?.exchange(request).await?;
/// // Read to its end, and the connection is at rest again.
/// let page = response.into_body().collect().await?.to_bytes();
/// # Ok(())
/// # }
/// ```
pub struct Http1Connector<B, T = StreamConnector> {
    builder: http1::Builder,
    transport: T,
    body: PhantomData<fn(B)>,
}

/// A pooled HTTP/1 connection.
pub struct Http1<B: Body + 'static, S: Transport = Stream> {
    sender: SendRequest<Outgoing<B>>,
    /// What moves the bytes, unless it is a task's, or has ended.
    mover: Option<Mover<B, S>>,
    /// What it has left behind.
    stream: Option<S>,
    task: Option<Task>,
    /// How it ended, if the mover has.
    ended: Option<Condition>,
    traffic: Arc<Traffic>,
    /// Of the shard that dialled it.
    runtime: Handle,
}

/// It would go on for as long as somebody holds a body, and with it a socket that the pool has
/// counted out.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<B> Http1Connector<B> {
    /// hyper's defaults.
    pub fn new() -> Self {
        Self::with_builder(http1::Builder::new())
    }

    /// Settings of one's own: buffer sizes, limits on headers, how lenient to be.
    pub fn with_builder(builder: http1::Builder) -> Self {
        Self { builder, transport: StreamConnector, body: PhantomData }
    }
}

impl<B, T> Http1Connector<B, T> {
    /// The same over what another connector makes of a socket: TLS, say.
    ///
    /// Where that agrees on an application protocol with the peer (ALPN) and it is not HTTP/1, the
    /// dial fails.
    pub fn over<U>(self, transport: U) -> Http1Connector<B, U> {
        Http1Connector { builder: self.builder, transport, body: PhantomData }
    }
}

impl<B, T> Connector for Http1Connector<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    type Connection = Http1<B, T::Connection>;

    const SHARD_LOCAL: bool = T::SHARD_LOCAL;
    const HOST: Option<Host> = T::HOST;

    async fn connect(
        &self,
        socket: Socket,
        endpoint: &Endpoint,
    ) -> Result<Self::Connection, BoxError> {
        let stream = self.transport.connect(socket, endpoint).await?;
        if let Some(other) = stream.alpn_protocol().filter(|name| !name.starts_with(b"http/1.")) {
            let other = other.escape_ascii();
            return Err(format!("HTTP/1 was wanted, and {other} was agreed on by ALPN").into());
        }
        begin(&self.builder, stream).await
    }
}

/// A connector whose connections speak HTTP/1 where an exchange of HTTP/1 is asked for.
pub trait SpeaksHttp1: Connector {
    /// The body of requests.
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
    /// What it is spoken over.
    type Stream: Transport;

    /// The connection as one of HTTP/1.
    #[doc(hidden)]
    fn http1(connection: &mut Self::Connection) -> &mut Http1<Self::Body, Self::Stream>;
}

impl<B, T> SpeaksHttp1 for Http1Connector<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    type Body = B;
    type Stream = T::Connection;

    fn http1(connection: &mut Http1<B, T::Connection>) -> &mut Http1<B, T::Connection> {
        connection
    }
}

/// Puts HTTP/1 on a stream.
pub(super) async fn begin<B, S>(
    builder: &http1::Builder,
    stream: S,
) -> Result<Http1<B, S>, BoxError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Transport,
{
    let traffic = Arc::<Traffic>::default();
    let wire = TokioIo::new(Wire::new(stream, Arc::clone(&traffic)));
    let (sender, moving) = builder.handshake(wire).await?;
    let mut http1 = Http1 {
        sender,
        mover: Some(Mover::new(moving)),
        stream: None,
        task: None,
        ended: None,
        traffic,
        runtime: Handle::current(),
    };
    // hyper calls a connection ready once it has been polled.
    let ready = poll_fn(|cx| {
        http1.drive();
        http1.sender.poll_ready(cx)
    });
    match ready.await {
        Ok(()) => Ok(http1),
        Err(_) => Err(format!("ended before its first use: {:?}", http1.ended).into()),
    }
}

impl<B, S> Connection for Http1<B, S>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Transport,
{
    /// Usable when the last response was read to its end, the request was sent to its end, and
    /// the connection is open. While the reactor has seen nothing, which is the rule, a glance
    /// makes no system call; otherwise hyper reads what there is, and ends the connection when
    /// nobody asked for it.
    fn inspect(&mut self, how: Inspect) -> Condition {
        self.drive_unheard();
        match self.ended {
            Some(found) => found,
            None if self.sender.is_closed() => Condition::Closed,
            None if !self.is_ready() => Condition::Unusable,
            None if how == Inspect::Peek => self.peek(),
            None => Condition::Usable,
        }
    }

    fn bytes_written(&self) -> Option<u64> {
        Some(self.traffic.sent())
    }

    fn into_socket(self) -> Option<Socket> {
        self.mover.map(Mover::into_stream).or(self.stream)?.into_socket()
    }
}

impl<B: Body + 'static, S: Transport> Http1<B, S> {
    /// Bytes that the peer has sent on the connection so far.
    pub fn bytes_received(&self) -> u64 {
        self.traffic.received()
    }

    /// Whether another request may be sent.
    fn is_ready(&self) -> bool {
        // What hyper has taken and not sent yet, a task sends, whoever has the connection then.
        self.sender.is_ready() && (self.task.is_some() || !self.traffic.is_sending())
    }
}

impl<B, S> Http1<B, S>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Transport,
{
    /// Has hyper read what the kernel knows and the reactor has not been told yet. hyper has the
    /// stream, and only the stream can tell what on its socket is meant for hyper.
    #[cold]
    fn peek(&mut self) -> Condition {
        if let Some(mover) = &self.mover {
            self.traffic.peek(true);
            mover.ring();
            self.drive_unheard();
            self.traffic.peek(false);
        }
        self.ended.unwrap_or(Condition::Usable)
    }

    /// Moves what there is to move, unless a task does.
    fn drive(&mut self) {
        let Some(mover) = &mut self.mover else {
            return;
        };
        let Poll::Ready(outcome) = mover.poll() else {
            return;
        };
        // A request that hyper was given meanwhile comes back when hyper's half goes, and only then.
        self.stream = self.mover.take().map(Mover::into_stream);
        self.ended = Some(match outcome {
            Ok(()) => Condition::Closed,
            Err(error) => {
                // The caller whose exchange it broke has the error too.
                tracing::debug!(%error, "an HTTP/1 connection ended");
                self.condition(&error)
            }
        });
    }

    #[cold]
    fn condition(&self, error: &hyper::Error) -> Condition {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        let found = match cause {
            Some(cause) => wire::condition(cause),
            // It came in the place of a response, if of none that was asked for.
            None if error.is_incomplete_message() => Condition::Closed,
            None => Condition::UnexpectedBytes,
        };
        match found {
            // Not to be taken for a greeting: hyper would take it for a response.
            Condition::UnexpectedBytes if self.traffic.sent() == 0 => Condition::Unusable,
            found => found,
        }
    }

    /// As [`Self::drive`], for who does not wait for more.
    fn drive_unheard(&mut self) {
        let Some(mover) = &mut self.mover else {
            return;
        };
        mover.hush();
        if mover.is_rung() {
            let _ = look_now(|_| {
                self.drive();
                Poll::Ready(())
            });
        }
    }

    /// Asks for what the connection brings, and drives it if it is not there yet.
    fn poll_through<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // What we do here ourselves is nothing to be woken for.
        if let Some(mover) = &mut self.mover {
            mover.hush();
        }
        for _ in 0..ROUNDS {
            self.drive();
            let Some(mover) = &mut self.mover else {
                return poll(cx);
            };
            // The mover alone needs the waker: what comes, it brings while we drive it.
            if let Poll::Ready(output) = look_now(&mut poll) {
                return Poll::Ready(output);
            }
            if !mover.is_rung() && mover.listen(cx.waker()) {
                return Poll::Pending;
            }
        }
        // It would go on. Others have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Has a task on the shard drive the connection from here on.
    fn leave_to_task(&mut self) {
        let Some(mover) = self.mover.take() else {
            return;
        };
        let mut moving = mover.into_moving();
        let traffic = Arc::clone(&self.traffic);
        let mut is_sending = true;
        let task = self.runtime.spawn(poll_fn(move |cx| {
            let mut polled = Pin::new(&mut *moving).poll(cx);
            if is_sending && !traffic.is_sending() && polled.is_pending() {
                // Where the response came first, hyper finds out that it may take another request
                // when it is polled once more.
                is_sending = false;
                polled = Pin::new(&mut *moving).poll(cx);
            }
            polled.map(|outcome| {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "an HTTP/1 connection ended");
                }
            })
        }));
        self.task = Some(Task(task.abort_handle()));
    }
}

/// How often in a row a connection is driven for one who waits. To ask for more of a body rings
/// for the mover, so it may take two until nothing is left to do.
const ROUNDS: usize = 3;

/// Polls what nobody has to be woken for. Outside the scheduler's budget: who has used that up
/// would be told "pending" without a look, and nobody would come back.
fn look_now<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(unconstrained(poll_fn(poll))).poll(&mut Context::from_waker(Waker::noop()))
}

impl<B> Default for Http1Connector<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, T: fmt::Debug> fmt::Debug for Http1Connector<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1Connector")
            .field("builder", &self.builder)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl<B: Body + 'static, S: Transport> fmt::Debug for Http1<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1")
            .field("sender", &self.sender)
            .field("traffic", &self.traffic)
            .finish_non_exhaustive()
    }
}
