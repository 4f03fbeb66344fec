//! What the client is told when there is no response to pass on.
//!
//! | status | when |
//! |---|---|
//! | 400 | the request is ambiguous, its body ended early, or HTTP/2 has no place for its host |
//! | 501 | CONNECT |
//! | 502 | the origin refused the dial, reset, closed, or sent what is no response; its name has no address |
//! | 503 | the circuit breaker is open, with `Retry-After` |
//! | 503 | the origin refused the request itself, unseen (HTTP/2) |
//! | 503 | the pool is exhausted: connections, waiters, slots, descriptors or ports; or it is closed |
//! | 504 | no connection or no response in time |
//!
//! The text names the origin and the cause. Addresses behind a name, error numbers and the pool's
//! figures are for the log (`RUST_LOG=debug`).

use core::{error::Error, fmt, time::Duration};
use std::io;

use corepool::{
    CheckoutError, DialError, DialErrorKind, Endpoint, ExchangeError, StreamError, StreamErrorKind,
    TlsError,
};
use hyper::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};

use crate::{download::Download, upload::Upload, upstream::RequestError};

/// A request that got no response from an origin.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    /// For the client.
    cause: String,
    /// For the log, where there is more to tell.
    detail: Option<String>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl Failure {
    fn new(status: StatusCode, cause: impl Into<String>) -> Self {
        Self { status, cause: cause.into(), detail: None, retry_after: None }
    }

    pub(crate) fn bad_request(cause: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, cause)
    }

    pub(crate) fn not_implemented(cause: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, cause)
    }

    /// The origin broke the exchange.
    #[cold]
    pub(crate) fn broken(error: &RequestError) -> Self {
        match (error.http1(), error.http2()) {
            (Some(error), _) => Self::broken_http1(error),
            (_, Some(error)) => Self::broken_http2(error),
            // There is a connection by then.
            (None, None) => Self::new(StatusCode::BAD_GATEWAY, error.to_string()),
        }
    }

    fn broken_http1(error: &ExchangeError<Upload>) -> Self {
        let (endpoint, error) = (error.endpoint(), error.cause());
        let detail = Some(format!("{endpoint}: {}", Chain(error)));
        // Of the causes that hyper calls the user's, the body is the one that the client has a
        // part in: it is read from the client.
        let source = error.source();
        if error.is_user() && source.is_some_and(|source| source.is::<hyper::Error>()) {
            return Self { detail, ..Self::bad_request(BODY_BROKE_OFF) };
        }
        let cause = match io_error(error) {
            Some(io) => io.kind().to_string(),
            None if error.is_parse() => "the response is no HTTP/1.1".to_owned(),
            None => CLOSED.to_owned(),
        };
        let failure = Self::new(StatusCode::BAD_GATEWAY, format!("{endpoint}: {cause}"));
        Self { detail, ..failure }
    }

    fn broken_http2(error: &StreamError<Upload>) -> Self {
        let detail = Some(error.to_string());
        let (status, cause) = match http2(error) {
            Ok(found) => found,
            Err(fault) => return Self { detail, ..Self::bad_request(fault) },
        };
        let failure = Self::new(status, format!("{}: {cause}", error.endpoint()));
        Self { detail, ..failure }
    }

    /// The origin switched protocols although it was not asked to.
    #[cold]
    pub(crate) fn switched(endpoint: &Endpoint) -> Self {
        let cause = format!("{endpoint}: unexpected switch of protocols");
        Self::new(StatusCode::BAD_GATEWAY, cause)
    }

    /// The origin did not begin to answer.
    #[cold]
    pub(crate) fn silent(endpoint: &Endpoint, after: Duration) -> Self {
        let cause = format!("{endpoint}: no response within {} ms", after.as_millis());
        Self::new(StatusCode::GATEWAY_TIMEOUT, cause)
    }

    /// The response that tells the client.
    #[cold]
    pub(crate) fn into_response(self) -> Response<Download> {
        let Self { status, cause, detail, retry_after } = self;
        let detail = detail.as_ref().unwrap_or(&cause);
        tracing::debug!(%status, cause = %detail, "a request failed");
        let mut response = Response::new(Download::text(format!("{status}: {cause}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED {
            // Where the next request on this connection begins is not sure.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<CheckoutError> for Failure {
    #[cold]
    fn from(error: CheckoutError) -> Self {
        let (status, cause) = match &error {
            CheckoutError::Dial(error) => dial(error),
            CheckoutError::Timeout { after, .. } | CheckoutError::StreamTimeout { after, .. } => (
                StatusCode::GATEWAY_TIMEOUT,
                format!("no connection came free within {} ms", after.as_millis()),
            ),
            other => (StatusCode::SERVICE_UNAVAILABLE, unavailable(other).to_owned()),
        };
        let retry_after = match &error {
            // How long it is forced open nobody knows.
            CheckoutError::BreakerOpen { left, .. } => {
                Some(whole_seconds(left.unwrap_or_default()))
            }
            _ => None,
        };
        let cause = format!("{}: {cause}", error.endpoint());
        Self { status, cause, detail: Some(error.to_string()), retry_after }
    }
}

/// Rounded up, and never "at once": whoever was refused is not to come back in the same moment.
fn whole_seconds(left: Duration) -> u64 {
    let begun = u64::from(left.subsec_nanos() > 0);
    left.as_secs().saturating_add(begun).max(1)
}

/// What a failed dial comes down to.
fn dial(error: &DialError) -> (StatusCode, String) {
    use StatusCode as S;

    let (status, cause) = match error.kind() {
        DialErrorKind::TimedOut => (S::GATEWAY_TIMEOUT, "the connect timed out"),
        DialErrorKind::Descriptors => (S::SERVICE_UNAVAILABLE, "no descriptor is left"),
        DialErrorKind::Ports => (S::SERVICE_UNAVAILABLE, "no local port is left"),
        DialErrorKind::Backend => (S::SERVICE_UNAVAILABLE, "the connection pool failed"),
        DialErrorKind::Refused => (S::BAD_GATEWAY, "connection refused"),
        DialErrorKind::Unreachable => (S::BAD_GATEWAY, "unreachable"),
        DialErrorKind::Resolve => (S::BAD_GATEWAY, "the name cannot be resolved"),
        DialErrorKind::PeerClosed => (S::BAD_GATEWAY, "closed as soon as it was connected"),
        DialErrorKind::Connector => return (S::BAD_GATEWAY, greeting(error)),
        _ => (S::BAD_GATEWAY, "the connect failed"),
    };
    (status, cause.to_owned())
}

/// Why a connection that stands is of no use.
fn greeting(error: &DialError) -> String {
    match error.source() {
        Some(source) if source.is::<h2::Error>() => "does not speak HTTP/2".to_owned(),
        Some(source) => match source.downcast_ref::<TlsError>() {
            // Its text has an error number.
            Some(TlsError::Io { source, .. }) => format!("TLS: {}", source.kind()),
            Some(error) => error.to_string(),
            None => "the connect failed".to_owned(),
        },
        None => "the connect failed".to_owned(),
    }
}

/// What a stream of HTTP/2 ended of.
///
/// # Errors
/// With what the client's part in it is.
fn http2(error: &StreamError<Upload>) -> Result<(StatusCode, String), &'static str> {
    let source = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let code = error.reason().map_or_else(String::new, |reason| format!(" ({reason:?})"));
    let cause = match error.kind() {
        StreamErrorKind::BadRequest => return Err("its Host or its target cannot go by HTTP/2"),
        StreamErrorKind::RequestBody => return Err(BODY_BROKE_OFF),
        StreamErrorKind::Unavailable => {
            let cause = "the connection takes no more requests".to_owned();
            return Ok((StatusCode::SERVICE_UNAVAILABLE, cause));
        }
        StreamErrorKind::Reset if error.is_safe_to_retry() => {
            return Ok((StatusCode::SERVICE_UNAVAILABLE, format!("refused the request{code}")));
        }
        StreamErrorKind::Reset if source.is_some_and(h2::Error::is_remote) => {
            format!("reset the request{code}")
        }
        StreamErrorKind::GoneAway => format!("ended the connection{code}"),
        _ => match source.and_then(h2::Error::get_io) {
            Some(io) if is_end(io) => CLOSED.to_owned(),
            Some(io) => io.kind().to_string(),
            None if code.is_empty() => CLOSED.to_owned(),
            None => format!("the response is no HTTP/2{code}"),
        },
    };
    Ok((StatusCode::BAD_GATEWAY, cause))
}

/// h2 makes an error of its own of a peer that closes.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe)
}

fn unavailable(error: &CheckoutError) -> &'static str {
    match error {
        CheckoutError::BreakerOpen { .. } => "the circuit breaker is open",
        CheckoutError::AtLimit { .. } => "all connections are in use",
        CheckoutError::StreamsAtLimit { .. } => "all streams of all connections are in use",
        CheckoutError::WaitersFull { .. } => "too many requests are in line for a connection",
        CheckoutError::Exhausted { .. } => "the connection pool is full",
        CheckoutError::Closed { .. } => "the proxy is shutting down",
        _ => "no connection",
    }
}

const BODY_BROKE_OFF: &str = "the request's body broke off";
const CLOSED: &str = "closed before the response";

/// The first I/O error among the causes.
fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut causes = core::iter::successors(error.source(), |cause| (*cause).source());
    causes.find_map(|cause| cause.downcast_ref::<io::Error>())
}

/// An error with its causes: hyper's own text often says only what it was doing.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut error = self.0;
        while let Some(source) = error.source() {
            write!(f, ": {source}")?;
            error = source;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_rounded_up_and_at_least_one() {
        for (left_ms, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (119_999, 120)] {
            assert_eq!(whole_seconds(Duration::from_millis(left_ms)), seconds, "{left_ms} ms");
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }
}
