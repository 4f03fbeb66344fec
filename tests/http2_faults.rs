//! Pooled HTTP/2 connections, with peers that break the protocol, or themselves.

#[path = "support/frames.rs"]
mod frames;
#[path = "support/streams.rs"]
mod streams;
mod support;

use std::{
    future::poll_fn, io::Write, net::TcpListener, pin::pin, sync::mpsc, task::Poll, time::Duration,
};

use corepool::{
    CheckoutError, Condition, Connection, DialErrorKind, Http2, Http2Keepalive, Http2Options,
    Inspect, Multiplexed, Pool, StreamError, StreamErrorKind,
};
use frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS,
    MAX_CONCURRENT_STREAMS, NO_ERROR, PING, PROTOCOL_ERROR, Peer, REFUSED_STREAM, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, field, settings,
};
use h2::Reason;
use http_body_util::BodyExt;
use streams::{Fed, ask, connector, pool, pool_of, post, push};
use support::eventually;
use tokio::sync::oneshot;

/// The error of a checkout from an origin that does this with its connection.
async fn refused(script: impl FnOnce(Peer) + Send + 'static) -> (DialErrorKind, String) {
    let (address, served) = Peer::script(script);
    let builder = Pool::builder(connector()).shards(1).pin(false).breaker(false);
    let pool = builder.connect_timeout(Duration::from_millis(500)).build().unwrap();
    let error = pool.group(address).checkout().await.expect_err("no connection");
    served.join().unwrap();
    match error {
        CheckoutError::Dial(error) => (error.kind(), error.to_string()),
        other => panic!("{other}"),
    }
}

fn is_usable(connection: &mut Http2<Fed>) -> bool {
    connection.inspect(Inspect::Glance) == Condition::Usable
}

// ---------------------------------------------------------------------------------------- dials

#[tokio::test]
async fn a_peer_that_speaks_http_1_is_a_failed_dial_that_says_so() {
    let (kind, error) = refused(|mut peer| {
        peer.greeted();
        peer.say(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        peer.rest();
    })
    .await;
    assert_eq!(kind, DialErrorKind::Connector);
    assert!(error.contains("does not speak HTTP/2: it began with \"HTTP/1.1 \""), "{error}");
}

#[tokio::test]
async fn a_peer_whose_first_frame_is_no_settings_is_a_failed_dial() {
    let (kind, error) = refused(|mut peer| {
        peer.greeted();
        peer.send(PING, 0, 0, b"too soon");
        peer.rest();
    })
    .await;
    assert_eq!(kind, DialErrorKind::Connector);
    assert!(error.contains("does not speak HTTP/2"), "{error}");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_a_dial_that_times_out() {
    let (kind, _) = refused(|mut peer| {
        peer.greeted();
        peer.rest();
    })
    .await;
    assert_eq!(kind, DialErrorKind::TimedOut);
}

#[tokio::test]
async fn a_peer_that_closes_at_once_is_a_failed_dial() {
    let (kind, error) = refused(|mut peer| peer.greeted()).await;
    assert_eq!(kind, DialErrorKind::Connector, "{error}");
}

#[tokio::test]
async fn a_peer_that_goes_away_with_its_settings_is_a_failed_dial() {
    let (kind, error) = refused(|mut peer| {
        peer.greeted();
        let goodbye = frames::frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0]);
        peer.say(&[settings(&[]), goodbye].concat());
        peer.rest();
    })
    .await;
    assert_eq!(kind, DialErrorKind::Connector, "{error}");
}

// ------------------------------------------------------------------------------------- settings

#[tokio::test]
async fn the_meter_follows_the_peers_settings() {
    let (go, may_go) = mpsc::channel();
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[(MAX_CONCURRENT_STREAMS, 3)]);
        for streams in [7, 2, 0, 50] {
            may_go.recv().unwrap();
            peer.say(&settings(&[(MAX_CONCURRENT_STREAMS, streams)]));
        }
        // One that does not name the number leaves it as it is.
        may_go.recv().unwrap();
        peer.say(&settings(&[]));
        peer.sync();
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let max = || connection.meter().capacity().max_streams;
    assert_eq!(max(), 3, "exact before the first request");
    for streams in [7, 2, 0, 50] {
        go.send(()).unwrap();
        eventually("the meter has it", || max() == streams).await;
    }
    go.send(()).unwrap();
    served.join().unwrap();
    assert_eq!(max(), 50);
}

