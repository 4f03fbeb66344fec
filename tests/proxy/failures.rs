//! What goes wrong: stale connections, broken peers, exhaustion, ambiguity.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use crate::support::{
    GET, Origin, POST, Proxy, assert_failure, balances, ok, one_shard, plain_origin, soon,
};

on_each_backend! {
    a_stale_connection_is_retried_for_get_and_not_for_post,
    a_second_death_is_not_retried,
    a_broken_answer_is_not_retried,
    half_an_answer_is_not_retried,
    a_refused_dial_is_502,
    a_reset_is_502,
    a_dial_into_the_void_is_504,
    a_silent_origin_is_504,
    a_long_upload_is_no_silence,
    an_exhausted_pool_is_503_or_504,
    an_answer_before_the_upload_ends,
    a_client_that_leaves_closes_the_origins_connection,
    an_upload_that_breaks_off_closes_the_origins_connection,
    an_origin_that_breaks_off_breaks_off_the_response,
    ambiguous_requests_are_refused,
    of_two_lengths_one_is_passed_on,
}

/// Answers the first request of each connection, and closes when the second one is there: as
/// late as an idle connection can turn out to be stale.
async fn stale_origin() -> Origin {
    Origin::start(|nth, mut peer| async move {
        peer.request().await.unwrap();
        peer.send(ok(&nth.to_string())).await;
        // The whole request, so that the proxy sees an orderly end and no reset.
        peer.request().await;
    })
    .await
}

async fn a_stale_connection_is_retried_for_get_and_not_for_post(backend: &str) {
    let origin = stale_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    assert_eq!(proxy.ask(GET).await.text(), "1");
    proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!(proxy.ask(GET).await.text(), "2");
    proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!(proxy.ask("DELETE /x HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "3");

    proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    let response = proxy.ask(POST).await;
    assert_eq!(response.status(), 502, "{}", response.text());
    assert!(response.text().contains(&origin.upstream()), "{}", response.text());
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["opened_total"], 3, "POST must not be sent again: {endpoint}");

    // Idempotent, but its body is gone.
    assert_eq!(proxy.ask(GET).await.text(), "4");
    proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    let put = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(proxy.ask(put).await.status(), 502);

    let metrics = proxy.admin("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await.text();
    assert!(metrics.contains("proxy_retries_total{shard=\"0\"} 2\n"), "{metrics}");
}

async fn a_second_death_is_not_retried(backend: &str) {
    let origin = Origin::start(|nth, mut peer| async move {
        peer.request().await.unwrap();
        if nth == 1 {
            peer.send(ok("1")).await;
            peer.request().await;
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    assert_eq!(proxy.ask(GET).await.text(), "1");
    proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!(proxy.ask(GET).await.status(), 502);
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["opened_total"], 2, "{endpoint}");
    // And a fresh connection's death is not retried at all.
    assert_eq!(proxy.ask(GET).await.status(), 502);
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["opened_total"], 3, "{endpoint}");
}

async fn a_broken_answer_is_not_retried(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        peer.request().await.unwrap();
        peer.send(ok("")).await;
        if peer.request().await.is_some() {
            peer.send("SMTP 220 hello\r\n\r\n").await;
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    assert_eq!(proxy.ask(GET).await.status(), 200);
    proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!(proxy.ask(GET).await.status(), 502);
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["opened_total"], 1, "{endpoint}");
}

async fn half_an_answer_is_not_retried(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        peer.request().await.unwrap();
        peer.send(ok("")).await;
        if peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-le").await;
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    assert_eq!(proxy.ask(GET).await.status(), 200);
    proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    // It has begun to answer, so it has seen the request, and may have acted on it.
    assert_eq!(proxy.ask(GET).await.status(), 502);
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["opened_total"], 1, "{endpoint}");
}

async fn a_refused_dial_is_502(backend: &str) {
    // Bound, so that nobody else gets the port; not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = socket.local_addr().unwrap().to_string();
    let proxy = Proxy::start(&one_shard(backend, &nobody)).await;
    assert_failure(&proxy.ask(GET).await, 502, &nobody, "refused");

    let proxy = Proxy::start(&one_shard(backend, "does-not-exist.invalid:80")).await;
    assert_failure(&proxy.ask(GET).await, 502, "does-not-exist.invalid:80", "resolved");
}

async fn a_reset_is_502(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        peer.head().await.unwrap();
        peer.reset();
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    assert_failure(&proxy.ask(GET).await, 502, &origin.upstream(), "reset");
}

async fn a_dial_into_the_void_is_504(backend: &str) {
    // The queue of this listener is full, so the kernel drops whatever else comes.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue has no end");
    }
    let endpoint = address.to_string();
    let mut args = one_shard(backend, &endpoint);
    args.extend(["--connect-timeout", "0.3"]);
    let proxy = Proxy::start(&args).await;
    let asked = Instant::now();
    assert_failure(&proxy.ask(GET).await, 504, &endpoint, "timed out");
    assert!(asked.elapsed() >= Duration::from_millis(300));
    let endpoint = proxy.endpoint(|endpoint| endpoint["dialing"] == 0).await;
    assert_eq!(endpoint["dial_failures_total"], 1, "{endpoint}");
}

async fn a_silent_origin_is_504(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        peer.request().await.unwrap();
        // Only the end of the connection ends the wait.
        peer.is_at_end().await;
    })
    .await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--response-timeout", "0.3"]);
    let proxy = Proxy::start(&args).await;
    assert_failure(&proxy.ask(GET).await, 504, &upstream, "no response within 300 ms");
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["idle"], 0, "what may still answer must not be reused: {endpoint}");
}

