//! One simulated connection: its two ends, and what the watch of a driver sees of it.

use core::{
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::{net::SocketAddr, sync::Arc};

use tokio::io::{AsyncWrite, DuplexStream};

use crate::{
    Connection, Socket,
    backend::{Departure, socket::Kind},
    sync::{AtomicBool, AtomicU8, AtomicWaker, Ordering, register},
};

/// Bytes under way in each direction.
const BUFFER: usize = 64 * 1024;

/// Both ends of a new connection.
pub(super) fn pair(id: u64, dialed: SocketAddr) -> (SimSocket, Peer) {
    let (near, far) = tokio::io::duplex(BUFFER);
    let line = Arc::new(Line {
        id,
        dialed,
        gone: AtomicU8::new(PRESENT),
        reported: AtomicBool::new(false),
        dropped: AtomicBool::new(false),
        driver: AtomicWaker::new(),
    });
    let near = SimSocket { stream: near, line: Arc::clone(&line) };
    (near, Peer { stream: far, dialed, line })
}

/// The far end of one connection.
#[derive(Debug)]
pub struct Peer {
    /// What the pool's end reads and writes.
    pub stream: DuplexStream,
    /// Which address was dialled.
    pub dialed: SocketAddr,
    line: Arc<Line>,
}

impl Peer {
    /// Which connection of the script this is, from zero.
    pub fn id(&self) -> u64 {
        self.line.id
    }

    /// Closes the far end, as by a FIN.
    pub fn hang_up(self) {
        drop(self.stream);
        self.line.go(FINISHED);
    }

    /// Breaks the connection, as by an RST.
    pub fn reset(self) {
        drop(self.stream);
        self.line.go(RESET);
    }

    /// Sends a FIN and goes on reading: the pool's end may still write.
    pub fn half_close(&mut self) {
        // A pipe in memory shuts down at once.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
        self.line.go(FINISHED);
    }

    /// Whether the pool's end is closed.
    pub fn is_closed(&self) -> bool {
        self.line.is_dropped()
    }
}

/// What both ends and the watch of a simulated connection share.
#[derive(Debug)]
pub(crate) struct Line {
    id: u64,
    dialed: SocketAddr,
    /// Whether the far end went, and how.
    gone: AtomicU8,
    /// The shard has heard of it.
    reported: AtomicBool,
    /// The near end is closed.
    dropped: AtomicBool,
    driver: AtomicWaker,
}

const PRESENT: u8 = 0;
const FINISHED: u8 = 1;
const RESET: u8 = 2;

impl Line {
    fn go(&self, how: u8) {
        // Release: pairs with the Acquire in `poll_gone`.
        self.gone.store(how, Ordering::Release);
        self.driver.wake();
    }

    pub(crate) fn poll_gone(&self, cx: &Context<'_>) -> Poll<Departure> {
        register(&self.driver, cx.waker());
        self.departure().map_or(Poll::Pending, Poll::Ready)
    }

    /// How the far end went, if it did.
    pub(crate) fn departure(&self) -> Option<Departure> {
        // Acquire: pairs with the Release in `go`.
        match self.gone.load(Ordering::Acquire) {
            PRESENT => None,
            RESET => Some(Departure::Reset),
            _ => Some(Departure::Finished),
        }
    }

    /// The shard has heard that the far end went, or that nobody watches it any more.
    pub(crate) fn note_reported(&self) {
        // Relaxed: read by tests that run on one thread.
        self.reported.store(true, Ordering::Relaxed);
    }

    fn is_dropped(&self) -> bool {
        // Relaxed: as in `note_reported`.
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The pool's end of a simulated connection, as dialled.
#[derive(Debug)]
pub(crate) struct SimSocket {
    stream: DuplexStream,
    line: Arc<Line>,
}

impl SimSocket {
    pub(crate) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.line.dialed
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        // Relaxed: read by tests that run on one thread.
        self.line.dropped.store(true, Ordering::Relaxed);
    }
}

/// A pooled simulated connection.
#[derive(Debug)]
pub struct SimConnection(SimSocket);

impl SimConnection {
    pub(super) fn new(socket: SimSocket) -> Self {
        Self(socket)
    }

    /// Which connection of the script this is, from zero.
    pub fn id(&self) -> u64 {
        self.0.line.id
    }

    /// Which address was dialled.
    pub fn dialed(&self) -> SocketAddr {
        self.0.line.dialed
    }

    /// Whether the far end went, known to the pool or not.
    pub fn is_gone(&self) -> bool {
        // Relaxed: read by tests that run on one thread.
        self.0.line.gone.load(Ordering::Relaxed) != PRESENT
    }

    /// Whether the shard has heard that the far end went, or that nobody watches it any more.
    pub fn is_reported_gone(&self) -> bool {
        // Relaxed: as above.
        self.0.line.reported.load(Ordering::Relaxed)
    }
}

impl Connection for SimConnection {
    fn into_socket(self) -> Option<Socket> {
        Some(Socket(Kind::Sim(self.0)))
    }
}

impl Deref for SimConnection {
    type Target = DuplexStream;

    fn deref(&self) -> &DuplexStream {
        &self.0.stream
    }
}

impl DerefMut for SimConnection {
    fn deref_mut(&mut self) -> &mut DuplexStream {
        &mut self.0.stream
    }
}
