//! The centre of the One Network sensors: it verifies what they seal, stores and correlates it, keeps the address
//! inventory and the life of every finding, and feeds the SIEM.
//!
//! Data path: [`ingest`] (gRPC over mutual TLS) → [`store`] (a batch and its flows in one transaction, then the
//! ack) → correlator, which follows the committed batches after a durable cursor → inventory and findings → SIEM
//! feeds, API and web page.

mod api;
mod audit;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
mod correlate;
mod cosign_key;
pub mod custody;
pub mod enroll;
mod evidence;
mod files;
mod findings;
mod flows;
pub mod follow;
pub mod ingest;
pub mod init;
mod inventory;
mod overlaps;
mod plan;
mod render;
mod retain;
pub mod run;
mod search;
#[cfg(test)]
mod seed;
pub mod sensors;
pub mod siem;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tls;
mod uses;
mod watchdog;
mod web;
