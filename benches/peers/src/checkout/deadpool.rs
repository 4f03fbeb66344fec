//! deadpool's managed pool: a mutex and tokio's semaphore.

use std::hint::black_box;

use ::deadpool::managed::{Manager, Metrics, Pool, RecycleResult};

use super::*;

impl Manager for Maker {
    type Type = Dummy;
    type Error = Infallible;

    async fn create(&self) -> Result<Dummy, Infallible> {
        Ok(Dummy::default())
    }

    async fn recycle(&self, _: &mut Dummy, _: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

struct Pools(Vec<Pool<Maker>>);

impl Pairs for Pools {
    #[inline]
    async fn pair(&self, key: usize) {
        drop(black_box(self.0[key].get().await.expect("a connection")));
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let pool = || Pool::builder(Maker).max_size(shape.threads).build().expect("a pool");
    let (crew, pools) = one_for_each_key(shape, pool);
    Case::new(crew, shape, Pools(pools))
}
