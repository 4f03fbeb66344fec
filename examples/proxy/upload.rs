//! The request's body on its way to the origin.

use core::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// A request body: nothing, or what the client sends, frame by frame as the origin takes it.
#[derive(Debug)]
pub(crate) enum Upload {
    Empty,
    Streaming { body: Incoming, progress: Arc<Progress> },
}

/// When the last part of a body went on, so that a long upload is not taken for a silent origin.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    last_ms: AtomicU64,
}

impl Upload {
    /// The body that hyper's server gave us, and its progress unless it is empty.
    pub(crate) fn new(body: Incoming) -> (Self, Option<Arc<Progress>>) {
        if body.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Arc::new(Progress { start: Instant::now(), last_ms: AtomicU64::new(0) });
        (Self::Streaming { body, progress: Arc::clone(&progress) }, Some(progress))
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Progress {
    /// When something went on last.
    pub(crate) fn last(&self) -> Instant {
        // Relaxed: only a time, nothing is read by it.
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    fn went_on(&self) {
        let elapsed_ms = self.start.elapsed().as_millis();
        // Relaxed: see `last`.
        self.last_ms.store(u64::try_from(elapsed_ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming { body, progress } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                progress.went_on();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { body, .. } => body.size_hint(),
        }
    }
}
