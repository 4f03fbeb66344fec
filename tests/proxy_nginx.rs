//! The example proxy between real peers: Debian's nginx behind it, wrk before it.
//!
//! Needs `apt-get install nginx-light wrk`; `COREPOOL_SKIP_REAL_PEERS=1` skips it.
#![cfg(target_os = "linux")]

#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/tls.rs"]
mod peers;
#[path = "support/proxy.rs"]
mod support;

use std::{fs, path::Path, process::Stdio, time::Duration};

use nginx::{Certificate, Nginx, are_skipped, find};
use peers::{Authority, Shown};
use serde_json::Value;
use support::{PATIENCE, Proxy, balances, can_have};
use tokio::{
    process::Command,
    sync::{Mutex, MutexGuard},
    time::{sleep, timeout},
};

/// nginx keeps connections for longer than the test lasts: hardly any is opened.
const PATIENT: &str = "keepalive_timeout 60s; keepalive_requests 10000000;";
/// nginx closes connections all the time, in use (politely) and at rest (whenever it likes). The
/// last is for connections that were dialled and then not needed: it has seen no request on them.
const IMPATIENT: &str = "keepalive_timeout 1s; keepalive_requests 100; client_header_timeout 1s;";

const IMPATIENT_HTTP2: &str = "keepalive_timeout 1s; keepalive_requests 100;";

#[tokio::test]
async fn a_patient_nginx_with_io_uring() {
    a_patient_nginx("io-uring").await;
}

#[tokio::test]
async fn a_patient_nginx_with_epoll() {
    a_patient_nginx("epoll").await;
}

#[tokio::test]
async fn an_impatient_nginx_with_io_uring() {
    an_impatient_nginx("io-uring").await;
}

#[tokio::test]
async fn an_impatient_nginx_with_epoll() {
    an_impatient_nginx("epoll").await;
}

#[tokio::test]
async fn a_patient_nginx_of_http2_with_io_uring() {
    a_patient_nginx_of_http2("io-uring").await;
}

#[tokio::test]
async fn a_patient_nginx_of_http2_with_epoll() {
    a_patient_nginx_of_http2("epoll").await;
}

#[tokio::test]
async fn an_impatient_nginx_of_http2_with_io_uring() {
    an_impatient_nginx_of_http2("io-uring").await;
}

#[tokio::test]
async fn an_impatient_nginx_of_http2_with_epoll() {
    an_impatient_nginx_of_http2("epoll").await;
}

async fn a_patient_nginx(backend: &str) {
    let Some(_turn) = prepare(backend).await else {
        return;
    };
    let nginx = Nginx::start(PATIENT).await;
    let upstream = nginx.address.to_string();
    let proxy = Proxy::start(&["--backend", backend, "--upstream", &upstream]).await;
    let requests = wrk(&proxy, "5s").await;
    let endpoint = settled(&proxy, requests).await;
    let ratio = reuse_ratio(&endpoint);
    assert!(ratio > 0.99, "{ratio}: {endpoint}");
}

async fn an_impatient_nginx(backend: &str) {
    let Some(_turn) = prepare(backend).await else {
        return;
    };
    let nginx = Nginx::start(IMPATIENT).await;
    let upstream = nginx.address.to_string();
    let proxy = Proxy::start(&["--backend", backend, "--upstream", &upstream]).await;
    let mut requests = 0;
    for _ in 0..4 {
        requests += wrk(&proxy, "1s").await;
        // nginx closes what rests for a second; the next burst comes when it has just begun to.
        sleep(Duration::from_millis(1050)).await;
    }
    // All that is at rest is seen to die, with nobody asking for it.
    proxy.endpoint(|endpoint| endpoint["idle"] == 0).await;
    let endpoint = settled(&proxy, requests).await;
    assert!(endpoint["closed_total"]["peer_closed"].as_u64() > Some(0), "{endpoint}");
    let ratio = reuse_ratio(&endpoint);
    assert!(ratio > 0.95, "one in a hundred is what nginx asks for; {ratio}: {endpoint}");
}

async fn a_patient_nginx_of_http2(backend: &str) {
    let Some(_turn) = prepare(backend).await else {
        return;
    };
    let Some((_nginx, proxy)) = secure_http2("patient", backend, PATIENT).await else {
        return;
    };
    let requests = wrk(&proxy, "3s").await;
    let endpoint = proxy.endpoint(balances).await;
    println!("{requests} requests, {endpoint}");
    // 64 clients are never more than one connection has streams for (128).
    assert_eq!(endpoint["opened_total"], 1, "{endpoint}");
}

