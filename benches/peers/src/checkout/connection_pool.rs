//! connection-pool: tokio's mutex and semaphore. A connection goes back by a spawned task, so a
//! yield that lets it run is part of the pair. Without its clean-up task: a pool that has one
//! sleeps for 100 ms when it is dropped, and of 1000 keys each has a pool.

use std::{future::Ready, future::ready, hint::black_box, sync::Arc};

use ::connection_pool::{CleanupConfig, ConnectionManager, ConnectionPool};

use super::*;

impl ConnectionManager for Maker {
    type Connection = Dummy;
    type Error = Infallible;
    type CreateFut = Ready<Result<Dummy, Infallible>>;
    type ValidFut<'a> = Ready<bool>;

    fn create_connection(&self) -> Self::CreateFut {
        ready(Ok(Dummy::default()))
    }

    fn is_valid<'a>(&'a self, _: &'a mut Dummy) -> Self::ValidFut<'a> {
        ready(true)
    }
}

struct Pools(Vec<Arc<ConnectionPool<Maker>>>);

impl Pairs for Pools {
    #[inline]
    async fn pair(&self, key: usize) {
        let pool = Arc::clone(&self.0[key]);
        drop(black_box(pool.get_connection().await.expect("a connection")));
        tokio::task::yield_now().await;
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let pool = || {
        let cleanup = CleanupConfig { enabled: false, ..CleanupConfig::default() };
        ConnectionPool::new(Some(shape.threads), None, None, Some(cleanup), Maker)
    };
    let (crew, pools) = one_for_each_key(shape, pool);
    Case::new(crew, shape, Pools(pools))
}
