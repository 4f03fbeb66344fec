//! An HTTP origin behind TLS, which speaks the versions that it is told to, and counts.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    convert::Infallible,
    mem,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::peers::Shown;

#[derive(Clone)]
pub struct Origin(Arc<State>);

struct State {
    address: SocketAddr,
    /// How it shakes hands now, and what the connections of this time have.
    now: Mutex<(TlsAcceptor, Arc<()>)>,
    before: Mutex<Vec<Weak<()>>>,
    restarts: watch::Sender<Restart>,
    handshake_ms: AtomicUsize,
    /// Those to `/held` wait for a permit of it.
    go: Semaphore,
    accepted: AtomicUsize,
    connections: AtomicUsize,
    requests: AtomicUsize,
    under_way: AtomicUsize,
    most_at_once: AtomicU32,
}

/// One connection's.
#[derive(Default)]
struct Own {
    requests: AtomicUsize,
    at_once: AtomicU32,
}

/// How long a connection may be without a request at a restart.
const MOMENT_MS: usize = 300;

/// How the connections end that there are.
#[derive(Clone, Copy, Debug)]
pub enum Restart {
    /// With a word.
    Graceful,
    /// Without any, not even TLS's.
    Abrupt,
}

impl Origin {
    /// One that chooses among these protocols by ALPN, or knows nothing of that if there are none.
    pub async fn start(shown: &Shown, protocols: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self(Arc::new(State {
            address: listener.local_addr().unwrap(),
            now: Mutex::new((acceptor(shown, protocols), Arc::new(()))),
            before: Mutex::new(Vec::new()),
            restarts: watch::channel(Restart::Graceful).0,
            handshake_ms: AtomicUsize::new(0),
            go: Semaphore::new(0),
            accepted: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_at_once: AtomicU32::new(0),
        }));
        let accepting = origin.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepting.0.accepted.fetch_add(1, SeqCst);
                tokio::spawn(accepting.clone().serve(socket));
            }
        });
        origin
    }

    /// It is another one from now on, and ends what the old one has accepted.
    pub fn restart(&self, how: Restart, shown: &Shown, protocols: &[&str]) {
        let next = (acceptor(shown, protocols), Arc::new(()));
        let (_, before) = mem::replace(&mut *self.0.now.lock().unwrap(), next);
        self.0.before.lock().unwrap().push(Arc::downgrade(&before));
        drop(before);
        self.0.restarts.send_replace(how);
    }

    /// Whether all that was accepted before the last restart has ended.
    pub fn is_restarted(&self) -> bool {
        self.0.before.lock().unwrap().iter().all(|time| time.strong_count() == 0)
    }

    /// How long it takes for its part of each handshake from now on.
    pub fn shake_hands_in(&self, delay: Duration) {
        self.0.handshake_ms.store(delay.as_millis() as usize, SeqCst);
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where a path of it is.
    pub fn uri(&self, path: &str) -> http::Uri {
        format!("https://{}{path}", self.0.address).parse().unwrap()
    }

    /// Lets so many requests through that are held.
    pub fn let_go(&self, requests: usize) {
        self.0.go.add_permits(requests);
    }

    /// Connections so far, of which the handshake may have failed.
    pub fn accepted(&self) -> usize {
        self.0.accepted.load(SeqCst)
    }

    /// Those of which it has not.
    pub fn connections(&self) -> usize {
        self.0.connections.load(SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.0.requests.load(SeqCst)
    }

    /// Requests that are not answered yet.
    pub fn under_way(&self) -> usize {
        self.0.under_way.load(SeqCst)
    }

    /// The most requests that one connection had at once.
    pub fn most_at_once(&self) -> u32 {
        self.0.most_at_once.load(SeqCst)
    }

    async fn serve(self, socket: TcpStream) {
        let mut restarts = self.0.restarts.subscribe();
        let (acceptor, _time) = self.0.now.lock().unwrap().clone();
        let delay = self.0.handshake_ms.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(delay as u64)).await;
        // Who does not trust it, or has no protocol in common with it, leaves.
        let Ok(stream) = acceptor.accept(socket).await else {
            return;
        };
        self.0.connections.fetch_add(1, SeqCst);
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let own = Arc::<Own>::default();
        let service = service_fn({
            let (answering, own) = (self.clone(), Arc::clone(&own));
            move |request| answering.clone().answer(request, Arc::clone(&own))
        });
        let restarted = async {
            let _ = restarts.changed().await;
            let is_graceful = matches!(*restarts.borrow(), Restart::Graceful);
            // Who has just come has its first request under way: that is no time for a goodbye.
            for _ in 0..if is_graceful { MOMENT_MS } else { 0 } {
                if own.requests.load(SeqCst) > 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            is_graceful
        };
        let stream = TokioIo::new(stream);
        // How a client ends its connection is the client's choice.
        if is_http2 {
            let serving = conn::http2::Builder::new(TokioExecutor::new());
            let mut serving = pin!(serving.serve_connection(stream, service));
            tokio::select! {
                _ = serving.as_mut() => return,
                is_graceful = restarted => if !is_graceful {
                    return;
                }
            }
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        } else {
            let mut serving = pin!(conn::http1::Builder::new().serve_connection(stream, service));
            tokio::select! {
                _ = serving.as_mut() => return,
                is_graceful = restarted => if !is_graceful {
                    return;
                }
            }
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        own: Arc<Own>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let state = &self.0;
        state.requests.fetch_add(1, SeqCst);
        state.under_way.fetch_add(1, SeqCst);
        state.most_at_once.fetch_max(own.at_once.fetch_add(1, SeqCst) + 1, SeqCst);
        own.requests.fetch_add(1, SeqCst);
        match request.uri().path() {
            "/held" => state.go.acquire().await.unwrap().forget(),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        own.at_once.fetch_sub(1, SeqCst);
        state.under_way.fetch_sub(1, SeqCst);
        let said = format!("{:?} {}", request.version(), request.uri());
        Ok(Response::new(Full::new(Bytes::from(said))))
    }
}

fn acceptor(shown: &Shown, protocols: &[&str]) -> TlsAcceptor {
    let mut config: ServerConfig = shown.server();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config).into()
}
