//! The peers of the checkout bench, each set up so that it does the least that it can: connections
//! are dummies (no socket, no system call, always healthy), there is one for each thread and key,
//! and what a pool has no keys for is an array of pools, found by index instead of by a map.
//! Timeouts, reapers and checks stay as the pool's defaults have them.

use std::convert::Infallible;

use crate::{
    case::{Candidate, Case, Pairs, Shape},
    crew::Crew,
    floors::{self, Dummy},
    shards,
};

mod bb8;
mod connection_pool;
mod deadpool;
mod hyper_cache;
mod hyper_legacy;
mod mobc;
mod pingora;
mod pingora_idle;
mod qp;
mod r2d2;

/// Everybody: corepool, the peers, the floors.
pub fn candidates() -> Vec<Candidate> {
    let peers = [
        Candidate { name: "pingora-pool", prepare: pingora::prepare },
        Candidate { name: "pingora-pool-idle-task", prepare: pingora_idle::prepare },
        Candidate { name: "hyper-util-legacy", prepare: hyper_legacy::prepare_number },
        Candidate { name: "hyper-util-legacy-uri", prepare: hyper_legacy::prepare_uri },
        Candidate { name: "hyper-util-cache", prepare: hyper_cache::prepare },
        Candidate { name: "deadpool", prepare: deadpool::prepare },
        Candidate { name: "bb8", prepare: bb8::prepare },
        Candidate { name: "mobc", prepare: mobc::prepare },
        Candidate { name: "connection-pool", prepare: connection_pool::prepare },
        Candidate { name: "r2d2", prepare: r2d2::prepare },
        Candidate { name: "qp", prepare: qp::prepare },
    ];
    [&shards::CANDIDATES[..], &peers, &floors::CANDIDATES].concat()
}

/// Makes dummies; the manager of those pools that want one.
#[derive(Clone, Copy)]
struct Maker;

/// A pool for each key, for those that have no keys; made inside a runtime, which some of them
/// start a task on.
fn one_for_each_key<P: Send>(shape: Shape, make: impl Fn() -> P) -> (Crew, Vec<P>) {
    let crew = Crew::of(shape.threads);
    let _inside = crew.handles()[0].enter();
    let pools = (0..shape.keys).map(|_| make()).collect();
    drop(_inside);
    (crew, pools)
}
