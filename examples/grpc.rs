//! A gRPC client over shared connections: tonic's generated clients take an endpoint of the pool for
//! their channel.
//!
//! `cargo run --release --example grpc`

use std::error::Error;

use corepool::{CheckoutError, Endpoint, HttpClient, HttpConnector, Pool, Settings};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    body::Body,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A server that allows 16 calls on a connection at once.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().max_concurrent_streams(16).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let pool = Pool::builder(HttpConnector::<Body>::new()).settings(Settings::grpc()).build()?;
    // Without TLS the server has to be known to speak HTTP/2.
    let endpoint = Endpoint::from(address).with_http2();
    let channel = HttpClient::new(pool.clone()).origin(endpoint);
    let origin: http::Uri = format!("http://{address}").parse()?;

    let mut callers = JoinSet::new();
    for _ in 0..40 {
        let mut client = HealthClient::with_origin(channel.clone(), origin.clone());
        callers.spawn(async move {
            for _ in 0..25 {
                client.check(HealthCheckRequest::default()).await?;
            }
            Ok::<(), tonic::Status>(())
        });
    }
    while let Some(called) = callers.join_next().await {
        called??;
    }
    let stats = channel.streams().group().stats();
    println!("1000 calls by 40 callers over {} connections of 16 streams", stats.opened);

    // Why a call could not be made is among the status's causes.
    pool.close().await;
    let mut client = HealthClient::with_origin(channel, origin);
    if let Err(status) = client.check(HealthCheckRequest::default()).await {
        let cause =
            status.source().and_then(|cause| cause.downcast_ref::<corepool::RequestError<()>>());
        let closed = cause.and_then(corepool::RequestError::checkout);
        assert!(matches!(closed, Some(CheckoutError::Closed { .. })), "{status}");
        println!("after the close: {}", status.message());
    }
    Ok(())
}
