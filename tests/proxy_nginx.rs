//! The example proxy between real peers: Debian's nginx behind it, wrk before it.
//!
//! Needs `apt-get install nginx-light wrk`; `COREPOOL_SKIP_REAL_PEERS=1` skips it.
#![cfg(target_os = "linux")]

#[path = "support/proxy.rs"]
mod support;

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;
use support::{PATIENCE, Proxy, balances, can_have};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
    time::{sleep, timeout},
};

/// nginx keeps connections for longer than the test lasts: hardly any is opened.
const PATIENT: &str = "keepalive_timeout 60s; keepalive_requests 10000000;";
/// nginx closes connections all the time, in use (politely) and at rest (whenever it likes). The
/// last is for connections that were dialled and then not needed: it has seen no request on them.
const IMPATIENT: &str = "keepalive_timeout 1s; keepalive_requests 100; client_header_timeout 1s;";

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
    if env::var_os("COREPOOL_SKIP_REAL_PEERS").is_some_and(|skip| skip == "1") {
        println!("skipped: COREPOOL_SKIP_REAL_PEERS=1");
        return None;
    }
    for program in ["nginx", "wrk"] {
        assert!(
            find(program).is_some(),
            "{program} is not installed: apt-get install nginx-light wrk, \
             or set COREPOOL_SKIP_REAL_PEERS=1 to skip the tests against real peers"
        );
    }
    let turn = TURN.lock().await;
    can_have(backend).await.then_some(turn)
}

/// Also where daemons are installed, which is not on everybody's path.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
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

/// An nginx of our own; dropping it kills the process.
struct Nginx {
    address: SocketAddr,
    _child: Child,
    _folder: Folder,
}

impl Nginx {
    async fn start(keep_alive: &str) -> Self {
        let mut last = String::new();
        // The port is free when it is chosen, and mostly still when nginx binds it.
        for _ in 0..5 {
            let reserved = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
            let address = reserved.local_addr().expect("it is bound");
            drop(reserved);
            match Self::try_start(keep_alive, address).await {
                Ok(nginx) => return nginx,
                Err(error) => last = error,
            }
        }
        panic!("nginx does not start: {last}");
    }

    async fn try_start(keep_alive: &str, address: SocketAddr) -> Result<Self, String> {
        let folder = Folder::create();
        let dir = folder.0.display();
        // One process, which ends when it is killed; with a master its workers would live on.
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/pid;\n\
             error_log stderr warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
               access_log off; {keep_alive}\n\
               client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
               fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;\n\
               scgi_temp_path {dir}/scgi;\n\
               server {{ listen {address}; location / {{ return 200 \"hello\\n\"; }} }}\n\
             }}\n"
        );
        let file = folder.0.join("nginx.conf");
        fs::write(&file, config).expect("the folder is ours");
        let mut child = Command::new(find("nginx").expect("checked before"))
            .args(["-e".as_ref(), "stderr".as_ref(), "-p".as_ref(), folder.0.as_os_str()])
            .args(["-c".as_ref(), file.as_os_str()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stderr = child.stderr.take().expect("it is piped");
        let started = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = child.wait() => {
                let mut text = String::new();
                let _ = stderr.read_to_string(&mut text).await;
                Err(text)
            }
            started = timeout(PATIENCE, started) => {
                started.map_err(|_| "it does not listen".to_owned())?;
                // From here on nobody reads what it says, and it must not wait for a reader.
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::stderr()).await;
                });
                Ok(Self { address, _child: child, _folder: folder })
            }
        }
    }
}

/// A folder of our own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nginx-{}-{nth}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("cargo's folder for tests is writable");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only room on the disk is lost otherwise.
        let _ = fs::remove_dir_all(&self.0);
    }
}
