//! The real programs, for the tests that run them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

/// Folder of `onenet-agent` and `onenet-collector`: what `ONENET_PROGRAMS` names, else they are built, once, in the
/// profile of the test that asks.
pub fn directory() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os("ONENET_PROGRAMS") {
        Some(directory) => Ok(PathBuf::from(directory)),
        None => build().map_err(|error| format!("{error:#}")),
    });
    built.as_deref().map_err(|error| anyhow::Error::msg(error.clone()))
}

fn build() -> Result<PathBuf> {
    // A test is target/<profile>/deps/<name>-<hash>.
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("a test outside a target directory")?;
    let target = profile.parent().context("a profile outside a target directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Both are named, so that features unify and nothing is built twice.
    cargo.args(["build", "--quiet", "--package", "onenet-agent", "--package", "onenet-collector"]);
    cargo.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo tells a test of its package, a build script would take for a change of its own.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the programs do not build ({status})");
    Ok(profile.to_owned())
}
