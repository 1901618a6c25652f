//! Hostile input: a short fuzz run over the corpus, in the functions that libFuzzer drives (`tests/fuzz`). Each test
//! prints its figures.

#![expect(clippy::expect_used, reason = "a test stops where it finds what it did not expect")]

mod causes;
mod found;
mod fuzz;
mod kit;
mod tshark;
