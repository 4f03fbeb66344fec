//! Origins behind TLS: which version they speak, and who vouches for them.

use std::sync::Arc;

use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::{
    peers::Authority,
    support::{GET, Origin, POST, Proxy, assert_failure, balances, plain_origin, run},
    tls_clients::file,
    web::{Seen, h2c, h2c_origin, serve},
};

on_each_backend! {
    an_origin_that_chooses_http2_has_its_connections_shared,
    an_origin_that_chooses_http1_has_a_request_to_a_connection,
    an_origin_that_chooses_nothing_speaks_http1,
    an_authority_that_is_not_known_is_502,
    the_systems_authorities_do_not_vouch_for_everybody,
    a_certificate_that_has_expired_is_502,
    a_certificate_for_another_name_is_502,
    an_origin_without_tls_is_502,
    origins_of_every_kind_take_turns,
}

/// The host that origins are reached by.
const NAME: &str = "localhost";

/// An origin behind TLS, which chooses among these protocols.
struct Secure {
    origin: Origin,
    seen: Arc<Seen>,
}

impl Secure {
    async fn start(mut config: ServerConfig, protocols: &[&str]) -> Self {
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let seen = Seen::new();
        let of = Arc::clone(&seen);
        let origin = Origin::start(move |_, peer| {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&of));
            async move {
                // Who does not trust us leaves.
                let Ok(stream) = acceptor.accept(peer.0).await else {
                    return;
                };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(stream, is_http2, seen).await;
            }
        });
        Self { origin: origin.await, seen }
    }

    fn upstream(&self) -> String {
        format!("https://{NAME}:{}", self.origin.address.port())
    }

    /// How a failure's text begins.
    fn endpoint(&self) -> String {
        format!("{NAME}:{} [tls {NAME}", self.origin.address.port())
    }

    /// A proxy in front of it that trusts this authority, or the system's.
    async fn proxy(&self, test: &str, backend: &str, authority: Option<&Authority>) -> Proxy {
        let upstream = self.upstream();
        let mut args = vec!["--backend", backend, "--shards", "1", "--upstream", &upstream];
        let ca;
        if let Some(authority) = authority {
            ca = file(&format!("{test}-{backend}-ca"), authority.pem());
            args.extend(["--ca", &ca]);
        }
        Proxy::start(&args).await
    }
}

async fn an_origin_that_chooses_http2_has_its_connections_shared(backend: &str) {
    let authority = Authority::new();
    let secure = Secure::start(authority.issue(&[NAME]).server(), &["h2", "http/1.1"]).await;
    let proxy = secure.proxy("h2", backend, Some(&authority)).await;
    let text = proxy.ask(GET).await.text();
    // `Host` is the client's, and the scheme is ours.
    assert!(text.starts_with("HTTP/2.0 GET https://a/\n"), "{text}");
    assert!(text.contains("x-forwarded-proto: http\n"), "the client's: {text}");
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = proxy.client().await;
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        clients.push(client);
    }
    secure.seen.go.add_permits(8);
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "done");
    }
    let body = vec![b'.'; 1_000_000];
    let mut client = proxy.client().await;
    client.send("POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await;
    client.send(&body).await;
    assert_eq!(client.response().await.text(), "1000000");
    assert_eq!(secure.seen.connections(), 1);
}

async fn an_origin_that_chooses_http1_has_a_request_to_a_connection(backend: &str) {
    let authority = Authority::new();
    let secure = Secure::start(authority.issue(&[NAME]).server(), &["http/1.1"]).await;
    let proxy = secure.proxy("h1", backend, Some(&authority)).await;
    for _ in 0..3 {
        let text = proxy.ask(GET).await.text();
        assert!(text.starts_with("HTTP/1.1 GET /\nhost: a\n"), "{text}");
        proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    }
    assert_eq!(secure.seen.connections(), 1);
    let mut clients = [proxy.client().await, proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    }
    proxy.endpoint(|endpoint| endpoint["in_use"] == 3).await;
    secure.seen.go.add_permits(3);
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "done");
    }
    assert_eq!(secure.seen.connections(), 3);
    proxy.endpoint(balances).await;
}

async fn an_origin_that_chooses_nothing_speaks_http1(backend: &str) {
    let authority = Authority::new();
    let secure = Secure::start(authority.issue(&[NAME]).server(), &[]).await;
    let proxy = secure.proxy("no-alpn", backend, Some(&authority)).await;
    let text = proxy.ask(GET).await.text();
    assert!(text.starts_with("HTTP/1.1 GET /\n"), "{text}");
}

