//! TLS connections at rest: what comes for the session is no byte for its user, and what ends the
//! session is seen. On one thread, where the reactor knows what it was let know and no more.
#![cfg(unix)]

#[path = "support/tls.rs"]
mod peers;

use std::{
    future::poll_fn,
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    os::unix::net::UnixStream,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    thread,
};

use corepool::{
    Condition, Connection, Connector, Endpoint, Http1Connector, Inspect, Socket, TlsConnector,
    TlsIdentity, TlsStream,
};
use peers::{Authority, Peer, connector, send, shake_hands};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::{coop, yield_now},
};
use tokio_rustls::rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

const NAME: &str = "origin.test";
const LOOKS: [Inspect; 2] = [Inspect::Glance, Inspect::Peek];

struct Origin {
    config: Arc<ServerConfig>,
    tls: TlsConnector,
}

impl Origin {
    fn new(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let authority = Authority::new();
        let mut config = authority.issue(&[NAME]).server();
        change(&mut config);
        let tls = connector().authorities(authority.roots()).build().unwrap();
        Self { config: Arc::new(config), tls }
    }

    /// A connection, and its server's end: the server has said all of the handshake, its tickets
    /// too.
    async fn connection(&self) -> (TlsStream, Peer<UnixStream>) {
        self.connection_by(&self.tls).await
    }

    async fn connection_by<C: Connector>(&self, by: &C) -> (C::Connection, Peer<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let session = ServerConnection::new(Arc::clone(&self.config)).unwrap();
        let server = thread::spawn(move || {
            let mut peer = StreamOwned::new(session, theirs);
            shake_hands(&mut peer).unwrap();
            peer
        });
        let endpoint = Endpoint::unix("/run/origin").with_tls(TlsIdentity::new(NAME));
        let connection = by.connect(Socket::from(ours), &endpoint).await.unwrap();
        (connection, server.join().unwrap())
    }
}

/// Lets the reactor learn all that there is: each turn asks it.
async fn settle() {
    for _ in 0..6 {
        yield_now().await;
    }
}

/// Both sides still understand each other.
async fn converse(stream: &mut TlsStream, peer: &mut Peer<UnixStream>) {
    let mut heard = [0; 4];
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    peer.read_exact(&mut heard).unwrap();
    peer.write_all(b"pong").unwrap();
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"pong");
}

/// Whether nothing waits on the socket.
fn is_drained(stream: &TlsStream) -> bool {
    let looked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn tickets_are_kept_and_do_not_end_a_connection() {
    for how in LOOKS {
        let origin = Origin::new(|config| config.send_tls13_tickets = 4);
        let (mut stream, mut peer) = origin.connection().await;
        assert!(!is_drained(&stream), "there are tickets");
        if how == Inspect::Glance {
            settle().await;
        }
        assert_eq!(stream.inspect(how), Condition::Usable);
        assert!(is_drained(&stream));
        converse(&mut stream, &mut peer).await;
        for _ in 0..4 {
            let (_, resumed) = origin.connection().await;
            assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        }
    }
}

#[tokio::test]
async fn new_keys_are_taken_over_and_do_not_end_a_connection() {
    for how in LOOKS {
        let (mut stream, mut peer) = Origin::new(|_| {}).connection().await;
        for _ in 0..3 {
            peer.conn.refresh_traffic_keys().unwrap();
            send(&mut peer).unwrap();
            settle().await;
            assert_eq!(stream.inspect(how), Condition::Usable);
            assert!(is_drained(&stream));
            converse(&mut stream, &mut peer).await;
        }
    }
}

#[tokio::test]
async fn a_peer_that_sends_new_keys_without_end_is_given_up() {
    let (mut stream, mut peer) = Origin::new(|_| {}).connection().await;
    for _ in 0..64 {
        peer.conn.refresh_traffic_keys().unwrap();
        send(&mut peer).unwrap();
    }
    assert_eq!(stream.inspect(Inspect::Peek), Condition::Unusable);
}

#[tokio::test]
async fn a_glance_leaves_the_socket_alone_until_the_reactor_has_seen_something() {
    let (mut stream, mut peer) = Origin::new(|_| {}).connection().await;
    settle().await;
    assert_eq!(stream.inspect(Inspect::Glance), Condition::Usable);
    peer.write_all(b"unasked").unwrap();
    // The reactor has not had its turn since.
    assert_eq!(stream.inspect(Inspect::Glance), Condition::Usable);
    assert!(!is_drained(&stream));
    settle().await;
    assert_eq!(stream.inspect(Inspect::Glance), Condition::UnexpectedBytes);
}

#[tokio::test]
async fn a_peek_sees_what_the_reactor_was_not_told_yet() {
    let (mut stream, mut peer) = Origin::new(|_| {}).connection().await;
    assert_eq!(stream.inspect(Inspect::Peek), Condition::Usable);
    peer.write_all(b"unasked").unwrap();
    assert_eq!(stream.inspect(Inspect::Peek), Condition::UnexpectedBytes);
    assert_eq!(stream.inspect(Inspect::Glance), Condition::UnexpectedBytes, "it is known now");
    // A greeting is there to be read.
    let mut heard = [0; 7];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"unasked");
    assert_eq!(stream.inspect(Inspect::Peek), Condition::Usable);
}

