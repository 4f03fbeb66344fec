//! When a thread of the callers did not run: a pool whose driver shares that thread could not know
//! of anything then, whatever the kernel knew.

use std::{cell::RefCell, collections::VecDeque, fs};

/// A stretch of time in which no caller of a thread ran.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    pub from: u64,
    pub to: u64,
    /// For how much of it the thread was ready to run and had no core, in nanoseconds. The rest of
    /// it slept, or the hypervisor did.
    pub starved: u64,
}

impl Gap {
    /// How much of it lies between two moments.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        self.to.min(to).saturating_sub(self.from.max(from))
    }
}

/// Shorter ones are not kept: those that matter are about a millisecond.
const SHORTEST: u64 = 200_000;
/// Gaps kept of each thread.
const KEPT: usize = 64;

#[derive(Debug, Default)]
struct Record {
    seen: u64,
    waited: u64,
    gaps: VecDeque<Gap>,
}

thread_local! {
    static RECORD: RefCell<Record> = RefCell::default();
}

/// A caller runs on this thread now.
pub fn note(now: u64) {
    RECORD.with_borrow_mut(|record| {
        let from = std::mem::replace(&mut record.seen, now);
        if now - from < SHORTEST {
            return;
        }
        let waited = waited();
        let starved = waited - std::mem::replace(&mut record.waited, waited);
        record.gaps.truncate(KEPT - 1);
        record.gaps.push_front(Gap { from, to: now, starved });
    });
}

/// The last gaps of this thread.
pub fn gaps() -> Vec<Gap> {
    RECORD.with_borrow(|record| record.gaps.iter().copied().collect())
}

/// For how long this thread has been ready to run and had no core, ever: the second number of
/// `schedstat` (Documentation/scheduler/sched-stats.rst). Zero where there is none.
fn waited() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
