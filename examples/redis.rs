//! A pool of connections that do not speak HTTP: Redis, by the `redis` crate over the pool's
//! sockets. `examples/redis/connector.rs` is all that it takes.
//!
//! ```text
//! cargo run --release --example redis            # a redis-server of its own, if it is installed
//! cargo run --release --example redis -- tiny    # a stand-in within the example
//! ```

#[path = "redis/connector.rs"]
mod connector;
#[path = "redis/server.rs"]
mod server;
#[path = "redis/tiny.rs"]
mod tiny;

use std::{error::Error, net::SocketAddr, time::Instant};

use connector::{Redis, RedisConnector};
use corepool::{CheckoutError, Endpoint, Group, Pool, StreamGroup};
use redis::{AsyncCommands, RedisError};
use server::Server;
use tokio::task::JoinSet;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let wants_tiny = std::env::args().nth(1).is_some_and(|arg| arg == "tiny");
    let server = match server::is_installed() && !wants_tiny {
        true => Some(Server::start("").await?),
        false => None,
    };
    let address = match &server {
        Some(server) => server.address,
        None => tiny::start().await?,
    };
    let kind = if server.is_some() { "redis-server" } else { "a stand-in" };
    println!("{kind} at {address}");

    let mut connector = RedisConnector::default();
    for (user, password) in server::LOGINS {
        connector = connector.with_login(user, password);
    }
    let pool = Pool::builder(connector).max_live(8).build()?;
    alone(&pool.group(app(address, 1))).await?;
    shared(&pool.streams(app(address, 2))).await?;
    as_nobody(&pool.group(Endpoint::from(address).with_tag("nobody/0"))).await;

    pool.close().await;
    if let Some(server) = server {
        server.stop().await?;
    }
    Ok(())
}

/// The endpoint's identity says who logs in, and which database is selected.
fn app(address: SocketAddr, database: u32) -> Endpoint {
    Endpoint::from(address).with_tag(format!("app/{database}"))
}

/// A connection for each caller: what WATCH guards is the session's, so nobody else may be in it.
async fn alone(group: &Group<RedisConnector>) -> Result<(), Failure> {
    let () = group.checkout().await?.set("stock", 100).await?;
    let mut buyers = JoinSet::new();
    for _ in 0..20 {
        let group = group.clone();
        buyers.spawn(async move {
            let mut retries = 0;
            for _ in 0..5 {
                let mut redis = group.checkout().await?;
                while !buy(&mut redis).await? {
                    retries += 1;
                }
                // Its EXEC has ended the WATCH: the session is what it was.
                redis.release();
            }
            Ok::<u32, Failure>(retries)
        });
    }
    let mut retries = 0;
    while let Some(buyer) = buyers.join_next().await {
        retries += buyer??;
    }
    let left: u32 = group.checkout().await?.get("stock").await?;
    let opened = group.stats().opened;
    println!("alone: 100 bought, {left} left, {retries} retries, connections: {opened}");
    Ok(())
}

/// Takes one from stock, unless somebody else did meanwhile.
async fn buy(redis: &mut Redis) -> Result<bool, RedisError> {
    let () = redis::cmd("WATCH").arg("stock").query_async(redis).await?;
    let stock: u32 = redis.get("stock").await?;
    let mut sale = redis::pipe();
    sale.atomic().set("stock", stock - 1).ignore();
    let done: Option<()> = sale.query_async(redis).await?;
    Ok(done.is_some())
}

/// Many callers on few connections: each leases a stream, and what they send travels together.
async fn shared(streams: &StreamGroup<RedisConnector>) -> Result<(), Failure> {
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let streams = streams.clone();
        callers.spawn(async move {
            for _ in 0..100 {
                let lease = streams.lease().await?;
                let mut redis: &Redis = &lease;
                let _: u64 = redis.incr("hits", 1).await?;
            }
            Ok::<(), Failure>(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    let lease = streams.lease().await?;
    let mut redis: &Redis = &lease;
    let hits: u64 = redis.get("hits").await?;
    let opened = streams.group().stats().opened;
    println!("shared: {hits} hits in {:?}, connections: {opened}", began.elapsed());

    let refused = redis::cmd("SELECT").arg(7).query_async::<()>(&mut redis).await;
    match refused {
        Ok(()) => println!("shared: another database for everybody"),
        Err(error) => println!("shared: SELECT is refused: {error}"),
    }
    Ok(())
}

/// Somebody whom the connector does not know: the dial fails, and says why.
async fn as_nobody(group: &Group<RedisConnector>) {
    match group.checkout().await {
        Ok(_) => println!("nobody: logged in"),
        Err(CheckoutError::Dial(error)) => println!("nobody: {error}"),
        Err(error) => println!("nobody: {error}"),
    }
}
