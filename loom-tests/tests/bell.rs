//! The bell: what a pooled HTTP/1 connection is polled by (INV-5).
#![cfg(loom)]

use std::{future::poll_fn, task::Poll};

use corepool::model::Bell;
use loom::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use loom_tests::{model, spawn};

/// A bell that was answered, and the word that it is rung for.
fn silent() -> Arc<(Bell, AtomicU32)> {
    let bell = Bell::rung();
    assert!(bell.answer() && !bell.answer(), "one answer to a ring");
    Arc::new((bell, AtomicU32::new(0)))
}

fn ring(shared: &Arc<(Bell, AtomicU32)>) -> impl FnOnce() + Send + 'static {
    let shared = Arc::clone(shared);
    move || {
        // Relaxed: the bell is what orders it.
        shared.1.fetch_add(1, Ordering::Relaxed);
        shared.0.ring();
    }
}

/// Waits, as one who has to be woken, until the bell was answered and the word is this.
fn wait_for(shared: &(Bell, AtomicU32), wanted: u32) {
    let (bell, word) = shared;
    block_on(poll_fn(|cx| {
        loop {
            if bell.answer() && word.load(Ordering::Relaxed) == wanted {
                return Poll::Ready(());
            }
            if bell.listen(cx.waker()) {
                return Poll::Pending;
            }
        }
    }));
}

/// INV-5: a ring as one begins to listen: it is seen, or heard, and with it what it was rung for.
#[test]
fn ring_vs_listen() {
    model(|| {
        let shared = silent();
        let ringer = spawn(ring(&shared));
        wait_for(&shared, 1);
        ringer.join().unwrap();
        assert!(!shared.0.is_rung(), "INV-5: answered once");
    });
}

/// INV-5: two ring at once: one answer may do for both, and none is lost.
#[test]
fn ring_vs_ring() {
    model(|| {
        let shared = silent();
        let ringers = [spawn(ring(&shared)), spawn(ring(&shared))];
        wait_for(&shared, 2);
        for ringer in ringers {
            ringer.join().unwrap();
        }
    });
}

/// INV-5: a ring as the one who heard it lets go: the next one to listen sees it.
#[test]
fn ring_vs_hush() {
    model(|| {
        let shared = silent();
        // Somebody listens, and gives up.
        block_on(poll_fn(|cx| Poll::Ready(shared.0.listen(cx.waker()))));
        let ringer = spawn(ring(&shared));
        shared.0.hush();
        wait_for(&shared, 1);
        ringer.join().unwrap();
    });
}
