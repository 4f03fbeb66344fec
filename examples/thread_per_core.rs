//! The fast shape: the proxy's own tasks run on the shards, checkouts are local to the core.
//!
//! `cargo run --release --example thread_per_core`

use std::{error::Error, net::SocketAddr};

use corepool::{Pool, TcpConnector};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let origin = echo_origin().await?;
    let pool = Pool::builder(TcpConnector).build()?;
    println!("{:?} on {}: {}", pool, pool.backend().selected, pool.backend().reason);

    let workers = pool.shards().iter().map(|shard| {
        let group = pool.group(origin);
        shard.spawn_local(move || async move {
            let mut reused = 0;
            for _ in 0..1000 {
                let mut conn = group.checkout().await?;
                conn.write_all(b"ping").await?;
                conn.read_exact(&mut [0; 4]).await?;
                reused += usize::from(conn.is_reused());
                conn.release();
            }
            Ok::<usize, Box<dyn Error + Send + Sync>>(reused)
        })
    });
    for (shard, worker) in workers.collect::<Vec<_>>().into_iter().enumerate() {
        let reused = worker.await?.map_err(|error| error.to_string())?;
        println!("shard {shard}: 1000 exchanges, {reused} on a reused connection");
    }
    pool.close().await;
    println!("{:#?}", pool.group(origin).stats());
    Ok(())
}

async fn echo_origin() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // A client that goes away ends its echo, nothing else.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Ok(address)
}
