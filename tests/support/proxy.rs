//! The example proxy as a child process, and peers that speak HTTP byte by byte on both its sides.
#![allow(dead_code, reason = "each test that includes this file uses its part of it")]

use std::{
    env,
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, ChildStdout, Command},
    sync::{OnceCell, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// No step of a test takes longer, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// The example's binary, which `cargo test` builds beside the tests.
pub(crate) fn binary() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    // target/debug/deps/proxy-0123456789abcdef
    let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let binary = profile.join("examples").join("proxy");
    assert!(
        binary.exists(),
        "{} is missing; `cargo test` builds it, `cargo test --test proxy` does not: \
         run `cargo build --example proxy` first (with the same profile)",
        binary.display()
    );
    binary
}

/// Runs the example to its end.
pub(crate) async fn run(args: &[&str]) -> (ExitStatus, String, String) {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(3 * PATIENCE, command.output()).await;
    let output = output.expect("it ends by itself").expect("the example can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status, text(output.stdout), text(output.stderr))
}

/// Whether the proxy can have the backend here. When not, it must say why.
pub(crate) async fn can_have(backend: &str) -> bool {
    static IO_URING: OnceCell<bool> = OnceCell::const_new();
    if backend != "io-uring" {
        return true;
    }
    let probe = || async {
        match Proxy::try_start(&["--backend", "io-uring"]).await {
            Ok(_) => true,
            Err((status, stderr)) => {
                assert_eq!(status.code(), Some(1), "{stderr}");
                assert!(stderr.contains("backend io-uring: "), "no clear error: {stderr}");
                println!("io_uring cannot be had here: {stderr}");
                false
            }
        }
    };
    *IO_URING.get_or_init(probe).await
}

/// A proxy of our own; dropping it kills the process.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stderr: JoinHandle<String>,
    /// Kept open: whoever writes to a closed pipe gets an error.
    _stdout: BufReader<ChildStdout>,
}

impl Proxy {
    /// Starts on free ports.
    pub(crate) async fn start(args: &[&str]) -> Self {
        match Self::try_start(args).await {
            Ok(proxy) => proxy,
            Err((status, stderr)) => panic!("the proxy ended with {status}: {stderr}"),
        }
    }

    /// Starts, or says how it ended.
    pub(crate) async fn try_start(args: &[&str]) -> Result<Self, (ExitStatus, String)> {
        Self::spawn(Command::new(binary()).args(args)).await
    }

