//! A pool without threads: its shards are futures, and whoever polls them is its scheduler.

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::LocalSet;

use super::{GroupAudit, SlotCounts};
use crate::{Connector, Group, Pool, engine::ShardId, shard};

/// A pool and its shards.
#[derive(Debug)]
pub struct Simulation<C: Connector> {
    /// The pool.
    pub pool: Pool<C>,
    /// What runs its shards. Each ends once the pool has no handle and the shard no connection.
    pub shards: Vec<SimShard>,
}

/// A shard's worker and the tasks that it has started. One poll of it is one pass of the scheduler
/// of a shard's thread.
#[must_use = "a shard does nothing unless polled"]
pub struct SimShard {
    pool: usize,
    shard: ShardId,
    run: Pin<Box<dyn Future<Output = ()>>>,
}

impl SimShard {
    pub(crate) fn new(
        pool: usize,
        shard: ShardId,
        worker: impl Future<Output = ()> + 'static,
    ) -> Self {
        let run = Box::pin(async move { LocalSet::new().run_until(worker).await });
        Self { pool, shard, run }
    }
}

impl Future for SimShard {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        shard::enter(self.pool, self.shard);
        let outcome = self.run.as_mut().poll(cx);
        shard::leave(0);
        outcome
    }
}

impl fmt::Debug for SimShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimShard").field(&self.shard.get()).finish()
    }
}

/// Where code runs, for all that a pool can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the thread of the shard of this number.
    Shard(usize),
    /// On a thread that is no shard's; the number tells it from others.
    Elsewhere(u32),
}

/// What the current thread calls of this pool from now on comes from there.
pub fn enter<C: Connector>(pool: &Pool<C>, place: Place) {
    match place {
        Place::Shard(id) => shard::enter(pool.inner().engine_id(), ShardId(id as u16)),
        Place::Elsewhere(ordinal) => shard::leave(ordinal),
    }
}

/// How many slots of a pool are in which state. Exact only while nothing moves.
pub fn audit_slots<C: Connector>(pool: &Pool<C>) -> SlotCounts {
    pool.inner().engine.audit_slots()
}

/// How many shards of a pool have something to do that they have not taken on: none, once all of
/// them are at rest.
pub fn audit_duties<C: Connector>(pool: &Pool<C>) -> usize {
    pool.inner().engine.audit_duties()
}

/// Whether every slot at rest has one valid hint and no other slot has any (INV-3). Only for pools
/// of which nothing moves meanwhile. `groups` are all that the pool has had.
///
/// # Errors
/// Which slot it is that differs, and how.
pub fn audit_hints<C: Connector>(pool: &Pool<C>, groups: &[Group<C>]) -> Result<(), String> {
    pool.inner()
        .engine
        .audit_hints(groups.iter().flat_map(|group| group.seats().groups()).map(|group| &**group))
}

impl<C: Connector> Group<C> {
    /// What the group has out, and under which limits. Exact only while nothing moves.
    pub fn audit(&self) -> GroupAudit {
        let engine = &self.inner().engine;
        let mut sum = GroupAudit::default();
        for group in self.seats().groups() {
            sum = sum.plus(engine.audit_group(group));
        }
        sum
    }
}
