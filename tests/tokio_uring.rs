//! Shards that host tokio-uring: pooled sockets are its streams.
#![cfg(target_os = "linux")]

mod support;

use corepool::{
    Backend, CheckoutError, Condition, Connection, Host, Inspect, Pool, TokioUringConnector,
};
use support::{Echo, Ended, close_and_check, tuned, uring_is_expected};

#[tokio::test]
async fn a_pooled_stream_does_io_on_its_shard_and_is_reused() {
    if !uring_is_expected() {
        return;
    }
    for backend in [Backend::IoUring, Backend::Epoll] {
        let origin = Echo::start();
        let pool = tuned(Pool::builder(TokioUringConnector), backend)
            .host(Host::TokioUring)
            .build()
            .unwrap();
        for shard in pool.shards() {
            let group = pool.group(origin.address);
            let (reused, shard_of) = shard
                .spawn_local(move || async move {
                    let mut reused = Vec::new();
                    for _ in 0..3 {
                        let conn = group.checkout().await.unwrap();
                        let (written, _) = conn.write_all(b"ping".to_vec()).await;
                        written.unwrap();
                        let (read, answer) = conn.read(vec![0; 4]).await;
                        assert_eq!((read.unwrap(), answer), (4, b"ping".to_vec()));
                        reused.push(conn.is_reused());
                        let shard_of = conn.shard();
                        conn.release();
                        assert_eq!(shard_of, conn_shard(&group));
                    }
                    (reused, conn_shard(&group))
                })
                .await
                .unwrap();
            assert_eq!(reused, [false, true, true]);
            assert_eq!(shard_of, shard.id());
        }
        let stats = pool.group(origin.address).stats();
        assert_eq!((stats.opened, stats.stolen), (2, 0), "a connection for each shard");
        close_and_check(pool).await;
        assert_eq!(origin.next_end(), Ended::Fin);
        assert_eq!(origin.next_end(), Ended::Fin);
    }
}

fn conn_shard(group: &corepool::Group<TokioUringConnector>) -> usize {
    group.try_checkout().expect("an idle connection of this shard").shard()
}

#[tokio::test]
async fn a_checkout_off_the_shards_is_an_error_that_says_so() {
    if !uring_is_expected() {
        return;
    }
    let origin = Echo::start();
    let pool = tuned(Pool::builder(TokioUringConnector), Backend::Auto)
        .host(Host::TokioUring)
        .build()
        .unwrap();
    let error = pool.group(origin.address).checkout().await.unwrap_err();
    assert!(matches!(error, CheckoutError::OffShard { .. }), "{error:?}");
    close_and_check(pool).await;
}

#[tokio::test]
async fn a_guard_dropped_on_another_thread_goes_home_to_be_closed() {
    if !uring_is_expected() {
        return;
    }
    let origin = Echo::start();
    let pool = tuned(Pool::builder(TokioUringConnector), Backend::Auto)
        .host(Host::TokioUring)
        .build()
        .unwrap();
    let group = pool.group(origin.address);
    let conn =
        pool.shards()[0].spawn(async move { group.checkout().await.unwrap() }).await.unwrap();
    conn.discard();
    assert_eq!(origin.next_end(), Ended::Fin);
    close_and_check(pool).await;
}

#[tokio::test]
async fn a_peek_does_not_wait_and_finds_unexpected_bytes() {
    use std::io::Write;
    if !uring_is_expected() {
        return;
    }
    let origin = Echo::start();
    let pool = tuned(Pool::builder(TokioUringConnector), Backend::Auto)
        .host(Host::TokioUring)
        .build()
        .unwrap();
    let group = pool.group(origin.address);
    let checkout = |group: corepool::Group<TokioUringConnector>| async move {
        let mut conn = group.checkout().await.unwrap();
        let found = conn.inspect(Inspect::Peek);
        (conn, found)
    };
    let (mut conn, found) = pool.shards()[0].spawn(checkout(group.clone())).await.unwrap();
    assert_eq!(found, Condition::Usable);
    origin.next().write_all(b"!").unwrap();
    assert_eq!(conn.inspect(Inspect::Peek), Condition::Usable, "out of reach on this thread");
    let found = pool.shards()[0].spawn(async move { conn.inspect(Inspect::Peek) }).await.unwrap();
    assert_eq!(found, Condition::UnexpectedBytes);
    close_and_check(pool).await;
}
