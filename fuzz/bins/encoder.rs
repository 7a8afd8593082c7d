//! libFuzzer's entry to the target `encoder`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anel_fuzz::encoder::run(input));
