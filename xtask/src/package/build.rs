//! Compiles what goes into the packages.

use std::path::{Path, PathBuf};

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
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_ENCODED_RUSTFLAGS", flags("--remap-path-prefix").join("\u{1f}"))
        .env("CFLAGS", flags("-ffile-prefix-map").join(" "))
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the programs could not be built ({status})");
    }
    Ok(folder.join("release"))
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
