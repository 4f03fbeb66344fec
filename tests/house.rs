//! The rules of the house that a compiler does not check, read off the source.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(under: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(under)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    assert!(!files.is_empty(), "no sources under {under}");
    files
}

/// Code only: comments may name anything.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(|line| line.split("//").next().unwrap_or(line)))
}

fn forbid(under: &str, names: &[&str], allowed: impl Fn(&Path) -> bool, rule: &str) {
    for (path, text) in sources(under).iter().filter(|(path, _)| !allowed(path)) {
        for (number, line) in code(text) {
            for name in names {
                assert!(!line.contains(name), "{}:{number}: {rule}: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_engine_does_no_io_and_knows_nothing_above_it() {
    let names = [
        "tokio",
        "nix::",
        "io_uring",
        "std::net",
        "std::thread",
        "std::io",
        "Instant",
        "async ",
        "crate::backend",
        "crate::pool",
        "crate::worker",
        "crate::group",
        "crate::connector",
    ];
    let oracle = |path: &Path| path.to_string_lossy().contains("engine/oracle");
    forbid("src/engine", &names, oracle, "the engine is sans-I/O");
}

#[test]
fn drivers_know_nothing_of_the_pool() {
    let names = ["crate::pool", "crate::worker", "crate::group", "crate::builder"];
    forbid("src/backend", &names, |_| false, "imports go one way");
}

#[test]
fn shared_state_goes_through_the_shim() {
    let names =
        ["std::sync::atomic", "core::sync::atomic", "loom::", "shuttle::", "std::sync::Mutex"];
    let shim = |path: &Path| path.ends_with("src/sync.rs");
    forbid("src", &names, shim, "only sync.rs names std's, loom's or shuttle's atomics");
}

#[test]
fn no_lock_is_taken_but_by_the_registry_and_for_names() {
    let allowed = |path: &Path| {
        ["pool.rs", "inner.rs", "resolve/shared.rs"].iter().any(|file| path.ends_with(file))
    };
    forbid("src", &["Mutex", "RwLock"], allowed, "there is no lock on a checkout's path");
}

#[test]
fn one_place_reads_the_clock_and_one_makes_threads() {
    let clock = |path: &Path| path.ends_with("src/clock.rs");
    forbid("src", &["Instant::now()"], clock, "time is an argument; crate::clock reads it");
    let builder = |path: &Path| path.ends_with("src/builder.rs");
    forbid("src", &["thread::spawn", "thread::Builder"], builder, "the builder makes threads");
}

#[test]
fn unsafe_stands_only_in_the_slot_and_the_ring_driver() {
    let allowed = |path: &Path| {
        let text = path.to_string_lossy();
        text.contains("src/engine/slot.rs") || text.contains("src/backend/uring")
    };
    forbid("src", &["unsafe ", "allow(unsafe_code)"], allowed, "unsafe has two homes");
}

#[test]
fn no_file_has_outgrown_its_idea() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines: split it", path.display());
    }
}
