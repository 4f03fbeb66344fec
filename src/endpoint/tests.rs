use super::*;
use crate::ProxyHeader;

/// One endpoint, and others that each differ from it in one field.
fn variants() -> Vec<(&'static str, Endpoint)> {
    let base = || Endpoint::host("example.org", 443);
    let tls = || TlsIdentity::new("example.org");
    let address = |text: &str| text.parse().unwrap();
    let header = |from: &str, to: &str| ProxyHeader::v2(address(from), address(to)).unwrap();
    let announced = || header("192.0.2.7:1", "192.0.2.1:2");
    let scoped = |scope| {
        let address = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 443, 0, scope);
        Endpoint::from(SocketAddr::from(address))
    };
    vec![
        ("nothing", base()),
        ("name", Endpoint::host("example.net", 443)),
        ("case of the name", Endpoint::host("Example.org", 443)),
        ("port", Endpoint::host("example.org", 444)),
        ("an address that looks like a name", Endpoint::host("192.0.2.1", 443)),
        ("address", Endpoint::from(address("192.0.2.1:443"))),
        ("another address", Endpoint::from(address("192.0.2.2:443"))),
        ("the address's port", Endpoint::from(address("192.0.2.1:444"))),
        ("mapped address", Endpoint::from(address("[::ffff:192.0.2.1]:443"))),
        ("scope", scoped(1)),
        ("another scope", scoped(2)),
        ("path", Endpoint::unix("/run/a")),
        ("another path", Endpoint::unix("/run/b")),
        ("source", base().with_source([10, 0, 0, 1])),
        ("another source", base().with_source([10, 0, 0, 2])),
        ("source of the other family", base().with_source([0; 16])),
        ("mark", base().with_mark(1)),
        ("another mark", base().with_mark(2)),
        ("tag", base().with_tag("blue")),
        ("another tag", base().with_tag("green")),
        ("tls", base().with_tls(tls())),
        ("server name", base().with_tls(TlsIdentity::new("example.net"))),
        ("alpn", base().with_tls(tls().with_alpn(["h2"]))),
        ("two of alpn", base().with_tls(tls().with_alpn(["h2", "http/1.1"]))),
        ("order of alpn", base().with_tls(tls().with_alpn(["http/1.1", "h2"]))),
        ("alpn in one", base().with_tls(tls().with_alpn(["h2http/1.1"]))),
        ("client certificate", base().with_tls(tls().with_client_certificate("a"))),
        ("another one", base().with_tls(tls().with_client_certificate("b"))),
        ("authorities", base().with_tls(tls().with_ca_set("a"))),
        ("other authorities", base().with_tls(tls().with_ca_set("b"))),
        ("name not verified", base().with_tls(tls().with_verification(Verification::ChainOnly))),
        ("not verified", base().with_tls(tls().with_verification(Verification::Off))),
        ("header", base().with_proxy_header(announced())),
        ("its source", base().with_proxy_header(header("192.0.2.8:1", "192.0.2.1:2"))),
        ("its source port", base().with_proxy_header(header("192.0.2.7:3", "192.0.2.1:2"))),
        ("its destination", base().with_proxy_header(header("192.0.2.7:1", "192.0.2.2:2"))),
        ("its unique id", base().with_proxy_header(announced().with_unique_id(b"a").unwrap())),
        ("its authority", base().with_proxy_header(announced().with_authority("a").unwrap())),
        ("its version", {
            let header = ProxyHeader::v1(address("192.0.2.7:1"), address("192.0.2.1:2")).unwrap();
            base().with_proxy_header(header)
        }),
        ("unknown client", base().with_proxy_header(ProxyHeader::v2_unknown())),
        ("no client", base().with_proxy_header(ProxyHeader::local())),
    ]
}

#[test]
fn endpoints_that_differ_in_any_one_field_are_different() {
    let (left, right) = (variants(), variants());
    for (i, (one, a)) in left.iter().enumerate() {
        for (j, (other, b)) in right.iter().enumerate() {
            assert_eq!(a == b, i == j, "{one}: {a}, {other}: {b}");
            assert_eq!(b == a, i == j, "{other}: {b}, {one}: {a}");
        }
    }
}

