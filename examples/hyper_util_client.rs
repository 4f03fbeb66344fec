//! hyper-util's client with a pool of ours beneath it: the client keeps and reuses connections, the
//! pool makes them, within limits, ahead of need, and not at all while the origin is down.
//!
//! `cargo run --release --features tower --example hyper_util_client`

use std::{convert::Infallible, error::Error, net::SocketAddr, time::Duration};

use bytes::Bytes;
use corepool::{CheckoutError, ConnectService, Pool, StreamConnector};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Response, Uri, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

type HyperClient = Client<ConnectService<StreamConnector>, Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (address, origin) = origin().await?;
    let uri: Uri = format!("http://{address}/").parse()?;

    let pool = Pool::builder(StreamConnector)
        .endpoint(|policy| {
            (policy.capacity.max_live, policy.capacity.max_idle) = (8, 8);
            policy.capacity.min_idle = 2;
            // The client leaves callers in line here for whom it found a connection of its own.
            policy.timeouts.acquire_timeout_ms = 500;
            // Shorter than a server waits for the first request of a connection.
            policy.lifetime.idle_timeout_ms = 10_000;
            policy.failure.breaker_consecutive_failures = 3;
        })
        .build()?;
    let group = pool.group(address);

    // A client that keeps nothing: each request takes a spare that the pool has dialled ahead.
    let forgetful: HyperClient = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(ConnectService::new(pool.clone()));
    for _ in 0..5 {
        sleep(Duration::from_millis(300)).await;
        get(&forgetful, &uri).await?;
    }
    let stats = group.stats();
    println!("5 requests, a connection each: {} of them were spares", stats.reused);
    drop(forgetful);

    // A client as usual: many callers, few connections.
    let client: HyperClient = Client::builder(TokioExecutor::new())
        // Both are needed for what rests in the client's pool to be closed.
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(10))
        .build(ConnectService::new(pool.clone()));
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (client, uri) = (client.clone(), uri.clone());
        callers.spawn(async move {
            for _ in 0..50 {
                get(&client, &uri).await?;
            }
            Ok::<(), hyper_util::client::legacy::Error>(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    let opened = group.stats().opened - stats.opened;
    println!("3200 requests of 64 callers: {opened} connections opened");

    // The origin goes: after three dials in vain nobody waits for it any more.
    while group.stats().waiting > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    origin.abort();
    let _ = origin.await;
    println!("the origin is gone");
    for _ in 0..6 {
        sleep(Duration::from_millis(20)).await;
        match get(&client, &uri).await {
            Ok(()) => println!("  answered"),
            // What the pool says is the source of the client's error.
            Err(error) => match error.source().and_then(|cause| cause.downcast_ref()) {
                Some(cause @ CheckoutError::BreakerOpen { .. }) => println!("  at once: {cause}"),
                Some(cause) => println!("  {cause}"),
                None => println!("  {error}"),
            },
        }
    }

    drop(client);
    let report = pool.close_within(Duration::from_secs(2)).await;
    println!("closed, {} connections left", report.left);
    Ok(())
}

async fn get(client: &HyperClient, uri: &Uri) -> Result<(), hyper_util::client::legacy::Error> {
    let mut response = client.get(uri.clone()).await?;
    // To its end, or the client cannot use the connection again.
    while let Some(Ok(_)) = response.body_mut().frame().await {}
    Ok(())
}

/// An HTTP/1.1 server that ends, with its connections, when its task does.
async fn origin() -> Result<(SocketAddr, JoinHandle<()>), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |_| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            });
            connections.spawn(async move {
                // How a client ends its connection is the client's choice.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok((address, task))
}
