//! The adaptive retention: one word.
#![cfg(loom)]

use corepool::model::{Retention, Tick};
use loom::sync::Arc;
use loom_tests::{NOW, model, spawn};

const PERIOD: u32 = 5120;
const LATER: Tick = Tick::from_millis(PERIOD);

/// INV-8: two shards look at the end of a period: one of them closes.
#[test]
fn tick_vs_tick() {
    model(|| {
        let retention = Arc::new(Retention::new(NOW));
        let other = spawn({
            let retention = retention.clone();
            move || retention.tick(LATER, 10, 0, 0, PERIOD)
        });
        let mine = retention.tick(LATER, 10, 0, 0, PERIOD);
        let theirs = other.join().unwrap();
        assert!((mine, theirs) == (5, 0) || (mine, theirs) == (0, 5), "{mine} and {theirs}");
    });
}

/// INV-8: a peak is seen as a period ends: it counts for that period or for the next one.
#[test]
fn observe_vs_tick() {
    model(|| {
        let retention = Arc::new(Retention::new(NOW));
        let other = spawn({
            let retention = retention.clone();
            move || retention.observe(8)
        });
        let closed = retention.tick(LATER, 8, 0, 0, PERIOD);
        other.join().unwrap();
        match closed {
            0 => assert_eq!(retention.estimate(), 8),
            4 => assert_eq!(retention.estimate(), 0),
            closed => panic!("{closed} closed"),
        }
        let next = LATER.after(PERIOD);
        assert_eq!(retention.tick(next, 8, 0, 0, PERIOD), if closed == 0 { 2 } else { 0 });
        assert_eq!(retention.estimate(), if closed == 0 { 4 } else { 8 });
    });
}

/// INV-8: two peaks are seen at once: the higher one stays.
#[test]
fn observe_vs_observe() {
    model(|| {
        let retention = Arc::new(Retention::new(NOW));
        let other = spawn({
            let retention = retention.clone();
            move || retention.observe(8)
        });
        retention.observe(5);
        other.join().unwrap();
        assert_eq!(retention.tick(LATER, 8, 0, 0, PERIOD), 0);
        assert_eq!(retention.estimate(), 8);
    });
}
