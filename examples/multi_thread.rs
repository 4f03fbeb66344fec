//! The common shape: any task of a multi-threaded runtime checks out.
//!
//! `cargo run --release --example multi_thread`

use std::{error::Error, time::Duration};

use corepool::{CheckoutError, Pool, TcpConnector};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // A client that goes away ends its echo, nothing else.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });

    let pool =
        Pool::builder(TcpConnector).max_live(16).acquire_timeout(Duration::from_secs(1)).build()?;
    let group = pool.group(origin);
    let warm = group.warm_up(8).await;
    println!("warm: {} ready, {} failed", warm.ready, warm.failures.len());

    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let group = group.clone();
        tasks.spawn(async move {
            let mut conn = group.checkout().await?;
            let answered = async {
                conn.write_all(b"ping").await?;
                conn.read_exact(&mut [0; 4]).await
            };
            match answered.await {
                Ok(_) => conn.release(),
                Err(_) => conn.discard(),
            }
            Ok::<(), CheckoutError>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        if let Err(error) = task? {
            println!("{error}");
        }
    }
    let stats = group.stats();
    println!("64 exchanges over {} connections, reuse {:.2}", stats.opened, stats.reuse_ratio());
    pool.close().await;
    Ok(())
}
