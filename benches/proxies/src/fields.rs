//! The header fields that a gateway removes and adds.

use hyper::{
    HeaderMap,
    header::{
        CONNECTION, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

/// Fields that concern one connection only, RFC 9110 §7.6.1.
pub const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Where a request came from.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that the client asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How the client asked.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removes what concerns one connection only, and what `Connection` names.
pub fn strip(headers: &mut HeaderMap) {
    if let Some(options) = headers.get(CONNECTION).cloned() {
        let options = options.to_str().unwrap_or_default();
        for option in options.split(',').map(str::trim).filter(|option| *option != "close") {
            headers.remove(option);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Adds what the origin is told of the client.
pub fn forwarded(headers: &mut HeaderMap, client: &HeaderValue) {
    headers.append(X_FORWARDED_FOR, client.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.append(VIA, HeaderValue::from_static("1.1 proxy"));
}
