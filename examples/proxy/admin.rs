//! The admin address: `/metrics` for Prometheus, `/pool` for people and scripts, and orders.

use core::convert::Infallible;
use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use corepool::Settings;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    counters::Counters,
    events::Events,
    metrics,
    orders::{Order, Refusal},
    snapshot::Snapshot,
    upstream::{Group, Pool},
};

/// What the pages are made of.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) pool: Pool,
    pub(crate) groups: Vec<Group>,
    pub(crate) limits: Settings,
    pub(crate) events: Arc<Events>,
    pub(crate) shards: Vec<Arc<Counters>>,
}

impl Admin {
    /// Serves the pages, for ever.
    pub(crate) async fn serve(self, listener: TcpListener) -> Infallible {
        let this = Arc::new(self);
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _address)) => stream,
                Err(error) => {
                    this.cannot_accept(&error).await;
                    continue;
                }
            };
            let this = Arc::clone(&this);
            let service = service_fn(move |request| {
                let response = this.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an admin connection ended");
                }
            });
        }
    }

    #[cold]
    async fn cannot_accept(&self, error: &io::Error) {
        tracing::debug!(%error, "cannot accept on the admin address");
        sleep(ACCEPT_BACKOFF).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if let Some(order) = Order::at(path) {
            let query = request.uri().query().unwrap_or_default();
            let outcome = order.follow(request.method(), request.headers(), query, &self.groups);
            return match outcome {
                Ok(outcome) => page(StatusCode::OK, JSON, format!("{outcome}\n")),
                Err(Refusal { status, cause }) => refuse(status, &cause, "POST"),
            };
        }
        if !["/metrics", "/pool"].contains(&path) {
            return refuse(StatusCode::NOT_FOUND, PATHS, "");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD only", "GET, HEAD");
        }
        let snapshot = Snapshot::read(self);
        if path == "/metrics" {
            page(StatusCode::OK, PROMETHEUS, metrics::page(&snapshot))
        } else {
            page(StatusCode::OK, JSON, format!("{}\n", snapshot.to_json()))
        }
    }
}

fn refuse(status: StatusCode, cause: &str, allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = page(status, TEXT, format!("{cause}\n"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

const PATHS: &str =
    "there are /metrics and /pool, and by POST /breaker, /evict, /suspend and /resume";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
