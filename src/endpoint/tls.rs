//! The TLS part of an endpoint.

use core::fmt;

/// As whom a connection speaks TLS, and whom it accepts: what must agree for two connections to
/// be interchangeable. Only names, no keys; the connector that speaks TLS looks those up.
///
/// ```
/// use corepool::{TlsIdentity, Verification};
///
/// let tls = TlsIdentity::new("example.org").with_alpn(["h2", "http/1.1"]);
/// assert_eq!(tls.server_name(), "example.org");
/// assert_eq!(tls.verification(), Verification::Full);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsIdentity {
    server_name: Box<str>,
    alpn: Box<[Box<[u8]>]>,
    client_certificate: Option<Box<str>>,
    ca_set: Option<Box<str>>,
    verification: Verification,
}

/// What is checked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Verification {
    /// That a known authority issued it, and for the server's name.
    #[default]
    Full,
    /// That a known authority issued it, for whatever name.
    ChainOnly,
    /// Nothing: whoever is in between can be the server.
    Off,
}

impl TlsIdentity {
    /// TLS with a server of this name, which is sent as SNI (RFC 6066 §3) and verified. No ALPN,
    /// no client certificate, the connector's own authorities, [`Verification::Full`].
    pub fn new(server_name: impl Into<Box<str>>) -> Self {
        Self {
            server_name: server_name.into(),
            alpn: Box::default(),
            client_certificate: None,
            ca_set: None,
            verification: Verification::Full,
        }
    }

    /// The application protocols to offer, the preferred one first (RFC 7301): 1 to 255 bytes
    /// each.
    #[must_use]
    pub fn with_alpn(mut self, protocols: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        self.alpn = protocols.into_iter().map(|protocol| protocol.as_ref().into()).collect();
        self
    }

    /// The client's certificate, by fingerprint or by a label that the connector knows. Not the
    /// certificate, and above all not its key: it shows in logs.
    #[must_use]
    pub fn with_client_certificate(mut self, label: impl Into<Box<str>>) -> Self {
        self.client_certificate = Some(label.into());
        self
    }

    /// The authorities that may vouch for the server, by a label that the connector knows.
    #[must_use]
    pub fn with_ca_set(mut self, label: impl Into<Box<str>>) -> Self {
        self.ca_set = Some(label.into());
        self
    }

    /// What is checked of the server's certificate.
    #[must_use]
    pub fn with_verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// The server's name.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The application protocols to offer.
    pub fn alpn(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.alpn.iter().map(|protocol| &**protocol)
    }

    /// The label of the client's certificate.
    pub fn client_certificate(&self) -> Option<&str> {
        self.client_certificate.as_deref()
    }

    /// The label of the authorities.
    pub fn ca_set(&self) -> Option<&str> {
        self.ca_set.as_deref()
    }

    /// What is checked of the server's certificate.
    pub fn verification(&self) -> Verification {
        self.verification
    }
}

/// `tls example.org`, followed by what differs from the defaults.
impl fmt::Display for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls {}", self.server_name.escape_debug())?;
        for (place, protocol) in self.alpn.iter().enumerate() {
            let before = if place == 0 { " alpn " } else { "/" };
            write!(f, "{before}{}", protocol.escape_ascii())?;
        }
        if let Some(label) = &self.client_certificate {
            write!(f, " client certificate {}", label.escape_debug())?;
        }
        if let Some(label) = &self.ca_set {
            write!(f, " authorities {}", label.escape_debug())?;
        }
        match self.verification {
            Verification::Full => Ok(()),
            Verification::ChainOnly => f.write_str(" name not verified"),
            Verification::Off => f.write_str(" not verified"),
        }
    }
}
