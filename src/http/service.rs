//! An endpoint as a tower service: what tonic's clients, and tower's layers, send requests through.

use core::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{HttpBody, HttpOrigin};
use crate::{BoxError, Connector, Transport};

/// Always ready: who has no connection waits in the call, in line with all others. The error is a
/// [`RequestError`](crate::RequestError) without its request.
///
/// A gRPC client takes it as its channel: give it an endpoint that speaks HTTP/2
/// ([`Endpoint::with_http2`](crate::Endpoint::with_http2), or TLS with ALPN `h2`), and the URI's
/// origin to the client.
impl<B, T> Service<Request<B>> for HttpOrigin<B, T>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    T: Connector<Connection: Transport>,
{
    type Response = Response<HttpBody<B, T>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let origin = self.clone();
        Box::pin(async move {
            origin.request(request).await.map_err(|error| error.without_request().into())
        })
    }
}
