//! Pools hyper's HTTP/1 senders.

use core::{fmt, marker::PhantomData};

use hyper::{
    body::Body,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{Connection, Connector};
use crate::{BoxError, Endpoint, Pooled, Socket};

/// Pools [`SendRequest`]s: each connection's task runs on the shard that dialled it.
pub struct Http1Connector<B> {
    builder: http1::Builder,
    body: PhantomData<fn(B)>,
}

/// A pooled HTTP/1 connection, by its sender.
pub struct Http1<B>(SendRequest<B>);

impl<B> Http1Connector<B> {
    /// hyper's defaults.
    pub fn new() -> Self {
        Self::with_builder(http1::Builder::new())
    }

    /// Settings of one's own: buffer sizes, limits on headers, how lenient to be.
    pub fn with_builder(builder: http1::Builder) -> Self {
        Self { builder, body: PhantomData }
    }
}

impl<B> Connector for Http1Connector<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Connection = Http1<B>;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Http1<B>, BoxError> {
        let io = TokioIo::new(socket.into_tokio()?);
        let (sender, connection) = self.builder.handshake(io).await?;
        let endpoint = endpoint.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                // The caller whose exchange it broke has the error too.
                tracing::debug!(%endpoint, %error, "an HTTP/1 connection ended");
            }
        });
        Ok(Http1(sender))
    }
}

impl<B> Connection for Http1<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    /// hyper has read the last response to its end and the connection is open.
    fn is_usable(&mut self) -> bool {
        self.0.is_ready()
    }
}

impl<B> Pooled<Http1Connector<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Releases the connection once hyper is ready for the next request, or closes it when the
    /// exchange leaves it unusable (`Connection: close`, a body that was not read to its end).
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn release_when_ready(mut self) {
        if self.is_ready() || self.ready().await.is_ok() {
            self.release();
        } else {
            self.discard();
        }
    }
}

impl<B> core::ops::Deref for Http1<B> {
    type Target = SendRequest<B>;

    fn deref(&self) -> &SendRequest<B> {
        &self.0
    }
}

impl<B> core::ops::DerefMut for Http1<B> {
    fn deref_mut(&mut self) -> &mut SendRequest<B> {
        &mut self.0
    }
}

impl<B> Default for Http1Connector<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> fmt::Debug for Http1Connector<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1Connector").field("builder", &self.builder).finish()
    }
}

impl<B> fmt::Debug for Http1<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http1").field(&self.0).finish()
    }
}
