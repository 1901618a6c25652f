//! The meter in the kernel: an eBPF program (`program/`, in C, with its object) that counts the packets of an interface
//! by flow and punts those that user space must see, and what loads it, drains it and accounts for every packet.
//!
//! ```no_run
//! use onenet_core::decode::InterfaceIndex;
//! use onenet_ebpf::{Meter, Options};
//!
//! # fn main() -> Result<(), onenet_ebpf::EbpfError> {
//! let mut meter = Meter::open(&Options::new("eth0", InterfaceIndex(0)))?;
//! meter.punts(&mut |punt| println!("{:?}", punt.kind)); // often
//! meter.drain(&mut |delta| println!("{delta:?}"))?; // once per interval, after the punts
//! # Ok(())
//! # }
//! ```

pub mod bench;
mod counters;
mod drain;
mod error;
mod hooks;
mod layout;
mod load;
mod meter;
mod options;
mod probe;
mod promiscuous;
mod rings;
mod sys;

pub use counters::{Count, Counters, OddReason};
pub use drain::Drained;
pub use error::EbpfError;
pub use hooks::{Hook, HookState};
pub use meter::{Fill, Meter, Runner};
pub use options::{Clock, HookChoice, Mirror, Options, Rates};
pub use promiscuous::Promiscuous;
pub use rings::{Kind, Punt};
pub use sys::TestContext;
