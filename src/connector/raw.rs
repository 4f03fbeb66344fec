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

/// Its death at rest is the driver's to see, by the watch. It has no look of its own, because
/// that would be a system call at each checkout.
impl Connection for Raw {
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
