//! hyper-util's client over a pool's connections.
#![cfg(unix)]

#[path = "support/gate.rs"]
mod gate;
mod support;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use corepool::{
    Backend, BoxError, CheckoutError, CloseReason, ConnectService, Connection as Pooling,
    Connector, Endpoint, EndpointSettings, HttpsError, Pool, PoolClosed, Socket, Stream,
    StreamConnector, Transport, UriError,
};
use gate::Gate;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Response, Uri, rt::Write as _};
use hyper_util::{
    client::legacy::{Client, connect::Connection as _},
    rt::{TokioExecutor, TokioIo},
};
use support::{Blackhole, close_and_check, eventually, tuned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpListener,
    sync::watch,
};
use tower_service::Service;

type HyperClient = Client<ConnectService<StreamConnector>, Empty<Bytes>>;

/// An HTTP/1.1 server of hyper's. It answers while its gate is open.
struct Origin {
    address: SocketAddr,
    gate: watch::Sender<bool>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
}

impl Origin {
    async fn start() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into()).await.expect("loopback has ports")
    }

    async fn at(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (gate, opened) = watch::channel(true);
        let counts = Arc::<Counts>::default();
        tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&counts), opened.clone()));
                }
            }
        });
        Ok(Self { address, gate, counts })
    }

    fn uri(&self) -> Uri {
        format!("http://{}/", self.address).parse().unwrap()
    }

    fn accepted(&self) -> usize {
        self.counts.accepted.load(SeqCst)
    }
}

async fn serve<S>(stream: S, counts: Arc<Counts>, gate: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    counts.accepted.fetch_add(1, SeqCst);
    counts.most.fetch_max(counts.open.fetch_add(1, SeqCst) + 1, SeqCst);
    let service = hyper::service::service_fn(move |_| {
        let mut gate = gate.clone();
        async move {
            // An error is that of a gate which has gone: then it is open.
            let _ = gate.wait_for(|open| *open).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
        }
    });
    let served = hyper::server::conn::http1::Builder::new();
    // How a client ends its connection is the client's choice.
    let _ = served.serve_connection(TokioIo::new(stream), service).await;
    counts.open.fetch_sub(1, SeqCst);
}

fn pool(backend: Backend, change: impl FnOnce(&mut EndpointSettings)) -> Pool<StreamConnector> {
    tuned(Pool::builder(StreamConnector), backend).endpoint(change).build().unwrap()
}

fn at_most(policy: &mut EndpointSettings, connections: u32) {
    (policy.capacity.max_live, policy.capacity.max_idle) = (connections, connections);
}

fn client(pool: &Pool<StreamConnector>) -> HyperClient {
    Client::builder(TokioExecutor::new()).build(ConnectService::new(pool.clone()))
}

/// One that keeps no connection.
fn forgetful(pool: &Pool<StreamConnector>) -> HyperClient {
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(ConnectService::new(pool.clone()))
}

async fn get(client: &HyperClient, uri: Uri) -> Result<Bytes, hyper_util::client::legacy::Error> {
    let response = client.get(uri).await?;
    Ok(response.into_body().collect().await.expect("a whole body").to_bytes())
}

/// What a service says, without its connection.
async fn ask<C>(service: &mut ConnectService<C>, uri: &str) -> Result<(), BoxError>
where
    C: Connector<Connection: Transport>,
{
    service.call(uri.parse().unwrap()).await.map(drop)
}

