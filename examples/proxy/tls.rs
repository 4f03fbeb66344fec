//! TLS on both sides: who may vouch for origins, and what clients are shown.

use core::fmt;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use corepool::TlsConnector;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::{args::Args, proxy::StartError, upstream::Transport};

/// A file that is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {}: {cause}", path.display())]
pub(crate) struct FileError {
    flag: &'static str,
    path: PathBuf,
    cause: String,
}

/// What clients are shown; cheap to clone.
#[derive(Clone)]
pub(crate) struct Shown(pub(crate) TlsAcceptor);

/// Builds with a C compiler alone.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What carries the bytes to origins.
pub(crate) fn transport(args: &Args) -> Result<Transport, StartError> {
    let mut builder = TlsConnector::builder().crypto_provider(provider());
    // To read the system's takes a moment, and is for nothing where nobody speaks TLS.
    if args.ca.is_some() || args.upstreams.iter().any(|upstream| upstream.tls().is_some()) {
        builder = builder.authorities(authorities(args.ca.as_deref())?);
    }
    Ok(builder.build()?)
}

/// Who may vouch for origins: the file's authorities, or without one the system's.
fn authorities(file: Option<&Path>) -> Result<RootCertStore, FileError> {
    let mut authorities = RootCertStore::empty();
    let Some(path) = file else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "not all of the system's authorities can be read");
        }
        let (added, ignored) = authorities.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, "the system's authorities");
        return Ok(authorities);
    };
    let wrong = wrong("--ca", path);
    for certificate in certificates(path, &wrong)? {
        authorities.add(certificate).map_err(|error| wrong(&error))?;
    }
    Ok(authorities)
}

impl Shown {
    /// The chain of certificates, the proxy's own first, and the key to that.
    pub(crate) fn read(chain_path: &Path, key_path: &Path) -> Result<Self, FileError> {
        let wrong_chain = wrong("--tls-cert", chain_path);
        let chain = certificates(chain_path, &wrong_chain)?;
        let wrong_key = wrong("--tls-key", key_path);
        let pem = fs::read(key_path).map_err(|error| wrong_key(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                wrong_key(&"no private key (PEM) is in it")
            }
            error => wrong_key(&error),
        })?;
        let builder = ServerConfig::builder_with_provider(provider());
        // An error of it could not be the file's.
        let builder = builder.with_safe_default_protocol_versions().map_err(|e| wrong_chain(&e))?;
        let config = builder.with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let chain = chain_path.display();
                wrong_key(&format_args!("it is not the key of the certificate in {chain}"))
            }
            rustls::Error::InvalidCertificate(_) => wrong_chain(&error),
            error => wrong_key(&error),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

fn certificates(
    path: &Path,
    wrong: &impl Fn(&dyn fmt::Display) -> FileError,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let pem = fs::read(path).map_err(|error| wrong(&error))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| wrong(&error))?;
    if found.is_empty() {
        return Err(wrong(&"no certificate (PEM) is in it"));
    }
    Ok(found)
}

fn wrong(flag: &'static str, path: &Path) -> impl Fn(&dyn fmt::Display) -> FileError {
    move |cause| FileError { flag, path: path.to_owned(), cause: cause.to_string() }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}
