//! `onenet-agent enroll`: makes this sensor's keys and has them certified by a collector.

use crate::cli::ConfigArgs;

/// Arguments of `enroll`.
#[derive(Debug, clap::Args)]
pub struct EnrollArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
pub fn enroll(args: &EnrollArgs) -> Result<(), anyhow::Error> {
    anyhow::bail!("{}: enroll is not part of this build", args.config.config.display())
}
