//! `onenet-agent run`: reads the sources, seals and ships.

use crate::cli::ConfigArgs;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<(), anyhow::Error> {
    anyhow::bail!("{}: run is not part of this build", args.config.config.display())
}
