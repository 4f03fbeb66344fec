//! Runs the models, and the scenarios under shuttle and on std's threads, as part of a plain
//! `cargo test --workspace`.
//!
//! They need cfgs of their own for the whole build, so each is built by a cargo of its own, into a
//! target directory of its own.
#![cfg(not(any(loom, model)))]

use std::{env, ffi::OsString, process::Command};

/// One build of this package.
struct Build {
    /// Its part of the target directory.
    folder: &'static str,
    cfgs: &'static [&'static str],
    tests: &'static [&'static str],
}

#[test]
fn every_model_holds() {
    run(&Build { folder: "loom", cfgs: &["loom"], tests: &[] });
}

#[test]
fn every_schedule_holds() {
    let tests = &["--test", "shuttle"];
    run(&Build { folder: "shuttle", cfgs: &["model", "shuttle"], tests });
}

#[test]
fn every_stress_holds() {
    run(&Build { folder: "model", cfgs: &["model"], tests: &["--test", "stress"] });
}

fn run(build: &Build) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo);
    child.current_dir(env!("CARGO_MANIFEST_DIR")).args(["test", "--release"]).args(build.tests);
    // Flags in the environment hide those of `.cargo/config.toml`, so the cfgs join them.
    if let Some(mut flags) = env::var_os("CARGO_ENCODED_RUSTFLAGS") {
        for cfg in build.cfgs {
            flags = joined(flags, &format!("\u{1f}--cfg\u{1f}{cfg}"));
        }
        child.env("CARGO_ENCODED_RUSTFLAGS", flags);
    } else {
        let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
        for cfg in build.cfgs {
            flags = joined(flags, &format!(" --cfg {cfg}"));
        }
        child.env("RUSTFLAGS", flags);
    }
    let shared = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "../target".into());
    child.env("CARGO_TARGET_DIR", joined(shared, &format!("/{}", build.folder)));
    let output = child.output().expect("cargo can be run");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let ran: u32 = stdout.lines().filter_map(passed).sum();
    assert!(output.status.success(), "one of {} failed\n{stderr}\n{stdout}", build.folder);
    assert!(ran > 0, "none ran\n{stderr}\n{stdout}");
    println!("{}: {ran} hold", build.folder);
}

fn joined(mut first: OsString, second: &str) -> OsString {
    first.push(second);
    first
}

/// How many tests passed, by the last line of a test binary.
fn passed(line: &str) -> Option<u32> {
    let counts = line.strip_prefix("test result: ok. ")?;
    counts.split_once(" passed")?.0.parse().ok()
}
