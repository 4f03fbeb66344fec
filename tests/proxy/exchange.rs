//! What passes through: header fields, bodies, and what becomes of the connections.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::support::{GET, Origin, POST, Proxy, balances, ok, one_shard, plain_origin, soon};

on_each_backend! {
    hop_by_hop_fields_end_at_the_proxy,
    forwarded_and_via_are_added,
    connections_are_reused,
    bodies_stream_both_ways,
    large_bodies_arrive_whole,
    responses_without_a_body,
    a_get_with_a_body_keeps_it,
    expect_100_continue,
    the_origins_close_is_honoured,
    the_clients_close_is_honoured,
    old_clients_are_served,
    the_origins_take_turns,
    without_reuse_each_request_has_its_connection,
    upgrades_are_ordinary_requests,
}

async fn hop_by_hop_fields_end_at_the_proxy(backend: &str) {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_, mut peer| {
        let seen = seen.clone();
        async move {
            while let Some(request) = peer.request().await {
                let _ = seen.send(request);
                let response = "HTTP/1.1 200 OK\r\nconnection: x-private, keep-alive\r\n\
                    x-private: 1\r\nkeep-alive: timeout=9\r\nproxy-connection: keep-alive\r\n\
                    trailer: x-sum\r\nupgrade: h2c\r\nte: trailers\r\nx-public: 2\r\n\
                    transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n";
                peer.send(response).await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let response = proxy
        .ask(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-secret\r\nconnection: close, X-Other\r\n\
             x-secret: 1\r\nx-other: 2\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
             te: trailers\r\ntrailer: x-sum\r\nupgrade: websocket\r\nx-kept: 3\r\n\r\n",
        )
        .await;
    let request = requests.recv().await.unwrap();
    let mut names = request.names();
    names.sort_unstable();
    let added = ["via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    assert_eq!(names, [&["host"][..], &added[..], &["x-kept"][..]].concat());

    assert_eq!((response.status(), response.text().as_str()), (200, "hi"));
    let mut names = response.names();
    names.sort_unstable();
    // `connection: close` and the chunks are the proxy's own.
    assert_eq!(names, ["connection", "date", "transfer-encoding", "via", "x-public"]);
    assert_eq!(response.field("connection"), Some("close"));
}

async fn forwarded_and_via_are_added(backend: &str) {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_, mut peer| {
        let seen = seen.clone();
        async move {
            while let Some(request) = peer.request().await {
                let _ = seen.send(request);
                peer.send(ok("")).await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let response = proxy
        .ask(
            "GET http://b:81/path?query HTTP/1.1\r\nhost: a\r\nvia: 1.0 x\r\n\
             x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\n\r\n",
        )
        .await;
    assert_eq!(response.field("via"), Some("1.1 corepool"));
    let request = requests.recv().await.unwrap();
    assert_eq!(request.start, "GET /path?query HTTP/1.1");
    assert_eq!(request.field("host"), Some("b:81"));
    assert_eq!(request.field("x-forwarded-for"), Some("9.9.9.9, 127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("b:81"));
    let via: Vec<_> = request.fields.iter().filter(|(name, _)| name == "via").collect();
    assert_eq!(via.iter().map(|(_, value)| value).collect::<Vec<_>>(), ["1.0 x", "1.1 corepool"]);
}

async fn connections_are_reused(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "1:");
    }
    // Another client, the same connection.
    assert_eq!(proxy.ask(POST).await.text(), "1:");
    let endpoint = proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!((&endpoint["opened_total"], &endpoint["reused_total"]), (&1.into(), &10.into()));
    assert!(balances(&endpoint), "{endpoint}");
}

async fn bodies_stream_both_ways(backend: &str) {
    // Neither side sends its next part before the other has seen the last one, so whatever
    // collected a body first would wait for ever.
    let (seen, mut parts) = mpsc::unbounded_channel();
    let (go_on, went_on) = mpsc::unbounded_channel::<()>();
    let went_on = Arc::new(tokio::sync::Mutex::new(went_on));
    let origin = Origin::start(move |_, mut peer| {
        let (seen, went_on) = (seen.clone(), Arc::clone(&went_on));
        async move {
            let head = peer.head().await.unwrap();
            assert_eq!(head.field("transfer-encoding"), Some("chunked"));
            while let Some(part) = peer.chunk().await {
                seen.send(part).unwrap();
            }
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for part in ["5\r\nfirst\r\n", "6\r\nsecond\r\n", "0\r\n\r\n"] {
                peer.send(part).await;
                went_on.lock().await.recv().await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for part in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
        assert_eq!(soon("the part at the origin", parts.recv()).await.unwrap(), part.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    for part in [Some("first"), Some("second"), None] {
        assert_eq!(client.chunk().await.as_deref(), part.map(str::as_bytes));
        go_on.send(()).unwrap();
    }
}

async fn large_bodies_arrive_whole(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let body: String = (0..4_000_000u32).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let head = format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        client.send(head).await;
        client.send(&body).await;
        let echoed = client.response().await.text();
        assert!(echoed.strip_prefix("1:") == Some(&body), "{} bytes came back", echoed.len());
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!(endpoint["opened_total"], 1);
}

async fn responses_without_a_body(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        while let Some(request) = peer.head().await {
            peer.send(match request.start.split(' ').nth(1) {
                Some("/head") => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                _ => "HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: \"x\"\r\n\r\n",
            })
            .await;
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send("HEAD /head HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!((head.status(), head.field("content-length")), (200, Some("1000")));
        client.send("GET /204 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 204);
        client.send("GET /304 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.field("etag")), (304, Some("\"x\"")));
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!(endpoint["opened_total"], 1);
}

async fn a_get_with_a_body_keeps_it(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let chunked = "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
        2\r\nhi\r\n0\r\n\r\n";
    assert_eq!(proxy.ask(chunked).await.text(), "1:hi");
    let sized = "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nho";
    assert_eq!(proxy.ask(sized).await.text(), "1:ho");
}

async fn expect_100_continue(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    let head = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.head().await.unwrap().status(), 100);
    client.send("body").await;
    assert_eq!(client.response().await.text(), "1:body");
}

async fn the_origins_close_is_honoured(backend: &str) {
    let origin = Origin::start(|nth, mut peer| async move {
        peer.request().await.unwrap();
        // Said, but not done: only the field tells that there is no next request.
        let close = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n";
        peer.send(format!("{close}{nth}")).await;
        assert!(peer.request().await.is_none());
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    for nth in 1..=3 {
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!(response.text(), nth.to_string());
        // It is the origin's connection that ends, not the client's.
        assert_eq!(response.field("connection"), None);
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!((&endpoint["opened_total"], &endpoint["reused_total"]), (&3.into(), &0.into()));
    assert!(balances(&endpoint), "{endpoint}");
}

async fn the_clients_close_is_honoured(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    for _ in 0..2 {
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let response = client.response().await;
        // It is the client's connection that ends, not the origin's.
        assert_eq!((response.text().as_str(), response.field("connection")), ("1:", Some("close")));
        assert!(client.is_at_end().await);
    }
}

async fn old_clients_are_served(backend: &str) {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_, mut peer| {
        let seen = seen.clone();
        async move {
            while let Some(request) = peer.request().await {
                let _ = seen.send(request);
                let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                    2\r\nhi\r\n0\r\n\r\n";
                peer.send(response).await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let response = proxy.ask("GET / HTTP/1.0\r\n\r\n").await;
    // No chunks for HTTP/1.0: the end of the connection is the end of the body.
    assert_eq!(response.field("transfer-encoding"), None);
    assert_eq!(response.text(), "hi");
    let request = requests.recv().await.unwrap();
    assert_eq!(request.start, "GET / HTTP/1.1");
    assert_eq!(request.field("host"), Some(origin.upstream().as_str()));
    assert_eq!(request.field("via"), Some("1.0 corepool"));
}

async fn the_origins_take_turns(backend: &str) {
    let origins = [plain_origin().await, plain_origin().await, plain_origin().await];
    let upstreams = origins.each_ref().map(Origin::upstream);
    let mut args = one_shard(backend, &upstreams[0]);
    args.extend(["--upstream", &upstreams[1], "--upstream", &upstreams[2]]);
    let proxy = Proxy::start(&args).await;
    let mut client = proxy.client().await;
    for _ in 0..9 {
        client.send(GET).await;
        assert_eq!(client.response().await.status(), 200);
    }
    let pool = proxy.pool().await;
    for endpoint in pool["endpoints"].as_array().unwrap() {
        assert_eq!((&endpoint["opened_total"], &endpoint["reused_total"]), (&1.into(), &2.into()));
    }
}

async fn without_reuse_each_request_has_its_connection(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.push("--no-reuse");
    let proxy = Proxy::start(&args).await;
    let mut client = proxy.client().await;
    for nth in 1..=5 {
        client.send(GET).await;
        assert_eq!(client.response().await.text(), format!("{nth}:"));
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!((&endpoint["opened_total"], &endpoint["idle"]), (&5.into(), &0.into()));
    assert!(balances(&endpoint), "{endpoint}");
}

async fn upgrades_are_ordinary_requests(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        while let Some(request) = peer.request().await {
            assert_eq!((request.field("upgrade"), request.field("connection")), (None, None));
            peer.send("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let request = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(proxy.ask(request).await.status(), 426);
}
