//! See `onenet_tests::fuzz::pcapng`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onenet_tests::fuzz::pcapng(bytes));