/// Each connection ends by a GOAWAY after a thousand requests (nginx's default), under those of the 64
/// clients' that it does not count any more.
async fn an_impatient_nginx_of_http2(backend: &str) {
    let Some(_turn) = prepare(backend).await else {
        return;
    };
    let Some((_nginx, proxy)) = secure_http2("impatient", backend, IMPATIENT_HTTP2).await else {
        return;
    };
    let requests = wrk(&proxy, "3s").await;
    let at_rest = |endpoint: &Value| endpoint["in_use"] == 0 && balances(endpoint);
    let endpoint = proxy.endpoint(at_rest).await;
    println!("{requests} requests, {endpoint}");
    let opened = endpoint["opened_total"].as_u64().expect("a count");
    assert!(opened >= requests / 101, "no connection has more: {endpoint}");
}

/// An nginx behind TLS that speaks HTTP/2, and a proxy before it; `None` if this nginx cannot.
async fn secure_http2(name: &str, backend: &str, settings: &str) -> Option<(Nginx, Proxy)> {
    let about = Command::new(find("nginx").expect("checked before")).arg("-V").output().await;
    let about = String::from_utf8_lossy(&about.expect("nginx runs").stderr).into_owned();
    if !about.contains("http_v2_module") {
        println!("skipped: this nginx was built without HTTP/2");
        return None;
    }
    let authority = Authority::new();
    let Shown { chain_pem, key_pem, .. } = authority.issue(&["127.0.0.1"]);
    let shown = Certificate { chain: &chain_pem, key: &key_pem };
    let nginx = Nginx::start_http2(settings, shown).await;
    let ca = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nginx-{name}-{backend}-ca.pem"));
    fs::write(&ca, authority.pem()).expect("cargo's folder for tests is writable");
    let ca = ca.to_str().expect("cargo's folder has a name in UTF-8");
    let upstream = format!("https://{}", nginx.address);
    let args = ["--backend", backend, "--upstream", &upstream, "--ca", ca];
    let proxy = Proxy::start(&args).await;
    Some((nginx, proxy))
}

/// The counters at rest, which must add up.
async fn settled(proxy: &Proxy, requests: u64) -> Value {
    let at_rest = |endpoint: &Value| endpoint["in_use"] == 0 && endpoint["dialing"] == 0;
    let endpoint = proxy.endpoint(|endpoint| at_rest(endpoint) && balances(endpoint)).await;
    let count = |name: &str| endpoint[name].as_u64().expect("a count");
    let checkouts = count("opened_total") + count("reused_total");
    assert!(checkouts >= requests, "{checkouts} checkouts for {requests} requests: {endpoint}");
    println!("{requests} requests, {endpoint}");
    endpoint
}

fn reuse_ratio(endpoint: &Value) -> f64 {
    let count = |name: &str| endpoint[name].as_f64().expect("a count");
    count("reused_total") / (count("reused_total") + count("opened_total"))
}

/// Waits for this test's turn, as the machine is busy enough with one. `None`: to be skipped.
async fn prepare(backend: &str) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::const_new(());
    if are_skipped(&["nginx", "wrk"]) {
        return None;
    }
    let turn = TURN.lock().await;
    can_have(backend).await.then_some(turn)
}

/// Loads the proxy; no request may fail. How many there were.
async fn wrk(proxy: &Proxy, duration: &str) -> u64 {
    let url = format!("http://{}/", proxy.address);
    let output = Command::new(find("wrk").expect("checked before"))
        .args(["-t1", "-c64", &format!("-d{duration}"), "--latency", &url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output).await.expect("wrk ends").expect("wrk runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}");
    // wrk prints these lines only when there is something to print in them.
    assert!(!report.contains("Non-2xx"), "{report}");
    assert!(!report.contains("Socket errors"), "{report}");
    let requests = report.lines().find_map(|line| line.split_once(" requests in "));
    let requests = requests.and_then(|(count, _)| count.trim().parse().ok());
    let requests = requests.unwrap_or_else(|| panic!("no count: {report}"));
    assert!(requests > 0, "{report}");
    requests
}
