//! The pool of TLS connections: what an identity says, what is verified, what is resumed, and what
//! a handshake fails for.

#[path = "support/tls.rs"]
mod peers;
mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use corepool::{
    CheckoutError, DialError, DialErrorKind, Endpoint, Group, Pool, TlsConnector, TlsError,
    TlsIdentity, TlsStream, Verification,
};
use peers::{Authority, Goodbye, Server, Shown, connector, plain};
use support::{close_and_check, eventually, tuned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::{
    HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection, StreamOwned,
};

const NAME: &str = "origin.test";

fn secure(server: &Server, tls: TlsIdentity) -> Endpoint {
    Endpoint::from(server.address).with_tls(tls)
}

/// Says something and hears it back.
async fn ask(stream: &mut TlsStream) {
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
}

/// Dials once, exchanges something and closes.
async fn visit(group: &Group<TlsConnector>) {
    let mut connection = group.checkout().await.unwrap();
    ask(&mut connection).await;
    connection.discard();
}

async fn refused(group: &Group<TlsConnector>) -> DialError {
    match group.checkout().await {
        Err(CheckoutError::Dial(error)) => error,
        Err(error) => panic!("not refused: {error}"),
        Ok(_) => panic!("not refused: connected"),
    }
}

/// What the connector made of it. Its text is in the dial's.
fn cause(error: &DialError) -> &TlsError {
    assert_eq!(error.kind(), DialErrorKind::Connector, "{error}");
    let cause = std::error::Error::source(error).expect("a cause");
    assert!(error.to_string().contains(&cause.to_string()), "{error}");
    cause.downcast_ref().unwrap_or_else(|| panic!("not by TLS: {error}"))
}

on_both_drivers! {
    async fn a_connection_is_reused_and_says_goodbye_when_it_is_closed(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&[NAME]).server());
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let group = pool.group(secure(&server, TlsIdentity::new(NAME)));
        for round in 0..20 {
            let mut connection = group.checkout().await.unwrap();
            assert_eq!(connection.is_reused(), round > 0);
            ask(&mut connection).await;
            let session = connection.session().unwrap();
            assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            assert_eq!(session.peer_certificates().unwrap().len(), 1);
            connection.release();
        }
        assert_eq!(group.stats().opened, 1);
        group.evict();
        assert_eq!(server.next_end(), Goodbye::CloseNotify);
        // One that its user keeps for himself.
        let mut mine = group.checkout().await.unwrap().detach();
        ask(&mut mine).await;
        drop(mine);
        assert_eq!(server.next_end(), Goodbye::CloseNotify);
        close_and_check(pool).await;
    }

    async fn one_pool_serves_endpoints_with_tls_and_without(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&[NAME]).server());
        let echo = support::Echo::start();
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let secure = pool.group(secure(&server, TlsIdentity::new(NAME)));
        let plain = pool.group(echo.address);
        for _ in 0..3 {
            for (group, is_secure) in [(&secure, true), (&plain, false)] {
                let mut connection = group.checkout().await.unwrap();
                assert_eq!(connection.session().is_some(), is_secure);
                ask(&mut connection).await;
                connection.release();
            }
        }
        assert_eq!((secure.stats().opened, plain.stats().opened), (1, 1));
        close_and_check(pool).await;
    }

    async fn the_server_sees_what_the_identity_says(backend) {
        let authority = Authority::new();
        let client = authority.issue(&["client.test"]);
        let mut config = authority.issue(&[NAME]).mutual_server(&authority, false);
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let server = Server::echo(config);
        let tls = connector()
            .authorities(authority.roots())
            .client_certificate("ours", client.chain.clone(), client.key())
            .build()
            .unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let bare = pool.group(secure(&server, TlsIdentity::new(NAME)));
        let mut connection = bare.checkout().await.unwrap();
        ask(&mut connection).await;
        let seen = server.next_seen();
        assert_eq!((seen.name.as_deref(), seen.protocol), (Some(NAME), None));
        assert_eq!((seen.client, connection.alpn_protocol()), (None, None));
        drop(connection);
        let full = TlsIdentity::new(NAME).with_alpn(["h2"]).with_client_certificate("ours");
        let full = pool.group(secure(&server, full));
        let mut connection = full.checkout().await.unwrap();
        ask(&mut connection).await;
        let seen = server.next_seen();
        assert_eq!((seen.name.as_deref(), seen.protocol.as_deref()), (Some(NAME), Some(&b"h2"[..])));
        assert_eq!(seen.client.as_ref(), Some(&client.chain[0]));
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        drop(connection);
        close_and_check(pool).await;
    }

    async fn a_certificate_for_another_name_is_refused_unless_names_do_not_matter(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&["one.test", "two.test"]).server());
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let error = refused(&pool.group(secure(&server, TlsIdentity::new(NAME)))).await;
        let text = error.to_string();
        for name in [NAME, "one.test", "two.test"] {
            assert!(text.contains(name), "{text}");
        }
        assert!(matches!(cause(&error), TlsError::Handshake { .. }), "{error:?}");
        for verification in [Verification::ChainOnly, Verification::Off] {
            let identity = TlsIdentity::new(NAME).with_verification(verification);
            visit(&pool.group(secure(&server, identity))).await;
        }
        close_and_check(pool).await;
    }

    async fn a_certificate_of_an_unknown_authority_is_refused_unless_nothing_is_verified(backend) {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let server = Server::echo(stranger.issue(&[NAME]).server());
        let tls = connector()
            .authorities(authority.roots())
            .ca_set("strangers", stranger.roots())
            .build()
            .unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        for verification in [Verification::Full, Verification::ChainOnly] {
            let identity = TlsIdentity::new(NAME).with_verification(verification);
            let error = refused(&pool.group(secure(&server, identity))).await;
            assert!(error.to_string().contains("issued by no authority"), "{error}");
            assert!(error.to_string().contains(NAME), "{error}");
        }
        let off = TlsIdentity::new(NAME).with_verification(Verification::Off);
        visit(&pool.group(secure(&server, off))).await;
        visit(&pool.group(secure(&server, TlsIdentity::new(NAME).with_ca_set("strangers")))).await;
        close_and_check(pool).await;
    }

    async fn an_expired_certificate_is_refused_unless_nothing_is_verified(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue_expired(&[NAME]).server());
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        for verification in [Verification::Full, Verification::ChainOnly] {
            let identity = TlsIdentity::new(NAME).with_verification(verification);
            let error = refused(&pool.group(secure(&server, identity))).await;
            let text = error.to_string();
            assert!(text.contains("expired") && text.contains("days ago"), "{text}");
            assert!(text.contains(NAME), "{text}");
        }
        let off = TlsIdentity::new(NAME).with_verification(Verification::Off);
        visit(&pool.group(secure(&server, off))).await;
        close_and_check(pool).await;
    }

    async fn what_the_connector_does_not_know_is_an_error_and_no_verdict_on_the_endpoint(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&[NAME]).server());
        let tls = connector().ca_set("empty", RootCertStore::empty()).build().unwrap();
        let pool = tuned(Pool::builder(tls.clone()), backend).build().unwrap();
        let named = || TlsIdentity::new(NAME).with_verification(Verification::Off);
        type Is = fn(&TlsError) -> bool;
        let wrong: [(TlsIdentity, Is); 7] = [
            (named().with_ca_set("?"), |error| matches!(error, TlsError::UnknownCaSet { .. })),
            (named().with_client_certificate("?"), |error| {
                matches!(error, TlsError::UnknownClientCertificate { .. })
            }),
            (TlsIdentity::new(NAME), |error| matches!(error, TlsError::NoAuthorities { .. })),
            (TlsIdentity::new(NAME).with_ca_set("empty"), |error| {
                matches!(error, TlsError::NoAuthorities { label: Some(_) })
            }),
            (TlsIdentity::new("no name").with_verification(Verification::Off), |error| {
                matches!(error, TlsError::ServerName { .. })
            }),
            (named().with_alpn([""]), |error| matches!(error, TlsError::Protocols)),
            (named().with_alpn([vec![b'x'; 256]]), |error| matches!(error, TlsError::Protocols)),
        ];
        for (identity, is_it) in wrong {
            let group = pool.group(secure(&server, identity));
            // More often than the breaker lets pass in a row.
            for _ in 0..7 {
                let error = refused(&group).await;
                assert!(is_it(cause(&error)), "{error}");
            }
        }
        // Once the connector knows it, the same group's dials succeed.
        let late = pool.group(secure(&server, TlsIdentity::new(NAME).with_ca_set("late")));
        assert!(matches!(cause(&refused(&late).await), TlsError::UnknownCaSet { .. }));
        tls.replace_ca_set("late", authority.roots());
        visit(&late).await;
        close_and_check(pool).await;
    }

    async fn a_session_is_resumed_as_the_same_identity_and_as_no_other(backend) {
        let authority = Authority::new();
        let (one, two) = (authority.issue(&["one.test"]), authority.issue(&["two.test"]));
        let shown = authority.issue(&[NAME]);
        let name = || TlsIdentity::new(NAME);
        let identities = [
            name(),
            name().with_verification(Verification::Off),
            name().with_verification(Verification::ChainOnly),
            name().with_ca_set("same"),
            name().with_alpn(["http/1.1"]),
            name().with_client_certificate("one"),
            name().with_client_certificate("two"),
        ];
        for config in [shown.mutual_server(&authority, false), shown.old_server()] {
            let server = Server::echo(config);
            let tls = connector()
                .authorities(authority.roots())
                .ca_set("same", authority.roots())
                .client_certificate("one", one.chain.clone(), one.key())
                .client_certificate("two", two.chain.clone(), two.key())
                .build()
                .unwrap();
            let pool = tuned(Pool::builder(tls), backend).build().unwrap();
            for identity in &identities {
                let group = pool.group(secure(&server, identity.clone()));
                // Others have sessions with this very server by now.
                visit(&group).await;
                assert_eq!(server.next_seen().kind, HandshakeKind::Full, "{identity}");
                visit(&group).await;
                assert_eq!(server.next_seen().kind, HandshakeKind::Resumed, "{identity}");
            }
            for identity in &identities {
                visit(&pool.group(secure(&server, identity.clone()))).await;
                assert_eq!(server.next_seen().kind, HandshakeKind::Resumed, "{identity}");
            }
            close_and_check(pool).await;
        }
    }

    async fn endpoints_of_one_identity_share_its_sessions(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&[NAME]).server());
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        visit(&pool.group(secure(&server, TlsIdentity::new(NAME)))).await;
        assert_eq!(server.next_seen().kind, HandshakeKind::Full);
        let tagged = secure(&server, TlsIdentity::new(NAME)).with_tag("another group");
        visit(&pool.group(tagged)).await;
        assert_eq!(server.next_seen().kind, HandshakeKind::Resumed);
        close_and_check(pool).await;
    }

    async fn what_is_replaced_holds_from_the_next_dial_on_and_resumes_nothing(backend) {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let (old, new) = (authority.issue(&["old.test"]), authority.issue(&["new.test"]));
        let server = Server::echo(authority.issue(&[NAME]).mutual_server(&authority, true));
        let tls = connector()
            .ca_set("ours", authority.roots())
            .client_certificate("client", old.chain.clone(), old.key())
            .build()
            .unwrap();
        let pool = tuned(Pool::builder(tls.clone()), backend).build().unwrap();
        let identity =
            TlsIdentity::new(NAME).with_ca_set("ours").with_client_certificate("client");
        let group = pool.group(secure(&server, identity));
        visit(&group).await;
        assert_eq!(server.next_seen().client.as_ref(), Some(&old.chain[0]));
        // A key that is not the certificate's changes nothing.
        let wrong = tls.replace_client_certificate("client", new.chain.clone(), old.key());
        assert!(matches!(wrong, Err(TlsError::ClientCertificate { .. })), "{wrong:?}");
        visit(&group).await;
        let seen = server.next_seen();
        assert_eq!((seen.kind, seen.client.as_ref()), (HandshakeKind::Resumed, Some(&old.chain[0])));
        tls.replace_client_certificate("client", new.chain.clone(), new.key()).unwrap();
        visit(&group).await;
        let seen = server.next_seen();
        assert_eq!((seen.kind, seen.client.as_ref()), (HandshakeKind::Full, Some(&new.chain[0])));
        tls.replace_ca_set("ours", stranger.roots());
        let error = refused(&group).await;
        assert!(error.to_string().contains("issued by no authority"), "{error}");
        close_and_check(pool).await;
    }

    async fn with_no_room_for_sessions_each_handshake_is_a_full_one(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&[NAME]).server());
        let tls = connector().authorities(authority.roots()).sessions(0).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let group = pool.group(secure(&server, TlsIdentity::new(NAME)));
        for _ in 0..3 {
            visit(&group).await;
            assert_eq!(server.next_seen().kind, HandshakeKind::Full);
        }
        close_and_check(pool).await;
    }

    async fn an_identity_that_is_used_again_and_again_keeps_its_sessions(backend) {
        let authority = Authority::new();
        let shown = authority.issue(&[NAME, "a.test", "b.test", "c.test"]);
        let server = Server::echo(shown.server());
        let tls = connector().authorities(authority.roots()).max_identities(2).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let often = pool.group(secure(&server, TlsIdentity::new(NAME)));
        visit(&often).await;
        assert_eq!(server.next_seen().kind, HandshakeKind::Full);
        for name in ["a.test", "b.test", "c.test", "a.test"] {
            visit(&pool.group(secure(&server, TlsIdentity::new(name)))).await;
            // The last one was forgotten for the two in between.
            assert_eq!(server.next_seen().kind, HandshakeKind::Full, "{name}");
            visit(&often).await;
            assert_eq!(server.next_seen().kind, HandshakeKind::Resumed);
        }
        close_and_check(pool).await;
    }

    async fn a_server_that_refuses_all_protocols_offered_is_told_from_one_that_fails(backend) {
        let authority = Authority::new();
        let mut config = authority.issue(&[NAME]).server();
        config.alpn_protocols = vec![b"spdy/1".to_vec()];
        let server = Server::echo(config);
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let identity = TlsIdentity::new(NAME).with_alpn(["h2", "http/1.1"]);
        let error = refused(&pool.group(secure(&server, identity))).await;
        assert!(matches!(cause(&error), TlsError::NoProtocol { .. }), "{error}");
        assert!(error.to_string().contains("h2, http/1.1"), "{error}");
        close_and_check(pool).await;
    }

    async fn a_server_that_chooses_no_protocol_is_refused_where_one_is_required(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&[NAME]).server());
        for required in [false, true] {
            let tls = connector().authorities(authority.roots()).require_alpn(required);
            let pool = tuned(Pool::builder(tls.build().unwrap()), backend).build().unwrap();
            // Nothing is required of whom nothing was offered.
            visit(&pool.group(secure(&server, TlsIdentity::new(NAME)))).await;
            let offering = pool.group(secure(&server, TlsIdentity::new(NAME).with_alpn(["h2"])));
            if required {
                let error = refused(&offering).await;
                assert!(matches!(cause(&error), TlsError::NoProtocol { .. }), "{error}");
            } else {
                visit(&offering).await;
            }
            close_and_check(pool).await;
        }
    }

    async fn a_client_certificate_that_lacks_is_told(backend) {
        let authority = Authority::new();
        let shown = authority.issue(&[NAME]);
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend).build().unwrap();
        let server = Server::echo(shown.mutual_server(&authority, true));
        // TLS 1.3 has it that the client is through before the server has looked.
        let mut connection =
            pool.group(secure(&server, TlsIdentity::new(NAME))).checkout().await.unwrap();
        let error = connection.read(&mut [0; 1]).await.unwrap_err();
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
        connection.release();
        assert_eq!(pool.stats().endpoints[0].idle, 0, "it is not put to rest");
        close_and_check(pool).await;
    }

    async fn bytes_that_are_no_handshake_end_it_at_once(backend) {
        let (large, http) = (&[0_u8; 16_384], b"HTTP/1.1 400 Bad Request\r\n\r\n");
        // A record of the handshake: a server hello of 16 MiB, of which more never comes.
        let mut hello = vec![22, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff];
        hello.extend_from_slice(&large[..16_380]);
        let alert = vec![21, 3, 3, 0, 2, 2, 40];
        let (text, zeros) = (http.to_vec(), large.to_vec());
        for (nonsense, says) in [
            (text, "no TLS"),
            (zeros, "no TLS"),
            (hello, "no TLS"),
            (alert, "HandshakeFailure"),
        ] {
            let address = plain(move |mut socket| {
                let _ = socket.read(&mut [0; 4096]);
                // It keeps the connection, and says nothing more.
                let _ = socket.write_all(&nonsense);
                let _ = socket.read(&mut [0; 4096]);
            });
            let tls = connector().authorities(Authority::new().roots()).build().unwrap();
            let patient = Duration::from_secs(60);
            let pool = tuned(Pool::builder(tls), backend).connect_timeout(patient).build().unwrap();
            let group = pool.group(Endpoint::from(address).with_tls(TlsIdentity::new(NAME)));
            let error = refused(&group).await;
            assert!(matches!(cause(&error), TlsError::Handshake { .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
            close_and_check(pool).await;
        }
    }

    async fn a_peer_that_closes_or_resets_within_the_handshake_is_told(backend) {
        let ways: [fn(TcpStream); 2] = [
            |mut socket| {
                let _ = socket.read(&mut [0; 4096]);
            },
            |mut socket| {
                let _ = socket.read(&mut [0; 1]);
                socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            },
        ];
        for (way, says) in ways.into_iter().zip(["closed", "broke"]) {
            let address = plain(way);
            let tls = connector().authorities(Authority::new().roots()).build().unwrap();
            let pool = tuned(Pool::builder(tls), backend).build().unwrap();
            let group = pool.group(Endpoint::from(address).with_tls(TlsIdentity::new(NAME)));
            let error = refused(&group).await;
            let text = cause(&error).to_string();
            assert!(text.contains(says) && text.contains("within the handshake"), "{text}");
            close_and_check(pool).await;
        }
    }

    async fn a_handshake_that_never_ends_takes_no_longer_than_the_total_timeout(backend) {
        // One says nothing, the other one a byte of a long record now and then.
        let ways: [fn(TcpStream); 2] = [
            |mut socket| while let Ok(1..) = socket.read(&mut [0; 4096]) {},
            |mut socket| {
                let _ = socket.write_all(&[22, 3, 3, 0x40, 0]);
                while socket.write_all(&[0]).is_ok() {
                    thread::sleep(Duration::from_millis(5));
                }
            },
        ];
        for way in ways {
            let tls = connector().authorities(Authority::new().roots()).build().unwrap();
            let pool = tuned(Pool::builder(tls), backend)
                .endpoint(|policy| {
                    policy.timeouts.connect_timeout_ms = 200;
                    policy.timeouts.total_connect_timeout_ms = Some(300);
                })
                .build()
                .unwrap();
            let address = plain(way);
            let group = pool.group(Endpoint::from(address).with_tls(TlsIdentity::new(NAME)));
            let began = Instant::now();
            let error = refused(&group).await;
            assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
            assert_eq!(error.kind(), DialErrorKind::TimedOut, "{error}");
            assert!(error.to_string().contains("connected, but not ready"), "{error}");
            assert!(error.to_string().contains("300 ms"), "{error}");
            close_and_check(pool).await;
        }
    }

    async fn a_handshake_may_take_longer_than_the_connect(backend) {
        let authority = Authority::new();
        let slow = authority.issue(&[NAME]).server();
        let server = Server::scripted(slow, |peer| {
            let _ = peer.write_all(b"hello");
        });
        // Between them stands one who thinks for three times the connect timeout.
        let origin = server.address;
        let address = plain(move |socket| {
            thread::sleep(Duration::from_millis(600));
            relay(socket, TcpStream::connect(origin).unwrap());
        });
        let tls = connector().authorities(authority.roots()).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend)
            .endpoint(|policy| {
                policy.timeouts.connect_timeout_ms = 200;
                policy.timeouts.total_connect_timeout_ms = Some(30_000);
            })
            .build()
            .unwrap();
        let group = pool.group(Endpoint::from(address).with_tls(TlsIdentity::new(NAME)));
        let mut connection = group.checkout().await.unwrap();
        connection.read_exact(&mut [0; 5]).await.unwrap();
        drop(connection);
        close_and_check(pool).await;
    }

    async fn no_more_handshakes_are_under_way_than_may_be(backend) {
        let authority = Authority::new();
        let gate = Gate::start(authority.issue(&[NAME]));
        let tls = connector().authorities(authority.roots()).max_handshakes(2).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend)
            .connect_timeout(Duration::from_secs(30))
            .acquire_timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let group = pool.group(Endpoint::from(gate.address).with_tls(TlsIdentity::new(NAME)));
        let visits: Vec<_> = (0..8)
            .map(|_| {
                let group = group.clone();
                tokio::spawn(async move { visit(&group).await })
            })
            .collect();
        eventually("all are connected", || gate.connected.load(SeqCst) == 8).await;
        eventually("two shake hands", || gate.under_way.load(SeqCst) == 2).await;
        for _ in 0..8 {
            gate.open.send(()).unwrap();
        }
        for visit in visits {
            visit.await.unwrap();
        }
        assert_eq!(gate.most.load(SeqCst), 2);
        close_and_check(pool).await;
    }

    async fn to_wait_for_a_turn_counts_towards_the_total_timeout(backend) {
        let authority = Authority::new();
        let server = Server::echo(authority.issue(&[NAME]).server());
        let (hearing, heard) = mpsc::channel();
        let silent = plain(move |mut socket| {
            while let Ok(1..) = socket.read(&mut [0; 4096]) {
                let _ = hearing.send(());
            }
        });
        let tls = connector().authorities(authority.roots()).max_handshakes(1).build().unwrap();
        let pool = tuned(Pool::builder(tls), backend)
            .connect_timeout(Duration::from_secs(30))
            .acquire_timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let holder = pool.group(Endpoint::from(silent).with_tls(TlsIdentity::new(NAME)));
        let held = tokio::spawn({
            let holder = holder.clone();
            async move { holder.checkout().await.map(drop) }
        });
        eventually("its handshake has begun", || heard.try_recv().is_ok()).await;
        let waiting = pool.group(secure(&server, TlsIdentity::new(NAME)));
        let total = |millis| {
            waiting.reconfigure(|policy| {
                policy.timeouts.connect_timeout_ms = millis;
                policy.timeouts.total_connect_timeout_ms = Some(millis);
            })
        };
        total(200).unwrap();
        let error = refused(&waiting).await;
        assert_eq!(error.kind(), DialErrorKind::TimedOut, "{error}");
        // A dial that is given up gives its turn up.
        assert_eq!(holder.drain(Duration::from_secs(5)).await.left, 0);
        assert!(held.await.unwrap().is_err());
        total(30_000).unwrap();
        visit(&waiting).await;
        close_and_check(pool).await;
    }
}

