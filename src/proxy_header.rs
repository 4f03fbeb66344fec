//! The PROXY protocol's header, as a sender writes it.
//!
//! The specification is HAProxy's `doc/proxy-protocol.txt`,
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>; the sections named here are its.

use core::fmt;
use std::{
    net::{Ipv6Addr, SocketAddr},
    path::Path,
};

/// What a connection tells the origin of the client that it is made for, before anything else.
///
/// A header is checked when it is made and can be written always. All that is sent on the
/// connection counts as that client's, so a proxy that sends several clients' requests over one
/// connection must not use it (§2); in an [`Endpoint`](crate::Endpoint) it keeps clients apart.
///
/// ```
/// use corepool::ProxyHeader;
///
/// let (client, listener) = ("192.0.2.7:56324".parse()?, "192.0.2.1:443".parse()?);
/// let header = ProxyHeader::v1(client, listener)?;
/// assert_eq!(header.to_bytes(), b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n");
///
/// let header = ProxyHeader::v2(client, listener)?.with_authority("example.org")?;
/// assert_eq!(header.to_bytes().len(), 16 + 12 + 3 + 11);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyHeader {
    version: Version,
    addresses: Addresses,
    /// Version 2 only, encoded.
    tlvs: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Version {
    One,
    Two,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Addresses {
    /// No client: the proxy speaks for itself.
    Local,
    /// A client of which no more is known.
    Unknown,
    /// Both of one family.
    Tcp { source: SocketAddr, destination: SocketAddr },
    /// Both checked for their length.
    Unix { source: Box<Path>, destination: Box<Path> },
}

/// What cannot be put into a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// A header has one family for both addresses.
    #[error(
        "PROXY header: source {source_address} and destination {destination} are of two families"
    )]
    Families {
        /// Of the client.
        source_address: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// The path of a unix socket does not fit, or has a zero byte.
    #[error("PROXY header: unix path of {length} bytes, but must be 0 to 108 without a zero byte")]
    Path {
        /// How long it is.
        length: usize,
    },
    /// Version 1 and the LOCAL command have no place for further values.
    #[error("PROXY header: value of type {kind:#04x} needs version 2 with a client, not LOCAL")]
    NoRoom {
        /// The value's type.
        kind: u8,
    },
    /// A unique ID is too long (§2.2.5).
    #[error("PROXY header: unique id of {length} bytes, but must be at most 128")]
    UniqueId {
        /// How long it is.
        length: usize,
    },
    /// The header's length field has 16 bits.
    #[error("PROXY header: {length} bytes of addresses and values, but must be at most 65535")]
    Length {
        /// How long it would be.
        length: usize,
    },
}

/// §2.2: what a version 2 header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.2: the bytes of one unix address.
const UNIX_BYTES: usize = 108;
/// §2.2.2: the host name that the client asked for.
const AUTHORITY: u8 = 0x02;
/// §2.2.5: a name for the connection.
const UNIQUE_ID: u8 = 0x05;
/// §2.2.5: how long that is at most.
const MAX_UNIQUE_ID: usize = 128;

impl ProxyHeader {
    /// Version 1, a line of text: a TCP client's address, and the one that it connected to.
    /// At most 107 bytes (§2.1).
    ///
    /// # Errors
    /// When one address is IPv4 and the other IPv6.
    pub fn v1(source: SocketAddr, destination: SocketAddr) -> Result<Self, ProxyHeaderError> {
        Self::tcp(Version::One, source, destination)
    }

    /// Version 1 without addresses: `PROXY UNKNOWN`. Some receivers reject it (§2.1).
    pub fn v1_unknown() -> Self {
        Self { version: Version::One, addresses: Addresses::Unknown, tlvs: Vec::new() }
    }

    /// Version 2, binary: a TCP client's address, and the one that it connected to.
    ///
    /// # Errors
    /// When one address is IPv4 and the other IPv6.
    pub fn v2(source: SocketAddr, destination: SocketAddr) -> Result<Self, ProxyHeaderError> {
        Self::tcp(Version::Two, source, destination)
    }

