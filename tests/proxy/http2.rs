//! Origins that speak HTTP/2: one connection for many requests, and how their streams end.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use h2::{Reason, server};
use hyper::Response;

use crate::{
    support::{GET, Origin, POST, Proxy, assert_failure, balances, one_shard, plain_origin, soon},
    web::{Seen, h2c, h2c_origin},
};

on_each_backend! {
    an_http2_origin_gets_the_request_as_it_has_to_be,
    requests_share_a_connection_of_http2,
    bodies_go_both_ways_over_http2,
    a_client_that_leaves_resets_its_stream_alone,
    a_stream_that_is_refused_is_asked_for_once_more,
    a_stream_that_is_refused_twice_is_503,
    a_stream_that_is_reset_is_502_and_not_sent_again,
    an_origin_that_goes_away_is_asked_on_another_connection,
    an_origin_that_does_not_speak_http2_is_502,
    a_host_that_is_no_authority_is_400,
    http_is_an_origin_of_http1,
}

async fn an_http2_origin_gets_the_request_as_it_has_to_be(backend: &str) {
    let (origin, _seen) = h2c_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    let request = "GET /a?b HTTP/1.1\r\nhost: there:81\r\nconnection: x-hop, keep-alive\r\n\
        x-hop: 1\r\nkeep-alive: timeout=5\r\nupgrade: websocket\r\nte: trailers\r\nx-kept: 2\r\n\r\n";
    let response = proxy.ask(request).await;
    assert_eq!((response.status(), response.field("via")), (200, Some("2.0 corepool")));
    let text = response.text();
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.remove(0), "HTTP/2.0 GET http://there:81/a?b");
    lines.sort_unstable();
    let added = [
        "via: 1.1 corepool",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: there:81",
        "x-forwarded-proto: http",
        "x-kept: 2",
    ];
    assert_eq!(lines, added);

    let old = proxy.ask("GET / HTTP/1.0\r\n\r\n").await.text();
    assert!(old.starts_with(&format!("HTTP/2.0 GET http://{}/", origin.address)), "{old}");
    let endpoint = proxy.endpoint(|_| true).await;
    assert_eq!(endpoint["address"], format!("{} [http/2]", origin.address));
}

