//! Why a request has no response.

use core::{error::Error, fmt};

use h2::Reason;
use http::Request;

use crate::{CheckoutError, Endpoint, ExchangeError, StreamError, StreamErrorKind, UriError};

/// A request that has no response, after as many attempts as could do no harm.
pub struct RequestError<B> {
    cause: Cause<B>,
    attempts: u32,
}

/// What kind of failure a request met at its last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestErrorKind {
    /// Its URI names no endpoint.
    Uri,
    /// There was no connection for it.
    Checkout,
    /// Its connection, or its stream, broke off before the head of the response was complete.
    Exchange,
}

pub(super) enum Cause<B> {
    Uri(UriError, Option<Box<Request<B>>>),
    Checkout(CheckoutError, Option<Box<Request<B>>>),
    Http1(ExchangeError<B>),
    Http2(StreamError<B>),
}

impl<B> RequestError<B> {
    pub(super) fn new(cause: Cause<B>, attempts: u32) -> Self {
        Self { cause, attempts }
    }

    pub(super) fn at_attempt(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> RequestErrorKind {
        match self.cause {
            Cause::Uri(..) => RequestErrorKind::Uri,
            Cause::Checkout(..) => RequestErrorKind::Checkout,
            Cause::Http1(_) | Cause::Http2(_) => RequestErrorKind::Exchange,
        }
    }

    /// How often the request was tried, this failure included.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Where it was to go; `None` when its URI does not say.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.cause {
            Cause::Uri(..) => None,
            Cause::Checkout(error, _) => Some(error.endpoint()),
            Cause::Http1(error) => Some(error.endpoint()),
            Cause::Http2(error) => Some(error.endpoint()),
        }
    }

    /// Why there was no connection, if there was none.
    pub fn checkout(&self) -> Option<&CheckoutError> {
        match &self.cause {
            Cause::Checkout(error, _) => Some(error),
            _ => None,
        }
    }

    /// How its exchange over HTTP/1 broke, if it was one.
    pub fn http1(&self) -> Option<&ExchangeError<B>> {
        match &self.cause {
            Cause::Http1(error) => Some(error),
            _ => None,
        }
    }

    /// How its stream of HTTP/2 ended, if it had one.
    pub fn http2(&self) -> Option<&StreamError<B>> {
        match &self.cause {
            Cause::Http2(error) => Some(error),
            _ => None,
        }
    }

    /// Whether nothing of the request was sent, and it is there to be taken back.
    pub fn is_unsent(&self) -> bool {
        match &self.cause {
            Cause::Uri(_, request) | Cause::Checkout(_, request) => request.is_some(),
            Cause::Http1(error) => error.is_unsent(),
            Cause::Http2(error) => error.is_unsent(),
        }
    }

    /// The request, if nothing of it was sent.
    pub fn take_unsent(&mut self) -> Option<Request<B>> {
        match &mut self.cause {
            Cause::Uri(_, request) | Cause::Checkout(_, request) => {
                request.take().map(|request| *request)
            }
            Cause::Http1(error) => error.take_unsent(),
            Cause::Http2(error) => error.take_unsent(),
        }
    }

    /// The same without the request, for whom that is in the way.
    pub fn without_request(self) -> RequestError<()> {
        let cause = match self.cause {
            Cause::Uri(error, _) => Cause::Uri(error, None),
            Cause::Checkout(error, _) => Cause::Checkout(error, None),
            Cause::Http1(error) => Cause::Http1(error.without_request()),
            Cause::Http2(error) => Cause::Http2(error.without_request()),
        };
        RequestError { cause, attempts: self.attempts }
    }

    /// Whether the peer has surely not looked at the request: it was not begun, refused, or above
    /// the last stream that a GOAWAY names.
    pub fn is_safe_to_retry(&self) -> bool {
        match &self.cause {
            Cause::Uri(..) => false,
            Cause::Checkout(..) => true,
            Cause::Http1(error) => error.is_unsent(),
            Cause::Http2(error) => error.is_safe_to_retry(),
        }
    }

    /// Whether its shared connection had just come to its end: it took no more requests, or the peer
    /// said goodbye (GOAWAY, without an error) before it looked at this one. That says nothing of
    /// the peer's health, as any connection ends some day, and under all that share it.
    pub fn is_orderly_end(&self) -> bool {
        self.http2().is_some_and(|error| match error.kind() {
            StreamErrorKind::Unavailable => true,
            StreamErrorKind::GoneAway => error.reason() == Some(Reason::NO_ERROR),
            _ => false,
        })
    }

    /// Whether its connection had served others before, and broke before anything was answered: then
    /// as a rule the peer closed just then, having seen nothing of it, and an idempotent request
    /// (RFC 9110 §9.2.2) may be sent again. Not where the request itself was at fault: its own body
    /// broke off, or it cannot be sent.
    pub fn is_stale_reuse(&self) -> bool {
        match &self.cause {
            Cause::Uri(..) | Cause::Checkout(..) => false,
            // What the request itself brought about says nothing of the connection.
            Cause::Http1(error) => {
                error.was_reused() && !error.was_answered() && !error.cause().is_user()
            }
            Cause::Http2(error) => {
                error.was_reused()
                    && !error.was_answered()
                    && error.kind() == StreamErrorKind::Broken
            }
        }
    }
}

impl<B> fmt::Display for RequestError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Uri(error, Some(request)) => write!(f, "{}: {error}", request.uri())?,
            Cause::Uri(error, None) => error.fmt(f)?,
            Cause::Checkout(error, _) => error.fmt(f)?,
            Cause::Http1(error) => error.fmt(f)?,
            Cause::Http2(error) => error.fmt(f)?,
        }
        match self.attempts {
            0 | 1 => Ok(()),
            attempts => write!(f, " (attempt {attempts})"),
        }
    }
}

impl<B> fmt::Debug for RequestError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestError")
            .field("kind", &self.kind())
            .field("attempts", &self.attempts)
            .field("cause", &format_args!("{self}"))
            .finish()
    }
}

impl<B> Error for RequestError<B> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The cause's own text is this one's.
        match &self.cause {
            Cause::Uri(..) => None,
            Cause::Checkout(error, _) => error.source(),
            Cause::Http1(error) => error.source(),
            Cause::Http2(error) => error.source(),
        }
    }
}
