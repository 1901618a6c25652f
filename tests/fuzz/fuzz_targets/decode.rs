//! See `onenet_tests::fuzz::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onenet_tests::fuzz::decode(bytes));
