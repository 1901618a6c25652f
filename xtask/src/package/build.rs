//! Compiles what goes into the packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, say, workspace};

/// Compiles both programs in a folder of their own and gives where they are. Nothing in them tells where they were built.
pub(super) fn programs(folder: &Path) -> Result<PathBuf> {
    say("cargo build --release --locked (the programs of the packages)");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let renamed =
        [(workspace(), "/usr/src/onenet"), (home, "/usr/src/cargo"), (folder.to_owned(), "/usr/src/built")];
    let flags = |option: &str| -> Vec<String> {
        renamed.iter().map(|(from, to)| format!("{option}={}={to}", from.display())).collect()
    };
    let status = cargo()
        .args(["build", "--release", "--locked", "-p", "onenet-agent", "-p", "onenet-collector", "--bins"])
        .env("CARGO_TARGET_DIR", folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags("--remap-path-prefix").join("\u{1f}"))
        .env("CFLAGS", flags("-ffile-prefix-map").join(" "))
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the programs could not be built ({status})");
    }
    let stripped = super::layout::fresh(folder.join("stripped"))?;
    for program in super::layout::PROGRAMS.iter().map(|program| program.name) {
        strip(&folder.join("release").join(program), &stripped.join(program))?;
    }
    Ok(stripped)
}

/// Leaves out what only a debugger reads. The profile cannot say so: cargo forgets it for a package that the profile
/// names, as it does the agent.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("strip").arg("-o").args([to, from]).output().context("cannot run strip")?;
    if !output.status.success() {
        bail!("strip failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Writes manual pages and completions, and gives where they are.
pub(super) fn manual(folder: &Path) -> Result<PathBuf> {
    say("manual pages and completions");
    let folder = super::layout::fresh(folder.to_owned())?;
    let status = cargo()
        .args(["run", "--quiet", "--locked", "-p", "onenet-manual", "--"])
        .arg(&folder)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("manual pages and completions could not be written ({status})");
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_smaller_without_what_a_debugger_reads() {
        let (whole, stripped) = (
            std::env::current_exe().expect("this program"),
            std::env::temp_dir().join(format!("xtask-strip-{}", std::process::id())),
        );
        strip(&whole, &stripped).expect("it is stripped");
        let size = |path: &Path| std::fs::metadata(path).expect("it is there").len();
        assert!(size(&stripped) < size(&whole));
        std::fs::remove_file(stripped).expect("removed");
    }
}
