//! A response's body, whichever version it comes by.

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    BoxError, Connector, Http1Body, Http2Body, HttpConnector, SpeaksHttp1, StreamLease, Transport,
};

/// A response's body, and with it the connection or the stream that it comes from.
///
/// Read to its end, it gives the connection back; dropped before, it closes a connection of HTTP/1
/// and resets a stream of HTTP/2.
pub struct HttpBody<B, T>(Kind<B, T>)
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>;

enum Kind<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    Http1(Http1Body<HttpConnector<B, T>>),
    Http2(Http2Body<StreamLease<HttpConnector<B, T>>>),
}

impl<B, T> From<Http1Body<HttpConnector<B, T>>> for HttpBody<B, T>
where
    HttpConnector<B, T>: SpeaksHttp1,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn from(body: Http1Body<HttpConnector<B, T>>) -> Self {
        Self(Kind::Http1(body))
    }
}

impl<B, T> From<Http2Body<StreamLease<HttpConnector<B, T>>>> for HttpBody<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn from(body: Http2Body<StreamLease<HttpConnector<B, T>>>) -> Self {
        Self(Kind::Http2(body))
    }
}

impl<B, T> Body for HttpBody<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match &mut self.get_mut().0 {
            Kind::Http1(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            Kind::Http2(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http1(body) => body.is_end_stream(),
            Kind::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http1(body) => body.size_hint(),
            Kind::Http2(body) => body.size_hint(),
        }
    }
}

impl<B, T> fmt::Debug for HttpBody<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.0 {
            Kind::Http1(_) => "HTTP/1.1",
            Kind::Http2(_) => "HTTP/2",
        };
        f.debug_struct("HttpBody").field("version", &version).finish_non_exhaustive()
    }
}
