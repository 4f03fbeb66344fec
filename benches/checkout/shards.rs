//! corepool: its threads are its shards, its connections are real sockets under the death watch,
//! and everything is on: permits, idle caps, counters, generation, dead mark, clock, breaker.

use std::{hint::black_box, sync::LazyLock, time::Duration};

use corepool::{Connector, Group, Pool, RawConnector, TcpConnector};
use tokio::runtime::{Builder, Handle};

use crate::{
    case::{Candidate, Case, Pairs, Shape},
    crew::Crew,
    origin::{self, Origin},
};

/// Plain sockets, and tokio streams: those take a look at the reactor's readiness each time.
pub const CANDIDATES: [Candidate; 2] = [
    Candidate { name: "corepool", prepare: |shape| prepare(RawConnector, shape) },
    Candidate { name: "corepool-tcp", prepare: |shape| prepare(TcpConnector, shape) },
];

static ORIGIN: LazyLock<Origin> = LazyLock::new(Origin::start);

/// Longer than any run: what is measured is a hit, and on threads that take turns on a core the
/// pool would find, rightly, that fewer connections will do.
const LONG_MS: u32 = 3_600_000;

struct Groups<C: Connector>(Vec<Group<C>>);

impl<C: Connector> Pairs for Groups<C> {
    #[inline]
    async fn pair(&self, key: usize) {
        let conn = self.0[key].checkout().await.expect("one at rest");
        black_box(conn).release();
    }
}

/// One connection for each shard and key.
fn prepare<C: Connector>(connector: C, shape: Shape) -> Case {
    let pool = Pool::builder(connector)
        .shards(shape.threads)
        .pin(false)
        .endpoint(|policy| {
            policy.lifetime.idle_timeout_ms = LONG_MS;
            policy.lifetime.retention_period_ms = Some(LONG_MS);
        })
        .build()
        .expect("a pool");
    let groups: Vec<_> =
        (0..shape.keys).map(|key| pool.group(origin::address(key, ORIGIN.port()))).collect();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handles = runtime.block_on(async {
        for group in &groups {
            let warm = group.warm_up(shape.threads).await;
            assert_eq!(warm.ready, shape.threads, "{:?}", warm.failures);
        }
        // The shards' clocks have to see that nobody waits any more.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut handles = Vec::new();
        for shard in pool.shards() {
            handles.push(shard.spawn(async { Handle::current() }).await.expect("it lives"));
        }
        handles
    });
    Case::new(Crew::of_others(handles), shape, Groups(groups))
}
