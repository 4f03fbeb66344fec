//! One request: check out, send, pass the response on.
//!
//! There are two second chances. A *detour*, once: an origin that cannot be dialled, or whose breaker
//! is open, is left for the next one; nothing has been sent, so any request may take it. A *retry*:
//! what may be sent again is, when its reused connection turned out stale, on a fresh connection; to
//! another origin if there is one, because this one may be about to die. So is what an origin of
//! HTTP/2 has not looked at (`REFUSED_STREAM`). A retry is made once, and as often as the pool's
//! [`Attempts`] says where all that has happened is that a connection of HTTP/2 was about to end
//! (GOAWAY).

use core::{pin::pin, time::Duration};
use std::sync::Arc;

use corepool::{Attempts, CheckoutError};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING},
    http::request,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    counters::Counters,
    download::Download,
    failure::Failure,
    headers::{self, Client},
    origins::{Origins, Route},
    upload::{Progress, Upload},
    upstream::{self, Lease, RequestError, Upstream},
};

/// One shard's way to the origins. Lives on the shard's thread.
#[derive(Debug)]
pub(crate) struct Forwarder {
    origins: Origins,
    reuse: bool,
    response_timeout: Duration,
    counters: Arc<Counters>,
}

/// An exchange that ended without a response head.
enum Broken {
    /// The connection broke.
    Died(RequestError),
    /// The origin stayed silent.
    Silent,
}

impl Forwarder {
    pub(crate) fn new(
        origins: Origins,
        reuse: bool,
        response_timeout: Duration,
        counters: Arc<Counters>,
    ) -> Self {
        Self { origins, reuse, response_timeout, counters }
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Answers a request, always.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        client: &Client,
    ) -> Response<Download> {
        let response = match self.forward(request, client).await {
            Ok(response) => response,
            Err(failure) => failure.into_response(),
        };
        self.counters.answer(response.status());
        response
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        client: &Client,
    ) -> Result<Response<Download>, Failure> {
        headers::check(&request)?;
        let (mut parts, body) = request.into_parts();
        headers::to_origin(&mut parts, client)?;
        let is_named = parts.headers.contains_key(HOST);
        if !self.reuse {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let (body, progress) = Upload::new(body);
        if !body.is_empty() && body.size_hint().exact().is_none() {
            // Without it hyper takes a GET of unknown length for one without a body.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }

        let mut request = Request::from_parts(parts, body);
        let mut route = self.origins.route();
        let mut connection = self.check_out(&mut route, !self.reuse).await?;
        let mut attempts = Attempts::at_most(2);
        loop {
            if !is_named {
                headers::name_origin(request.headers_mut(), connection.endpoint());
            }
            let spare = Spare::of(&request, &connection);
            let mut error = match self.exchange(connection, request, progress.as_deref()).await {
                Ok(response) => return pass_on(response, &route),
                Err(Broken::Silent) => return Err(self.silent(&route)),
                Err(Broken::Died(error)) => error,
            };
            if !spare.may_stand_in(&error) || !attempts.another(&error).await {
                return Err(Failure::broken(&error));
            }
            tracing::debug!(%error, attempt = attempts.made(), "not answered, and sent again");
            let Some(again) = spare.instead(&mut error) else {
                return Err(Failure::broken(&error));
            };
            request = again;
            self.counters.retry();
            route.elsewhere();
            connection = self.check_out(&mut route, true).await?;
        }
    }

    /// A connection to the origin that the route leads to, after a detour if need be.
    async fn check_out(&self, route: &mut Route<'_>, fresh: bool) -> Result<Lease, CheckoutError> {
        let error = match self.check_out_from(route.upstream(), fresh).await {
            Err(error @ (CheckoutError::BreakerOpen { .. } | CheckoutError::Dial(_))) => error,
            outcome => return outcome,
        };
        if !route.detour() {
            return Err(error);
        }
        self.counters.detour();
        tracing::debug!(%error, to = %route.upstream().endpoint(), "a detour");
        self.check_out_from(route.upstream(), fresh).await
    }

    async fn check_out_from(
        &self,
        upstream: &Upstream,
        fresh: bool,
    ) -> Result<Lease, CheckoutError> {
        if !fresh && let Some(lease) = upstream.try_checkout() {
            return Ok(lease);
        }
        let outcome =
            if fresh { upstream.checkout_fresh().await } else { upstream.checkout().await };
        outcome.inspect_err(|error| self.counters.refuse(error))
    }

    /// Sends a request and waits for the head of the response.
    async fn exchange(
        &self,
        connection: Lease,
        request: Request<Upload>,
        progress: Option<&Progress>,
    ) -> Result<Response<upstream::Body>, Broken> {
        let mut response = pin!(connection.send(request));
        let mut deadline = Instant::now() + self.response_timeout;
        loop {
            match timeout_at(deadline, response.as_mut()).await {
                Ok(outcome) => return outcome.map_err(Broken::Died),
                Err(_elapsed) => match progress.map(|p| p.last() + self.response_timeout) {
                    // The request was still on its way: the origin has its time from there on.
                    Some(later) if later > deadline => deadline = later,
                    _ => return Err(Broken::Silent),
                },
            }
        }
    }

    #[cold]
    fn silent(&self, route: &Route<'_>) -> Failure {
        Failure::silent(route.upstream().endpoint(), self.response_timeout)
    }
}

/// What is there to send again before a request is sent. What has begun to be sent is not given
/// back.
struct Spare {
    /// Its head, where it has no body.
    head: Option<request::Parts>,
    is_idempotent: bool,
    /// A fresh connection of HTTP/1 cannot be stale, and its death is the origin's.
    may_fail: bool,
}

impl Spare {
    fn of(request: &Request<Upload>, connection: &Lease) -> Self {
        let is_idempotent = is_idempotent(request.method());
        let may_fail = connection.is_reused();
        let may_repeat = is_idempotent || connection.version() == Version::HTTP_2;
        let is_wanted = may_fail && may_repeat && request.body().is_empty();
        Self { head: is_wanted.then(|| head_of(request)), is_idempotent, may_fail }
    }

    /// Whether the request can be sent again after this, and may be.
    #[cold]
    fn may_stand_in(&self, error: &RequestError) -> bool {
        // Not a byte was sent, or the origin says that it has not looked at it: then it may be
        // anything, a POST too.
        let may_repeat = error.is_safe_to_retry() || (self.is_idempotent && error.is_stale_reuse());
        let is_there = error.is_unsent() || self.head.is_some();
        self.may_fail && may_repeat && is_there
    }

    /// The request again, if it is there.
    #[cold]
    fn instead(self, error: &mut RequestError) -> Option<Request<Upload>> {
        let unsent = error.take_unsent();
        unsent.or_else(|| Some(Request::from_parts(self.head?, Upload::Empty)))
    }
}

fn head_of(request: &Request<Upload>) -> request::Parts {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    *head.extensions_mut() = request.extensions().clone();
    head.into_parts().0
}

fn pass_on(
    response: Response<upstream::Body>,
    route: &Route<'_>,
) -> Result<Response<Download>, Failure> {
    let (mut parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::switched(route.upstream().endpoint()));
    }
    headers::to_client(&mut parts);
    Ok(Response::from_parts(parts, Download::from(body)))
}

/// Whether sending it twice is as good as sending it once, RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
