//! The rules of the house that a compiler does not check, read off the source.

use std::{
    collections::{BTreeMap, BTreeSet},
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
        ["pool.rs", "inner.rs", "seats.rs", "resolve/shared.rs"]
            .iter()
            .any(|file| path.ends_with(file))
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
fn unsafe_stands_only_in_the_slots_and_the_ring_driver() {
    let allowed = |path: &Path| {
        let text = path.to_string_lossy();
        ["src/engine/slot.rs", "src/engine/streams/cell.rs", "src/backend/uring"]
            .iter()
            .any(|home| text.contains(home))
    };
    forbid("src", &["unsafe ", "allow(unsafe_code)"], allowed, "unsafe has three homes");
}

#[test]
fn no_file_has_outgrown_its_idea() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines: split it", path.display());
    }
}

/// The models of `loom-tests`, as `file::model`, with the words that stand above each.
fn models() -> Vec<(String, String)> {
    let mut found = Vec::new();
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join("loom-tests").exists() {
        return found; // a published package
    }
    for (path, text) in sources("loom-tests/tests") {
        if !text.contains("#![cfg(loom)]") {
            continue;
        }
        let file = path.file_stem().unwrap().to_string_lossy();
        let (mut words, mut is_test) = (String::new(), false);
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("/// ") {
                words.push_str(comment);
                words.push(' ');
            } else if line == "#[test]" {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("fn ")
                && is_test
            {
                let name = rest.split('(').next().unwrap();
                found.push((format!("{file}::{name}"), words.split_off(0)));
                is_test = false;
            } else {
                words.clear();
            }
        }
    }
    found
}

/// The invariants that a model's words begin with: "INV-1, INV-6: ...".
fn labels(words: &str) -> BTreeSet<u32> {
    let (labels, _) = words.split_once(": ").unwrap_or_default();
    labels.split(", ").filter_map(|label| label.strip_prefix("INV-")?.parse().ok()).collect()
}

#[test]
fn every_model_begins_with_its_invariants() {
    for (model, words) in models() {
        assert!(!labels(&words).is_empty(), "{model}: {words:?}");
    }
}

#[test]
fn every_race_of_the_design_page_has_models_of_its_invariants() {
    let design = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/design.rs"));
    let design = design.unwrap();
    let models: BTreeMap<_, _> = models().into_iter().collect();
    if models.is_empty() {
        return; // a published package
    }
    let (_, table) = design.split_once("| race | INV | outcome | models |\n").unwrap();
    let rows = table.lines().skip(1).map_while(|line| line.strip_prefix("//! | "));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        let [race, invariants, _, named] = cells[..] else { panic!("not four cells: {row}") };
        let promised: BTreeSet<u32> =
            invariants.split(", ").map(|number| number.parse().unwrap()).collect();
        let mut covered = BTreeSet::new();
        for model in named.trim_end_matches(" |").split(", ") {
            let words = models.get(model.trim_matches('`'));
            let words = words.unwrap_or_else(|| panic!("{race}: no model is called {model}"));
            covered.extend(labels(words));
        }
        assert!(covered.is_superset(&promised), "{race}: {promised:?} of {covered:?}");
        count += 1;
    }
    assert!(count >= 37, "only {count} races");
}
