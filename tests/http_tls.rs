//! The client over TLS: which version an origin speaks is agreed on by ALPN, connection by
//! connection.

#[path = "support/tls.rs"]
mod peers;
#[path = "support/secure.rs"]
mod secure;
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use corepool::{
    Backend, CheckoutError, DialErrorKind, Endpoint, EndpointSettings, HttpBody, HttpClient,
    HttpConnector, HttpOrigin, Pool, RequestError, RequestErrorKind, TlsConnector, TlsIdentity,
    endpoint_of,
};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use peers::{Authority, Shown, connector};
use secure::{Origin, Restart};
use support::{close_and_check, eventually, tuned};
use tokio::task::JoinSet;

type Web = HttpConnector<Full<Bytes>, TlsConnector>;
type Client = HttpClient<Full<Bytes>, TlsConnector>;
type Handle = HttpOrigin<Full<Bytes>, TlsConnector>;
type Answer = Response<HttpBody<Full<Bytes>, TlsConnector>>;

const BOTH: &[&str] = &["h2", "http/1.1"];
const NAME: &str = "origin.test";
/// What the connections of the pools here may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

fn pool(
    backend: Backend,
    authority: &Authority,
    change: impl FnOnce(&mut EndpointSettings),
) -> Pool<Web> {
    let tls = connector().authorities(authority.roots()).build().unwrap();
    let builder = tuned(Pool::builder(HttpConnector::new().over(tls)), backend);
    builder.connect_timeout(CONNECT_TIMEOUT).endpoint(change).build().unwrap()
}

fn secured(origin: &Origin, offered: &[&str]) -> Endpoint {
    let identity = TlsIdentity::new(NAME).with_alpn(offered);
    Endpoint::from(origin.address()).with_tls(identity)
}

struct Given {
    shown: Shown,
    origin: Origin,
    pool: Pool<Web>,
    handle: Handle,
}

/// An origin that chooses among these protocols, and a client that offers it both versions.
async fn given(backend: Backend, protocols: &[&str]) -> Given {
    given_with(backend, protocols, |_| ()).await
}

async fn given_with(
    backend: Backend,
    protocols: &[&str],
    change: impl FnOnce(&mut EndpointSettings),
) -> Given {
    let authority = Authority::new();
    let shown = authority.issue(&[NAME]);
    let origin = Origin::start(&shown, protocols).await;
    let pool = pool(backend, &authority, change);
    let handle = Client::new(pool.clone()).origin(secured(&origin, BOTH));
    Given { shown, origin, pool, handle }
}

async fn get(handle: &Handle, path: &str) -> Result<Answer, RequestError<Full<Bytes>>> {
    handle.request(Request::get(path).header("host", NAME).body(Full::default()).unwrap()).await
}

async fn text(answer: Answer) -> String {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// So many callers at once with so many requests each, of which none fails: the texts, each once.
async fn many(handle: &Handle, callers: usize, each: usize, path: &'static str) -> Vec<String> {
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let handle = handle.clone();
        running.spawn(async move {
            let mut said = Vec::new();
            for _ in 0..each {
                said.push(text(get(&handle, path).await.unwrap()).await);
            }
            said
        });
    }
    let mut said = running.join_all().await.concat();
    assert_eq!(said.len(), callers * each);
    said.sort();
    said.dedup();
    said
}

