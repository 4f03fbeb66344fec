//! What the tests in `tests/` share.
//!
//! * `--cfg loom`: models of a few steps, each explored in every interleaving. Run
//!   `cargo test --release` in this directory, where that is set.
//! * `--cfg model --cfg shuttle`: the [`scenarios`], in interleavings drawn at random.
//! * `--cfg model`: the same scenarios on std's threads, with or without a sanitizer, and the soak.
//!
//! A plain `cargo test` in the root runs all of them through `tests/run_models.rs`. The commands
//! for one of them are in `tests/shuttle.rs`, `tests/stress.rs` and `tests/soak.rs`.
#![cfg(any(loom, model))]

#[cfg(loom)]
mod models;
#[cfg(model)]
pub mod scenarios;

#[cfg(loom)]
pub use models::*;
