//! The command line: what can be asked for, and which file answers.

use std::{io::Write, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::{check_config, config::ConfigArgs, enroll, error, interfaces, read, run, spool_command, status};

/// Sensor of one edge: packets in, flow records, address observations and findings out.
#[derive(Debug, Parser)]
#[command(name = "onenet-agent", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read captures: flows, address observations, findings and a summary, without a collector
    Read(read::ReadArgs),
    /// Validate a configuration and its address plan, and say what `run` will do
    CheckConfig(ConfigArgs),
    /// List the network interfaces of this host
    Interfaces(ListArgs),
    /// Read the sources and ship signed batches to the collector, until told to stop
    Run(run::RunArgs),
    /// Make this sensor's keys and have the collector certify them
    Enroll(enroll::EnrollArgs),
    /// Say what this sensor has done and where it stands
    Status(status::StatusArgs),
    /// Look into the disk queue: what waits, whether it is sound; also while the agent runs
    Spool(spool_command::SpoolArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    format: ListFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    Table,
    Json,
}

/// The command line as data, for the manual pages and the completions of shells.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    error::finish(dispatch(cli.command))
}

fn dispatch(command: Command) -> Result<(), anyhow::Error> {
    match command {
        Command::Read(args) => read::read(&args),
        Command::CheckConfig(args) => to_stdout(|out| check_config::check(&args.config, out)),
        Command::Interfaces(args) => to_stdout(|out| interfaces::list(args.format == ListFormat::Json, out)),
        Command::Run(args) => run::run(&args),
        Command::Enroll(args) => enroll::enroll(&args),
        Command::Status(args) => status::status(&args),
        Command::Spool(args) => to_stdout(|out| spool_command::spool(&args, out)),
    }
}

/// Runs a command that writes to standard output; a reader that has gone is no failure.
fn to_stdout(command: impl FnOnce(&mut dyn Write) -> Result<(), anyhow::Error>) -> Result<(), anyhow::Error> {
    let mut out = std::io::stdout().lock();
    let result = command(&mut out).and_then(|()| Ok(out.flush()?));
    match result {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
