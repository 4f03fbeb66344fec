//! bb8: a mutex, a semaphore of its own, a check on checkout (a future that is ready at once).

use std::hint::black_box;

use super::*;

impl ::bb8::ManageConnection for Maker {
    type Connection = Dummy;
    type Error = Infallible;

    async fn connect(&self) -> Result<Dummy, Infallible> {
        Ok(Dummy::default())
    }

    async fn is_valid(&self, _: &mut Dummy) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Dummy) -> bool {
        false
    }
}

struct Pools(Vec<::bb8::Pool<Maker>>);

impl Pairs for Pools {
    #[inline]
    async fn pair(&self, key: usize) {
        drop(black_box(self.0[key].get().await.expect("a connection")));
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let pool = || ::bb8::Pool::builder().max_size(shape.threads as u32).build_unchecked(Maker);
    let (crew, pools) = one_for_each_key(shape, pool);
    Case::new(crew, shape, Pools(pools))
}
