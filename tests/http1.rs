//! The pool of hyper's HTTP/1 senders.

mod support;

use std::{
    convert::Infallible,
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use corepool::{Backend, CloseReason, Condition, Connection, Http1Connector, Inspect, Pool};
use http_body_util::{BodyExt, Empty};
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

async fn a_closed_connection_does_not_live_on_in_its_body(backend: Backend) {
    let (address, open) = endless_origin();
    let pool =
        tuned(Pool::builder(Http1Connector::<Body>::new()), backend).max_live(2).build().unwrap();
    let group = pool.group(address);
    let mut bodies = Vec::new();
    for _ in 0..6 {
        let mut sender = group.checkout().await.unwrap();
        let response = sender.send_request(request()).await.unwrap();
        bodies.push(response.into_body());
        // Dropped before its body was read: the connection is closed, and the body with it.
        drop(sender);
    }
    eventually("all sockets are closed", || open.load(Ordering::SeqCst) == 0).await;
    for body in bodies {
        assert!(body.collect().await.is_err());
    }
    close_and_check(pool).await;
}

async fn a_sender_is_reused_once_its_response_was_read(backend: Backend) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(async |_| {
                Ok::<_, Infallible>(hyper::Response::new(http_body_util::Full::new(
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
        let mut sender = group.checkout().await.unwrap();
        assert_eq!((sender.is_reused(), sender.uses()), (round > 0, round));
        assert_eq!(sender.was_written(), Some(false), "what others wrote does not count");
        let response = sender.send_request(request()).await.unwrap();
        assert_eq!(sender.was_written(), Some(true));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        sender.release_when_ready().await;
    }
    assert_eq!(group.stats().opened, 1);
    close_and_check(pool).await;
}

async fn a_sender_whose_peer_has_gone_says_so(backend: Backend) {
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

#[tokio::test]
async fn a_sender_without_a_peer_says_so_on_epoll() {
    a_sender_whose_peer_has_gone_says_so(Backend::Epoll).await;
}

#[tokio::test]
async fn a_sender_without_a_peer_says_so_on_io_uring() {
    if support::uring_is_expected() {
        a_sender_whose_peer_has_gone_says_so(Backend::IoUring).await;
    }
}

#[tokio::test]
async fn closed_connections_end_on_epoll() {
    a_closed_connection_does_not_live_on_in_its_body(Backend::Epoll).await;
}

#[tokio::test]
async fn closed_connections_end_on_io_uring() {
    if support::uring_is_expected() {
        a_closed_connection_does_not_live_on_in_its_body(Backend::IoUring).await;
    }
}

#[tokio::test]
async fn senders_are_reused_on_epoll() {
    a_sender_is_reused_once_its_response_was_read(Backend::Epoll).await;
}

#[tokio::test]
async fn senders_are_reused_on_io_uring() {
    if support::uring_is_expected() {
        a_sender_is_reused_once_its_response_was_read(Backend::IoUring).await;
    }
}
