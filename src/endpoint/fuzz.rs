//! Text from outside, as an endpoint and as the name of a backend.
#![allow(unreachable_pub)] // re-exported to fuzz

use core::fmt::Debug;
use std::net::SocketAddr;

use super::{Endpoint, TlsIdentity};
use crate::Backend;

/// Reads the text as whatever can be read from text.
///
/// # Panics
/// When something that was read is not what its own text says, or an error does not name the text.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    endpoint(text);
    if let Ok(backend) = text.parse::<Backend>() {
        assert_eq!(backend.to_string(), text);
    }
    shown(text);
}

fn endpoint(text: &str) {
    let is_one = is_endpoint(text);
    let endpoint = match text.parse::<Endpoint>() {
        Ok(endpoint) => endpoint,
        Err(error) => {
            assert!(!is_one, "refused: {text:?}");
            let message = error.to_string();
            assert!(message.starts_with(&format!("{text:?}")), "{message}");
            return;
        }
    };
    assert!(is_one, "taken for an endpoint: {text:?}");
    let written = endpoint.to_string();
    assert_eq!(written.parse::<Endpoint>(), Ok(endpoint.clone()), "written as {written:?}");
    assert_eq!(written.parse::<Endpoint>().map(|again| again.to_string()), Ok(written.clone()));
    let kinds =
        [endpoint.as_ip().is_some(), endpoint.as_host().is_some(), endpoint.as_unix().is_some()];
    assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{written:?}");
    assert!(endpoint.as_ip().is_none_or(|address| address.port() != 0), "{written:?}");
    assert!(endpoint.as_host().is_none_or(|(_, port)| port != 0), "{written:?}");
    assert!(!written.contains(char::is_control), "{written:?}");
}

/// What an endpoint is, said once more: by the documentation, character by character.
fn is_endpoint(text: &str) -> bool {
    if let Some(path) = text.strip_prefix("unix:") {
        let bytes = path.as_bytes();
        let mut names = path.split('/').filter(|name| !["", "."].contains(name));
        return bytes.first() == Some(&b'/')
            && bytes.last() != Some(&b'/')
            && bytes.len() < 108
            && names.next_back().is_some_and(|name| name != "..")
            && path.chars().all(|c| !c.is_control());
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let digits = !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    let significant = port.trim_start_matches('0');
    let port = digits
        && !significant.is_empty()
        && significant.len() <= 5
        && significant.parse::<u32>().is_ok_and(|port| port <= 65_535);
    // What an IPv6 address looks like is the standard library's affair.
    let v6 = host.starts_with('[') && format!("{host}:1").parse::<SocketAddr>().is_ok();
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    port && (v6 || (1..=253).contains(&host.len()) && host.chars().all(allowed))
}

/// What an owner says of an endpoint ends no line of a log.
fn shown(text: &str) {
    let tls = TlsIdentity::new(text)
        .with_alpn([text.as_bytes()])
        .with_client_certificate(text)
        .with_ca_set(text);
    let endpoint = Endpoint::host("localhost", 1).with_tls(tls).with_tag(text);
    for shown in [show(&endpoint), show(&endpoint.tls())] {
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
    assert!(endpoint.to_string().starts_with("localhost:1 ["));
}

fn show(what: &(impl Debug + ?Sized)) -> String {
    format!("{what:?}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_corpus_is_read_as_what_it_says() {
        crate::corpus::replay("endpoint", super::run);
    }
}
