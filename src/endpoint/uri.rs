//! The endpoint that an HTTP URI names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::Uri;

use super::{Endpoint, TlsIdentity, address};

/// A URI that names no endpoint. Shows neither its path nor what stands before an `@`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It has no scheme, so neither a default port nor whether TLS is spoken is known.
    #[error("a URI without a scheme names no endpoint")]
    NoScheme,
    /// Its scheme is another one than `http` and `https`.
    #[error("{0:?} is neither http nor https")]
    Scheme(String),
    /// It has no host.
    #[error("a URI without a host names no endpoint")]
    NoHost,
    /// Its host is neither a name nor an address.
    #[error("{0:?} is neither a host's name nor an address")]
    Host(String),
    /// Its port is none of 1 to 65535.
    #[error("{0:?} is no port: expected 1 to 65535")]
    Port(String),
}

/// The host and the port of an `http` or `https` URI; without a port 80 or 443.
///
/// The endpoint of an `https` URI has a [`TlsIdentity`] for its host, with nothing else set; only a
/// connector that speaks TLS honours it. A name is taken in small letters, because names that
/// differ in nothing else are one host (RFC 3986 §3.2.2). Users and passwords are passed over.
///
/// ```
/// use corepool::Endpoint;
/// use hyper::Uri;
///
/// let uri = Uri::from_static("http://Example.org/index.html");
/// assert_eq!(Endpoint::try_from(&uri)?, Endpoint::host("example.org", 80));
/// let uri = Uri::from_static("http://[::1]:8080/");
/// assert_eq!(Endpoint::try_from(&uri)?, "[::1]:8080".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl TryFrom<&Uri> for Endpoint {
    type Error = UriError;

    fn try_from(uri: &Uri) -> Result<Self, UriError> {
        let (default_port, is_tls) = match uri.scheme_str() {
            Some("http") => (80, false),
            Some("https") => (443, true),
            Some(other) => return Err(UriError::Scheme(other.to_owned())),
            None => return Err(UriError::NoScheme),
        };
        let authority = uri.authority().ok_or(UriError::NoHost)?.as_str();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
        let (host, port) = split(authority);
        let port = match port {
            None | Some("") => default_port,
            Some(port) => parse_port(port).ok_or_else(|| UriError::Port(port.to_owned()))?,
        };
        let name = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) if ip.parse::<Ipv6Addr>().is_ok() => ip,
            Some(_) => return Err(UriError::Host(host.to_owned())),
            None => host,
        };
        let endpoint = match name.parse::<IpAddr>() {
            Ok(ip) => Self::from(SocketAddr::new(ip, port)),
            Err(_) if name.is_empty() => return Err(UriError::NoHost),
            Err(_) if address::is_name(name) => Self::host(name.to_ascii_lowercase(), port),
            Err(_) => return Err(UriError::Host(host.to_owned())),
        };
        let identity = || TlsIdentity::new(name.to_ascii_lowercase());
        Ok(if is_tls { endpoint.with_tls(identity()) } else { endpoint })
    }
}

/// The host, and what stands after the colon that follows it. Not by [`Uri::port_u16`], which
/// answers "none" for a port that is out of range.
fn split(authority: &str) -> (&str, Option<&str>) {
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[end_of_host..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(end_of_host + colon);
            (host, Some(&port[1..]))
        }
        None => (authority, None),
    }
}

/// Digits alone: `u16` would take a sign as well.
fn parse_port(text: &str) -> Option<u16> {
    let digits = Some(text).filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
    digits?.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(uri: &str) -> Result<Endpoint, UriError> {
        Endpoint::try_from(&uri.parse::<Uri>().unwrap_or_else(|error| panic!("{uri}: {error}")))
    }

    #[test]
    fn a_uri_names_a_host_and_a_port() {
        for (uri, named) in [
            ("http://example.org", "example.org:80"),
            ("http://example.org/a:b@c?d", "example.org:80"),
            ("http://example.org:/", "example.org:80"),
            ("http://example.org:8080/", "example.org:8080"),
            ("HTTP://EXAMPLE.org:00080/", "example.org:80"),
            ("http://me:secret@example.org/", "example.org:80"),
            ("http://me:1@127.0.0.1:2/", "127.0.0.1:2"),
            ("http://[::1]/", "[::1]:80"),
            ("http://[::1]:65535/", "[::1]:65535"),
            ("http://[0:0:0:0:0:0:0:1]/", "[::1]:80"),
            ("http://[::ffff:10.0.0.1]/", "[::ffff:10.0.0.1]:80"),
        ] {
            assert_eq!(endpoint(uri), Ok(named.parse().unwrap()), "{uri}");
        }
        // Which is no path, although its text is that of one.
        assert_eq!(endpoint("http://unix"), Ok(Endpoint::host("unix", 80)));
    }

    #[test]
    fn https_asks_for_tls_with_its_host() {
        for (uri, named, server) in [
            ("https://Example.org", "example.org:443", "example.org"),
            ("https://example.org:80", "example.org:80", "example.org"),
            ("https://[::1]", "[::1]:443", "::1"),
        ] {
            let named: Endpoint = named.parse().unwrap();
            assert_eq!(endpoint(uri), Ok(named.with_tls(TlsIdentity::new(server))), "{uri}");
        }
    }

    #[test]
    fn what_names_no_endpoint_is_told_apart() {
        let text = str::to_owned;
        for (uri, error) in [
            ("/index.html", UriError::NoScheme),
            ("example.org:80", UriError::NoScheme),
            ("ftp://example.org/", UriError::Scheme(text("ftp"))),
            ("http+unix://run/", UriError::Scheme(text("http+unix"))),
            ("http://:80/", UriError::NoHost),
            ("http://me@:80/", UriError::NoHost),
            ("http://example.org:0/", UriError::Port(text("0"))),
            ("http://example.org:65536/", UriError::Port(text("65536"))),
            ("http://[::1]:99999/", UriError::Port(text("99999"))),
            ("http://[127.0.0.1]/", UriError::Host(text("[127.0.0.1]"))),
            ("http://exa!mple.org/", UriError::Host(text("exa!mple.org"))),
        ] {
            assert_eq!(endpoint(uri), Err(error), "{uri}");
        }
    }

    #[test]
    fn a_password_is_not_told() {
        let error = endpoint("http://me:secret@[::1]:0/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}
