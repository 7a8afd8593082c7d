//! libFuzzer's entry to the target `connection`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anel_fuzz::connection::run(input));
