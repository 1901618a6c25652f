//! Hostile input: each function takes any bytes whatever, drives one part of the sensor with them as far as it goes,
//! and panics where a promise is broken. libFuzzer drives them without end (`tests/fuzz`), and `cargo xtask test`
//! for a short while (`tests/tests/hostile`).

mod capture;
mod decode;
mod dhcp;
pub mod mutate;
mod packet;
pub mod seeds;
mod sensor;

pub use capture::{pcap, pcapng};
pub use decode::{LINK_TYPES, decode};
pub use dhcp::dhcp;
pub use sensor::sensor;

/// Takes bytes from the front of a fuzzer's input; when nothing is left it gives zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// As many of `length` bytes as there are.
    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
