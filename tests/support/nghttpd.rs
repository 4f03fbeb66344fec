//! nghttp2's server, of the tests' own.
#![allow(dead_code, reason = "each test that includes this file uses its part of it")]

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::nginx::find;

const PATIENCE: Duration = Duration::from_secs(20);
/// More than a window, so that the reader's pace counts.
pub(crate) const LARGE: usize = 300_000;

/// nghttpd on a port of its own, with a small file and a large one.
pub(crate) struct Nghttpd {
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    /// Ended by its drop.
    _child: Child,
}

impl Nghttpd {
    pub(crate) async fn start(streams: u32) -> Self {
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
