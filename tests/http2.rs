//! Pooled HTTP/2 connections, with a peer that keeps to the protocol.

#[path = "support/frames.rs"]
mod frames;
#[path = "support/streams.rs"]
mod streams;
mod support;

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use corepool::{
    CloseReason, Condition, Connection, Http2Connector, Inspect, Multiplexed, Pool, StreamErrorKind,
};
use frames::{CANCEL, GOAWAY, HEADERS, NO_ERROR, PING, Peer, RST_STREAM};
use http::{HeaderMap, Method, Request, Version};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use streams::{Fed, Origin, ask, connector, post, push};
use support::{close_and_check, eventually, tuned};
use tokio::sync::oneshot;

on_both_drivers! {
    async fn a_hundred_requests_share_one_connection(backend) {
        let origin = Origin::gathering(100).await;
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        let group = pool.group(origin.address);
        let connection = group.checkout().await.unwrap();
        // The origin answers once it has them all.
        let sent: Vec<_> =
            (0..100).map(|n| tokio::spawn(connection.send(ask(&format!("/{n}"))))).collect();
        for (n, sent) in sent.into_iter().enumerate() {
            let response = sent.await.unwrap().unwrap();
            let page = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(page, format!("/{n}"));
        }
        assert_eq!(connection.open_streams(), 0);
        connection.release();
        assert_eq!((group.stats().opened, group.stats().idle), (1, 1));
        close_and_check(pool).await;
    }

    async fn a_connection_dropped_after_use_goes_back(backend) {
        let origin = Origin::echo().await;
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        let group = pool.group(origin.address);
        for _ in 0..3 {
            let connection = group.checkout().await.unwrap();
            connection.send(ask("/")).await.unwrap().into_body().collect().await.unwrap();
        }
        assert_eq!((group.stats().opened, group.stats().idle), (1, 1));
        close_and_check(pool).await;
    }

    async fn bodies_and_trailers_come_through_both_ways(backend) {
        let origin = Origin::echo().await;
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        let connection = pool.group(origin.address).checkout().await.unwrap();
        let (body, request) = post();
        let large = Bytes::from(vec![b'x'; 1 << 20]);
        let feeding = tokio::spawn({
            let large = large.clone();
            async move {
                body.send(Frame::data(large)).await.unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", "1".parse().unwrap());
                trailers.insert("connection", "close".parse().unwrap());
                body.send(Frame::trailers(trailers)).await.unwrap();
            }
        });
        let response = connection.send(request).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
        assert_eq!(collected.to_bytes(), large);
        feeding.await.unwrap();
        assert_eq!(connection.open_streams(), 0);
        drop(connection);
        close_and_check(pool).await;
    }

    async fn a_request_goes_on_when_its_response_has_begun(backend) {
        let origin = Origin::echo().await;
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        let connection = pool.group(origin.address).checkout().await.unwrap();
        let (body, request) = post();
        let mut response = connection.send(request).await.unwrap().into_body();
        // Message by message, as a gRPC conversation.
        for n in 0..10 {
            push(&body, &format!("message {n}")).await;
            let frame = response.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), format!("message {n}"));
        }
        assert_eq!(connection.open_streams(), 1);
        drop(body);
        assert!(response.frame().await.is_none());
        eventually("the stream is over", || connection.open_streams() == 0).await;
        drop(connection);
        close_and_check(pool).await;
    }

    async fn an_upload_goes_on_while_nobody_reads_the_response(backend) {
        let (origin, taken) = Origin::sink().await;
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        let connection = pool.group(origin.address).checkout().await.unwrap();
        let (body, request) = post();
        let response = connection.send(request).await.unwrap();
        for _ in 0..64 {
            push(&body, &"x".repeat(16 << 10)).await;
        }
        drop(body);
        assert_eq!(taken.await.unwrap(), 1 << 20);
        drop(response);
        eventually("the stream is over", || connection.open_streams() == 0).await;
        drop(connection);
        close_and_check(pool).await;
    }

    async fn a_connection_says_goodbye_when_the_pool_closes_it(backend) {
        let (address, served) = Peer::script(|mut peer| {
            peer.shake_hands(&[]);
            peer.rest()
        });
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        pool.group(address).checkout().await.unwrap().release();
        close_and_check(pool).await;
        let frames = served.join().unwrap();
        let last = frames.last().expect("a frame");
        assert_eq!((last.kind, last.code()), (GOAWAY, NO_ERROR), "{frames:?}");
    }

    async fn a_connection_out_of_the_pool_is_closed_by_whoever_drops_it(backend) {
        let (address, served) = Peer::script(|mut peer| {
            peer.shake_hands(&[]);
            let stream = peer.next(HEADERS).stream;
            peer.respond(stream, &[], true);
            peer.rest()
        });
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        let connection = pool.group(address).checkout().await.unwrap().detach();
        connection.send(ask("/")).await.unwrap();
        std::thread::spawn(move || drop(connection)).join().unwrap();
        served.join().unwrap();
        close_and_check(pool).await;
    }

    async fn a_socket_outlives_its_peers_goodbye_until_the_pool_lets_go(backend) {
        let (checked_out, is_checked_out) = mpsc::channel();
        let (open, is_open) = oneshot::channel();
        let (address, served) = Peer::script(move |mut peer| {
            peer.shake_hands(&[]);
            is_checked_out.recv().unwrap();
            peer.go_away(0, NO_ERROR, b"");
            // It has no stream: h2 is done with it.
            peer.next(GOAWAY);
            open.send(peer.is_open()).unwrap();
            peer.rest();
        });
        let pool = tuned(Pool::builder(connector()), backend).build().unwrap();
        let group = pool.group(address);
        let mut connection = group.checkout().await.unwrap();
        checked_out.send(()).unwrap();
        assert!(is_open.await.unwrap(), "the pool has the connection, and its socket was closed");
        assert_eq!(connection.inspect(Inspect::Glance), Condition::Closed);
        assert!(connection.meter().capacity().is_draining);
        connection.release();
        eventually("it is closed", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        served.join().unwrap();
        close_and_check(pool).await;
    }
}

