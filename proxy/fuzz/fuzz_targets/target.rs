//! See `proxy::fuzz::target`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::target(data));
