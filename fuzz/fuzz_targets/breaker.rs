//! Breaker, backoff, slow start and retention do what their specifications say.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::breaker(data));
