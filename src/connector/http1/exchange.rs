//! A request and its response on a pooled connection.

use core::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::TrySendError,
};
use tokio::time::timeout;

use super::{Condition, Http1, Http1Connector, Outgoing};
use crate::{BoxError, Connector, Endpoint, Pooled, StreamConnector, Transport};

/// How long the rest of a request may take after its response is complete.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

impl<B, T> Pooled<Http1Connector<B, T>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    /// Sends a request and waits for the head of its response. The response's body takes the
    /// connection along: it goes back to the pool when the body has been read to its end, and is
    /// closed when the body is dropped before, or the exchange leaves it unusable
    /// (`Connection: close`).
    ///
    /// The request is sent as it is: an absolute URI goes to a proxy, a path to an origin, and
    /// HTTP/1.1 wants a `Host` header. A request body that is not through when the response begins
    /// goes on by itself.
    ///
    /// # Errors
    /// When the connection broke before the response's head was complete. The error says what is
    /// known about a repetition. The connection is closed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection: a response is owed on it.
    pub async fn exchange(
        mut self,
        request: Request<B>,
    ) -> Result<Response<Http1Body<B, T>>, ExchangeError<B>> {
        let received = self.traffic.received();
        match self.send(request).await {
            Ok(response) => Ok(response.map(|body| Http1Body::new(body, self))),
            Err(Unanswered { cause, unsent }) => {
                let error = ExchangeError {
                    endpoint: self.endpoint().clone(),
                    unsent,
                    was_reused: self.is_reused(),
                    was_answered: self.traffic.received() != received,
                    cause,
                };
                self.discard();
                Err(error)
            }
        }
    }
}

/// An exchange that broke before the head of its response was complete.
///
/// A request that was not begun to be sent comes back ([`Self::take_unsent`]) and may be sent
/// again whatever it is. One that may have been sent may be sent again if it is idempotent
/// (RFC 9110 §9.2.2) and its connection [`was_reused`](Self::was_reused) and broke before anything
/// was [answered](Self::was_answered): as a rule its peer closed just then, having seen nothing of
/// it. Send it on a fresh connection ([`Group::checkout_fresh`](crate::Group::checkout_fresh)).
pub struct ExchangeError<B> {
    endpoint: Endpoint,
    unsent: Option<Box<Request<B>>>,
    was_reused: bool,
    was_answered: bool,
    cause: hyper::Error,
}

impl<B> ExchangeError<B> {
    /// Where the connection led.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What went wrong.
    pub fn cause(&self) -> &hyper::Error {
        &self.cause
    }

    /// The request, if not a byte of it was sent.
    pub fn take_unsent(&mut self) -> Option<Request<B>> {
        self.unsent.take().map(|request| *request)
    }

    /// Whether the connection had served others before.
    pub fn was_reused(&self) -> bool {
        self.was_reused
    }

    /// Whether the peer sent anything after the request.
    ///
    /// hyper itself does not tell a peer that closed instead of answering from one that broke off
    /// within the head of its answer.
    pub fn was_answered(&self) -> bool {
        self.was_answered
    }
}

impl<B> fmt::Display for ExchangeError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exchange with {}: {}", self.endpoint, self.cause)
    }
}

impl<B> fmt::Debug for ExchangeError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeError")
            .field("endpoint", &self.endpoint)
            .field("is_unsent", &self.unsent.is_some())
            .field("was_reused", &self.was_reused)
            .field("was_answered", &self.was_answered)
            .field("cause", &self.cause)
            .finish()
    }
}

impl<B> core::error::Error for ExchangeError<B> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// A response's body, and with it the connection that it comes from; see [`Pooled::exchange`].
///
/// Whoever reads it drives the connection: while nobody does, the peer is not read either.
pub struct Http1Body<B, T = StreamConnector>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    body: Incoming,
    /// `None` once it has gone back, or ended.
    connection: Option<Pooled<Http1Connector<B, T>>>,
    /// How the body broke off, still to be told.
    broken: Option<hyper::Error>,
}

impl<B, T> Http1Body<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    fn new(body: Incoming, connection: Pooled<Http1Connector<B, T>>) -> Self {
        let mut this = Self { body, connection: Some(connection), broken: None };
        if this.body.is_end_stream() {
            this.finish();
        }
        this
    }

    /// The response is complete.
    fn finish(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if !connection.is_ready() {
            connection.drive_unheard();
        }
        match connection.ended {
            // The peer said that it would, or we did.
            Some(Condition::Closed) => connection.discard(),
            // The look at a return tells what it was.
            Some(_) => connection.release(),
            None if connection.is_ready() => connection.release(),
            None => connection.finish_later(),
        }
    }
}

impl<B, T> Pooled<Http1Connector<B, T>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    /// The peer answered before it had the whole request. Whether the rest goes through decides
    /// what becomes of the connection.
    #[cold]
    fn finish_later(mut self) {
        self.leave_to_task();
        self.runtime.clone().spawn(async move {
            // A timer of the shard's: the caller's runtime may end before.
            match timeout(READY_TIMEOUT, self.sender.ready()).await {
                Ok(Ok(())) => self.release(),
                Ok(Err(_)) | Err(_) => self.discard(),
            }
        });
    }
}

/// A request without the head of a response: why, and the request if it was not begun.
pub(in crate::connector) struct Unanswered<B> {
    cause: hyper::Error,
    unsent: Option<Box<Request<B>>>,
}

impl<B> From<TrySendError<Request<Outgoing<B>>>> for Unanswered<B> {
    #[cold]
    fn from(mut failed: TrySendError<Request<Outgoing<B>>>) -> Self {
        let unsent = failed.take_message();
        let unsent = unsent.map(|request| Box::new(request.map(Outgoing::into_inner)));
        Self { cause: failed.into_error(), unsent }
    }
}

impl<B, S> Http1<B, S>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Transport,
{
    /// Sends a request and waits for the head of the response. Its body is read by
    /// [`Self::poll_frame`].
    pub(in crate::connector) async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, Unanswered<B>> {
        let request = request.map(|body| Outgoing::new(body, &self.traffic));
        let mut response = pin!(self.sender.try_send_request(request));
        let response = poll_fn(|cx| self.poll_through(cx, |cx| response.as_mut().poll(cx))).await?;
        if self.traffic.is_sending() {
            // Who reads the response may stop for as long as the upload does not go on.
            self.leave_to_task();
        }
        Ok(response)
    }

    /// The next part of a response's body.
    pub(in crate::connector) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.poll_through(cx, |cx| Pin::new(&mut *body).poll_frame(cx))
    }
}

impl<B, T> Body for Http1Body<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(this.broken.take().map(Err));
        };
        match ready!(connection.poll_frame(&mut this.body, cx)) {
            Some(Ok(frame)) => {
                // A body of known length ends with its last byte; not everybody asks for more.
                if this.body.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // Later: the head and the error may come in one piece, and a server that gets both
                // at once, as hyper's, sends nothing of the response, as if it had not begun.
                this.connection = None;
                this.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none() && self.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B, T> fmt::Debug for Http1Body<B, T>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Connector<Connection: Transport>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1Body").field("body", &self.body).finish_non_exhaustive()
    }
}
