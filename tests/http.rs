//! The client over pools of HTTP connections: one version or the other, shared or not, and what is
//! sent again.

#[path = "support/frames.rs"]
mod frames;
mod support;

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::Bytes;
use corepool::{
    Backend, Endpoint, HttpBody, HttpClient, HttpConnector, HttpOrigin, Pool, PoolEvent,
    RequestErrorKind, StreamConnector,
};
use frames::{DATA, END_STREAM, HEADERS, MAX_CONCURRENT_STREAMS, NO_ERROR, Peer};
use http::{Method, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{close_and_check, eventually, tuned};
use tokio::{sync::watch, task::JoinSet};

type Client = HttpClient<Full<Bytes>, StreamConnector>;
type Origin = HttpOrigin<Full<Bytes>, StreamConnector>;

fn client(backend: Backend) -> (Pool<HttpConnector<Full<Bytes>>>, Client) {
    let pool = tuned(Pool::builder(HttpConnector::new()), backend).build().unwrap();
    (pool.clone(), HttpClient::new(pool))
}

fn request(method: Method, path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "origin");
    request.body(Full::default()).unwrap()
}

async fn text(response: Response<HttpBody<Full<Bytes>, StreamConnector>>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A server of one version, which counts.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    restarts: watch::Sender<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
}

impl Server {
    /// Serves HTTP/2 with so many streams to a connection, or HTTP/1.
    async fn start(streams: Option<u32>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (restarts, mut restarted) = watch::channel(());
        let seen = Arc::<Seen>::default();
        let server = Self { address, seen: Arc::clone(&seen), restarts };
        tokio::spawn(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                seen.connections.fetch_add(1, SeqCst);
                restarted.mark_unchanged();
                tokio::spawn(serve(stream, streams, Arc::clone(&seen), restarted.clone()));
            }
        });
        server
    }

    /// As a server does that hands its listener to the next one: those that it has accepted end
    /// gracefully.
    fn restart(&self) {
        self.restarts.send_replace(());
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    streams: Option<u32>,
    seen: Arc<Seen>,
    mut restarted: watch::Receiver<()>,
) {
    let on_this_one = Arc::new(AtomicU32::new(0));
    let service = service_fn(move |request: Request<Incoming>| {
        let (seen, on_this_one) = (Arc::clone(&seen), Arc::clone(&on_this_one));
        async move {
            seen.requests.fetch_add(1, SeqCst);
            let at_once = on_this_one.fetch_add(1, SeqCst) + 1;
            seen.most_at_once.fetch_max(at_once, SeqCst);
            seen.at_once.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            on_this_one.fetch_sub(1, SeqCst);
            seen.at_once.fetch_sub(1, SeqCst);
            let said = format!("{:?} {}", request.version(), request.uri().path());
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
        }
    });
    let stream = TokioIo::new(stream);
    match streams {
        Some(streams) => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams);
            let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = restarted.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
        None => {
            let builder = hyper::server::conn::http1::Builder::new();
            let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = restarted.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }
}

fn h2c(address: SocketAddr) -> Endpoint {
    Endpoint::from(address).with_http2()
}

/// A peer of HTTP/2 that ends each connection with a GOAWAY after so many requests, as nginx does
/// (`keepalive_requests`); and how many connections it has had.
fn ending_after(requests: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&connections);
    thread::spawn(move || {
        loop {
            let mut peer = Peer::accept(&listener);
            counting.fetch_add(1, SeqCst);
            thread::spawn(move || {
                peer.shake_hands(&[(MAX_CONCURRENT_STREAMS, 100)]);
                let mut last = 0;
                for _ in 0..requests {
                    last = peer.next(HEADERS).stream;
                    peer.respond(last, &[], false);
                    peer.send(DATA, END_STREAM, last, b"HTTP/2 /many");
                }
                if requests == 0 {
                    peer.next(HEADERS);
                }
                peer.go_away(last, NO_ERROR, b"");
                while peer.read().is_ok() {}
            });
        }
    });
    (address, connections)
}

