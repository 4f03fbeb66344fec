//! User memory: what the allocator was asked for, and what the kernel says is resident.

#![allow(unsafe_code)] // an allocator is unsafe to implement; this one counts and hands on

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

/// The system's allocator with a count of what is allocated.
pub struct Counting;

// Relaxed, both: statistics, read when nothing is going on.
static BYTES: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);

fn count(bytes: i64, blocks: i64) {
    BYTES.fetch_add(bytes, Relaxed);
    BLOCKS.fetch_add(blocks, Relaxed);
}

// SAFETY: every call goes to `System` as it came, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64, 1);
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64, 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as i64), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64, 0);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// What a process has of memory at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Allocated and not given back, as asked for.
    pub bytes: i64,
    /// In so many pieces.
    pub blocks: i64,
    /// Resident, in bytes.
    pub resident: i64,
}

/// Now. Counts only in a program whose global allocator is [`Counting`].
pub fn snapshot() -> Snapshot {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = field.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    Snapshot {
        bytes: BYTES.load(Relaxed),
        blocks: BLOCKS.load(Relaxed),
        resident: kilobytes.map_or(0, |kilobytes: i64| kilobytes * 1024),
    }
}
