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

use super::{Condition, Http1, Http1Connector, Outgoing, SpeaksHttp1};
use crate::{BoxError, Connector, Endpoint, Pooled, Transport};

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
    pub fn exchange(
        self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Http1Body<Http1Connector<B, T>>>, ExchangeError<B>>>
    {
        exchange(self, request)
    }
}

/// A request and its response on a connection that speaks HTTP/1.
pub(crate) async fn exchange<C: SpeaksHttp1>(
    mut connection: Pooled<C>,
    request: Request<C::Body>,
) -> Result<Response<Http1Body<C>>, ExchangeError<C::Body>> {
    let http1 = C::http1(&mut connection);
    let received = http1.traffic.received();
    match http1.send(request).await {
        Ok(response) => Ok(response.map(|body| Http1Body::new(body, connection))),
        Err(Unanswered { cause, unsent }) => {
            let error = ExchangeError {
                endpoint: connection.endpoint().clone(),
                unsent,
                was_reused: connection.is_reused(),
                was_answered: C::http1(&mut connection).traffic.received() != received,
                cause,
            };
            connection.discard();
            Err(error)
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

    /// The same without the request, for whom that is in the way.
    pub fn without_request(self) -> ExchangeError<()> {
        let Self { endpoint, was_reused, was_answered, cause, .. } = self;
        ExchangeError { endpoint, unsent: None, was_reused, was_answered, cause }
    }

    /// Whether not a byte of the request was sent.
    pub fn is_unsent(&self) -> bool {
        self.unsent.is_some()
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
pub struct Http1Body<C: SpeaksHttp1> {
    body: Incoming,
    /// `None` once it has gone back, or ended.
    connection: Option<Pooled<C>>,
    /// How the body broke off, still to be told.
    broken: Option<hyper::Error>,
}

impl<C: SpeaksHttp1> Http1Body<C> {
    fn new(body: Incoming, connection: Pooled<C>) -> Self {
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
        let http1 = C::http1(&mut connection);
        if !http1.is_ready() {
            http1.drive_unheard();
        }
        match http1.ended {
            // The peer said that it would, or we did.
            Some(Condition::Closed) => connection.discard(),
            // The look at a return tells what it was.
            Some(_) => connection.release(),
            None if http1.is_ready() => connection.release(),
            None => finish_later(connection),
        }
    }
}

/// The peer answered before it had the whole request. Whether the rest goes through decides what
/// becomes of the connection.
#[cold]
fn finish_later<C: SpeaksHttp1>(mut connection: Pooled<C>) {
    let http1 = C::http1(&mut connection);
    http1.leave_to_task();
    http1.runtime.clone().spawn(async move {
        // A timer of the shard's: the caller's runtime may end before.
        match timeout(READY_TIMEOUT, C::http1(&mut connection).sender.ready()).await {
            Ok(Ok(())) => connection.release(),
            Ok(Err(_)) | Err(_) => connection.discard(),
        }
    });
}

/// A request without the head of a response: why, and the request if it was not begun.
pub(in crate::connector) struct Unanswered<B> {
    cause: hyper::Error,
    pub(super) unsent: Option<Box<Request<B>>>,
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

impl<C: SpeaksHttp1> Body for Http1Body<C> {
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
        match ready!(C::http1(connection).poll_frame(&mut this.body, cx)) {
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

impl<C: SpeaksHttp1> fmt::Debug for Http1Body<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1Body").field("body", &self.body).finish_non_exhaustive()
    }
}
