//! What a TLS connector is made of.

use core::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use super::{
    Inner, TlsConnector, TlsError,
    identities::{Credentials, Identities, Limits},
};

/// Makes a [`TlsConnector`]. Labels are what endpoints call things by
/// ([`TlsIdentity`](crate::TlsIdentity)).
#[must_use]
pub struct TlsConnectorBuilder {
    provider: Option<Arc<CryptoProvider>>,
    credentials: Credentials,
    certificates: Vec<(Box<str>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    handshakes: usize,
    limits: Limits,
    requires_alpn: bool,
}

impl TlsConnectorBuilder {
    pub(super) fn new() -> Self {
        Self {
            provider: None,
            credentials: Credentials::default(),
            certificates: Vec::new(),
            handshakes: HANDSHAKES,
            limits: Limits { identities: IDENTITIES, sessions: SESSIONS },
            requires_alpn: false,
        }
    }

    /// Who may vouch for a server whose endpoint names no set of authorities. By default nobody:
    /// such an endpoint's dials fail, unless it verifies nothing.
    pub fn authorities(mut self, authorities: impl Into<Arc<RootCertStore>>) -> Self {
        self.credentials.authorities = Some(authorities.into());
        self
    }

    /// A set of authorities for endpoints that name it.
    pub fn ca_set(
        mut self,
        label: impl Into<Box<str>>,
        authorities: impl Into<Arc<RootCertStore>>,
    ) -> Self {
        self.credentials.ca_sets.insert(label.into(), authorities.into());
        self
    }

    /// A client certificate for endpoints that name it: the chain with the client's own first, and
    /// the key to that.
    pub fn client_certificate(
        mut self,
        label: impl Into<Box<str>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        self.certificates.push((label.into(), chain, key));
        self
    }

    /// The cryptography. Default: the process's ([`CryptoProvider::get_default`]).
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// How many handshakes may be under way at once, over all shards and endpoints; the others wait
    /// their turn with their sockets connected, which counts towards the dial's total timeout.
    ///
    /// Default 256. A full handshake takes a shard some 0.4 ms of its thread, a resumed one 0.16
    /// (ring, P-256): after an outage thousands at once would all end late, and those that run out
    /// of time would have taken that for nothing. A server that is slow holds its places no longer
    /// than the total timeout.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// How many sessions to keep of each identity for later handshakes; 0 for none, so that each is
    /// a full one. Default 16, one or two kilobytes each: a server gives about two tickets for each
    /// connection, and one is used for each dial.
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.limits.sessions = sessions;
        self
    }

    /// How many identities to keep a configuration and sessions of; above it, the one that was not
    /// dialled for longest is forgotten, and set up again by its next dial. Default 1024.
    ///
    /// An identity's first dial copies a table of that length.
    pub fn max_identities(mut self, identities: usize) -> Self {
        self.limits.identities = identities;
        self
    }

    /// Whether a server has to choose one of the application protocols, where its endpoint offers
    /// any. Default no: a server that knows nothing of ALPN chooses none, and then the endpoint's
    /// user takes what the protocol is for granted.
    pub fn require_alpn(mut self, required: bool) -> Self {
        self.requires_alpn = required;
        self
    }

    /// Makes the connector.
    ///
    /// # Errors
    /// Without any cryptography, or one that is not enough for TLS; with a client certificate that
    /// cannot be used, or a number out of its range.
    pub fn build(mut self) -> Result<TlsConnector, TlsError> {
        let provider = self.provider.or_else(|| CryptoProvider::get_default().cloned());
        let provider = provider.ok_or(TlsError::NoProvider)?;
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Provider)?;
        in_range("max_handshakes", self.handshakes)?;
        in_range("max_identities", self.limits.identities)?;
        if self.limits.sessions > MOST {
            return Err(out_of_range("sessions", self.limits.sessions, "0 to 65,536"));
        }
        for (label, chain, key) in self.certificates {
            let certificate = Identities::certificate(&provider, &label, chain, key)?;
            self.credentials.certificates.insert(label, certificate);
        }
        Ok(TlsConnector(Arc::new(Inner {
            identities: Identities::new(provider, self.credentials, self.limits),
            handshakes: Semaphore::new(self.handshakes),
            requires_alpn: self.requires_alpn,
        })))
    }
}

const HANDSHAKES: usize = 256;
const IDENTITIES: usize = 1024;
const SESSIONS: usize = 16;
/// The most of anything.
const MOST: usize = 65_536;

fn in_range(setting: &'static str, value: usize) -> Result<(), TlsError> {
    let fits = (1..=MOST).contains(&value);
    if fits { Ok(()) } else { Err(out_of_range(setting, value, "1 to 65,536")) }
}

fn out_of_range(setting: &'static str, value: usize, allowed: &'static str) -> TlsError {
    TlsError::Setting { setting, value, allowed }
}

impl fmt::Debug for TlsConnectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnectorBuilder")
            .field("max_handshakes", &self.handshakes)
            .field("limits", &self.limits)
            .field("require_alpn", &self.requires_alpn)
            .finish_non_exhaustive()
    }
}
