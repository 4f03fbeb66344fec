//! Any text is an endpoint that survives being written, or an error that names it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::endpoint(data));
