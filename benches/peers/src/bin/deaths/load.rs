//! The checkouts that go on while the origin closes.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::yield_now, time::sleep};

use crate::{
    away,
    book::{Book, is_dead},
    clock::now,
};

/// How hard the callers work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each caller pauses for a millisecond after each checkout: the threads sleep in between.
    Paced,
    /// No caller pauses: the threads never sleep, and the driver is polled between their turns.
    Saturated,
}

impl Pace {
    pub fn name(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::Saturated => "saturated",
        }
    }
}

/// Callers on each of the two threads.
pub const CALLERS: usize = 16;

/// A pool of idle connections to one origin, as its callers see it.
pub trait Idle: Send + Sync + 'static {
    type Conn: Send;

    /// An idle connection. Never dials.
    fn check_out(&self) -> impl Future<Output = Option<Self::Conn>> + Send;

    fn release(&self, conn: Self::Conn);

    fn discard(&self, conn: Self::Conn);

    /// The socket of a connection, and its local port.
    fn socket(conn: &Self::Conn) -> (BorrowedFd<'_>, u16);

    /// Whether another thread than this one watches over a connection.
    fn is_stolen(conn: &Self::Conn) -> bool {
        let _ = conn;
        false
    }
}

/// What the callers share.
#[derive(Clone, Debug)]
pub struct Callers {
    pub book: Arc<Book>,
    pub stop: Arc<AtomicBool>,
}

/// One caller, until it is stopped.
pub async fn call<I: Idle>(idle: Arc<I>, callers: Callers, pace: Pace) {
    let Callers { book, stop } = &callers;
    // Relaxed: it guards nothing.
    while !stop.load(Ordering::Relaxed) {
        let called = now();
        away::note(called);
        let found = idle.check_out().await;
        let empty = found.is_none();
        if let Some(conn) = found {
            book.check_out();
            let (fd, port) = I::socket(&conn);
            if is_dead(fd) {
                book.hand_out_dead(port, called, I::is_stolen(&conn));
                idle.discard(conn);
            } else {
                idle.release(conn);
            }
        }
        if pace == Pace::Paced || empty {
            sleep(Duration::from_millis(1)).await;
        } else {
            yield_now().await;
        }
    }
}