    /// Version 2 for a client that came by a unix stream socket. An empty path is a socket that
    /// has none, as a client's usually.
    ///
    /// # Errors
    /// When a path has more than 108 bytes, or a zero byte.
    pub fn v2_unix(
        source: impl AsRef<Path>,
        destination: impl AsRef<Path>,
    ) -> Result<Self, ProxyHeaderError> {
        let (source, destination) = (source.as_ref(), destination.as_ref());
        for path in [source, destination] {
            let bytes = path.as_os_str().as_encoded_bytes();
            if bytes.len() > UNIX_BYTES || bytes.contains(&0) {
                return Err(ProxyHeaderError::Path { length: bytes.len() });
            }
        }
        let addresses = Addresses::Unix { source: source.into(), destination: destination.into() };
        Ok(Self { version: Version::Two, addresses, tlvs: Vec::new() })
    }

    /// Version 2 for a client of which no address is known, or of an unsupported family.
    pub fn v2_unknown() -> Self {
        Self { version: Version::Two, addresses: Addresses::Unknown, tlvs: Vec::new() }
    }

    /// Version 2 for connections that the proxy makes on its own behalf, such as health checks:
    /// the LOCAL command. The receiver takes the connection's real addresses.
    pub fn local() -> Self {
        Self { version: Version::Two, addresses: Addresses::Local, tlvs: Vec::new() }
    }

    fn tcp(
        version: Version,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Self, ProxyHeaderError> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(ProxyHeaderError::Families { source_address: source, destination });
        }
        let addresses = Addresses::Tcp { source, destination };
        Ok(Self { version, addresses, tlvs: Vec::new() })
    }

    /// Adds the host name that the client asked for, as its SNI (§2.2.2).
    ///
    /// # Errors
    /// As for [`Self::with_value`].
    pub fn with_authority(self, name: &str) -> Result<Self, ProxyHeaderError> {
        self.with_value(AUTHORITY, name.as_bytes())
    }

    /// Adds a name for the client's connection (§2.2.5): at most 128 bytes.
    ///
    /// # Errors
    /// When it is longer, and as for [`Self::with_value`].
    pub fn with_unique_id(self, id: &[u8]) -> Result<Self, ProxyHeaderError> {
        if id.len() > MAX_UNIQUE_ID {
            return Err(ProxyHeaderError::UniqueId { length: id.len() });
        }
        self.with_value(UNIQUE_ID, id)
    }

    /// Adds a value of any type (§2.2). Types 0xE0 to 0xEF are free for use by applications;
    /// others have the meaning that the specification gives them, and are not checked.
    ///
    /// A receiver need not take more than 536 bytes at once (§2).
    ///
    /// # Errors
    /// When the header is of version 1 or LOCAL, or would have more than 65535 bytes after its
    /// first 16.
    pub fn with_value(mut self, kind: u8, value: &[u8]) -> Result<Self, ProxyHeaderError> {
        if self.version == Version::One || self.addresses == Addresses::Local {
            return Err(ProxyHeaderError::NoRoom { kind });
        }
        let length = self.addresses.length() + self.tlvs.len() + 3 + value.len();
        if length > usize::from(u16::MAX) {
            return Err(ProxyHeaderError::Length { length });
        }
        self.tlvs.push(kind);
        self.tlvs.extend((value.len() as u16).to_be_bytes());
        self.tlvs.extend(value);
        Ok(self)
    }

    /// The header as it is sent, at once and before anything else.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self.version {
            Version::One => self.line().into_bytes(),
            Version::Two => self.binary(),
        }
    }

    /// §2.1.
    fn line(&self) -> String {
        match &self.addresses {
            Addresses::Tcp { source: SocketAddr::V4(from), destination: SocketAddr::V4(to) } => {
                format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
            }
            Addresses::Tcp { source: SocketAddr::V6(from), destination: SocketAddr::V6(to) } => {
                let (source, destination) = (Hexadecimal(from.ip()), Hexadecimal(to.ip()));
                format!("PROXY TCP6 {source} {destination} {} {}\r\n", from.port(), to.port())
            }
            // Of the others the constructors make only `Unknown` with this version.
            _ => "PROXY UNKNOWN\r\n".to_owned(),
        }
    }

    /// §2.2.
    fn binary(&self) -> Vec<u8> {
        let length = self.addresses.length() + self.tlvs.len();
        let mut bytes = Vec::with_capacity(SIGNATURE.len() + 4 + length);
        bytes.extend(SIGNATURE);
        bytes.extend(self.addresses.command_and_family());
        // `with_value` keeps it within 16 bits.
        bytes.extend((length as u16).to_be_bytes());
        self.addresses.write(&mut bytes);
        bytes.extend(&self.tlvs);
        bytes
    }
}

