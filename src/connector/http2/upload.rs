//! A request's body on its way out.

use core::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use http_body::Body;
use tokio::{sync::oneshot, time::timeout};

use super::{body::Rest, head::strip};
use crate::BoxError;

/// How long the rest of a request may take after its response is complete.
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// Polled by whoever waits for the head of the response, and after that by a task of the shard's:
/// who reads the response may stop for as long as he likes.
pub(super) struct Upload<B: Body> {
    body: Pin<Box<B>>,
    stream: SendStream<Bytes>,
    /// What came of the body and the peer has no window for yet.
    data: Option<B::Data>,
}

impl<B> Upload<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self { body: Box::pin(body), stream, data: None }
    }

    /// Hands the body to h2, no more of it than the peer takes. Ready when all of it is there, or
    /// the peer wants no more; why it does not, the response says.
    ///
    /// # Errors
    /// The body's own. The stream is reset.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            if let Some(data) = &mut self.data {
                let Some(window) = ready!(poll_window(&mut self.stream, data.remaining(), cx))
                else {
                    return Poll::Ready(Ok(()));
                };
                // Shared, not copied, where the body's data are `Bytes`.
                let piece = data.copy_to_bytes(window.min(data.remaining()));
                if !data.has_remaining() {
                    self.data = None;
                }
                let is_last = self.data.is_none() && self.body.is_end_stream();
                if self.stream.send_data(piece, is_last).is_err() || is_last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.data = data.has_remaining().then_some(data),
                    Err(frame) => {
                        let Ok(mut trailers) = frame.into_trailers() else {
                            continue;
                        };
                        strip(&mut trailers);
                        let _ = self.stream.send_trailers(trailers);
                        return Poll::Ready(Ok(()));
                    }
                },
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(error.into()));
                }
                None => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Goes on without who began it, until the body is through, or `rest` says that there is no
    /// reader any more.
    pub(super) async fn go_on<K>(mut self, mut rest: oneshot::Receiver<Rest<K>>) {
        let either = core::future::poll_fn(|cx| {
            if self.poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut rest).poll(cx).map(Some)
        });
        // What keeps the stream's place goes last.
        let _place = match either.await {
            // The reader has it, and finds out that nobody else wants it.
            None => return,
            Some(Ok(Rest::Complete(place))) => {
                let through = core::future::poll_fn(|cx| self.poll(cx));
                if timeout(REST_TIMEOUT, through).await.is_err() {
                    self.stream.send_reset(Reason::CANCEL);
                }
                Some(place)
            }
            Some(Ok(Rest::Unwanted(place))) => Some(place),
            Some(Err(_)) => None,
        };
        drop(self);
    }
}

/// How much the peer takes of what is there; `None` when it takes nothing any more.
fn poll_window(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Option<usize>> {
    // h2 counts in 32 bits.
    stream.reserve_capacity(wanted.min(u32::MAX as usize));
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                // It is told once, and may be gone by now.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(None),
            },
            window => return Poll::Ready(Some(window)),
        }
    }
}
