//! The client against HTTP/2 servers that others wrote: nghttp2's.
//!
//! Needs `apt-get install nghttp2-server`; `COREPOOL_SKIP_REAL_PEERS=1` skips it.
#![cfg(target_os = "linux")]

mod support;

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use corepool::{Backend, Endpoint, HttpClient, HttpConnector, HttpOrigin, Pool, StreamConnector};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use support::{close_and_check, tuned};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
    time::{sleep, timeout},
};

type Origin = HttpOrigin<Empty<Bytes>, StreamConnector>;

const PATIENCE: Duration = Duration::from_secs(20);
/// More than a window, so that the reader's pace counts.
const LARGE: usize = 300_000;

/// nghttpd on a port of its own, with a small file and a large one.
struct Nghttpd {
    address: SocketAddr,
    directory: PathBuf,
    /// Ended by its drop.
    _child: Child,
}

impl Nghttpd {
    async fn start(streams: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("corepool-nghttpd-{}-{count}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("small"), "hello").unwrap();
        fs::write(directory.join("large"), "x".repeat(LARGE)).unwrap();
        let address = free_address().await;
        let child = Command::new(find("nghttpd").expect("checked before"))
            .args(["--no-tls", "--address", "127.0.0.1", "--max-concurrent-streams"])
            .arg(streams.to_string())
            .arg("--htdocs")
            .arg(&directory)
            .arg(address.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("nghttpd can be run");
        let this = Self { address, directory, _child: child };
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, up).await.expect("nghttpd listens");
        this
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// One that was free a moment ago.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn is_skipped() -> bool {
    if env::var_os("COREPOOL_SKIP_REAL_PEERS").is_some_and(|skip| skip == "1") {
        println!("skipped: COREPOOL_SKIP_REAL_PEERS=1");
        return true;
    }
    assert!(
        find("nghttpd").is_some(),
        "nghttpd is not installed: apt-get install nghttp2-server, or set \
         COREPOOL_SKIP_REAL_PEERS=1 to skip the tests against real peers"
    );
    false
}

/// Also where daemons are installed, which is not on everybody's path.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

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
        if is_skipped() {
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
        if is_skipped() {
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
