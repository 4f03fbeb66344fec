//! Clients that speak TLS.

use std::{fs, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};

use crate::{
    peers::{Authority, Shown, provider},
    support::{GET, Origin, PATIENCE, Peer, Proxy, held_origin, plain_origin, run, soon},
    web::{Seen, serve},
};

on_each_backend! {
    requests_come_by_tls,
    http1_is_all_that_is_offered,
    a_client_without_tls_is_no_ones_concern_but_its_own,
    a_handshake_has_as_long_as_a_request,
    sigterm_lets_requests_under_tls_finish,
    curl_is_served,
}

const NAME: &str = "proxy.test";

/// A file of a test's own.
pub(crate) fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("proxy-{name}.pem"));
    fs::write(&path, text).expect("cargo's folder for tests is writable");
    path.into_os_string().into_string().expect("cargo's folder has a name in UTF-8")
}

/// A proxy whose clients speak TLS, and who vouches for it.
struct Secure {
    proxy: Proxy,
    authority: Authority,
}

impl Secure {
    /// `name` is the test's.
    async fn start(name: &str, backend: &str, args: &[&str]) -> Self {
        let authority = Authority::new();
        let Shown { chain_pem, key_pem, .. } = authority.issue(&[NAME]);
        let chain = file(&format!("{name}-{backend}-chain"), &chain_pem);
        let key = file(&format!("{name}-{backend}-key"), &key_pem);
        let common = ["--backend", backend, "--tls-cert", &chain, "--tls-key", &key];
        let proxy = Proxy::start(&[&common[..], args].concat()).await;
        Self { proxy, authority }
    }

