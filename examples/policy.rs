//! A policy from a file, and what it does when an origin goes and comes back.
//!
//! ```text
//! cargo run --release --example policy
//! ```

use std::{error::Error, net::SocketAddr, time::Duration};

use corepool::{CheckoutError, Group, Pool, PoolEvent, Settings, TcpConnector};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::sleep,
};

/// What stands in a configuration file. Everything left out has its default; units are in names.
const POLICY: &str = r#"
shards = 1
max_idle_total = 100

[endpoint.capacity]
max_live = 16
max_idle = 8
min_idle = 2

[endpoint.lifetime]
idle_timeout_ms = 30_000
max_uses = 1_000

[endpoint.failure]
breaker_consecutive_failures = 3
backoff_base_ms = 300
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings: Settings = toml::from_str(POLICY)?;
    let pool = Pool::builder(TcpConnector)
        .settings(settings)
        .observer(|event: &PoolEvent<'_>| match event {
            PoolEvent::Opened { .. } | PoolEvent::Closed { .. } => {}
            event => println!("  event: {event:?}"),
        })
        .build()?;

    let (address, origin) = origin("127.0.0.1:0".parse()?).await?;
    let group = pool.group(address);
    ask(&group).await?;
    println!("the origin answers; {} connections rest", group.stats().idle);

    origin.abort();
    let _ = origin.await;
    println!("the origin is gone");
    while group.breaker().as_str() != "open" {
        match ask(&group).await {
            Ok(()) => println!("  answered, by a connection that was open still"),
            Err(error) => println!("  {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
    match ask(&group).await {
        Err(error) if matches!(error.downcast_ref(), Some(CheckoutError::BreakerOpen { .. })) => {
            println!("  {error}: at once, and without a connect");
        }
        other => println!("  unexpected: {other:?}"),
    }

    let (_, origin) = self::origin(address).await?;
    println!("the origin is back");
    while ask(&group).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    println!("and answers; the breaker is {}", group.breaker());

    let report = group.drain(Duration::from_secs(1)).await;
    println!("drained, {} connections left", report.left);
    origin.abort();
    pool.close().await;
    Ok(())
}

async fn ask(group: &Group<TcpConnector>) -> Result<(), Box<dyn Error>> {
    let mut conn = group.checkout().await?;
    conn.write_all(b"ping").await?;
    conn.read_exact(&mut [0; 4]).await?;
    conn.release();
    Ok(())
}

/// An echo server that ends, with its connections, when its task does.
async fn origin(at: SocketAddr) -> Result<(SocketAddr, JoinHandle<()>), Box<dyn Error>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    let listener: TcpListener = socket.listen(64)?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Ok((address, task))
}
