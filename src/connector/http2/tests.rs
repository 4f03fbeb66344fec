//! What cannot be seen from outside: keepers, stream numbers, and time.

use core::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use std::io;

use h2::server::{self, SendResponse};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::timeout,
};

use super::*;
use crate::sync::{AtomicU32, Ordering};

/// A transport in memory, which follows a clock that is moved by hand.
struct Piped;

struct Pipe(DuplexStream);

impl Connector for Piped {
    type Connection = Pipe;

    async fn connect(&self, _: Socket, _: &Endpoint) -> Result<Pipe, BoxError> {
        Err("has no use for sockets".into())
    }
}

impl Connection for Pipe {}

impl Transport for Pipe {}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The parts of a body that is fed by hand.
struct Parts(mpsc::Receiver<Bytes>);

impl futures_core::Stream for Parts {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

type Fed = StreamBody<Parts>;
type Answered = (Request<h2::RecvStream>, SendResponse<Bytes>);

fn request() -> (mpsc::Sender<Bytes>, Request<Fed>) {
    let (feed, parts) = mpsc::channel(1);
    let body = StreamBody::new(Parts(parts));
    (feed, Request::post("http://origin/").body(body).unwrap())
}

/// A connection, and the requests that its peer gets.
async fn connected(builder: Builder) -> (Http2<Fed>, mpsc::UnboundedReceiver<Answered>) {
    let (ours, theirs) = duplex(64 << 10);
    let (accepted, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut served = server::handshake(theirs).await.unwrap();
        while let Some(Ok(request)) = served.accept().await {
            accepted.send(request).unwrap();
        }
    });
    let connector = Http2Connector::new().over(Piped);
    let http2 = connector.begin(builder, Pipe(ours), &Endpoint::host("origin", 80)).await;
    (http2.unwrap(), requests)
}

/// Tells how many streams were open when it was dropped, plus one.
struct Keeper {
    shared: Arc<Shared>,
    told: Arc<AtomicU32>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.told.store(self.shared.open() + 1, Ordering::SeqCst);
    }
}

fn keeper(http2: &Http2<Fed>) -> (Keeper, Arc<AtomicU32>) {
    let told = Arc::new(AtomicU32::new(0));
    (Keeper { shared: Arc::clone(&http2.shared), told: Arc::clone(&told) }, told)
}

const KEPT: u32 = 0;
const DROPPED: u32 = 1;

fn now(told: &AtomicU32) -> u32 {
    told.load(Ordering::SeqCst)
}

/// Until all that is under way has happened.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_keeper_goes_with_the_later_of_both_directions() {
    let (http2, mut requests) = connected(Builder::new()).await;

    // The response is the later.
    let (kept, told) = keeper(&http2);
    let (feed, sent) = request();
    drop(feed);
    let sending = tokio::spawn(http2.outbound(sent).keeping(kept));
    let (_, mut respond) = requests.recv().await.unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let mut body = sending.await.unwrap().unwrap().into_body();
    settle().await;
    assert_eq!(now(&told), KEPT);
    stream.send_data(Bytes::from_static(b"all"), true).unwrap();
    assert_eq!(now(&told), KEPT);
    body.frame().await.unwrap().unwrap();
    assert_eq!(now(&told), DROPPED, "with the last byte, while the body lives");

    // The request is the later.
    let (kept, told) = keeper(&http2);
    let (feed, sent) = request();
    let sending = tokio::spawn(http2.outbound(sent).keeping(kept));
    let (mut received, mut respond) = requests.recv().await.unwrap();
    respond.send_response(Response::new(()), true).unwrap();
    let response = sending.await.unwrap().unwrap();
    drop(response);
    settle().await;
    assert_eq!(now(&told), KEPT);
    feed.send(Bytes::from_static(b"more")).await.unwrap();
    assert_eq!(received.body_mut().data().await.unwrap().unwrap(), "more");
    drop(feed);
    settle().await;
    assert_eq!(now(&told), DROPPED);
    assert!(received.body_mut().data().await.unwrap().unwrap().is_empty(), "its end");
}

