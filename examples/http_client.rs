//! A client over a pool of HTTP connections: requests to an origin of HTTP/1.1, which has connections
//! of its own for each request at a time, and to one of HTTP/2, whose connections are shared.
//!
//! `cargo run --release --example http_client`

use std::{convert::Infallible, error::Error, net::SocketAddr};

use bytes::Bytes;
use corepool::{Endpoint, HttpClient, HttpConnector, HttpOrigin, Pool, StreamConnector};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinSet};

type Origin = HttpOrigin<Empty<Bytes>, StreamConnector>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(HttpConnector::new()).build()?;
    let client = HttpClient::new(pool.clone());

    // What a URI says is enough, where the scheme is http or https.
    let address = serve(false).await?;
    let request = Request::get(format!("http://{address}/hello")).body(Empty::new())?;
    let response = client.request(request).await?;
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    println!("{}", String::from_utf8_lossy(&body.to_bytes()));

    // A handle spares each request the look-up.
    for (name, endpoint) in [
        ("HTTP/1.1", Endpoint::from(serve(false).await?)),
        // Nothing is agreed on without TLS, so it has to be known.
        ("HTTP/2", Endpoint::from(serve(true).await?).with_http2()),
    ] {
        let origin = client.origin(endpoint);
        ask_all(&origin, 50, 20).await?;
        let stats = origin.streams().group().stats();
        println!("{name}: 1000 requests by 50 callers over {} connections", stats.opened);
    }
    pool.close().await;
    Ok(())
}

async fn ask_all(origin: &Origin, callers: u32, each: u32) -> Result<(), Box<dyn Error>> {
    let mut asking = JoinSet::new();
    for _ in 0..callers {
        let origin = origin.clone();
        asking.spawn(async move {
            for _ in 0..each {
                let request = Request::get("/").header("host", "origin").body(Empty::new());
                let request = request.map_err(|error| error.to_string())?;
                let response = origin.request(request).await.map_err(|error| error.to_string())?;
                // Read to its end, and the connection, or the stream, is free again.
                response.into_body().collect().await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    Ok(())
}

/// An origin of one version.
async fn serve(http2: bool) -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let text = format!("{:?} says hello", request.version());
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
            });
            let stream = TokioIo::new(stream);
            // How a client's connection ends is the client's business.
            tokio::spawn(async move {
                if http2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(stream, service).await;
                } else {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(stream, service).await;
                }
            });
        }
    });
    Ok(address)
}