#[tokio::test]
async fn a_request_of_http_1_is_translated() {
    let (origin, mut heard) = Origin::listening().await;
    let pool = streams::pool();
    let connection = pool.group(origin.address).checkout().await.unwrap();
    let request = Request::post("/path?query")
        .version(Version::HTTP_11)
        .header("host", "example.org:81")
        .header("connection", "keep-alive, x-hop")
        .header("x-hop", "1")
        .header("transfer-encoding", "chunked")
        .header("x-stays", "1")
        .body(Fed::of("four"));
    connection.send(request.unwrap()).await.unwrap();
    let head = heard.recv().await.unwrap();
    assert_eq!(head.method(), Method::POST);
    assert_eq!(head.uri(), "http://example.org:81/path?query");
    let mut names: Vec<_> = head.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-stays"]);
}

#[tokio::test]
async fn a_request_without_a_host_comes_back() {
    let origin = Origin::echo().await;
    let pool = streams::pool();
    let connection = pool.group(origin.address).checkout().await.unwrap();
    let request = Request::get("/").header("connection", "close").body(Fed::of("body")).unwrap();
    let mut error = connection.send(request).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::BadRequest);
    assert!(!error.is_safe_to_retry(), "it would fail again");
    let request = error.take_unsent().expect("nothing was sent");
    assert_eq!(request.headers()["connection"], "close", "it comes back as it was");
    assert_eq!(request.body().size_hint().exact(), Some(4));
    assert_eq!(connection.open_streams(), 0);
}

#[tokio::test]
async fn a_request_without_a_body_ends_with_its_head() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let head = peer.next(HEADERS);
        peer.respond(head.stream, &[], true);
        head
    });
    let pool = streams::pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let response = connection.send(ask("/")).await.unwrap();
    assert!(response.body().is_end_stream());
    assert_eq!(response.body().size_hint().exact(), Some(0));
    assert_eq!(connection.open_streams(), 0);
    assert!(served.join().unwrap().is_last());
}

#[tokio::test]
async fn a_request_that_is_given_up_resets_its_stream() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let head = peer.next(HEADERS);
        let reset = peer.next(RST_STREAM);
        assert_eq!(reset.stream, head.stream);
        reset.code()
    });
    let pool = streams::pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let (_body, request) = post();
    let sending = tokio::spawn(connection.send(request));
    eventually("it is open", || connection.open_streams() == 1).await;
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    assert_eq!(connection.open_streams(), 0);
    assert_eq!(served.join().unwrap(), CANCEL);
}

#[tokio::test]
async fn a_response_that_is_dropped_resets_its_stream_and_ends_its_upload() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let head = peer.next(HEADERS);
        peer.respond(head.stream, &[], false);
        peer.next(RST_STREAM).code()
    });
    let pool = streams::pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let (body, request) = post();
    let response = connection.send(request).await.unwrap();
    drop(response);
    assert_eq!(served.join().unwrap(), CANCEL);
    body.closed().await;
    eventually("the stream is over", || connection.open_streams() == 0).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_resets_its_stream() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        peer.next(HEADERS);
        peer.next(RST_STREAM).code()
    });
    let pool = streams::pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let request = Request::post("http://origin/").body(Fed::broken()).unwrap();
    let error = connection.send(request).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::RequestBody);
    assert!(!error.is_safe_to_retry());
    assert!(error.to_string().contains("the downstream has gone"), "{error}");
    assert_eq!(served.join().unwrap(), CANCEL);
}

