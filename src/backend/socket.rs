//! A freshly dialled socket, in whatever form its driver made it.

use std::{fmt, io, net::SocketAddr};

/// A connected stream on its way into or out of the pool.
///
/// The io_uring driver makes plain sockets, tokio's reactor makes registered ones; a
/// [`Connector`](crate::Connector) takes it in the form that it needs, and converts only when the
/// forms differ. All sockets are non-blocking, close-on-exec and have `TCP_NODELAY` set.
pub struct Socket(pub(crate) Kind);

pub(crate) enum Kind {
    Plain(std::net::TcpStream),
    Registered(tokio::net::TcpStream),
    #[cfg(any(test, feature = "sim"))]
    Sim(crate::sim::SimSocket),
}

impl Socket {
    /// The socket as a tokio stream, registered with the runtime of the current thread unless it
    /// is registered already.
    ///
    /// # Errors
    /// When the reactor refuses the descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled. A connector runs inside its shard's.
    pub fn into_tokio(self) -> io::Result<tokio::net::TcpStream> {
        match self.0 {
            Kind::Plain(stream) => tokio::net::TcpStream::from_std(stream),
            Kind::Registered(stream) => Ok(stream),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => Err(simulated()),
        }
    }

    /// The socket as a plain one in non-blocking mode, taken off the reactor if need be.
    ///
    /// # Errors
    /// When the reactor does not let go of it.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.0 {
            Kind::Plain(stream) => Ok(stream),
            Kind::Registered(stream) => stream.into_std(),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => Err(simulated()),
        }
    }

    /// The peer's address.
    ///
    /// # Errors
    /// When the kernel does not know it any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Plain(stream) => stream.peer_addr(),
            Kind::Registered(stream) => stream.peer_addr(),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => Err(simulated()),
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match &self.0 {
            Kind::Plain(stream) => Some(stream.as_fd()),
            Kind::Registered(stream) => Some(stream.as_fd()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => None,
        }
    }
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

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match &self.0 {
            Kind::Plain(_) => "plain",
            Kind::Registered(_) => "registered",
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => "simulated",
        };
        f.debug_tuple("Socket").field(&form).finish()
    }
}
