//! One request: check out, send, pass the response on.
//!
//! There are two second chances, each taken once. A *detour*: an origin that cannot be dialled, or
//! whose breaker is open, is left for the next one; nothing has been sent, so any request may take
//! it. A *retry*: what may be sent again is, when its reused connection turned out stale, on a fresh
//! connection; to another origin if there is one, because this one may be about to die. So is what an
//! origin of HTTP/2 has not looked at (`REFUSED_STREAM`, above the last stream of a GOAWAY).

use core::{pin::pin, time::Duration};
use std::sync::Arc;

use corepool::CheckoutError;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING},
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

        let mut route = self.origins.route();
        let connection = self.check_out(&mut route, !self.reuse).await?;
        if !is_named {
            headers::name_origin(&mut parts.headers, connection.endpoint());
        }
        // What has begun to be sent is not given back, so a request that may have to be sent again
        // is copied first. A fresh connection cannot be stale; a stream of HTTP/2 may be refused.
        let may_fail = connection.is_reused();
        let is_idempotent = is_idempotent(&parts.method);
        let may_repeat = is_idempotent || connection.version() == Version::HTTP_2;
        let copy = (may_fail && may_repeat && body.is_empty()).then(|| parts.clone());
        let request = Request::from_parts(parts, body);
        let mut error = match self.exchange(connection, request, progress.as_deref()).await {
            Ok(response) => return pass_on(response, &route),
            Err(Broken::Died(error)) => error,
            Err(Broken::Silent) => return Err(self.silent(&route)),
        };

        // Not a byte was sent, or the origin says that it has not looked at it: then it may be
        // anything, a POST too.
        let is_untouched = error.is_safe_to_retry();
        let mut again = match (error.take_unsent(), copy) {
            (Some(unsent), _) if is_untouched && may_fail => unsent,
            (None, Some(parts)) if is_untouched || (is_idempotent && error.is_stale_reuse()) => {
                Request::from_parts(parts, Upload::Empty)
            }
            _ => return Err(Failure::broken(&error)),
        };
        self.counters.retry();
        tracing::debug!(%error, "stale connection or refused, once more");
        route.elsewhere();
        let connection = self.check_out(&mut route, true).await?;
        if !is_named {
            headers::name_origin(again.headers_mut(), connection.endpoint());
        }
        match self.exchange(connection, again, progress.as_deref()).await {
            Ok(response) => pass_on(response, &route),
            Err(Broken::Died(error)) => Err(Failure::broken(&error)),
            Err(Broken::Silent) => Err(self.silent(&route)),
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
