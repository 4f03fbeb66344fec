//! Flags that bound, warm, end and watch connections, as their effects show from outside.

use core::time::Duration;
use std::{io::ErrorKind, path::PathBuf};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    time::sleep,
};

use crate::support::{
    GET, Proxy, assert_failure, balances, held_origin, ok, one_shard, plain_origin, soon,
};

on_each_backend! {
    at_the_limit_requests_may_be_refused,
    at_the_limit_requests_may_have_one_more,
    connections_are_warmed_up_and_kept,
    connections_end_after_so_many_requests,
    a_leak_is_reported_and_so_is_its_end,
    a_suspended_origin_keeps_requests_waiting,
    a_unix_socket_is_an_origin,
    clients_that_ask_for_nothing_are_cut_off,
}

async fn at_the_limit_requests_may_be_refused(backend: &str) {
    let (origin, go) = held_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--max-live", "1", "--at-limit", "reject"]);
    let proxy = Proxy::start(&args).await;
    let mut first = proxy.client().await;
    first.send(GET).await;
    proxy.endpoint(|endpoint| endpoint["in_use"] == 1).await;
    assert_failure(&proxy.ask(GET).await, 503, &upstream, "all connections are in use");
    go.send_replace(true);
    assert_eq!(first.response().await.status(), 200);
    assert_eq!(proxy.ask(GET).await.status(), 200);
}

async fn at_the_limit_requests_may_have_one_more(backend: &str) {
    let (origin, go) = held_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--max-live", "1", "--at-limit", "overflow", "--max-live-total", "9"]);
    let proxy = Proxy::start(&args).await;
    let mut clients = [proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client.send(GET).await;
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 2).await;
    assert_eq!((&endpoint["overflow"], &endpoint["max_live"]), (&1.into(), &1.into()));
    let totals = proxy.pool().await["totals"].clone();
    assert_eq!((&totals["live"], &totals["max_live"]), (&2.into(), &9.into()), "{totals}");
    assert!(totals["max_idle"].is_null(), "{totals}");
    go.send_replace(true);
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    let closed = &endpoint["closed_total"]["overflow"];
    assert_eq!((&endpoint["idle"], closed), (&1.into(), &1.into()), "{endpoint}");
}

async fn connections_are_warmed_up_and_kept(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--warm-up", "4", "--min-idle", "2", "--idle-timeout", "0.5"]);
    let proxy = Proxy::start(&args).await;
    let endpoint = proxy.endpoint(|endpoint| endpoint["idle"] == 4).await;
    assert_eq!(endpoint["reused_total"], 0, "nobody has asked yet");
    assert_eq!(endpoint["connect_time"]["count"], 4, "{endpoint}");
    assert!(endpoint["connect_time"]["p99_ms"].as_f64() > Some(0.0), "{endpoint}");
    let timed_out = |endpoint: &serde_json::Value| {
        endpoint["closed_total"]["idle_timeout"].as_u64() >= Some(4) && endpoint["idle"] == 2
    };
    proxy.endpoint(timed_out).await;
}