    /// Starts with no more than so many descriptors.
    pub(crate) async fn start_with_descriptors(most: u32, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {most} && exec \"$@\"")).arg("sh");
        match Self::spawn(shell.arg(binary()).args(args)).await {
            Ok(proxy) => proxy,
            Err((status, stderr)) => panic!("the proxy ended with {status}: {stderr}"),
        }
    }

    async fn spawn(command: &mut Command) -> Result<Self, (ExitStatus, String)> {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the example can be started");
        let mut pipe = child.stderr.take().expect("it is piped");
        let stderr = tokio::spawn(async move {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text).await;
            text
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (mut address, mut admin) = (None, None);
        while address.is_none() || admin.is_none() {
            let mut line = String::new();
            let read = soon("the proxy's greeting", stdout.read_line(&mut line)).await;
            if read.expect("a pipe can be read") == 0 {
                let status = soon("the proxy's end", child.wait()).await;
                return Err((status.expect("it is our child"), stderr.await.unwrap()));
            }
            let url = line.split_once("://").map(|(_, rest)| rest);
            let found = url.and_then(|url| url.split('/').next()).and_then(|a| a.parse().ok());
            match line.split(' ').next() {
                Some("proxy") => address = found,
                Some("admin") => admin = found,
                _ => {}
            }
        }
        let (address, admin) = (address.unwrap(), admin.unwrap());
        Ok(Self { child, address, admin, stderr, _stdout: stdout })
    }

    /// A new client connection.
    pub(crate) async fn client(&self) -> Peer {
        Peer::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Message {
        let mut client = self.client().await;
        client.send(request).await;
        client.response().await
    }

    /// A page of the admin address.
    pub(crate) async fn admin(&self, request: &str) -> Message {
        let mut client = Peer::connect(self.admin).await;
        client.send(request).await;
        client.response().await
    }

    /// `/pool`, parsed.
    pub(crate) async fn pool(&self) -> Value {
        let page = self.admin("GET /pool HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(page.status(), 200);
        serde_json::from_slice(&page.body).expect("/pool is JSON")
    }

    /// `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let page = self.admin("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(page.status(), 200);
        page.text()
    }

    /// An order at the admin address, as path and query, and what comes of it.
    pub(crate) async fn order(&self, order: &str) -> Message {
        let request = format!("POST {order} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        self.admin(&request).await
    }

    /// The first endpoint of `/pool`, as a rule the only one, once `wanted` holds for it.
    pub(crate) async fn endpoint(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.endpoint_among(|_| true, wanted).await
    }

    /// The endpoint of `/pool` with this address, once `wanted` holds for it.
    pub(crate) async fn endpoint_at(
        &self,
        address: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        self.endpoint_among(|endpoint| endpoint["address"] == address, wanted).await
    }

    async fn endpoint_among(
        &self,
        which: impl Fn(&Value) -> bool,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let settled = timeout(PATIENCE, async {
            loop {
                let pool = self.pool().await;
                let mut endpoints = pool["endpoints"].as_array().expect("a list").iter();
                last = endpoints.find(|endpoint| which(endpoint)).cloned().unwrap_or_default();
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(settled.await.is_ok(), "/pool never came to it: {last}");
        last
    }

    /// Sends a signal, by name.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(status.expect("there is a kill command").success());
    }

    /// Waits for its end: how, and what it wrote to stderr.
    pub(crate) async fn wait(mut self) -> (ExitStatus, String) {
        let status = soon("the proxy's end", self.child.wait()).await.expect("it is our child");
        (status, self.stderr.await.expect("reading does not panic"))
    }
}

/// `opened - closed == idle + in_use`: nothing was lost and nothing counted twice.
pub(crate) fn balances(endpoint: &Value) -> bool {
    let count = |name: &str| endpoint[name].as_i64().expect("a count");
    let closed = endpoint["closed_total"].as_object().expect("by reason");
    let closed: i64 = closed.values().map(|count| count.as_i64().expect("a count")).sum();
    count("opened_total") - closed == count("idle") + count("in_use")
}

/// A port that nobody else gets, whether an origin listens on it or not.
pub(crate) struct Port(TcpSocket);

impl Port {
    pub(crate) fn reserve() -> Self {
        Self(Self::bind("127.0.0.1:0".parse().expect("an address")))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// Several sockets may be bound to it; the one that listens gets the connections.
    fn bind(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("a socket option");
        socket.set_reuseaddr(true).expect("a socket option");
        socket.bind(address).expect("the port is free, or ours");
        socket
    }
}

/// An origin that follows a script: `serve` is run for each connection, with its number.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Origin {
    pub(crate) async fn start<F>(serve: impl Fn(usize, Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_on(&Port::reserve(), serve)
    }

    /// Starts on a port of ours, on which no other origin listens.
    pub(crate) fn start_on<F>(
        port: &Port,
        serve: impl Fn(usize, Peer) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = port.address();
        let listener = Port::bind(address).listen(1024).expect("the port is ours");
        let accepting = tokio::spawn(async move {
            // Its drop ends all of them.
            let mut serving = JoinSet::new();
            for nth in 1.. {
                let (stream, _) = listener.accept().await.expect("a connection");
                serving.spawn(serve(nth, Peer::new(stream)));
                while serving.try_join_next().is_some() {}
            }
        });
        Self { address, accepting }
    }

    /// Ends it with its listener and its connections, as a process that is killed does.
    pub(crate) async fn kill(mut self) {
        self.accepting.abort();
        let ended = soon("the end of an origin", &mut self.accepting).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "it failed before");
    }

    /// As the proxy's argument.
    pub(crate) fn upstream(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One end of a connection.
pub(crate) struct Peer<S = TcpStream>(pub(crate) BufReader<S>);

/// A message as it came over the wire.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP option");
        Self(BufReader::new(stream))
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await;
        Self::new(stream.unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        let stream = self.0.into_inner();
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a TCP option");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = soon("sending", self.0.get_mut().write_all(bytes.as_ref())).await;
        sent.expect("the peer takes it");
        // TLS may keep some of it.
        let sent = soon("sending", self.0.get_mut().flush()).await;
        sent.expect("the peer takes it");
    }

    /// A request with its body; `None` when the proxy has closed the connection.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        self.read_body(&mut message, false).await;
        Some(message)
    }

    /// A response to anything but HEAD, with its body.
    pub(crate) async fn response(&mut self) -> Message {
        let mut message = self.head().await.expect("a response, not the end");
        let bodiless = matches!(message.status(), 204 | 304);
        if !bodiless {
            self.read_body(&mut message, true).await;
        }
        message
    }

    /// A start line and its fields; `None` at the end of the connection.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        let start = self.line().await?;
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(Message { start, fields, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').expect("a field");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn read_body(&mut self, message: &mut Message, to_end: bool) {
        if message.field("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                message.body.extend(chunk);
            }
        } else if let Some(length) = message.field("content-length") {
            message.body = vec![0; length.parse().expect("a length")];
            let read = soon("a body", self.0.read_exact(&mut message.body)).await;
            read.expect("the whole body");
        } else if to_end {
            let read = soon("a body", self.0.read_to_end(&mut message.body)).await;
            read.expect("the whole body");
        }
    }

    /// The next chunk of a chunked body; `None` for the last one.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().await.expect("a chunk's size");
        let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
        let mut chunk = vec![0; size];
        soon("a chunk", self.0.read_exact(&mut chunk)).await.expect("a whole chunk");
        assert_eq!(self.line().await.as_deref(), Some(""), "a chunk's end");
        (size > 0).then_some(chunk)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match soon("a line", self.0.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// Whether nothing more comes; waits for the end.
    pub(crate) async fn is_at_end(&mut self) -> bool {
        let mut byte = [0];
        matches!(soon("the end", self.0.read(&mut byte)).await, Ok(0) | Err(_))
    }
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        let status = self.start.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no status line: {}", self.start))
    }

    /// A field's first value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The names of its fields.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One shard, so that one client's idle connection is the next one's.
pub(crate) fn one_shard<'a>(backend: &'a str, origin: &'a str) -> Vec<&'a str> {
    vec!["--backend", backend, "--shards", "1", "--upstream", origin]
}

/// An origin that answers everything and keeps its connections.
pub(crate) async fn plain_origin() -> Origin {
    plain_origin_on(&Port::reserve())
}

/// The same, on a port of ours.
pub(crate) fn plain_origin_on(port: &Port) -> Origin {
    Origin::start_on(port, |nth, mut peer| async move {
        while let Some(request) = peer.request().await {
            let body = format!("{nth}:{}", request.text());
            peer.send(ok(&body)).await;
        }
    })
}

/// An origin that answers once `go` is set.
pub(crate) async fn held_origin() -> (Origin, watch::Sender<bool>) {
    let (go, gone) = watch::channel(false);
    let origin = Origin::start(move |_, mut peer| {
        let mut gone = gone.clone();
        async move {
            while peer.request().await.is_some() {
                if gone.wait_for(|go| *go).await.is_err() {
                    return;
                }
                peer.send(ok("done")).await;
            }
        }
    })
    .await;
    (origin, go)
}

/// The status, and a text that names the endpoint and the cause.
#[track_caller]
pub(crate) fn assert_failure(response: &Message, status: u16, endpoint: &str, cause: &str) {
    let text = response.text();
    assert_eq!(response.status(), status, "{text}");
    assert!(text.starts_with(&status.to_string()), "{text}");
    assert!(text.contains(endpoint) && text.contains(cause), "{text}");
    assert_eq!(response.field("content-type"), Some("text/plain; charset=utf-8"));
    // What is inside is for the log.
    assert!(!text.contains("os error"), "{text}");
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

pub(crate) const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
