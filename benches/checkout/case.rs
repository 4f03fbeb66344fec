//! What is measured: pairs of checkout and return, on some threads, over some keys.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Barrier;

use crate::crew::Crew;

/// How many threads make pairs at once, and over how many keys (endpoints) each of them walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Threads.
    pub threads: usize,
    /// Keys.
    pub keys: usize,
}

impl Shape {
    /// One thread, two, and more than there are cores; one hot key, and more than a cache line's
    /// worth of them.
    pub const ALL: [Self; 6] = [
        Self { threads: 1, keys: 1 },
        Self { threads: 1, keys: 1000 },
        Self { threads: 2, keys: 1 },
        Self { threads: 2, keys: 1000 },
        Self { threads: 8, keys: 1 },
        Self { threads: 8, keys: 1000 },
    ];
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.threads, self.keys)
    }
}

/// A pool under test, full enough that every checkout is a hit.
pub trait Pairs: Send + Sync + 'static {
    /// Readies the calling thread, which is about to make pairs. Not timed.
    fn enter(&self) {}

    /// Checks a connection of a key out and returns it, and waits until it is back.
    fn pair(&self, key: usize) -> impl Future<Output = ()> + Send;
}

/// A candidate: its name in the ids, and how it is set up for a shape.
#[derive(Clone, Copy)]
pub struct Candidate {
    /// As in `checkout_return/<name>/<threads>x<keys>`.
    pub name: &'static str,
    /// Sets the pool up.
    pub prepare: fn(Shape) -> Case,
}

type Lap = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A candidate that is set up: threads, and what they run.
pub struct Case {
    crew: Crew,
    shape: Shape,
    enter: Arc<dyn Fn() + Send + Sync>,
    /// Makes so many pairs as the thread of a number.
    lap: Box<dyn Fn(usize, u64) -> Lap + Send + Sync>,
}

impl Case {
    /// Pairs of `pool` on the threads of `crew`.
    pub fn new<P: Pairs>(crew: Crew, shape: Shape, pool: P) -> Self {
        let pool = Arc::new(pool);
        let entered = Arc::clone(&pool);
        let lap = move |thread: usize, pairs| {
            let pool = Arc::clone(&pool);
            let lap: Lap = Box::pin(async move {
                let mut keys = Walk::new(thread, shape);
                for _ in 0..pairs {
                    pool.pair(keys.next()).await;
                }
            });
            lap
        };
        let enter = Arc::new(move || entered.enter());
        Self { crew, shape, enter, lap: Box::new(lap) }
    }

    /// Has each thread make so many pairs, all at once, after a few at each key that are not timed:
    /// what others left in the caches is not what is measured. Returns the cores' time for as many pairs
    /// of one thread: the slowest thread's wall time, divided by how many threads share a core.
    ///
    /// So one thread and two on two cores give plain wall time for each pair of a thread, which
    /// stays what it is if the threads do not disturb each other; and eight on two cores can be
    /// compared with that.
    pub fn run(&self, pairs: u64) -> Duration {
        let (done, laps) = mpsc::channel();
        let keys = self.shape.keys as u64;
        let barrier = Arc::new(Barrier::new(self.shape.threads));
        for (thread, handle) in self.crew.handles().iter().enumerate() {
            let (warm, lap) = ((self.lap)(thread, WARM * keys), (self.lap)(thread, pairs));
            let enter = Arc::clone(&self.enter);
            let (done, barrier) = (done.clone(), Arc::clone(&barrier));
            handle.spawn(async move {
                enter();
                warm.await;
                // An await, not a block: some pools return connections by a task of this runtime.
                barrier.wait().await;
                let started = Instant::now();
                lap.await;
                let _ = done.send(started.elapsed());
            });
        }
        drop(done);
        let laps: Vec<_> = laps.iter().collect();
        assert_eq!(laps.len(), self.shape.threads, "a thread panicked");
        let slowest = laps.into_iter().max().unwrap_or_default();
        slowest.mul_f64(1.0 / sharing(self.shape.threads))
    }
}

/// Pairs at each key that go before a lap.
const WARM: u64 = 3;

/// How many threads share a core, at least 1.
fn sharing(threads: usize) -> f64 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (threads as f64 / cores as f64).max(1.0)
}

/// Which key is next: all in turn, in strides that no prefetcher foresees, each thread from
/// another one on.
struct Walk {
    at: usize,
    keys: usize,
}

/// Less than the number of keys where there are many, and coprime to it.
const STRIDE: usize = 617;

impl Walk {
    fn new(thread: usize, shape: Shape) -> Self {
        Self { at: thread * shape.keys / shape.threads, keys: shape.keys }
    }

    #[inline]
    fn next(&mut self) -> usize {
        if self.keys == 1 {
            return 0;
        }
        self.at += STRIDE;
        if self.at >= self.keys {
            self.at -= self.keys;
        }
        self.at
    }
}
