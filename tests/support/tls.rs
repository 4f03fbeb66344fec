//! An authority that issues certificates, and servers that speak TLS, one thread for each connection.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use corepool::{TlsConnector, TlsConnectorBuilder};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

pub fn provider() -> Arc<CryptoProvider> {
    ring::default_provider().into()
}

/// A connector with cryptography, and nothing else yet.
pub fn connector() -> TlsConnectorBuilder {
    TlsConnector::builder().crypto_provider(provider())
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key.
pub struct Shown {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub chain_pem: String,
    pub key_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // One of a kind: who has another one's name would be found out by the signature alone.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self { pem: root.pem(), root: root.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Shown {
        self.issue_with(names, |_| {})
    }

    /// One that was valid once.
    pub fn issue_expired(&self, names: &[&str]) -> Shown {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names.join(" and "));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Shown {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

impl Shown {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// A server that shows it.
    pub fn server(&self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        builder.with_no_client_auth().with_single_cert(self.chain.clone(), self.key()).unwrap()
    }

    /// One that asks for the client's certificate.
    pub fn mutual_server(&self, clients: &Authority, required: bool) -> ServerConfig {
        let roots = Arc::new(clients.roots());
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        if !required {
            verifier = verifier.allow_unauthenticated();
        }
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
        builder.with_single_cert(self.chain.clone(), self.key()).unwrap()
    }

    /// One that speaks TLS 1.2 alone.
    pub fn old_server(&self) -> ServerConfig {
        use tokio_rustls::rustls::version::TLS12;
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&TLS12]).unwrap();
        builder.with_no_client_auth().with_single_cert(self.chain.clone(), self.key()).unwrap()
    }
}

/// The server's end of a connection.
pub type Peer<S = TcpStream> = StreamOwned<ServerConnection, S>;

/// What a server has seen of a handshake.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub kind: HandshakeKind,
    pub name: Option<String>,
    pub protocol: Option<Vec<u8>>,
    pub client: Option<CertificateDer<'static>>,
}

/// How a client ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    CloseNotify,
    Fin,
    Reset,
}

/// Serves its connections by one script, which gets each after its handshake.
pub struct Server {
    pub address: SocketAddr,
    seen: mpsc::Receiver<Seen>,
    ends: mpsc::Receiver<Goodbye>,
}

impl Server {
    /// Says back what it hears.
    pub fn echo(config: ServerConfig) -> Self {
        Self::scripted(config, |peer| {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = peer.read(&mut buffer) {
                if peer.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        })
    }

    pub fn scripted(
        config: ServerConfig,
        script: impl Fn(&mut Peer) + Clone + Send + 'static,
    ) -> Self {
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seeing, seen) = mpsc::channel();
        let (ending, ends) = mpsc::channel();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (script, seeing, ending) = (script.clone(), seeing.clone(), ending.clone());
                thread::spawn(move || {
                    let mut peer = StreamOwned::new(session, socket);
                    if shake_hands(&mut peer).is_err() {
                        return;
                    }
                    let _ = seeing.send(see(&peer));
                    script(&mut peer);
                    let _ = ending.send(end(&mut peer));
                });
            }
        });
        Self { address, seen, ends }
    }

    /// The next handshake that is through.
    pub fn next_seen(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(5)).expect("a handshake succeeds")
    }

    /// How the next connection to end was ended by its client.
    pub fn next_end(&self) -> Goodbye {
        self.ends.recv_timeout(Duration::from_secs(5)).expect("a connection ends")
    }
}

pub fn shake_hands<S: Read + Write>(peer: &mut Peer<S>) -> io::Result<()> {
    while peer.conn.is_handshaking() {
        peer.conn.complete_io(&mut peer.sock)?;
    }
    // Tickets.
    send(peer)
}

/// Sends what the session has to say by itself.
pub fn send<S: Read + Write>(peer: &mut Peer<S>) -> io::Result<()> {
    while peer.conn.wants_write() {
        peer.conn.write_tls(&mut peer.sock)?;
    }
    Ok(())
}

fn see(peer: &Peer) -> Seen {
    let session = &peer.conn;
    Seen {
        kind: session.handshake_kind().expect("it is through"),
        name: session.server_name().map(str::to_owned),
        protocol: session.alpn_protocol().map(<[u8]>::to_vec),
        client: session.peer_certificates().map(|chain| chain[0].clone()),
    }
}

/// Reads until the client ends it.
pub fn end(peer: &mut Peer) -> Goodbye {
    loop {
        match peer.read(&mut [0; 4096]) {
            Ok(0) => return Goodbye::CloseNotify,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Goodbye::Fin,
            Err(_) => return Goodbye::Reset,
        }
    }
}

/// A peer without TLS: gets each connection as it is.
pub fn plain(script: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let script = script.clone();
            thread::spawn(move || script(socket));
        }
    });
    address
}

/// A server that ends each handshake by itself as soon as the client is through, by an alert, and
/// keeps the connection; it says when it has.
pub fn rejecting(config: ServerConfig) -> (SocketAddr, mpsc::Receiver<()>) {
    let config = Arc::new(config);
    let (rejecting, rejected) = mpsc::channel();
    let address = plain(move |socket| {
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut peer = StreamOwned::new(session, socket);
        assert!(shake_hands(&mut peer).is_err());
        send(&mut peer).unwrap();
        // The time to arrive.
        thread::sleep(Duration::from_millis(50));
        let _ = rejecting.send(());
        while let Ok(1..) = peer.sock.read(&mut [0; 4096]) {}
    });
    (address, rejected)
}
