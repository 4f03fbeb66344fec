//! A request's head as HTTP/2 wants it (RFC 9113 §8.2, §8.3).

use core::fmt;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;

/// Why a request cannot be sent over HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    NoAuthority,
    Host,
    Hosts,
    Target,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAuthority => "the request names no host, by its URI or by a Host header",
            Self::Host => "the request's Host header is no authority",
            Self::Hosts => "the request has several Host headers",
            Self::Target => "the request's URI cannot be sent",
        })
    }
}

impl core::error::Error for BadHead {}

/// The head to send. The request stays as it is: it may yet have to be given back.
pub(super) fn convert<B: Body>(
    request: &Request<B>,
    default_scheme: &Scheme,
) -> Result<Request<()>, BadHead> {
    let mut headers = request.headers().clone();
    strip(&mut headers);
    let authority = authority(request.uri(), &mut headers)?;
    let uri = if request.method() == Method::CONNECT {
        Uri::from(authority)
    } else {
        let scheme = request.uri().scheme().unwrap_or(default_scheme);
        let path = match request.uri().path_and_query() {
            Some(path) => path.clone(),
            None if request.method() == Method::OPTIONS => PathAndQuery::from_static("*"),
            None => PathAndQuery::from_static("/"),
        };
        let uri = Uri::builder().scheme(scheme.clone()).authority(authority).path_and_query(path);
        uri.build().map_err(|_| BadHead::Target)?
    };
    let body = request.body();
    if !body.is_end_stream()
        && request.method() != Method::CONNECT
        && !headers.contains_key(CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = uri;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = headers;
    Ok(head)
}

/// Takes out what is about one HTTP/1 connection (RFC 9113 §8.2.2, RFC 9110 §7.6.1): the fields
/// that `Connection` names, and those that are never about anything else. Of `TE`, which is, "trailers"
/// stays.
pub(super) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = (headers.get_all(CONNECTION).iter())
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != TE)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    let others = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in others {
        headers.remove(name);
    }
    if headers.contains_key(TE) {
        let mut codings = headers
            .get_all(TE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        if codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers")) {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
}

/// Whom the request is for: what its URI says, or else `Host`, which goes out as `:authority`
/// (RFC 9113 §8.3.1).
fn authority(uri: &Uri, headers: &mut HeaderMap) -> Result<Authority, BadHead> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let found = match (uri.authority(), host, another) {
        (_, _, Some(_)) => return Err(BadHead::Hosts),
        (Some(authority), ..) => authority.clone(),
        (None, Some(host), None) => {
            Authority::try_from(host.as_bytes()).map_err(|_| BadHead::Host)?
        }
        (None, None, None) => return Err(BadHead::NoAuthority),
    };
    headers.remove(HOST);
    // It must not carry a user's name and password (RFC 9113 §8.3.1).
    match found.as_str().rsplit_once('@') {
        None => Ok(found),
        Some((_, host)) => host.parse().map_err(|_| BadHead::Host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(request: http::request::Builder) -> Result<Request<()>, BadHead> {
        convert(&request.body(String::new()).unwrap(), &Scheme::HTTP)
    }

    #[test]
    fn an_origin_form_request_gets_its_authority_from_host() {
        let sent = sent(Request::get("/a?b").header("host", "origin:81")).unwrap();
        assert_eq!(sent.uri(), "http://origin:81/a?b");
        assert!(!sent.headers().contains_key("host"));
    }

    #[test]
    fn an_absolute_uri_goes_before_host() {
        let sent = sent(Request::get("https://user:word@a/").header("host", "b")).unwrap();
        assert_eq!(sent.uri(), "https://a/");
        assert!(!sent.headers().contains_key("host"));
    }

    #[test]
    fn a_tunnel_and_a_question_to_the_server_keep_their_forms() {
        let tunnel = sent(Request::connect("origin:443")).unwrap();
        assert_eq!(tunnel.uri(), "origin:443");
        let question = sent(Request::options("*").header("host", "a")).unwrap();
        assert_eq!(question.uri().path(), "*");
    }

    #[test]
    fn a_request_without_one_clear_host_is_refused() {
        assert_eq!(sent(Request::get("/")).unwrap_err(), BadHead::NoAuthority);
        assert_eq!(sent(Request::get("/").header("host", "a b")).unwrap_err(), BadHead::Host);
        assert_eq!(sent(Request::get("/").header("host", "")).unwrap_err(), BadHead::Host);
        let several = Request::get("http://a/").header("host", "a").header("host", "b");
        assert_eq!(sent(several).unwrap_err(), BadHead::Hosts);
    }

    #[test]
    fn what_is_about_one_connection_stays_behind() {
        let request = Request::get("http://a/")
            .header("connection", "close, X-Hop, TE")
            .header("connection", "x-other")
            .header("x-hop", "1")
            .header("x-other", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "websocket")
            .header("te", "deflate, trailers")
            .header("x-stays", "1");
        let sent = sent(request).unwrap();
        let mut names: Vec<_> = sent.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["te", "x-stays"]);
        assert_eq!(sent.headers()["te"], "trailers");
    }

    #[test]
    fn codings_that_http_2_has_no_use_for_are_not_announced() {
        let sent = sent(Request::get("http://a/").header("te", "deflate")).unwrap();
        assert!(sent.headers().is_empty());
    }

    #[test]
    fn a_body_of_known_length_says_so() {
        let length = |body: &str, given: Option<&str>| {
            let mut request = Request::post("http://a/");
            if let Some(given) = given {
                request = request.header("content-length", given);
            }
            let sent = convert(&request.body(body.to_owned()).unwrap(), &Scheme::HTTP).unwrap();
            sent.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(length("four", None).as_deref(), Some("4"));
        assert_eq!(length("four", Some("4")).as_deref(), Some("4"));
        assert_eq!(length("", None), None);
    }
}
