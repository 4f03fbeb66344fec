//! A shard as its users see it: a pinned thread with a runtime to put tasks on.

use core::{
    cell::Cell,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    engine::ShardId,
    sync::{AtomicU32, Ordering},
    worker::Job,
};

/// A shard's thread, for the proxy's own tasks: there, checkouts are local.
#[derive(Clone)]
pub struct Shard {
    id: ShardId,
    core: Option<usize>,
    runtime: Handle,
    jobs: mpsc::UnboundedSender<Job>,
}

/// The shard's thread has ended, or the task panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard's thread has ended, or the task panicked")]
pub struct ShardGone;

impl Shard {
    pub(crate) fn new(
        id: ShardId,
        core: Option<usize>,
        runtime: Handle,
        jobs: mpsc::UnboundedSender<Job>,
    ) -> Self {
        Self { id, core, runtime, jobs }
    }

    /// Its number, from zero.
    pub fn id(&self) -> usize {
        self.id.get()
    }

    /// The core that its thread is pinned to; `None` when it is not.
    pub fn core(&self) -> Option<usize> {
        self.core
    }

    pub(crate) fn shard_id(&self) -> ShardId {
        self.id
    }

    /// Runs a task on the shard's thread.
    ///
    /// The task ends with the pool at the latest: when the last handle is dropped and every
    /// connection is closed, the shard's tasks are dropped. A task that holds a [`crate::Pool`]
    /// or a [`crate::Group`] itself keeps the pool, and so its own thread: end it first.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.runtime.spawn(task)
    }

    /// Runs a task that need not be `Send` on the shard's thread: `make` is sent there and makes
    /// it. The returned future may be dropped; the task goes on.
    pub fn spawn_local<M, F>(&self, make: M) -> LocalTask<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Made inside the task, so that a panic in the making is the task's own.
            tokio::task::spawn_local(async move {
                // Nobody may be waiting for it.
                let _ = done.send(make().await);
            });
        });
        // When the shard is gone the job is dropped, and with it `done`: the future says so.
        let _ = self.jobs.send(job);
        LocalTask(outcome)
    }
}

/// The outcome of a task on a shard, once it is there.
#[derive(Debug)]
pub struct LocalTask<T>(oneshot::Receiver<T>);

impl<T> Future for LocalTask<T> {
    type Output = Result<T, ShardGone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| ShardGone)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("id", &self.id.get()).field("core", &self.core).finish()
    }
}

thread_local! {
    /// The pool and the shard whose thread this is.
    static CURRENT: Cell<(usize, ShardId)> = const { Cell::new(NO_SHARD) };
    /// A number for threads that are no shard's, to spread them over the shards.
    static ORDINAL: Cell<u32> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a thread has that is no shard's: no pool has that number. Not an `Option`, whose tag every
/// hit would have to look at.
const NO_SHARD: (usize, ShardId) = (0, ShardId(0));

/// Marks this thread as a shard's.
pub(crate) fn enter(pool: usize, shard: ShardId) {
    debug_assert!(pool != NO_SHARD.0, "a pool's number is an address");
    CURRENT.set((pool, shard));
}

/// The shard of a pool whose thread this is.
#[inline]
pub(crate) fn current(pool: usize) -> Option<ShardId> {
    let (of, shard) = CURRENT.get();
    (of == pool).then_some(shard)
}

/// The shard that serves a thread that is none's: always the same one.
pub(crate) fn of_thread(shards: usize) -> ShardId {
    ShardId((ORDINAL.get() as usize % shards) as u16)
}

/// Marks this thread as no shard's, and as the one of this number, for simulations.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn leave(ordinal: u32) {
    CURRENT.set(NO_SHARD);
    ORDINAL.set(ordinal);
}