on_both_drivers! {
    async fn where_http_2_is_agreed_on_requests_share_a_connection(backend) {
        let Given { origin, pool, handle, .. } = given(backend, BOTH).await;
        let answer = get(&handle, "/a?b").await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        assert_eq!(text(answer).await, "HTTP/2.0 https://origin.test/a?b");
        assert_eq!(many(&handle, 50, 4, "/c").await, ["HTTP/2.0 https://origin.test/c"]);
        assert_eq!((origin.connections(), origin.requests()), (1, 201));
        assert!(origin.most_at_once() > 1);
        assert_eq!(handle.streams().group().stats().opened, 1);
        close_and_check(pool).await;
    }

    async fn callers_at_first_contact_share_the_one_connection_that_is_dialled(backend) {
        let Given { origin, pool, handle, .. } = given(backend, BOTH).await;
        origin.shake_hands_in(Duration::from_millis(50));
        assert_eq!(many(&handle, 64, 1, "/").await, ["HTTP/2.0 https://origin.test/"]);
        assert_eq!((origin.accepted(), origin.requests()), (1, 64));
        close_and_check(pool).await;
    }

    async fn where_http_1_is_agreed_on_or_nothing_is_a_connection_has_one_request(backend) {
        for protocols in [&["http/1.1"][..], &[]] {
            let Given { origin, pool, handle, .. } = given(backend, protocols).await;
            for _ in 0..20 {
                let answer = get(&handle, "/a?b").await.unwrap();
                assert_eq!(answer.version(), Version::HTTP_11, "{protocols:?}");
                assert_eq!(text(answer).await, "HTTP/1.1 /a?b");
            }
            assert_eq!((origin.connections(), origin.requests()), (1, 20), "{protocols:?}");
            assert_eq!(many(&handle, 10, 10, "/c").await, ["HTTP/1.1 /c"]);
            assert_eq!((origin.most_at_once(), origin.requests()), (1, 120), "{protocols:?}");
            assert!(origin.connections() <= 11, "{protocols:?}: {}", origin.connections());
            close_and_check(pool).await;
        }
    }

    async fn many_callers_at_first_contact_with_an_origin_of_http_1_have_a_connection_each(backend) {
        const CALLERS: usize = 48;
        let Given { origin, pool, handle, .. } = given(backend, &["http/1.1"]).await;
        origin.shake_hands_in(Duration::from_millis(100));
        let began = Instant::now();
        let asking = tokio::spawn({
            let handle = handle.clone();
            async move { many(&handle, CALLERS, 1, "/held").await }
        });
        eventually("all of them are there", || origin.under_way() == CALLERS).await;
        // The one that shows which version it is, and then all others at once.
        assert!(began.elapsed() < CONNECT_TIMEOUT / 2 + CONNECT_TIMEOUT / 4, "{:?}", began.elapsed());
        origin.let_go(CALLERS);
        assert_eq!(asking.await.unwrap(), ["HTTP/1.1 /held"]);
        let stats = handle.streams().group().stats();
        assert_eq!((origin.accepted(), stats.opened), (CALLERS, CALLERS as u64));
        close_and_check(pool).await;
    }

    async fn at_the_limit_callers_at_first_contact_take_turns(backend) {
        let limited = |policy: &mut EndpointSettings| {
            (policy.capacity.max_live, policy.capacity.max_idle) = (8, 8);
        };
        let Given { origin, pool, handle, .. } = given_with(backend, &["http/1.1"], limited).await;
        assert_eq!(many(&handle, 64, 3, "/").await, ["HTTP/1.1 /"]);
        assert_eq!((origin.requests(), origin.most_at_once()), (192, 1));
        assert!(origin.accepted() <= 8, "{}", origin.accepted());
        close_and_check(pool).await;
    }

    async fn an_origin_that_comes_back_with_another_version_is_served_in_that(backend) {
        let versions = [(BOTH, "HTTP/2.0 https://origin.test/"), (&["http/1.1"], "HTTP/1.1 /")];
        for how in [Restart::Graceful, Restart::Abrupt] {
            for turn in [[0, 1, 0], [1, 0, 1]] {
                let (first, said) = versions[turn[0]];
                let Given { shown, origin, pool, handle } = given(backend, first).await;
                assert_eq!(many(&handle, 10, 3, "/").await, [said]);
                for at in &turn[1..] {
                    let (next, said) = versions[*at];
                    // A dial that a restart cuts off would fail.
                    let group = handle.streams().group();
                    eventually("no dial is under way", || group.stats().dialing == 0).await;
                    origin.restart(how, &shown, next);
                    match how {
                        // No request is lost by that.
                        Restart::Graceful => drop(many(&handle, 10, 3, "/").await),
                        Restart::Abrupt => eventually("the pool has seen it", || {
                            let stats = group.stats();
                            stats.opened == stats.closed_total()
                        })
                        .await,
                    }
                    eventually("the old ones are gone", || origin.is_restarted()).await;
                    assert_eq!(many(&handle, 10, 3, "/").await, [said], "{how:?} {turn:?}");
                }
                close_and_check(pool).await;
            }
        }
    }

    async fn origins_of_both_versions_behind_one_address_serve_every_request(backend) {
        let Given { shown, origin, pool, handle } = given(backend, BOTH).await;
        let load = tokio::spawn({
            let handle = handle.clone();
            async move { many(&handle, 20, 40, "/").await }
        });
        let mut asked = 0;
        for protocols in [&["http/1.1"], BOTH, &[], BOTH, &["http/1.1"]] {
            asked += 100;
            eventually("some are done", || origin.requests() >= asked).await;
            origin.restart(Restart::Graceful, &shown, protocols);
        }
        assert_eq!(load.await.unwrap(), ["HTTP/1.1 /", "HTTP/2.0 https://origin.test/"]);
        close_and_check(pool).await;
    }

    async fn an_origin_that_accepts_no_protocol_is_an_error_at_once_that_says_so(backend) {
        let Given { origin, pool, handle, .. } = given(backend, &["spdy/1"]).await;
        let began = Instant::now();
        let mut asking = JoinSet::new();
        for _ in 0..16 {
            let handle = handle.clone();
            asking.spawn(async move { get(&handle, "/").await.unwrap_err() });
        }
        for mut error in asking.join_all().await {
            assert_eq!(error.kind(), RequestErrorKind::Checkout);
            let said = error.to_string();
            let endpoint = secured(&origin, BOTH).to_string();
            assert!(said.contains(&endpoint), "{said}");
            assert!(said.contains("it speaks none of the application protocols h2, http/1.1"), "{said}");
            let Some(CheckoutError::Dial(dial)) = error.checkout() else { panic!("{error}") };
            assert_eq!(dial.kind(), DialErrorKind::Connector);
            assert_eq!(error.take_unsent().unwrap().uri(), "/");
        }
        assert!(began.elapsed() < CONNECT_TIMEOUT / 2, "{:?}", began.elapsed());
        assert_eq!((origin.connections(), origin.requests()), (0, 0));
        close_and_check(pool).await;
    }

    async fn endpoints_that_offer_different_protocols_share_no_connection(backend) {
        let Given { origin, pool, handle, .. } = given(backend, BOTH).await;
        let client = Client::new(pool.clone());
        let old = client.origin(secured(&origin, &["http/1.1"]));
        let silent = client.origin(secured(&origin, &[]));
        for _ in 0..3 {
            assert_eq!(text(get(&handle, "/").await.unwrap()).await, "HTTP/2.0 https://origin.test/");
            assert_eq!(text(get(&old, "/").await.unwrap()).await, "HTTP/1.1 /");
            assert_eq!(text(get(&silent, "/").await.unwrap()).await, "HTTP/1.1 /");
        }
        assert_eq!(origin.connections(), 3);
        close_and_check(pool).await;
    }

    async fn a_uri_says_that_it_is_to_be_tls_and_that_both_versions_will_do(backend) {
        let authority = Authority::new();
        let shown = authority.issue(&["127.0.0.1"]);
        let pool = pool(backend, &authority, |_| ());
        let client = Client::new(pool.clone());
        for (protocols, version) in [(BOTH, Version::HTTP_2), (&["http/1.1"], Version::HTTP_11)] {
            let origin = Origin::start(&shown, protocols).await;
            for _ in 0..3 {
                let ask = Request::get(origin.uri("/")).body(Full::default()).unwrap();
                let answer = client.request(ask).await.unwrap();
                assert_eq!(answer.version(), version);
                text(answer).await;
            }
            let group = pool.group(endpoint_of(&origin.uri("/")).unwrap());
            assert_eq!((group.stats().opened, origin.connections()), (1, 1));
        }
        close_and_check(pool).await;
    }

    async fn an_authority_that_is_not_known_is_told_with_the_endpoint(backend) {
        let shown = Authority::new().issue(&["127.0.0.1"]);
        let origin = Origin::start(&shown, BOTH).await;
        let pool = pool(backend, &Authority::new(), |_| ());
        let ask = Request::get(origin.uri("/")).body(Full::default()).unwrap();
        let error = Client::new(pool.clone()).request(ask).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains(&endpoint_of(&origin.uri("/")).unwrap().to_string()), "{said}");
        assert!(said.contains("issued by no authority that is known here"), "{said}");
        assert_eq!(origin.requests(), 0);
        close_and_check(pool).await;
    }
}
