//! A peer that sends what it likes, in frames of its choice or in none, to a pooled HTTP/2
//! connection whose callers come and go.
#![allow(unreachable_pub)] // re-exported to fuzz

use core::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};
use std::{io, sync::Arc};

use bytes::Bytes as Data;
use h2::client::Builder;
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    runtime::Runtime,
};

use super::{
    Condition, Connection, Connector, Http2, Http2Body, Http2Connector, Http2Options, Inspect,
    StreamError, Transport,
};
use crate::{BoxError, Endpoint, Socket, corpus::Bytes};

/// Nothing needs a socket here.
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

/// A request's body: so many pieces, and then its end, or nothing any more.
struct Pieces {
    left: usize,
    is_endless: bool,
}

impl Body for Pieces {
    type Data = Data;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Data>>>> {
        match self.left {
            0 if self.is_endless => Poll::Pending,
            0 => Poll::Ready(None),
            _ => {
                self.left -= 1;
                Poll::Ready(Some(Ok(Frame::data(Data::from_static(&[b'x'; 100])))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && !self.is_endless
    }
}

type Sending =
    Pin<Box<dyn Future<Output = Result<Response<Http2Body<Kept>>, StreamError<Pieces>>>>>;

/// Counted by who gave it; it travels to the upload's task, so the count is no `Rc`'s.
type Kept = Arc<()>;

/// What a caller has.
enum Caller {
    Waits(Sending),
    Reads(Http2Body<Kept>),
}

struct Peer {
    pipe: DuplexStream,
    sent: u64,
    /// What it got and has not looked at.
    got: Vec<u8>,
    /// Its requests, and whether their responses have begun.
    requests: Vec<(u8, bool)>,
}

/// The client's preface, ahead of its frames.
const PREFACE: usize = 24;

/// The most callers at once, and the most that happens.
const CALLERS: usize = 6;
const STEPS: usize = 400;
const PIPE: usize = 1 << 20;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
}

/// One connection: the bytes say what its callers and its peer do.
///
/// # Panics
/// When h2 does, when callers read more than was sent, when a stream or what its user keeps with it
/// is left over at the end, or when the transport outlives the connection.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    RUNTIME.with(|runtime| runtime.block_on(converse(&mut bytes)));
}

async fn converse(bytes: &mut Bytes<'_>) {
    let (ours, theirs) = duplex(PIPE);
    let mut peer = Peer { pipe: theirs, sent: 0, got: Vec::new(), requests: Vec::new() };
    let Some(mut http2) = connect(ours, &mut peer, bytes).await else {
        return;
    };
    let (mut callers, mut read) = (Vec::new(), 0);
    let kept = Kept::default();
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        match bytes.below(8) {
            0 if callers.len() < CALLERS => {
                callers.push(Caller::Waits(begin(&http2, &kept, bytes)))
            }
            1 if !callers.is_empty() => {
                callers.swap_remove(bytes.below(callers.len()));
            }
            0..=3 => {
                let mut still = Vec::new();
                for caller in callers.drain(..) {
                    still.extend(caller.go_on(&mut read).await);
                }
                callers = still;
            }
            _ => peer.act(bytes).await,
        }
        settle().await;
        assert!(read <= peer.sent, "a body out of nothing");
        let is_draining = http2.shared.meter.capacity().is_draining;
        assert_eq!(http2.inspect(Inspect::Glance) != Condition::Usable, is_draining);
    }
    callers.clear();
    let shared = Arc::clone(&http2.shared);
    drop(http2);
    // Uploads that go on for a response that was complete, and the driver.
    settle().await;
    assert!(peer.hear().await, "the transport outlives its connection");
    assert_eq!(shared.open(), 0, "a stream is left");
    assert_eq!(Kept::strong_count(&kept), 1, "its keeper is left");
    assert!(shared.meter.capacity().is_draining);
}

/// The connection, if the peer behaves well enough for one.
async fn connect(
    ours: DuplexStream,
    peer: &mut Peer,
    bytes: &mut Bytes<'_>,
) -> Option<Http2<Pieces>> {
    let connector = Http2Connector::new().options(Http2Options::default()).over(Piped);
    let origin = Endpoint::host("origin", 80);
    let builder: Builder = connector.options.builder();
    let mut connecting = Box::pin(connector.begin(builder, Pipe(ours), &origin));
    if bytes.below(8) != 0 {
        let streams = [1, 2, 3, 100][bytes.below(4)];
        peer.send(&[frame(4, 0, 0, &[0, 3, 0, 0, 0, streams]), frame(4, 1, 0, &[])].concat()).await;
    }
    for _ in 0..4 {
        match poll_once(&mut connecting).await {
            Some(outcome) => {
                peer.hear().await;
                return outcome.ok();
            }
            None if bytes.is_empty() => return None,
            None => peer.act(bytes).await,
        }
    }
    None
}

fn begin(http2: &Http2<Pieces>, kept: &Kept, bytes: &mut Bytes<'_>) -> Sending {
    let method = ["GET", "GET", "HEAD", "POST", "CONNECT"][bytes.below(5)];
    let uri = if method == "CONNECT" { "origin:80" } else { "http://origin/" };
    let body = Pieces { left: [0, 0, 1, 20][bytes.below(4)], is_endless: bytes.below(4) == 0 };
    let request = Request::builder().method(method).uri(uri).body(body).expect("a request");
    Box::pin(http2.outbound(request).keeping(Kept::clone(kept)))
}

impl Caller {
    /// As far as it goes without waiting; `None` when it is done.
    async fn go_on(mut self, read: &mut u64) -> Option<Self> {
        loop {
            self = match self {
                Self::Waits(mut sending) => match poll_once(&mut sending).await {
                    None => return Some(Self::Waits(sending)),
                    Some(Ok(response)) => Self::Reads(response.into_body()),
                    Some(Err(_)) => return None,
                },
                Self::Reads(mut body) => match poll_frame(&mut body).await {
                    None => return Some(Self::Reads(body)),
                    Some(Some(Ok(frame))) => {
                        *read += frame.data_ref().map_or(0, |data| data.len() as u64);
                        Self::Reads(body)
                    }
                    Some(_) => {
                        assert!(body.is_end_stream());
                        return None;
                    }
                },
            };
        }
    }
}

impl Peer {
    async fn send(&mut self, piece: &[u8]) {
        self.sent += piece.len() as u64;
        // When the connection is gone, or reads no more, there is nobody to send to.
        let mut left = piece;
        while !left.is_empty() {
            let pipe = &mut self.pipe;
            let written = poll_fn(|cx| {
                Poll::Ready(match Pin::new(&mut *pipe).poll_write(cx, left) {
                    Poll::Ready(Ok(count)) => count,
                    _ => 0,
                })
            });
            match written.await {
                0 => return,
                count => left = &left[count..],
            }
        }
    }

