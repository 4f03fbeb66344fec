//! A soak: as many operations of the engine as `SOAK_OPERATIONS` says (1e8 unless set), on all
//! cores, with what a run checks checked after each of some ten parts.
//!
//! ```text
//! RUSTFLAGS="--cfg model" CARGO_TARGET_DIR=../target/model \
//!     cargo test --release --test soak -- --ignored --nocapture
//! ```
#![cfg(all(model, not(shuttle)))]

use std::{env, thread, time::Instant};

use loom_tests::scenarios::{Report, Size, run, soak};

#[test]
#[ignore = "takes minutes; `.ci/sanitizers` and a plain test run shorter ones"]
fn all_holds_after_as_many_operations_as_asked() {
    let wanted: f64 = env::var("SOAK_OPERATIONS")
        .map_or(1e8, |text| text.parse().expect("SOAK_OPERATIONS is a number, 1e8 for instance"));
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let callers = 2 * cores;
    let seed = env::var("SOAK_SEED").map_or(1, |text| text.parse().expect("SOAK_SEED: a number"));
    // A caller's turn is two operations or more: a checkout and a return.
    let operations = (wanted / (20 * callers) as f64).ceil() as usize;
    let size = Size { shards: cores as u16, callers, operations, scale: 16 };
    let began = Instant::now();
    let mut report = Report::default();
    let mut part = 0;
    while (report.operations as f64) < wanted {
        report += run(&soak(size), seed + part);
        part += 1;
        let seconds = began.elapsed().as_secs_f64();
        println!("part {part}: {} operations, {seconds:.1} s", report.operations);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{cores} cores, {callers} callers, {cores} drivers, an owner; every invariant holds");
    println!("{} operations in {seconds:.1} s", report.operations);
    let Report { opened, reused, stolen, dial_failures, closed, events, .. } = report;
    println!("opened {opened}, reused {reused}, stolen {stolen}, failed dials {dial_failures}");
    println!("closed {closed:?}\nevents {events:?}");
    assert_eq!(opened, closed.values().sum::<u64>(), "INV-9");
}
