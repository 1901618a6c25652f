//! The SIEM feeds: every finding change, and flow records where wanted, to a file and to a syslog receiver, each
//! from a durable cursor of its own. Delivery is at least once: a cursor moves after the events are written, so a
//! kill in between sends them again, with the same event id.
//!
//! Conversions (`ecs`, `flow_event`, `rfc5424`) are pure; `file` and `syslog` write; `feed` moves the cursors.

mod config;
mod ecs;
mod feed;
mod file;
mod flow_event;
mod output;
mod rfc5424;
mod syslog;
#[cfg(test)]
mod tests;

pub use config::{FileConfig, MessageText, SiemConfig, SyslogConfig};
pub(crate) use feed::{Feed, run};