#[test]
fn endpoints_that_are_equal_hash_alike() {
    use core::hash::BuildHasher;
    let hashing = Hashing::default();
    for ((field, a), (_, b)) in variants().iter().zip(&variants()) {
        assert_eq!(hashing.hash_one(a), hashing.hash_one(b), "{field}");
    }
}

#[test]
fn endpoints_are_told_apart_when_all_hashes_collide() {
    let mut places = std::collections::HashMap::with_hasher(Hashing::Same);
    for (place, (field, endpoint)) in variants().into_iter().enumerate() {
        assert_eq!(places.insert(endpoint, place), None, "{field}");
    }
    for (place, (field, endpoint)) in variants().iter().enumerate() {
        assert_eq!(places.get(endpoint), Some(&place), "{field}");
    }
}

#[test]
fn what_was_set_can_be_taken_back() {
    let base = || Endpoint::host("example.org", 443);
    assert_eq!(base().with_mark(7).with_mark(0), base());
    assert_eq!(base().with_tag("blue").with_tag(""), base());
    assert_eq!((base().mark(), base().tag()), (None, None));
}

#[test]
fn a_change_does_not_reach_clones() {
    let base = Endpoint::host("example.org", 443);
    let blue = base.clone().with_tag("blue");
    assert_eq!((base.tag(), blue.tag()), (None, Some("blue")));
}

#[test]
fn everything_that_was_set_can_be_read() {
    let tls = TlsIdentity::new("example.org")
        .with_alpn(["h2", "http/1.1"])
        .with_client_certificate("a1b2")
        .with_ca_set("internal")
        .with_verification(Verification::ChainOnly);
    let header = ProxyHeader::local();
    let endpoint = Endpoint::host("example.org", 443)
        .with_source([10, 0, 0, 1])
        .with_mark(7)
        .with_tls(tls.clone())
        .with_proxy_header(header.clone())
        .with_tag("blue");
    assert_eq!(endpoint.as_host(), Some(("example.org", 443)));
    assert_eq!(endpoint.source(), Some([10, 0, 0, 1].into()));
    assert_eq!(endpoint.mark(), Some(7));
    assert_eq!((endpoint.tls(), endpoint.proxy_header()), (Some(&tls), Some(&header)));
    assert_eq!(endpoint.tag(), Some("blue"));
    assert!(tls.alpn().eq([&b"h2"[..], b"http/1.1"]));
    assert_eq!(
        (tls.client_certificate(), tls.ca_set(), tls.verification()),
        (Some("a1b2"), Some("internal"), Verification::ChainOnly)
    );
    let unix = Endpoint::unix("/run/app.sock");
    assert_eq!(unix.as_unix(), Some(Path::new("/run/app.sock")));
    assert_eq!((unix.as_ip(), unix.as_host()), (None, None));
}

#[test]
fn everything_that_was_set_is_shown_but_no_secret() {
    let client = "192.0.2.7:1".parse().unwrap();
    let header = ProxyHeader::v2(client, "192.0.2.1:2".parse().unwrap()).unwrap();
    let endpoint = Endpoint::host("example.org", 443)
        .with_source([10, 0, 0, 1])
        .with_mark(0x1f)
        .with_tls(TlsIdentity::new("example.org").with_alpn(["h2", "http/1.1"]))
        .with_proxy_header(header.with_unique_id(b"hunter2").unwrap())
        .with_tag("blue\nsky");
    let shown = "example.org:443 [source 10.0.0.1, mark 0x1f, tls example.org alpn h2/http/1.1, \
        PROXY v2 192.0.2.7:1 to 192.0.2.1:2 and 10 bytes of values, tag blue\\nsky]";
    assert_eq!(endpoint.to_string(), shown);
    assert_eq!(format!("{endpoint:?}"), format!("Endpoint({shown})"));

    let tls = TlsIdentity::new("a").with_client_certificate("b").with_ca_set("c");
    let off = tls.clone().with_verification(Verification::Off);
    assert_eq!(off.to_string(), "tls a client certificate b authorities c not verified");
    let chain = tls.with_verification(Verification::ChainOnly);
    assert!(chain.to_string().ends_with("name not verified"), "{chain}");
}

