//! The scenarios under shuttle: thousands of steps, in schedules drawn at random, and by PCT, which
//! keeps to priorities that change at a few points (Burckhardt et al., ASPLOS 2010).
//!
//! ```text
//! export RUSTFLAGS="--cfg model --cfg shuttle" CARGO_TARGET_DIR=../target/shuttle
//! cargo test --release --test shuttle
//! ```
//! `SHUTTLE_SCHEDULES` is how many of each scenario are tried in each size under each of the two
//! schedulers (1000 unless set), `SHUTTLE_SEED` where they begin (at random unless set). A schedule
//! that fails is written to a file, whose name is printed. It runs again with
//!
//! ```text
//! SHUTTLE_REPLAY=FILE cargo test --release --test shuttle -- --exact --nocapture long::queue
//! ```
#![cfg(shuttle)]

use std::{
    env,
    io::{Write, stderr},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    process,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use loom_tests::scenarios::{SCENARIOS, Size};
use shuttle::{
    Config, FailurePersistence, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler},
};

/// Two drivers, three callers and, in some, an owner.
const LONG: Size = Size { shards: 2, callers: 3, operations: 12, scale: 1 };
/// One driver and two callers: a rare order of a few steps is likelier to come up.
const SHORT: Size = Size { shards: 1, callers: 2, operations: 8, scale: 1 };

/// Points at which PCT changes its mind. A bug of depth d is one that d ordered steps show; most
/// have two or three.
const DEPTH: usize = 4;

/// More than any run needs: who takes so many steps waits for something that does not come.
const STEPS: usize = 400_000;

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 0x4_0000;
    config.failure_persistence =
        FailurePersistence::File(Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))));
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    config
}

fn explore(name: &'static str, size: Size) {
    let (_, play) = SCENARIOS.iter().find(|(of, _)| *of == name).expect("a scenario");
    let body = move || drop(play.run(size, 0));
    if let Some(file) = from_env::<String>("SHUTTLE_REPLAY") {
        // As it was recorded, so that it meets the same limits.
        let replay = ReplayScheduler::new_from_file(file).expect("a schedule can be read");
        let mut config = config();
        config.failure_persistence = FailurePersistence::None;
        Runner::new(replay, config).run(body);
        return;
    }
    let (seed, schedules) = (from_env("SHUTTLE_SEED"), from_env("SHUTTLE_SCHEDULES"));
    let schedules = schedules.unwrap_or(1000);
    let random = match seed {
        Some(seed) => RandomScheduler::new_from_seed(seed, schedules),
        None => RandomScheduler::new(schedules),
    };
    check(name, "random", random, body);
    let pct = match seed {
        Some(seed) => PctScheduler::new_from_seed(seed, DEPTH, schedules),
        None => PctScheduler::new(DEPTH, schedules),
    };
    check(name, "pct", pct, body);
}

fn check(
    name: &str,
    how: &str,
    scheduler: impl Scheduler + 'static,
    body: impl Fn() + Copy + Send + Sync + 'static,
) {
    let schedules = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&schedules);
    let runner = Runner::new(scheduler, config());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            count.fetch_add(1, Ordering::Relaxed);
            body();
        })
    }));
    let schedules = schedules.load(Ordering::Relaxed);
    if let Err(failure) = outcome {
        eprintln!("{name}, {how}: schedule {schedules} failed");
        // The mutation script asks one question of many tests: does any of them fail?
        if env::var_os("MODELS_FAIL_FAST").is_some() {
            // Not by `eprintln`, which the test harness keeps to itself.
            let _ = stderr().write_all(format!("RED {name}\n").as_bytes());
            process::exit(1);
        }
        resume_unwind(failure);
    }
    println!("{name}, {how}: {schedules} schedules");
    assert!(schedules > 0, "no schedule was tried");
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        mod long {
            $(#[test]
            fn $name() {
                super::explore(stringify!($name), super::LONG);
            })*
        }

        mod short {
            $(#[test]
            fn $name() {
                super::explore(stringify!($name), super::SHORT);
            })*
        }

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
