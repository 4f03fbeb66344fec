//! corepool, all on: permits, breaker, statistics, the death watch of each connection.

use corepool::{Backend, Connector, Group, Pool, Pooled, RawConnector, TcpConnector};

use crate::{
    candidates,
    meter::{Plan, Sample},
};

/// Plain sockets, as io_uring makes them.
pub(super) fn raw(plan: Plan, backend: Backend) -> Sample {
    measure(RawConnector, plan, backend)
}

/// tokio streams, registered with the shard's reactor: on io_uring they pay for both.
pub(super) fn tcp(plan: Plan, backend: Backend) -> Sample {
    measure(TcpConnector, plan, backend)
}

fn measure<C: Connector>(connector: C, plan: Plan, backend: Backend) -> Sample {
    // Room for a batch whose closes are under way while the next is dialled: the one limit that is
    // not the default.
    let limit = 1024.max(4 * plan.batch as u32);
    let builder = Pool::builder(connector).backend(backend).shards(1).max_live(limit);
    let pool = builder.build().expect("a pool");
    let group = pool.group(plan.to);
    let sample = pool.shards()[0].spawn_local(move || rounds(group, plan));
    let waiting = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    waiting.block_on(sample).expect("the shard lives")
}

async fn rounds<C: Connector>(group: Group<C>, plan: Plan) -> Sample {
    let dial = || {
        let group = group.clone();
        async move { group.checkout_fresh().await.expect("the acceptor lives") }
    };
    let spawn = |dial| {
        let task = tokio::task::spawn_local(dial);
        async move { task.await.expect("a checkout does not panic") }
    };
    // A close is the shard's to carry out, and goes out with the dials of the next round.
    let closed = async || {
        while group.stats().closed_total() < group.stats().opened {
            tokio::task::yield_now().await;
        }
    };
    candidates::rounds(plan, dial, spawn, Pooled::discard, closed).await.finish()
}