#[tokio::test]
async fn what_a_user_has_left_unread_is_found() {
    let (mut stream, mut peer) = Origin::new(|_| {}).connection().await;
    peer.write_all(b"onetwo").unwrap();
    stream.read_exact(&mut [0; 3]).await.unwrap();
    // In the session, not in the socket.
    assert!(is_drained(&stream));
    assert_eq!(stream.inspect(Inspect::Glance), Condition::UnexpectedBytes);
}

#[tokio::test]
async fn what_a_user_has_left_unsent_is_found() {
    let (mut stream, mut peer) = Origin::new(|_| {}).connection().await;
    let more = vec![b'x'; 16_384];
    let mut written = 0;
    poll_fn(|cx| {
        while let Poll::Ready(count) = Pin::new(&mut stream).poll_write(cx, &more) {
            written += count.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!(stream.inspect(Inspect::Glance), Condition::Unusable);
    // Once there is room, the look itself sends it.
    let reader = thread::spawn(move || {
        peer.read_exact(&mut vec![0; written]).unwrap();
        peer
    });
    while stream.inspect(Inspect::Glance) == Condition::Unusable {
        yield_now().await;
    }
    let mut peer = reader.join().unwrap();
    converse(&mut stream, &mut peer).await;
}

#[tokio::test]
async fn what_ends_a_session_is_told_apart() {
    type End = fn(Peer<UnixStream>) -> Option<UnixStream>;
    let ends: [(End, Condition); 4] = [
        // A close_notify alone: the socket stays open.
        (
            |mut peer| {
                peer.conn.send_close_notify();
                send(&mut peer).unwrap();
                Some(peer.sock)
            },
            Condition::Closed,
        ),
        // A FIN alone.
        (|_| None, Condition::Closed),
        // No record.
        (
            |mut peer| {
                peer.sock.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
                Some(peer.sock)
            },
            Condition::Unusable,
        ),
        // A record of nobody's keys.
        (
            |mut peer| {
                peer.sock.write_all(&[23, 3, 3, 0, 32]).unwrap();
                peer.sock.write_all(&[0x5a; 32]).unwrap();
                Some(peer.sock)
            },
            Condition::Unusable,
        ),
    ];
    for (end, found) in ends {
        for how in LOOKS {
            let (mut stream, peer) = Origin::new(|_| {}).connection().await;
            let held = end(peer);
            if how == Inspect::Glance {
                settle().await;
            }
            assert_eq!(stream.inspect(how), found);
            assert_eq!(stream.inspect(how), found, "and stays so");
            drop(held);
        }
    }
}

#[tokio::test]
async fn a_reset_is_told_from_a_close() {
    for how in LOOKS {
        let (mut stream, peer) = Origin::new(|_| {}).connection().await;
        // Whoever closes a unix socket without having read all resets it.
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.inspect(Inspect::Peek), Condition::Usable);
        drop(peer);
        settle().await;
        assert_eq!(stream.inspect(how), Condition::Reset);
    }
}

#[tokio::test]
async fn http1_peeks_through_the_session() {
    type Act = fn(&mut Peer<UnixStream>);
    let acts: [(Act, Condition); 3] = [
        (|_| {}, Condition::Usable),
        // For one who has asked nothing it is no greeting.
        (|peer| peer.write_all(b"unasked").unwrap(), Condition::Unusable),
        (|peer| peer.conn.send_close_notify(), Condition::Closed),
    ];
    for (act, found) in acts {
        let origin = Origin::new(|config| config.send_tls13_tickets = 4);
        let by = Http1Connector::<String>::new().over(origin.tls.clone());
        let (mut http1, mut peer) = origin.connection_by(&by).await;
        act(&mut peer);
        send(&mut peer).unwrap();
        assert_eq!(http1.inspect(Inspect::Peek), found);
    }
}

#[tokio::test]
async fn a_look_is_one_also_for_a_task_that_has_used_up_its_share() {
    let (mut stream, mut peer) = Origin::new(|_| {}).connection().await;
    peer.write_all(b"unasked").unwrap();
    settle().await;
    poll_fn(|cx| {
        while coop::has_budget_remaining() {
            let _ = pin!(coop::consume_budget()).poll(cx);
        }
        Poll::Ready(())
    })
    .await;
    assert!(!coop::has_budget_remaining());
    assert_eq!(stream.inspect(Inspect::Glance), Condition::UnexpectedBytes);
}

#[tokio::test]
async fn a_socket_that_is_given_up_has_said_goodbye() {
    for given_up in [true, false] {
        let (stream, mut peer) = Origin::new(|_| {}).connection().await;
        let socket = given_up.then(|| stream.into_socket().unwrap());
        // Otherwise it is an error: nobody can tell that from a connection that was cut.
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        drop(socket);
    }
}

#[tokio::test]
async fn a_close_waits_for_nobody() {
    let (mut stream, peer) = Origin::new(|_| {}).connection().await;
    let more = vec![b'x'; 16_384];
    poll_fn(|cx| {
        while Pin::new(&mut stream).poll_write(cx, &more).is_ready() {}
        Poll::Ready(())
    })
    .await;
    // There is no room for a goodbye, and nobody reads.
    assert!(stream.into_socket().is_some());
    drop(peer);
}
