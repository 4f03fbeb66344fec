//! Any answer about a name keeps the contract of those who use it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::dns(data));
