//! Shards that host tokio-uring: a checked-out socket is a `tokio_uring` stream, without a system
//! call.
//!
//! `cargo run --release --features tokio-uring --example tokio_uring`

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use corepool::{Host, Pool, TokioUringConnector};

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let origin = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });

    let pool = Pool::builder(TokioUringConnector).host(Host::TokioUring).build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for shard in pool.shards() {
            let group = pool.group(origin);
            let outcome = shard.spawn_local(move || async move {
                let mut reused = 0;
                for _ in 0..100 {
                    let conn = group.checkout().await.map_err(|error| error.to_string())?;
                    let (written, _) = conn.write_all(b"ping".to_vec()).await;
                    written.map_err(|error| error.to_string())?;
                    let (read, _) = conn.read(vec![0; 4]).await;
                    read.map_err(|error| error.to_string())?;
                    reused += usize::from(conn.is_reused());
                    conn.release();
                }
                Ok::<usize, String>(reused)
            });
            println!("shard {}: 100 exchanges, {} reused", shard.id(), outcome.await??);
        }
        pool.close().await;
        Ok(())
    })
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("tokio-uring is Linux's");
}
