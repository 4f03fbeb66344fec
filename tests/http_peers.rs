//! The client against HTTP/2 servers that others wrote: nghttp2's.
//!
//! Needs `apt-get install nghttp2-server`; `COREPOOL_SKIP_REAL_PEERS=1` skips it.
#![cfg(target_os = "linux")]

#[path = "support/nghttpd.rs"]
mod nghttpd;
#[path = "support/nginx.rs"]
mod nginx;
mod support;

use bytes::Bytes;
use corepool::{Backend, Endpoint, HttpClient, HttpConnector, HttpOrigin, Pool, StreamConnector};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use nghttpd::{LARGE, Nghttpd};
use nginx::are_skipped;
use support::{close_and_check, tuned};
use tokio::task::JoinSet;

type Origin = HttpOrigin<Empty<Bytes>, StreamConnector>;

fn origin(backend: Backend, server: &Nghttpd) -> (Pool<HttpConnector<Empty<Bytes>>>, Origin) {
    let pool = tuned(Pool::builder(HttpConnector::new()), backend).build().unwrap();
    let endpoint = Endpoint::from(server.address).with_http2();
    (pool.clone(), HttpClient::new(pool).origin(endpoint))
}

async fn get(origin: &Origin, path: &str) -> (StatusCode, usize) {
    let request = Request::get(path).header("host", "nghttpd").body(Empty::new()).unwrap();
    let response = origin.request(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes().len())
}

on_both_drivers! {
    async fn nghttpd_serves_ten_thousand_requests_at_sixteen_streams(backend) {
        if are_skipped(&["nghttpd"]) {
            return;
        }
        let server = Nghttpd::start(16).await;
        let (pool, origin) = origin(backend, &server);
        let mut callers = JoinSet::new();
        for _ in 0..100 {
            let origin = origin.clone();
            callers.spawn(async move {
                for _ in 0..100 {
                    assert_eq!(get(&origin, "/small").await, (StatusCode::OK, 5));
                }
            });
        }
        callers.join_all().await;
        let stats = origin.streams().group().stats();
        assert!((1..=7).contains(&stats.opened), "{} connections for 100 callers", stats.opened);
        assert_eq!(stats.dial_failures, 0);
        close_and_check(pool).await;
    }

    async fn nghttpd_serves_what_is_larger_than_a_window_and_what_is_not_there(backend) {
        if are_skipped(&["nghttpd"]) {
            return;
        }
        let server = Nghttpd::start(100).await;
        let (pool, origin) = origin(backend, &server);
        let mut callers = JoinSet::new();
        for caller in 0..40 {
            let origin = origin.clone();
            callers.spawn(async move {
                for _ in 0..5 {
                    match caller % 2 {
                        0 => assert_eq!(get(&origin, "/large").await, (StatusCode::OK, LARGE)),
                        _ => assert_eq!(get(&origin, "/none").await.0, StatusCode::NOT_FOUND),
                    }
                }
            });
        }
        callers.join_all().await;
        assert_eq!(origin.streams().group().stats().opened, 1);
        close_and_check(pool).await;
    }
}
