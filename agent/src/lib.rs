//! The sensor of one edge: reads packets from a file or the wire, drives the engine of `onenet-core` with
//! them, and writes its records to files (`read`) or ships them in signed batches to a collector (`run`).

pub mod check_config;
pub mod cli;
pub mod config;
pub mod enroll;
pub mod error;
mod explain;
mod intake;
pub mod interfaces;
mod interrupt;
mod keys;
mod metrics;
mod output;
mod plan;
mod progress;
pub mod read;
#[cfg(test)]
mod records_doc;
pub mod run;
#[cfg(test)]
mod samples;
mod ship;
pub mod source;
mod spool;
pub mod spool_command;
pub mod status;
mod summary;
mod tally;
mod tls;
