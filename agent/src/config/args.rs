//! The argument that every command with a configuration has.

use std::path::PathBuf;

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/onenet/agent.toml")]
    pub config: PathBuf,
}
