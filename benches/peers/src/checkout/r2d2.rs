//! r2d2: blocking, a mutex and a condition variable. All pools share the threads for its chores,
//! where each would have three of its own.

use std::{hint::black_box, sync::Arc};

use scheduled_thread_pool::ScheduledThreadPool;

use super::*;

impl ::r2d2::ManageConnection for Maker {
    type Connection = Dummy;
    type Error = Infallible;

    fn connect(&self) -> Result<Dummy, Infallible> {
        Ok(Dummy::default())
    }

    fn is_valid(&self, _: &mut Dummy) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Dummy) -> bool {
        false
    }
}

struct Pools(Vec<::r2d2::Pool<Maker>>);

impl Pairs for Pools {
    #[inline]
    async fn pair(&self, key: usize) {
        drop(black_box(self.0[key].get().expect("a connection")));
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let chores = Arc::new(ScheduledThreadPool::builder().num_threads(1).build());
    let pool = || {
        let builder = ::r2d2::Pool::builder().max_size(shape.threads as u32);
        builder.thread_pool(Arc::clone(&chores)).build(Maker).expect("a pool")
    };
    let (crew, pools) = one_for_each_key(shape, pool);
    Case::new(crew, shape, Pools(pools))
}
