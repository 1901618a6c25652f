//! `cargo xtask test`: every check and every test, in the order in which a failure costs least.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::{bench, deny, ebpf, package, say, setup, target};

/// What to leave out, where a developer is in a hurry.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only the tests: no format, lint or licence check.
    #[arg(long)]
    tests_only: bool,
}

/// Installs what is missing and runs everything.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::install(setup::Purpose::Tests)?;
    if !arguments.tests_only {
        cargo(&["fmt", "--all", "--check"])?;
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"])?;
        deny::check()?;
        ebpf::check_if_possible()?;
    }
    // The end-to-end tests start the real programs, so these are built first.
    cargo(&["build", "--workspace", "--all-targets", "--locked"])?;
    let programs = target().join("debug");
    run_cargo(&["test", "--workspace", "--locked", "--no-fail-fast"], |cargo| {
        cargo.env("ONENET_PROGRAMS", &programs)
    })?;
    // Last, because the programs are built once more for it, as they are shipped.
    let shipped = package::check()?;
    if !bench::within_budget(&shipped.join("onenet-agent"))? {
        bail!("more instructions per packet than the budget allows");
    }
    Ok(ExitCode::SUCCESS)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run_cargo(arguments, |cargo| cargo)
}

fn run_cargo(arguments: &[&str], prepare: impl Fn(&mut Command) -> &mut Command) -> Result<()> {
    let line = format!("cargo {}", arguments.join(" "));
    say(&line);
    let mut cargo = crate::cargo();
    let status = prepare(cargo.args(arguments)).status().with_context(|| format!("cannot run {line}"))?;
    if status.success() { Ok(()) } else { bail!("{line} failed ({status})") }
}
