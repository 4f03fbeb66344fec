//! The origin: this program once more, as a process of its own, which accepts and holds
//! connections. So neither its descriptors nor its memory count as the client's.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Says in the environment of the second process that it is the origin.
const ROLE: &str = "COREPOOL_BENCH_ORIGIN";

/// The origin's process. Ends with this handle, or with us.
pub struct Origin {
    child: Child,
    port: u16,
}

impl Origin {
    /// Starts it.
    pub fn start() -> Self {
        let mut child = Command::new(env::current_exe().expect("our own path"))
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("its port");
        Self { child, port: line.trim().parse().expect("a port") }
    }

    /// Where it listens, on all of 127.0.0.0/8.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of a key: each leads to the one listener and has a range of local ports of its own.
pub fn address(key: usize, port: u16) -> SocketAddr {
    let (high, low) = (key / 250 % 250, key % 250 + 1);
    SocketAddrV4::new(Ipv4Addr::new(127, 1, high as u8, low as u8), port).into()
}

/// Serves if this process is the origin, and does not return then. Call it first in `main`.
pub fn serve_if_origin() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    thread::spawn(|| {
        // Whoever started us is gone when its end of the pipe is.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a port");
        let listener = socket.listen(4096).expect("a listener");
        println!("{}", listener.local_addr().expect("its address").port());
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(hold(stream))),
                // Out of descriptors: some come free.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
}

/// When the last request came.
static LATEST: Mutex<Option<Instant>> = Mutex::new(None);

/// No request for so long: those who are there are answered.
const QUIET: Duration = Duration::from_millis(60);

/// Holds a connection until its peer closes it. Requests, if there are any, are answered once no
/// more come, so that a client that sends them together has to open a connection for each.
async fn hold(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        let note = || *LATEST.lock().expect("unpoisoned") = Some(Instant::now());
        note();
        let quiet = || LATEST.lock().expect("unpoisoned").is_none_or(|at| at.elapsed() >= QUIET);
        while !quiet() {
            tokio::time::sleep(QUIET / 4).await;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}
