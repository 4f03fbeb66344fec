//! What moves a connection's frames: one task on the shard that dialled it.

use core::{
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::sync::Arc;

use bytes::Bytes;
use h2::{
    Reason,
    client::{Connection as Moving, SendRequest},
};

use super::{
    Condition, Transport,
    pings::{Pings, Silent},
    shared::{Fault, Shared, ending},
    wire::Wire,
};
use crate::BoxError;

/// Polls h2's connection, and writes what becomes of it where the pool reads it.
pub(super) struct Driver<T>
where
    T: Transport,
{
    moving: Moving<Wire<T>, Bytes>,
    /// Has no request under way: asked whether it may send one, it says whether the connection
    /// takes any.
    witness: SendRequest<Bytes>,
    pings: Pings,
    shared: Arc<Shared>,
    /// The peer's SETTINGS have come.
    is_settled: bool,
}

/// How many streams h2 believes in until SETTINGS come: a number that they cannot say, as theirs
/// have 32 bits, and none is how `usize::MAX` reads.
pub(super) const UNSETTLED: usize = usize::MAX - 1;

impl<T: Transport> Driver<T> {
    pub(super) fn new(
        moving: Moving<Wire<T>, Bytes>,
        witness: SendRequest<Bytes>,
        pings: Pings,
        shared: Arc<Shared>,
    ) -> Self {
        Self { moving, witness, pings, shared, is_settled: false }
    }

    /// Until the peer's first SETTINGS are in force.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let ended = Pin::new(&mut self.moving).poll(cx);
        self.publish();
        match ended {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) => Poll::Ready(Err("the peer closed it before its use".into())),
            Poll::Pending if !self.is_settled => Poll::Pending,
            Poll::Pending => Poll::Ready(self.poll_witness().map_err(Into::into)),
        }
    }

    /// Whether it takes new streams.
    fn poll_witness(&mut self) -> Result<(), h2::Error> {
        // It has nothing to wait for.
        match self.witness.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => Ok(()),
        }
    }

    /// Tells the meter what the peer has said.
    fn publish(&mut self) {
        let max = self.moving.max_concurrent_send_streams();
        self.is_settled |= max != UNSETTLED;
        if self.is_settled {
            self.shared.meter.set_max_streams(u32::try_from(max).unwrap_or(u32::MAX));
        }
        if self.shared.ended().is_none()
            && let Err(error) = self.poll_witness()
        {
            self.drain(&error);
        }
    }

    /// It takes no new streams any more, and those that are open go on.
    #[cold]
    fn drain(&self, error: &h2::Error) {
        let endpoint = &self.shared.endpoint;
        tracing::debug!(%endpoint, %error, "an HTTP/2 connection takes no more streams");
        self.shared.end(ending(error).unwrap_or(Condition::Unusable));
        let is_chided = error.is_go_away()
            && error.is_remote()
            && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
            // h2 shows what came with a GOAWAY in its text alone.
            && error.to_string().contains("too_many_pings");
        if let (true, Some(pace)) = (is_chided, self.pings.pace()) {
            let interval = pace.slow_down();
            tracing::warn!(%endpoint, ?interval, "the peer wants fewer PINGs");
        }
    }
}

/// Ready when h2 is done with the connection. The socket is not closed with that: it waits in its
/// link for the pool.
impl<T: Transport> Future for Driver<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.hear(cx);
        loop {
            let ended = Pin::new(&mut this.moving).poll(cx);
            this.publish();
            if let Poll::Ready(outcome) = ended {
                let found = match outcome {
                    Ok(()) => Condition::Closed,
                    Err(error) => {
                        // The callers whose streams it broke have the error too.
                        let endpoint = &this.shared.endpoint;
                        tracing::debug!(%endpoint, %error, "an HTTP/2 connection ended");
                        ending(&error).unwrap_or(Condition::Unusable)
                    }
                };
                this.shared.end(found);
                return Poll::Ready(());
            }
            match this.pings.poll(cx, &this.shared) {
                // h2 meets it at its next read, and tells the streams.
                Poll::Ready(Silent) => this.shared.cut(Fault::Silent),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T: Transport> Drop for Driver<T> {
    fn drop(&mut self) {
        // A panic's too, or the end of the shard's runtime.
        self.shared.end(Condition::Unusable);
    }
}
