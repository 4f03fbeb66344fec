//! Any text is settings that survive being written, or an error that names the place.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corepool::fuzz::settings(data));
