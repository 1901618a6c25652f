//! Which plan a command is about: a file, or a collector's.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{CliError, Place};

/// A plan by its file, or by the collector that it is of.
#[derive(Debug, Args)]
pub(super) struct PlanPlace {
    /// The plan, instead of a collector's.
    #[arg(conflicts_with_all = ["config", "dir"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

impl PlanPlace {
    /// The plan's file.
    pub(super) fn file(&self) -> Result<PathBuf, CliError> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => Ok(self.place.config()?.plan.file),
        }
    }
}
