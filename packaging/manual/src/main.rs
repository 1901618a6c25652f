//! Writes the manual pages and shell completions of both programs, from the same definitions by which they parse their
//! command lines, so that neither can tell another story. It is run by `cargo xtask package` and is not shipped.

mod completions;
mod pages;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Command;

/// What a program's files are written under.
fn programs() -> [Command; 2] {
    [onenet_agent::cli::command(), onenet_collector::cli::command()]
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("onenet-manual: expected a folder to write into");
        return ExitCode::from(2);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("onenet-manual: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes `PROGRAM/man/*.1` and `PROGRAM/completions/*` into the folder.
fn write(folder: &Path) -> Result<()> {
    for program in programs() {
        let own = folder.join(program.get_name());
        for (kind, files) in
            [("man", pages::pages(&program)?), ("completions", completions::scripts(&program))]
        {
            let own = own.join(kind);
            fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
            for (name, text) in files {
                let path = own.join(name);
                fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_have_pages_and_completions() {
        let folder = tempfile::tempdir().expect("a directory");
        write(folder.path()).expect("written");
        for file in [
            "onenet-agent/man/onenet-agent.1",
            "onenet-agent/man/onenet-agent-check-config.1",
            "onenet-agent/completions/onenet-agent.bash",
            "onenet-agent/completions/onenet-agent.fish",
            "onenet-agent/completions/_onenet-agent",
            "onenet-collector/man/onenet-collector.1",
            "onenet-collector/man/onenet-collector-findings.1",
            "onenet-collector/completions/_onenet-collector",
        ] {
            assert!(folder.path().join(file).is_file(), "{file}");
        }
    }
}
