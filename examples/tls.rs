//! HTTP/1 over TLS: few connections, and sessions resumed on the next ones.
//!
//! `cargo run --release --example tls`

use std::{
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use corepool::{Endpoint, Group, Http1Connector, Pool, TlsConnector, TlsIdentity};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        HandshakeKind, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

type Web = Http1Connector<Empty<Bytes>, TlsConnector>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["origin.example".to_owned()])?;
    let resumed = Arc::<AtomicUsize>::default();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let origin = serve(cert.der().clone(), key, Arc::clone(&resumed)).await?;

    let mut authorities = RootCertStore::empty();
    authorities.add(cert.der().clone())?;
    let tls = TlsConnector::builder()
        .authorities(authorities)
        .crypto_provider(ring::default_provider().into())
        .build()?;
    let pool = Pool::builder(Http1Connector::new().over(tls)).max_live(8).build()?;
    let identity = TlsIdentity::new("origin.example").with_alpn(["http/1.1"]);
    let group = pool.group(Endpoint::from(origin).with_tls(identity));

    for _ in 0..2 {
        let mut tasks = JoinSet::new();
        for _ in 0..64 {
            let group = group.clone();
            // A connection's error is as good as any other here.
            tasks.spawn(async move { get(&group).await.map_err(|error| error.to_string()) });
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        let stats = group.stats();
        println!("{} handshakes, {} requests on used connections", stats.opened, stats.reused);
        // As if the certificates had changed.
        group.evict();
    }
    println!("{} handshakes resumed a session", resumed.load(Ordering::Relaxed));

    // The same server under a name that its certificate is not for.
    let other = Endpoint::from(origin).with_tls(TlsIdentity::new("other.example"));
    match pool.group(other).checkout().await {
        Ok(_) => return Err("a certificate for another name was accepted".into()),
        Err(error) => println!("{error}"),
    }
    pool.close().await;
    Ok(())
}

async fn get(group: &Group<Web>) -> Result<(), Box<dyn Error>> {
    let request = Request::get("/").header("host", "origin.example").body(Empty::new())?;
    let response = group.checkout().await?.exchange(request).await?;
    response.into_body().collect().await?;
    Ok(())
}

/// An origin that counts the handshakes that resume a session.
async fn serve(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    resumed: Arc<AtomicUsize>,
) -> Result<SocketAddr, Box<dyn Error>> {
    let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, resumed) = (acceptor.clone(), Arc::clone(&resumed));
            tokio::spawn(async move {
                // A client that does not like our certificate goes away.
                let Ok(stream) = acceptor.accept(socket).await else {
                    return;
                };
                if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    resumed.fetch_add(1, Ordering::Relaxed);
                }
                let service = service_fn(async |_| {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
                });
                // Nor is its leaving an error.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}
