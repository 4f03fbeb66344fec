//! What can go wrong with a TLS connection before it is one.

use core::fmt;
use std::io;

use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error,
    pki_types::{ServerName, UnixTime},
};

/// Why there is no TLS connection, or no connector for such.
///
/// Of a dial it is the [source](std::error::Error::source) of the [`DialError`](crate::DialError),
/// whose text contains it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No cryptography was given, and the process has no default.
    #[error("no crypto provider: none was given, and the process has no default")]
    NoProvider,
    /// The cryptography that was given is not enough for any version of TLS.
    #[error("the crypto provider does not serve: {0}")]
    Provider(#[source] Error),
    /// A setting is out of its range.
    #[error("{setting} is {value}, but must be {allowed}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What it was.
        value: usize,
        /// What it may be.
        allowed: &'static str,
    },
    /// A client certificate cannot be used: no chain, a key that cannot be read, or another one's.
    #[error("client certificate {label:?}: {source}")]
    ClientCertificate {
        /// Which.
        label: Box<str>,
        /// Why not.
        source: Error,
    },
    /// The endpoint names a client certificate that the connector was not given.
    #[error("no client certificate is called {label:?}")]
    UnknownClientCertificate {
        /// What the endpoint calls it.
        label: Box<str>,
    },
    /// The endpoint names authorities that the connector was not given.
    #[error("no set of authorities is called {label:?}")]
    UnknownCaSet {
        /// What the endpoint calls them.
        label: Box<str>,
    },
    /// Nobody is known who could vouch for the server.
    #[error("no authority is known that could vouch for a server{}", of_set(label.as_deref()))]
    NoAuthorities {
        /// The endpoint's set; `None` for the connector's own.
        label: Option<Box<str>>,
    },
    /// The endpoint's server name is no name.
    #[error("the server name {name:?} is neither a DNS name nor an IP address")]
    ServerName {
        /// What it is.
        name: Box<str>,
    },
    /// The endpoint offers an application protocol whose name has not 1 to 255 bytes, or more of
    /// them than a handshake holds.
    #[error("the application protocols to offer cannot be: 1 to 255 bytes each, 65,535 in all")]
    Protocols,
    /// The handshake failed: a certificate that is not accepted, on either side, or bytes that are
    /// no handshake.
    #[error("TLS with {server_name}: {}", Said(source))]
    Handshake {
        /// With whom.
        server_name: Box<str>,
        /// Why.
        source: Error,
    },
    /// The server accepted none of the application protocols that were offered, and the connector
    /// requires that it does.
    #[error("TLS with {server_name}: it speaks none of the application protocols {offered}")]
    NoProtocol {
        /// With whom.
        server_name: Box<str>,
        /// What was offered, the preferred one first.
        offered: Box<str>,
    },
    /// The server closed the connection within the handshake, without a word.
    #[error("TLS with {server_name}: it closed the connection within the handshake")]
    Closed {
        /// With whom.
        server_name: Box<str>,
    },
    /// The connection broke within the handshake.
    #[error("TLS with {server_name}: the connection broke within the handshake: {source}")]
    Io {
        /// With whom.
        server_name: Box<str>,
        /// How.
        source: io::Error,
    },
}

impl TlsError {
    /// What the end of a handshake means.
    pub(super) fn of_handshake(server_name: &str, offered: &str, error: io::Error) -> Self {
        let server_name = server_name.into();
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed { server_name };
        }
        match error.downcast::<Error>() {
            Ok(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                Self::NoProtocol { server_name, offered: offered.into() }
            }
            Ok(source) => Self::Handshake { server_name, source },
            Err(source) => Self::Io { server_name, source },
        }
    }

    /// Whether it is about the connector and what the endpoint asks of it, so that it says nothing
    /// of the server.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::NoProvider
            | Self::Provider(_)
            | Self::Setting { .. }
            | Self::ClientCertificate { .. }
            | Self::UnknownClientCertificate { .. }
            | Self::UnknownCaSet { .. }
            | Self::NoAuthorities { .. }
            | Self::ServerName { .. }
            | Self::Protocols => true,
            Self::Handshake { .. }
            | Self::NoProtocol { .. }
            | Self::Closed { .. }
            | Self::Io { .. } => false,
        }
    }
}

fn of_set(label: Option<&str>) -> String {
    label.map(|label| format!(": the set {label:?} is empty")).unwrap_or_default()
}

/// What the failures mean that occur; rustls' words for the others.
struct Said<'a>(&'a Error);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::InvalidCertificate(error) => certificate(error, f),
            Error::InvalidMessage(why) => write!(f, "what it sent is no TLS ({why:?})"),
            Error::PeerSentOversizedRecord => f.write_str("what it sent is no TLS (too long)"),
            Error::AlertReceived(alert) => match alert {
                AlertDescription::UnrecognisedName => f.write_str("it serves no such name"),
                AlertDescription::ProtocolVersion => {
                    f.write_str("it speaks no version of TLS that is spoken here")
                }
                AlertDescription::HandshakeFailure => {
                    f.write_str("it has nothing in common with what was offered (HandshakeFailure)")
                }
                AlertDescription::CertificateRequired => {
                    f.write_str("it requires a client certificate")
                }
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied => {
                    write!(f, "it does not accept our certificate ({alert:?})")
                }
                alert => write!(f, "it ended the handshake ({alert:?})"),
            },
            other => other.fmt(f),
        }
    }
}

fn certificate(error: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        CertificateError::Expired => f.write_str("its certificate has expired"),
        CertificateError::ExpiredContext { time, not_after } => {
            write!(f, "its certificate has expired, {} ago", Span::between(*not_after, *time))
        }
        CertificateError::NotValidYet => f.write_str("its certificate is not valid yet"),
        CertificateError::NotValidYetContext { time, not_before } => {
            let span = Span::between(*time, *not_before);
            write!(f, "its certificate is not valid yet, but in {span}")
        }
        CertificateError::UnknownIssuer => {
            f.write_str("its certificate was issued by no authority that is known here")
        }
        CertificateError::BadSignature => {
            f.write_str("its certificate was not signed by the authority that it names")
        }
        CertificateError::NotValidForName => f.write_str("its certificate is for another name"),
        CertificateError::NotValidForNameContext { expected, presented } => {
            names(expected, presented, f)
        }
        other => write!(f, "its certificate is not accepted: {other}"),
    }
}

/// The most names to tell of a certificate: one may have thousands, and an error is logged.
const NAMES: usize = 8;

fn names(
    expected: &ServerName<'_>,
    presented: &[String],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "its certificate is not for {:?}, but for ", expected.to_str())?;
    if presented.is_empty() {
        return f.write_str("no name");
    }
    for (place, name) in presented.iter().take(NAMES).enumerate() {
        let before = if place == 0 { "" } else { ", " };
        f.write_str(before)?;
        // rustls escapes them.
        f.write_str(name)?;
    }
    match presented.len().checked_sub(NAMES) {
        None | Some(0) => Ok(()),
        Some(more) => write!(f, " and {more} more"),
    }
}

/// Seconds, in the unit that tells most.
struct Span(u64);

impl Span {
    fn between(from: UnixTime, to: UnixTime) -> Self {
        Self(to.as_secs().saturating_sub(from.as_secs()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOUR: u64 = 60 * 60;
        const DAY: u64 = 24 * HOUR;
        match self.0 {
            ..HOUR => write!(f, "{} s", self.0),
            HOUR..DAY => write!(f, "{} h", self.0 / HOUR),
            DAY.. => write!(f, "{} days", self.0 / DAY),
        }
    }
}
