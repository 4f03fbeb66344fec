//! A freshly dialled socket, in whatever form its driver made it.

use core::time::Duration;
use std::{fmt, io, net::SocketAddr};

use socket2::SockRef;

use crate::Stream;

/// A connected stream on its way into or out of the pool.
///
/// The io_uring driver makes plain sockets, tokio's reactor makes registered ones; a
/// [`Connector`](crate::Connector) takes it in the form that it needs, and converts only when the
/// forms differ. All sockets are non-blocking and close-on-exec, and have what the pool's
/// [`SocketOptions`](crate::SocketOptions) say.
///
/// It leads to a TCP peer or, on unix systems, to a unix socket. [`Self::into_stream`] takes
/// either; the conversions that name one kind refuse the other.
pub struct Socket(pub(crate) Kind);

pub(crate) enum Kind {
    Plain(std::net::TcpStream),
    Registered(tokio::net::TcpStream),
    #[cfg(unix)]
    PlainUnix(std::os::unix::net::UnixStream),
    #[cfg(unix)]
    RegisteredUnix(tokio::net::UnixStream),
    #[cfg(any(test, feature = "sim"))]
    Sim(crate::sim::SimSocket),
}

impl Socket {
    /// The socket as a tokio stream of its kind, registered with the runtime of the current
    /// thread unless it is registered already.
    ///
    /// # Errors
    /// When the reactor refuses the descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled. A connector runs inside its shard's.
    pub fn into_stream(self) -> io::Result<Stream> {
        match self.0 {
            Kind::Plain(stream) => tokio::net::TcpStream::from_std(stream).map(Stream::Tcp),
            Kind::Registered(stream) => Ok(Stream::Tcp(stream)),
            #[cfg(unix)]
            Kind::PlainUnix(stream) => tokio::net::UnixStream::from_std(stream).map(Stream::Unix),
            #[cfg(unix)]
            Kind::RegisteredUnix(stream) => Ok(Stream::Unix(stream)),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => Err(simulated()),
        }
    }

    /// The socket as a tokio TCP stream, registered with the runtime of the current thread unless
    /// it is registered already.
    ///
    /// # Errors
    /// When the reactor refuses the descriptor, or the socket is a unix one.
    ///
    /// # Panics
    /// As for [`Self::into_stream`].
    pub fn into_tokio(self) -> io::Result<tokio::net::TcpStream> {
        if self.is_unix() {
            return Err(wrong_kind());
        }
        match self.into_stream()? {
            Stream::Tcp(stream) => Ok(stream),
            #[cfg(unix)]
            Stream::Unix(_) => Err(wrong_kind()),
        }
    }

    /// The socket as a plain TCP one in non-blocking mode, taken off the reactor if need be.
    ///
    /// # Errors
    /// When the reactor does not let go of it, or the socket is a unix one.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.0 {
            Kind::Plain(stream) => Ok(stream),
            Kind::Registered(stream) => stream.into_std(),
            #[cfg(unix)]
            Kind::PlainUnix(_) | Kind::RegisteredUnix(_) => Err(wrong_kind()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => Err(simulated()),
        }
    }

    /// The descriptor, of either kind, in non-blocking mode, taken off the reactor if need be.
    ///
    /// # Errors
    /// When the reactor does not let go of it.
    #[cfg(unix)]
    pub fn into_fd(self) -> io::Result<std::os::fd::OwnedFd> {
        match self.0 {
            Kind::PlainUnix(stream) => Ok(stream.into()),
            Kind::RegisteredUnix(stream) => Ok(stream.into_std()?.into()),
            _ => Ok(self.into_std()?.into()),
        }
    }

    /// Off the reactor that it is registered with, which may end before the pool does.
    ///
    /// # Errors
    /// When the reactor does not let go of it.
    pub(crate) fn unregistered(self) -> io::Result<Self> {
        match self.0 {
            Kind::Registered(stream) => Ok(stream.into_std()?.into()),
            #[cfg(unix)]
            Kind::RegisteredUnix(stream) => Ok(stream.into_std()?.into()),
            _ => Ok(self),
        }
    }

    /// Whether it leads to a unix socket.
    pub fn is_unix(&self) -> bool {
        #[cfg(unix)]
        return matches!(self.0, Kind::PlainUnix(_) | Kind::RegisteredUnix(_));
        #[cfg(not(unix))]
        false
    }

    /// The peer's address.
    ///
    /// # Errors
    /// When the kernel does not know it any more, or the socket is a unix one.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Plain(stream) => stream.peer_addr(),
            Kind::Registered(stream) => stream.peer_addr(),
            #[cfg(unix)]
            Kind::PlainUnix(_) | Kind::RegisteredUnix(_) => Err(wrong_kind()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(socket) => Ok(socket.peer_addr()),
        }
    }

    /// What went wrong on it since somebody last asked.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        match &self.0 {
            Kind::Plain(stream) => stream.take_error().ok()?,
            Kind::Registered(stream) => stream.take_error().ok()?,
            #[cfg(unix)]
            Kind::PlainUnix(stream) => stream.take_error().ok()?,
            #[cfg(unix)]
            Kind::RegisteredUnix(stream) => stream.take_error().ok()?,
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => None,
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match &self.0 {
            Kind::Plain(stream) => Some(stream.as_fd()),
            Kind::Registered(stream) => Some(stream.as_fd()),
            Kind::PlainUnix(stream) => Some(stream.as_fd()),
            Kind::RegisteredUnix(stream) => Some(stream.as_fd()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => None,
        }
    }

    /// Has the close of the socket send an RST and forget what was not sent, so that no
    /// `TIME_WAIT` is left behind. Unix sockets know no such thing.
    pub(crate) fn reset_on_close(&self) {
        let socket = match &self.0 {
            Kind::Plain(stream) => SockRef::from(stream),
            Kind::Registered(stream) => SockRef::from(stream),
            #[cfg(unix)]
            Kind::PlainUnix(_) | Kind::RegisteredUnix(_) => return,
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => return,
        };
        if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "a socket is closed by a FIN instead of an RST");
        }
    }
}

fn wrong_kind() -> io::Error {
    let what = "a unix socket is no TCP socket: use a connector that takes both";
    io::Error::new(io::ErrorKind::Unsupported, what)
}

#[cfg(any(test, feature = "sim"))]
fn simulated() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a simulated socket has no descriptor")
}

impl From<std::net::TcpStream> for Socket {
    fn from(stream: std::net::TcpStream) -> Self {
        Self(Kind::Plain(stream))
    }
}

impl From<tokio::net::TcpStream> for Socket {
    fn from(stream: tokio::net::TcpStream) -> Self {
        Self(Kind::Registered(stream))
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixStream> for Socket {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        Self(Kind::PlainUnix(stream))
    }
}

#[cfg(unix)]
impl From<tokio::net::UnixStream> for Socket {
    fn from(stream: tokio::net::UnixStream) -> Self {
        Self(Kind::RegisteredUnix(stream))
    }
}

impl From<Stream> for Socket {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Tcp(stream) => stream.into(),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.into(),
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match &self.0 {
            Kind::Plain(_) => "plain",
            Kind::Registered(_) => "registered",
            #[cfg(unix)]
            Kind::PlainUnix(_) => "plain unix",
            #[cfg(unix)]
            Kind::RegisteredUnix(_) => "registered unix",
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => "simulated",
        };
        f.debug_tuple("Socket").field(&form).finish()
    }
}
