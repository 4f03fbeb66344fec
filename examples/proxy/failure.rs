//! What the client is told when there is no response to pass on.
//!
//! | status | when |
//! |---|---|
//! | 400 | the request is ambiguous, or its body ended early |
//! | 501 | CONNECT |
//! | 502 | the origin refused, reset, closed, or sent what is no response; its name has no address |
//! | 503 | the pool is exhausted: waiters, slots, descriptors or ports; or it is closed |
//! | 504 | no connection or no response in time |

use core::{error::Error, fmt};

use corepool::{CheckoutError, DialErrorKind, Endpoint};
use hyper::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue},
};

use crate::download::Download;

/// A request that got no response from an origin.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    cause: String,
}

impl Failure {
    pub(crate) fn bad_request(cause: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, cause: cause.to_owned() }
    }

    pub(crate) fn not_implemented(cause: &str) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, cause: cause.to_owned() }
    }

    /// The origin broke the exchange.
    #[cold]
    pub(crate) fn broken(endpoint: &Endpoint, error: &hyper::Error) -> Self {
        // Of the causes that hyper calls the user's, the body is the one that the client has a
        // part in: it is read from the client.
        let source = error.source();
        if error.is_user() && source.is_some_and(|source| source.is::<hyper::Error>()) {
            return Self::bad_request(&format!("the request's body: {}", Chain(error)));
        }
        let status = StatusCode::BAD_GATEWAY;
        Self { status, cause: format!("{endpoint}: {}", Chain(error)) }
    }

    /// The origin switched protocols although it was not asked to.
    #[cold]
    pub(crate) fn switched(endpoint: &Endpoint) -> Self {
        let cause = format!("{endpoint}: unexpected switch of protocols");
        Self { status: StatusCode::BAD_GATEWAY, cause }
    }

    /// The origin did not begin to answer.
    #[cold]
    pub(crate) fn silent(endpoint: &Endpoint, after: core::time::Duration) -> Self {
        let cause = format!("{endpoint}: no response within {} ms", after.as_millis());
        Self { status: StatusCode::GATEWAY_TIMEOUT, cause }
    }

    /// The response that tells the client.
    #[cold]
    pub(crate) fn into_response(self) -> Response<Download> {
        let Self { status, cause } = self;
        tracing::debug!(%status, %cause, "a request failed");
        let mut response = Response::new(Download::text(format!("{status}: {cause}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
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
        let status = match &error {
            CheckoutError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            CheckoutError::Dial(dial) => match dial.kind() {
                DialErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                DialErrorKind::Descriptors | DialErrorKind::Ports | DialErrorKind::Backend => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                _ => StatusCode::BAD_GATEWAY,
            },
            // Waiters, slots, a closed pool; what is added later is the pool's trouble, too.
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, cause: error.to_string() }
    }
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
