//! The one place that names `std::sync`, `loom` or `shuttle`: everything the engine shares goes
//! through here.
//!
//! Three builds: the product's, on std; `--cfg loom`, which explores every interleaving and ordering
//! of a few steps; `--cfg shuttle`, which samples interleavings of thousands of steps and takes
//! every ordering for `SeqCst`. The same long runs on std's threads are for what neither sees.

#[cfg(loom)]
pub(crate) use loom::{
    future::AtomicWaker,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    },
};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use atomic_waker::AtomicWaker;
/// No lock for what fits into a word, as a box does.
#[cfg(all(feature = "http2", not(any(loom, model))))]
pub(crate) use crossbeam_utils::atomic::AtomicCell;

/// The product's waker cell. It uses std's atomics, which shuttle does not see, so its calls begin
/// with a word that shuttle does see.
#[cfg(shuttle)]
#[derive(Debug)]
pub(crate) struct AtomicWaker {
    cell: atomic_waker::AtomicWaker,
    calls: AtomicU64,
}

#[cfg(shuttle)]
impl AtomicWaker {
    pub(crate) const fn new() -> Self {
        Self { cell: atomic_waker::AtomicWaker::new(), calls: AtomicU64::new(0) }
    }

    fn register(&self, waker: &core::task::Waker) {
        guess(&self.calls);
        self.cell.register(waker);
    }

    pub(crate) fn wake(&self) {
        guess(&self.calls);
        self.cell.wake();
    }
}

use std::sync::atomic::AtomicU32 as Plain;

/// A number that steers a policy and guards nothing: it may change at run time, and who reads the
/// old one a moment longer is as right. loom need not follow it, so it is core's in every build.
#[derive(Debug, Default)]
pub(crate) struct Setting(Plain);

impl Setting {
    pub(crate) const fn new(value: u32) -> Self {
        Self(Plain::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> u32 {
        // Relaxed: guards nothing.
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u32) {
        // Relaxed: guards nothing.
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A cell whose contents are guarded by a state word next to it.
///
/// Access goes through closures in every build, so that loom can watch every read and write.
#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// A cell whose contents are guarded by a state word next to it.
///
/// Access goes through closures in every build, so that loom can watch every read and write.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A place for what is made late, if ever, and then stays.
///
/// Nobody waits for another: of two that make it at once one drops its own. A pointer outside the
/// models; there a flag stands for it, because loom does not see into once_cell.
pub(crate) struct Late<V> {
    #[cfg(not(loom))]
    value: once_cell::race::OnceBox<V>,
    #[cfg(loom)]
    value: std::sync::OnceLock<V>,
    #[cfg(loom)]
    is_made: AtomicBool,
    #[cfg(any(loom, shuttle))]
    calls: AtomicU64,
}

impl<V> Late<V> {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(not(loom))]
            value: once_cell::race::OnceBox::new(),
            #[cfg(loom)]
            value: std::sync::OnceLock::new(),
            #[cfg(loom)]
            is_made: AtomicBool::new(false),
            #[cfg(any(loom, shuttle))]
            calls: AtomicU64::new(0),
        }
    }

    /// What was made, if anything.
    #[inline]
    pub(crate) fn get(&self) -> Option<&V> {
        #[cfg(any(loom, shuttle))]
        guess(&self.calls);
        #[cfg(not(loom))]
        return self.value.get();
        // Acquire: as once_cell has it. Pairs with the Release in `get_or_make`.
        #[cfg(loom)]
        return self.is_made.load(Ordering::Acquire).then(|| self.made());
    }

    /// What was made, or what `make` gives now.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> V) -> &V {
        #[cfg(any(loom, shuttle))]
        guess(&self.calls);
        #[cfg(not(loom))]
        return self.value.get_or_init(|| Box::new(make()));
        #[cfg(loom)]
        {
            let value = make();
            // Release, or Acquire: as once_cell has it. Publishes what was made to `get`, or sees
            // what another has made.
            let published =
                self.is_made.compare_exchange(false, true, Ordering::Release, Ordering::Acquire);
            if published.is_ok() {
                // No other thread of the model runs before its next step, so none sees the flag
                // and finds nothing.
                let set = self.value.set(value);
                debug_assert!(set.is_ok(), "the flag was off");
            }
            self.made()
        }
    }

    #[cfg(loom)]
    fn made(&self) -> &V {
        self.value.get().expect("the flag is on")
    }
}

/// First read of a CAS loop: a guess that the CAS then verifies.
///
/// Under loom it is a read-modify-write that changes nothing: loom 0.7 does not explore the
/// executions in which a thread's plain load precedes its own CAS (tokio-rs/loom#166, #392), so a
/// model of such a loop would pass whatever the orderings are.
#[inline(always)]
pub(crate) fn guess(word: &AtomicU64) -> u64 {
    // Relaxed: a wrong guess costs one failed CAS, never a wrong transition.
    #[cfg(loom)]
    return word.fetch_or(0, Ordering::Relaxed);
    #[cfg(not(loom))]
    return word.load(Ordering::Relaxed);
}

/// The same where the guess also decides which other words are read: Acquire.
#[inline(always)]
pub(crate) fn look(word: &AtomicU64) -> u64 {
    // Acquire: as each caller says.
    #[cfg(loom)]
    return word.fetch_or(0, Ordering::Acquire);
    #[cfg(not(loom))]
    return word.load(Ordering::Acquire);
}

/// Registers a task with a waker cell: the two libraries differ in how they take the waker.
#[inline]
pub(crate) fn register(cell: &AtomicWaker, waker: &core::task::Waker) {
    #[cfg(loom)]
    cell.register_by_ref(waker);
    #[cfg(not(loom))]
    cell.register(waker);
}

/// Takes the task out of a waker cell.
#[cfg(any(loom, all(feature = "http1", not(model))))]
pub(crate) fn forget(cell: &AtomicWaker) {
    #[cfg(loom)]
    drop(cell.take_waker());
    #[cfg(not(loom))]
    drop(cell.take());
}
