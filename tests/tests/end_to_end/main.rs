//! The real programs from packets to the SIEM, on loopback: a collector, its sensors, and what receives from them.

#![expect(clippy::expect_used, clippy::panic, reason = "a test stops where it finds what it did not expect")]

mod bad_input;
mod crash;
mod day;
mod evidence;
mod harness;
mod lab;
mod live;
mod month;
mod page;
mod plan;
mod set_back;
mod store;
mod syslog;
