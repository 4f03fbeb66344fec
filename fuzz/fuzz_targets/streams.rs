//! The table of streams does what a plain account says, whatever callers, peers and owners do.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::streams(data));
