//! hyper-util's composable `client::pool::cache`: a list behind a mutex, no limits, no expiry. A
//! checkout works on a clone of the cache, because a service is called by `&mut`.

use std::{
    future::{Ready, poll_fn, ready},
    hint::black_box,
    task::{Context, Poll},
};

use hyper_util::client::pool::cache;
use tower_service::Service;

use super::*;

impl Service<()> for Maker {
    type Response = Dummy;
    type Error = Infallible;
    type Future = Ready<Result<Dummy, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(Dummy::default()))
    }
}

/// The cache's own type has no public name.
struct Caches<S>(Vec<S>);

impl<S> Pairs for Caches<S>
where
    S: Service<(), Error = Infallible, Response: Send, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    #[inline]
    async fn pair(&self, key: usize) {
        let mut cache = self.0[key].clone();
        let Ok(()) = poll_fn(|cx| cache.poll_ready(cx)).await;
        let Ok(conn) = cache.call(()).await;
        drop(black_box(conn));
    }
}

pub(super) fn prepare(shape: Shape) -> Case {
    let (crew, caches) = one_for_each_key(shape, || cache::builder().build(Maker));
    Case::new(crew, shape, Caches(caches))
}
