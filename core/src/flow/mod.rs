//! Biflows: key, table, TCP state, Community ID, timers.

mod config;
pub mod event;

pub use config::FlowConfig;
pub use event::{FlowContext, FlowEvent, Party};
