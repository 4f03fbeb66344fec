//! The file, the flags, and the orders at the admin address: what is taken, what is refused, and
//! how it is said.

use std::{fs, path::PathBuf};

use crate::support::{GET, Proxy, plain_origin, run};

/// A file of settings.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("proxy-{name}.toml"));
    fs::write(&path, text).expect("cargo's folder for tests is writable");
    path
}

#[tokio::test]
async fn a_file_holds_and_flags_win() {
    let text = "
        shards = 1
        backend = \"epoll\"
        max_idle_total = 77
        [endpoint.capacity]
        max_live = 33
        max_idle = 22
        [endpoints.\"127.0.0.1:1\"]
        capacity = { max_live = 44 }
    ";
    let path = file("holds", text);
    let path = path.to_str().unwrap();
    let args = ["--config", path, "--upstream", "127.0.0.1:1", "--upstream", "127.0.0.1:2"];
    let limits = |pool: &serde_json::Value| {
        let of = |nth: usize, which: &str| pool["endpoints"][nth][which].as_u64();
        [of(0, "max_live"), of(0, "max_idle"), of(1, "max_live"), of(1, "max_idle")]
            .map(Option::unwrap)
    };
    let pool = Proxy::start(&args).await.pool().await;
    assert_eq!(limits(&pool), [44, 22, 33, 22]);
    assert_eq!((&pool["backend"], &pool["totals"]["max_idle"]), (&"epoll".into(), &77.into()));
    assert_eq!(pool["shards"].as_array().unwrap().len(), 1);

    let flags =
        ["--max-idle", "11", "--max-live", "34", "--shards", "2", "--max-idle-total", "off"];
    let pool = Proxy::start(&[&args[..], &flags[..]].concat()).await.pool().await;
    // Of a single origin the file has the last word.
    assert_eq!(limits(&pool), [44, 11, 34, 11]);
    assert!(pool["totals"]["max_idle"].is_null(), "{pool}");
    assert_eq!(pool["shards"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_preset_is_where_settings_start() {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let proxy = Proxy::start(&["--preset", "lan", "--upstream", &upstream]).await;
    proxy.endpoint(|endpoint| endpoint["idle"] == 5).await;
}

#[tokio::test]
async fn a_file_with_a_mistake_is_refused_with_its_name_and_the_field() {
    for (name, text, named) in [
        ("unknown", "[endpoint.capacity]\nmax_life = 1\n", ["max_life", "expected one of"]),
        ("zero", "[endpoint.capacity]\nmax_live = 0\n", ["endpoint.capacity.max_live", "1 to"]),
        ("sign", "[endpoint.capacity]\nmax_live = -1\n", ["max_live", "u32"]),
        ("word", "[endpoint.failure]\nat_open = \"fail\"\n", ["at_open", "fail_fast"]),
        ("no-toml", "shards 4\n", ["line 1", "shards"]),
        ("endpoint", "[endpoints.nowhere.capacity]\n", ["endpoints.\"nowhere\"", "host:port"]),
    ] {
        let path = file(name, text);
        let path = path.to_str().unwrap();
        let (status, _, stderr) = run(&["--config", path]).await;
        assert_eq!(status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {path}: ")), "{name}: {stderr}");
        assert!(named.iter().all(|part| stderr.contains(part)), "{name}: {stderr}");
    }
    let (status, _, stderr) = run(&["--config", "/nowhere/pool.toml"]).await;
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("/nowhere/pool.toml"), "{stderr}");
}

#[tokio::test]
async fn flags_that_contradict_each_other_are_refused_by_name() {
    let (status, _, stderr) = run(&["--min-idle", "200"]).await;
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--min-idle: ") && stderr.contains("at most 128"), "{stderr}");
}

#[tokio::test]
async fn orders_that_cannot_be_followed_are_refused_with_the_reason() {
    let proxy = Proxy::start(&["--upstream", "127.0.0.1:1", "--upstream", "[::1]:1"]).await;
    for (order, status, reason) in [
        ("/evict", 400, "endpoint is missing, one of: 127.0.0.1:1, [::1]:1"),
        ("/evict?endpoint=", 404, "no endpoint \"\""),
        ("/evict?endpoint=127.0.0.1:2", 404, "no endpoint \"127.0.0.1:2\", there is: 127.0.0.1:1"),
        ("/evict?endpoint=127.0.0.1:1&mode=open", 400, "unknown parameter \"mode\""),
        ("/suspend?endpoint=%zz", 400, "endpoint: broken percent-encoding"),
        ("/resume?endpoint=127.0.0.1:1&endpoint=127.0.0.1:1", 400, "endpoint is given twice"),
        ("/breaker?endpoint=127.0.0.1:1", 400, "must be auto, open, closed or reset"),
        ("/breaker?endpoint=127.0.0.1:1&mode=shut", 400, "mode is \"shut\", but must be auto"),
        ("/drain?endpoint=127.0.0.1:1", 404, "/suspend and /resume"),
    ] {
        let response = proxy.order(order).await;
        assert_eq!(response.status(), status, "{order}");
        assert!(response.text().contains(reason), "{order}: {}", response.text());
    }
    let response = proxy.order("/evict?endpoint=%5B::1%5D:1").await;
    assert_eq!(response.status(), 200, "{}", response.text());

    let get = "GET /breaker?endpoint=127.0.0.1:1&mode=open HTTP/1.1\r\nhost: a\r\n\r\n";
    let response = proxy.admin(get).await;
    assert_eq!((response.status(), response.field("allow")), (405, Some("POST")));
    let foreign = "POST /evict?endpoint=127.0.0.1:1 HTTP/1.1\r\nhost: a\r\n\
        origin: http://elsewhere.example\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(proxy.admin(foreign).await.status(), 403);
    // Nothing has come of any of them.
    let endpoint = proxy.endpoint_at("127.0.0.1:1", |_| true).await;
    assert_eq!((&endpoint["breaker"], &endpoint["suspended"]), (&"closed".into(), &false.into()));
    assert!([502, 503].contains(&proxy.ask(GET).await.status()));
}
