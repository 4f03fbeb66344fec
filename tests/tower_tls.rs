//! hyper-util's client over a pool whose connections are under TLS.

#[path = "support/tls.rs"]
mod peers;
#[path = "support/secure.rs"]
mod secure;
mod support;

use std::{error::Error, time::Duration};

use bytes::Bytes;
use corepool::{
    Backend, CheckoutError, CloseReason, ConnectService, DialErrorKind, GroupStats, Pool,
    TlsConnector, endpoint_of,
};
use http::{Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{self, Client},
    rt::TokioExecutor,
};
use peers::{Authority, connector};
use secure::Origin;
use support::{close_and_check, eventually, tuned};
use tokio::task::JoinSet;

type HyperClient = Client<ConnectService<TlsConnector>, Empty<Bytes>>;

const HOST: &str = "127.0.0.1";

fn pool(backend: Backend, authority: &Authority) -> Pool<TlsConnector> {
    let tls = connector().authorities(authority.roots()).build().unwrap();
    tuned(Pool::builder(tls), backend).build().unwrap()
}

fn client(pool: &Pool<TlsConnector>) -> HyperClient {
    let service = ConnectService::new(pool.clone());
    let service = service.with_endpoints(|uri| Ok(endpoint_of(uri)?));
    Client::builder(TokioExecutor::new()).build(service)
}

async fn get(client: &HyperClient, uri: Uri) -> Result<(Version, Bytes), legacy::Error> {
    let response = client.get(uri).await?;
    let version = response.version();
    let body = response.into_body().collect().await.expect("a whole body");
    Ok((version, body.to_bytes()))
}

fn stats(pool: &Pool<TlsConnector>, origin: &Origin) -> GroupStats {
    pool.group(endpoint_of(&origin.uri("/")).unwrap()).stats()
}

on_both_drivers! {
    async fn requests_of_http_1_take_turns_on_a_connection_of_the_pools(backend) {
        for protocols in [&["http/1.1"][..], &[]] {
            let authority = Authority::new();
            let origin = Origin::start(&authority.issue(&[HOST]), protocols).await;
            let pool = pool(backend, &authority);
            let client = client(&pool);
            for _ in 0..20 {
                let (version, said) = get(&client, origin.uri("/a")).await.unwrap();
                assert_eq!((version, said.as_ref()), (Version::HTTP_11, &b"HTTP/1.1 /a"[..]));
            }
            let found = stats(&pool, &origin);
            assert_eq!((found.opened, found.in_use, origin.connections()), (1, 1, 1));
            drop(client);
            eventually("hyper lets go of it", || stats(&pool, &origin).in_use == 0).await;
            assert_eq!(stats(&pool, &origin).closed_for(CloseReason::Dirty), 1);
            close_and_check(pool).await;
        }
    }

    async fn requests_of_http_2_share_a_connection_of_the_pools(backend) {
        let authority = Authority::new();
        let origin = Origin::start(&authority.issue(&[HOST]), &["h2", "http/1.1"]).await;
        let pool = pool(backend, &authority);
        let client = client(&pool);
        // That there is one to share, hyper knows from the first.
        let (version, _) = get(&client, origin.uri("/")).await.unwrap();
        assert_eq!(version, Version::HTTP_2);
        let mut asking = JoinSet::new();
        for _ in 0..20 {
            let (client, uri) = (client.clone(), origin.uri("/held"));
            asking.spawn(async move { get(&client, uri).await.unwrap().0 });
        }
        eventually("all of them are there", || origin.under_way() == 20).await;
        origin.let_go(20);
        assert_eq!(asking.join_all().await, [Version::HTTP_2; 20]);
        let found = stats(&pool, &origin);
        assert_eq!((found.opened, found.in_use, origin.connections()), (1, 1, 1));
        drop(client);
        eventually("hyper lets go of it", || stats(&pool, &origin).in_use == 0).await;
        close_and_check(pool).await;
    }

    async fn a_spare_is_under_tls_when_hyper_gets_it(backend) {
        let authority = Authority::new();
        let origin = Origin::start(&authority.issue(&[HOST]), &["h2", "http/1.1"]).await;
        let pool = pool(backend, &authority);
        let group = pool.group(endpoint_of(&origin.uri("/")).unwrap());
        assert_eq!(group.warm_up(1).await.ready, 1);
        let client = client(&pool);
        assert_eq!(get(&client, origin.uri("/")).await.unwrap().0, Version::HTTP_2);
        assert_eq!((group.stats().opened, origin.accepted()), (1, 1));
        drop(client);
        eventually("hyper lets go of it", || group.stats().in_use == 0).await;
        close_and_check(pool).await;
    }

    async fn what_fails_the_handshake_is_told_with_the_endpoint(backend) {
        let authority = Authority::new();
        let strange = Origin::start(&Authority::new().issue(&[HOST]), &["h2"]).await;
        let other = Origin::start(&authority.issue(&["other.test"]), &["h2"]).await;
        let silent = Origin::start(&authority.issue(&[HOST]), &["spdy/1"]).await;
        let pool = pool(backend, &authority);
        let client = client(&pool);
        for (origin, cause) in [
            (&strange, "its certificate was issued by no authority that is known here"),
            (&other, "its certificate is not for \"127.0.0.1\", but for"),
            (&silent, "it speaks none of the application protocols h2, http/1.1"),
        ] {
            let asked = tokio::time::timeout(Duration::from_secs(5), get(&client, origin.uri("/")));
            let error = asked.await.expect("it fails at once").unwrap_err();
            assert!(error.is_connect());
            let source = error.source().unwrap();
            let Some(CheckoutError::Dial(dial)) = source.downcast_ref() else { panic!("{source}") };
            assert_eq!(dial.kind(), DialErrorKind::Connector);
            let (said, endpoint) = (dial.to_string(), endpoint_of(&origin.uri("/")).unwrap());
            assert!(said.contains(&endpoint.to_string()), "{said}");
            assert!(said.contains(cause), "{said}");
            assert_eq!(origin.requests(), 0);
        }
        drop(client);
        close_and_check(pool).await;
    }
}
