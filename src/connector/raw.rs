//! Pools plain sockets, for consumers with an event loop of their own.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
};

#[cfg(unix)]
use std::os::unix::net::UnixStream;

use super::{Condition, Connection, Connector, Inspect, look};
use crate::{BoxError, Endpoint, Socket};

/// Pools sockets that no reactor knows of.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawConnector;

/// A pooled non-blocking socket, of one kind or the other. What both can do is here; match for
/// the rest.
#[derive(Debug)]
pub enum Raw {
    /// To a TCP endpoint.
    Tcp(TcpStream),
    /// To a unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Hands a call on to the socket, whichever kind it is.
macro_rules! either {
    ($raw:expr, $inner:ident => $call:expr) => {
        match $raw {
            Raw::Tcp($inner) => $call,
            #[cfg(unix)]
            Raw::Unix($inner) => $call,
        }
    };
}

impl Connector for RawConnector {
    type Connection = Raw;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Raw, BoxError> {
        #[cfg(unix)]
        if socket.is_unix() {
            return Ok(Raw::Unix(socket.into_fd()?.into()));
        }
        Ok(Raw::Tcp(socket.into_std()?))
    }
}

impl Raw {
    /// Switches between waiting and `WouldBlock`. It comes in non-blocking mode the first time,
    /// and afterwards in the mode that it was released in.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        either!(self, socket => socket.set_nonblocking(nonblocking))
    }

    /// Ends one direction or both. What was shut down must not be released.
    ///
    /// # Errors
    /// The system's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        either!(self, socket => socket.shutdown(how))
    }

    /// The TCP socket, if it is one.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }
}

impl Connection for Raw {
    /// At a glance nothing can be said on Linux without a system call: the death of a socket at
    /// rest is the driver's to see, by the watch. Elsewhere there is no watch, so it looks.
    #[inline]
    fn inspect(&mut self, how: Inspect) -> Condition {
        match how {
            Inspect::Glance if cfg!(target_os = "linux") => Condition::Usable,
            Inspect::Glance | Inspect::Peek => {
                look::condition(&either!(self, socket => look::peek(socket)))
            }
        }
    }

    fn into_socket(self) -> Option<Socket> {
        Some(either!(self, socket => socket.into()))
    }
}

impl Read for &Raw {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        either!(*self, socket => { let mut socket = socket; socket.read(buf) })
    }
}

impl Write for &Raw {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        either!(*self, socket => { let mut socket = socket; socket.write(buf) })
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(*self, socket => { let mut socket = socket; socket.flush() })
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        either!(*self, socket => { let mut socket = socket; socket.write_vectored(bufs) })
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Raw {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        either!(self, socket => socket.as_fd())
    }
}

#[cfg(unix)]
impl From<Raw> for std::os::fd::OwnedFd {
    fn from(raw: Raw) -> Self {
        either!(raw, socket => socket.into())
    }
}