async fn an_authority_that_is_not_known_is_502(backend: &str) {
    let secure = Secure::start(Authority::new().issue(&[NAME]).server(), &["h2"]).await;
    let proxy = secure.proxy("other", backend, Some(&Authority::new())).await;
    let response = proxy.ask(GET).await;
    let cause = "its certificate was issued by no authority that is known here";
    assert_failure(&response, 502, &secure.endpoint(), cause);
    // Nothing was sent to it.
    assert_eq!(secure.seen.connections(), 0);
}

async fn the_systems_authorities_do_not_vouch_for_everybody(backend: &str) {
    let secure = Secure::start(Authority::new().issue(&[NAME]).server(), &["h2"]).await;
    let proxy = secure.proxy("system", backend, None).await;
    // Where the system has none, there is none that is known.
    assert_failure(&proxy.ask(GET).await, 502, &secure.endpoint(), "no authority");
}

async fn a_certificate_that_has_expired_is_502(backend: &str) {
    let authority = Authority::new();
    let secure = Secure::start(authority.issue_expired(&[NAME]).server(), &["h2"]).await;
    let proxy = secure.proxy("expired", backend, Some(&authority)).await;
    assert_failure(&proxy.ask(POST).await, 502, &secure.endpoint(), "its certificate has expired");
}

async fn a_certificate_for_another_name_is_502(backend: &str) {
    let authority = Authority::new();
    let secure = Secure::start(authority.issue(&["other.test"]).server(), &["h2"]).await;
    let proxy = secure.proxy("name", backend, Some(&authority)).await;
    let cause = "its certificate is not for \"localhost\"";
    assert_failure(&proxy.ask(GET).await, 502, &secure.endpoint(), cause);
}

async fn an_origin_without_tls_is_502(backend: &str) {
    let origin = plain_origin().await;
    let upstream = format!("https://{}", origin.address);
    let proxy = Proxy::start(&["--backend", backend, "--upstream", &upstream]).await;
    assert_eq!(proxy.ask(GET).await.status(), 502);
}

async fn origins_of_every_kind_take_turns(backend: &str) {
    let authority = Authority::new();
    let secure = Secure::start(authority.issue(&[NAME]).server(), &["h2", "http/1.1"]).await;
    let (plain, (cleartext, _seen)) = (plain_origin().await, h2c_origin().await);
    let ca = file(&format!("turns-{backend}-ca"), authority.pem());
    let (secure, plain, cleartext) = (secure.upstream(), plain.upstream(), h2c(&cleartext));
    let mut args = vec!["--backend", backend, "--shards", "1", "--ca", &ca];
    for upstream in [&secure, &plain, &cleartext] {
        args.extend(["--upstream", upstream]);
    }
    let proxy = Proxy::start(&args).await;
    let mut texts = Vec::new();
    for _ in 0..6 {
        let text = proxy.ask(GET).await.text();
        texts.push(text.lines().next().unwrap_or_default().to_owned());
    }
    let turn = ["HTTP/2.0 GET https://a/", "1:", "HTTP/2.0 GET http://a/"];
    assert_eq!(texts, [turn, turn].concat());
}

#[tokio::test]
async fn authorities_that_are_of_no_use_are_refused_by_name() {
    let authority = Authority::new();
    let empty = file("ca-empty", "");
    let text = file("ca-text", "hello");
    let key = file("ca-key", &authority.issue(&["a.test"]).key_pem);
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_der = file("ca-no-der", pem);
    let broken = file("ca-broken", &pem.replace("AAAA", "!"));
    for (ca, cause) in [
        ("/nowhere/ca.pem", "No such file"),
        (&empty, "no certificate"),
        (&text, "no certificate"),
        (&key, "no certificate"),
        (&no_der, "certificate"),
        (&broken, "base64"),
    ] {
        let (status, _, stderr) = run(&["--upstream", "https://a.test", "--ca", ca]).await;
        assert_eq!(status.code(), Some(2), "{ca}: {stderr}");
        assert!(stderr.starts_with(&format!("error: --ca {ca}: ")), "{ca}: {stderr}");
        assert!(stderr.contains(cause), "{ca}: {stderr}");
    }
}

#[tokio::test]
async fn what_names_no_origin_is_refused_with_the_forms_that_do() {
    for upstream in ["ftp://a:1", "https://", "http://a/path", "h2c://a", "https://a:0"] {
        let (status, _, stderr) = run(&["--upstream", upstream]).await;
        assert_eq!(status.code(), Some(2), "{upstream}: {stderr}");
        for form in ["--upstream", "host:port", "unix:/path", "http://", "https://", "h2c://"] {
            assert!(stderr.contains(form), "{upstream}: no {form}: {stderr}");
        }
    }
}