#[tokio::test]
async fn a_peer_that_names_no_number_of_streams_allows_any() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        peer.rest();
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    assert_eq!(connection.meter().capacity().max_streams, u32::MAX);
    connection.discard();
    served.join().unwrap();
}

#[tokio::test]
async fn a_request_without_a_free_stream_comes_back_and_goes_once_there_is_one() {
    let (go, may_go) = mpsc::channel();
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[(MAX_CONCURRENT_STREAMS, 0)]);
        may_go.recv().unwrap();
        peer.say(&settings(&[(MAX_CONCURRENT_STREAMS, 1)]));
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[], true);
        stream
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    for _ in 0..100 {
        let mut error = connection.send(ask("/")).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::Unavailable);
        assert!(error.is_safe_to_retry() && error.take_unsent().is_some());
        assert!(error.to_string().contains("all 0 streams"), "{error}");
    }
    go.send(()).unwrap();
    eventually("there is one", || connection.meter().capacity().max_streams == 1).await;
    connection.send(ask("/")).await.unwrap();
    assert_eq!(served.join().unwrap(), 1, "what came back left nothing behind");
}

#[tokio::test]
async fn streams_above_a_lowered_number_end_in_their_own_time() {
    let (go, may_go) = mpsc::channel();
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[(MAX_CONCURRENT_STREAMS, 3)]);
        let streams = peer.requests(3);
        peer.say(&settings(&[(MAX_CONCURRENT_STREAMS, 1)]));
        may_go.recv().unwrap();
        for stream in streams {
            peer.respond(stream, &[], true);
        }
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[], true);
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let sent: Vec<_> = (0..3).map(|_| tokio::spawn(connection.send(ask("/")))).collect();
    eventually("it is lowered", || connection.meter().capacity().max_streams == 1).await;
    let error = connection.send(ask("/")).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Unavailable);
    go.send(()).unwrap();
    for sent in sent {
        sent.await.unwrap().unwrap();
    }
    connection.send(ask("/")).await.unwrap();
    served.join().unwrap();
}

// --------------------------------------------------------------------------------------- floods

/// Far more than sockets' buffers hold.
const FLOOD: usize = 256 << 20;

/// A peer that sends one frame over and over and reads no answer is not read any more itself.
async fn is_held_up(frame: Vec<u8>) {
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[]);
        peer.flood(&frame, FLOOD)
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let written = tokio::task::spawn_blocking(|| served.join().unwrap()).await.unwrap();
    assert!(written < FLOOD, "all of it was read");
    drop(connection);
}

#[tokio::test]
async fn a_ping_flood_is_read_no_faster_than_its_answers_are() {
    is_held_up(frames::frame(PING, 0, 0, b"01234567")).await;
}

#[tokio::test]
async fn a_settings_flood_is_read_no_faster_than_its_answers_are() {
    is_held_up(settings(&[(MAX_CONCURRENT_STREAMS, 100)])).await;
}

/// `:status: 103`, and no response yet.
fn interim(stream: u32) -> Vec<u8> {
    frames::frame(HEADERS, END_HEADERS, stream, b"\x48\x03103")
}

/// h2 keeps them for who waits for the response.
#[tokio::test]
async fn interim_responses_that_nobody_takes_end_the_connection() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        // Until nobody reads them any more.
        let _ = peer.0.write_all(&interim(stream).repeat(20_000));
        peer.rest();
    });
    let pool = pool();
    let mut connection = pool.group(address).checkout().await.unwrap();
    let mut sent = pin!(connection.send(ask("/")));
    // Begun, and not looked at again.
    let begun = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx).is_pending()));
    assert!(begun.await);
    eventually("it ends", || !is_usable(&mut connection)).await;
    let error = sent.await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Broken);
    assert!(error.to_string().contains("more interim responses than are taken"), "{error}");
    drop(connection);
    pool.close().await;
    served.join().unwrap();
}

