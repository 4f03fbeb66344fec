//! What one shard's part of the proxy has done, written by its thread and read by `/metrics`.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use corepool::CheckoutError;
use hyper::StatusCode;

/// One shard's counters. Aligned, so that no two shards write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    accepted: AtomicU64,
    finished: AtomicU64,
    retries: AtomicU64,
    detours: AtomicU64,
    failed_handshakes: AtomicU64,
    refusals: [AtomicU64; CAUSES.len()],
    responses: [AtomicU64; CLASSES.len()],
}

/// Keeps the count of open client connections right, also when their task is cut off.
#[derive(Debug)]
pub(crate) struct OpenClient(Arc<Counters>);

impl Counters {
    pub(crate) fn accept(self: &Arc<Self>) -> OpenClient {
        add(&self.accepted);
        OpenClient(Arc::clone(self))
    }

    pub(crate) fn retry(&self) {
        add(&self.retries);
    }

    pub(crate) fn fail_handshake(&self) {
        add(&self.failed_handshakes);
    }

    pub(crate) fn detour(&self) {
        add(&self.detours);
    }

    /// A checkout gave no connection.
    pub(crate) fn refuse(&self, error: &CheckoutError) {
        let cause = match error {
            CheckoutError::Dial(_) => 0,
            CheckoutError::Timeout { .. } | CheckoutError::StreamTimeout { .. } => 1,
            CheckoutError::WaitersFull { .. } => 2,
            CheckoutError::AtLimit { .. } | CheckoutError::StreamsAtLimit { .. } => 3,
            CheckoutError::BreakerOpen { .. } => 4,
            CheckoutError::Exhausted { .. } => 5,
            // A closed pool; what is added later goes with it.
            _ => 6,
        };
        add(&self.refusals[cause]);
    }

    pub(crate) fn answer(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        add(&self.responses[class.min(CLASSES.len() - 1)]);
    }

    pub(crate) fn accepted(&self) -> u64 {
        read(&self.accepted)
    }

    pub(crate) fn open(&self) -> u64 {
        // The two are read one after the other, so that `finished` may be ahead.
        read(&self.accepted).saturating_sub(read(&self.finished))
    }

    pub(crate) fn retries(&self) -> u64 {
        read(&self.retries)
    }

    pub(crate) fn detours(&self) -> u64 {
        read(&self.detours)
    }

    /// Clients with whom TLS did not come about.
    pub(crate) fn failed_handshakes(&self) -> u64 {
        read(&self.failed_handshakes)
    }

    /// Checkouts that gave no connection, by cause.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CAUSES.into_iter().zip(self.refusals.iter().map(read))
    }

    /// Responses sent, by class of status.
    pub(crate) fn responses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES.into_iter().zip(self.responses.iter().map(read))
    }
}

impl Drop for OpenClient {
    fn drop(&mut self) {
        add(&self.0.finished);
    }
}

fn add(count: &AtomicU64) {
    // Relaxed, and no read-modify-write: a statistic, and only one thread writes it.
    count.store(read(count) + 1, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    // Relaxed: a snapshot.
    count.load(Ordering::Relaxed)
}

const CAUSES: [&str; 7] =
    ["dial", "timeout", "waiters_full", "at_limit", "breaker_open", "exhausted", "closed"];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
