//! The process: its admin pages, its signals, its limits, its demo.

use std::time::Duration;

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::support::{GET, PATIENCE, Proxy, held_origin, one_shard, plain_origin, run, soon};

on_each_backend! {
    the_admin_pages,
    sigterm_drains,
    the_drain_has_a_deadline,
    it_survives_running_out_of_descriptors,
    the_demo_ends_with_its_figures,
}

async fn the_admin_pages(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let args = ["--backend", backend, "--shards", "2", "--upstream", &upstream];
    let proxy = Proxy::start(&args).await;
    assert_eq!(proxy.ask(GET).await.status(), 200);

    let pool = proxy.pool().await;
    let selected = if backend == "io-uring" { "io_uring" } else { "epoll" };
    assert_eq!(pool["backend"], selected);
    assert_eq!(pool["shards"].as_array().unwrap().len(), 2);
    let endpoint = proxy.endpoint(|endpoint| endpoint["idle"] == 1).await;
    assert_eq!(endpoint["address"], upstream);
    assert_eq!(endpoint["breaker"], "closed");
    for count in ["idle", "in_use", "overflow", "dialing", "opened_total", "reused_total"] {
        assert!(endpoint[count].is_u64(), "{count}: {endpoint}");
    }
    let closed = endpoint["closed_total"].as_object().unwrap();
    assert!(closed.values().all(serde_json::Value::is_u64), "{endpoint}");
    for reason in ["peer_closed", "max_lifetime", "max_uses", "ping_failed", "purged", "retired"] {
        assert!(closed.contains_key(reason), "{reason}: {endpoint}");
    }
    for times in ["connect_time", "wait_time"] {
        for quantile in ["p50_ms", "p99_ms"] {
            assert!(endpoint[times][quantile].as_f64() > Some(0.0), "{times}: {endpoint}");
        }
    }
    assert!(pool["shards"][0]["port_conflicts_total"].is_u64(), "{pool}");
    assert_eq!(pool["totals"]["live"], 1, "{pool}");

    let metrics = proxy.admin("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let kind = metrics.field("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert_prometheus(&metrics.text());
    let opened = format!("corepool_connections_opened_total{{endpoint=\"{upstream}\"}} 1\n");
    assert!(metrics.text().contains(&opened), "{}", metrics.text());
    for name in ["acquire", "create"] {
        let name = format!("corepool_connection_{name}_time_seconds");
        let count = format!("{name}_count{{endpoint=\"{upstream}\"}} 1\n");
        let all = format!("{name}_bucket{{endpoint=\"{upstream}\",le=\"+Inf\"}} 1\n");
        let has = |line: &str| metrics.text().contains(line);
        assert!(has(&count) && has(&all), "{}", metrics.text());
    }

    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        ("POST /pool HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", 405),
        ("DELETE /metrics HTTP/1.1\r\nhost: a\r\n\r\n", 405),
    ] {
        let response = proxy.admin(request).await;
        assert_eq!(response.status(), status, "{request}");
        assert_eq!(response.field("allow").is_some(), status == 405);
    }
}

/// Each sample belongs to the HELP and TYPE before it, and none is there twice.
fn assert_prometheus(text: &str) {
    let (mut family, mut kind, mut seen) = (String::new(), String::new(), Vec::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            kind.clear();
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
            of.clone_into(&mut kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(&family).expect(line);
            let suffixes: &[_] = match kind.as_str() {
                "" => panic!("no type: {line}"),
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            value.parse::<f64>().unwrap();
            assert!(!seen.contains(&series), "{line}");
            seen.push(series);
        }
    }
    assert!(!seen.is_empty());
}

async fn sigterm_drains(backend: &str) {
    for signal in ["TERM", "INT"] {
        let (origin, go) = held_origin().await;
        let upstream = origin.upstream();
        let proxy = Proxy::start(&["--backend", backend, "--upstream", &upstream]).await;
        let mut idle = proxy.client().await;
        let mut busy = proxy.client().await;
        busy.send(GET).await;
        proxy.endpoint(|endpoint| endpoint["in_use"] == 1).await;
        proxy.signal(signal).await;
        // Who asks for nothing is let go at once, and nobody else gets in.
        assert!(idle.is_at_end().await);
        // Each shard closes its own listener.
        soon("the end of accepting", async {
            while TcpStream::connect(proxy.address).await.is_ok() {}
        })
        .await;
        go.send_replace(true);
        let response = busy.response().await;
        assert_eq!((response.status(), response.text().as_str()), (200, "done"));
        assert!(busy.is_at_end().await);
        let (status, stderr) = proxy.wait().await;
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("drained"), "{stderr}");
    }
}

