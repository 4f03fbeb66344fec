//! Where a connection goes and as whom: the identity of a group.

mod address;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hashing;
mod tls;
#[cfg(any(feature = "http", feature = "tower"))]
mod uri;

use core::{fmt, str::FromStr};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use self::address::Address;
pub(crate) use self::hashing::Hashing;
#[cfg(any(feature = "http", feature = "tower"))]
pub use self::uri::UriError;
pub use self::{
    address::ParseEndpointError,
    tls::{TlsIdentity, Verification},
};
use crate::ProxyHeader;

/// Everything that makes two connections interchangeable. Compared in full, never by hash alone.
///
/// A handle: clones share one allocation. The `with_*` methods each set one part; two endpoints
/// that differ in any part are different and never share a connection.
///
/// ```
/// use corepool::Endpoint;
///
/// let by_address: Endpoint = "127.0.0.1:8080".parse()?;
/// let by_name: Endpoint = "localhost:8080".parse()?;
/// assert_ne!(by_address, by_name);
/// assert_eq!(by_name, Endpoint::host("localhost", 8080));
///
/// let blue = by_name.clone().with_source([10, 0, 0, 1]).with_tag("blue");
/// assert_ne!(blue, by_name);
/// assert_eq!(blue.to_string(), "localhost:8080 [source 10.0.0.1, tag blue]");
/// # Ok::<(), corepool::ParseEndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Arc<Identity>);

/// Every field takes part in the derived comparison; a field that must not does not belong here.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    address: Address,
    source: Option<IpAddr>,
    /// Zero is what a socket has without one.
    mark: u32,
    protocol: Protocol,
    proxy_header: Option<ProxyHeader>,
    /// Empty is none.
    tag: Box<str>,
}

/// What is known of how the peer wants to be spoken to. One word for both, so that a look-up hashes
/// no more for it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
enum Protocol {
    /// Nothing: the connector's own.
    #[default]
    Any,
    Http2,
    Tls(TlsIdentity),
    Http2OverTls(TlsIdentity),
}

impl Endpoint {
    /// A host by name. Names are compared as they are written.
    pub fn host(name: impl Into<Arc<str>>, port: u16) -> Self {
        Self::plain(Address::Host(name.into(), port))
    }