async fn requests_share_a_connection_of_http2(backend: &str) {
    let (origin, seen) = h2c_origin().await;
    // As many shards as there are: it is one connection for all.
    let upstream = h2c(&origin);
    let args = ["--backend", backend, "--shards", "2", "--upstream", &upstream];
    let proxy = Proxy::start(&args).await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = proxy.client().await;
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        clients.push(client);
    }
    // All at once, or the ones that come later would find it free.
    soon("all requests", async {
        while seen.requests() < 16 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    seen.go.add_permits(16);
    for client in &mut clients {
        let response = client.response().await;
        assert_eq!((response.status(), response.text().as_str()), (200, "done"));
    }
    assert_eq!(seen.connections(), 1);
    let endpoint = proxy.endpoint(balances).await;
    assert_eq!(endpoint["opened_total"], 1, "{endpoint}");
}

async fn bodies_go_both_ways_over_http2(backend: &str) {
    let (origin, _seen) = h2c_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    // More than all windows together.
    let body: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut client = proxy.client().await;
    let head =
        format!("POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head).await;
    client.send(&body).await;
    assert_eq!(client.response().await.text(), body.len().to_string());

    let echo = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = proxy.client().await;
    client.send(echo).await;
    let head = client.head().await.expect("before the upload ends");
    assert_eq!((head.status(), head.field("transfer-encoding")), (200, Some("chunked")));
    for part in ["one", "two"] {
        client.send(format!("3\r\n{part}\r\n")).await;
        assert_eq!(client.chunk().await.as_deref(), Some(part.as_bytes()));
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, None);

    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.head().await.expect("a response");
    assert!(head.status() == 200 && head.field("content-length").is_some(), "{head:?}");
    client.send("GET /empty HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 204);
    let endpoint = proxy.endpoint(balances).await;
    assert_eq!(endpoint["opened_total"], 1, "{endpoint}");
}

async fn a_client_that_leaves_resets_its_stream_alone(backend: &str) {
    let (origin, seen) = h2c_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    let mut leaver = proxy.client().await;
    leaver.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    soon("the request", async {
        while seen.requests() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(leaver);
    assert_eq!(proxy.ask(GET).await.status(), 200);
    assert_eq!(
        (seen.connections(), proxy.endpoint(balances).await["opened_total"].as_u64()),
        (1, Some(1))
    );
}

/// An origin that does to each request what `script` says: an end by a code, or an answer that
/// counts the request.
async fn scripted(script: &'static [Option<Reason>]) -> (Origin, std::sync::Arc<Seen>) {
    let seen = Seen::new();
    let of = std::sync::Arc::clone(&seen);
    let origin = Origin::start(move |_, peer| {
        let seen = std::sync::Arc::clone(&of);
        async move {
            seen.connections.fetch_add(1, SeqCst);
            let Ok(mut connection) = server::handshake(peer.0).await else {
                return;
            };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let nth = seen.requests.fetch_add(1, SeqCst);
                match script.get(nth).copied().flatten() {
                    Some(reason) => respond.send_reset(reason),
                    None => {
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(Bytes::from(nth.to_string()), true).unwrap();
                    }
                }
            }
        }
    });
    (origin.await, seen)
}

async fn a_stream_that_is_refused_is_asked_for_once_more(backend: &str) {
    let (origin, seen) = scripted(&[Some(Reason::REFUSED_STREAM)]).await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    // Not idempotent: the origin has said that it did nothing with it.
    assert_eq!(proxy.ask(POST).await.text(), "1");
    assert_eq!((seen.requests(), seen.connections()), (2, 1));
    assert!(proxy.metrics().await.contains("proxy_retries_total{shard=\"0\"} 1\n"));
}

async fn a_stream_that_is_refused_twice_is_503(backend: &str) {
    let (origin, seen) = scripted(&[Some(Reason::REFUSED_STREAM); 2]).await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    let response = proxy.ask(GET).await;
    assert_failure(&response, 503, &origin.upstream(), "refused the request (REFUSED_STREAM)");
    assert_eq!(proxy.ask(GET).await.text(), "2");
    assert_eq!(seen.connections(), 1);
}

async fn a_stream_that_is_reset_is_502_and_not_sent_again(backend: &str) {
    let (origin, seen) = scripted(&[None, Some(Reason::INTERNAL_ERROR)]).await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    assert_eq!(proxy.ask(GET).await.text(), "0");
    let response = proxy.ask(GET).await;
    assert_failure(&response, 502, &origin.upstream(), "reset the request (INTERNAL_ERROR)");
    assert_eq!(proxy.ask(GET).await.text(), "2");
    assert_eq!((seen.requests(), seen.connections()), (3, 1));
}

async fn an_origin_that_goes_away_is_asked_on_another_connection(backend: &str) {
    // Ends each connection after one answer: the next request may cross the GOAWAY.
    let origin = Origin::start(|nth, peer| async move {
        let Ok(mut connection) = server::handshake(peer.0).await else {
            return;
        };
        if let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from(nth.to_string()), true).unwrap();
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    for nth in 1..=8 {
        let response = proxy.ask(POST).await;
        assert_eq!((response.status(), response.text()), (200, nth.to_string()));
        // It stands in none of our ways any more.
        proxy.endpoint(|endpoint| endpoint["in_use"] == 0 && endpoint["idle"] == 0).await;
    }
}

async fn an_origin_that_does_not_speak_http2_is_502(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    assert_failure(&proxy.ask(GET).await, 502, &origin.upstream(), "does not speak HTTP/2");
}

async fn a_host_that_is_no_authority_is_400(backend: &str) {
    let (origin, seen) = h2c_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &h2c(&origin))).await;
    let response = proxy.ask("GET / HTTP/1.1\r\nhost: a b\r\n\r\n").await;
    assert_eq!(response.status(), 400, "{}", response.text());
    assert!(response.text().contains("Host"), "{}", response.text());
    assert_eq!(seen.requests(), 0);
}

async fn http_is_an_origin_of_http1(backend: &str) {
    let origin = plain_origin().await;
    let upstream = format!("http://{}", origin.address);
    let proxy = Proxy::start(&one_shard(backend, &upstream)).await;
    assert_eq!(proxy.ask(GET).await.text(), "1:");
    let endpoint = proxy.endpoint(|_| true).await;
    assert_eq!(endpoint["address"], origin.upstream());
}
