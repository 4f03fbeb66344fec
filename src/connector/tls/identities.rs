//! What a TLS identity stands for: certificates and authorities by their labels, and for each
//! identity in use one configuration of rustls, with the sessions that it may resume.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{error::TlsError, sessions::Sessions, verify::AnyName};
use crate::{
    TlsIdentity, Verification,
    sync::{AtomicU64, Ordering},
};

/// What the labels mean, and the configurations made of it.
///
/// Two immutable tables, each swapped as a whole: a dial reads them without a lock. A configuration
/// remembers what it was made of, and one whose label means something else by now is made anew.
#[derive(Debug)]
pub(super) struct Identities {
    provider: Arc<CryptoProvider>,
    credentials: ArcSwap<Credentials>,
    known: ArcSwap<Table>,
    limits: Limits,
    /// One for each use of an identity: tells who was used last.
    uses: AtomicU64,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Identities.
    pub(super) identities: usize,
    /// Sessions of each.
    pub(super) sessions: usize,
}

type Labelled<T> = HashMap<Box<str>, Arc<T>>;

/// What the labels mean.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    pub(super) authorities: Option<Arc<RootCertStore>>,
    pub(super) ca_sets: Labelled<RootCertStore>,
    pub(super) certificates: Labelled<CertifiedKey>,
}

type Table = HashMap<Arc<TlsIdentity>, Arc<Known>>;

/// An identity in use.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    /// What it was offered as, for people.
    pub(super) offered: Box<str>,
    meaning: Meaning,
    last_use: AtomicU64,
}

/// What an identity's labels mean at a time.
#[derive(Debug)]
struct Meaning {
    roots: Option<Arc<RootCertStore>>,
    certificate: Option<Arc<CertifiedKey>>,
}

impl Identities {
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        credentials: Credentials,
        limits: Limits,
    ) -> Self {
        Self {
            provider,
            credentials: ArcSwap::from_pointee(credentials),
            known: ArcSwap::default(),
            limits,
            uses: AtomicU64::new(0),
        }
    }

    /// Changes what labels mean. What was dialled before stays as it is.
    pub(super) fn change(&self, change: impl Fn(&mut Credentials)) {
        self.credentials.rcu(|old| {
            let mut new = Credentials::clone(old);
            change(&mut new);
            new
        });
    }

    /// Reads a client certificate.
    pub(super) fn certificate(
        provider: &CryptoProvider,
        label: &str,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        let read = CertifiedKey::from_der(chain, key, provider);
        let failed = |source| TlsError::ClientCertificate { label: label.into(), source };
        read.map(Arc::new).map_err(failed)
    }

    pub(super) fn provider(&self) -> &CryptoProvider {
        &self.provider
    }

    /// What to dial with as this identity, from now on.
    pub(super) fn get(&self, identity: &TlsIdentity) -> Result<Arc<Known>, TlsError> {
        let meaning = Meaning::of(identity, &self.credentials.load())?;
        // Relaxed: who was used last is a matter of policy.
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        if let Some(known) = self.known.load().get(identity)
            && known.meaning.is(&meaning)
        {
            known.last_use.store(now, Ordering::Relaxed);
            return Ok(Arc::clone(known));
        }
        let mut made = Arc::new(self.make(identity, meaning, now)?);
        let key = Arc::new(identity.clone());
        self.known.rcu(|table| {
            // Another dial as the same identity came first: one store of sessions for both.
            if let Some(first) = table.get(identity)
                && first.meaning.is(&made.meaning)
            {
                made = Arc::clone(first);
                return Arc::clone(table);
            }
            let mut table = Table::clone(table);
            if table.len() >= self.limits.identities
                && !table.contains_key(identity)
                && let Some(last) = least_used(&table)
            {
                table.remove(&last);
            }
            // Out and in, so that the key is the new one too.
            table.remove(identity);
            table.insert(Arc::clone(&key), Arc::clone(&made));
            Arc::new(table)
        });
        Ok(made)
    }

    fn make(&self, identity: &TlsIdentity, meaning: Meaning, now: u64) -> Result<Known, TlsError> {
        let name = identity.server_name();
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::ServerName { name: name.into() })?;
        let verifier = self.verifier(identity, meaning.roots.as_ref())?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Provider)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &meaning.certificate {
            Some(key) => {
                let key = SingleCertAndKey::from(CertifiedKey::clone(key));
                builder.with_client_cert_resolver(Arc::new(key))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols(identity)?;
        config.resumption = match self.limits.sessions {
            0 => Resumption::disabled(),
            sessions => Resumption::store(Arc::new(Sessions::new(sessions))),
        };
        let offered: Vec<_> =
            identity.alpn().map(|protocol| protocol.escape_ascii().to_string()).collect();
        Ok(Known {
            config: Arc::new(config),
            server_name,
            offered: offered.join(", ").into(),
            meaning,
            last_use: AtomicU64::new(now),
        })
    }

    fn verifier(
        &self,
        identity: &TlsIdentity,
        roots: Option<&Arc<RootCertStore>>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let algorithms = self.provider.signature_verification_algorithms;
        if identity.verification() == Verification::Off {
            return Ok(Arc::new(AnyName { roots: None, algorithms }));
        }
        let label = identity.ca_set().map(Box::from);
        let Some(roots) = roots.filter(|roots| !roots.is_empty()).map(Arc::clone) else {
            return Err(TlsError::NoAuthorities { label });
        };
        if identity.verification() == Verification::ChainOnly {
            return Ok(Arc::new(AnyName { roots: Some(roots), algorithms }));
        }
        let provider = Arc::clone(&self.provider);
        match WebPkiServerVerifier::builder_with_provider(roots, provider).build() {
            Ok(verifier) => Ok(verifier),
            // It only looks whether there are any.
            Err(_) => Err(TlsError::NoAuthorities { label }),
        }
    }
}

