//! Any sequence of operations keeps the engine's invariants.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::engine(data));
