//! `cargo xtask bench`: how fast the engine is, beside its peers and beside the floor.
//!
//! `flows` makes captures, runs peers and the agent in turn on the same files, prints the tables and writes them into
//! docs/benchmarks.md. `micro` runs the criterion benchmarks. `budget` counts instructions and holds them against the
//! committed budget.

mod budget;
mod captures;
mod check;
mod delivery;
pub(crate) mod document;
mod ebpf;
mod flows;
mod ipam;
mod measure;
mod peers;
mod relp;
mod rounds;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};

pub(crate) use budget::within as within_budget;

use crate::{say, target};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Peers and the agent in turn on the same captures: processor time, peak memory, ratios.
    Flows(flows::Arguments),
    /// The criterion benchmarks of the engine's parts.
    Micro,
    /// Instructions per packet, against the committed budget.
    Budget(budget::Arguments),
    /// The kernel's meter beside the least that one can do, and user space by eBPF and by libpcap (needs root).
    Ebpf(ebpf::Arguments),
    /// Sealed flows a second from spool to commit, beside rsyslog with RELP and TLS.
    Delivery(delivery::Arguments),
    /// The size that the side of addresses must hold: edge memory, judging everything by a changed plan, import.
    Ipam(ipam::Arguments),
    /// `flows`, `micro` and `budget`.
    All(flows::Arguments),
    /// One run of one program; the other commands use it.
    #[command(hide = true)]
    Measure(measure::Arguments),
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Flows(arguments) => flows::run(arguments),
        What::Micro => micro(),
        What::Budget(arguments) => budget::run(arguments),
        What::Ebpf(arguments) => ebpf::run(arguments),
        What::Delivery(arguments) => delivery::run(arguments),
        What::Ipam(arguments) => ipam::run(arguments),
        What::All(arguments) => {
            let outcomes = [budget::run(&budget::Arguments::default())?, flows::run(arguments)?, micro()?];
            let failed = outcomes.iter().any(|code| *code != ExitCode::SUCCESS);
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        What::Measure(arguments) => measure::run(arguments),
    }
}

fn micro() -> Result<ExitCode> {
    cargo(&["bench", "--package", "onenet-tests", "--bench", "engine", "--locked"])?;
    Ok(ExitCode::SUCCESS)
}

/// Builds programs, each named with its package, as they are shipped; tells the folder they are in.
fn build(programs: &[(&str, &str)]) -> Result<PathBuf> {
    let named = programs.iter().flat_map(|(package, program)| ["--package", package, "--bin", program]);
    cargo(&["build", "--release", "--locked"].into_iter().chain(named).collect::<Vec<_>>())?;
    Ok(target().join("release"))
}

fn cargo(words: &[&str]) -> Result<()> {
    let line = format!("cargo {}", words.join(" "));
    say(&line);
    let status = crate::cargo().args(words).status().with_context(|| format!("cannot run {line}"))?;
    if status.success() { Ok(()) } else { bail!("{line} failed ({status})") }
}

/// A folder for captures and what programs write, below the build's.
fn folder() -> Result<PathBuf> {
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
