//! TLS with a real peer: Debian's nginx, which is OpenSSL.
//!
//! Needs `apt-get install nginx-light`; `COREPOOL_SKIP_REAL_PEERS=1` skips it.
#![cfg(target_os = "linux")]

#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/tls.rs"]
mod peers;
mod support;

use bytes::Bytes;
use corepool::{
    CloseReason, Endpoint, Group, Http1Connector, Pool, TlsConnector, TlsIdentity, settings::Peek,
};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use nginx::{Certificate, Nginx, are_skipped};
use peers::{Authority, connector};
use support::{close_and_check, eventually, tuned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};
use tokio_rustls::rustls::HandshakeKind;

type Web = Http1Connector<Full<Bytes>, TlsConnector>;

const NAME: &str = "origin.test";

async fn serve(authority: &Authority, settings: &str) -> Nginx {
    let shown = authority.issue(&[NAME]);
    let tls = Certificate { chain: &shown.chain_pem, key: &shown.key_pem };
    Nginx::start_tls(settings, tls).await
}

fn web(authority: &Authority) -> Web {
    Http1Connector::new().over(connector().authorities(authority.roots()).build().unwrap())
}

fn secure(nginx: &Nginx) -> Endpoint {
    Endpoint::from(nginx.address).with_tls(TlsIdentity::new(NAME).with_alpn(["http/1.1"]))
}

async fn get(group: &Group<Web>) {
    let connection = group.checkout().await.unwrap();
    let request = Request::get("/").header("host", NAME).body(Full::default()).unwrap();
    let response = connection.exchange(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello\n");
}

on_both_drivers! {
    async fn a_patient_nginx_serves_all_on_a_few_connections(backend) {
        if are_skipped(&["nginx"]) {
            return;
        }
        let authority = Authority::new();
        let nginx = serve(&authority, "keepalive_timeout 60s; keepalive_requests 1000000;").await;
        let pool = tuned(Pool::builder(web(&authority)), backend).max_live(8).build().unwrap();
        let group = pool.group(secure(&nginx));
        let mut callers = JoinSet::new();
        for _ in 0..16 {
            let group = group.clone();
            callers.spawn(async move {
                for _ in 0..100 {
                    get(&group).await;
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        let stats = group.stats();
        assert!(stats.opened <= 8, "{stats:?}");
        assert_eq!(stats.closed_total(), 0, "{stats:?}");
        close_and_check(pool).await;
    }

    async fn an_impatient_nginx_says_goodbye_and_is_not_asked_again(backend) {
        if are_skipped(&["nginx"]) {
            return;
        }
        let authority = Authority::new();
        let nginx = serve(&authority, "keepalive_timeout 1s; keepalive_requests 10;").await;
        let pool = tuned(Pool::builder(web(&authority)), backend)
            .endpoint(|policy| policy.health.peek = Peek::Always)
            .build()
            .unwrap();
        let group = pool.group(secure(&nginx));
        // Each tenth response ends its connection.
        for _ in 0..95 {
            get(&group).await;
        }
        assert_eq!(group.stats().opened, 10);
        // And the last one rests until nginx has had enough.
        eventually("nginx has closed what rests", || {
            let stats = group.stats();
            (stats.idle, stats.closed_total()) == (0, 10)
        }).await;
        assert!(group.stats().closed_for(CloseReason::PeerClosed) > 0);
        get(&group).await;
        assert_eq!(group.stats().opened, 11);
        close_and_check(pool).await;
    }

    async fn nginx_resumes_sessions(backend) {
        if are_skipped(&["nginx"]) {
            return;
        }
        let authority = Authority::new();
        for version in ["TLSv1.2", "TLSv1.3"] {
            let nginx = serve(&authority, &format!("ssl_protocols {version};")).await;
            let tls = connector().authorities(authority.roots()).build().unwrap();
            let pool = tuned(Pool::builder(tls), backend).build().unwrap();
            let group = pool.group(secure(&nginx));
            for round in 0..4 {
                let mut stream = group.checkout().await.unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                stream.flush().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                let kind = stream.session().unwrap().handshake_kind().unwrap();
                assert_eq!(kind == HandshakeKind::Resumed, round > 0, "{version}: {kind:?}");
                assert_eq!(stream.alpn_protocol(), Some(&b"http/1.1"[..]));
                stream.discard();
            }
            close_and_check(pool).await;
        }
    }
}