async fn connections_end_after_so_many_requests(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--max-uses", "2", "--order", "lifo"]);
    let proxy = Proxy::start(&args).await;
    let mut client = proxy.client().await;
    for nth in ["1:", "1:", "2:", "2:"] {
        client.send(GET).await;
        assert_eq!(client.response().await.text(), nth);
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!(endpoint["closed_total"]["max_uses"], 2, "{endpoint}");
    assert_eq!(endpoint["wait_time"]["count"], 2, "those that had to dial: {endpoint}");
}

async fn a_leak_is_reported_and_so_is_its_end(backend: &str) {
    let (origin, go) = held_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--leak-after", "0.3"]);
    let proxy = Proxy::start(&args).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    proxy.endpoint(|endpoint| endpoint["leaked"] == 1).await;
    go.send_replace(true);
    assert_eq!(client.response().await.status(), 200);
    let endpoint = proxy.endpoint(|endpoint| endpoint["leaked"] == 0).await;
    assert_eq!(endpoint["leaks_total"], 1, "{endpoint}");
    proxy.signal("TERM").await;
    let (_, log) = proxy.wait().await;
    for (line, level) in [("a leak?", "WARN"), ("seemed lost came back", "INFO")] {
        let lines: Vec<_> = log.lines().filter(|found| found.contains(line)).collect();
        let [line] = lines[..] else { panic!("one line: {log}") };
        for part in [level, &format!("endpoint={upstream}"), "held=", "forward.rs:"] {
            assert!(line.contains(part), "no {part}: {line}");
        }
    }
}

async fn a_suspended_origin_keeps_requests_waiting(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let proxy = Proxy::start(&one_shard(backend, &upstream)).await;
    let suspend = format!("/suspend?endpoint={upstream}");
    for changed in [true, false] {
        let response = proxy.order(&suspend).await.text();
        assert!(response.contains(&format!("\"changed\":{changed}")), "{response}");
    }
    let mut client = proxy.client().await;
    client.send(GET).await;
    let endpoint = proxy.endpoint(|endpoint| endpoint["waiting"] == 1).await;
    assert_eq!((&endpoint["suspended"], &endpoint["dialing"]), (&true.into(), &0.into()));
    assert_eq!(proxy.order(&format!("/resume?endpoint={upstream}")).await.status(), 200);
    assert_eq!(client.response().await.status(), 200);
    proxy.endpoint(|endpoint| endpoint["suspended"] == false).await;
}

async fn a_unix_socket_is_an_origin(backend: &str) {
    // Below the 107 bytes that a path may have, wherever the sources lie.
    let name = format!("corepool-{}-{backend}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _file = Unlinked(path.clone());
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
            stream.write_all(ok(host).as_bytes()).await.unwrap();
        }
    });
    let upstream = format!("unix:{}", path.display());
    let proxy = Proxy::start(&one_shard(backend, &upstream)).await;
    // Its path is no host.
    assert_eq!(proxy.ask("GET / HTTP/1.0\r\n\r\n").await.text(), "localhost");
    assert_eq!(proxy.ask(GET).await.text(), "a");
    soon("the origin's end", serving).await.unwrap();
    let endpoint = proxy.endpoint(|endpoint| endpoint["idle"] == 0).await;
    assert_eq!(endpoint["address"], upstream);
    assert_eq!((&endpoint["opened_total"], &endpoint["reused_total"]), (&1.into(), &1.into()));
    assert_failure(&proxy.ask(GET).await, 502, &upstream, "connection refused");
}

/// A file that is removed when dropped.
struct Unlinked(PathBuf);

impl Drop for Unlinked {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => eprintln!("{}: {error}", self.0.display()),
        }
    }
}

async fn clients_that_ask_for_nothing_are_cut_off(backend: &str) {
    let (origin, go) = held_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--client-timeout", "1"]);
    let proxy = Proxy::start(&args).await;
    let mut silent = proxy.client().await;
    let mut halfway = proxy.client().await;
    let mut waiting = proxy.client().await;
    halfway.send("GET / HTTP/1.1\r\nho").await;
    waiting.send(GET).await;
    proxy.endpoint(|endpoint| endpoint["in_use"] == 1).await;
    // Who waits for an answer may wait for longer than that.
    assert!(silent.is_at_end().await);
    assert!(halfway.is_at_end().await);
    go.send_replace(true);
    assert_eq!(waiting.response().await.status(), 200);
    assert!(waiting.is_at_end().await);
    // A client that goes on asking stays.
    let mut busy = proxy.client().await;
    for _ in 0..6 {
        busy.send(GET).await;
        assert_eq!(busy.response().await.status(), 200);
        sleep(Duration::from_millis(250)).await;
    }
    assert!(balances(&proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await));
}
