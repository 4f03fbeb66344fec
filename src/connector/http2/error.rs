//! What can go wrong with a request on a stream.

use core::{error::Error, fmt};

use h2::Reason;
use http::Request;

use super::{
    head::BadHead,
    shared::{Refused, Shared},
};
use crate::{BoxError, Endpoint};

/// A request that has no response: it was not begun, or its stream ended before the head of the
/// response was complete.
///
/// A request that was not begun comes back ([`Self::take_unsent`]) and may be sent again whatever it
/// is. So may one that the peer says it has not looked at ([`Self::is_safe_to_retry`]), by who has
/// it still. Any other may be sent again if it is idempotent (RFC 9110 §9.2.2) and its connection
/// [`was_reused`](Self::was_reused) and broke before anything was [answered](Self::was_answered).
pub struct StreamError<B> {
    endpoint: Endpoint,
    unsent: Option<Box<Request<B>>>,
    was_begun: bool,
    was_reused: bool,
    was_answered: bool,
    cause: Cause,
}

/// What kind of failure a request met on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// The request cannot be sent over HTTP/2, on whatever connection: no host, or an impossible
    /// URI.
    BadRequest,
    /// No stream is free, or the connection takes no new one.
    Unavailable,
    /// The request's own body broke off.
    RequestBody,
    /// The stream was reset: by the peer, or by us for what the peer sent.
    Reset,
    /// The peer ended the connection (GOAWAY) without a look at the request.
    GoneAway,
    /// The connection broke, or was closed, or its peer broke the protocol.
    Broken,
}

#[derive(Debug)]
pub(super) enum Cause {
    Head(BadHead),
    Refused(Refused),
    Body(BoxError),
    H2(h2::Error),
}

impl<B> StreamError<B> {
    #[cold]
    pub(super) fn unsent(
        shared: &Shared,
        was_reused: bool,
        request: Request<B>,
        why: Cause,
    ) -> Self {
        Self {
            endpoint: shared.endpoint.clone(),
            unsent: Some(Box::new(request)),
            was_begun: false,
            was_reused,
            was_answered: false,
            cause: why,
        }
    }

    #[cold]
    pub(super) fn begun(shared: &Shared, was_reused: bool, was_answered: bool, why: Cause) -> Self {
        Self {
            endpoint: shared.endpoint.clone(),
            unsent: None,
            was_begun: true,
            was_reused,
            was_answered,
            cause: why,
        }
    }

    /// Where the connection leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> StreamErrorKind {
        match &self.cause {
            Cause::Head(_) => StreamErrorKind::BadRequest,
            Cause::Refused(_) => StreamErrorKind::Unavailable,
            Cause::Body(_) => StreamErrorKind::RequestBody,
            Cause::H2(_) if !self.was_begun => StreamErrorKind::Unavailable,
            Cause::H2(error) if error.is_reset() => StreamErrorKind::Reset,
            Cause::H2(error) if error.is_go_away() && error.is_remote() => {
                StreamErrorKind::GoneAway
            }
            Cause::H2(_) => StreamErrorKind::Broken,
        }
    }

    /// The code of the RST_STREAM or GOAWAY, where there was one.
    pub fn reason(&self) -> Option<Reason> {
        match &self.cause {
            Cause::H2(error) => error.reason(),
            _ => None,
        }
    }

    /// Whether not a byte of the request was sent, and it is there to be taken back.
    pub fn is_unsent(&self) -> bool {
        self.unsent.is_some()
    }

    /// The request, unchanged, if not a byte of it was sent.
    pub fn take_unsent(&mut self) -> Option<Request<B>> {
        self.unsent.take().map(|request| *request)
    }

    /// The same without the request, for whom that is in the way.
    pub fn without_request(self) -> StreamError<()> {
        let Self { endpoint, was_begun, was_reused, was_answered, cause, .. } = self;
        StreamError { endpoint, unsent: None, was_begun, was_reused, was_answered, cause }
    }

    /// Whether the peer has certainly done nothing with the request, so that it may be sent again
    /// whatever it is: it was not begun, the peer refused the stream (`REFUSED_STREAM`), or it is
    /// above the last one that a GOAWAY names (RFC 9113 §8.7). A bad request would fail again.
    pub fn is_safe_to_retry(&self) -> bool {
        match self.kind() {
            StreamErrorKind::BadRequest => false,
            // h2 gives the GOAWAY to streams above its last one alone.
            StreamErrorKind::Unavailable | StreamErrorKind::GoneAway => true,
            StreamErrorKind::Reset => matches!(
                &self.cause,
                Cause::H2(error)
                    if error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM)
            ),
            StreamErrorKind::RequestBody | StreamErrorKind::Broken => false,
        }
    }

    /// Whether the connection had served others before.
    pub fn was_reused(&self) -> bool {
        self.was_reused
    }

    /// Whether the peer sent anything on the connection after the request was begun, on this stream
    /// or another.
    pub fn was_answered(&self) -> bool {
        self.was_answered
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(bad) => bad.fmt(f),
            Self::Refused(Refused::Draining) => f.write_str("the connection takes no new stream"),
            Self::Refused(Refused::Full { max }) => {
                write!(f, "all {max} streams that the peer allows are open")
            }
            Self::Body(error) => write!(f, "the request's body broke off: {error}"),
            Self::H2(error) => error.fmt(f),
        }
    }
}

impl<B> fmt::Display for StreamError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exchange with {}: {}", self.endpoint, self.cause)
    }
}

impl<B> fmt::Debug for StreamError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamError")
            .field("endpoint", &self.endpoint)
            .field("is_unsent", &self.unsent.is_some())
            .field("was_reused", &self.was_reused)
            .field("was_answered", &self.was_answered)
            .field("cause", &self.cause)
            .finish()
    }
}

impl<B> Error for StreamError<B> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Head(_) | Cause::Refused(_) => None,
            Cause::Body(error) => Some(&**error),
            Cause::H2(error) => Some(error),
        }
    }
}