#[tokio::test(start_paused = true)]
async fn a_keeper_goes_when_its_stream_is_given_up() {
    let (http2, mut requests) = connected(Builder::new()).await;

    // By who waits for the response.
    let (kept, told) = keeper(&http2);
    let (_feed, sent) = request();
    let sending = tokio::spawn(http2.outbound(sent).keeping(kept));
    let _open = requests.recv().await.unwrap();
    assert_eq!(now(&told), KEPT);
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    assert_eq!(now(&told), DROPPED);

    // By who reads it.
    let (kept, told) = keeper(&http2);
    let (_feed, sent) = request();
    let sending = tokio::spawn(http2.outbound(sent).keeping(kept));
    let (_, mut respond) = requests.recv().await.unwrap();
    let _stream = respond.send_response(Response::new(()), false).unwrap();
    let response = sending.await.unwrap().unwrap();
    settle().await;
    assert_eq!(now(&told), KEPT);
    drop(response);
    settle().await;
    assert_eq!(now(&told), DROPPED);

    // By the peer.
    let (kept, told) = keeper(&http2);
    let (_feed, sent) = request();
    let sending = tokio::spawn(http2.outbound(sent).keeping(kept));
    let (_, mut respond) = requests.recv().await.unwrap();
    respond.send_reset(h2::Reason::REFUSED_STREAM);
    assert!(sending.await.unwrap().unwrap_err().is_safe_to_retry());
    assert_eq!(now(&told), DROPPED);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_begun_keeps_nothing() {
    let (http2, _requests) = connected(Builder::new()).await;
    let (kept, told) = keeper(&http2);
    let (_feed, mut sent) = request();
    *sent.uri_mut() = "/".parse().unwrap();
    let error = http2.outbound(sent).keeping(kept).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::BadRequest);
    assert_eq!(now(&told), DROPPED);

    // Nor one that nobody waited for.
    let (kept, told) = keeper(&http2);
    drop(http2.outbound(request().1).keeping(kept));
    assert_eq!(now(&told), DROPPED);
    assert_eq!(http2.open_streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_request_has_five_seconds_after_its_response() {
    let (http2, mut requests) = connected(Builder::new()).await;
    let (kept, told) = keeper(&http2);
    let (feed, sent) = request();
    let sending = tokio::spawn(http2.outbound(sent).keeping(kept));
    let (mut received, mut respond) = requests.recv().await.unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let response = sending.await.unwrap().unwrap();
    // As long as it takes, while there is a response.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!feed.is_closed());
    stream.send_data(Bytes::new(), true).unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(now(&told), KEPT);
    let mut reset = pin!(received.body_mut().data());
    assert!(timeout(Duration::from_millis(4990), &mut reset).await.is_err(), "too soon");
    let reset = timeout(Duration::from_millis(20), reset).await.expect("in time");
    assert_eq!(reset.unwrap().unwrap_err().reason(), Some(h2::Reason::CANCEL));
    settle().await;
    assert_eq!(now(&told), DROPPED);
    assert!(feed.is_closed());
}

#[tokio::test(start_paused = true)]
async fn the_last_stream_number_is_the_last_request() {
    let mut builder = Builder::new();
    builder.initial_stream_id((1 << 31) - 3);
    let (http2, mut requests) = connected(builder).await;
    let mut under_way = Vec::new();
    for number in [(1 << 31) - 3, (1_u32 << 31) - 1] {
        assert!(!http2.meter().capacity().is_draining);
        let (feed, sent) = request();
        drop(feed);
        under_way.push(tokio::spawn(http2.send(sent)));
        let (request, respond) = requests.recv().await.unwrap();
        assert_eq!(request.body().stream_id().as_u32(), number);
        under_way.push(tokio::spawn(async move {
            settle().await;
            let mut respond = respond;
            respond.send_response(Response::new(()), true).unwrap();
            core::future::pending().await
        }));
    }
    settle().await;
    assert!(http2.meter().capacity().is_draining);
    let mut error = http2.send(request().1).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Unavailable);
    assert!(error.is_safe_to_retry() && error.take_unsent().is_some());
    for response in under_way.into_iter().step_by(2) {
        response.await.unwrap().expect("those that have a number go on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_driver_has_gone_takes_no_more() {
    let (ours, theirs) = duplex(64 << 10);
    tokio::spawn(async move {
        let mut served = server::handshake(theirs).await.unwrap();
        while served.accept().await.is_some() {}
    });
    // The shard's runtime ends before the connection does.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let connector = Http2Connector::<Fed>::new().over(Piped);
    let http2 = {
        let _inside = runtime.enter();
        connector.begin(Builder::new(), Pipe(ours), &Endpoint::host("origin", 80)).await
    };
    let mut http2 = http2.unwrap();
    assert_eq!(http2.inspect(Inspect::Glance), Condition::Usable);
    runtime.shutdown_background();
    assert_eq!(http2.inspect(Inspect::Glance), Condition::Unusable);
    assert!(http2.meter().capacity().is_draining);
    let error = http2.send(request().1).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Unavailable);
}
