//! pingora-pool as pingora-core's `TransportConnector` uses it: a connection at rest has a task that
//! reads from it, with a timeout, and a checkout waits until that task has let go.

use std::{
    hint::black_box,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pingora_pool::{ConnectionMeta, ConnectionPool};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::Mutex,
};

use super::*;

/// A stream that stays silent.
struct Silent(ConnectionMeta);

impl AsyncRead for Silent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

type Streams = ConnectionPool<Arc<Mutex<Silent>>>;

struct Pool(Arc<Streams>);

/// `TransportConnector::release_stream`.
fn put(pool: &Arc<Streams>, stream: Silent) {
    let meta = stream.0.clone();
    let stream = Arc::new(Mutex::new(stream));
    let locked = Arc::clone(&stream).try_lock_owned().expect("nobody else has it");
    let (evicted, taken) = pool.put(&meta, stream);
    let pool = Arc::clone(pool);
    tokio::spawn(async move {
        let timeout = Some(Duration::from_secs(60));
        pool.idle_poll(locked, &meta, timeout, evicted, taken).await;
    });
}

impl Pairs for Pool {
    /// `TransportConnector::reused_stream`, and back.
    #[inline]
    async fn pair(&self, key: usize) {
        let mut shared = self.0.get(&(key as u64)).expect("one at rest");
        drop(shared.lock().await);
        let stream = loop {
            // The lock is free a moment before the task's reference to it is gone. Pingora gives
            // such a connection up and dials another; here it waits, and the hit counts.
            match Arc::try_unwrap(shared) {
                Ok(stream) => break stream.into_inner(),
                Err(still) => shared = still,
            }
            std::thread::yield_now();
        };
        put(&self.0, black_box(stream));
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let crew = Crew::of(shape.threads);
    let of_a_key = shape.threads + 1;
    let pool = Arc::new(ConnectionPool::new(2 * shape.keys * of_a_key));
    let inside = crew.handles()[0].enter();
    for id in 0..shape.keys * of_a_key {
        put(&pool, Silent(ConnectionMeta::new((id % shape.keys) as u64, id as i32)));
    }
    drop(inside);
    Case::new(crew, shape, Pool(pool))
}
