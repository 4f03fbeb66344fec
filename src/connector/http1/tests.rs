//! What cannot be seen through a pool: looks that the reactor has no part in, and a transport that
//! holds back what it was given.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
    time::{sleep, timeout},
};

use super::*;
use crate::sync::{AtomicBool, AtomicWaker, Ordering};

/// Nothing here lets the reactor have its turn.
#[tokio::test]
async fn a_peek_sees_what_the_reactor_was_not_told_yet() {
    for (peer_goes, found) in [(false, Condition::Unusable), (true, Condition::Closed)] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let endpoint = Endpoint::unix("/run/origin");
        let connector = Http1Connector::<String>::new();
        let mut http1 = connector.connect(Socket::from(ours), &endpoint).await.unwrap();
        assert_eq!(http1.inspect(Inspect::Peek), Condition::Usable);
        if peer_goes {
            drop(theirs);
        } else {
            theirs.write_all(b"unasked").unwrap();
        }
        assert_eq!(http1.inspect(Inspect::Glance), Condition::Usable);
        assert_eq!(http1.inspect(Inspect::Peek), found);
        assert_eq!(http1.inspect(Inspect::Glance), found, "it has ended");
    }
}

/// Lets nothing through until it is opened.
#[derive(Default)]
struct Gate {
    is_open: AtomicBool,
    waiting: AtomicWaker,
}

/// Makes connections that take whatever is written, as TLS does within limits.
struct Holding(Arc<Gate>);

struct Held {
    stream: Stream,
    back: Vec<u8>,
    gate: Arc<Gate>,
}

impl Connector for Holding {
    type Connection = Held;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Held, BoxError> {
        let gate = Arc::clone(&self.0);
        Ok(Held { stream: socket.into_stream()?, back: Vec::new(), gate })
    }
}

impl Connection for Held {}

impl Transport for Held {}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.back.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate.waiting.register(cx.waker());
        if !self.gate.is_open.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let this = &mut *self;
        while !this.back.is_empty() {
            let written = Pin::new(&mut this.stream).poll_write(cx, &this.back);
            let count = core::task::ready!(written)?;
            this.back.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_a_transport_holds_back_is_sent_while_nobody_reads_the_response() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).unwrap();
    }
    let gate = Arc::<Gate>::default();
    let connector = Http1Connector::<String>::new().over(Holding(Arc::clone(&gate)));
    let endpoint = Endpoint::unix("/run/origin");
    let mut http1 = connector.connect(Socket::from(ours), &endpoint).await.unwrap();
    let request = hyper::Request::post("/").header("host", "origin").body("x".to_owned()).unwrap();
    let early = async {
        yield_now().await;
        theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").unwrap();
    };
    let (response, ()) = tokio::join!(http1.send(request), early);
    assert!(response.is_ok());
    let mut heard = [0; 1024];
    assert!(theirs.read(&mut heard).is_err(), "none of it has gone out");
    gate.is_open.store(true, Ordering::SeqCst);
    gate.waiting.wake();
    for _ in 0..6 {
        yield_now().await;
    }
    let count = theirs.read(&mut heard).unwrap();
    assert!(heard[..count].ends_with(b"\r\n\r\nx"));
}

#[tokio::test]
async fn a_request_that_meets_its_peers_close_comes_back() {
    for uses in 0..3 {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let connector = Http1Connector::<String>::new();
        let endpoint = Endpoint::unix("/run/origin");
        let mut http1 = connector.connect(Socket::from(ours), &endpoint).await.unwrap();
        let request = || {
            let request = hyper::Request::get("/").header("host", "origin");
            request.body("x".to_owned()).unwrap()
        };
        for _ in 0..uses {
            theirs.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert!(http1.send(request()).await.is_ok());
            // With nothing left unread it is a FIN, and no reset.
            assert!(theirs.read(&mut [0; 1024]).unwrap() > 0);
        }
        drop(theirs);
        // The reactor has seen it by then, and nobody has looked at the connection since.
        sleep(Duration::from_millis(20)).await;
        let sent = timeout(Duration::from_secs(5), http1.send(request())).await;
        let Err(unanswered) = sent.expect("it ends") else { panic!("nobody is there to answer") };
        assert_eq!(unanswered.unsent.unwrap().into_body(), "x");
        assert_eq!(http1.inspect(Inspect::Glance), Condition::Closed);
        assert!(http1.into_socket().is_some(), "the pool's to close");
    }
}