#[tokio::test]
async fn a_response_comes_after_ten_thousand_interim_ones_that_were_taken() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        for _ in 0..1000 {
            peer.say(&interim(stream).repeat(10));
            peer.sync();
            // Who waits has its turn.
            std::thread::sleep(Duration::from_micros(200));
        }
        peer.respond(stream, &[], true);
        peer.rest();
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    connection.send(ask("/")).await.unwrap();
    drop(connection);
    pool.close().await;
    served.join().unwrap();
}

#[tokio::test]
async fn requests_are_served_between_a_hundred_thousand_pings() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        let pings = frames::frame(PING, 0, 0, b"01234567").repeat(100);
        for _ in 0..1000 {
            peer.say(&pings);
            for _ in 0..100 {
                assert_eq!(peer.next(PING).flags, ACK);
            }
        }
        peer.respond(stream, &[], true);
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    connection.send(ask("/")).await.unwrap();
    served.join().unwrap();
}

#[tokio::test]
async fn a_peer_that_resets_every_stream_fails_every_request_and_nothing_else() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        for _ in 0..300 {
            let stream = peer.next(HEADERS).stream;
            peer.reset(stream, frames::CANCEL);
            // What is over already does not matter.
            peer.reset(stream, frames::CANCEL);
        }
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[], true);
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    for _ in 0..300 {
        let error = connection.send(ask("/")).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (StreamErrorKind::Reset, Some(Reason::CANCEL)));
        assert!(!error.is_safe_to_retry() && error.was_answered());
    }
    connection.send(ask("/")).await.unwrap();
    assert_eq!(connection.open_streams(), 0);
    served.join().unwrap();
}

#[tokio::test]
async fn downloads_that_are_given_up_do_not_end_the_connection() {
    const DOWNLOADS: usize = 1100;
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let (mut asked, mut given_up) = (Vec::new(), 0);
        // The next request may come ahead of the last one's reset.
        while asked.len() <= DOWNLOADS || given_up < DOWNLOADS {
            match peer.read().unwrap() {
                frame if frame.kind == HEADERS => {
                    asked.push(frame.stream);
                    if asked.len() <= DOWNLOADS {
                        peer.respond(frame.stream, &[], false);
                    }
                }
                frame if frame.kind == RST_STREAM && frame.code() == frames::CANCEL => {
                    given_up += 1;
                    // What was on its way.
                    peer.say(&frames::frame(DATA, 0, frame.stream, b"data").repeat(8));
                }
                _ => {}
            }
        }
        peer.respond(asked[DOWNLOADS], &[], true);
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    for _ in 0..DOWNLOADS {
        drop(connection.send(ask("/")).await.unwrap());
    }
    connection.send(ask("/")).await.unwrap();
    served.join().unwrap();
}

#[tokio::test]
async fn readers_that_stop_at_small_frames_do_not_end_the_connection() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        for stream in peer.requests(4) {
            peer.respond(stream, &[], false);
            peer.say(&frames::frame(DATA, 0, stream, &[0; 50]).repeat(1300));
        }
        peer.sync();
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[], true);
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let (a, b, c, d) = tokio::join!(
        connection.send(ask("/")),
        connection.send(ask("/")),
        connection.send(ask("/")),
        connection.send(ask("/")),
    );
    let stopped = [a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap()];
    connection.send(ask("/")).await.unwrap();
    served.join().unwrap();
    drop(stopped);
}

