//! A response's body.

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::shared::Place;

/// A response's body, and with it the stream that it comes from; see
/// [`Http2::send`](crate::Http2::send).
///
/// The peer sends ahead of who reads this by a window and no more. Dropped before its end, it resets
/// the stream (`CANCEL`). What keeps the stream for its user, `K`, is dropped once the stream is
/// over, the rest of the request included.
pub struct Http2Body<K = ()> {
    /// `None` once all has been read.
    stream: Option<RecvStream>,
    /// Bytes that are to come, if the response says so.
    left: Option<u64>,
    /// Of the task that sends the rest of the request.
    upload: Option<oneshot::Sender<Rest<K>>>,
    /// After the stream: what was let go of is open no more.
    kept: Option<Kept<K>>,
}

/// What a stream has for as long as it is open, the user's part last: who hears that it was dropped
/// finds the stream counted out.
pub(super) struct Kept<K> {
    place: Place,
    _keeper: K,
}

impl<K> Kept<K> {
    pub(super) fn new(place: Place, keeper: K) -> Self {
        Self { place, _keeper: keeper }
    }
}

/// What a response's reader leaves to the request's upload.
pub(super) enum Rest<K> {
    /// The response was read to its end.
    Complete(Kept<K>),
    /// Nobody wants the rest of it.
    Unwanted(Kept<K>),
}

impl<K> Http2Body<K> {
    pub(super) fn new(
        stream: RecvStream,
        headers: &HeaderMap,
        upload: Option<oneshot::Sender<Rest<K>>>,
        kept: Kept<K>,
    ) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let left = length.and_then(|length| length.parse().ok());
        let mut this = Self { stream: Some(stream), left, upload, kept: Some(kept) };
        this.look_for_end();
        this
    }

    /// A body of known length ends with its last byte; not everybody asks for more.
    fn look_for_end(&mut self) {
        if self.stream.as_ref().is_some_and(RecvStream::is_end_stream) {
            self.leave(Rest::Complete);
        }
    }

    /// Lets go of the stream.
    fn leave(&mut self, rest: impl FnOnce(Kept<K>) -> Rest<K>) {
        self.stream = None;
        let Some(kept) = self.kept.take() else {
            return;
        };
        if let Some(upload) = self.upload.take() {
            // It comes back, and is dropped, if the request is through.
            let _ = upload.send(rest(kept));
        }
    }
}

/// Nothing is pinned to it.
impl<K> Unpin for Http2Body<K> {}

impl<K> Body for Http2Body<K> {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        let found = match ready!(stream.poll_data(cx)) {
            Some(data) => data.map(|data| Some(Frame::data(data))),
            None => ready!(stream.poll_trailers(cx)).map(|found| found.map(Frame::trailers)),
        };
        match found {
            Ok(Some(frame)) => {
                if let Some(data) = frame.data_ref() {
                    // The reader has it: the peer may send as much again. It cannot be too much.
                    let _ = stream.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                }
                this.look_for_end();
                // h2 hands out an empty one only where it ends the stream.
                let is_empty = frame.data_ref().is_some_and(Bytes::is_empty);
                Poll::Ready((!is_empty).then_some(Ok(frame)))
            }
            Ok(None) => {
                this.leave(Rest::Complete);
                Poll::Ready(None)
            }
            Err(error) => {
                if let Some(kept) = &this.kept {
                    kept.place.0.met(&error);
                }
                this.leave(Rest::Unwanted);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.stream, self.left) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl<K> Drop for Http2Body<K> {
    fn drop(&mut self) {
        self.leave(Rest::Unwanted);
    }
}

impl<K> fmt::Debug for Http2Body<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Body").field("stream", &self.stream).finish_non_exhaustive()
    }
}
