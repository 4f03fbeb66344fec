//! An origin that sends what it likes, in pieces of its choice, to a pooled HTTP/1 connection.
#![allow(unreachable_pub)] // re-exported to fuzz

use core::{
    pin::{Pin, pin},
    task::Poll,
};
use std::{
    future::poll_fn,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use hyper::{Request, Response, body::Incoming};
use tokio::{runtime::Runtime, task::LocalSet};

use super::{Condition, Connection, Connector, Http1, Http1Connector, Inspect};
use crate::{Endpoint, Socket, corpus::Bytes};

/// The other end of the connection.
struct Peer {
    socket: UnixStream,
    /// What it got so far.
    got: Vec<u8>,
    sent: u64,
}

/// The most exchanges of one run.
const EXCHANGES: usize = 4;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime");
}

/// Exchanges over one connection: the bytes say what the origin sends and when, when the caller
/// gives up, and whether the origin closes.
///
/// # Panics
/// When a connection that is said to be usable is not: a request gets a response that was not sent
/// in answer to it.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, converse(&mut bytes)));
}

async fn converse(bytes: &mut Bytes<'_>) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).expect("no waiting");
    }
    let mut peer = Some(Peer { socket: theirs, got: Vec::new(), sent: 0 });
    let endpoint = Endpoint::unix("/run/origin");
    let connector = Http1Connector::<String>::new();
    let Ok(mut http1) = connector.connect(Socket::from(ours), &endpoint).await else {
        return;
    };
    let (mut answered, mut held) = (0, None);
    for _ in 0..EXCHANGES {
        settle().await;
        // While it rests, an origin may do anything.
        while bytes.below(4) == 0 && !bytes.is_empty() {
            act(&mut peer, bytes);
            settle().await;
        }
        if http1.inspect(Inspect::Glance) != Condition::Usable {
            break;
        }
        // The reactor knows all that there is, so the socket itself has no more to say.
        assert_eq!(http1.inspect(Inspect::Peek), Condition::Usable, "usable at a glance alone");
        let Some(other) = &mut peer else {
            panic!("usable, and the peer has gone");
        };
        assert_eq!(http1.bytes_received(), other.sent, "usable, and something is unread");
        assert_eq!(answered, other.requests(), "usable, and a response is owed");
        let response = exchange(&mut http1, &mut peer, bytes).await;
        answered += usize::from(response.is_some());
        held = response.flatten();
    }
    // A body that somebody still holds keeps nothing open.
    drop(http1);
    settle().await;
    if let Some(peer) = &mut peer {
        assert!(peer.is_hung_up(), "the connection outlives its sender");
    }
    drop(held);
}

/// One request. `None` when no response's head has come; else the response, if the caller keeps it
/// although there is more to read.
async fn exchange(
    http1: &mut Http1<String>,
    peer: &mut Option<Peer>,
    bytes: &mut Bytes<'_>,
) -> Option<Option<Response<Incoming>>> {
    let method = ["GET", "GET", "HEAD", "POST", "CONNECT"][bytes.below(5)];
    let uri = if method == "CONNECT" { "origin:80" } else { "/" };
    let body = "x".repeat(bytes.below(3));
    let request = Request::builder().method(method).uri(uri).header("host", "origin").body(body);
    let response = {
        let mut sending = pin!(http1.send(request.expect("a request")));
        let mut response = poll_once(sending.as_mut()).await;
        settle().await;
        if response.is_none() {
            response = poll_once(sending.as_mut()).await;
        }
        // The origin has not seen the request yet.
        assert!(!matches!(response, Some(Ok(_))), "a response to nothing");
        while response.is_none() {
            if bytes.is_empty() || bytes.below(16) == 0 {
                // The caller gives up.
                return None;
            }
            act(peer, bytes);
            settle().await;
            response = poll_once(sending.as_mut()).await;
        }
        response
    };
    let Some(Ok(response)) = response else {
        return None;
    };
    Some(read(http1, response, peer, bytes).await)
}

/// Reads a body, to its end or until the caller has had enough; then it may keep the rest.
async fn read(
    http1: &mut Http1<String>,
    mut response: Response<Incoming>,
    peer: &mut Option<Peer>,
    bytes: &mut Bytes<'_>,
) -> Option<Response<Incoming>> {
    let mut read = 0_u64;
    loop {
        let frame = poll_fn(|cx| {
            Poll::Ready(match http1.poll_frame(response.body_mut(), cx) {
                Poll::Ready(frame) => Some(frame),
                Poll::Pending => None,
            })
        });
        match frame.await {
            Some(Some(Ok(frame))) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(_) => break,
            None if bytes.is_empty() || bytes.below(16) == 0 => {
                return (bytes.below(2) == 0).then_some(response);
            }
            None => {
                act(peer, bytes);
                settle().await;
            }
        }
    }
    assert!(peer.as_ref().is_none_or(|peer| read <= peer.sent), "a body out of nothing");
    None
}

/// What the origin does next: sends something, or closes.
fn act(peer: &mut Option<Peer>, bytes: &mut Bytes<'_>) {
    match bytes.byte() {
        255 => *peer = None,
        254 => {
            if let Some(peer) = peer {
                let _ = peer.socket.shutdown(std::net::Shutdown::Write);
            }
        }
        which => {
            let piece = match which {
                0..=199 => bytes.take(which.into()),
                200..=207 => &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..],
                208..=215 => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                216..=219 => b"5\r\nhello\r\n",
                220..=223 => b"0\r\n\r\n",
                224..=227 => b"HTTP/1.1 204 No Content\r\n\r\n",
                228..=231 => b"HTTP/1.1 100 Continue\r\n\r\n",
                232..=235 => b"HTTP/1.0 200 OK\r\n\r\n",
                236..=239 => b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
                240..=243 => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                244..=247 => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
                _ => b"connection: close\r\n",
            };
            if let Some(peer) = peer {
                peer.send(piece);
            }
        }
    }
}

impl Peer {
    fn send(&mut self, piece: &[u8]) {
        // When the connection is gone there is nobody to send to.
        self.sent += self.socket.write(piece).unwrap_or(0) as u64;
    }

    /// Reads what has come; whether nothing more can.
    fn is_hung_up(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.got.extend(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
    }

    /// Heads of requests that it got.
    fn requests(&mut self) -> usize {
        self.is_hung_up();
        self.got.windows(4).filter(|end| end == b"\r\n\r\n").count()
    }
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Lets the reactor learn all that there is: each turn asks it.
async fn settle() {
    for _ in 0..6 {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_corpus_gets_no_response_to_nothing() {
        crate::corpus::replay("http1", super::run);
    }
}