#[tokio::test]
async fn a_connection_of_many_empty_frames_is_left_before_its_streams_break() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let going_on = peer.next(HEADERS).stream;
        peer.respond(going_on, &[], false);
        let mut count = 0;
        loop {
            match peer.read() {
                Ok(frame) if frame.kind == HEADERS => {
                    count += 1;
                    peer.respond(frame.stream, &[], false);
                    peer.send(DATA, 0, frame.stream, b"");
                    peer.send(DATA, END_STREAM, frame.stream, b"");
                }
                Ok(frame) if frame.kind == PING => break,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
        peer.send(DATA, END_STREAM, going_on, b"the end");
        count
    });
    let keepalive = Http2Keepalive::every(Duration::from_secs(1));
    let pool = pool_of(watched(keepalive));
    let connection = pool.group(address).checkout().await.unwrap();
    let going_on = connection.send(ask("/")).await.unwrap();
    loop {
        match connection.send(ask("/")).await {
            Ok(response) => assert!(response.collect().await.unwrap().to_bytes().is_empty()),
            Err(error) => {
                assert_eq!(error.kind(), StreamErrorKind::Unavailable);
                assert!(error.is_safe_to_retry());
                break;
            }
        }
    }
    assert_eq!(going_on.into_body().collect().await.unwrap().to_bytes(), "the end");
    assert_eq!(served.join().unwrap(), 51);
}

#[tokio::test]
async fn a_refused_stream_may_be_sent_again() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        peer.reset(stream, REFUSED_STREAM);
        peer.sync();
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let mut error = connection.send(ask("/")).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Reset);
    assert!(error.is_safe_to_retry());
    assert!(error.take_unsent().is_none(), "it was sent");
    assert!(!error.was_reused());
    served.join().unwrap();
}

#[tokio::test]
async fn a_header_block_without_end_ends_the_connection() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        peer.send(HEADERS, 0, stream, frames::OK);
        // Each is whole, and none is the last.
        let piece = field("x-more", "and more");
        let more = frames::frame(CONTINUATION, 0, stream, &piece);
        peer.flood(&more, FLOOD)
    });
    let pool = pool();
    let mut connection = pool.group(address).checkout().await.unwrap();
    let error = connection.send(ask("/")).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Broken);
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error}");
    assert!(!is_usable(&mut connection));
    drop(connection);
    assert!(served.join().unwrap() < FLOOD);
}

/// Answers a request with header fields that come to so many KiB.
async fn headers_of(kib: usize) -> (StreamError<Fed>, bool) {
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        let line = field("x-line", &"x".repeat(100));
        let lines = line.repeat(kib * 1024 / (100 + 6 + 32));
        let mut pieces = lines.chunks(16 << 10);
        let first = [frames::OK, &pieces.next().unwrap()[..(16 << 10) - 1]].concat();
        let rest =
            [&lines[(16 << 10) - 1..16 << 10], &pieces.collect::<Vec<_>>().concat()].concat();
        let mut frame = frames::frame(HEADERS, END_STREAM, stream, &first);
        let pieces: Vec<_> = rest.chunks(16 << 10).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let flags = if n + 1 == pieces.len() { END_HEADERS } else { 0 };
            frame.extend(frames::frame(CONTINUATION, flags, stream, piece));
        }
        let _ = peer.0.write_all(&frame);
        peer.rest();
    });
    let pool = pool();
    let mut connection = pool.group(address).checkout().await.unwrap();
    let error = connection.send(ask("/")).await.unwrap_err();
    let is_usable = is_usable(&mut connection);
    connection.discard();
    served.join().unwrap();
    (error, is_usable)
}

#[tokio::test]
async fn header_fields_above_the_limit_reset_their_stream_alone() {
    let (error, is_usable) = headers_of(70).await;
    assert_eq!(error.kind(), StreamErrorKind::Reset, "{error}");
    assert!(!error.is_safe_to_retry() && is_usable);
}

#[tokio::test]
async fn header_fields_far_above_the_limit_end_the_connection() {
    let (error, is_usable) = headers_of(400).await;
    assert_eq!(error.kind(), StreamErrorKind::Broken, "{error}");
    assert!(!error.is_safe_to_retry() && !is_usable);
}

// ---------------------------------------------------------------------------------------- ends

