//! The slow start: one word.
#![cfg(loom)]

use corepool::model::{Ramp, Tick};
use loom::sync::Arc;
use loom_tests::{NOW, model, spawn};

const WINDOW: u32 = 1000;
const LATER: Tick = Tick::from_millis(WINDOW);

/// INV-8: a window ends as the next one begins: the end of the old one does not end the new one.
#[test]
fn end_vs_start() {
    model(|| {
        let ramp = Arc::new(Ramp::new());
        ramp.start(NOW);
        let other = spawn({
            let ramp = ramp.clone();
            move || ramp.start(LATER)
        });
        let share = ramp.allowed(100, LATER, WINDOW);
        assert!(share == 100 || share == 1, "{share}");
        other.join().unwrap();
        assert_eq!(ramp.allowed(100, LATER, WINDOW), 1, "the new window was ended");
    });
}
