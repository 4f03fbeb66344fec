//! The resolver that asks DNS itself, against a server of the test's own.
#![cfg(feature = "hickory")]

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use corepool::{HickoryResolver, Resolver, SystemResolver};
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};

/// A DNS server on loopback that knows a few names. It runs until the test's process ends.
struct Server {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&queries);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((size, from)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(&buffer[..size]).unwrap();
                if let Some(answer) = answer(&query) {
                    socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
                }
            }
        });
        Self { address, queries }
    }

    fn resolver(&self) -> HickoryResolver {
        HickoryResolver::with_name_servers(&[self.address]).unwrap()
    }
}

/// What the server says; nothing to a name that it is silent about.
fn answer(query: &Message) -> Option<Message> {
    let question = query.queries.first().unwrap().clone();
    let (name, kind) = (question.name().clone(), question.query_type());
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    answer.add_query(question);
    let a = |last| RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, last)));
    let aaaa = |last| RData::AAAA(rdata::AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)));
    let record = |name: &Name, ttl, data| Record::from_rdata(name.clone(), ttl, data);
    match (name.to_ascii().to_ascii_lowercase().as_str(), kind) {
        ("both.test.", RecordType::A) => {
            answer.add_answers([record(&name, 60, a(2)), record(&name, 60, a(1))]);
        }
        ("both.test.", RecordType::AAAA) => {
            answer.add_answers([record(&name, 20, aaaa(1))]);
        }
        ("four.test.", RecordType::A) => {
            answer.add_answers([record(&name, 7, a(4))]);
        }
        ("six.test.", RecordType::AAAA) => {
            answer.add_answers([record(&name, 9, aaaa(6))]);
        }
        ("alias.test.", RecordType::A) => {
            let target = Name::from_ascii("target.test.").unwrap();
            let alias = RData::CNAME(rdata::CNAME(target.clone()));
            answer.add_answers([record(&name, 5, alias), record(&target, 50, a(5))]);
        }
        ("brief.test.", RecordType::A) => {
            answer.add_answers([record(&name, 0, a(7))]);
        }
        // No record of the other type.
        ("four.test." | "six.test." | "alias.test." | "brief.test.", _) => {}
        ("broken.test.", _) => {
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        ("silent.test.", _) => return None,
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    Some(answer)
}

fn four(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn six(last: u16) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
}

#[tokio::test]
async fn both_families_are_found_and_the_shorter_ttl_counts() {
    let server = Server::start();
    let found = server.resolver().resolve("both.test").await.unwrap();
    assert_eq!(found.valid_for, Some(Duration::from_secs(20)));
    let mut addresses = found.addresses;
    // A server may rotate records, and so may what passes them on.
    addresses.sort();
    assert_eq!(addresses, [four(1), four(2), six(1)]);
}

#[tokio::test]
async fn one_family_is_enough() {
    let server = Server::start();
    let resolver = server.resolver();
    for (name, address, ttl) in [("four.test", four(4), 7), ("six.test", six(6), 9)] {
        let found = resolver.resolve(name).await.unwrap();
        assert_eq!(found.addresses, [address]);
        assert_eq!(found.valid_for, Some(Duration::from_secs(ttl)), "{name}");
    }
}

#[tokio::test]
async fn an_alias_is_valid_no_longer_than_its_own_ttl() {
    let server = Server::start();
    let found = server.resolver().resolve("alias.test").await.unwrap();
    assert_eq!((found.addresses, found.valid_for), (vec![four(5)], Some(Duration::from_secs(5))));
}

#[tokio::test]
async fn each_look_up_asks() {
    let server = Server::start();
    let resolver = server.resolver();
    for look_ups in 1..=3 {
        resolver.clone().resolve("both.test").await.unwrap();
        // One for each type of record.
        assert_eq!(server.queries.load(Ordering::SeqCst), 2 * look_ups);
    }
    let found = resolver.resolve("brief.test").await.unwrap();
    assert_eq!(found.valid_for, Some(Duration::ZERO));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_named() {
    let server = Server::start();
    let error = server.resolver().resolve("missing.test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("host missing.test: "), "{error}");
}

#[tokio::test]
async fn a_server_that_fails_is_an_error_of_another_kind() {
    let server = Server::start();
    let error = server.resolver().resolve("broken.test").await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("host broken.test: "), "{error}");
}

#[tokio::test]
async fn a_look_up_can_be_given_up() {
    let server = Server::start();
    let resolver = server.resolver();
    let look_up = resolver.resolve("silent.test");
    tokio::time::timeout(Duration::from_millis(50), look_up).await.unwrap_err();
    assert_eq!(resolver.resolve("four.test").await.unwrap().addresses, [four(4)]);
}

#[tokio::test]
async fn literals_need_no_server() {
    let resolver = HickoryResolver::with_name_servers(&["127.0.0.1:9".parse().unwrap()]).unwrap();
    for address in [four(1), six(1)] {
        assert_eq!(resolver.resolve(&address.to_string()).await.unwrap().addresses, [address]);
    }
}

/// Shards have a runtime each, and pools end before the process does.
#[test]
fn a_resolver_outlives_the_runtime_that_used_it_first() {
    let server = Server::start();
    let resolver: Arc<dyn Resolver> = Arc::new(server.resolver());
    for name in ["four.test", "six.test"] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(resolver.resolve(name)).unwrap();
    }
}

#[test]
fn runtimes_of_several_threads_share_a_resolver() {
    let server = Server::start();
    let resolver: Arc<dyn Resolver> = Arc::new(server.resolver());
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let resolver = Arc::clone(&resolver);
            thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for nth in 0..20 {
                        let name =
                            if (nth + thread) % 2 == 0 { "brief.test" } else { "missing.test" };
                        let found = resolver.resolve(name).await;
                        assert_eq!(found.is_ok(), name == "brief.test", "{found:?}");
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn no_server_is_refused() {
    let error = HickoryResolver::with_name_servers(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("at least 1"), "{error}");
}

#[tokio::test]
async fn the_systems_configuration_finds_this_host() {
    // Without a configuration, as in some containers, the error must say what is missing.
    match HickoryResolver::system() {
        Ok(resolver) => {
            let found = resolver.resolve("localhost").await.unwrap();
            let system = SystemResolver.resolve("localhost").await.unwrap();
            assert!(found.addresses.iter().all(IpAddr::is_loopback), "{found:?}");
            assert!(system.addresses.iter().any(|address| found.addresses.contains(address)));
        }
        Err(error) => assert!(error.to_string().contains("configuration"), "{error}"),
    }
}