    async fn connect(&self, protocols: &[&str]) -> std::io::Result<Peer<TlsStream<TcpStream>>> {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().expect("ring has them");
        let roots = self.authority.roots();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.proxy.address).await?;
        let name = ServerName::try_from(NAME).expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = soon("a handshake", stream).await?;
        Ok(Peer(tokio::io::BufReader::new(stream)))
    }

    async fn client(&self) -> Peer<TlsStream<TcpStream>> {
        self.connect(&[]).await.expect("the proxy is who it says")
    }

    /// How many handshakes have failed.
    async fn failed(&self) -> u64 {
        let metrics = self.proxy.metrics().await;
        let lines = metrics.lines();
        let failed = lines.filter(|line| line.starts_with("proxy_tls_handshakes_failed_total{"));
        failed.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    async fn has_failed(&self, times: u64) {
        soon("the count", async {
            while self.failed().await != times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

async fn requests_come_by_tls(backend: &str) {
    let seen = Seen::new();
    let origin = Origin::start(move |_, peer| serve(peer.0, false, Arc::clone(&seen))).await;
    let upstream = origin.upstream();
    let secure = Secure::start("requests", backend, &["--upstream", &upstream]).await;
    let mut client = secure.client().await;
    for _ in 0..3 {
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!(response.status(), 200);
        assert!(response.text().contains("x-forwarded-proto: https"), "{}", response.text());
    }
    // Large both ways: records, not packets, is what it comes in.
    let body: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let head = format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    let (read, mut write) = tokio::io::split(client.0.into_inner());
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
        write
    });
    let mut client = Peer(tokio::io::BufReader::new(tokio::io::join(read, tokio::io::sink())));
    assert!(client.response().await.body == body, "as it was sent");
    drop(sending.await.unwrap());
    assert_eq!(secure.failed().await, 0);
}

async fn http1_is_all_that_is_offered(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let secure = Secure::start("alpn", backend, &["--upstream", &upstream]).await;
    let mut client = secure.connect(&["h2", "http/1.1"]).await.unwrap();
    assert_eq!(client.0.get_ref().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    client.send(GET).await;
    assert_eq!(client.response().await.status(), 200);
    let error = secure.connect(&["h2"]).await.err().expect("there is nothing in common");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    secure.has_failed(1).await;
}

async fn a_client_without_tls_is_no_ones_concern_but_its_own(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let secure = Secure::start("plain", backend, &["--upstream", &upstream]).await;
    let mut plain = secure.proxy.client().await;
    plain.send(GET).await;
    assert!(plain.head().await.is_none_or(|answer| !answer.start.starts_with("HTTP")));
    secure.has_failed(1).await;
    // Nor one that leaves within its handshake.
    drop(secure.proxy.client().await);
    secure.has_failed(2).await;
    let mut client = secure.client().await;
    client.send(GET).await;
    assert_eq!(client.response().await.status(), 200);
}

async fn a_handshake_has_as_long_as_a_request(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let args = ["--upstream", &upstream, "--client-timeout", "0.5"];
    let secure = Secure::start("patience", backend, &args).await;
    // The first byte of a handshake, and no more.
    let mut slow = secure.proxy.client().await;
    slow.send([0x16]).await;
    assert!(slow.is_at_end().await);
    assert_eq!(secure.failed().await, 1);
    // Who has shaken hands and asks for nothing is shown out as well, and that is no failure.
    let mut idle = secure.client().await;
    assert!(idle.is_at_end().await);
    assert_eq!(secure.failed().await, 1);
}

async fn sigterm_lets_requests_under_tls_finish(backend: &str) {
    let (origin, go) = held_origin().await;
    let upstream = origin.upstream();
    let secure = Secure::start("drain", backend, &["--upstream", &upstream]).await;
    let (mut idle, mut busy) = (secure.client().await, secure.client().await);
    let mut greeting = secure.proxy.client().await;
    busy.send(GET).await;
    secure.proxy.endpoint(|endpoint| endpoint["in_use"] == 1).await;
    secure.proxy.signal("TERM").await;
    assert!(idle.is_at_end().await);
    assert!(greeting.is_at_end().await, "a handshake is not waited for");
    go.send_replace(true);
    let response = busy.response().await;
    assert_eq!((response.status(), response.text().as_str()), (200, "done"));
    assert!(busy.is_at_end().await);
    let (status, stderr) = secure.proxy.wait().await;
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("drained"), "{stderr}");
}

async fn curl_is_served(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let secure = Secure::start("curl", backend, &["--upstream", &upstream]).await;
    let roots = file(&format!("curl-{backend}-ca"), secure.authority.pem());
    let port = secure.proxy.address.port();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2", "--cacert", &roots, "-w", " %{http_version} %{http_code}"])
        .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
        .arg(format!("https://{NAME}:{port}/"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match timeout(PATIENCE, curl.output()).await.expect("curl ends") {
        Ok(output) => output,
        Err(error) => return println!("skipped: curl cannot be run: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1: 1.1 200", "{said}");
}

#[tokio::test]
async fn files_that_are_of_no_use_are_refused_by_name() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let chain = file("files-chain", &one.chain_pem);
    let key = file("files-key", &one.key_pem);
    let other = file("files-other", &other.key_pem);
    let empty = file("files-empty", "");
    let text = file("files-text", "hello");
    let broken =
        file("files-broken", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let cut = file("files-cut", &one.chain_pem[..200]);
    let no_der =
        file("files-no-der", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let nowhere = "/nowhere/at.pem".to_owned();
    for (chain, key, flag, named, cause) in [
        (&nowhere, &key, "--tls-cert", &nowhere, "No such file"),
        (&empty, &key, "--tls-cert", &empty, "no certificate"),
        (&text, &key, "--tls-cert", &text, "no certificate"),
        (&key, &key, "--tls-cert", &key, "no certificate"),
        (&broken, &key, "--tls-cert", &broken, "base64"),
        (&cut, &key, "--tls-cert", &cut, "section end"),
        (&no_der, &key, "--tls-cert", &no_der, "certificate"),
        (&chain, &nowhere, "--tls-key", &nowhere, "No such file"),
        (&chain, &chain, "--tls-key", &chain, "no private key"),
        (&chain, &other, "--tls-key", &other, "not the key of the certificate in"),
    ] {
        let (status, _, stderr) = run(&["--tls-cert", chain, "--tls-key", key]).await;
        assert_eq!(status.code(), Some(2), "{named}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {flag} {named}: ")), "{named}: {stderr}");
        assert!(stderr.contains(cause), "{named}: {stderr}");
    }
    for args in [["--tls-cert", &chain], ["--tls-key", &key]] {
        let (status, _, stderr) = run(&args).await;
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("--tls-cert") && stderr.contains("--tls-key"), "{stderr}");
    }
}
