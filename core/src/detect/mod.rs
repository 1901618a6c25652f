//! Rules: flows and observations in, findings out.

mod config;

pub use config::DetectConfig;
