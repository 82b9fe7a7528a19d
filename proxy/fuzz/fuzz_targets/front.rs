//! See `proxy::fuzz::front`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::front(data));
