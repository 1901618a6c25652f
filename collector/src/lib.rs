//! The centre of the One Network sensors: it verifies what they seal, stores and correlates it, keeps the address
//! inventory and the life of every finding, and feeds the SIEM.
//!
//! Data path: [`ingest`] (gRPC over mutual TLS) → [`store`] (a batch and its flows in one transaction, then the
//! ack) → correlator, which follows the committed batches after a durable cursor → inventory and findings → SIEM
//! feeds, API and web page.

pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod enroll;
pub mod ingest;
pub mod init;
pub mod run;
pub mod sensors;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tls;