    /// Reads what has come; whether nothing more can.
    async fn hear(&mut self) -> bool {
        let (pipe, got, mut buffer) = (&mut self.pipe, &mut self.got, [0; 4096]);
        let is_hung_up = poll_fn(|cx| {
            loop {
                let mut buf = ReadBuf::new(&mut buffer);
                match Pin::new(&mut *pipe).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                        got.extend_from_slice(buf.filled());
                    }
                    Poll::Ready(_) => return Poll::Ready(true),
                    Poll::Pending => return Poll::Ready(false),
                }
            }
        });
        let is_hung_up = is_hung_up.await;
        if self.got.starts_with(b"PRI ") {
            self.got.drain(..PREFACE.min(self.got.len()));
        }
        while let [_, a, b, kind, _, _, _, _, stream, ..] = self.got[..] {
            let length = 9 + usize::from(u16::from_be_bytes([a, b]));
            if self.got.len() < length {
                break;
            }
            self.got.drain(..length);
            match kind {
                1 => self.requests.push((stream, false)),
                3 => self.requests.retain(|(open, _)| *open != stream),
                _ => {}
            }
        }
        is_hung_up
    }

    /// What it does next: something that makes sense, mostly.
    async fn act(&mut self, bytes: &mut Bytes<'_>) {
        self.hear().await;
        let chosen = bytes.below(self.requests.len().max(1));
        let end = u8::from(bytes.below(3) == 0);
        let (stream, is_begun) = self.requests.get(chosen).copied().unwrap_or_default();
        let piece = match bytes.below(64) {
            0..40 if stream != 0 => {
                if end == 0 {
                    self.requests[chosen].1 = true;
                } else {
                    self.requests.remove(chosen);
                }
                if is_begun {
                    let count = bytes.below(64);
                    frame(0, end, stream, bytes.take(count))
                } else {
                    frame(1, 4 | end, stream, &[0x88])
                }
            }
            40..44 if stream != 0 => frame(3, 0, stream, &[0, 0, 0, bytes.below(14) as u8]),
            44..48 => frame(8, 0, stream, &[0, 0, bytes.byte(), bytes.byte() | 1]),
            48..52 => {
                let name = 3 + bytes.below(2) as u8;
                frame(4, 0, 0, &[0, name, 0, 0, 0, bytes.below(8) as u8])
            }
            52..56 => frame(6, 0, 0, b"8 bytes."),
            56 => frame(6, 1, 0, b"8 bytes."),
            57 => frame(7, 0, 0, &[[0, 0, 0, stream], [0, 0, 0, bytes.below(14) as u8]].concat()),
            58 => frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
            59 => {
                let (kind, flags, count) = (bytes.below(11) as u8, bytes.byte(), bytes.below(40));
                frame(kind, flags, stream, bytes.take(count))
            }
            60 => {
                let count = bytes.below(40);
                bytes.take(count).to_vec()
            }
            _ => return,
        };
        self.send(&piece).await;
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut *future).poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

async fn poll_frame(body: &mut Http2Body<Kept>) -> Option<Option<Result<Frame<Data>, h2::Error>>> {
    poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        })
    })
    .await
}

/// Lets the tasks do what there is to do.
async fn settle() {
    for _ in 0..6 {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_corpus_breaks_no_connection_but_its_own() {
        crate::corpus::replay("http2", super::run);
    }

    /// Beside the corpus, which a fuzzer found: what comes by chance, the same in every run.
    #[test]
    fn frames_at_random_leave_nothing_behind() {
        let mut random = fastrand::Rng::with_seed(7540);
        for _ in 0..500 {
            let data: Vec<u8> = (0..random.usize(50..1500)).map(|_| random.u8(..)).collect();
            super::run(&data);
        }
    }
}
