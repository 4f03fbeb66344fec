//! What is pooled: a connector turns a dialled socket into it.

#[cfg(all(any(test, fuzzing), unix, feature = "http1"))]
pub(crate) mod fuzz;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http1")]
mod http1;
#[cfg(feature = "http2")]
mod http2;
mod look;
mod raw;
mod stream;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(all(target_os = "linux", feature = "tokio-uring"))]
mod tokio_uring;
mod transport;

#[cfg(feature = "http")]
pub use self::http::{Http, HttpConnector};
#[cfg(feature = "http")]
pub(crate) use http1::exchange as exchange_http1;
#[cfg(feature = "http1")]
pub use http1::{ExchangeError, Http1, Http1Body, Http1Connector, SpeaksHttp1};
#[cfg(all(fuzzing, feature = "http2"))]
pub(crate) use http2::fuzz as http2_fuzz;
#[cfg(feature = "http2")]
pub use http2::{
    Http2, Http2Body, Http2Connector, Http2Keepalive, Http2Options, StreamError, StreamErrorKind,
};
pub use raw::{Raw, RawConnector};
pub use stream::{Stream, StreamConnector};
pub use tcp::{Tcp, TcpConnector};
#[cfg(feature = "tls")]
pub use tls::{TlsConnector, TlsConnectorBuilder, TlsError, TlsStream};
#[cfg(all(target_os = "linux", feature = "tokio-uring"))]
pub use tokio_uring::{TokioUring, TokioUringConnector};
pub use transport::Transport;

use crate::{BoxError, Endpoint, Host, Socket, StreamMeter};

/// Makes what a pool holds out of a freshly dialled socket: the socket itself, a registered
/// stream, the sender of an HTTP connection.
///
/// ```
/// use corepool::{BoxError, Connection, Connector, Endpoint, Socket};
///
/// /// Greets the peer before the connection is pooled.
/// #[derive(Debug)]
/// struct Greeting;
///
/// #[derive(Debug)]
/// struct Greeted(tokio::net::TcpStream);
///
/// impl Connection for Greeted {}
///
/// impl Connector for Greeting {
///     type Connection = Greeted;
///
///     async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Greeted, BoxError> {
///         use tokio::io::AsyncWriteExt;
///         let mut stream = socket.into_tokio()?;
///         stream.write_all(b"HELLO\r\n").await?;
///         Ok(Greeted(stream))
///     }
/// }
/// ```
pub trait Connector: Send + Sync + 'static {
    /// What is pooled.
    type Connection: Connection;

    /// Whether a connection may be used only on the thread of the shard that dialled it. Then
    /// there is no stealing, `max_live` and `max_idle` hold for each shard, and a checkout from
    /// any other thread fails.
    const SHARD_LOCAL: bool = false;

    /// What the shards must host for these connections to work; `None` for any.
    const HOST: Option<Host> = None;

    /// Makes a socket ready for use. Runs on the shard's thread, inside its runtime, and counts
    /// towards the dial's total timeout.
    ///
    /// # Errors
    /// What goes wrong reaches one waiting caller as the source of a [`crate::DialError`].
    ///
    /// # Cancel safety
    /// The future is dropped at the total timeout; what it holds must close itself on drop.
    fn connect(
        &self,
        socket: Socket,
        endpoint: &Endpoint,
    ) -> impl Future<Output = Result<Self::Connection, BoxError>>;

    /// Asks the peer of a connection at rest whether it lives, where the policy wants that
    /// (`health.ping_interval_ms`). Runs on the shard's thread, inside its runtime, within
    /// `health.ping_timeout_ms`. Nobody else has the connection meanwhile.
    ///
    /// By default nothing is sent: the connection looks at its socket.
    ///
    /// # Errors
    /// Why the connection is taken for dead, once that has happened `health.ping_max_failures`
    /// times in a row.
    ///
    /// # Cancel safety
    /// The future is dropped at the timeout; then the connection is closed, because half an
    /// answer may be on its way.
    fn ping(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), BoxError>> {
        async {
            match connection.inspect(Inspect::Peek) {
                Condition::Usable => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        }
    }
}

/// How closely a connection is to look at itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Inspect {
    /// At what is known already: no system call, unless what is known says that there is
    /// something to find.
    Glance,
    /// At the socket: one `recv(MSG_PEEK)` that does not wait is allowed.
    Peek,
}

/// How a connection finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// It can serve another exchange, as far as the look went.
    Usable,
    /// It is closed, as a rule by its peer.
    Closed,
    /// It broke: reset, timed out, or its peer is out of reach. What else leads there may be
    /// broken too.
    Reset,
    /// Its peer sent something that nobody asked for: the next response would not be the next
    /// caller's.
    UnexpectedBytes,
    /// It cannot be used again, for whatever other reason.
    Unusable,
}

/// What the pool asks of a connection.
pub trait Connection: Send + 'static {
    /// Whether it can serve another exchange. Asked when it is released and again before it is
    /// handed out, on the caller's thread; must not block. Default: usable, whatever the look.
    fn inspect(&mut self, how: Inspect) -> Condition {
        let _ = how;
        Condition::Usable
    }

    /// How many bytes were written to it so far, where it counts them; see
    /// [`Pooled::was_written`](crate::Pooled::was_written).
    fn bytes_written(&self) -> Option<u64> {
        None
    }

    /// Whether dropping its guard after I/O gives it back as `release()` does. Only for
    /// protocols that cannot leave half a message behind.
    fn is_clean_on_drop(&self) -> bool {
        false
    }

    /// Gives the socket up to be closed by the shard's driver, in one batch with others. `None`
    /// when dropping the connection closes it.
    fn into_socket(self) -> Option<Socket>
    where
        Self: Sized,
    {
        None
    }
}

/// A connection that serves several exchanges at once, each as a stream of it.
///
/// [`Pool::streams`](crate::Pool::streams) shares such connections among callers. What they do their
/// I/O through must work from any thread by a shared reference.
pub trait Multiplexed: Connection + Sync {
    /// How many streams it takes, and whether it takes new ones; always the same one.
    fn meter(&self) -> &StreamMeter;

    /// Whether it serves one exchange at a time all the same, because its peer would have it so.
    /// Such a connection is not shared: callers for a stream get connections of their own, until
    /// one is dialled that can be. Default: no.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Whether a connection to this endpoint will be [exclusive](Self::is_exclusive), as far as that
    /// can be said before there is one. Where it cannot, the first callers wait for one connection
    /// to find out. Default: no.
    fn will_be_exclusive(_endpoint: &Endpoint) -> bool
    where
        Self: Sized,
    {
        false
    }
}
