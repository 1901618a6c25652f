//! Configuration files and address plans, as the agent and the collector read them: whoever wrote one is told the
//! file, the line, the column, the key and what was expected there.

mod document;
mod plan;

pub use document::{ConfigError, Document};
pub use plan::{check_plan, read_plan};

#[cfg(test)]
mod tests;
