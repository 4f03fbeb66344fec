//! Where a connection goes: the identity of a group.

use core::{fmt, str::FromStr};
use std::{net::SocketAddr, sync::Arc};

/// Everything that makes two connections interchangeable. Compared in full, never by hash alone.
///
/// ```
/// use corepool::Endpoint;
///
/// let by_address: Endpoint = "127.0.0.1:8080".parse()?;
/// let by_name: Endpoint = "localhost:8080".parse()?;
/// assert_ne!(by_address, by_name);
/// assert_eq!(by_name, Endpoint::host("localhost", 8080));
/// # Ok::<(), corepool::ParseEndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    address: Address,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Address {
    Ip(SocketAddr),
    Host(Arc<str>, u16),
}

impl Endpoint {
    /// A host by name, resolved at each dial by the system's resolver.
    pub fn host(name: impl Into<Arc<str>>, port: u16) -> Self {
        Self { address: Address::Host(name.into(), port) }
    }

    /// The addresses to dial, one after the other until one answers.
    #[cfg(not(loom))]
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        match &self.address {
            Address::Ip(address) => Ok(vec![*address]),
            Address::Host(name, port) => {
                Ok(tokio::net::lookup_host((&**name, *port)).await?.collect())
            }
        }
    }

    /// The address, when there is nothing to resolve.
    pub(crate) fn as_ip(&self) -> Option<SocketAddr> {
        match &self.address {
            Address::Ip(address) => Some(*address),
            Address::Host(..) => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address: Address::Ip(address) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Ip(address) => address.fmt(f),
            Address::Host(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an endpoint: expected host:port, 1.2.3.4:port or [::1]:port, port 1 to 65535"
)]
pub struct ParseEndpointError(String);

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseEndpointError(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(error()) } else { Ok(Self::from(address)) };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
            return Err(error());
        }
        Ok(Self::host(name, port))
    }
}

/// The longest host name in text form, RFC 1035 §2.3.4.
const MAX_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        for text in ["10.0.0.1:80", "[::1]:443", "example.org:8080", "a_b:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert!("10.0.0.1:80".parse::<Endpoint>().unwrap().as_ip().is_some());
        assert!("localhost:80".parse::<Endpoint>().unwrap().as_ip().is_none());
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_text() {
        let long = format!("{}:80", "a".repeat(254));
        for text in [
            "",
            "localhost",
            ":80",
            "host:",
            "host:0",
            "1.2.3.4:0",
            "host:99999",
            "a b:1",
            "::1:80",
            long.as_str(),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains("is not an endpoint"), "{error}");
        }
    }
}
