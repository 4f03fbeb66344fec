//! What an operator can order at the admin address, by POST.
//!
//! | path | what it does |
//! |---|---|
//! | `/breaker?endpoint=..&mode=open` | no dial of the origin from now on; what is idle still serves |
//! | `/breaker?endpoint=..&mode=closed` | every dial, whatever fails |
//! | `/breaker?endpoint=..&mode=auto` | as its failures have it again |
//! | `/breaker?endpoint=..&mode=reset` | "the origin is back": closes it now, and forgets the failures |
//! | `/evict?endpoint=..` | ends all connections: those at rest now, those in use as they come back |
//! | `/suspend?endpoint=..` | hands out no connection: requests wait, as long as they may |
//! | `/resume?endpoint=..` | ends that |
//!
//! The endpoint is written as `/pool` has it; what a URL reserves is to be percent-encoded.

use corepool::BreakerMode;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{HeaderName, ORIGIN},
};
use serde_json::{Value, json};

use crate::upstream::Group;

/// Something that can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Breaker,
    Evict,
    Suspend,
    Resume,
}

/// Why an order was not followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) cause: String,
}

impl Order {
    /// What is ordered at a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/breaker" => Some(Self::Breaker),
            "/evict" => Some(Self::Evict),
            "/suspend" => Some(Self::Suspend),
            "/resume" => Some(Self::Resume),
            _ => None,
        }
    }

    /// Follows the order, and says what came of it.
    pub(crate) fn follow(
        self,
        method: &Method,
        headers: &HeaderMap,
        query: &str,
        groups: &[Group],
    ) -> Result<Value, Refusal> {
        if method != Method::POST {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "an order is a POST"));
        }
        // A page that somebody reads on this machine can send a POST here, but not without this.
        let foreign: HeaderName = ORIGIN;
        if headers.contains_key(foreign) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "no orders from a web page"));
        }
        let parameters = Parameters::parse(query, self == Self::Breaker)?;
        let group = parameters.group(groups)?;
        let endpoint = group.endpoint().to_string();
        match self {
            Self::Breaker => {
                parameters.turn(group)?;
                let breaker = group.breaker().as_str();
                tracing::info!(%endpoint, breaker, "by order: the circuit breaker");
                Ok(json!({ "endpoint": endpoint, "breaker": breaker }))
            }
            Self::Evict => {
                group.evict();
                tracing::info!(%endpoint, "by order: all connections were ended");
                Ok(json!({ "endpoint": endpoint, "evicted": true }))
            }
            Self::Suspend => {
                let changed = group.suspend();
                tracing::info!(%endpoint, changed, "by order: suspended");
                Ok(json!({ "endpoint": endpoint, "suspended": true, "changed": changed }))
            }
            Self::Resume => {
                let changed = group.resume();
                tracing::info!(%endpoint, changed, "by order: resumed");
                Ok(json!({ "endpoint": endpoint, "suspended": false, "changed": changed }))
            }
        }
    }
}

impl Refusal {
    fn new(status: StatusCode, cause: impl Into<String>) -> Self {
        Self { status, cause: cause.into() }
    }

    fn bad(cause: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, cause)
    }
}

#[derive(Debug, Default)]
struct Parameters {
    endpoint: Option<String>,
    mode: Option<String>,
}

impl Parameters {
    fn parse(query: &str, with_mode: bool) -> Result<Self, Refusal> {
        let mut this = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "endpoint" => &mut this.endpoint,
                "mode" if with_mode => &mut this.mode,
                other => return Err(Refusal::bad(format!("unknown parameter {other:?}"))),
            };
            let value = decode(value)
                .ok_or_else(|| Refusal::bad(format!("{name}: broken percent-encoding")))?;
            if place.replace(value).is_some() {
                return Err(Refusal::bad(format!("{name} is given twice")));
            }
        }
        Ok(this)
    }

    fn group<'a>(&self, groups: &'a [Group]) -> Result<&'a Group, Refusal> {
        let known = || {
            let known: Vec<_> = groups.iter().map(|group| group.endpoint().to_string()).collect();
            known.join(", ")
        };
        let Some(wanted) = &self.endpoint else {
            return Err(Refusal::bad(format!("endpoint is missing, one of: {}", known())));
        };
        groups.iter().find(|group| group.endpoint().to_string() == *wanted).ok_or_else(|| {
            let cause = format!("no endpoint {wanted:?}, there is: {}", known());
            Refusal::new(StatusCode::NOT_FOUND, cause)
        })
    }

    fn turn(&self, group: &Group) -> Result<(), Refusal> {
        let allowed = "must be auto, open, closed or reset";
        match self.mode.as_deref() {
            Some("auto") => group.force_breaker(BreakerMode::Auto),
            Some("open") => group.force_breaker(BreakerMode::ForcedOpen),
            Some("closed") => group.force_breaker(BreakerMode::ForcedClosed),
            Some("reset") => group.reset_breaker(),
            Some(other) => return Err(Refusal::bad(format!("mode is {other:?}, but {allowed}"))),
            None => return Err(Refusal::bad(format!("mode is missing, and {allowed}"))),
        }
        Ok(())
    }
}

/// Percent-decoding, RFC 3986 §2.1; `None` when it is broken, or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(decode("%5b::1%5D:80").as_deref(), Some("[::1]:80"));
        assert_eq!(decode("unix:/a+b%20c").as_deref(), Some("unix:/a+b c"));
        for broken in ["%", "%5", "%zz", "%+5", "%ff"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn parameters_are_known_and_given_once() {
        for (query, cause) in [
            ("endpoint=a:1&endpoint=b:2", "endpoint is given twice"),
            ("endpoint=a:1&mode=open", "unknown parameter \"mode\""),
            ("endpoint=%f", "endpoint: broken percent-encoding"),
        ] {
            let refusal = Parameters::parse(query, false).unwrap_err();
            assert_eq!(refusal, Refusal::bad(cause), "{query}");
        }
        let parameters = Parameters::parse("mode=open&endpoint=a%3A1", true).unwrap();
        assert_eq!(
            (parameters.endpoint.as_deref(), parameters.mode.as_deref()),
            (Some("a:1"), Some("open"))
        );
    }
}
