//! `cargo xtask soak`: the tests of delivery at full size, with the programs as they are shipped, and their figures in
//! one table.

use std::{
    io::{BufRead as _, BufReader},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{say, setup, target};

/// The cases, by the names of their files in tests/tests/soak.
const CASES: [&str; 8] = ["acks", "ahead", "clock", "disk", "hostile", "kill", "network", "several"];

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cases to run; all of them where none is named.
    #[arg(value_name = "CASE", value_parser = clap::builder::PossibleValuesParser::new(CASES))]
    cases: Vec<String>,
    /// The sizes of `cargo xtask test` instead of the full ones.
    #[arg(long)]
    small: bool,
    /// Size of each case, in its own unit (docs/delivery-tests.md), instead of the full one.
    #[arg(long, value_name = "SIZE", conflicts_with = "small")]
    rounds: Option<u64>,
    /// Seed of all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::install(setup::Purpose::Tests)?;
    let programs = [
        ("onenet-agent", "onenet-agent"),
        ("onenet-collector", "onenet-collector"),
        ("onenet-tests", "onenet-feed"),
    ];
    let named = programs.iter().flat_map(|(package, program)| ["--package", package, "--bin", program]);
    let build: Vec<&str> = ["build", "--release", "--locked"].into_iter().chain(named).collect();
    let line = format!("cargo {}", build.join(" "));
    say(&line);
    let status = crate::cargo().args(&build).status().with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("{line} failed ({status})");
    }
    let (figures, passed) = test(arguments)?;
    println!("{}", table(&figures));
    if passed {
        Ok(ExitCode::SUCCESS)
    } else {
        bail!("not every case passed; ONENET_SEED={}", arguments.seed)
    }
}

/// Runs the cases, one after the other; gives their lines of figures, and whether all passed.
fn test(arguments: &Arguments) -> Result<(Vec<String>, bool)> {
    let mut cargo = crate::cargo();
    cargo.args(["test", "--package", "onenet-tests", "--test", "soak", "--locked", "--", "--test-threads=1"]);
    // A module's name with its colons is no part of another's.
    cargo.args(arguments.cases.iter().map(|case| format!("{case}::")));
    cargo.env("ONENET_PROGRAMS", target().join("release")).env("ONENET_SEED", arguments.seed.to_string());
    if !arguments.small {
        cargo.env("ONENET_SOAK", "1");
    }
    if let Some(rounds) = arguments.rounds {
        cargo.env("ONENET_SOAK_ROUNDS", rounds.to_string());
    }
    say("the cases, one after the other; at full size they take hours");
    let mut child = cargo.stderr(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let mut figures = Vec::new();
    let told = child.stderr.take().context("cargo test has no standard error")?;
    for line in BufReader::new(told).lines() {
        let line = line.context("cargo test cannot be read")?;
        eprintln!("{line}");
        figures.extend(figures_of(&line));
    }
    Ok((figures, child.wait()?.success()))
}

/// The figures of a case's line, without its mark.
fn figures_of(line: &str) -> Option<String> {
    let at = line.find("SOAK ")?;
    line.get(at..)?.strip_prefix("SOAK ").map(str::to_owned)
}

fn table(figures: &[String]) -> String {
    let mut text =
        "\n| case | rounds | truth | stored unique | signed loss | twice | longest resume, s | time, s | |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|---|\n"
            .to_owned();
    for line in figures {
        text += &format!("| {line} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_tells_its_figures_behind_what_the_test_runner_says() {
        let line = "..SOAK agent killed | 100 | 1 | 1 | 0 | 0 | 0.1 | 18 | more";
        assert_eq!(figures_of(line).as_deref(), Some("agent killed | 100 | 1 | 1 | 0 | 0 | 0.1 | 18 | more"));
        assert_eq!(figures_of("test kill::x ... ok"), None);
    }

    #[test]
    fn every_row_of_the_table_has_as_many_cells_as_its_head() {
        let text = table(&["agent killed | 100 | 1 | 1 | 0 | 0 | 0.1 | 18 | more".to_owned()]);
        let cells: Vec<usize> =
            text.lines().filter(|line| !line.is_empty()).map(|line| line.matches('|').count()).collect();
        assert_eq!(cells, [10, 10, 10]);
    }

    #[test]
    fn every_case_is_a_file_of_the_tests() {
        for case in CASES {
            let file = crate::workspace().join("tests/tests/soak").join(format!("{case}.rs"));
            assert!(file.is_file(), "{}", file.display());
        }
    }
}
