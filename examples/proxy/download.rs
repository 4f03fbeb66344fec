//! The response's body on its way to the client, and with it the connection that it comes from.
//!
//! The guard travels with the body. At the body's end the connection goes back to the pool; when
//! the body is dropped before (the client went away, the origin broke off) so is the guard, which
//! closes the connection: what is still to come on it belongs to nobody.

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use corepool::{Http1Connector, Pooled};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::upload::Upload;

/// A response body: a few words of our own, or what the origin sends.
pub(crate) struct Download(Source);

enum Source {
    Text(Option<Bytes>),
    Origin { body: Incoming, loan: Option<Loan> },
}

/// A connection that is out of the pool for one exchange.
pub(crate) struct Loan {
    connection: Pooled<Http1Connector<Upload>>,
    reuse: bool,
}

impl Download {
    pub(crate) fn text(text: String) -> Self {
        Self(Source::Text(Some(text.into())))
    }

    /// The body as hyper's client reads it from the lent connection.
    pub(crate) fn from_origin(body: Incoming, loan: Loan) -> Self {
        if body.is_end_stream() {
            loan.end();
            return Self(Source::Origin { body, loan: None });
        }
        Self(Source::Origin { body, loan: Some(loan) })
    }
}

impl Loan {
    /// With `reuse` unset the connection serves this exchange and no other.
    pub(crate) fn new(connection: Pooled<Http1Connector<Upload>>, reuse: bool) -> Self {
        Self { connection, reuse }
    }

    /// Ends the loan after a complete response.
    fn end(self) {
        let Self { connection, reuse } = self;
        if !reuse || connection.is_closed() {
            // Closed: the origin said `Connection: close`, or it is gone already.
            connection.discard();
        } else if connection.is_ready() {
            connection.release();
        } else {
            // hyper has not seen both ends yet: the origin answered before it had the whole
            // request. Whether the rest goes through decides what becomes of the connection.
            tokio::task::spawn_local(tokio::time::timeout(
                READY_TIMEOUT,
                connection.release_when_ready(),
            ));
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().0 {
            Source::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Origin { body, loan } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                match &frame {
                    // A body of known length ends with its last byte; hyper's server does not ask
                    // for more.
                    Some(Ok(_)) if !body.is_end_stream() => {}
                    Some(Ok(_)) | None => {
                        if let Some(loan) = loan.take() {
                            loan.end();
                        }
                    }
                    Some(Err(_)) => *loan = None,
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Text(text) => text.is_none(),
            Source::Origin { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Source::Origin { body, .. } => body.size_hint(),
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("size_hint", &self.size_hint()).finish_non_exhaustive()
    }
}

/// How long the rest of a request may take after its response is complete.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
