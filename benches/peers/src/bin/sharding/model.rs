//! The simulated half: a pool without threads and sockets, whose clock stands still between steps.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use corepool::{
    Pool, Settings,
    sim::{self, Dial, Network, Peers, Place, SimConnector, Simulation},
};
use tokio::task::{LocalSet, spawn_local};

pub type SimPool = Pool<SimConnector>;

/// How long a dial takes: a round trip within a data centre, and the origin's accept.
pub const DIAL: Duration = Duration::from_millis(1);

/// A network on which every dial takes [`DIAL`].
#[derive(Debug)]
struct Lan;

impl Network for Lan {
    fn dial(&self, _shard: usize, _to: SocketAddr) -> Dial {
        Dial::Accept(DIAL)
    }
}

/// Plays a scenario on a simulated pool. The same settings, seed and scenario give the same
/// outcome.
pub fn play<F: Future>(
    settings: Settings,
    seed: u64,
    scenario: impl FnOnce(SimPool, Peers) -> F,
) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let (script, peers) = sim::script_on(Arc::new(Lan));
        let built = Pool::builder(SimConnector).settings(settings).simulate(script, seed);
        let Simulation { pool, shards } = built.expect("settings within their ranges");
        for shard in shards {
            spawn_local(shard);
        }
        scenario(pool, peers).await
    })
}

/// Runs a task as if on the thread of a shard, beside the others.
pub fn spawn_at(pool: &SimPool, shard: usize, task: impl Future<Output = ()> + 'static) {
    spawn_local(At { pool: pool.clone(), place: Place::Shard(shard), task: Box::pin(task) });
}

struct At {
    pool: SimPool,
    place: Place,
    task: Pin<Box<dyn Future<Output = ()>>>,
}

impl Future for At {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        sim::enter(&self.pool, self.place);
        self.task.as_mut().poll(cx)
    }
}

/// Where simulated endpoint number `key` is.
pub fn address(key: usize) -> SocketAddr {
    ([10, 0, (key >> 8) as u8, key as u8], 80).into()
}

/// The time to the next arrival of a Poisson process of so many a second.
pub fn gap(random: &mut fastrand::Rng, per_second: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - random.f64()).ln() / per_second)
}
