//! How origins are reached: what `--upstream` takes, and the pool's connector.
//!
//! | origin | how |
//! |---|---|
//! | `HOST:PORT`, `unix:/PATH`, `http://HOST[:PORT]` | HTTP/1.1 |
//! | `h2c://HOST:PORT` | HTTP/2, which the origin is known to speak |
//! | `https://HOST[:PORT]` | TLS, and in it HTTP/2 or HTTP/1.1, as the origin chooses by ALPN; its certificate has to be for HOST |

use corepool::{Endpoint, HttpConnector, HttpLease, HttpOrigin, TlsConnector, endpoint_of};
use hyper::Uri;

use crate::upload::Upload;

/// What carries the bytes to an origin: TLS to those of `https`.
pub(crate) type Transport = TlsConnector;

/// What the pool makes connections with.
pub(crate) type Connector = HttpConnector<Upload, Transport>;

/// The pool.
pub(crate) type Pool = corepool::Pool<Connector>;

/// One origin's connections, as requests take them.
pub(crate) type Upstream = HttpOrigin<Upload, Transport>;

/// The same, as operators and statistics see them.
pub(crate) type Group = corepool::Group<Connector>;

/// What carries one request.
pub(crate) type Lease = HttpLease<Upload, Transport>;

/// A response's body, as it comes from an origin.
pub(crate) type Body = corepool::HttpBody<Upload, Transport>;

/// A request that has no response.
pub(crate) type RequestError = corepool::RequestError<Upload>;

/// An origin as the command line names it.
pub(crate) fn upstream(text: &str) -> Result<Endpoint, &'static str> {
    let named = match text.split_once("://") {
        None => text.parse().ok(),
        // A path, a query or a name with a password would have no effect.
        Some((_, rest)) if rest.is_empty() || rest.contains(['/', '?', '#', '@']) => None,
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => text.parse::<Uri>().ok().and_then(|uri| endpoint_of(&uri).ok()),
            "h2c" => rest.parse().ok().map(Endpoint::with_http2),
            _ => None,
        },
    };
    named.ok_or(FORMS)
}

const FORMS: &str = "expected host:port, unix:/path, http://host[:port], https://host[:port] or \
    h2c://host:port, with a port from 1 to 65535";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_named_by_its_address_or_by_a_url() {
        for (text, endpoint) in [
            ("a:81", "a:81"),
            ("[::1]:81", "[::1]:81"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("http://a", "a:80"),
            ("HTTP://a:81", "a:81"),
            ("http://[::1]", "[::1]:80"),
            ("http://10.0.0.1:81", "10.0.0.1:81"),
            ("https://a", "a:443 [tls a alpn h2/http/1.1]"),
            ("https://a:81", "a:81 [tls a alpn h2/http/1.1]"),
            ("https://10.0.0.1", "10.0.0.1:443 [tls 10.0.0.1 alpn h2/http/1.1]"),
            ("https://[::1]:81", "[::1]:81 [tls ::1 alpn h2/http/1.1]"),
            ("h2c://a:81", "a:81 [http/2]"),
            ("H2C://[::1]:81", "[::1]:81 [http/2]"),
        ] {
            let parsed = upstream(text).map(|endpoint| endpoint.to_string());
            assert_eq!(parsed.as_deref(), Ok(endpoint), "{text}");
        }
    }

    #[test]
    fn what_names_no_origin_is_refused_with_the_forms_that_do() {
        for text in [
            "",
            "a",
            "a:0",
            "a:65536",
            "http://",
            "http://a/",
            "http://a/path",
            "http://a?b",
            "http://a#b",
            "http://user@a",
            "http://:81",
            "http://a:0",
            "http://a b",
            "http://::1",
            "https://",
            "https://a:0",
            "https://a/path",
            "h2c://a",
            "h2c://",
            "h2c://unix:/run/app.sock",
            "ftp://a:1",
            "://a:1",
            "http:a:1",
        ] {
            assert_eq!(upstream(text), Err(FORMS), "{text}");
        }
    }
}
