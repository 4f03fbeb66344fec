//! The scenarios on std's threads, over and over for a while, each time from another seed.
//!
//! ```text
//! RUSTFLAGS="--cfg model" CARGO_TARGET_DIR=../target/model cargo test --release --test stress
//! ```
//! `STRESS_MILLIS` is how long each scenario goes on (700 unless set), `STRESS_SEED` the first seed.
//! What chance decides comes back with its seed; what the machine decides does not. `.ci/sanitizers`
//! runs the same under ThreadSanitizer and AddressSanitizer.
#![cfg(all(model, not(shuttle)))]

use std::{
    env,
    io::{Write, stderr},
    panic::{catch_unwind, resume_unwind},
    process,
    str::FromStr,
    time::{Duration, Instant},
};

use loom_tests::scenarios::{Report, SCENARIOS, Size};

fn from_env<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn stress(name: &str) {
    let (_, play) = SCENARIOS.iter().find(|(of, _)| *of == name).expect("a scenario");
    let first: u64 = from_env("STRESS_SEED", 1);
    let began = Instant::now();
    let length = Duration::from_millis(from_env("STRESS_MILLIS", 700));
    let mut report = Report::default();
    let mut runs = 0;
    while runs == 0 || began.elapsed() < length {
        let scale = 1 + (runs % 3) as u32;
        let size = Size { shards: 2, callers: 4, operations: 200 << (runs % 3), scale };
        let seed = first + runs;
        match catch_unwind(|| play.run(size, seed)) {
            Ok(more) => report += more,
            Err(failure) => {
                eprintln!("{name}: the run of seed {seed} failed after {:?}", began.elapsed());
                // The mutation script asks one question of many tests: does any of them fail?
                if env::var_os("MODELS_FAIL_FAST").is_some() {
                    // Not by `eprintln`, which the test harness keeps to itself.
                    let _ = stderr().write_all(format!("RED {name}\n").as_bytes());
                    process::exit(1);
                }
                resume_unwind(failure);
            }
        }
        runs += 1;
    }
    assert!(report.opened > 0 && report.reused > 0, "nothing happened: {report:?}");
    println!("{name}: {runs} runs, {} operations, {report:?}", report.operations);
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            stress(stringify!($name));
        })*

        #[test]
        fn none_is_left_out() {
            let names: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

scenarios! {
    reuse reuse_lifo queue dials death limits hold evict totals breaker close everything streams
}
