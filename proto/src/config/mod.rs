//! Configuration files and address plans, as the agent and the collector read them: whoever wrote one is told the
//! file, the line, the column, the key and what was expected there.

mod document;
mod imported;
mod plan;

pub use document::{ConfigError, Document};
pub use imported::{
    ImportHeader, add_imports, import_of, imports_of, list_imports, read_import, write_import,
};
pub use plan::{check_plan, read_plan};

#[cfg(test)]
mod tests;
