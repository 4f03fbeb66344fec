//! Where a request's URI leads.

use http::{Uri, uri::Scheme};

use crate::{Endpoint, TlsIdentity};

/// Why a URI names no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It has no scheme, or another one than http and https.
    #[error("a URI must begin with http:// or https://")]
    Scheme,
    /// It has no host.
    #[error("a URI must name a host")]
    Host,
    /// Its port is none.
    #[error("a URI's port must be 1 to 65535")]
    Port,
}

/// The endpoint that a URI names: host and port (80 for http, 443 for https), and with https TLS as
/// the host with ALPN for `h2` and `http/1.1`, in this order.
///
/// ```
/// use corepool::{UriError, endpoint_of};
///
/// let endpoint = endpoint_of(&"https://example.org/a".parse()?)?;
/// assert_eq!(endpoint.to_string(), "example.org:443 [tls example.org alpn h2/http/1.1]");
/// assert_eq!(endpoint_of(&"/a".parse()?), Err(UriError::Scheme));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the scheme is neither, or there is no host or no port.
pub fn endpoint_of(uri: &Uri) -> Result<Endpoint, UriError> {
    let is_tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return Err(UriError::Scheme),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(UriError::Host)?;
    let port = match uri.authority().and_then(|authority| authority.as_str().rsplit_once(']')) {
        // What follows an address in brackets, and not its colons.
        Some((_, rest)) => rest.strip_prefix(':').map(str::to_owned),
        None => uri
            .authority()
            .and_then(|authority| authority.as_str().rsplit_once(':'))
            .map(|(_, port)| port.to_owned())
            .filter(|port| !port.contains('@')),
    };
    let port = match port.as_deref() {
        None | Some("") => {
            if is_tls {
                443
            } else {
                80
            }
        }
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(UriError::Port)?,
    };
    let endpoint: Endpoint = format!("{host}:{port}").parse().map_err(|_| UriError::Host)?;
    if !is_tls {
        return Ok(endpoint);
    }
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(endpoint.with_tls(TlsIdentity::new(name).with_alpn(["h2", "http/1.1"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Result<String, UriError> {
        endpoint_of(&uri.parse().unwrap()).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn a_uri_names_an_endpoint() {
        let tls = |name| format!("[tls {name} alpn h2/http/1.1]");
        for (uri, endpoint) in [
            ("http://example.org", "example.org:80".to_owned()),
            ("http://example.org:8080/a?b", "example.org:8080".to_owned()),
            ("http://10.0.0.1/", "10.0.0.1:80".to_owned()),
            ("http://user@10.0.0.1/", "10.0.0.1:80".to_owned()),
            ("http://[::1]/", "[::1]:80".to_owned()),
            ("https://[::1]:8443/", format!("[::1]:8443 {}", tls("::1"))),
            ("https://example.org/", format!("example.org:443 {}", tls("example.org"))),
        ] {
            assert_eq!(of(uri).as_ref(), Ok(&endpoint), "{uri}");
        }
    }

    #[test]
    fn what_names_none_is_refused() {
        for (uri, error) in [
            ("/path", UriError::Scheme),
            ("example.org", UriError::Scheme),
            ("ftp://example.org/", UriError::Scheme),
            ("http://example.org:0/", UriError::Port),
            ("http://example.org:65536/", UriError::Port),
        ] {
            assert_eq!(of(uri), Err(error), "{uri}");
        }
    }
}
