//! libFuzzer's entry to the target `head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anel_fuzz::head::run(input));
