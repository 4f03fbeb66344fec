//! What a connection's driver, its streams and its owner know of each other.

use core::{
    future::poll_fn,
    task::{Context, Poll},
};
use std::{io, sync::Arc};

use tokio::runtime::Handle;

use crate::{
    BoxError, Condition, Endpoint, StreamMeter,
    sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicWaker, Ordering, register},
};

/// One connection's. Whoever holds a stream of it holds this too.
pub(super) struct Shared {
    pub(super) meter: StreamMeter,
    pub(super) endpoint: Endpoint,
    /// Of the shard that dialled it.
    pub(super) runtime: Handle,
    /// Streams that are open, in the lower half; how many were begun, in the upper.
    streams: AtomicU64,
    received: AtomicU64,
    /// Whether it matters how many interim responses are taken, and how many were since it does.
    counts_interim: AtomicBool,
    interim_taken: AtomicU32,
    /// How it ended, as `END_OF` numbers it, or zero.
    ended: AtomicU8,
    /// Why nothing passes any more, or zero.
    fault: AtomicU8,
    driver: AtomicWaker,
    /// Somebody wants the peer to be asked.
    ping_asked: AtomicBool,
    /// How many such questions were answered.
    pongs: AtomicU32,
    asker: AtomicWaker,
}

/// Why a connection is cut off from its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    /// The pool has dropped it.
    Closed = 1,
    /// Its peer left a PING unanswered.
    Silent = 2,
}

const ONE_BEGUN: u64 = 1 << 32;
const OPEN: u64 = ONE_BEGUN - 1;

const END_OF: [(u8, Condition); 3] =
    [(1, Condition::Closed), (2, Condition::Reset), (3, Condition::Unusable)];

impl Shared {
    pub(super) fn new(endpoint: Endpoint) -> Arc<Self> {
        Arc::new(Self {
            meter: StreamMeter::new(0),
            endpoint,
            runtime: Handle::current(),
            streams: AtomicU64::new(0),
            received: AtomicU64::new(0),
            counts_interim: AtomicBool::new(false),
            interim_taken: AtomicU32::new(0),
            ended: AtomicU8::new(0),
            fault: AtomicU8::new(0),
            driver: AtomicWaker::new(),
            ping_asked: AtomicBool::new(false),
            pongs: AtomicU32::new(0),
            asker: AtomicWaker::new(),
        })
    }

    /// Streams that are open.
    pub(super) fn open(&self) -> u32 {
        // Relaxed: a count at some moment, here and below. Nothing else is read by it.
        (self.streams.load(Ordering::Relaxed) & OPEN) as u32
    }

    /// Streams that are open, and how many were ever begun, which comes round.
    pub(super) fn counts(&self) -> (u32, u32) {
        // Relaxed: as in `open`. Whoever hears of a stream's answer has been told of its beginning.
        let streams = self.streams.load(Ordering::Relaxed);
        ((streams & OPEN) as u32, (streams / ONE_BEGUN) as u32)
    }

