//! Hostile input: a short fuzz run in the functions that libFuzzer drives (`tests/fuzz`), mutated packets against
//! tshark, ways past a monitor, bad captures, and the work that one packet can cost. Each test prints its figures.

#![expect(clippy::expect_used, reason = "a test stops where it finds what it did not expect")]

mod bad_input;
mod causes;
mod evasion;
mod found;
mod fuzz;
mod kit;
mod tshark;
mod work;