#[tokio::test]
async fn a_response_before_the_end_of_its_request_is_read_to_its_end() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let head = peer.next(HEADERS);
        // RFC 9113 §8.1: an early answer, and no interest in the rest.
        peer.respond(head.stream, &[], false);
        peer.send(frames::DATA, frames::END_STREAM, head.stream, b"enough");
        peer.reset(head.stream, NO_ERROR);
        peer.sync();
    });
    let pool = streams::pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let (body, request) = post();
    let response = connection.send(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "enough");
    body.closed().await;
    eventually("the stream is over", || connection.open_streams() == 0).await;
    served.join().unwrap();
}

#[tokio::test]
async fn a_body_is_taken_as_far_as_the_peers_window() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[(frames::INITIAL_WINDOW_SIZE, 10)]);
        let head = peer.next(HEADERS);
        let first = peer.next(frames::DATA);
        peer.sync();
        peer.send(frames::WINDOW_UPDATE, 0, head.stream, &100_u32.to_be_bytes());
        let second = peer.next(frames::DATA);
        peer.respond(head.stream, &[], true);
        assert!(!first.is_last() && second.is_last());
        (first.payload.len(), second.payload.len())
    });
    let pool = streams::pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let request = Request::post("http://origin/").body(Fed::of("thirteen bytes")).unwrap();
    connection.send(request).await.unwrap();
    assert_eq!(served.join().unwrap(), (10, 4));
    assert_eq!(connection.open_streams(), 0);
}

#[tokio::test]
async fn a_connection_at_rest_is_asked_by_ping() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        for _ in 0..3 {
            let ping = peer.next(PING);
            peer.send(PING, frames::ACK, 0, &ping.payload);
        }
        // The next one has no answer.
        peer.next(PING);
        peer.rest();
    });
    let mut settings = corepool::Settings::default();
    settings.endpoint.health.ping_interval_ms = Some(200);
    settings.endpoint.health.ping_timeout_ms = 200;
    let pool = Pool::builder(Http2Connector::<Fed>::new()).settings(settings).pin(false).shards(1);
    let pool = pool.build().unwrap();
    let group = pool.group(address);
    group.checkout().await.unwrap().release();
    eventually("the silent one is closed", || group.stats().closed_total() == 1).await;
    served.join().unwrap();
    close_and_check(pool).await;
}

#[tokio::test]
async fn a_conversation_is_held_from_two_threads() {
    let origin = Origin::echo().await;
    let pool = streams::pool();
    let connection = pool.group(origin.address).checkout().await.unwrap();
    let (body, request) = post();
    let response = connection.send(request).await.unwrap();
    let (done, is_done) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(response.into_body().collect()).unwrap();
        done.send(read.to_bytes()).unwrap();
    });
    for _ in 0..100 {
        push(&body, "0123456789").await;
    }
    drop(body);
    let read = tokio::time::timeout(Duration::from_secs(5), is_done).await.unwrap().unwrap();
    assert_eq!(read.len(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_callers_that_give_up_leaves_nothing_open() {
    let origin = Origin::echo().await;
    let pool = streams::pool();
    let group = pool.group(origin.address);
    let connection = Arc::new(group.checkout().await.unwrap());
    let callers = (0..8).map(|caller| {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move {
            for n in 0..200 {
                let (body, request) = post();
                let sending = connection.send(request);
                // Each at another moment.
                match (caller + n) % 5 {
                    0 => drop(tokio::time::timeout(Duration::ZERO, sending).await),
                    1 => drop(sending.await.unwrap()),
                    2 => {
                        let mut response = sending.await.unwrap().into_body();
                        push(&body, "a part").await;
                        drop(response.frame().await);
                    }
                    3 => {
                        let response = sending.await.unwrap();
                        drop(body);
                        response.into_body().collect().await.unwrap();
                    }
                    _ => {
                        let sending = tokio::spawn(sending);
                        tokio::task::yield_now().await;
                        sending.abort();
                    }
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    eventually("nothing is open", || connection.open_streams() == 0).await;
    connection.send(ask("/")).await.expect("the connection goes on");
    assert_eq!(group.stats().opened, 1);
}

#[tokio::test]
async fn a_unix_socket_carries_streams_too() {
    let path = std::env::temp_dir().join(format!("corepool-h2-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        streams::serve(stream, streams::echo).await;
    });
    let pool = streams::pool();
    let connection = pool.group(corepool::Endpoint::unix(&path)).checkout().await.unwrap();
    let (body, request) = post();
    push(&body, "over a path").await;
    drop(body);
    let response = connection.send(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "over a path");
    let _ = std::fs::remove_file(&path);
}
