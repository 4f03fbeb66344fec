//! A server to talk to: a `redis-server` process of our own.

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A `redis-server` on loopback that keeps nothing on disk. Dropping it ends the process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: Folder,
}

/// Whom the server lets in beside everybody without a name.
pub(crate) const LOGINS: [(&str, &str); 2] = [("app", "secret"), ("other", "sesame")];

/// Whether this machine has the program.
pub(crate) fn is_installed() -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(PROGRAM).is_file()))
}

const PROGRAM: &str = "redis-server";

impl Server {
    /// On a free port, with these lines of configuration besides.
    pub(crate) async fn start(config: &str) -> io::Result<Self> {
        let mut last = io::Error::other("never tried");
        // The port is free when it is chosen, and mostly still when the server binds it.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = free.local_addr()?;
            drop(free);
            match Self::start_at(address, config).await {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) async fn start_at(address: SocketAddr, config: &str) -> io::Result<Self> {
        let folder = Folder::create()?;
        let file = folder.0.join("redis.conf");
        let mut text = fs::File::create(&file)?;
        writeln!(
            text,
            "bind {}\nport {}\ndir {}",
            address.ip(),
            address.port(),
            folder.0.display()
        )?;
        writeln!(text, "save \"\"\nappendonly no\n{config}")?;
        for (user, password) in LOGINS {
            writeln!(text, "user {user} on >{password} ~* &* +@all")?;
        }
        let mut child = Command::new(PROGRAM)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            status = child.wait() => {
                Err(io::Error::other(format!("{PROGRAM} ended: {}", status?)))
            }
            listening = timeout(Duration::from_secs(10), listening) => {
                listening?;
                Ok(Self { address, child, _folder: folder })
            }
        }
    }

    /// Its process.
    #[allow(dead_code)] // a test stops and continues it
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the process and waits for it.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

/// A folder of our own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corepool-redis-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        // Not one that somebody else has made.
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only room on the disk is lost otherwise.
        let _ = fs::remove_dir_all(&self.0);
    }
}
