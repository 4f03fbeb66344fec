//! The example proxy between nghttp2's tools: nghttpd behind it, by HTTP/2, and h2load before it.
//!
//! Needs `apt-get install nghttp2`; `COREPOOL_SKIP_REAL_PEERS=1` skips it.
#![cfg(target_os = "linux")]

#[path = "support/nghttpd.rs"]
mod nghttpd;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/proxy.rs"]
mod support;

use std::process::Stdio;

use nghttpd::Nghttpd;
use nginx::{are_skipped, find};
use support::{PATIENCE, Proxy, balances, can_have};
use tokio::{process::Command, time::timeout};

#[tokio::test]
async fn ten_thousand_requests_of_h2load_with_io_uring() {
    ten_thousand_requests_of_h2load("io-uring").await;
}

#[tokio::test]
async fn ten_thousand_requests_of_h2load_with_epoll() {
    ten_thousand_requests_of_h2load("epoll").await;
}

async fn ten_thousand_requests_of_h2load(backend: &str) {
    if are_skipped(&["nghttpd", "h2load"]) || !can_have(backend).await {
        return;
    }
    let server = Nghttpd::start(16).await;
    let upstream = format!("h2c://{}", server.address);
    let proxy = Proxy::start(&["--backend", backend, "--upstream", &upstream]).await;
    // The listener speaks HTTP/1.1.
    let output = Command::new(find("h2load").expect("checked before"))
        .args(["--h1", "-n", "10000", "-c", "50", "-t", "1"])
        .arg(format!("http://{}/small", proxy.address))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output).await.expect("h2load ends").expect("h2load runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains("10000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
    assert!(report.contains("status codes: 10000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{report}");
    let endpoint = proxy.endpoint(balances).await;
    let opened = endpoint["opened_total"].as_u64().expect("a count");
    assert!((1..=4).contains(&opened), "50 requests at once, 16 to a connection: {endpoint}");
}
