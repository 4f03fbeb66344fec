//! The response's body on its way to the client.
//!
//! The connection that it comes from travels with it: at the body's end it goes back to the pool,
//! and when the body is dropped before (the client went away, the origin broke off) it is closed. Of
//! a connection of HTTP/2 it is the one stream, which is reset.

use core::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use corepool::BoxError;
use hyper::body::{Body, Frame, SizeHint};

use crate::upstream;

/// A response body: a few words of our own, or what the origin sends.
#[derive(Debug)]
pub(crate) enum Download {
    Text(Option<Bytes>),
    Origin(upstream::Body),
}

impl Download {
    pub(crate) fn text(text: String) -> Self {
        Self::Text(Some(text.into()))
    }
}

impl From<upstream::Body> for Download {
    fn from(body: upstream::Body) -> Self {
        Self::Origin(body)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Origin(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Origin(body) => body.size_hint(),
        }
    }
}
