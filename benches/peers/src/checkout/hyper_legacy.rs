//! hyper-util's legacy client pool: one mutex around a map of lists. With a number as the key,
//! which favours it, and with the scheme and authority that `Client` has for one. Idle timeout,
//! timer and executor are the client's defaults.

use std::{hint::black_box, time::Duration};

use http::uri::{Authority, Scheme};
use hyper_util::{
    client::legacy::pool::{Config, Key, Pool, Poolable, Reservation, Ver},
    rt::{TokioExecutor, TokioTimer},
};

use super::*;

/// As an HTTP/1 connection: for one caller at a time.
struct Conn {
    _dummy: Dummy,
}

impl Poolable for Conn {
    fn is_open(&self) -> bool {
        true
    }

    fn reserve(self) -> Reservation<Self> {
        Reservation::Unique(self)
    }

    fn can_share(&self) -> bool {
        false
    }
}

struct Keyed<K: Key> {
    pool: Pool<Conn, K>,
    keys: Vec<K>,
}

impl<K: Key + Sync> Pairs for Keyed<K> {
    #[inline]
    async fn pair(&self, key: usize) {
        let conn = self.pool.checkout(self.keys[key].clone()).await.expect("one at rest");
        drop(black_box(conn));
    }
}

pub(super) fn prepare_number(shape: Shape) -> Case {
    prepare(shape, (0..shape.keys as u64).collect())
}

pub(super) fn prepare_uri(shape: Shape) -> Case {
    let authority = |key| format!("origin-{key}.example:8080").parse().expect("an authority");
    let key = |key: usize| -> (Scheme, Authority) { (Scheme::HTTP, authority(key)) };
    prepare(shape, (0..shape.keys).map(key).collect())
}

fn prepare<K: Key + Sync>(shape: Shape, keys: Vec<K>) -> Case {
    let crew = Crew::of(shape.threads);
    let inside = crew.handles()[0].enter();
    let config =
        Config { idle_timeout: Some(Duration::from_secs(90)), max_idle_per_host: usize::MAX };
    let pool = Pool::new(config, TokioExecutor::new(), Some(TokioTimer::new()));
    for key in &keys {
        for _ in 0..shape.threads {
            // An HTTP/1 dial needs no leave: this is `Some`.
            let dialed = pool.connecting(key, Ver::Auto).expect("leave to dial");
            drop(pool.pooled(dialed, Conn { _dummy: Dummy::default() }));
        }
    }
    drop(inside);
    Case::new(crew, shape, Keyed { pool, keys })
}
