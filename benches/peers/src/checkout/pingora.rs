//! pingora-pool alone: get and put, without the task that pingora-core adds. One connection more
//! than threads, so that a key's node is never empty: it would be removed and made again each time.

use std::{hint::black_box, sync::Arc};

use pingora_pool::{ConnectionMeta, ConnectionPool};

use super::*;

/// A connection and the number that the pool knows it by.
struct Conn {
    meta: ConnectionMeta,
    _dummy: Dummy,
}

struct Pool(Arc<ConnectionPool<Conn>>);

impl Pairs for Pool {
    #[inline]
    async fn pair(&self, key: usize) {
        let conn = black_box(self.0.get(&(key as u64)).expect("one at rest"));
        let meta = conn.meta.clone();
        let _ = self.0.put(&meta, conn);
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let of_a_key = shape.threads + 1;
    // Room for all, so that none is evicted.
    let pool = ConnectionPool::new(2 * shape.keys * of_a_key);
    for id in 0..shape.keys * of_a_key {
        let meta = ConnectionMeta::new((id % shape.keys) as u64, id as i32);
        let _ = pool.put(&meta, Conn { meta: meta.clone(), _dummy: Dummy::default() });
    }
    Case::new(Crew::of(shape.threads), shape, Pool(Arc::new(pool)))
}
