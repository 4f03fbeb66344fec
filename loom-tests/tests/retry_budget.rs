//! The retry budget.
#![cfg(loom)]

use corepool::model::RetryBudget;
use loom_tests::{model, spawn};

/// INV-8: no attempt is lost: two failures and two successes, none at a bound, add up.
#[test]
fn failure_vs_success() {
    model(|| {
        let budget = RetryBudget::new(4, 300);
        budget.on_failure();
        let other = spawn({
            let budget = budget.clone();
            move || {
                budget.on_failure();
                budget.on_success();
            }
        });
        budget.on_failure();
        budget.on_success();
        other.join().unwrap();
        assert_eq!(budget.level(), 4000 - 3 * 1000 + 2 * 300);
        assert!(!budget.may_retry(), "below half");
    });
}

/// INV-8: a success at a full bucket and a failure: one of their two orders, nothing in between.
#[test]
fn failure_vs_success_when_full() {
    model(|| {
        let budget = RetryBudget::new(2, 300);
        let other = spawn({
            let budget = budget.clone();
            move || budget.on_success()
        });
        budget.on_failure();
        other.join().unwrap();
        let level = budget.level();
        assert!([1000, 1300].contains(&level), "{level}");
    });
}

/// INV-8: two failures of an almost empty bucket: it ends empty, not below.
#[test]
fn failure_vs_failure_when_empty() {
    model(|| {
        let budget = RetryBudget::new(1, 300);
        let other = spawn({
            let budget = budget.clone();
            move || budget.on_failure()
        });
        budget.on_failure();
        other.join().unwrap();
        assert_eq!(budget.level(), 0);
    });
}