    /// A unix stream socket by its path.
    ///
    /// ```
    /// use corepool::Endpoint;
    ///
    /// let app = Endpoint::unix("/run/app.sock");
    /// assert_eq!("unix:/run/app.sock".parse(), Ok(app));
    /// ```
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::plain(Address::unix(path.as_ref()))
    }

    fn plain(address: Address) -> Self {
        Self(Arc::new(Identity {
            address,
            source: None,
            mark: 0,
            protocol: Protocol::Any,
            proxy_header: None,
            tag: Box::default(),
        }))
    }

    /// Connections leave from this local address, by a port of the system's choice.
    #[must_use]
    pub fn with_source(self, address: impl Into<IpAddr>) -> Self {
        self.with(|identity| identity.source = Some(address.into()))
    }

    /// Connections carry this firewall mark (`SO_MARK`, socket(7)), which routes can be chosen by.
    /// Setting one takes `CAP_NET_ADMIN` or, from Linux 5.17 on, `CAP_NET_RAW`. Zero is no mark.
    #[must_use]
    pub fn with_mark(self, mark: u32) -> Self {
        self.with(|identity| identity.mark = mark)
    }

    /// Connections speak TLS as this describes.
    #[must_use]
    pub fn with_tls(self, tls: TlsIdentity) -> Self {
        self.with(|identity| {
            identity.protocol = match identity.protocol {
                Protocol::Any | Protocol::Tls(_) => Protocol::Tls(tls),
                Protocol::Http2 | Protocol::Http2OverTls(_) => Protocol::Http2OverTls(tls),
            };
        })
    }

    /// The peer is known to speak HTTP/2 (RFC 9113 §3.3), so that nothing has to be agreed on: h2c,
    /// where there is no TLS. What ALPN agrees on goes before.
    #[must_use]
    pub fn with_http2(self) -> Self {
        self.with(|identity| {
            identity.protocol = match core::mem::take(&mut identity.protocol) {
                Protocol::Any | Protocol::Http2 => Protocol::Http2,
                Protocol::Tls(tls) | Protocol::Http2OverTls(tls) => Protocol::Http2OverTls(tls),
            };
        })
    }

    /// Connections begin with this PROXY protocol header. It speaks for everything sent on the
    /// connection, so it belongs to the identity: a connection announced for one client is never
    /// used for another one.
    #[must_use]
    pub fn with_proxy_header(self, header: ProxyHeader) -> Self {
        self.with(|identity| identity.proxy_header = Some(header))
    }

    /// Sets connections apart for a reason of the caller's: a tenant, a pair of credentials, a
    /// traffic class. It shows in logs and statistics. Empty is no tag.
    #[must_use]
    pub fn with_tag(self, tag: impl Into<Box<str>>) -> Self {
        self.with(|identity| identity.tag = tag.into())
    }

    fn with(mut self, set: impl FnOnce(&mut Identity)) -> Self {
        set(Arc::make_mut(&mut self.0));
        self
    }

    /// The address, when it is one of IP.
    pub fn as_ip(&self) -> Option<SocketAddr> {
        match &self.0.address {
            Address::Ip(address) => Some(*address),
            Address::Host(..) | Address::Unix(_) => None,
        }
    }

    /// The name and the port, when there is a name to resolve.
    pub fn as_host(&self) -> Option<(&str, u16)> {
        match &self.0.address {
            Address::Host(name, port) => Some((name, *port)),
            Address::Ip(_) | Address::Unix(_) => None,
        }
    }

    /// The path, when it is a unix socket.
    pub fn as_unix(&self) -> Option<&Path> {
        match &self.0.address {
            Address::Unix(path) => Some(path),
            Address::Ip(_) | Address::Host(..) => None,
        }
    }

    /// The local address to bind to.
    pub fn source(&self) -> Option<IpAddr> {
        self.0.source
    }

    /// The firewall mark.
    pub fn mark(&self) -> Option<u32> {
        Some(self.0.mark).filter(|mark| *mark != 0)
    }

    /// As whom TLS is spoken, and with whom.
    pub fn tls(&self) -> Option<&TlsIdentity> {
        match &self.0.protocol {
            Protocol::Any | Protocol::Http2 => None,
            Protocol::Tls(tls) | Protocol::Http2OverTls(tls) => Some(tls),
        }
    }

    /// Whether the peer is known to speak HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.0.protocol, Protocol::Http2 | Protocol::Http2OverTls(_))
    }

    /// What is sent before anything else.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.0.proxy_header.as_ref()
    }

    /// The caller's tag.
    pub fn tag(&self) -> Option<&str> {
        Some(&*self.0.tag).filter(|tag| !tag.is_empty())
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::plain(Address::Ip(address))
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    /// An address alone: `1.2.3.4:80`, `[::1]:80`, `example.org:80` or `unix:/run/app.sock`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::plain)
    }
}

/// The address, and in brackets whatever else is set. Shows no value that could be a secret.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)?;
        let mut separator = " [";
        let mut part = |f: &mut fmt::Formatter<'_>, part: fmt::Arguments<'_>| {
            f.write_str(core::mem::replace(&mut separator, ", "))?;
            f.write_fmt(part)
        };
        if let Some(source) = self.source() {
            part(f, format_args!("source {source}"))?;
        }
        if let Some(mark) = self.mark() {
            part(f, format_args!("mark {mark:#x}"))?;
        }
        if let Some(tls) = self.tls() {
            part(f, format_args!("{tls}"))?;
        }
        if self.is_http2() {
            part(f, format_args!("http/2"))?;
        }
        if let Some(header) = self.proxy_header() {
            part(f, format_args!("{header}"))?;
        }
        if let Some(tag) = self.tag() {
            // Escaped: a line of a log must not be ended by a tag.
            part(f, format_args!("tag {}", tag.escape_debug()))?;
        }
        if separator == ", " { f.write_str("]") } else { Ok(()) }
    }
}

/// As it is displayed, for the same reason.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests;
