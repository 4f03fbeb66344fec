//! What we write is read back by an independent parser, `ppp`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ppp::{v1, v2};

use super::{ProxyHeader, ProxyHeaderError};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Numbers that spread over everything; the same at each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        (self.next() % bound) as usize
    }

    fn bytes(&mut self, bound: u64) -> Vec<u8> {
        (0..self.below(bound)).map(|_| self.next() as u8).collect()
    }

    fn v4(&mut self) -> SocketAddr {
        (Ipv4Addr::from_bits(self.next() as u32), self.next() as u16).into()
    }

    /// With runs of zeroes, which the text form shortens, and mapped IPv4 addresses.
    fn v6(&mut self) -> SocketAddr {
        let mut bits = u128::from(self.next()) << 64 | u128::from(self.next());
        match self.below(4) {
            0 => bits >>= self.below(128),
            1 => bits &= u128::MAX << self.below(128),
            2 => bits = 0xffff << 32 | bits & 0xffff_ffff,
            _ => {}
        }
        (Ipv6Addr::from_bits(bits), self.next() as u16).into()
    }
}

/// A version 1 line, read back.
fn read_line(bytes: &[u8]) -> v1::Addresses {
    assert!(bytes.len() <= 107, "{bytes:?}");
    let header = v1::Header::try_from(bytes).unwrap();
    assert_eq!(header.header.as_bytes(), bytes, "something is left over");
    header.addresses
}

#[test]
fn lines_read_back_as_what_was_written() {
    let mut numbers = Numbers(1);
    for round in 0..20_000 {
        let (from, to) = if round % 2 == 0 {
            (numbers.v4(), numbers.v4())
        } else {
            (numbers.v6(), numbers.v6())
        };
        let bytes = ProxyHeader::v1(from, to).unwrap().to_bytes();
        let read: (SocketAddr, SocketAddr) = match read_line(&bytes) {
            v1::Addresses::Tcp4(read) => (
                (read.source_address, read.source_port).into(),
                (read.destination_address, read.destination_port).into(),
            ),
            v1::Addresses::Tcp6(read) => (
                (read.source_address, read.source_port).into(),
                (read.destination_address, read.destination_port).into(),
            ),
            v1::Addresses::Unknown => panic!("{from} to {to} became unknown"),
        };
        assert_eq!(read, (from, to));
    }
}

#[test]
fn lines_are_as_the_specification_shows_them() {
    let long = address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
    let rows = [
        ("192.168.0.1:56324", "192.168.0.11:443", "TCP4 192.168.0.1 192.168.0.11 56324 443"),
        ("0.0.0.0:0", "255.255.255.255:65535", "TCP4 0.0.0.0 255.255.255.255 0 65535"),
        ("[2001:db8::1]:1", "[::1]:443", "TCP6 2001:db8::1 ::1 1 443"),
        // No dotted decimal in an IPv6 address.
        ("[::ffff:192.0.2.7]:1", "[::ffff:10.0.0.1]:2", "TCP6 ::ffff:c000:207 ::ffff:a00:1 1 2"),
        // A scope is of this host only.
        ("[fe80::1%3]:1", "[fe80::2%3]:2", "TCP6 fe80::1 fe80::2 1 2"),
    ];
    for (from, to, line) in rows {
        let bytes = ProxyHeader::v1(address(from), address(to)).unwrap().to_bytes();
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("PROXY {line}\r\n"));
    }
    assert_eq!(ProxyHeader::v1(long, long).unwrap().to_bytes().len(), 104);
    assert_eq!(ProxyHeader::v1_unknown().to_bytes(), b"PROXY UNKNOWN\r\n");
    assert_eq!(read_line(b"PROXY UNKNOWN\r\n"), v1::Addresses::Unknown);
}