impl Addresses {
    /// The 13th and 14th byte: version 2 with LOCAL or PROXY, then family and stream.
    fn command_and_family(&self) -> [u8; 2] {
        match self {
            Self::Local => [0x20, 0x00],
            Self::Unknown => [0x21, 0x00],
            Self::Tcp { source: SocketAddr::V4(_), .. } => [0x21, 0x11],
            Self::Tcp { source: SocketAddr::V6(_), .. } => [0x21, 0x21],
            Self::Unix { .. } => [0x21, 0x31],
        }
    }

    /// The bytes that [`Self::write`] adds.
    fn length(&self) -> usize {
        match self {
            Self::Local | Self::Unknown => 0,
            Self::Tcp { source: SocketAddr::V4(_), .. } => 2 * (4 + 2),
            Self::Tcp { source: SocketAddr::V6(_), .. } => 2 * (16 + 2),
            Self::Unix { .. } => 2 * UNIX_BYTES,
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Local | Self::Unknown => {}
            Self::Tcp { source, destination } => {
                for address in [source, destination] {
                    match address {
                        SocketAddr::V4(address) => bytes.extend(address.ip().octets()),
                        SocketAddr::V6(address) => bytes.extend(address.ip().octets()),
                    }
                }
                for address in [source, destination] {
                    bytes.extend(address.port().to_be_bytes());
                }
            }
            Self::Unix { source, destination } => {
                for path in [source, destination] {
                    let path = path.as_os_str().as_encoded_bytes();
                    bytes.extend(path);
                    bytes.resize(bytes.len() + UNIX_BYTES - path.len(), 0);
                }
            }
        }
    }
}

/// An IPv6 address by hexadecimal digits alone, as §2.1 wants it: the usual text of an address
/// that maps an IPv4 one ends in decimal.
struct Hexadecimal<'a>(&'a Ipv6Addr);

impl fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] => write!(f, "::ffff:{high:x}:{low:x}"),
            _ => self.0.fmt(f),
        }
    }
}

/// Version and addresses. Of further values only the size: they may be credentials.
impl fmt::Display for ProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::One => f.write_str("PROXY v1 ")?,
            Version::Two => f.write_str("PROXY v2 ")?,
        }
        match &self.addresses {
            Addresses::Local => f.write_str("local")?,
            Addresses::Unknown => f.write_str("unknown")?,
            Addresses::Tcp { source, destination } => write!(f, "{source} to {destination}")?,
            Addresses::Unix { source, destination } => {
                // Escaped: a client chooses its path, and must not end a line of a log by it.
                let (from, to) = (source.to_string_lossy(), destination.to_string_lossy());
                write!(f, "unix:{} to unix:{}", from.escape_debug(), to.escape_debug())?;
            }
        }
        match self.tlvs.len() {
            0 => Ok(()),
            size => write!(f, " and {size} bytes of values"),
        }
    }
}

/// As it is displayed, for the same reason.
impl fmt::Debug for ProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyHeader({self})")
    }
}

#[cfg(all(any(test, fuzzing), unix))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