    /// From here on it matters how many interim responses are taken.
    pub(super) fn count_interim(&self) {
        // Relaxed, here and below: counts at some moment.
        self.counts_interim.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub(super) fn counts_interim(&self) -> bool {
        self.counts_interim.load(Ordering::Relaxed)
    }

    /// A stream's user has taken one.
    pub(super) fn take_interim(&self) {
        self.interim_taken.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were taken, which comes round.
    pub(super) fn interim_taken(&self) -> u32 {
        self.interim_taken.load(Ordering::Relaxed)
    }

    /// Whether a stream was ever begun.
    pub(super) fn was_used(&self) -> bool {
        // Relaxed: as in `open`.
        self.streams.load(Ordering::Relaxed) >= ONE_BEGUN
    }

    /// Takes a place for a stream among those that the peer allows, and says whether it is not the
    /// first one of the connection.
    pub(super) fn enter(self: &Arc<Self>) -> Result<(Place, bool), Refused> {
        let capacity = self.meter.capacity();
        if capacity.is_draining {
            return Err(Refused::Draining);
        }
        let max = capacity.max_streams;
        let admit = |streams: u64| {
            (streams & OPEN < u64::from(max)).then(|| streams.wrapping_add(ONE_BEGUN + 1))
        };
        match self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit) {
            Ok(before) => Ok((Place(Arc::clone(self)), before >= ONE_BEGUN)),
            Err(_) => Err(Refused::Full { max }),
        }
    }

    /// Bytes that came from the peer.
    pub(super) fn received(&self) -> u64 {
        // Relaxed: whoever compares two readings wants to know of bytes that it was told of, through
        // h2's own lock.
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn note_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<Condition> {
        // Relaxed: a glance.
        let ended = self.ended.load(Ordering::Relaxed);
        END_OF.iter().find(|(number, _)| *number == ended).map(|(_, condition)| *condition)
    }

    /// It takes no new stream, for good. What is said first stands.
    pub(super) fn end(&self, how: Condition) {
        let number = END_OF.iter().find(|(_, condition)| *condition == how);
        let number = number.map_or(3, |(number, _)| *number);
        // Relaxed: as in `ended`.
        let _ = self.ended.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        self.meter.drain();
        self.asker.wake();
    }

    /// A stream has met an error. Its user hears of it before the driver is done with it, and the
    /// pool must not hand the connection out in between.
    #[cold]
    pub(super) fn met(&self, error: &h2::Error) {
        if let Some(how) = ending(error) {
            self.end(how);
        }
    }

    /// Cuts it off from its socket, and has its driver tell its streams.
    pub(super) fn cut(&self, fault: Fault) {
        // Release: with the Acquire in `fault`. What is said first stands, but for the pool's word.
        if fault == Fault::Closed {
            self.fault.store(fault as u8, Ordering::Release);
        } else {
            let _ =
                self.fault.compare_exchange(0, fault as u8, Ordering::Release, Ordering::Relaxed);
        }
        self.driver.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        // Acquire: with the Release in `cut`.
        self.fault.load(Ordering::Acquire) == Fault::Closed as u8
    }

    /// The error of whatever wants to pass, if nothing does.
    pub(super) fn fault(&self) -> Option<io::Error> {
        // Acquire: with the Release in `cut`.
        match self.fault.load(Ordering::Acquire) {
            0 => None,
            fault if fault == Fault::Silent as u8 => Some(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer left a keep-alive PING unanswered",
            )),
            _ => Some(io::Error::new(
                io::ErrorKind::NotConnected,
                "the connection was closed by its pool",
            )),
        }
    }

    /// The driver hears from now on that it is to look.
    pub(super) fn hear(&self, cx: &Context<'_>) {
        register(&self.driver, cx.waker());
    }

    /// Has the driver ask the peer, and waits for the answer.
    pub(super) async fn ping(&self) -> Result<(), BoxError> {
        // Acquire: with the Release in `answered`.
        let before = self.pongs.load(Ordering::Acquire);
        // Release: with the Acquire in `is_ping_asked`.
        self.ping_asked.store(true, Ordering::Release);
        self.driver.wake();
        poll_fn(|cx| {
            register(&self.asker, cx.waker());
            if self.pongs.load(Ordering::Acquire) != before {
                return Poll::Ready(Ok(()));
            }
            match self.ended() {
                Some(ended) => Poll::Ready(Err(format!("{ended:?}").into())),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Whether the peer is to be asked; not any more, then.
    pub(super) fn is_ping_asked(&self) -> bool {
        // Acquire: with the Release in `ping`.
        self.ping_asked.swap(false, Ordering::Acquire)
    }

    /// The peer has answered what `is_ping_asked` asked for.
    pub(super) fn answered(&self) {
        // Release: with the Acquire in `ping`.
        self.pongs.fetch_add(1, Ordering::Release);
        self.asker.wake();
    }
}

/// What an error says of the connection that it was met on; `None` if it is one stream's or one
/// caller's own.
pub(super) fn ending(error: &h2::Error) -> Option<Condition> {
    match error.get_io().map(io::Error::kind) {
        _ if error.is_reset() => None,
        Some(io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => Some(Condition::Closed),
        // Of TLS, or of our own reading.
        Some(io::ErrorKind::InvalidData) => Some(Condition::Unusable),
        Some(_) => Some(Condition::Reset),
        None if error.is_remote() => Some(Condition::Closed),
        None => error.is_library().then_some(Condition::Unusable),
    }
}

/// Why a stream has no place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// The connection takes no new one.
    Draining,
    /// As many are open as may.
    Full {
        /// How many may.
        max: u32,
    },
}

/// A stream's place among those that are open.
pub(super) struct Place(pub(super) Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        // Relaxed: as in `open`.
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