#[test]
fn a_connector_of_what_cannot_be_is_refused() {
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["one.test"]), authority.issue(&["two.test"]));
    let mixed = connector().client_certificate("mixed", one.chain, two.key()).build();
    assert!(matches!(mixed, Err(TlsError::ClientCertificate { .. })), "{mixed:?}");
    for zero in [connector().max_handshakes(0), connector().max_identities(0)] {
        let zero = zero.build();
        assert!(matches!(zero, Err(TlsError::Setting { value: 0, .. })), "{zero:?}");
    }
    // Nobody has installed one for the process.
    let bare = TlsConnector::builder().build();
    assert!(matches!(bare, Err(TlsError::NoProvider)), "{bare:?}");
}

/// Passes bytes on, both ways.
fn relay(one: TcpStream, other: TcpStream) {
    let (mut from, mut to) = (one.try_clone().unwrap(), other.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut &other, &mut &one);
}

/// A server that holds handshakes back until it is told to go on with one.
struct Gate {
    address: std::net::SocketAddr,
    connected: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    open: mpsc::Sender<()>,
}

impl Gate {
    fn start(shown: Shown) -> Self {
        let config = Arc::new(shown.server());
        let (open, opened) = mpsc::channel();
        let opened = Arc::new(Mutex::new(opened));
        let connected = Arc::<AtomicUsize>::default();
        let (under_way, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counters = (Arc::clone(&connected), Arc::clone(&under_way), Arc::clone(&most));
        let address = plain(move |socket| {
            let (connected, under_way, most) = &counters;
            connected.fetch_add(1, SeqCst);
            let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
            while !session.wants_write() {
                session.read_tls(&mut &socket).unwrap();
                session.process_new_packets().unwrap();
            }
            most.fetch_max(under_way.fetch_add(1, SeqCst) + 1, SeqCst);
            opened.lock().unwrap().recv().unwrap();
            // Before the client has heard of it, and lets the next one begin.
            under_way.fetch_sub(1, SeqCst);
            let mut peer = StreamOwned::new(session, socket);
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = peer.read(&mut buffer) {
                peer.write_all(&buffer[..count]).unwrap();
            }
        });
        Self { address, connected, under_way, most, open }
    }
}