#[test]
fn binary_headers_are_byte_for_byte_as_specified() {
    let header = ProxyHeader::v2(address("127.0.0.1:80"), address("127.0.0.2:443")).unwrap();
    let header = header.with_unique_id(b"id").unwrap();
    let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11\
        \x7f\0\0\x01\x7f\0\0\x02\0\x50\x01\xbb\x05\0\x02id";
    assert_eq!(header.to_bytes(), expected);
    assert_eq!(ProxyHeader::local().to_bytes(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert_eq!(ProxyHeader::v2_unknown().to_bytes(), b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0");
}

#[test]
fn binary_headers_read_back_as_what_was_written() {
    let mut numbers = Numbers(2);
    for _ in 0..20_000 {
        let (header, addresses) = match numbers.below(4) {
            0 => {
                let (from, to) = (numbers.v4(), numbers.v4());
                (ProxyHeader::v2(from, to).unwrap(), v2::Addresses::from((from, to)))
            }
            1 => {
                let (from, to) = (numbers.v6(), numbers.v6());
                (ProxyHeader::v2(from, to).unwrap(), v2::Addresses::from((from, to)))
            }
            2 => {
                let paths = [numbers.below(109), numbers.below(109)].map(|n| "p".repeat(n));
                let padded = paths.each_ref().map(|path| {
                    let mut bytes = [0; 108];
                    bytes[..path.len()].copy_from_slice(path.as_bytes());
                    bytes
                });
                let header = ProxyHeader::v2_unix(&paths[0], &paths[1]).unwrap();
                (header, v2::Unix::new(padded[0], padded[1]).into())
            }
            _ => (ProxyHeader::v2_unknown(), v2::Addresses::Unspecified),
        };
        let mut header = header;
        let mut values = Vec::new();
        // A parser takes the rest of an unspecified block for addresses.
        let most = if addresses == v2::Addresses::Unspecified { 1 } else { 6 };
        for _ in 0..numbers.below(most) {
            let (kind, value) = (numbers.next() as u8, numbers.bytes(600));
            header = header.with_value(kind, &value).unwrap();
            values.push((kind, value));
        }
        let bytes = header.to_bytes();
        let read = v2::Header::try_from(&bytes[..]).unwrap();
        assert_eq!(read.as_bytes(), bytes, "something is left over");
        assert_eq!((read.command, read.addresses), (v2::Command::Proxy, addresses));
        let stream = addresses != v2::Addresses::Unspecified;
        assert_eq!(read.protocol == v2::Protocol::Stream, stream);
        let read: Vec<_> = read
            .tlvs()
            .map(|value| value.map(|value| (value.kind, value.value.into_owned())).unwrap())
            .collect();
        assert_eq!(read, values);
    }
    let bytes = ProxyHeader::local().to_bytes();
    let local = v2::Header::try_from(&bytes[..]).unwrap();
    assert_eq!((local.command, local.length()), (v2::Command::Local, 0));
}

#[test]
fn two_families_in_one_header_are_refused() {
    let (v4, v6) = (address("192.0.2.7:1"), address("[2001:db8::1]:2"));
    for (from, to) in [(v4, v6), (v6, v4)] {
        for header in [ProxyHeader::v1(from, to), ProxyHeader::v2(from, to)] {
            let error = header.unwrap_err().to_string();
            assert!(
                error.contains(&from.to_string()) && error.contains(&to.to_string()),
                "{error}"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_size() {
    let v2 = || ProxyHeader::v2(address("127.0.0.1:1"), address("127.0.0.1:2")).unwrap();
    v2().with_unique_id(&[7; 128]).unwrap();
    assert_eq!(
        v2().with_unique_id(&[7; 129]).unwrap_err(),
        ProxyHeaderError::UniqueId { length: 129 }
    );

    // 65535 less 12 of addresses and 3 of type and length.
    let full = v2().with_value(0xe0, &[0; 65520]).unwrap();
    let bytes = full.to_bytes();
    assert_eq!(v2::Header::try_from(&bytes[..]).unwrap().length(), 65535);
    for error in [full.with_value(0xe0, &[]), v2().with_value(0xe0, &[0; 65521])] {
        let error = error.unwrap_err();
        assert!(matches!(error, ProxyHeaderError::Length { length: 65536 | 65538 }), "{error:?}");
    }

    let path = |length| "p".repeat(length);
    ProxyHeader::v2_unix("", path(108)).unwrap();
    for (from, to) in [(path(109), path(0)), (path(0), path(109)), ("a\0b".to_owned(), path(0))] {
        let error = ProxyHeader::v2_unix(from, to).unwrap_err();
        assert!(matches!(error, ProxyHeaderError::Path { length: 109 | 3 }), "{error:?}");
    }
}

#[test]
fn version_1_and_local_take_no_values() {
    let v1 = ProxyHeader::v1(address("127.0.0.1:1"), address("127.0.0.1:2")).unwrap();
    for header in [v1, ProxyHeader::v1_unknown(), ProxyHeader::local()] {
        let error = header.with_authority("example.org").unwrap_err();
        assert_eq!(error, ProxyHeaderError::NoRoom { kind: 2 });
    }
}

#[test]
fn a_header_is_shown_without_its_values() {
    let header = ProxyHeader::v2(address("192.0.2.7:1"), address("192.0.2.1:2")).unwrap();
    let header = header.with_value(0xe0, b"hunter2").unwrap();
    let shown = "PROXY v2 192.0.2.7:1 to 192.0.2.1:2 and 10 bytes of values";
    assert_eq!(header.to_string(), shown);
    assert_eq!(format!("{header:?}"), format!("ProxyHeader({shown})"));
    assert_eq!(ProxyHeader::v1_unknown().to_string(), "PROXY v1 unknown");
    assert_eq!(ProxyHeader::local().to_string(), "PROXY v2 local");
    let unix = ProxyHeader::v2_unix("", "/run/a").unwrap();
    assert_eq!(unix.to_string(), "PROXY v2 unix: to unix:/run/a");
}

/// Whoever connects by a unix socket chooses its path, and could write lines of its own.
#[test]
fn a_path_ends_no_line_of_a_log() {
    let header = ProxyHeader::v2_unix("/tmp/a\nforged", "/run/\x1b[2J").unwrap();
    let shown = "PROXY v2 unix:/tmp/a\\nforged to unix:/run/\\u{1b}[2J";
    assert_eq!(header.to_string(), shown);
}

#[test]
fn mapped_addresses_keep_their_family() {
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    let bytes = ProxyHeader::v2((mapped, 1).into(), (mapped, 2).into()).unwrap().to_bytes();
    assert_eq!(bytes[13], 0x21);
}