async fn a_long_upload_is_no_silence(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--response-timeout", "1"]);
    let proxy = Proxy::start(&args).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n").await;
    for byte in ["a", "b", "c", "d", "e", "f"] {
        sleep(Duration::from_millis(300)).await;
        client.send(byte).await;
    }
    assert_eq!(client.response().await.text(), "1:abcdef");
}

async fn an_exhausted_pool_is_503_or_504(backend: &str) {
    let (go, gone) = watch::channel(false);
    let origin = Origin::start(move |_, mut peer| {
        let mut gone = gone.clone();
        async move {
            while peer.request().await.is_some() {
                let _ = gone.wait_for(|go| *go).await;
                peer.send(ok("")).await;
            }
        }
    })
    .await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--max-live", "1", "--max-waiters", "1", "--acquire-timeout", "2"]);
    let proxy = Proxy::start(&args).await;
    let mut first = proxy.client().await;
    first.send(GET).await;
    proxy.endpoint(|endpoint| endpoint["in_use"] == 1).await;
    let mut second = proxy.client().await;
    second.send(GET).await;
    proxy.endpoint(|endpoint| endpoint["waiting"] == 1).await;
    // One has the connection, one waits for it, and that is all that may wait.
    assert_failure(&proxy.ask(GET).await, 503, &upstream, "in line");
    assert_failure(&second.response().await, 504, &upstream, "within 2000 ms");
    go.send_replace(true);
    assert_eq!(first.response().await.status(), 200);
    assert_eq!(proxy.ask(GET).await.status(), 200);
}

async fn an_answer_before_the_upload_ends(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        peer.head().await.unwrap();
        let large = "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n\
            content-length: 3\r\n\r\nbig";
        peer.send(large).await;
        // Read on for a while, as servers do, so that no reset overtakes the answer.
        let mut rest = Vec::new();
        let _ = AsyncReadExt::read_to_end(&mut peer.0, &mut rest).await;
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.send("4\r\npart\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text().as_str()), (413, "big"));
    drop(client);
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["idle"], 0, "{endpoint}");
}

async fn a_client_that_leaves_closes_the_origins_connection(backend: &str) {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_, mut peer| {
        let closed = closed.clone();
        async move {
            peer.request().await.unwrap();
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\npart").await;
            let _ = closed.send(peer.is_at_end().await);
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    drop(client);
    assert!(soon("the close at the origin", closes.recv()).await.unwrap());
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!((&endpoint["idle"], &endpoint["closed_total"]["dirty"]), (&0.into(), &1.into()));
    assert!(balances(&endpoint), "{endpoint}");
}

async fn an_upload_that_breaks_off_closes_the_origins_connection(backend: &str) {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_, mut peer| {
        let closed = closed.clone();
        async move {
            peer.head().await.unwrap();
            let mut part = [0; 4];
            AsyncReadExt::read_exact(&mut peer.0, &mut part).await.unwrap();
            let _ = closed.send(peer.is_at_end().await);
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\npart").await;
    proxy.endpoint(|endpoint| endpoint["in_use"] == 1).await;
    drop(client);
    assert!(soon("the close at the origin", closes.recv()).await.unwrap());
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["idle"], 0, "{endpoint}");
}

async fn an_origin_that_breaks_off_breaks_off_the_response(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        peer.request().await.unwrap();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await;
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    // The status is out already; all that is left to say is that this is not the whole body.
    let mut body = Vec::new();
    let read = AsyncReadExt::read_to_end(&mut client.0, &mut body);
    let _ = soon("the end", read).await;
    assert!(body.len() < 100);
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["idle"], 0, "{endpoint}");
}

async fn ambiguous_requests_are_refused(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 501),
        ("nonsense\r\n\r\n", 400),
    ] {
        let mut client = proxy.client().await;
        client.send(request).await;
        assert_eq!(client.response().await.status(), status, "{request}");
        assert!(client.is_at_end().await, "{request}");
    }
    let endpoint = proxy.endpoint(|_| true).await;
    assert_eq!(endpoint["opened_total"], 0, "{endpoint}");
}

async fn of_two_lengths_one_is_passed_on(backend: &str) {
    let origin = Origin::start(|_, mut peer| async move {
        while let Some(request) = peer.request().await {
            let length = request.field("content-length").unwrap_or("none");
            peer.send(ok(length)).await;
        }
    })
    .await;
    let proxy = Proxy::start(&one_shard(backend, &origin.upstream())).await;
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let mut client = proxy.client().await;
        // What would be smuggled is after the last chunk.
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n0\r\n\r\n{GET}");
        client.send(request).await;
        let response = client.response().await;
        let refused = response.status() == 400;
        assert!(refused || response.text() == "none", "{}", response.text());
        assert!(client.is_at_end().await, "RFC 9112 §6.1: the connection must end");
    }
}
