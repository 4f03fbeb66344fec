//! Where a request's URI leads.

use http::Uri;

use crate::{Endpoint, UriError};

/// The endpoint that a URI names, to be spoken to in either version of HTTP: as
/// [`Endpoint::try_from`] has it, and with https ALPN for `h2` and `http/1.1`, in this order.
///
/// ```
/// use corepool::endpoint_of;
///
/// let endpoint = endpoint_of(&"https://example.org/a".parse()?)?;
/// assert_eq!(endpoint.to_string(), "example.org:443 [tls example.org alpn h2/http/1.1]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the scheme is neither http nor https, or there is no host or no port.
pub fn endpoint_of(uri: &Uri) -> Result<Endpoint, UriError> {
    let endpoint = Endpoint::try_from(uri)?;
    Ok(match endpoint.tls().cloned() {
        Some(tls) => endpoint.with_tls(tls.with_alpn(["h2", "http/1.1"])),
        None => endpoint,
    })
}
