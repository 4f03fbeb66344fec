//! What the HTTP connectors speak through: a plain stream, or one that TLS protects.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, Stream, Tcp};

/// A connection that carries bytes both ways, and that an HTTP connector can be put on
/// ([`Http1Connector::over`](crate::Http1Connector::over)).
///
/// Its [`inspect`](Connection::inspect) is asked before a read, and may take from the socket what
/// is not the stream's own bytes (records of a TLS session); what it finds of those must be there
/// for the next read. Its [`into_socket`](Connection::into_socket) says goodbye where the
/// transport has a way to.
pub trait Transport: Connection + AsyncRead + AsyncWrite + Unpin {
    /// The application protocol that was agreed on with the peer (ALPN, RFC 7301). `None` where
    /// nothing was agreed on; then whatever the connector speaks is taken for granted.
    fn alpn_protocol(&self) -> Option<&[u8]> {
        None
    }
}

impl Transport for Stream {}

impl Transport for Tcp {}