#[tokio::test]
async fn a_goodbye_refuses_what_is_above_it_and_leaves_the_rest() {
    let (go, may_go) = mpsc::channel();
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[]);
        let streams = peer.requests(3);
        may_go.recv().unwrap();
        peer.respond(streams[0], &[], true);
        peer.go_away(streams[1], NO_ERROR, b"");
        peer.sync();
        peer.respond(streams[1], &[], false);
        peer.send(DATA, END_STREAM, streams[1], b"all of it");
        peer.rest();
    });
    let pool = pool();
    let mut connection = pool.group(address).checkout().await.unwrap();
    let mut sent = Vec::new();
    for n in 1..=3 {
        sent.push(tokio::spawn(connection.send(ask("/"))));
        // In this order.
        eventually("it is open", || connection.open_streams() == n).await;
    }
    go.send(()).unwrap();
    let [finished, going_on, refused] = sent.try_into().unwrap();
    finished.await.unwrap().unwrap();
    let error: StreamError<Fed> = refused.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::GoneAway);
    assert!(error.is_safe_to_retry());
    let response = going_on.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "all of it");
    assert!(connection.meter().capacity().is_draining);
    assert_eq!(connection.inspect(Inspect::Glance), Condition::Closed);
    let mut error = connection.send(ask("/")).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Unavailable);
    assert!(error.is_safe_to_retry() && error.take_unsent().is_some());
    connection.release();
    served.join().unwrap();
}

#[tokio::test]
async fn a_warning_of_a_goodbye_takes_no_stream_along() {
    let (go, may_go) = mpsc::channel();
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[]);
        let streams = peer.requests(2);
        // RFC 9113 §6.8: a graceful shutdown.
        peer.go_away((1 << 31) - 1, NO_ERROR, b"");
        may_go.recv().unwrap();
        peer.go_away(streams[0], NO_ERROR, b"");
        peer.respond(streams[0], &[], true);
        peer.rest();
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let first = tokio::spawn(connection.send(ask("/")));
    eventually("it is open", || connection.open_streams() == 1).await;
    let second = tokio::spawn(connection.send(ask("/")));
    eventually("it drains", || connection.meter().capacity().is_draining).await;
    assert_eq!(connection.open_streams(), 2);
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    assert!(second.await.unwrap().unwrap_err().is_safe_to_retry());
    connection.release();
    served.join().unwrap();
}

#[tokio::test]
async fn garbage_ends_the_connection_and_all_its_streams() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        peer.requests(2);
        peer.say(&[0xff; 100]);
        peer.rest()
    });
    let pool = pool();
    let mut connection = pool.group(address).checkout().await.unwrap();
    let (one, other) = tokio::join!(connection.send(ask("/")), connection.send(ask("/")));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert_eq!(error.kind(), StreamErrorKind::Broken, "{error}");
        assert_eq!(error.reason(), Some(Reason::FRAME_SIZE_ERROR));
        assert!(!error.is_safe_to_retry() && error.was_answered());
    }
    assert_eq!(connection.inspect(Inspect::Glance), Condition::Unusable);
    connection.release();
    let frames = served.join().unwrap();
    assert!(frames.iter().any(|frame| frame.kind == GOAWAY && frame.code() != NO_ERROR));
}

#[tokio::test]
async fn a_frame_on_a_stream_that_nobody_opened_ends_the_connection() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        peer.requests(1);
        peer.reset(99, frames::CANCEL);
        peer.rest()
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let error = connection.send(ask("/")).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Broken, "{error}");
    drop(connection);
    let frames = served.join().unwrap();
    let goodbye = frames.iter().find(|frame| frame.kind == GOAWAY).expect("a word of why");
    assert_eq!(goodbye.code(), PROTOCOL_ERROR);
}

#[tokio::test]
async fn a_connection_that_is_cut_breaks_the_bodies_that_are_under_way() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[field("content-length", "100")], false);
        peer.send(DATA, 0, stream, b"some of it");
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let mut body = connection.send(ask("/")).await.unwrap().into_body();
    served.join().unwrap();
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "some of it");
    let error = body.frame().await.expect("not the end").expect_err("it broke off");
    assert!(error.is_io(), "{error}");
    assert!(body.frame().await.is_none());
    assert_eq!(connection.open_streams(), 0);
}

#[tokio::test]
async fn a_body_shorter_than_it_says_is_no_body() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[field("content-length", "100")], false);
        peer.send(DATA, END_STREAM, stream, b"some of it");
        peer.next(RST_STREAM).code()
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let body = connection.send(ask("/")).await.unwrap().into_body();
    body.collect().await.expect_err("it was cut short");
    assert_eq!(served.join().unwrap(), PROTOCOL_ERROR);
}

