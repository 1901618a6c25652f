//! The commands of the README: `cargo xtask demo` shows the whole path at work, `cargo xtask test` passes every
//! test, `cargo xtask soak` those of delivery at full size, `cargo xtask bench` measures,
//! `cargo xtask package` makes packages, `cargo xtask repo` repositories of them. They install what is missing first,
//! and say what they do while they do it.

mod bench;
mod collector;
mod demo;
mod deny;
mod ebpf;
mod http;
mod package;
mod programs;
mod repo;
mod setup;
mod soak;
mod test;
mod tool;

use std::{
    path::PathBuf,
    process::{Command as Program, ExitCode},
};

use clap::{Parser, Subcommand};

/// Set-up, demo, tests and benchmarks of the One Network edge sensor.
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
    /// Test delivery at full size: programs killed, bad networks, full disks, a hostile sensor, clocks that are off.
    Soak(soak::Arguments),
    /// Measure how fast the engine is, beside its peers.
    Bench(bench::Arguments),
    /// Make .deb and .rpm packages of both programs, with checksums and bills of materials.
    Package(package::Arguments),
    /// Make apt and dnf repositories from a folder of packages, signed where a key is stated.
    Repo(repo::Arguments),
    /// Build the kernel program's committed objects, or check them.
    #[command(subcommand)]
    Ebpf(ebpf::Action),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Setup => setup::install(setup::Purpose::Tests).map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Repo(arguments) => repo::run(&arguments),
        Command::Ebpf(action) => ebpf::run(&action),
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

/// Cargo, in the workspace. What the cargo that started this program told it of its package is left out: build
/// scripts would take it for a change and build everything anew.
fn cargo() -> Program {
    let mut cargo = Program::new("cargo");
    cargo.current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Folder of what cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Says what is being done, so that nobody waits before a silent terminal.
fn say(what: &str) {
    eprintln!("==> {what}");
}
