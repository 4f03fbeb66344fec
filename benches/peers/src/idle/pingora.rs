//! Pingora: the connector of pingora-core around pingora-pool, its streams and its idle tasks.

use pingora_core::{
    connectors::{ConnectorOptions, TransportConnector},
    upstreams::peer::{BasicPeer, Peer as _},
};

use super::{IDLE_TIMEOUT, KEYS, Keeper, Kept, Load, Opening};

pub(super) const CORE: Keeper = Keeper { name: "pingora-core", timers: "1 a connection", open };

fn open(load: Load) -> Opening {
    Box::pin(async move {
        let connector = TransportConnector::new(Some(ConnectorOptions::new(load.count())));
        for key in 0..KEYS {
            let peer = BasicPeer::new(&load.address(key).to_string());
            let mut streams = Vec::with_capacity(load.of_each);
            for _ in 0..load.of_each {
                streams.push(connector.new_stream(&peer).await.expect("a connection"));
            }
            for stream in streams {
                connector.release_stream(stream, peer.reuse_hash(), Some(IDLE_TIMEOUT));
            }
        }
        Kept { _keeper: Box::new(connector), runtimes: Vec::new() }
    })
}
