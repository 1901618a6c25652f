//! See `onenet_tests::fuzz::sensor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onenet_tests::fuzz::sensor(bytes));
