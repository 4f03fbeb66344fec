//! Who may have whose connection: with every hash the same, only the comparison of endpoints
//! keeps them apart.

mod support;

use std::{
    collections::HashMap,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use corepool::{Endpoint, Group, GroupStats, Pool, ProxyHeader, TcpConnector, TlsIdentity};
use support::{builder, close_and_check, eventually};

/// An origin that takes whatever it is sent and says nothing.
struct Origin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || while stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {});
            }
        });
        Self { address, accepted }
    }
}

/// Whether this process may mark its sockets.
fn may_mark() -> bool {
    #[cfg(target_os = "linux")]
    {
        use socket2::{Domain, Socket, Type};
        Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().set_mark(1).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Endpoints that lead to the first origin and each differ from the first one in one field, and
/// one that leads to the second origin.
fn endpoints(first: SocketAddr, second: SocketAddr) -> Vec<Endpoint> {
    let plain = || Endpoint::from(first);
    let client = |port| {
        let client = SocketAddr::from(([192, 0, 2, 7], port));
        plain().with_proxy_header(ProxyHeader::v2(client, first).unwrap())
    };
    let mut endpoints = vec![
        plain(),
        Endpoint::host("localhost", first.port()),
        Endpoint::from(second),
        plain().with_tag("blue"),
        plain().with_tag("green"),
        plain().with_tls(TlsIdentity::new("example.org")),
        plain().with_tls(TlsIdentity::new("example.org").with_alpn(["h2"])),
        client(1),
        client(2),
    ];
    if cfg!(target_os = "linux") {
        // Only Linux has all of 127.0.0.0/8 without being told.
        endpoints.push(plain().with_source(Ipv4Addr::new(127, 0, 0, 2)));
        endpoints.push(plain().with_source(Ipv4Addr::new(127, 0, 0, 3)));
    }
    if may_mark() {
        endpoints.push(plain().with_mark(1));
        endpoints.push(plain().with_mark(2));
    }
    endpoints
}

/// Which endpoint each connection was made for, by its two addresses: the system may use a local
/// port for both origins at once. None is closed during a test, so no pair comes back. Endpoints
/// go by their text here: their comparison is on trial.
#[derive(Clone, Default)]
struct Register(Arc<Mutex<HashMap<[SocketAddr; 2], String>>>);

impl Register {
    /// Checks a connection out and back in, and that it is one of this endpoint's.
    async fn visit(&self, pool: &Pool<TcpConnector>, endpoint: &Endpoint, origin: SocketAddr) {
        // Looked up each time: what is tested is the look-up.
        let group: Group<_> = pool.group(endpoint.clone());
        assert_eq!(group.endpoint().to_string(), endpoint.to_string());
        let conn = group.checkout().await.unwrap();
        assert_eq!(conn.endpoint().to_string(), endpoint.to_string());
        assert_eq!(conn.peer_addr().unwrap(), origin, "{endpoint}");
        let addresses = [conn.local_addr().unwrap(), origin];
        let made_for = {
            let mut register = self.0.lock().unwrap();
            // A dial that came too late for its caller is at rest before its first use.
            assert!(conn.is_reused() || !register.contains_key(&addresses), "{endpoint}");
            register.entry(addresses).or_insert_with(|| endpoint.to_string()).clone()
        };
        assert_eq!(made_for, endpoint.to_string(), "got another endpoint's connection");
        tokio::task::yield_now().await;
        conn.release();
    }
}

on_both_drivers! {
    async fn a_connection_is_reused_by_its_own_endpoint_only(backend) {
        let (first, second) = (Origin::start(), Origin::start());
        let pool = builder(backend).collide_hashes().build().unwrap();
        let endpoints = endpoints(first.address, second.address);
        let origin = |place| if place == 2 { second.address } else { first.address };
        let register = Register::default();
        for round in 0..4 {
            for nth in 0..endpoints.len() {
                // Each time after another one.
                let place = (nth * (2 * round + 1) + round) % endpoints.len();
                register.visit(&pool, &endpoints[place], origin(place)).await;
            }
        }
        let made = register.0.lock().unwrap().len();
        let stats = close_and_check(pool).await;
        assert_eq!(stats.endpoints.len(), endpoints.len());
        for group in &stats.endpoints {
            assert!(endpoints.contains(&group.endpoint), "{}", group.endpoint);
            assert!(group.opened <= 1, "{}: {} connections", group.endpoint, group.opened);
        }
        assert_eq!(stats.endpoints.iter().map(|group| group.opened).sum::<u64>(), made as u64);
    }

    async fn callers_on_every_shard_keep_to_their_endpoints(backend) {
        let (first, second) = (Origin::start(), Origin::start());
        let pool = builder(backend).collide_hashes().max_live(3).build().unwrap();
        let endpoints = endpoints(first.address, second.address);
        let register = Register::default();
        let mut callers = Vec::new();
        for caller in 0..16 {
            let (endpoints, register) = (endpoints.clone(), register.clone());
            let (handle, first, second) = (pool.clone(), first.address, second.address);
            let shard = &pool.shards()[caller % pool.shards().len()];
            callers.push(shard.spawn(async move {
                for step in 0..60 {
                    let place = (caller * 7 + step * 5) % endpoints.len();
                    let origin = if place == 2 { second } else { first };
                    register.visit(&handle, &endpoints[place], origin).await;
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        let made = register.0.lock().unwrap().len();
        let stats = close_and_check(pool).await;
        let sum = |count: fn(&GroupStats) -> u64| stats.endpoints.iter().map(count).sum::<u64>();
        let (opened, reused) = (sum(|group| group.opened), sum(|group| group.reused));
        assert!(stats.endpoints.iter().all(|group| group.opened <= 3), "{stats:?}");
        assert!(reused > opened && made as u64 <= opened, "{made} used, {stats:?}");
        let accepted = || [&first, &second].map(|origin| origin.accepted.load(Ordering::SeqCst));
        eventually("the origins see them all", || {
            accepted().iter().sum::<usize>() as u64 == opened
        })
        .await;
    }
}
