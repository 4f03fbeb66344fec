//! corepool: one shard, its slots and lanes allocated for the connections that there are.

use corepool::{Connector, Group, Http1Connector, Pool, RawConnector, TcpConnector};
use http::Request;
use http_body_util::BodyExt;
use tokio::{runtime::Handle, task::JoinSet};

use super::{IDLE_TIMEOUT, KEYS, Keeper, Kept, Load, Opening};

const ONE_TIMER: &str = "1 a shard";

pub(super) const RAW: Keeper = Keeper {
    name: "corepool",
    timers: ONE_TIMER,
    open: |load| open(RawConnector, load, async |_, _| ()),
};

pub(super) const TCP: Keeper = Keeper {
    name: "corepool-tcp",
    timers: ONE_TIMER,
    open: |load| open(TcpConnector, load, async |_, _| ()),
};

/// hyper's connections, for the comparison with hyper-util: each has carried a request.
pub(super) const HTTP1: Keeper = Keeper {
    name: "corepool-http1",
    timers: ONE_TIMER,
    open: |load| open(Http1Connector::<String>::new(), load, exchange),
};

fn open<C: Connector>(
    connector: C,
    load: Load,
    serve: impl AsyncFn(Group<C>, usize) + 'static,
) -> Opening {
    Box::pin(async move {
        let of_each = load.of_each as u32;
        let pool = Pool::builder(connector)
            .shards(1)
            .slots_per_shard(load.count())
            .max_live(of_each)
            .max_idle(of_each)
            .idle_timeout(IDLE_TIMEOUT)
            .endpoint(|policy| policy.lifetime.retention_period_ms = Some(3_600_000))
            .build()
            .expect("a pool");
        let mut groups = Vec::with_capacity(KEYS);
        for key in 0..KEYS {
            let group = pool.group(load.address(key));
            let warm = group.warm_up(load.of_each).await;
            assert_eq!(warm.ready, load.of_each, "{:?}", warm.failures);
            serve(group.clone(), load.of_each).await;
            groups.push(group);
        }
        let shard = pool.shards()[0].spawn(async { Handle::current() }).await;
        Kept { _keeper: Box::new((pool, groups)), runtimes: vec![shard.expect("it lives")] }
    })
}

/// A request on each of a group's connections, all at once.
async fn exchange(group: Group<Http1Connector<String>>, of_each: usize) {
    let mut conns = Vec::with_capacity(of_each);
    for _ in 0..of_each {
        conns.push(group.checkout().await.expect("one at rest"));
    }
    let mut answers = JoinSet::new();
    for conn in conns {
        answers.spawn(async move {
            let request = Request::get("/").header("host", "origin").body(String::new());
            let answer = conn.exchange(request.expect("a request")).await.expect("an answer");
            answer.into_body().collect().await.expect("its end");
        });
    }
    while let Some(answer) = answers.join_next().await {
        answer.expect("it ends");
    }
}
