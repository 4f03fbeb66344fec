//! Any PROXY header that we write is read back as what was meant.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::proxy_header(data));
