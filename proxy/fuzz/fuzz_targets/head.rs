//! See `proxy::fuzz::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::head(data));
