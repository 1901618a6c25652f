//! The commands of the README: `cargo xtask demo` shows the whole path at work, `cargo xtask test` passes every
//! test. Both install what is missing first, and say what they do while they do it.

mod demo;
mod http;
mod programs;
mod setup;
mod test;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Set-up, demo and tests of the One Network edge sensor.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building, the demo and the tests need (by apt or dnf), and nothing else.
    Setup,
    /// Run both edges and the collector on this machine, and show what reaches the SIEM.
    Demo(demo::Arguments),
    /// Pass every check and test: format, lints, licences, unit, oracle and end-to-end tests.
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Setup => setup::install(setup::Purpose::Tests).map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// Folder of the workspace.
fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or_else(|| manifest.clone(), std::path::Path::to_path_buf)
}

/// Says what is being done, so that nobody waits before a silent terminal.
fn say(what: &str) {
    eprintln!("==> {what}");
}
