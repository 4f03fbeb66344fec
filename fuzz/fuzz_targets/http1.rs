//! Whatever a peer sends, no request gets what was not sent in answer to it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::http1(data));
