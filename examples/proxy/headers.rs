//! What a gateway must and must not pass on, RFC 9110 §7.6 and RFC 9112 §3.2.
//!
//! Both ways: `Connection` and the fields it names, `Keep-Alive`, `Proxy-Connection`, `TE`,
//! `Trailer`, `Transfer-Encoding` and `Upgrade` end here (and with `Trailer` the trailers), and
//! `Via` is added. To the origin:
//!
//! | field | what it gets |
//! |---|---|
//! | `Host` | the client's; the target's where the target is absolute; the origin's for HTTP/1.0 without one, `localhost` for a unix socket |
//! | `X-Forwarded-For` | the client's address, after what the client sent |
//! | `X-Forwarded-Proto`, `X-Forwarded-Host` | `http` or `https`, and the client's `Host`; what the client sent is replaced |

use std::net::IpAddr;

use corepool::Endpoint;
use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE, VIA,
    },
    http::{request, response, uri::PathAndQuery},
};

use crate::failure::Failure;

/// The client as the origin is told of it; made once for each connection.
#[derive(Debug)]
pub(crate) struct Client {
    address: String,
    forwarded_for: HeaderValue,
    scheme: &'static str,
}

impl Client {
    pub(crate) fn new(address: IpAddr, is_tls: bool) -> Self {
        let address = address.to_canonical().to_string();
        // An address in text form has only visible ASCII characters, so this never falls back.
        let forwarded_for =
            HeaderValue::from_str(&address).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { address, forwarded_for, scheme: if is_tls { "https" } else { "http" } }
    }
}

/// Refuses what this proxy cannot pass on without guessing.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Failure> {
    if request.method() == Method::CONNECT {
        return Err(Failure::not_implemented("CONNECT: this proxy opens no tunnels"));
    }
    let headers = request.headers();
    // RFC 9112 §6.1: the two together are how requests are smuggled past a proxy. Newer hyper has
    // dropped the length by now, goes by the chunks, and closes the connection afterwards.
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Err(Failure::bad_request("both Content-Length and Transfer-Encoding"));
    }
    // RFC 9112 §3.2.
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => {
            Err(Failure::bad_request("an HTTP/1.1 request needs a Host"))
        }
        (Some(_), Some(_)) => Err(Failure::bad_request("more than one Host")),
        _ => Ok(()),
    }
}

/// Turns a checked request into the one for the origin, whichever that will be. Only a request
/// without a `Host` lacks it still: see [`name_origin`].
pub(crate) fn to_origin(parts: &mut request::Parts, client: &Client) -> Result<(), Failure> {
    let via = if parts.version == Version::HTTP_10 { VIA_10 } else { VIA_11 };
    parts.version = Version::HTTP_11;
    strip(&mut parts.headers);

    // RFC 9112 §3.2.2: an absolute target names the host, whatever `Host` says. The origin gets
    // the origin form.
    if let Some(authority) = parts.uri.authority() {
        let target = authority.as_str();
        let host = target.rsplit_once('@').map_or(target, |(_userinfo, host)| host);
        parts.headers.insert(HOST, value(host)?);
        let path = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    let headers = &mut parts.headers;
    headers.append(VIA, HeaderValue::from_static(via));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
    // One line, also when the client sent several: what is added must be last for every reader.
    let forwarded_for = match headers.remove_all(&X_FORWARDED_FOR) {
        None => client.forwarded_for.clone(),
        Some(mut chain) => {
            chain.extend_from_slice(b", ");
            chain.extend_from_slice(client.address.as_bytes());
            HeaderValue::from_maybe_shared(bytes::Bytes::from(chain))
                .map_err(|_| Failure::bad_request("X-Forwarded-For"))?
        }
    };
    headers.insert(X_FORWARDED_FOR, forwarded_for);
    Ok(())
}

/// Gives a request whose client named no host that of the origin, which is known once there is a
/// connection.
pub(crate) fn name_origin(headers: &mut HeaderMap, origin: &Endpoint) {
    let host = match (origin.as_ip(), origin.as_host()) {
        (Some(address), _) => address.to_string(),
        (None, Some((name, port))) => format!("{name}:{port}"),
        // A unix socket: its path is no host, RFC 3986 §3.2.2.
        (None, None) => "localhost".to_owned(),
    };
    // Names are made of visible ASCII characters, so this never falls back.
    let host =
        HeaderValue::from_str(&host).unwrap_or_else(|_| HeaderValue::from_static("localhost"));
    headers.insert(HOST, host.clone());
    headers.insert(X_FORWARDED_HOST, host);
}

/// Turns the origin's response into the one for the client.
pub(crate) fn to_client(parts: &mut response::Parts) {
    let via = match parts.version {
        Version::HTTP_10 => VIA_10,
        Version::HTTP_2 => VIA_20,
        _ => VIA_11,
    };
    parts.version = Version::HTTP_11;
    // RFC 9112 §6.3: hyper has decoded the body by Transfer-Encoding, so a length is a lie.
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        parts.headers.remove(CONTENT_LENGTH);
    }
    strip(&mut parts.headers);
    parts.headers.append(VIA, HeaderValue::from_static(via));
}

