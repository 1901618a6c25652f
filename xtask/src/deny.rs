//! `cargo deny`: duplicates, bans, licences, sources and, where their database can be had, advisories. The tool is built
//! where it is missing, at one version, into the build's own folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{say, target, tool};

/// The version that deny.toml is written for: others know other fields.
const VERSION: &str = "0.20.2";

/// Runs every check, and says which one cannot be run here.
pub(crate) fn check() -> Result<()> {
    let tool = present_or_installed()?;
    // A reason for a duplicate that is no longer there is an error too: the list tells what is the case.
    let current = ["-D", "unmatched-skip", "-D", "unnecessary-skip"];
    run(&tool, &[&["check"], &current[..], &["bans", "licenses", "sources"]].concat())?;
    // Both a refused download and an advisory end `check` with the same code, so the download comes by itself.
    if let Some(why) = tool::refusal(&mut command(&tool, &["fetch", "db"]))? {
        say(&format!("the advisory database cannot be had ({why}): advisories are NOT checked here"));
        return Ok(());
    }
    run(&tool, &["check", "advisories"])
}

/// The tool: the user's where it is of this version, else one of our own, which is built where it is missing.
fn present_or_installed() -> Result<PathBuf> {
    let tools = target().join("tools");
    let root = tools.join(format!("cargo-deny-{VERSION}"));
    let own = root.join("bin/cargo-deny");
    if let Some(tool) = [PathBuf::from("cargo-deny"), own.clone()].into_iter().find(|tool| fits(tool)) {
        return Ok(tool);
    }
    say(&format!("missing: cargo-deny {VERSION}, which is built into {} (about a minute)", root.display()));
    let building = tools.join("build");
    let mut cargo = crate::cargo();
    // Optimised it takes several times as long to build, and a check takes two seconds as it is.
    cargo.args(["install", "--locked", "--quiet", "--debug", "--force", "cargo-deny", "--version"]);
    cargo.args([&format!("={VERSION}"), "--root"]).arg(&root).arg("--target-dir").arg(&building);
    let status = cargo.status().context("cannot run cargo install")?;
    if !status.success() {
        bail!("cargo-deny {VERSION} could not be installed ({status})");
    }
    // Some 700 MB that nothing reads again.
    fs::remove_dir_all(&building).with_context(|| format!("cannot remove {}", building.display()))?;
    if fits(&own) { Ok(own) } else { bail!("{} is not cargo-deny {VERSION}", own.display()) }
}

fn fits(tool: &Path) -> bool {
    let printed = Command::new(tool).arg("--version").output();
    printed.is_ok_and(|output| output.status.success() && is_ours(&output.stdout))
}

fn is_ours(printed: &[u8]) -> bool {
    String::from_utf8_lossy(printed).trim_end() == format!("cargo-deny {VERSION}")
}

fn run(tool: &Path, arguments: &[&str]) -> Result<()> {
    let line = format!("cargo deny --locked {}", arguments.join(" "));
    say(&line);
    let status = command(tool, arguments).status().with_context(|| format!("cannot run {line}"))?;
    if status.success() { Ok(()) } else { bail!("{line} failed ({status})") }
}

/// The tool, in the workspace.
fn command(tool: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool);
    command.current_dir(crate::workspace()).arg("--locked").args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_that_the_configuration_is_written_for_will_do() {
        assert!(is_ours(b"cargo-deny 0.20.2\n"));
        assert!(!is_ours(b"cargo-deny 0.14.2\n") && !is_ours(b"cargo-deny 0.20.21\n") && !is_ours(b""));
    }

    #[test]
    fn every_duplicate_bears_its_reason() {
        let file = fs::read_to_string(crate::workspace().join("deny.toml")).expect("read");
        assert!(file.contains("\nmultiple-versions = \"deny\"\n"), "a new duplicate fails");
        let (_, list) = file.split_once("\nskip = [\n").expect("the list");
        let (list, _) = list.split_once("\n]").expect("its end");
        for line in list.lines() {
            assert!(line.contains("reason = \""), "{line}");
        }
    }
}
