//! A request and its response on a stream.

use core::{future::poll_fn, pin::Pin, task::Poll};
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response, uri::Scheme};
use http_body::Body;
use tokio::sync::oneshot;

use super::{
    body::{Http2Body, Kept},
    error::{Cause, StreamError},
    head,
    shared::Shared,
    upload::Upload,
};
use crate::BoxError;

/// A request that has a connection and is not begun. It needs nothing of the connection's owner.
pub(crate) struct Outbound<B> {
    shared: Arc<Shared>,
    sender: SendRequest<Bytes>,
    request: Request<B>,
}

impl<B> Outbound<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(
        shared: &Arc<Shared>,
        sender: &SendRequest<Bytes>,
        request: Request<B>,
    ) -> Self {
        Self { shared: Arc::clone(shared), sender: sender.clone(), request }
    }

    /// As [`Http2::send`](crate::Http2::send). The keeper is dropped when the stream is over: h2 has
    /// let go of it, or has what is left of it to write, and it is counted out.
    pub(crate) async fn keeping<K: Send + 'static>(
        self,
        keeper: K,
    ) -> Result<Response<Http2Body<K>>, StreamError<B>> {
        let Self { shared, mut sender, request } = self;
        let (place, was_reused) = match shared.enter() {
            Ok(entered) => entered,
            Err(why) => {
                let was_reused = shared.was_used();
                return Err(StreamError::unsent(&shared, was_reused, request, Cause::Refused(why)));
            }
        };
        // Before the stream, so that it is dropped after it, whenever that is.
        let kept = Kept::new(place, keeper);
        let unsent = |request, why| Err(StreamError::unsent(&shared, was_reused, request, why));
        let scheme = if shared.endpoint.tls().is_some() { &Scheme::HTTPS } else { &Scheme::HTTP };
        let head = match head::convert(&request, scheme) {
            Ok(head) => head,
            Err(bad) => return unsent(request, Cause::Head(bad)),
        };
        let received = shared.received();
        let (mut response, stream) = match sender.send_request(head, request.body().is_end_stream())
        {
            Ok(begun) => begun,
            Err(error) => return unsent(request, Cause::H2(error)),
        };
        drop(sender);
        let body = request.into_body();
        let mut upload = (!body.is_end_stream()).then(|| Upload::new(body, stream));
        let responded = poll_fn(|cx| {
            if let Some(under_way) = &mut upload
                && let Poll::Ready(outcome) = under_way.poll(cx)
            {
                upload = None;
                if let Err(error) = outcome {
                    return Poll::Ready(Err(Cause::Body(error)));
                }
            }
            // h2 passes them over, and does not say how many there were.
            while shared.counts_interim()
                && let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx)
            {
                shared.take_interim();
            }
            Pin::new(&mut response).poll(cx).map_err(Cause::H2)
        });
        let responded = responded.await;
        drop(response);
        match responded {
            Ok(responded) => {
                let (parts, stream) = responded.into_parts();
                let rest = upload.map(|upload| {
                    let (left, rest) = oneshot::channel();
                    shared.runtime.spawn(upload.go_on(rest));
                    left
                });
                let body = Http2Body::new(stream, &parts.headers, rest, kept);
                Ok(Response::from_parts(parts, body))
            }
            Err(why) => {
                if let Cause::H2(error) = &why {
                    shared.met(error);
                }
                let was_answered = shared.received() != received;
                Err(StreamError::begun(&shared, was_reused, was_answered, why))
            }
        }
    }
}
