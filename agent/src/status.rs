//! `onenet-agent status`: what this sensor has done and where it stands.

use crate::cli::ConfigArgs;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
pub fn status(args: &StatusArgs) -> Result<(), anyhow::Error> {
    anyhow::bail!("{}: status is not part of this build", args.config.config.display())
}
