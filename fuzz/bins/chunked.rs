//! libFuzzer's entry to the target `chunked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anel_fuzz::chunked::run(input));
