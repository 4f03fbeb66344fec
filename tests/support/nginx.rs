//! An nginx of the tests' own: Debian's, as a child process.
#![allow(dead_code, reason = "each test that includes this file uses its part of it")]

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// To start takes no longer, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the tests against real peers are to be skipped; else they must be there.
pub(crate) fn are_skipped(programs: &[&str]) -> bool {
    if env::var_os("COREPOOL_SKIP_REAL_PEERS").is_some_and(|skip| skip == "1") {
        println!("skipped: COREPOOL_SKIP_REAL_PEERS=1");
        return true;
    }
    for program in programs {
        assert!(
            find(program).is_some(),
            "{program} is not installed: apt-get install nginx-light nghttp2 wrk, \
             or set COREPOOL_SKIP_REAL_PEERS=1 to skip the tests against real peers"
        );
    }
    false
}

/// Also where daemons are installed, which is not on everybody's path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// What a server shows, as PEM.
#[derive(Clone, Copy)]
pub(crate) struct Certificate<'a> {
    pub(crate) chain: &'a str,
    pub(crate) key: &'a str,
}

/// An nginx of our own; dropping it kills the process.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    _child: Child,
    _folder: Folder,
}

impl Nginx {
    /// With these settings of its `http` block.
    pub(crate) async fn start(settings: &str) -> Self {
        Self::start_with(settings, None, "").await
    }

    /// The same under TLS.
    pub(crate) async fn start_tls(settings: &str, tls: Certificate<'_>) -> Self {
        Self::start_with(settings, Some(tls), "").await
    }

    /// The same with HTTP/2 for who offers it.
    pub(crate) async fn start_http2(settings: &str, tls: Certificate<'_>) -> Self {
        Self::start_with(settings, Some(tls), "http2").await
    }

    async fn start_with(settings: &str, tls: Option<Certificate<'_>>, http2: &str) -> Self {
        let mut last = String::new();
        // The port is free when it is chosen, and mostly still when nginx binds it.
        for _ in 0..5 {
            let reserved = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
            let address = reserved.local_addr().expect("it is bound");
            drop(reserved);
            match Self::try_start(settings, tls, http2, address).await {
                Ok(nginx) => return nginx,
                Err(error) => last = error,
            }
        }
        panic!("nginx does not start: {last}");
    }

    async fn try_start(
        settings: &str,
        tls: Option<Certificate<'_>>,
        http2: &str,
        address: SocketAddr,
    ) -> Result<Self, String> {
        let folder = Folder::create();
        let dir = folder.0.display();
        let mut secure = String::new();
        if let Some(Certificate { chain, key }) = tls {
            let (chain_file, key_file) = (folder.0.join("chain.pem"), folder.0.join("key.pem"));
            fs::write(&chain_file, chain).expect("the folder is ours");
            fs::write(&key_file, key).expect("the folder is ours");
            let (chain, key) = (chain_file.display(), key_file.display());
            secure = format!("ssl {http2}; ssl_certificate {chain}; ssl_certificate_key {key}");
        }
        // One process, which ends when it is killed; with a master its workers would live on.
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/pid;\n\
             error_log stderr warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
               access_log off; {settings}\n\
               client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
               fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;\n\
               scgi_temp_path {dir}/scgi;\n\
               server {{ listen {address} {secure}; location / {{ return 200 \"hello\\n\"; }} }}\n\
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
