//! HTTP/1 over TLS through the pool, and what comes at rest there.

#[path = "support/tls.rs"]
mod peers;
mod support;

use std::{
    convert::Infallible,
    io::{Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use corepool::{
    Backend, CheckoutError, CloseReason, Condition, Connection, Endpoint, Group, Http1Connector,
    Inspect, Pool, TlsConnector, TlsIdentity, settings::Peek,
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use peers::{Authority, Goodbye, Peer, Server, connector, send};
use support::{close_and_check, eventually, tuned};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = Full<Bytes>;
type Web = Http1Connector<Body, TlsConnector>;

const NAME: &str = "origin.test";
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn identity() -> TlsIdentity {
    TlsIdentity::new(NAME).with_alpn(["http/1.1"])
}

fn secure(server: &Server) -> Endpoint {
    Endpoint::from(server.address).with_tls(identity())
}

fn web(authority: &Authority) -> Web {
    Http1Connector::new().over(connector().authorities(authority.roots()).build().unwrap())
}

/// A pool that looks at a connection's socket each time it hands the connection out.
fn watchful(authority: &Authority, backend: Backend) -> Pool<Web> {
    tuned(Pool::builder(web(authority)), backend)
        .endpoint(|policy| policy.health.peek = Peek::Always)
        .build()
        .unwrap()
}

async fn get(group: &Group<Web>) -> bool {
    let connection = group.checkout().await.unwrap();
    let was_reused = connection.is_reused();
    let request = Request::get("/").header("host", NAME).body(Body::default()).unwrap();
    let response = connection.exchange(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    was_reused
}

/// So many connections ended for this reason.
async fn closed(group: &Group<Web>, reason: CloseReason, count: u64) {
    eventually("it is closed", || group.stats().closed_for(reason) == count).await;
}

fn hear(peer: &mut Peer) {
    assert!(peer.read(&mut [0; 4096]).unwrap() > 0);
}

fn say(peer: &mut Peer, text: &str) {
    peer.write_all(text.as_bytes()).unwrap();
    peer.flush().unwrap();
}

/// A server that answers once and, told to, does something to the connection at rest.
struct Restless {
    server: Server,
    go: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Restless {
    fn start(authority: &Authority, act: impl Fn(&mut Peer) + Clone + Send + 'static) -> Self {
        let (go, going) = mpsc::channel();
        let (doing, done) = mpsc::channel();
        let going = Arc::new(Mutex::new(going));
        let server = Server::scripted(authority.issue(&[NAME]).server(), move |peer| {
            hear(peer);
            say(peer, HELLO);
            if going.lock().unwrap().recv().is_ok() {
                act(peer);
                // The time to arrive.
                thread::sleep(Duration::from_millis(50));
                let _ = doing.send(());
                // What the client makes of it is no reason to close.
                let _ = peer.sock.set_read_timeout(Some(Duration::from_secs(5)));
                while let Ok(1..) = peer.sock.read(&mut [0; 4096]) {}
            }
        });
        Self { server, go, done }
    }

    fn act(&self) {
        self.go.send(()).unwrap();
        self.done.recv_timeout(Duration::from_secs(5)).unwrap();
    }
}

on_both_drivers! {
    async fn a_thousand_requests_take_one_connection(backend) {
        let authority = Authority::new();
        let served = Arc::<AtomicUsize>::default();
        let address = {
            let acceptor = TlsAcceptor::from(Arc::new(authority.issue(&[NAME]).server()));
            let served = Arc::clone(&served);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let stream = acceptor.accept(socket).await.unwrap();
                    let served = Arc::clone(&served);
                    let service = service_fn(move |_| {
                        served.fetch_add(1, SeqCst);
                        let body = Full::new(Bytes::from_static(b"hello"));
                        async { Ok::<_, Infallible>(hyper::Response::new(body)) }
                    });
                    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::spawn(serving);
                }
            });
            address
        };
        let pool = tuned(Pool::builder(web(&authority)), backend).build().unwrap();
        let group = pool.group(Endpoint::from(address).with_tls(identity()));
        for round in 0..1000 {
            assert_eq!(get(&group).await, round > 0, "{round}");
        }
        assert_eq!((served.load(SeqCst), group.stats().opened), (1000, 1));
        close_and_check(pool).await;
    }

    async fn a_connection_says_goodbye_when_the_pool_closes_it(backend) {
        let authority = Authority::new();
        let server = Server::scripted(authority.issue(&[NAME]).server(), |peer| {
            hear(peer);
            say(peer, HELLO);
        });
        let pool = tuned(Pool::builder(web(&authority)), backend).build().unwrap();
        let group = pool.group(secure(&server));
        get(&group).await;
        close_and_check(pool).await;
        assert_eq!(server.next_end(), Goodbye::CloseNotify);
    }

    async fn tickets_at_rest_end_no_connection(backend) {
        let authority = Authority::new();
        let mut config = authority.issue(&[NAME]).server();
        config.send_tls13_tickets = 4;
        let server = Server::scripted(config, |peer| {
            hear(peer);
            say(peer, HELLO);
        });
        let pool = watchful(&authority, backend);
        let group = pool.group(secure(&server));
        assert_eq!(group.warm_up(1).await.ready, 1);
        // They are sent by now, and nothing was asked yet.
        server.next_seen();
        get(&group).await;
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
    }

    async fn a_close_notify_at_rest_is_never_handed_out(backend) {
        let authority = Authority::new();
        // Without a FIN, which the watch would see.
        let origin = Restless::start(&authority, |peer| {
            peer.conn.send_close_notify();
            send(peer).unwrap();
        });
        let pool = watchful(&authority, backend);
        let group = pool.group(secure(&origin.server));
        for round in 0..5 {
            assert!(!get(&group).await);
            origin.act();
            assert!(group.try_checkout().is_none(), "{round}");
            closed(&group, CloseReason::PeerClosed, round + 1).await;
        }
        close_and_check(pool).await;
    }

    async fn a_close_notify_that_the_reactor_has_seen_is_found_at_a_glance(backend) {
        let authority = Authority::new();
        let server = Server::scripted(authority.issue(&[NAME]).server(), |peer| {
            peer.conn.send_close_notify();
            send(peer).unwrap();
        });
        let pool = tuned(Pool::builder(web(&authority)), backend).build().unwrap();
        let group = pool.group(secure(&server));
        let mut connection = group.checkout().await.unwrap();
        eventually("closed", || connection.inspect(Inspect::Glance) == Condition::Closed).await;
        connection.release();
        closed(&group, CloseReason::PeerClosed, 1).await;
        close_and_check(pool).await;
    }

    async fn a_response_that_nobody_asked_for_ends_its_connection(backend) {
        let authority = Authority::new();
        let origin = Restless::start(&authority, |peer| say(peer, HELLO));
        let pool = watchful(&authority, backend);
        let group = pool.group(secure(&origin.server));
        get(&group).await;
        origin.act();
        assert!(group.try_checkout().is_none());
        closed(&group, CloseReason::UnexpectedBytes, 1).await;
        close_and_check(pool).await;
    }

    async fn what_is_no_record_ends_its_connection(backend) {
        let authority = Authority::new();
        let origin = Restless::start(&authority, |peer| {
            peer.sock.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        });
        let pool = watchful(&authority, backend);
        let group = pool.group(secure(&origin.server));
        get(&group).await;
        origin.act();
        assert!(group.try_checkout().is_none());
        closed(&group, CloseReason::Unusable, 1).await;
        close_and_check(pool).await;
    }

    async fn a_client_that_the_server_rejects_late_is_never_handed_out(backend) {
        let authority = Authority::new();
        let server = peers::rejecting(authority.issue(&[NAME]).mutual_server(&authority, true));
        let pool = watchful(&authority, backend);
        let group = pool.group(Endpoint::from(server.0).with_tls(identity()));
        // In TLS 1.3 the client is through first.
        assert_eq!(group.warm_up(1).await.ready, 1);
        server.1.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(group.try_checkout().is_none());
        close_and_check(pool).await;
    }

    async fn a_body_that_was_cut_off_is_not_taken_for_a_whole_one(backend) {
        const OPEN_ENDED: &str = "HTTP/1.1 200 OK\r\n\r\nhello";
        let authority = Authority::new();
        for says_goodbye in [true, false] {
            let server = Server::scripted(authority.issue(&[NAME]).server(), move |peer| {
                hear(peer);
                say(peer, OPEN_ENDED);
                if says_goodbye {
                    peer.conn.send_close_notify();
                    send(peer).unwrap();
                } else {
                    peer.sock.shutdown(std::net::Shutdown::Write).unwrap();
                }
            });
            let pool = tuned(Pool::builder(web(&authority)), backend).build().unwrap();
            let connection = pool.group(secure(&server)).checkout().await.unwrap();
            let request = Request::get("/").header("host", NAME).body(Body::default()).unwrap();
            let response = connection.exchange(request).await.unwrap();
            let body = response.into_body().collect().await;
            assert_eq!(body.is_ok(), says_goodbye, "{body:?}");
            close_and_check(pool).await;
        }
    }

    async fn an_upload_goes_on_while_nobody_reads_its_early_response(backend) {
        let authority = Authority::new();
        let server = Server::scripted(authority.issue(&[NAME]).server(), |peer| {
            hear(peer);
            // The rest is read until the client says goodbye.
            say(peer, HELLO);
        });
        let pool = tuned(Pool::builder(web(&authority)), backend).build().unwrap();
        let group = pool.group(secure(&server));
        let body = Full::new(Bytes::from(vec![b'x'; UPLOAD]));
        let post = Request::post("/").header("host", NAME).body(body).unwrap();
        let response = group.checkout().await.unwrap().exchange(post).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        eventually("all of it is sent", || group.stats().idle == 1).await;
        // A task has it, and it ends as any other does.
        close_and_check(pool).await;
        assert_eq!(server.next_end(), Goodbye::CloseNotify);
    }

    async fn a_server_that_wants_another_protocol_is_refused(backend) {
        let authority = Authority::new();
        let mut config = authority.issue(&[NAME]).server();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server = Server::echo(config);
        let pool = tuned(Pool::builder(web(&authority)), backend).build().unwrap();
        let both = TlsIdentity::new(NAME).with_alpn(["h2", "http/1.1"]);
        let group = pool.group(Endpoint::from(server.address).with_tls(both));
        let Err(CheckoutError::Dial(error)) = group.checkout().await else {
            panic!("it was to be refused");
        };
        assert!(error.to_string().contains("h2 was agreed on by ALPN"), "{error}");
        close_and_check(pool).await;
    }

    async fn plain_endpoints_are_served_too(backend) {
        let address = peers::plain(|mut socket| {
            while let Ok(1..) = socket.read(&mut [0; 4096]) {
                socket.write_all(HELLO.as_bytes()).unwrap();
            }
        });
        let pool = watchful(&Authority::new(), backend);
        let group = pool.group(address);
        for round in 0..10 {
            assert_eq!(get(&group).await, round > 0);
        }
        close_and_check(pool).await;
    }
}

/// More than the sockets' buffers take.
const UPLOAD: usize = 32 << 20;
