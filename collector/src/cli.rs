//! The command line: what each subcommand takes, and the exit codes. 2 stands for usage and configuration, 1 for
//! everything else that fails.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use onenet_proto::{config::ConfigError, owner::as_owner_of};

use crate::{
    audit,
    config::Config,
    cosign_key, enroll, evidence, findings, flows, init, inventory, overlaps, plan, run as running, sensors,
    store::{Store, StoreError},
};

/// Verifies, stores and correlates what the One Network sensors seal, and feeds the SIEM.
#[derive(Debug, Parser)]
#[command(name = "onenet-collector", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a collector's directory: certificate authority, keys, configuration and an example of a plan.
    Init(init::InitArgs),
    /// Take what sensors deliver, until SIGTERM.
    Run(running::RunArgs),
    /// Make a token by which a sensor enrols.
    Token(enroll::TokenArgs),
    /// Show the sensors, or revoke one.
    Sensors(sensors::SensorsArgs),
    /// Show the collector's own key, or make a new one.
    CosignKey(cosign_key::CosignKeyArgs),
    /// Check an address plan.
    Plan(plan::PlanArgs),
    /// Show every inside address seen in use, by address space; dark claims with --dark.
    Inventory(inventory::InventoryArgs),
    /// Show addresses and prefixes that are in use or claimed twice.
    Overlaps(overlaps::command::OverlapsArgs),
    /// Show what must be acted on.
    Findings(findings::FindingsArgs),
    /// Look for flow records.
    Flows(flows::FlowsArgs),
    /// Check that what is stored, or a bundle, is what the sensors sealed: all of it, unchanged, in its order.
    Verify(evidence::command::VerifyArgs),
    /// Write a bundle of evidence that a third party verifies with `verify BUNDLE`.
    Export(evidence::export::ExportArgs),
    /// Show the audit trail: what operators did with this collector, and what happened to its sensors.
    Audit(audit::AuditArgs),
}

/// Which collector a command is about.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Configuration file.
    #[arg(long, value_name = "FILE", conflicts_with = "dir", default_value = "/etc/onenet/collector.toml")]
    config: PathBuf,
    /// Directory made by `init`; short for --config DIR/collector.toml.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    /// The configuration.
    pub fn config(&self) -> Result<Config, CliError> {
        Ok(self.config_file()?.1)
    }

    /// The configuration and the file it was read from.
    pub fn config_file(&self) -> Result<(PathBuf, Config), CliError> {
        let file = self.dir.as_ref().map_or_else(|| self.config.clone(), |dir| dir.join("collector.toml"));
        let config = Config::read(&file)?;
        Ok((file, config))
    }

    /// The configuration and the store beside a collector that may be running.
    pub fn store(&self) -> Result<(Config, Store), CliError> {
        let config = self.config()?;
        let store = as_owner_of(&config.store.directory, || Store::attach(&config.store))?;
        Ok((config, store))
    }
}

/// How a command prints its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON array.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
}

/// Why a command failed, with its exit code.
#[derive(Debug)]
pub struct CliError {
    code: u8,
    error: anyhow::Error,
}

impl CliError {
    /// What the command line or a configuration says cannot be done: exit code 2.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// The exit code.
    #[cfg(test)]
    pub(crate) const fn code(&self) -> u8 {
        self.code
    }

    /// Something failed: exit code 1.
    pub fn failure(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 1, error: error.into() }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::failure(error)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::failure(error)
    }
}

/// The command line as data, for the manual pages and the completions of shells.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process and gives its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("onenet-collector: {error}");
            ExitCode::from(error.code)
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Init(args) => init::run(&args),
        Command::Run(args) => running::run(&args),
        Command::Token(args) => enroll::run_token(&args),
        Command::Sensors(args) => sensors::run(&args),
        Command::CosignKey(args) => cosign_key::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Inventory(args) => inventory::run(&args),
        Command::Overlaps(args) => overlaps::command::run(&args),
        Command::Findings(args) => findings::run(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Verify(args) => evidence::command::run(&args),
        Command::Export(args) => evidence::export::run(&args),
        Command::Audit(args) => audit::run(&args),
    }
}

/// Writes standard output; a reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::failure(error)),
        _ => Ok(()),
    }
}

/// Success where there is none; else exit code 1 and how many there are, for scripts.
pub(crate) fn none_or_fail(count: u64, one: &str, many: &str) -> Result<(), CliError> {
    match count {
        0 => Ok(()),
        1 => Err(CliError::failure(anyhow::anyhow!("1 {one}"))),
        _ => Err(CliError::failure(anyhow::anyhow!("{count} {many}"))),
    }
}

/// The path as people read it in a message.
pub fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
