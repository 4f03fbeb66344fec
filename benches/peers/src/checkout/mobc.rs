//! mobc: futures' mutex and tokio's semaphore. A connection goes back by a spawned task, so a
//! yield that lets it run is part of the pair.

use std::hint::black_box;

use ::mobc::{Manager, Pool, async_trait};

use super::*;

#[async_trait]
impl Manager for Maker {
    type Connection = Dummy;
    type Error = Infallible;

    async fn connect(&self) -> Result<Dummy, Infallible> {
        Ok(Dummy::default())
    }

    async fn check(&self, conn: Dummy) -> Result<Dummy, Infallible> {
        Ok(conn)
    }
}

struct Pools(Vec<Pool<Maker>>);

impl Pairs for Pools {
    #[inline]
    async fn pair(&self, key: usize) {
        drop(black_box(self.0[key].get().await.expect("a connection")));
        tokio::task::yield_now().await;
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let pool = || Pool::builder().max_open(shape.threads as u64).build(Maker);
    let (crew, pools) = one_for_each_key(shape, pool);
    Case::new(crew, shape, Pools(pools))
}