async fn the_drain_has_a_deadline(backend: &str) {
    let (origin, _go) = held_origin().await;
    let upstream = origin.upstream();
    let args = ["--backend", backend, "--upstream", &upstream, "--drain-timeout", "0.5"];
    let proxy = Proxy::start(&args).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    proxy.endpoint(|endpoint| endpoint["in_use"] == 1).await;
    proxy.signal("TERM").await;
    let asked = Instant::now();
    let (status, stderr) = proxy.wait().await;
    assert!(asked.elapsed() >= Duration::from_millis(400));
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("cut off"), "{stderr}");
    assert!(client.is_at_end().await);
}

async fn it_survives_running_out_of_descriptors(backend: &str) {
    let origin = plain_origin().await;
    let proxy = Proxy::start_with_descriptors(48, &one_shard(backend, &origin.upstream())).await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(proxy.client().await);
    }
    // Those that were accepted get an answer, if only that there is no descriptor for the dial.
    let first = clients.first_mut().unwrap();
    first.send(GET).await;
    let response = first.response().await;
    assert!([200, 503].contains(&response.status()), "{}", response.text());
    drop(clients);
    let recovered = timeout(PATIENCE, async {
        while proxy.ask(GET).await.status() != 200 {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(recovered.await.is_ok(), "it does not recover");
    proxy.signal("TERM").await;
    let (status, stderr) = proxy.wait().await;
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("cannot accept").count(), 1, "one line is enough: {stderr}");
}

async fn the_demo_ends_with_its_figures(backend: &str) {
    let args = ["--demo", "--seconds", "1", "--json", "--backend", backend];
    let (status, stdout, stderr) = run(&args).await;
    assert!(status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("requests/s"), "{stdout}");
    let line = stdout.lines().last().unwrap();
    let figures: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(figures["backend"], if backend == "io-uring" { "io_uring" } else { "epoll" });
    for half in ["pooled", "unpooled"] {
        let half = &figures[half];
        assert_eq!(half["errors"], 0, "{figures}");
        for figure in ["requests", "requests_per_second", "p50_us", "p99_us", "connections_opened"]
        {
            assert!(
                half[figure].as_f64().is_some_and(|figure| figure > 0.0),
                "{figure}: {figures}"
            );
        }
    }
    let opened = |half: &str| figures[half]["connections_opened"].as_u64().unwrap();
    assert!(opened("pooled") < opened("unpooled"), "{figures}");
    assert_eq!(figures["unpooled"]["requests"], opened("unpooled"), "{figures}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    for (args, named) in [
        (&["--shards", "0"][..], "--shards"),
        (&["--max-live", "0"], "--max-live"),
        (&["--max-idle", "99999999999"], "--max-idle"),
        (&["--idle-timeout", "0"], "--idle-timeout"),
        (&["--connect-timeout", "-1"], "--connect-timeout"),
        (&["--upstream", "nowhere"], "--upstream"),
        (&["--backend", "kqueue"], "--backend"),
        (&["--listen", "8080"], "--listen"),
        (&["--demo", "--seconds", "0"], "--seconds"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let (status, _, stderr) = run(args).await;
        assert_eq!(status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(named), "{args:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for args in [
        ["--listen", &address, "--admin", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin", &address],
    ] {
        let (status, _, stderr) = run(&args).await;
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&format!("cannot listen on {address}")), "{stderr}");
    }
}

#[tokio::test]
async fn without_an_upstream_there_is_an_embedded_origin() {
    let proxy = Proxy::start(&[]).await;
    assert!(proxy.ask(GET).await.text().starts_with("hello"));
    let echo = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nping";
    assert_eq!(proxy.ask(echo).await.text(), "ping");
    let mut client = proxy.client().await;
    client.send("GET /bytes/1000000 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.body.len(), 1_000_000);
    assert_eq!(proxy.ask("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 404);
}