/// Removes what concerns one connection only, RFC 9110 §7.6.1.
fn strip(headers: &mut HeaderMap) {
    // Most messages have one of them or none, and a walk over the names is cheaper than a lookup
    // for each.
    let is_there = |hop: &HeaderName| headers.keys().any(|name| name == hop);
    let there = HOP_BY_HOP.each_ref().map(is_there);
    if is_there(&CONNECTION) {
        // Nearly always there is one line, and nothing to allocate.
        let more: Vec<_> = headers.get_all(CONNECTION).iter().skip(1).cloned().collect();
        let first = headers.remove(CONNECTION);
        for options in first.iter().chain(&more) {
            options.as_bytes().split(|byte| *byte == b',').for_each(|option| {
                strip_named(headers, option.trim_ascii());
            });
        }
    }
    for (name, _) in HOP_BY_HOP.iter().zip(there).filter(|(_, is_there)| *is_there) {
        headers.remove(name);
    }
}

fn strip_named(headers: &mut HeaderMap, option: &[u8]) {
    if let Ok(name) = core::str::from_utf8(option)
        && KEPT.iter().all(|kept| !kept.eq_ignore_ascii_case(name))
    {
        headers.remove(name);
    }
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::bad_request("the target's host"))
}

trait RemoveAll {
    /// All values of a field in one line, RFC 9110 §5.3; `None` without any.
    fn remove_all(&mut self, name: &HeaderName) -> Option<Vec<u8>>;
}

impl RemoveAll for HeaderMap {
    fn remove_all(&mut self, name: &HeaderName) -> Option<Vec<u8>> {
        if !self.contains_key(name) {
            return None;
        }
        let lines: Vec<&[u8]> = self.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let line = lines.join(&b", "[..]);
        self.remove(name);
        Some(line)
    }
}

/// Options that name no field, and fields that are never about one connection: a client must not
/// be able to take the frame or the address off its message.
const KEPT: [&str; 4] = ["close", "keep-alive", "content-length", "host"];

/// What names a hop's own matters, besides `Connection`.
const HOP_BY_HOP: [HeaderName; 6] =
    [KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

const VIA_10: &str = "1.0 corepool";
const VIA_11: &str = "1.1 corepool";
const VIA_20: &str = "2.0 corepool";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn forwarded(request: Request<()>) -> request::Parts {
        check(&request).unwrap();
        let mut parts = request.into_parts().0;
        let client = Client::new(Ipv4Addr::LOCALHOST.into(), false);
        to_origin(&mut parts, &client).unwrap();
        parts
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let request = Request::get("/")
            .header("host", "a")
            .header("connection", "close, X-Secret")
            .header("connection", "x-other, host, content-length")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .header("upgrade", "websocket")
            .header("x-secret", "1")
            .header("x-other", "2")
            .header("x-kept", "3");
        let parts = forwarded(request.body(()).unwrap());
        let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let added = ["via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept"];
        assert_eq!(names[0], "host");
        assert_eq!(names[1..], added);
    }

    #[test]
    fn the_client_is_last_in_the_chain() {
        let request = Request::get("/").header("host", "a");
        let request = request.header("x-forwarded-for", "1.1.1.1, 2.2.2.2");
        let request = request.header("x-forwarded-for", "3.3.3.3");
        let parts = forwarded(request.header("x-forwarded-proto", "https").body(()).unwrap());
        let chain = parts.headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>();
        assert_eq!(chain, ["1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1"]);
        assert_eq!(parts.headers[X_FORWARDED_PROTO], "http");
        assert_eq!(parts.headers[X_FORWARDED_HOST], "a");
    }

    #[test]
    fn an_absolute_target_decides_the_host() {
        let request = Request::get("http://user@b:81/x?y").header("host", "a").body(()).unwrap();
        let parts = forwarded(request);
        assert_eq!(parts.headers[HOST], "b:81");
        assert_eq!(parts.uri, "/x?y");
    }

    #[test]
    fn an_old_request_without_host_gets_the_origins() {
        let mut request = Request::get("/").body(()).unwrap();
        *request.version_mut() = Version::HTTP_10;
        let mut parts = forwarded(request);
        assert_eq!(parts.headers[VIA], VIA_10);
        for (origin, host) in [
            ("origin:80", "origin:80"),
            ("127.0.0.1:81", "127.0.0.1:81"),
            ("[::1]:82", "[::1]:82"),
            ("unix:/run/app.sock", "localhost"),
        ] {
            let origin = origin.parse::<Endpoint>().unwrap();
            // What else makes an endpoint is nobody's business.
            for origin in [origin.clone(), origin.with_source([127, 0, 0, 2]).with_tag("blue")] {
                name_origin(&mut parts.headers, &origin);
                assert_eq!(parts.headers[HOST], host);
                assert_eq!(parts.headers[X_FORWARDED_HOST], host);
            }
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let both = Request::post("/").header("host", "a").header("content-length", "3");
        let both = both.header("transfer-encoding", "chunked");
        let twice = Request::get("/").header("host", "a").header("host", "b");
        for request in [both, twice, Request::get("/"), Request::connect("a:1")] {
            check(&request.body(()).unwrap()).unwrap_err();
        }
    }
}
