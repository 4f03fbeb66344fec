//! The pool of hyper's HTTP/1 connections.

mod support;

use std::{
    convert::Infallible,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use corepool::{CloseReason, Condition, Connection, Http1Connector, Inspect, Pool};
use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use support::{close_and_check, eventually, tuned};

type Body = Empty<Bytes>;

fn request() -> Request<Body> {
    let request = Request::get("/").header("host", "origin").body(Empty::new());
    request.expect("a request")
}

/// An origin that sends the head of a response and a byte a moment for ever, and counts its
/// open connections.
fn endless_origin() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let open = Arc::clone(&counter);
            open.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
                while stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(2));
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

/// What an origin does with one connection.
type Script = fn(&mut TcpStream);

/// An origin that serves its connections by scripts, one each, and then closes them.
fn scripted(scripts: &'static [Script]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for script in scripts {
            let (mut stream, _) = listener.accept().unwrap();
            script(&mut stream);
        }
    });
    address
}

fn hear(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 4096]).unwrap()
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

on_both_drivers! {
    async fn a_body_that_is_dropped_early_closes_its_connection(backend) {
        let (address, open) = endless_origin();
        let pool =
            tuned(Pool::builder(Http1Connector::<Body>::new()), backend).max_live(2).build().unwrap();
        let group = pool.group(address);
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let connection = group.checkout().await.unwrap();
            bodies.push(connection.exchange(request()).await.unwrap().into_body());
        }
        eventually("two are open", || open.load(Ordering::SeqCst) == 2).await;
        for body in &mut bodies {
            assert!(body.frame().await.unwrap().is_ok());
        }
        // Before they were read to their ends.
        drop(bodies);
        eventually("all sockets are closed", || open.load(Ordering::SeqCst) == 0).await;
        assert_eq!(group.stats().closed_for(CloseReason::Dirty), 2);
        close_and_check(pool).await;
    }

    async fn a_connection_is_reused_once_its_response_was_read(backend) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(async |_| {
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(
                        Bytes::from_static(b"hello"),
                    )))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let group = pool.group(address);
        for round in 0..20 {
            let connection = group.checkout().await.unwrap();
            assert_eq!((connection.is_reused(), connection.uses()), (round > 0, round));
            assert_eq!(connection.was_written(), Some(false), "what others wrote does not count");
            // From any thread.
            let response = tokio::spawn(connection.exchange(request())).await.unwrap().unwrap();
            assert_eq!(group.stats().idle, 0, "it travels with the body");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
            assert_eq!(group.stats().idle, 1);
        }
        assert_eq!(group.stats().opened, 1);
        close_and_check(pool).await;
    }

    async fn a_connection_whose_peer_has_gone_says_so(backend) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let group = pool.group(address);
        let mut sender = group.checkout().await.unwrap();
        assert_eq!(sender.inspect(Inspect::Glance), Condition::Usable);
        assert_eq!(sender.inspect(Inspect::Peek), Condition::Usable);
        drop(listener.accept().unwrap());
        eventually("closed", || sender.inspect(Inspect::Glance) == Condition::Closed).await;
        sender.release();
        eventually("counted", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        close_and_check(pool).await;
    }

    async fn a_connection_that_its_peer_closed_instead_of_answering_may_be_tried_again(backend) {
        let address = scripted(&[|stream| {
            hear(stream);
            say(stream, HELLO);
            hear(stream);
        }]);
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let group = pool.group(address);
        let connection = group.checkout().await.unwrap();
        let response = connection.exchange(request()).await.unwrap();
        response.into_body().collect().await.unwrap();
        let connection = group.checkout().await.unwrap();
        let error = connection.exchange(request()).await.unwrap_err();
        assert!(error.was_reused() && !error.was_answered(), "{error:?}");
        assert_eq!(error.endpoint(), group.endpoint());
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        close_and_check(pool).await;
    }

    async fn an_answer_that_breaks_off_in_its_head_was_an_answer(backend) {
        let address = scripted(&[|stream| {
            hear(stream);
            say(stream, "HTTP/1.1 200");
        }]);
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let connection = pool.group(address).checkout().await.unwrap();
        let error = connection.exchange(request()).await.unwrap_err();
        assert!(!error.was_reused() && error.was_answered(), "{error:?}");
        close_and_check(pool).await;
    }

    async fn a_request_that_was_not_begun_comes_back(backend) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let mut connection = pool.group(address).checkout().await.unwrap();
        drop(listener.accept().unwrap());
        eventually("closed", || connection.inspect(Inspect::Glance) == Condition::Closed).await;
        let mut error = connection.exchange(request()).await.unwrap_err();
        assert_eq!(error.take_unsent().unwrap().uri(), "/");
        assert!(error.take_unsent().is_none(), "once");
        close_and_check(pool).await;
    }

    async fn what_an_origin_says_unasked_ends_its_connection_at_rest(backend) {
        let address = scripted(&[|stream| {
            hear(stream);
            say(stream, HELLO);
            say(stream, HELLO);
            let _ = stream.read(&mut [0; 1]);
        }]);
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let group = pool.group(address);
        let connection = group.checkout().await.unwrap();
        let response = connection.exchange(request()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        eventually("it is found", || {
            drop(group.try_checkout());
            group.stats().closed.iter().map(|(_, count)| count).sum::<u64>() == 1
        }).await;
        assert_eq!(group.stats().closed_for(CloseReason::UnexpectedBytes), 1);
        close_and_check(pool).await;
    }

    async fn a_reset_at_rest_is_told_from_a_close(backend) {
        let address = scripted(&[|stream| {
            hear(stream);
            say(stream, HELLO);
            thread::sleep(Duration::from_millis(100));
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
        }]);
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let group = pool.group(address);
        let connection = group.checkout().await.unwrap();
        let response = connection.exchange(request()).await.unwrap();
        response.into_body().collect().await.unwrap();
        eventually("it is found", || {
            drop(group.try_checkout());
            group.stats().closed_for(CloseReason::PeerReset) == 1
        }).await;
        close_and_check(pool).await;
    }

    async fn a_connection_that_its_origin_wants_closed_serves_once(backend) {
        let script: Script = |stream| {
            hear(stream);
            say(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello");
            let _ = stream.read(&mut [0; 1]);
        };
        static SCRIPTS: std::sync::OnceLock<[Script; 2]> = std::sync::OnceLock::new();
        let address = scripted(SCRIPTS.get_or_init(|| [script, script]));
        let pool = tuned(Pool::builder(Http1Connector::<Body>::new()), backend).build().unwrap();
        let group = pool.group(address);
        for _ in 0..2 {
            let connection = group.checkout().await.unwrap();
            assert!(!connection.is_reused());
            let response = connection.exchange(request()).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        }
        eventually("both are closed", || group.stats().in_use == 0).await;
        close_and_check(pool).await;
    }

    async fn an_upload_goes_on_while_nobody_reads_its_early_response(backend) {
        let address = scripted(&[|stream| {
            hear(stream);
            say(stream, HELLO);
            // All of it, although its sender looks at nothing but the response's head.
            let mut left = UPLOAD;
            while left > 0 {
                left = left.saturating_sub(hear(stream));
            }
            let _ = stream.read(&mut [0; 1]);
        }]);
        let connector = Http1Connector::<Full<Bytes>>::new();
        let pool = tuned(Pool::builder(connector), backend).build().unwrap();
        let group = pool.group(address);
        let body = Full::new(Bytes::from(vec![b'x'; UPLOAD]));
        let post = Request::post("/").header("host", "origin").body(body).unwrap();
        let response = group.checkout().await.unwrap().exchange(post).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        eventually("all of it is sent", || group.stats().idle == 1).await;
        close_and_check(pool).await;
    }
}

/// More than the sockets' buffers take.
const UPLOAD: usize = 32 << 20;
