//! The backoff: one word, which holds off for as long as it says (INV-8).
#![cfg(loom)]

use corepool::model::{Backoff, BackoffRules, Tick};
use loom::sync::Arc;
use loom_tests::{NOW, model, spawn};

const RULES: BackoffRules =
    BackoffRules { base_ms: 1000, multiplier_percent: 200, jitter_percent: 0, max_ms: 60_000 };
/// The end of the first wait, if it began at `NOW`.
const LATER: Tick = Tick::from_millis(1000);

/// INV-8: two dials of one step fail: the step is counted once, and both hear the same.
#[test]
fn failure_vs_failure_of_one_step() {
    model(|| {
        let backoff = Arc::new(Backoff::new());
        let other = spawn({
            let backoff = backoff.clone();
            move || backoff.failed(NOW, NOW, &RULES, 0)
        });
        let left = [backoff.failed(NOW, NOW, &RULES, 0), other.join().unwrap()];
        assert_eq!((left, backoff.attempt()), ([1000, 1000], 1), "INV-8");
        assert_eq!(backoff.may_try(NOW), Err(1000), "INV-8");
    });
}

/// INV-8: a dial succeeds as one fails: a series that has ended, or its first failure. Nothing in
/// between, and the end is told once.
#[test]
fn success_vs_failure() {
    model(|| {
        let backoff = Arc::new(Backoff::new());
        backoff.failed(NOW, NOW, &RULES, 0);
        let other = spawn({
            let backoff = backoff.clone();
            move || backoff.succeeded()
        });
        let left = backoff.failed(LATER, LATER, &RULES, 0);
        assert!(other.join().unwrap(), "INV-8: a series ended");
        match left {
            2000 => assert_eq!((backoff.attempt(), backoff.may_try(LATER)), (0, Ok(())), "INV-8"),
            1000 => {
                assert_eq!((backoff.attempt(), backoff.may_try(LATER)), (1, Err(1000)), "INV-8");
            }
            left => panic!("INV-8: {left} ms left"),
        }
    });
}

/// INV-8: a hint comes with a success: one of them ended the series.
#[test]
fn success_vs_hint() {
    model(|| {
        let backoff = Arc::new(Backoff::new());
        backoff.failed(NOW, NOW, &RULES, 0);
        let other = spawn({
            let backoff = backoff.clone();
            move || backoff.reset()
        });
        let mine = backoff.succeeded();
        assert!(mine ^ other.join().unwrap(), "INV-8: told once");
        assert_eq!(backoff.may_try(NOW), Ok(()), "INV-8");
    });
}
