//! Pools plain sockets, for consumers with an event loop of their own.

use super::{Connection, Connector};
use crate::{BoxError, Endpoint, Socket};

/// Pools sockets that no reactor knows of.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawConnector;

/// A pooled non-blocking socket.
#[derive(Debug)]
pub struct Raw(std::net::TcpStream);

impl Connector for RawConnector {
    type Connection = Raw;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Raw, BoxError> {
        Ok(Raw(socket.into_std()?))
    }
}

impl Raw {
    /// The socket itself.
    pub fn into_inner(self) -> std::net::TcpStream {
        self.0
    }
}

impl Connection for Raw {
    /// On Linux its death at rest is the driver's to see, by the watch, and a look of its own
    /// would be a system call at each checkout. Elsewhere there is no watch, so it looks.
    #[cfg(not(target_os = "linux"))]
    fn is_usable(&mut self) -> bool {
        // Nothing to read, not even an end.
        matches!(self.0.peek(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn into_socket(self) -> Option<Socket> {
        Some(self.0.into())
    }
}

impl core::ops::Deref for Raw {
    type Target = std::net::TcpStream;

    fn deref(&self) -> &std::net::TcpStream {
        &self.0
    }
}
