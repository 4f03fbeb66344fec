//! Headers made from any bytes, read back by an independent parser, `ppp`.
#![allow(unreachable_pub)] // re-exported to fuzz

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStrExt,
};

use ppp::{v1, v2};

use super::{ProxyHeader, ProxyHeaderError};
use crate::corpus::Bytes;

fn address(bytes: &mut Bytes<'_>, is_v4: bool) -> SocketAddr {
    let ip: IpAddr = if is_v4 {
        Ipv4Addr::from(bytes.array::<4>()).into()
    } else {
        Ipv6Addr::from(bytes.array::<16>()).into()
    };
    SocketAddr::new(ip, bytes.number())
}

/// Decodes a header, makes it, and reads back what is sent.
///
/// # Panics
/// When what is read back is not what was meant, or what was refused should not have been.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.below(8) {
        0 => line(address(&mut bytes, true), address(&mut bytes, true)),
        1 => line(address(&mut bytes, false), address(&mut bytes, false)),
        2 => families(address(&mut bytes, true), address(&mut bytes, false)),
        3 => binary_tcp(address(&mut bytes, true), address(&mut bytes, true), bytes),
        4 => binary_tcp(address(&mut bytes, false), address(&mut bytes, false), bytes),
        5 => binary_unix(bytes),
        6 => binary(ProxyHeader::v2_unknown(), &v2::Addresses::Unspecified, bytes),
        _ => without_room(bytes),
    }
}

fn line(source: SocketAddr, destination: SocketAddr) {
    let header = ProxyHeader::v1(source, destination).expect("one family");
    let bytes = header.to_bytes();
    assert!(bytes.len() <= 107, "§2.1: {} bytes", bytes.len());
    let read = v1::Header::try_from(&bytes[..]).expect("a line of version 1");
    assert_eq!(read.header.as_bytes(), bytes, "something is left over");
    let read: (SocketAddr, SocketAddr) = match read.addresses {
        v1::Addresses::Tcp4(read) => (
            (read.source_address, read.source_port).into(),
            (read.destination_address, read.destination_port).into(),
        ),
        v1::Addresses::Tcp6(read) => (
            (read.source_address, read.source_port).into(),
            (read.destination_address, read.destination_port).into(),
        ),
        v1::Addresses::Unknown => panic!("{source} to {destination} became unknown"),
    };
    assert_eq!(read, (source, destination));
    shown(&header);
}

fn families(v4: SocketAddr, v6: SocketAddr) {
    for (source, destination) in [(v4, v6), (v6, v4)] {
        let refused = ProxyHeaderError::Families { source_address: source, destination };
        assert_eq!(ProxyHeader::v1(source, destination), Err(refused.clone()));
        assert_eq!(ProxyHeader::v2(source, destination), Err(refused));
    }
}

fn binary_tcp(source: SocketAddr, destination: SocketAddr, bytes: Bytes<'_>) {
    let header = ProxyHeader::v2(source, destination).expect("one family");
    binary(header, &v2::Addresses::from((source, destination)), bytes);
}

fn binary_unix(mut bytes: Bytes<'_>) {
    let paths = [(); 2].map(|()| {
        let length = bytes.byte();
        bytes.take(length.into())
    });
    let [source, destination] = paths.map(OsStr::from_bytes);
    let sound = |path: &[u8]| path.len() <= 108 && !path.contains(&0);
    match ProxyHeader::v2_unix(source, destination) {
        Ok(header) => {
            assert!(paths.into_iter().all(sound), "a path that cannot be sent");
            let padded = paths.map(|path| {
                let mut padded = [0; 108];
                padded[..path.len()].copy_from_slice(path);
                padded
            });
            binary(header, &v2::Unix::new(padded[0], padded[1]).into(), bytes);
        }
        Err(error) => {
            let wrong = paths.into_iter().find(|path| !sound(path)).expect("sound paths");
            assert_eq!(error, ProxyHeaderError::Path { length: wrong.len() });
        }
    }
}

/// Adds values until the bytes end, then reads all of it back.
fn binary(mut header: ProxyHeader, addresses: &v2::Addresses, mut bytes: Bytes<'_>) {
    let own = header.to_bytes().len() - 16;
    let mut values: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut length = own;
    while !bytes.is_empty() {
        let [kind, way] = bytes.array();
        // A long value takes few bytes of the input: what is taken is repeated.
        let (taken, times) = match way {
            0..=199 => (usize::from(way), 1),
            200..=249 => (usize::from(bytes.number()), 1),
            _ => (64, usize::from(bytes.number()) / 60),
        };
        let value = bytes.take(taken).repeat(times);
        let added = match kind {
            2 => match str::from_utf8(&value) {
                Ok(name) => header.clone().with_authority(name),
                Err(_) => header.clone().with_value(kind, &value),
            },
            5 if value.len() > 128 => {
                let refused = ProxyHeaderError::UniqueId { length: value.len() };
                assert_eq!(header.clone().with_unique_id(&value), Err(refused));
                continue;
            }
            5 => header.clone().with_unique_id(&value),
            _ => header.clone().with_value(kind, &value),
        };
        let would_be = length + 3 + value.len();
        if would_be > 65_535 {
            assert_eq!(added, Err(ProxyHeaderError::Length { length: would_be }));
            continue;
        }
        header = added.expect("room for a value");
        length = would_be;
        values.push((kind, value));
    }
    let sent = header.to_bytes();
    assert_eq!(sent.len(), 16 + length);
    let read = v2::Header::try_from(&sent[..]).expect("a header of version 2");
    assert_eq!(read.as_bytes(), sent, "something is left over");
    assert_eq!((read.command, read.length()), (v2::Command::Proxy, length));
    // A parser takes the rest of an unspecified block for addresses.
    if *addresses != v2::Addresses::Unspecified {
        assert_eq!((&read.addresses, read.protocol), (addresses, v2::Protocol::Stream));
        let found = read.tlvs().map(|value| value.expect("a whole value"));
        let found: Vec<_> = found.map(|value| (value.kind, value.value.into_owned())).collect();
        assert_eq!(found, values);
    }
    shown(&header);
}

/// Version 1 and LOCAL take no values, and are sent as they are all the same.
fn without_room(mut bytes: Bytes<'_>) {
    let [which, kind] = bytes.array();
    let header = match which % 3 {
        0 => ProxyHeader::v1_unknown(),
        1 => ProxyHeader::local(),
        _ => ProxyHeader::v1(address(&mut bytes, true), address(&mut bytes, true))
            .expect("one family"),
    };
    let refused = Err(ProxyHeaderError::NoRoom { kind });
    assert_eq!(header.clone().with_value(kind, bytes.0), refused);
    let sent = header.to_bytes();
    match which % 3 {
        1 => {
            let read = v2::Header::try_from(&sent[..]).expect("a header of version 2");
            assert_eq!((read.command, read.length()), (v2::Command::Local, 0));
        }
        _ => assert!(v1::Header::try_from(&sent[..]).is_ok()),
    }
    shown(&header);
}

/// What is shown ends no line of a log, whatever paths a client's socket has.
fn shown(header: &ProxyHeader) {
    let shown = format!("{header} {header:?}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_corpus_is_read_back() {
        crate::corpus::replay("proxy_header", super::run);
    }
}
