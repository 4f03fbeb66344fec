//! What a scenario needs of its surroundings: threads, sleep and chance. Under shuttle they are
//! shuttle's, and a schedule replays all three; otherwise std's.

#[cfg(shuttle)]
mod imp {
    use std::future::Future;

    use shuttle::{rand::RngCore, thread};

    pub(crate) use shuttle::thread::JoinHandle;

    /// The surroundings of one run.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Rt(());

    impl Rt {
        /// Starts a thread.
        pub(crate) fn spawn<R: Send + 'static>(
            &self,
            body: impl FnOnce() -> R + Send + 'static,
        ) -> JoinHandle<R> {
            thread::spawn(body)
        }

        /// Lets others run.
        pub(crate) fn yield_now(&self) {
            thread::yield_now();
        }

        /// Sleeps until a future is ready. shuttle reports a thread that nobody ever wakes.
        pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
            shuttle::future::block_on(future)
        }

        /// The seed of a run: part of the schedule, whatever the caller had in mind.
        pub(crate) fn seed(&self, _: u64) -> u64 {
            shuttle::rand::thread_rng().next_u64()
        }
    }
}

#[cfg(not(shuttle))]
mod imp {
    use std::{
        future::Future,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Context, Poll, Wake, Waker},
        thread::{self, Thread},
        time::{Duration, Instant},
    };

    pub(crate) use std::thread::JoinHandle;

    /// Who sleeps for so long was forgotten: every other thread of a run is done within a second.
    const FORGOTTEN: Duration = Duration::from_secs(20);

    /// How often who sleeps looks whether another thread has failed.
    const GLANCE: Duration = Duration::from_millis(100);

    /// The surroundings of one run: a thread that fails takes the others with it.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Rt {
        failed: Arc<AtomicBool>,
    }

    struct Alarm(Rt);

    impl Drop for Alarm {
        fn drop(&mut self) {
            if thread::panicking() {
                self.0.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    struct Unpark {
        thread: Thread,
        woken: AtomicBool,
    }

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            // Release: pairs with the Acquire in `block_on`, as a wake orders in any executor.
            self.woken.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }

    impl Rt {
        /// Starts a thread.
        pub(crate) fn spawn<R: Send + 'static>(
            &self,
            body: impl FnOnce() -> R + Send + 'static,
        ) -> JoinHandle<R> {
            let alarm = Alarm(self.clone());
            thread::spawn(move || {
                let _alarm = alarm;
                body()
            })
        }

        /// Lets others run.
        pub(crate) fn yield_now(&self) {
            self.look_around();
            thread::yield_now();
        }

        /// Sleeps until a future is ready.
        ///
        /// # Panics
        /// When nobody wakes this thread, or another one has failed.
        pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
            let unpark =
                Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
            let waker = Waker::from(Arc::clone(&unpark));
            let mut cx = Context::from_waker(&waker);
            let mut future = pin!(future);
            let began = Instant::now();
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                    return output;
                }
                // Polled when woken only: a look in between would find what a lost wake-up hides.
                while !unpark.woken.swap(false, Ordering::Acquire) {
                    thread::park_timeout(GLANCE);
                    self.look_around();
                    assert!(began.elapsed() < FORGOTTEN, "INV-5: nobody woke a thread that waits");
                }
            }
        }

        /// The seed of a run.
        pub(crate) fn seed(&self, wanted: u64) -> u64 {
            wanted
        }

        fn look_around(&self) {
            assert!(!self.failed.load(Ordering::Relaxed), "another thread has failed");
        }
    }
}

pub(crate) use imp::{JoinHandle, Rt};

/// xorshift64*: good enough to pick operations, and the same for the same seed.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The numbers of one thread of a run.
    pub(crate) fn new(seed: u64, thread: u64) -> Self {
        let mixed = (seed ^ thread.rotate_left(32)).wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut rng = Self(mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9).max(1));
        rng.next_u32();
        rng
    }

    /// Any number.
    pub(crate) fn next_u32(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u64::from(self.next_u32()) * bound as u64) >> 32) as usize
    }

    /// True so many times in a hundred.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.below(100) < percent as usize
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Takes one of several out.
    pub(crate) fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        let at = self.below(from.len());
        Some(from.swap_remove(at))
    }
}
