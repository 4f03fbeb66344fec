//! The floor: tokio streams in a vector. No pool, no watch, no timeout.

use tokio::net::TcpStream;

use super::{KEYS, Keeper, Kept, Load, Opening};

pub(super) const TOKIO: Keeper = Keeper { name: "tokio-streams", timers: "0", open };

fn open(load: Load) -> Opening {
    Box::pin(async move {
        let mut streams = Vec::with_capacity(load.count());
        for key in 0..KEYS {
            for _ in 0..load.of_each {
                streams.push(TcpStream::connect(load.address(key)).await.expect("a connection"));
            }
        }
        Kept { _keeper: Box::new(streams), runtimes: Vec::new() }
    })
}
