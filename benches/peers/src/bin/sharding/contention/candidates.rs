//! Who is compared, each behind one function.

use std::{
    collections::VecDeque,
    hint::{black_box, spin_loop},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use corepool::{Group, Pool, RawConnector};
use corepool_peers::report;
use crossbeam_queue::ArrayQueue;

use super::{Done, Race};

/// Something that connections are taken from and given back to.
pub trait Candidate {
    fn name(&self) -> &'static str;

    /// Runs a race on so many threads.
    fn run(&self, race: &Arc<Race>, threads: usize) -> Vec<Done>;
}

/// All of them, with two connections for each thread.
pub fn all(threads: usize) -> [Box<dyn Candidate>; 4] {
    let connections = 2 * threads;
    [
        Box::new(OnShards(Corepool::new(threads, connections))),
        Box::new(Elsewhere(Corepool::new(report::cores().min(threads), connections))),
        Box::new(Queue::new(connections)),
        Box::new(Locked::new(connections)),
    ]
}

/// A pool with real sockets, everything on.
struct Corepool {
    pool: Pool<RawConnector>,
    group: Group<RawConnector>,
    _origin: TcpListener,
}

impl Corepool {
    fn new(shards: usize, connections: usize) -> Self {
        let origin = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = origin.local_addr().expect("its address");
        let pool = Pool::builder(RawConnector).shards(shards).slots_per_shard(1024).build();
        let pool = pool.expect("a pool");
        let group = pool.group(to);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let warm = runtime.expect("a runtime").block_on(group.warm_up(connections));
        assert_eq!(warm.ready, connections, "{:?}", warm.failures);
        Self { pool, group, _origin: origin }
    }
}

fn pair(group: &Group<RawConnector>) {
    loop {
        if let Some(conn) = group.try_checkout() {
            return black_box(conn).release();
        }
        // All are out, with threads that do not run just now.
        spin_loop();
    }
}

/// As it is meant: a shard for each thread, each with connections of its own.
struct OnShards(Corepool);

impl Candidate for OnShards {
    fn name(&self) -> &'static str {
        "corepool, a shard per thread"
    }

    fn run(&self, race: &Arc<Race>, _threads: usize) -> Vec<Done> {
        let tasks: Vec<_> = self
            .0
            .pool
            .shards()
            .iter()
            .map(|shard| {
                let (group, race) = (self.0.group.clone(), Arc::clone(race));
                shard.spawn(async move { race.run(|| pair(&group)) })
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut done = Vec::new();
            for task in tasks {
                done.push(task.await.expect("the shard lives"));
            }
            done
        })
    }
}

/// Threads that are no shard's, as of a multi-threaded runtime: each keeps to one of as many
/// shards as there are cores, and shares its lane.
struct Elsewhere(Corepool);

impl Candidate for Elsewhere {
    fn name(&self) -> &'static str {
        "corepool, from other threads"
    }

    fn run(&self, race: &Arc<Race>, threads: usize) -> Vec<Done> {
        on_threads(race, threads, || pair(&self.0.group))
    }
}

/// The floor of a shared pool without a lock: no keys, no limits, no watch.
struct Queue(ArrayQueue<Dummy>);

impl Queue {
    fn new(connections: usize) -> Self {
        let queue = ArrayQueue::new(connections);
        (0..connections as u64).for_each(|n| queue.push([n; 4]).expect("room"));
        Self(queue)
    }
}

impl Candidate for Queue {
    fn name(&self) -> &'static str {
        "shared ArrayQueue"
    }

    fn run(&self, race: &Arc<Race>, threads: usize) -> Vec<Done> {
        on_threads(race, threads, || {
            loop {
                if let Some(conn) = self.0.pop() {
                    let back = self.0.push(black_box(conn));
                    return back.expect("room for all there are");
                }
                spin_loop();
            }
        })
    }
}

/// The floor of a shared pool with a lock.
struct Locked(Mutex<VecDeque<Dummy>>);

impl Locked {
    fn new(connections: usize) -> Self {
        Self(Mutex::new((0..connections as u64).map(|n| [n; 4]).collect()))
    }
}

impl Candidate for Locked {
    fn name(&self) -> &'static str {
        "Mutex<VecDeque>"
    }

    fn run(&self, race: &Arc<Race>, threads: usize) -> Vec<Done> {
        let queue = || self.0.lock().expect("nobody panics with it");
        on_threads(race, threads, || {
            loop {
                let conn = queue().pop_front();
                if let Some(conn) = conn {
                    return queue().push_back(black_box(conn));
                }
                spin_loop();
            }
        })
    }
}

/// Stands for a connection: about as large as what the pool moves.
type Dummy = [u64; 4];

fn on_threads(race: &Race, threads: usize, pair: impl Fn() + Sync) -> Vec<Done> {
    thread::scope(|scope| {
        let runs: Vec<_> = (0..threads).map(|_| scope.spawn(|| race.run(&pair))).collect();
        runs.into_iter().map(|run| run.join().expect("no pair panics")).collect()
    })
}
