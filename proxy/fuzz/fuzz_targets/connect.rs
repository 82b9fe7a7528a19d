//! See `proxy::fuzz::connect`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::connect(data));