impl Meaning {
    fn of(identity: &TlsIdentity, credentials: &Credentials) -> Result<Self, TlsError> {
        let roots = match identity.ca_set() {
            None => credentials.authorities.clone(),
            Some(label) => match credentials.ca_sets.get(label) {
                Some(roots) => Some(Arc::clone(roots)),
                None => return Err(TlsError::UnknownCaSet { label: label.into() }),
            },
        };
        let certificate = match identity.client_certificate() {
            None => None,
            Some(label) => match credentials.certificates.get(label) {
                Some(certificate) => Some(Arc::clone(certificate)),
                None => return Err(TlsError::UnknownClientCertificate { label: label.into() }),
            },
        };
        Ok(Self { roots, certificate })
    }

    /// Whether the labels still mean the very same. By address: a configuration holds what it was
    /// made of, so that nothing else is there meanwhile.
    fn is(&self, other: &Self) -> bool {
        fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
        }
        same(self.roots.as_ref(), other.roots.as_ref())
            && same(self.certificate.as_ref(), other.certificate.as_ref())
    }
}

fn least_used(table: &Table) -> Option<Arc<TlsIdentity>> {
    let last_use = |known: &Known| known.last_use.load(Ordering::Relaxed);
    let (identity, _) = table.iter().min_by_key(|(_, known)| last_use(known))?;
    Some(Arc::clone(identity))
}

fn protocols(identity: &TlsIdentity) -> Result<Vec<Vec<u8>>, TlsError> {
    let protocols: Vec<_> = identity.alpn().map(<[u8]>::to_vec).collect();
    let fits = protocols.iter().all(|protocol| (1..=255).contains(&protocol.len()));
    // Each goes with its length, in a byte.
    let total: usize = protocols.iter().map(|protocol| protocol.len() + 1).sum();
    if fits && u16::try_from(total).is_ok() { Ok(protocols) } else { Err(TlsError::Protocols) }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::crypto::ring;

    use super::*;

    #[test]
    fn no_more_identities_are_kept_than_may_be() {
        let limits = Limits { identities: 4, sessions: 1 };
        let provider = ring::default_provider().into();
        let identities = Identities::new(provider, Credentials::default(), limits);
        for round in 0..3 {
            for number in 0..10 {
                let identity =
                    TlsIdentity::new(format!("{number}.test")).with_verification(Verification::Off);
                let known = identities.get(&identity).unwrap();
                assert!(Arc::ptr_eq(&known, &identities.get(&identity).unwrap()));
                let kept = identities.known.load().len();
                assert_eq!(kept, if round == 0 { 4.min(number + 1) } else { 4 });
            }
        }
    }
}