#[tokio::test]
async fn a_stream_that_is_reset_without_an_error_was_not_complete() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[], false);
        peer.send(DATA, 0, stream, b"some of it");
        peer.sync();
        peer.reset(stream, NO_ERROR);
        peer.sync();
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let body = connection.send(ask("/")).await.unwrap().into_body();
    body.collect().await.expect_err("it has no end");
    served.join().unwrap();
}

#[tokio::test]
async fn what_a_caller_has_ends_with_a_word_when_the_pool_closes_the_connection() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[], false);
        peer.requests(1);
        peer.rest()
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let mut body = connection.send(ask("/")).await.unwrap().into_body();
    let waiting = tokio::spawn(connection.send(ask("/")));
    eventually("both are open", || connection.open_streams() == 2).await;
    connection.discard();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("closed by its pool"), "{error}");
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("closed by its pool"), "{error}");
    assert_eq!(error.kind(), StreamErrorKind::Broken);
    let frames = served.join().unwrap();
    assert_eq!(frames.last().map(|frame| frame.kind), Some(GOAWAY), "{frames:?}");
}

// ------------------------------------------------------------------------------------- windows

#[tokio::test]
async fn a_slow_reader_holds_one_window_and_no_other_stream_up() {
    const WINDOW: usize = 64 << 10;
    let (read, is_read) = mpsc::channel();
    let (full, is_full) = oneshot::channel();
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[]);
        let slow = peer.next(HEADERS).stream;
        peer.respond(slow, &[], false);
        for _ in 0..WINDOW / (16 << 10) {
            peer.send(DATA, 0, slow, &[0; 16 << 10]);
        }
        // Nobody reads: no more is allowed. The PING's answer comes behind a window's update.
        peer.send(PING, 0, 0, b"in order");
        let mut before = Vec::new();
        loop {
            match peer.read().unwrap() {
                frame if frame.kind == PING => break,
                frame => before.push(frame),
            }
        }
        full.send(()).unwrap();
        let quick = peer.next(HEADERS).stream;
        peer.respond(quick, &[], true);
        is_read.recv().unwrap();
        // As much again, in whatever portions.
        let mut again = 0;
        while again < WINDOW / 2 {
            let update = peer.next(WINDOW_UPDATE);
            if update.stream == slow {
                again += u32::from_be_bytes(update.payload.try_into().unwrap()) as usize;
            }
        }
        peer.send(DATA, END_STREAM, slow, b"the rest");
        assert!(!before.iter().any(|frame| frame.stream == slow), "{before:?}");
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let mut slow = connection.send(ask("/")).await.unwrap().into_body();
    is_full.await.unwrap();
    connection.send(ask("/")).await.expect("others go on");
    let mut count = 0;
    while count < WINDOW {
        count += slow.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    read.send(()).unwrap();
    assert_eq!(slow.collect().await.unwrap().to_bytes(), "the rest");
    served.join().unwrap();
}

#[tokio::test]
async fn a_peer_that_ignores_the_window_loses_its_stream() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        peer.respond(stream, &[], false);
        for _ in 0..5 {
            peer.send(DATA, 0, stream, &[0; 16 << 10]);
        }
        peer.next(RST_STREAM).code()
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let body = connection.send(ask("/")).await.unwrap().into_body();
    assert_eq!(served.join().unwrap(), u32::from(Reason::FLOW_CONTROL_ERROR));
    let error = body.collect().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::FLOW_CONTROL_ERROR));
}

