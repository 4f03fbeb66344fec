//! The admin address: `/metrics` for Prometheus, `/pool` for people and scripts.

use core::convert::Infallible;
use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use corepool::{GroupStats, Http1Connector, Pool, PoolStats};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, time::sleep};

use crate::{counters::Counters, metrics, upload::Upload};

/// What the pages are made of.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) pool: Pool<Http1Connector<Upload>>,
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
        let known = ["/metrics", "/pool"].contains(&request.uri().path());
        if !known {
            return page(StatusCode::NOT_FOUND, TEXT, "there are /metrics and /pool\n".into());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response =
                page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD only\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let stats = self.pool.stats();
        if request.uri().path() == "/metrics" {
            page(StatusCode::OK, PROMETHEUS, metrics::page(&stats, &self.shards))
        } else {
            page(StatusCode::OK, JSON, format!("{}\n", pool(&stats)))
        }
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn pool(stats: &PoolStats) -> Value {
    let shards = stats.shards.iter().map(|shard| {
        json!({
            "id": shard.id,
            "core": shard.core,
            "backend": shard.backend,
            "slots": shard.slots,
            "slots_in_use": shard.slots_in_use,
        })
    });
    json!({
        "backend": stats.backend.selected,
        "backend_requested": stats.backend.requested.as_str(),
        "backend_reason": stats.backend.reason,
        "shards": shards.collect::<Vec<_>>(),
        "endpoints": stats.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn endpoint(group: &GroupStats) -> Value {
    let closed =
        group.closed.iter().map(|(reason, count)| (reason.as_str().to_owned(), json!(count)));
    json!({
        "address": group.endpoint.to_string(),
        "idle": group.idle,
        "in_use": group.in_use,
        "dialing": group.dialing,
        "waiting": group.waiting,
        "opened_total": group.opened,
        "reused_total": group.reused,
        "stolen_total": group.stolen,
        "dial_failures_total": group.dial_failures,
        "closed_total": closed.collect::<Map<_, _>>(),
        "breaker": "closed",
    })
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
