//! Proves what a hit costs: checkout and return of a live idle connection, everything on
//! (permits, idle caps, counters, watch, dead mark), against a bare queue and a locked vector.
//!
//! `cargo bench --bench checkout`. Read ratios, not nanoseconds: machines are shared.

use std::{collections::VecDeque, hint::black_box, net::TcpListener, sync::Mutex, time::Duration};

use corepool::{Endpoint, Group, Pool, RawConnector, TcpConnector};
use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;

/// A pool with one idle connection for the shard that runs the benchmark.
fn pool<C: corepool::Connector>(connector: C, to: Endpoint) -> (Pool<C>, Group<C>) {
    let pool = Pool::builder(connector).shards(1).build().expect("a pool");
    let group = pool.group(to);
    let warm = pool.shards()[0].spawn({
        let group = group.clone();
        async move { group.warm_up(1).await.ready }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(runtime.block_on(warm).expect("the shard lives"), 1);
    (pool, group)
}

/// Runs `iterations` pairs on the shard's own thread and tells how long they took.
fn on_shard<C: corepool::Connector>(pool: &Pool<C>, group: &Group<C>, iterations: u64) -> Duration {
    let group = group.clone();
    let pairs = pool.shards()[0].spawn(async move {
        let started = std::time::Instant::now();
        for _ in 0..iterations {
            match group.try_checkout() {
                Some(conn) => black_box(conn).release(),
                None => panic!("the idle connection is gone"),
            }
        }
        started.elapsed()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(pairs).expect("the shard lives")
}

fn checkout_return(c: &mut Criterion) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");

    let mut group = c.benchmark_group("checkout_return");
    let (raw, raw_group) = pool(RawConnector, address.into());
    group.bench_function("corepool_raw/1x1", |b| {
        b.iter_custom(|iterations| on_shard(&raw, &raw_group, iterations));
    });
    let (tcp, tcp_group) = pool(TcpConnector, address.into());
    group.bench_function("corepool_tcp/1x1", |b| {
        b.iter_custom(|iterations| on_shard(&tcp, &tcp_group, iterations));
    });
    let queue = ArrayQueue::new(16);
    queue.push([0u64; 4]).expect("room");
    group.bench_function("floor_array_queue/1x1", |b| {
        b.iter(|| {
            let conn = queue.pop().expect("one");
            queue.push(black_box(conn)).expect("room");
        });
    });
    let locked = Mutex::new(VecDeque::from([[0u64; 4]]));
    group.bench_function("floor_mutex_deque/1x1", |b| {
        b.iter(|| {
            let conn = locked.lock().expect("unpoisoned").pop_front().expect("one");
            locked.lock().expect("unpoisoned").push_back(black_box(conn));
        });
    });
    group.finish();
}

criterion_group!(benches, checkout_return);
criterion_main!(benches);
