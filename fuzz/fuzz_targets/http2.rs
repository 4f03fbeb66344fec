//! Whatever a peer sends, its connection ends with nothing left behind.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::http2(data));