async fn many(origin: &Origin, tasks: usize, each: usize) -> Vec<String> {
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let origin = origin.clone();
        running.spawn(async move {
            let mut failed = Vec::new();
            for _ in 0..each {
                match origin.request(request(Method::GET, "/many")).await {
                    Ok(response) => assert!(text(response).await.ends_with(" /many")),
                    Err(error) => failed.push(error.to_string()),
                }
            }
            failed
        });
    }
    running.join_all().await.concat()
}

on_both_drivers! {
    async fn an_endpoint_of_http_1_has_a_request_to_a_connection(backend) {
        let server = Server::start(None).await;
        let (pool, client) = client(backend);
        let origin = client.origin(server.address);
        for _ in 0..20 {
            let response = origin.request(request(Method::GET, "/one")).await.unwrap();
            assert_eq!((response.version(), text(response).await.as_str()), (Version::HTTP_11, "HTTP/1.1 /one"));
        }
        assert_eq!(server.seen.connections.load(SeqCst), 1);
        assert_eq!(many(&origin, 10, 10).await, [""; 0]);
        assert_eq!(server.seen.most_at_once.load(SeqCst), 1);
        assert!(server.seen.connections.load(SeqCst) <= 11);
        close_and_check(pool).await;
    }

    async fn where_nothing_is_agreed_on_the_first_requests_do_not_wait_for_one_connection(backend) {
        let server = Server::start(None).await;
        let (pool, client) = client(backend);
        let origin = client.origin(server.address);
        let leases = tokio::join!(origin.checkout(), origin.checkout(), origin.checkout());
        for lease in [leases.0, leases.1, leases.2] {
            assert!(!lease.unwrap().is_reused(), "each has dialled its own");
        }
        let stats = origin.streams().group().stats();
        assert_eq!((stats.opened, stats.reused), (3, 0));
        close_and_check(pool).await;
    }

    async fn a_fresh_connection_of_http_1_is_dialled_and_none_at_rest_is_touched(backend) {
        let server = Server::start(None).await;
        let (pool, client) = client(backend);
        let origin = client.origin(server.address);
        drop(origin.checkout().await.unwrap());
        for _ in 0..3 {
            let fresh = origin.checkout_fresh().await.unwrap();
            assert!(!fresh.is_reused());
            drop(fresh);
        }
        let stats = origin.streams().group().stats();
        assert_eq!((stats.opened, stats.reused, stats.idle), (4, 0, 4));
        close_and_check(pool).await;
    }

    async fn a_leak_is_told_with_the_place_that_took_it(backend) {
        let server = Server::start(None).await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let taking = Arc::clone(&told);
        let pool = tuned(Pool::builder(HttpConnector::<Full<Bytes>>::new()), backend)
            .endpoint(|policy| policy.health.leak_after_ms = Some(20))
            .observer(move |event: &PoolEvent<'_>| {
                if let PoolEvent::LeakSuspected { location, .. } = event {
                    taking.lock().unwrap().push(location.file());
                }
            })
            .build()
            .unwrap();
        let origin = HttpClient::new(pool.clone()).origin(server.address);
        let held = origin.checkout().await.unwrap();
        eventually("the leak is told", || *told.lock().unwrap() == [file!()]).await;
        let held = (held, origin.checkout_fresh().await.unwrap());
        eventually("both are told", || *told.lock().unwrap() == [file!(); 2]).await;
        drop(held);
        // At rest there are two: it is the same with one that is found.
        let held = origin.checkout().await.unwrap();
        eventually("all are told", || *told.lock().unwrap() == [file!(); 3]).await;
        drop(held);
        close_and_check(pool).await;
    }

    async fn an_endpoint_known_to_speak_http_2_has_its_connections_shared(backend) {
        let server = Server::start(Some(200)).await;
        let (pool, client) = client(backend);
        let origin = client.origin(h2c(server.address));
        let response = origin.request(request(Method::GET, "/two")).await.unwrap();
        assert_eq!((response.version(), text(response).await.as_str()), (Version::HTTP_2, "HTTP/2.0 /two"));
        assert_eq!(many(&origin, 50, 4).await, [""; 0]);
        assert_eq!(server.seen.connections.load(SeqCst), 1);
        assert!(server.seen.most_at_once.load(SeqCst) > 1);
        close_and_check(pool).await;
    }

    async fn ten_thousand_requests_by_a_hundred_callers_where_sixteen_streams_are_allowed(backend) {
        let server = Server::start(Some(16)).await;
        let (pool, client) = client(backend);
        let origin = client.origin(h2c(server.address));
        assert_eq!(many(&origin, 100, 100).await, [""; 0]);
        assert_eq!(server.seen.requests.load(SeqCst), 10_000, "no stream was refused or repeated");
        assert!(server.seen.most_at_once.load(SeqCst) <= 16);
        assert_eq!(server.seen.connections.load(SeqCst), 7, "a hundred at sixteen each");
        close_and_check(pool).await;
    }

    async fn a_graceful_restart_under_load_loses_no_request(backend) {
        let server = Server::start(Some(16)).await;
        let (pool, client) = client(backend);
        let origin = client.origin(h2c(server.address));
        let load = tokio::spawn({
            let origin = origin.clone();
            async move { many(&origin, 40, 60).await }
        });
        for round in 1..=3 {
            eventually("some are done", || server.seen.requests.load(SeqCst) >= round * 500).await;
            server.restart();
        }
        assert_eq!(load.await.unwrap(), [""; 0]);
        assert!(server.seen.connections.load(SeqCst) > 3, "each restart ends what there is");
        close_and_check(pool).await;
    }

    async fn connections_that_end_after_every_eighth_request_lose_none_of_forty_callers(backend) {
        let (address, connections) = ending_after(8);
        let (pool, client) = client(backend);
        let origin = client.origin(h2c(address));
        assert_eq!(many(&origin, 40, 5).await, [""; 0]);
        assert!(connections.load(SeqCst) >= 200 / 8, "a connection serves eight");
        close_and_check(pool).await;
    }

    async fn a_peer_that_ends_every_connection_at_once_is_given_up(backend) {
        let (address, connections) = ending_after(0);
        let (pool, client) = client(backend);
        let origin = client.origin(h2c(address));
        let error = origin.request(request(Method::GET, "/")).await.unwrap_err();
        assert_eq!((error.is_safe_to_retry(), error.attempts()), (true, 33), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(connections.load(SeqCst), 33);
        close_and_check(pool).await;
    }

    async fn a_request_that_met_a_stale_connection_is_sent_again_on_a_fresh_one(backend) {
        let origin = Closing::start();
        let (pool, client) = client(backend);
        let handle = client.origin(origin.address);
        let first = handle.request(request(Method::GET, "/a")).await.unwrap();
        assert_eq!(text(first).await, "ok");
        let second = handle.request(request(Method::GET, "/b")).await.unwrap();
        assert_eq!(text(second).await, "ok");
        assert_eq!(*origin.heard.lock().unwrap(), ["GET /a", "GET /b", "GET /b"]);
        close_and_check(pool).await;
    }

    async fn one_that_may_have_had_an_effect_is_not(backend) {
        let origin = Closing::start();
        let (pool, client) = client(backend);
        let handle = client.origin(origin.address);
        text(handle.request(request(Method::GET, "/a")).await.unwrap()).await;
        let error = handle.request(request(Method::POST, "/b")).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (RequestErrorKind::Exchange, 1));
        assert!(error.is_stale_reuse() && !error.is_safe_to_retry());
        assert_eq!(error.endpoint(), Some(&origin.address.into()));
        assert_eq!(*origin.heard.lock().unwrap(), ["GET /a", "POST /b"]);
        close_and_check(pool).await;
    }

    async fn a_request_that_cannot_be_sent_is_tried_once(backend) {
        let server = Server::start(Some(200)).await;
        let (pool, client) = client(backend);
        let origin = client.origin(h2c(server.address));
        text(origin.request(request(Method::GET, "/a")).await.unwrap()).await;
        let no_host = Request::get("/b").body(Full::default()).unwrap();
        let mut error = origin.request(no_host).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (RequestErrorKind::Exchange, 1));
        assert!(!error.is_safe_to_retry() && !error.is_stale_reuse(), "{error}");
        assert_eq!(error.take_unsent().unwrap().uri(), "/b");
        close_and_check(pool).await;
    }

    async fn a_request_whose_own_body_breaks_off_is_not_sent_again(backend) {
        for streams in [None, Some(200)] {
            let server = Server::start(streams).await;
            let pool = tuned(Pool::builder(HttpConnector::new()), backend).build().unwrap();
            let whole = |request: &Request<Breaking>| Some(Request::put(request.uri().clone()).body(Breaking::Whole).unwrap());
            let client = HttpClient::without_copies(pool.clone()).keep_copies(whole);
            let endpoint = if streams.is_some() { h2c(server.address) } else { server.address.into() };
            let origin = client.origin(endpoint);
            let put = |body| Request::put("/a").header("host", "origin").body(body).unwrap();
            let answer = origin.request(put(Breaking::Whole)).await.unwrap();
            answer.into_body().collect().await.unwrap();
            let error = origin.request(put(Breaking::Broken)).await.unwrap_err();
            assert_eq!((error.kind(), error.attempts()), (RequestErrorKind::Exchange, 1), "{error}");
            assert!(!error.is_safe_to_retry() && !error.is_stale_reuse(), "{error}");
            close_and_check(pool).await;
        }
    }

    async fn a_request_finds_its_way_by_its_uri(backend) {
        let server = Server::start(None).await;
        let (pool, client) = client(backend);
        let uri = format!("http://{}/by/uri?q", server.address);
        let ask = Request::get(uri).body(Full::default()).unwrap();
        assert_eq!(text(client.request(ask).await.unwrap()).await, "HTTP/1.1 /by/uri");
        let ask = Request::get("/no/host").body(Full::default()).unwrap();
        let mut error = client.request(ask).await.unwrap_err();
        assert_eq!(error.to_string(), "/no/host: a URI without a scheme names no endpoint");
        assert_eq!(error.take_unsent().unwrap().uri(), "/no/host");
        close_and_check(pool).await;
    }

    async fn a_request_without_a_connection_comes_back(backend) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (pool, client) = client(backend);
        for endpoint in [address.into(), h2c(address)] {
            let mut error = client.origin(endpoint).request(request(Method::POST, "/x")).await.unwrap_err();
            assert_eq!(error.kind(), RequestErrorKind::Checkout);
            assert!(error.to_string().contains("refused"), "{error}");
            assert_eq!(error.take_unsent().unwrap().method(), Method::POST);
        }
        close_and_check(pool).await;
    }
}

/// A request's body that breaks off at once, or has nothing in it.
enum Breaking {
    Whole,
    Broken,
}

impl Body for Breaking {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match *self {
            Self::Whole => None,
            Self::Broken => Some(Err(io::Error::other("the disk is gone"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole)
    }
}

/// Answers the first request of each connection, and closes at the second without a word.
struct Closing {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Closing {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hears = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, heard) = (stream.unwrap(), Arc::clone(&hears));
                thread::spawn(move || {
                    for turn in 0..2 {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            let mut byte = [0];
                            match stream.read(&mut byte) {
                                Ok(1) => head.push(byte[0]),
                                _ => return,
                            }
                        }
                        let head = String::from_utf8(head).unwrap();
                        let line = head.split(" HTTP/").next().unwrap().to_owned();
                        heard.lock().unwrap().push(line);
                        if turn == 0 {
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                            stream.write_all(answer).unwrap();
                        }
                    }
                });
            }
        });
        Self { address, heard }
    }
}
