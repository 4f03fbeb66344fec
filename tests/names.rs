//! Where a connection leads, and as whom: names, addresses, unix sockets, headers, sources.
#![cfg(target_os = "linux")]

mod support;

#[path = "support/peers.rs"]
mod peers;
#[path = "sockets/unix_echo.rs"]
mod unix_echo;

use std::{net::IpAddr, net::Shutdown, net::SocketAddr, time::Duration};

use corepool::{
    CheckoutError, CloseReason, DialErrorKind, Endpoint, Pool, ProxyHeader, RawConnector,
    StreamConnector, TcpConnector,
};
use peers::{
    Events, HERE, HERE_V6, Listener, Origin, Reply, Scripted, THERE, free_port, has_v6, origins,
};
use support::{Ended, builder, close_and_check, eventually, tuned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unix_echo::{UnixEcho, fresh_path};

/// One exchange with an echo.
macro_rules! exchange {
    ($conn:expr) => {{
        $conn.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        $conn.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
    }};
}

const NAME: &str = "origin.test";
/// A TTL that no test outlives.
const LONG: u64 = 600_000;

fn dial_error(error: &CheckoutError) -> (DialErrorKind, String) {
    let CheckoutError::Dial(dial) = error else { panic!("{error:?}") };
    (dial.kind(), error.to_string())
}

/// A pool that asks this resolver, and believes whatever TTL it says.
fn resolving(backend: corepool::Backend, resolver: &Scripted) -> corepool::Builder<TcpConnector> {
    builder(backend).resolver(resolver.clone()).endpoint(|policy| {
        policy.names.dns_min_ttl_ms = 0;
        policy.names.retire_over_ms = 0;
    })
}

on_both_drivers! {
    async fn many_checkouts_at_once_ask_for_a_name_once(backend) {
        let ([_origin], port) = origins([HERE]);
        let resolver = Scripted::new([Reply::Slowly(vec![HERE], LONG)]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        let callers = (0..20).map(|n: usize| {
            let group = group.clone();
            pool.shards()[n % 2].spawn(async move {
                let mut conn = group.checkout().await.unwrap();
                exchange!(conn);
                conn
            })
        });
        let mut held = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            held.push(caller.await.unwrap());
        }
        held.push(group.checkout_fresh().await.unwrap());
        assert_eq!((resolver.asked(), group.stats().opened), (1, 21));
        drop(held);
        close_and_check(pool).await;
    }

    async fn an_answer_is_asked_for_again_after_its_ttl_and_not_before(backend) {
        let ([_origin], port) = origins([HERE]);
        let resolver = Scripted::new([Reply::With(vec![HERE], 500), Reply::With(vec![HERE], LONG)]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        let started = std::time::Instant::now();
        group.checkout().await.unwrap().release();
        group.checkout_fresh().await.unwrap().release();
        if started.elapsed() < Duration::from_millis(400) {
            assert_eq!(resolver.asked(), 1, "within its TTL");
        }
        eventually("refreshed in the background", || resolver.asked() == 2).await;
        assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
        close_and_check(pool).await;
    }

    async fn a_name_is_refreshed_whichever_shard_its_connections_are_on(backend) {
        let ([_origin], port) = origins([HERE]);
        for shard in 0..2 {
            let resolver = Scripted::new([Reply::With(vec![HERE], 200)]);
            let pool = resolving(backend, &resolver).build().unwrap();
            let group = pool.group(Endpoint::host(NAME, port));
            let seen = group.clone();
            let caller = async move { group.checkout().await.unwrap().release() };
            pool.shards()[shard].spawn(caller).await.unwrap();
            assert_eq!(seen.stats().idle, 1);
            // While nobody dials.
            eventually("refreshed", || resolver.asked() >= 2).await;
            assert_eq!(seen.stats().opened, 1);
            close_and_check(pool).await;
        }
    }

    async fn a_refresh_that_fails_keeps_the_old_addresses(backend) {
        let ([origin], port) = origins([HERE]);
        for bad in [Reply::Fails, Reply::With(Vec::new(), 100), Reply::Panics] {
            let resolver = Scripted::new([Reply::With(vec![HERE], 100), bad]);
            let pool = resolving(backend, &resolver).build().unwrap();
            let group = pool.group(Endpoint::host(NAME, port));
            group.checkout().await.unwrap().release();
            eventually("asked again", || resolver.asked() >= 2).await;
            group.checkout_fresh().await.unwrap().release();
            let stats = group.stats();
            assert_eq!((stats.idle, stats.dial_failures), (2, 0), "{stats:?}");
            let mut made = 0;
        eventually("accepted", || { made += origin.count(); made == 2 }).await;
            close_and_check(pool).await;
        }
    }

    async fn a_refresh_that_never_ends_is_given_up_and_tried_again(backend) {
        let ([_here, there], port) = origins([HERE, THERE]);
        let replies =
            [Reply::With(vec![HERE], 100), Reply::Never, Reply::With(vec![THERE], LONG)];
        let resolver = Scripted::new(replies);
        let pool = resolving(backend, &resolver)
            .connect_timeout(Duration::from_millis(150))
            .build()
            .unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        group.checkout().await.unwrap().release();
        eventually("asked a third time", || resolver.asked() == 3).await;
        eventually("retired", || group.stats().closed_for(CloseReason::Retired) == 1).await;
        group.checkout().await.unwrap().release();
        there.next();
        close_and_check(pool).await;
    }

    async fn connections_to_an_address_that_has_vanished_are_retired(backend) {
        let ([here, there], port) = origins([HERE, THERE]);
        let events = Events::default();
        let resolver = Scripted::new([Reply::With(vec![HERE], 100)]);
        let pool = resolving(backend, &resolver).observer(events.observer()).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        let _ = group.warm_up(4).await;
        let held = group.checkout().await.unwrap();
        let mut made = 0;
        eventually("accepted", || { made += here.count(); made == 4 }).await;
        resolver.say(Reply::With(vec![THERE], 100));
        let retired = || group.stats().closed_for(CloseReason::Retired);
        eventually("those at rest are retired", || retired() == 3).await;
        assert_eq!(group.stats().in_use, 1, "the one in use is let alone");
        held.release();
        eventually("it is retired when it comes back", || retired() == 4).await;
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        assert_eq!((here.count(), there.count()), (0, 1), "it was answered, so it was accepted");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(group.stats().idle, 1, "the new one stays");
        let changes = events.of("addresses_changed");
        let expected =
            format!("addresses_changed: [{THERE}] [{HERE}] @{}", group.endpoint());
        assert_eq!(changes, [expected], "told once");
        assert_eq!(events.count("closed: retired"), 4);
        close_and_check(pool).await;
    }

    async fn a_retirement_takes_its_time(backend) {
        let ([_here, _there], port) = origins([HERE, THERE]);
        let resolver = Scripted::new([Reply::With(vec![HERE], 100)]);
        let pool = resolving(backend, &resolver)
            .shards(1)
            .endpoint(|policy| policy.names.retire_over_ms = 600)
            .build()
            .unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        let _ = group.warm_up(8).await;
        resolver.say(Reply::With(vec![THERE], LONG));
        let retired = || group.stats().closed_for(CloseReason::Retired);
        eventually("it begins", || retired() > 0).await;
        assert!(retired() < 8, "not all at once");
        eventually("it ends", || retired() == 8).await;
        assert_eq!(group.stats().closed_total(), 8);
        close_and_check(pool).await;
    }

    async fn another_order_of_the_same_addresses_is_no_change(backend) {
        let ([_here, _there], port) = origins([HERE, THERE]);
        let resolver = Scripted::new([Reply::With(vec![HERE, THERE], 100)]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        group.checkout().await.unwrap().release();
        resolver.say(Reply::With(vec![THERE, HERE], 100));
        let asked = resolver.asked();
        eventually("asked again", || resolver.asked() >= asked + 2).await;
        assert_eq!(group.stats().idle, 1, "nothing to retire");
        close_and_check(pool).await;
    }

    async fn an_adopted_connection_to_an_address_that_has_vanished_is_retired(backend) {
        let ([_here, _there], port) = origins([HERE, THERE]);
        let resolver = Scripted::new([Reply::With(vec![THERE], LONG)]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        group.checkout().await.unwrap().release();
        let stream = tokio::net::TcpStream::connect((HERE, port)).await.unwrap();
        group.adopt(stream).await.unwrap();
        let retired = || group.stats().closed_for(CloseReason::Retired) == 1;
        eventually("the name does not lead there", retired).await;
        assert_eq!(group.stats().idle, 1, "the other one stays");
        close_and_check(pool).await;
    }

    async fn an_address_that_is_new_beside_the_old_ones_is_told_as_well(backend) {
        let ([_here], port) = origins([HERE]);
        let events = Events::default();
        let resolver = Scripted::new([Reply::With(vec![HERE], 100)]);
        let pool = resolving(backend, &resolver).observer(events.observer()).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        group.checkout().await.unwrap().release();
        eventually("asked again", || resolver.asked() >= 2).await;
        assert_eq!(events.count("addresses_changed"), 0, "the first answer is no change");
        resolver.say(Reply::With(vec![HERE, THERE], 100));
        eventually("told", || events.count("addresses_changed") == 1).await;
        let change = events.of("addresses_changed: [127.0.0.2] []");
        assert_eq!(change.len(), 1, "{:?}", events.of("addresses"));
        assert_eq!(group.stats().idle, 1);
        close_and_check(pool).await;
    }

    async fn an_address_that_refuses_gives_way_to_the_next(backend) {
        if !has_v6() {
            return;
        }
        let ([origin], port) = origins([HERE]);
        let resolver = Scripted::new([Reply::With(vec![HERE, HERE_V6], LONG)]);
        // So long that only a refusal starts the next attempt in time.
        let pool = resolving(backend, &resolver)
            .endpoint(|policy| policy.names.attempt_delay_ms = 2000)
            .build()
            .unwrap();
        let mut conn = pool.group(Endpoint::host(NAME, port)).checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        assert_eq!(origin.count(), 1);
        close_and_check(pool).await;
    }

    async fn an_address_that_swallows_all_gives_way_to_the_next_after_a_while(backend) {
        if !has_v6() {
            return;
        }
        let ([origin], port) = origins([HERE]);
        let Some(_hole) = swallow(port) else { return };
        let resolver = Scripted::new([Reply::With(vec![HERE_V6, HERE], LONG)]);
        let pool = resolving(backend, &resolver)
            .connect_timeout(Duration::from_secs(30))
            .acquire_timeout(Duration::from_secs(30))
            .endpoint(|policy| policy.names.attempt_delay_ms = 100)
            .build()
            .unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        let mut held = Vec::new();
        for _ in 0..5 {
            let mut conn = group.checkout().await.unwrap();
            exchange!(conn);
            assert!(conn.peer_addr().unwrap().is_ipv4());
            held.push(conn);
        }
        assert_eq!((origin.count(), group.stats().dial_failures), (5, 0));
        held.into_iter().for_each(corepool::Pooled::release);
        close_and_check(pool).await;
    }

    async fn of_two_families_the_first_that_answers_serves_and_the_other_is_let_go(backend) {
        if !has_v6() {
            return;
        }
        let ([v6, v4], port) = origins([HERE_V6, HERE]);
        let resolver = Scripted::new([Reply::With(vec![HERE, HERE_V6], LONG)]);
        let pool = resolving(backend, &resolver)
            .endpoint(|policy| policy.names.attempt_delay_ms = 2000)
            .build()
            .unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        assert!(conn.peer_addr().unwrap().is_ipv6(), "RFC 8305: IPv6 goes first");
        conn.release();
        assert_eq!((v6.count(), v4.count()), (1, 0));
        close_and_check(pool).await;
    }

    async fn when_every_address_refuses_the_error_names_endpoint_and_address(backend) {
        let port = free_port();
        let resolver = Scripted::new([Reply::With(vec![HERE, THERE], LONG)]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        let (kind, text) = dial_error(&group.checkout().await.unwrap_err());
        assert_eq!(kind, DialErrorKind::Refused);
        let address = |of: IpAddr| text.contains(&SocketAddr::new(of, port).to_string());
        assert!(text.contains(&format!("{NAME}:{port}")) && (address(HERE) || address(THERE)), "{text}");
        assert_eq!(group.stats().dial_failures, 1, "one dial, however many addresses");
        close_and_check(pool).await;
    }

    async fn a_resolver_that_never_answers_ends_at_the_timeout(backend) {
        let resolver = Scripted::new([Reply::Never]);
        let pool = resolving(backend, &resolver)
            .connect_timeout(Duration::from_millis(200))
            .build()
            .unwrap();
        let group = pool.group(Endpoint::host(NAME, 80));
        let (kind, text) = dial_error(&group.checkout().await.unwrap_err());
        assert_eq!(kind, DialErrorKind::TimedOut, "{text}");
        assert!(text.contains(NAME) && text.contains("200 ms"), "{text}");
        close_and_check(pool).await;
    }

    async fn a_resolver_that_fails_is_told_with_its_reason_and_asked_again_later(backend) {
        let ([_origin], port) = origins([HERE]);
        let resolver = Scripted::new([Reply::Fails]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port));
        for _ in 0..3 {
            let (kind, text) = dial_error(&group.checkout().await.unwrap_err());
            assert_eq!(kind, DialErrorKind::Resolve);
            assert!(text.contains(NAME) && text.contains("no server answers"), "{text}");
        }
        assert!(resolver.asked() < 3, "a failure holds for a moment");
        resolver.say(Reply::With(vec![HERE], LONG));
        let conn = loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            match group.checkout().await {
                Ok(conn) => break conn,
                Err(CheckoutError::Dial(_)) => {}
                Err(CheckoutError::BreakerOpen { .. }) => group.reset_breaker(),
                Err(error) => panic!("{error:?}"),
            }
        };
        conn.release();
        close_and_check(pool).await;
    }

    async fn a_resolver_that_panics_fails_as_one_that_cannot_resolve(backend) {
        let resolver = Scripted::new([Reply::Panics]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, 80));
        for _ in 0..2 {
            let (kind, text) = dial_error(&group.checkout().await.unwrap_err());
            assert_eq!(kind, DialErrorKind::Resolve, "{text}");
            assert!(text.contains(NAME), "{text}");
        }
        close_and_check(pool).await;
    }

    async fn an_empty_answer_is_a_name_without_an_address(backend) {
        let resolver = Scripted::new([Reply::With(Vec::new(), LONG)]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, 80));
        let (kind, text) = dial_error(&group.checkout().await.unwrap_err());
        assert_eq!(kind, DialErrorKind::Resolve);
        assert!(text.contains(NAME) && text.contains("no address"), "{text}");
        close_and_check(pool).await;
    }

    async fn a_unix_socket_is_pooled_like_any_other(backend) {
        let origin = UnixEcho::start();
        let pool = tuned(Pool::builder(StreamConnector), backend).max_live(2).build().unwrap();
        let group = pool.group(Endpoint::unix(origin.path()));
        for round in 0..3 {
            let mut conn = group.checkout().await.unwrap();
            assert_eq!(conn.is_reused(), round > 0);
            exchange!(conn);
            conn.release();
        }
        origin.next().shutdown(Shutdown::Both).unwrap();
        eventually("evicted", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        group.checkout().await.unwrap().discard();
        for _ in 0..2 {
            assert_eq!(origin.next_end(), Ended::Fin);
        }
        close_and_check(pool).await;
    }

    async fn a_unix_socket_that_is_not_there_is_an_error_that_names_it(backend) {
        let path = fresh_path();
        let pool = tuned(Pool::builder(StreamConnector), backend).build().unwrap();
        let error = pool.group(Endpoint::unix(&path)).checkout().await.unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        close_and_check(pool).await;
    }

    async fn a_connector_for_tcp_refuses_a_unix_socket_by_name(backend) {
        let origin = UnixEcho::start();
        let pool = builder(backend).build().unwrap();
        let error = pool.group(Endpoint::unix(origin.path())).checkout().await.unwrap_err();
        assert_eq!(dial_error(&error).0, DialErrorKind::Connector, "{error}");
        assert!(error.to_string().contains("unix"), "{error}");
        assert_eq!(origin.next_end(), Ended::Fin);
        close_and_check(pool).await;
    }

    async fn a_proxy_header_of_either_version_comes_first_and_once(backend) {
        let listener = Listener::start();
        let client = |port| SocketAddr::from(([192, 0, 2, 7], port));
        let headers = [
            ProxyHeader::v1(client(1), listener.address).unwrap(),
            ProxyHeader::v2(client(1), listener.address).unwrap(),
            ProxyHeader::v2(client(2), listener.address)
                .unwrap()
                .with_authority("example.org")
                .unwrap(),
        ];
        let pool = builder(backend).build().unwrap();
        for header in &headers {
            let endpoint = Endpoint::from(listener.address).with_proxy_header(header.clone());
            let group = pool.group(endpoint);
            for _ in 0..2 {
                let mut conn = group.checkout().await.unwrap();
                conn.write_all(b"request;").await.unwrap();
                conn.release();
            }
            group.checkout().await.unwrap().discard();
            let mut expected = header.to_bytes();
            expected.extend(b"request;request;");
            assert_eq!(listener.next().1, expected, "{header}");
            assert_eq!(group.stats().opened, 1, "a group of its own");
        }
        assert_eq!(pool.stats().endpoints.len(), headers.len());
        close_and_check(pool).await;
    }

    async fn a_proxy_header_goes_ahead_on_plain_and_unix_sockets_too(backend) {
        let listener = Listener::start();
        let header = ProxyHeader::v1_unknown();
        let pool = tuned(Pool::builder(RawConnector), backend).build().unwrap();
        let endpoint = Endpoint::from(listener.address).with_proxy_header(header.clone());
        pool.group(endpoint).checkout().await.unwrap().discard();
        assert_eq!(listener.next().1, header.to_bytes());
        close_and_check(pool).await;

        let origin = UnixEcho::start();
        let pool = tuned(Pool::builder(StreamConnector), backend).build().unwrap();
        let endpoint = Endpoint::unix(origin.path()).with_proxy_header(header.clone());
        let mut conn = pool.group(endpoint).checkout().await.unwrap();
        let mut echoed = vec![0; header.to_bytes().len()];
        conn.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, header.to_bytes());
        conn.release();
        close_and_check(pool).await;
    }

    async fn connections_leave_from_the_source_of_their_endpoint(backend) {
        let listener = Listener::start();
        let pool = builder(backend).build().unwrap();
        let plain = Endpoint::from(listener.address);
        for source in [[127, 0, 0, 5], [127, 0, 0, 6]] {
            let group = pool.group(plain.clone().with_source(source));
            assert!(!group.checkout().await.unwrap().is_reused());
            group.checkout().await.unwrap().discard();
            assert_eq!(listener.next().0.ip(), IpAddr::from(source));
            assert_eq!(group.stats().opened, 1);
        }
        close_and_check(pool).await;
    }

    async fn a_source_of_one_family_takes_the_addresses_of_that_family(backend) {
        if !has_v6() {
            return;
        }
        let ([_v6, v4], port) = origins([HERE_V6, HERE]);
        let resolver = Scripted::new([Reply::With(vec![HERE_V6, HERE], LONG)]);
        let pool = resolving(backend, &resolver).build().unwrap();
        let group = pool.group(Endpoint::host(NAME, port).with_source([127, 0, 0, 5]));
        let mut conn = group.checkout().await.unwrap();
        exchange!(conn);
        conn.release();
        assert_eq!(v4.next().peer_addr().unwrap().ip().to_string(), "127.0.0.5");
        close_and_check(pool).await;
    }

    async fn a_source_that_this_host_does_not_have_is_an_error_that_names_it(backend) {
        let origin = Origin::at((HERE, 0)).unwrap();
        let pool = builder(backend).build().unwrap();
        let endpoint = Endpoint::from(origin.address).with_source([192, 0, 2, 9]);
        let error = pool.group(endpoint).checkout().await.unwrap_err();
        let (kind, text) = dial_error(&error);
        assert_eq!(kind, DialErrorKind::Other, "not the want of ports: {text}");
        assert!(text.contains("source address 192.0.2.9"), "{text}");
        close_and_check(pool).await;
    }
}

/// A listener on the IPv6 address that answers no SYN: its backlog is full.
fn swallow(port: u16) -> Option<Vec<socket2::Socket>> {
    use socket2::{Domain, Socket, Type};
    let address = SocketAddr::from((HERE_V6, port)).into();
    let socket = || Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&address).ok()?;
    listener.listen(0).ok()?;
    let mut held = vec![listener];
    // Linux takes backlog + 1 connections and then drops SYNs.
    for _ in 0..4 {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address);
        held.push(client);
    }
    std::thread::sleep(Duration::from_millis(50));
    Some(held)
}