on_both_drivers! {
    async fn hyper_keeps_a_connection_and_reuses_it(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |_| ());
        let client = client(&pool);
        for _ in 0..20 {
            assert_eq!(get(&client, origin.uri()).await.unwrap(), "hello");
        }
        let stats = pool.group(origin.address).stats();
        assert_eq!((stats.opened, stats.in_use, origin.accepted()), (1, 1, 1));
        drop(client);
        eventually("hyper lets go of it", || pool.group(origin.address).stats().in_use == 0).await;
        assert_eq!(pool.group(origin.address).stats().closed_for(CloseReason::Dirty), 1);
        close_and_check(pool).await;
    }

    async fn without_a_pool_of_hypers_each_request_has_a_connection_of_its_own(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |_| ());
        let client = forgetful(&pool);
        for _ in 0..5 {
            assert_eq!(get(&client, origin.uri()).await.unwrap(), "hello");
        }
        assert_eq!((pool.group(origin.address).stats().opened, origin.accepted()), (5, 5));
        drop(client);
        close_and_check(pool).await;
    }

    async fn spares_are_used_and_none_of_them_twice(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |_| ());
        let group = pool.group(origin.address);
        assert_eq!(group.warm_up(3).await.ready, 3);
        let client = forgetful(&pool);
        for left in (0..3).rev() {
            assert_eq!(get(&client, origin.uri()).await.unwrap(), "hello");
            assert_eq!((group.stats().opened, group.stats().idle), (3, left));
        }
        assert_eq!(get(&client, origin.uri()).await.unwrap(), "hello");
        assert_eq!((group.stats().opened, group.stats().reused), (4, 3));
        drop((client, group));
        close_and_check(pool).await;
    }

    async fn what_somebody_has_used_is_not_given_to_hyper(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |_| ());
        let group = pool.group(origin.address);
        let mut used = group.checkout().await.unwrap();
        used.write_all(b"GET / HTTP/1.1\r\nhost: origin\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert_ne!(used.read_buf(&mut answer).await.unwrap(), 0);
        }
        used.release();
        let mut service = ConnectService::new(pool.clone());
        let io = service.call(origin.uri()).await.unwrap();
        assert_eq!((io.guard().uses(), io.guard().is_reused()), (0, false));
        let stats = group.stats();
        assert_eq!((stats.opened, stats.idle, stats.in_use), (2, 1, 1));
        drop((io, service, group));
        close_and_check(pool).await;
    }

    async fn what_the_service_gave_never_comes_to_rest_unless_it_is_released(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |_| ());
        let group = pool.group(origin.address);
        let mut service = ConnectService::new(pool.clone());
        drop(service.call(origin.uri()).await.unwrap());
        eventually("closed", || group.stats().closed_for(CloseReason::Dirty) == 1).await;
        service.call(origin.uri()).await.unwrap().into_guard().release();
        assert_eq!(group.stats().idle, 1);
        let io = service.call(origin.uri()).await.unwrap();
        assert_eq!((io.guard().uses(), group.stats().opened), (0, 3));
        drop((io, service, group));
        close_and_check(pool).await;
    }

    async fn an_open_breaker_fails_requests_at_once(backend) {
        let origin = Blackhole::start();
        let pool = pool(backend, |policy| {
            policy.timeouts.connect_timeout_ms = 100;
            policy.failure.breaker_consecutive_failures = 2;
        });
        let client = client(&pool);
        let uri: Uri = format!("http://{}/", origin.address).parse().unwrap();
        for _ in 0..2 {
            let error = get(&client, uri.clone()).await.unwrap_err();
            assert!(error.is_connect(), "{error:?}");
            let cause = error.source().unwrap().downcast_ref();
            assert!(matches!(cause, Some(CheckoutError::Dial(_))), "{error:?}");
        }
        let dials = pool.group(origin.address).stats().dial_failures;
        let error = get(&client, uri).await.unwrap_err();
        let cause = error.source().unwrap().downcast_ref();
        let Some(CheckoutError::BreakerOpen { endpoint, .. }) = cause else {
            panic!("{error:?}")
        };
        assert_eq!(endpoint.as_ip(), Some(origin.address));
        // At once: no connect was tried.
        assert_eq!(pool.group(origin.address).stats().dial_failures, dials);
        drop(client);
        close_and_check(pool).await;
    }

    async fn max_live_bounds_what_hyper_opens(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |policy| at_most(policy, 3));
        let client = client(&pool);
        origin.gate.send_replace(false);
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (client, uri) = (client.clone(), origin.uri());
            requests.spawn(async move { get(&client, uri).await });
        }
        let group = pool.group(origin.address);
        eventually("three serve, the others wait", || {
            let stats = group.stats();
            origin.counts.open.load(SeqCst) == 3 && stats.in_use == 3 && stats.waiting == 17
        }).await;
        origin.gate.send_replace(true);
        while let Some(answer) = requests.join_next().await {
            assert_eq!(answer.unwrap().unwrap(), "hello");
        }
        assert_eq!(origin.counts.most.load(SeqCst), 3);
        drop((client, group));
        close_and_check(pool).await;
    }

    async fn at_max_live_a_request_waits_for_so_long(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |policy| {
            at_most(policy, 1);
            policy.timeouts.acquire_timeout_ms = 100;
        });
        let client = client(&pool);
        origin.gate.send_replace(false);
        let first = tokio::spawn({
            let (client, uri) = (client.clone(), origin.uri());
            async move { get(&client, uri).await }
        });
        eventually("it is served", || origin.accepted() == 1).await;
        let error = get(&client, origin.uri()).await.unwrap_err();
        let cause = error.source().unwrap().downcast_ref();
        assert!(matches!(cause, Some(CheckoutError::Timeout { .. })), "{error:?}");
        origin.gate.send_replace(true);
        assert_eq!(first.await.unwrap().unwrap(), "hello");
        drop(client);
        close_and_check(pool).await;
    }

    async fn a_caller_that_leaves_loses_no_connection(backend) {
        let origin = Origin::start().await;
        let gate = Gate::default();
        let pool = tuned(Pool::builder(gate.clone()), backend).max_live(2).build().unwrap();
        let group = pool.group(origin.address);
        let mut service = ConnectService::new(pool.clone());
        for round in 1..=20 {
            gate.close();
            let mut call = service.call(origin.uri());
            // Once, which has it dialled.
            let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            drop(call);
            gate.open();
            eventually("the connection rests", || {
                let stats = group.stats();
                (stats.idle, stats.in_use, stats.dialing) == (1, 0, 0)
            }).await;
            let io = service.call(origin.uri()).await.unwrap();
            assert_eq!((io.guard().uses(), group.stats().opened), (0, round));
        }
        drop((service, group));
        close_and_check(pool).await;
    }

    async fn requests_that_are_dropped_leave_no_permit_behind(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |policy| at_most(policy, 2));
        let client = client(&pool);
        origin.gate.send_replace(false);
        for patience in 0..30 {
            let request = get(&client, origin.uri());
            drop(tokio::time::timeout(Duration::from_micros(100 * patience), request).await);
        }
        origin.gate.send_replace(true);
        assert_eq!(get(&client, origin.uri()).await.unwrap(), "hello");
        drop(client);
        close_and_check(pool).await;
    }

    async fn names_are_one_endpoint_however_they_are_written(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |_| ());
        let client = forgetful(&pool);
        for host in ["localhost", "LocalHost", "me:secret@localhost"] {
            let uri = format!("http://{host}:{}/", origin.address.port());
            assert_eq!(get(&client, uri.parse().unwrap()).await.unwrap(), "hello");
        }
        let stats = pool.stats();
        assert_eq!(stats.endpoints.len(), 1, "{stats:?}");
        assert_eq!(stats.endpoints[0].endpoint, Endpoint::host("localhost", origin.address.port()));
        drop(client);
        close_and_check(pool).await;
    }

    async fn an_ipv6_literal_is_an_address(backend) {
        let Ok(origin) = Origin::at((Ipv6Addr::LOCALHOST, 0).into()).await else {
            println!("skipped: this machine has no ::1");
            return;
        };
        let pool = pool(backend, |_| ());
        let client = client(&pool);
        assert_eq!(get(&client, origin.uri()).await.unwrap(), "hello");
        assert_eq!(pool.group(origin.address).stats().opened, 1);
        drop(client);
        close_and_check(pool).await;
    }

    async fn what_names_no_endpoint_is_refused_without_a_dial(backend) {
        let pool = pool(backend, |_| ());
        let mut service = ConnectService::new(pool.clone());
        for (uri, expected) in [
            ("/only/a/path", UriError::NoScheme),
            ("ftp://example.org/", UriError::Scheme("ftp".to_owned())),
            ("http://:80/", UriError::NoHost),
            ("http://127.0.0.1:0/", UriError::Port("0".to_owned())),
        ] {
            let error = ask(&mut service, uri).await.unwrap_err();
            assert_eq!(error.downcast_ref(), Some(&expected), "{uri}: {error:?}");
        }
        let error = ask(&mut service, "https://127.0.0.1/").await.unwrap_err();
        assert!(error.is::<HttpsError>(), "{error:?}");
        // Through the client too.
        let error = get(&client(&pool), "https://127.0.0.1/".parse().unwrap()).await.unwrap_err();
        assert!(error.source().unwrap().is::<HttpsError>(), "{error:?}");
        assert_eq!(pool.stats().endpoints.len(), 0);
        drop(service);
        close_and_check(pool).await;
    }

    async fn a_closed_pool_has_a_closed_service(backend) {
        let origin = Origin::start().await;
        let pool = pool(backend, |_| ());
        let mut service = ConnectService::new(pool.clone());
        let ready = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
        assert!(ready.is_ok());
        pool.close().await;
        let error = std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap_err();
        assert!(error.is::<PoolClosed>(), "{error:?}");
        let error = ask(&mut service, &origin.uri().to_string()).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(CheckoutError::Closed { .. })), "{error:?}");
        let error = get(&client(&pool), origin.uri()).await.unwrap_err();
        assert!(error.source().unwrap().is::<PoolClosed>(), "{error:?}");
        drop(service);
        close_and_check(pool).await;
    }

    async fn a_function_may_lead_anywhere(backend) {
        let name = format!("corepool-tower-{}-{backend}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let counts = Arc::<Counts>::default();
        let (_gate, opened) = watch::channel(true);
        tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&counts), opened.clone()));
                }
            }
        });
        let pool = pool(backend, |_| ());
        let service = ConnectService::new(pool.clone()).with_endpoints({
            let path = path.clone();
            move |uri| match uri.host() {
                Some("app") => Ok(Endpoint::unix(&path).with_tag("app")),
                other => Err(format!("who is {other:?}?").into()),
            }
        });
        let client: HyperClient = Client::builder(TokioExecutor::new()).build(service);
        assert_eq!(get(&client, "https://app/".parse().unwrap()).await.unwrap(), "hello");
        let error = get(&client, "http://other/".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "who is Some(\"other\")?");
        assert_eq!(pool.group(Endpoint::unix(&path).with_tag("app")).stats().opened, 1);
        assert_eq!(counts.accepted.load(SeqCst), 1);
        drop(client);
        close_and_check(pool).await;
        std::fs::remove_file(&path).unwrap();
    }

    async fn the_protocol_that_was_agreed_on_is_told_to_hyper(backend) {
        let origin = Origin::start().await;
        for (agreed, is_http2) in [(&b"h2"[..], true), (b"http/1.1", false), (b"", false)] {
            let connector = Agreeing(agreed);
            let pool = tuned(Pool::builder(connector), backend).build().unwrap();
            let io = ConnectService::new(pool.clone()).call(origin.uri()).await.unwrap();
            assert_eq!(io.connected().is_negotiated_h2(), is_http2);
            assert!(io.is_write_vectored(), "as its stream is");
            drop(io);
            close_and_check(pool).await;
        }
    }
}

/// Has agreed on a protocol with everybody.
struct Agreeing(&'static [u8]);

struct Agreed(Stream, &'static [u8]);

impl Connector for Agreeing {
    type Connection = Agreed;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Agreed, BoxError> {
        Ok(Agreed(StreamConnector.connect(socket, endpoint).await?, self.0))
    }
}

impl Pooling for Agreed {}

impl AsyncRead for Agreed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Agreed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl Transport for Agreed {
    fn alpn_protocol(&self) -> Option<&[u8]> {
        Some(self.1).filter(|protocol| !protocol.is_empty())
    }
}
