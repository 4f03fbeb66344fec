//! Pools TLS connections, by rustls.
//!
//! Each TLS identity has a configuration of its own, and with it its own sessions: what one
//! identity agreed on with a server is never resumed as another. The handshake runs on the shard's
//! thread; a connection at rest is a socket that nobody reads, as any other, and a look at it deals
//! with the records of the session itself.

mod builder;
mod error;
mod identities;
mod rest;
mod sessions;
mod stream;
mod verify;

use core::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use self::identities::Identities;
pub use self::{builder::TlsConnectorBuilder, error::TlsError, stream::TlsStream};
use super::Connector;
use crate::{BoxError, Endpoint, Socket, Stream, TlsIdentity};

/// Pools [`TlsStream`]s: under TLS to an endpoint that has a [`TlsIdentity`], plain to one without,
/// so that one pool serves `https` and `http` endpoints.
///
/// The handshake counts towards a dial's total timeout (`timeouts.total_connect_timeout_ms`); the
/// connect timeout is for TCP alone. How it fails is told by a [`TlsError`], the source of the
/// [`DialError`](crate::DialError). A server that rejects the client's certificate in TLS 1.3 says
/// so after the handshake only: the first read fails, or, at rest, the next look at the connection.
///
/// A clone is the same connector: keep one to change certificates under way.
///
/// ```no_run
/// use corepool::{Endpoint, Http1Connector, Pool, TlsConnector, TlsIdentity};
/// use http_body_util::Empty;
/// use hyper::body::Bytes;
/// use tokio_rustls::rustls::{RootCertStore, crypto::ring, pki_types::CertificateDer};
///
/// # fn make(authority: CertificateDer<'static>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut authorities = RootCertStore::empty();
/// authorities.add(authority)?;
/// let tls = TlsConnector::builder()
///     .authorities(authorities)
///     .crypto_provider(ring::default_provider().into())
///     .build()?;
/// let pool = Pool::builder(Http1Connector::<Empty<Bytes>>::new().over(tls)).build()?;
/// let secure = Endpoint::host("example.org", 443).with_tls(TlsIdentity::new("example.org"));
/// let group = pool.group(secure);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsConnector(Arc<Inner>);

struct Inner {
    identities: Identities,
    handshakes: Semaphore,
    requires_alpn: bool,
}

impl TlsConnector {
    /// A connector without authorities and client certificates, as yet.
    pub fn builder() -> TlsConnectorBuilder {
        TlsConnectorBuilder::new()
    }

    /// Changes who may vouch for a server whose endpoint names no set of authorities. From here on
    /// dials go by it, and resume no session from before; connections that live stay as they are
    /// ([`Group::evict`](crate::Group::evict) ends them).
    pub fn replace_authorities(&self, authorities: impl Into<Arc<RootCertStore>>) {
        let authorities = authorities.into();
        self.0.identities.change(|all| all.authorities = Some(Arc::clone(&authorities)));
    }

    /// Adds a set of authorities, or changes it, as [`Self::replace_authorities`] does.
    pub fn replace_ca_set(
        &self,
        label: impl Into<Box<str>>,
        authorities: impl Into<Arc<RootCertStore>>,
    ) {
        let (label, authorities) = (label.into(), authorities.into());
        self.0.identities.change(|all| {
            all.ca_sets.insert(label.clone(), Arc::clone(&authorities));
        });
    }

    /// Adds a client certificate, or changes it, as [`Self::replace_authorities`] does.
    ///
    /// # Errors
    /// When it cannot be used: no chain, a key that cannot be read, or another one's. Then the old
    /// one stays.
    pub fn replace_client_certificate(
        &self,
        label: impl Into<Box<str>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        let (label, identities) = (label.into(), &self.0.identities);
        let certificate = Identities::certificate(identities.provider(), &label, chain, key)?;
        identities.change(|all| {
            all.certificates.insert(label.clone(), Arc::clone(&certificate));
        });
        Ok(())
    }

    async fn handshake(
        &self,
        stream: Stream,
        identity: &TlsIdentity,
    ) -> Result<TlsStream, TlsError> {
        // An error of it is none of the semaphore, which nobody closes.
        let turn = self.0.handshakes.acquire().await;
        // Not before our turn: certificates may have changed meanwhile.
        let known = self.0.identities.get(identity)?;
        let handshake = tokio_rustls::TlsConnector::from(Arc::clone(&known.config))
            .connect(known.server_name.clone(), stream);
        let failed = |error| TlsError::of_handshake(identity.server_name(), &known.offered, error);
        let stream = TlsStream::secured(handshake.await.map_err(failed)?);
        drop(turn);
        let is_offered = identity.alpn().len() > 0;
        if self.0.requires_alpn && is_offered && stream.alpn_protocol().is_none() {
            return Err(TlsError::NoProtocol {
                server_name: identity.server_name().into(),
                offered: known.offered.clone(),
            });
        }
        Ok(stream)
    }
}

impl Connector for TlsConnector {
    type Connection = TlsStream;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<TlsStream, BoxError> {
        let stream = socket.into_stream()?;
        match endpoint.tls() {
            Some(identity) => Ok(self.handshake(stream, identity).await?),
            None => Ok(TlsStream::plain(stream)),
        }
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector")
            .field("free_handshakes", &self.0.handshakes.available_permits())
            .field("require_alpn", &self.0.requires_alpn)
            .finish_non_exhaustive()
    }
}