#[tokio::test]
async fn a_peer_without_a_window_takes_no_more_of_a_body() {
    let (go, may_go) = mpsc::channel();
    let (address, served) = Peer::script(move |mut peer| {
        peer.shake_hands(&[(frames::INITIAL_WINDOW_SIZE, 0)]);
        let stream = peer.next(HEADERS).stream;
        may_go.recv().unwrap();
        peer.reset(stream, frames::CANCEL);
        peer.rest()
    });
    let pool = pool();
    let connection = pool.group(address).checkout().await.unwrap();
    let (body, request) = post();
    let sending = tokio::spawn(connection.send(request));
    push(&body, "one is taken").await;
    push(&body, "one lies in the channel").await;
    // There is no room for another, however long one waits.
    assert!(body.try_send(http_body::Frame::data("".into())).is_err());
    go.send(()).unwrap();
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Reset);
    body.closed().await;
    connection.discard();
    let frames = served.join().unwrap();
    assert!(!frames.iter().any(|frame| frame.kind == DATA));
}

// ----------------------------------------------------------------------------------- keep-alive

fn watched(keepalive: Http2Keepalive) -> corepool::Http2Connector<Fed> {
    connector().options(Http2Options::default().keepalive(keepalive))
}

#[tokio::test]
async fn a_peer_that_falls_silent_ends_its_streams_in_time() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        peer.requests(1);
        peer.next(PING);
        // No answer.
        peer.rest();
    });
    let moment = Duration::from_millis(50);
    let pool = pool_of(watched(Http2Keepalive::every(moment).timeout(moment)));
    let mut connection = pool.group(address).checkout().await.unwrap();
    let error = connection.send(ask("/")).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Broken);
    assert!(error.to_string().contains("left a keep-alive PING unanswered"), "{error}");
    assert!(connection.meter().capacity().is_draining);
    assert_eq!(connection.inspect(Inspect::Glance), Condition::Reset);
    connection.release();
    served.join().unwrap();
}

#[tokio::test]
async fn a_peer_that_answers_is_asked_again_and_again() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        let stream = peer.next(HEADERS).stream;
        for _ in 0..5 {
            let ping = peer.next(PING);
            peer.send(PING, ACK, 0, &ping.payload);
        }
        peer.respond(stream, &[], true);
        // Without a stream it is left alone.
        peer.is_open()
    });
    let keepalive =
        Http2Keepalive::every(Duration::from_millis(20)).timeout(Duration::from_secs(5));
    let pool = pool_of(watched(keepalive));
    let connection = pool.group(address).checkout().await.unwrap();
    connection.send(ask("/")).await.unwrap();
    assert!(tokio::task::spawn_blocking(|| served.join().unwrap()).await.unwrap());
    drop(connection);
}

#[tokio::test]
async fn a_connection_without_streams_is_asked_if_that_is_wanted() {
    let (address, served) = Peer::script(|mut peer| {
        peer.shake_hands(&[]);
        peer.next(PING);
    });
    let keepalive = Http2Keepalive::every(Duration::from_millis(20)).without_streams(true);
    let pool = pool_of(watched(keepalive));
    let connection = pool.group(address).checkout().await.unwrap();
    tokio::task::spawn_blocking(|| served.join().unwrap()).await.unwrap();
    drop(connection);
}

#[tokio::test]
async fn a_peer_that_is_asked_too_often_is_asked_less_by_the_next_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        // Five times doubled, 10 ms come to 320.
        for _ in 0..5 {
            let mut peer = Peer::accept(&listener);
            peer.shake_hands(&[]);
            let ping = peer.next(PING);
            peer.send(PING, ACK, 0, &ping.payload);
            peer.go_away(0, ENHANCE_YOUR_CALM, b"too_many_pings");
            peer.rest();
        }
        let mut peer = Peer::accept(&listener);
        peer.shake_hands(&[]);
        peer.is_open()
    });
    let keepalive = Http2Keepalive::every(Duration::from_millis(10)).without_streams(true);
    let pool = pool_of(watched(keepalive));
    let group = pool.group(address);
    for _ in 0..5 {
        let connection = group.checkout().await.unwrap();
        eventually("it drains", || connection.meter().capacity().is_draining).await;
        connection.release();
    }
    let connection = group.checkout().await.unwrap();
    let is_left_alone = tokio::task::spawn_blocking(|| served.join().unwrap()).await.unwrap();
    assert!(is_left_alone, "it was asked within 200 ms");
    drop(connection);
}

#[test]
fn the_frames_of_these_peers_are_frames() {
    assert_eq!(settings(&[]), [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
}
