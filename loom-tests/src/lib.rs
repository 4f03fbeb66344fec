//! The models are in `tests/`; run `cargo test --release` here, where `--cfg loom` is set.