#[test]
fn addresses_names_and_paths_are_told_apart() {
    for text in [
        "10.0.0.1:80",
        "[::1]:443",
        "example.org:8080",
        "a_b:1",
        "unix:/run/app.sock",
        "unix:/a:80",
    ] {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!(endpoint.to_string(), text);
        let kinds = (
            endpoint.as_ip().is_some(),
            endpoint.as_host().is_some(),
            endpoint.as_unix().is_some(),
        );
        let expected =
            (text.starts_with(['1', '[']), text.starts_with(['e', 'a']), text.starts_with("unix:"));
        assert_eq!(kinds, expected, "{text}");
    }
}

#[test]
fn what_is_no_endpoint_is_refused_with_the_text() {
    let long = format!("{}:80", "a".repeat(254));
    let long_path = format!("unix:/{}", "a".repeat(address::MAX_PATH));
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
        "unix:",
        "unix:/",
        "unix:/run/",
        "unix:run/app.sock",
        "unix:/a\0b",
        "unix:/a\nb",
        long.as_str(),
        long_path.as_str(),
    ] {
        let error = text.parse::<Endpoint>().unwrap_err();
        assert!(error.to_string().contains("is not an endpoint"), "{error}");
        assert!(error.to_string().starts_with(&format!("{text:?}")), "{error}");
    }
}

/// `"1.2.3.4:+80"` was a host whose text, `1.2.3.4:80`, is an address.
#[test]
fn a_port_with_a_sign_is_no_port() {
    for text in ["1.2.3.4:+80", "localhost:+80", "[::1]:+80", "localhost:-80", "localhost:+"] {
        assert!(text.parse::<Endpoint>().is_err(), "{text}");
    }
}

/// Two spellings of one path were equal, and had two texts.
#[test]
fn an_abstract_name_keeps_each_of_its_bytes() {
    let name = "\0app//x/./y/";
    let made = Endpoint::unix(name);
    assert_eq!(made.as_unix().unwrap().as_os_str(), name);
}

#[test]
fn a_path_has_one_spelling() {
    let plain: Endpoint = "unix:/run/app.sock".parse().unwrap();
    for text in ["unix:/run//app.sock", "unix://run/app.sock", "unix:/run/./app.sock"] {
        let parsed: Endpoint = text.parse().unwrap();
        assert_eq!((&parsed, parsed.to_string()), (&plain, plain.to_string()), "{text}");
        let made = Endpoint::unix(text.strip_prefix("unix:").unwrap());
        assert_eq!((&made, made.to_string()), (&plain, plain.to_string()), "{text}");
    }
    assert!("unix:/.".parse::<Endpoint>().is_err(), "the root");
    assert_eq!(Endpoint::unix("app.sock").to_string(), "unix:app.sock");
    assert_eq!(Endpoint::unix("/run/../app.sock").to_string(), "unix:/run/../app.sock");
}

#[test]
fn what_is_known_of_the_protocol_is_part_of_it_in_whatever_order_it_is_said() {
    let plain: Endpoint = "127.0.0.1:80".parse().unwrap();
    let tls = || TlsIdentity::new("a.test");
    let ends = [
        plain.clone(),
        plain.clone().with_http2(),
        plain.clone().with_tls(tls()),
        plain.clone().with_tls(tls()).with_http2(),
    ];
    for (at, one) in ends.iter().enumerate() {
        assert_eq!(ends.iter().position(|other| other == one), Some(at), "{one}");
        assert_eq!((one.is_http2(), one.tls().is_some()), (at % 2 == 1, at >= 2), "{one}");
    }
    assert_eq!(plain.clone().with_http2().with_tls(tls()), ends[3]);
    assert_eq!(ends[3].to_string(), "127.0.0.1:80 [tls a.test, http/2]");
}
