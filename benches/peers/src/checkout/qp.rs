//! qp: an array queue and a semaphore; no keys, no expiry. It checks at checkout by a boxed future.

use std::hint::black_box;

use ::qp::{Pool, async_trait, resource::Manage};

use super::*;

#[async_trait]
impl Manage for Maker {
    type Output = Dummy;
    type Error = Infallible;

    async fn try_create(&self) -> Result<Dummy, Infallible> {
        Ok(Dummy::default())
    }
}

struct Pools(Vec<Pool<Maker>>);

impl Pairs for Pools {
    #[inline]
    async fn pair(&self, key: usize) {
        drop(black_box(self.0[key].acquire().await.expect("a connection")));
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let (crew, pools) = one_for_each_key(shape, || Pool::new(Maker, shape.threads));
    Case::new(crew, shape, Pools(pools))
}
