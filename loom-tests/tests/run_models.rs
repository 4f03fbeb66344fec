//! Runs the models as part of a plain `cargo test --workspace`.
//!
//! They need `--cfg loom` for the whole build, so they are built by a cargo of their own, into a
//! target directory of their own.
#![cfg(not(loom))]

use std::{env, ffi::OsString, process::Command};

#[test]
fn every_model_holds() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut models = Command::new(cargo);
    models.current_dir(env!("CARGO_MANIFEST_DIR")).args(["test", "--release"]);
    // Flags in the environment hide those of `.cargo/config.toml`, so `--cfg loom` joins them.
    if let Some(flags) = env::var_os("CARGO_ENCODED_RUSTFLAGS") {
        models.env("CARGO_ENCODED_RUSTFLAGS", joined(flags, "\u{1f}--cfg\u{1f}loom"));
    } else {
        let flags = env::var_os("RUSTFLAGS").unwrap_or_default();
        models.env("RUSTFLAGS", joined(flags, " --cfg loom"));
    }
    if let Some(shared) = env::var_os("CARGO_TARGET_DIR") {
        models.env("CARGO_TARGET_DIR", joined(shared, "/loom"));
    }
    let output = models.output().expect("cargo can be run");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let ran: u32 = stdout.lines().filter_map(passed).sum();
    assert!(output.status.success(), "a model failed\n{stderr}\n{stdout}");
    assert!(ran > 0, "no model ran\n{stderr}\n{stdout}");
    println!("{ran} models hold");
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
