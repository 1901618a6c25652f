//! Compiles what goes into the packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    arch::{Architecture, Cross},
    auditable,
    crates::Workspace,
    layout,
};
use crate::{cargo, say, workspace};

/// Compiles both programs in a folder of their own and gives where they are. Nothing in them tells where they were built.
pub(super) fn programs(folder: &Path, architecture: Architecture, cross: Option<&Cross>) -> Result<PathBuf> {
    say("cargo build --release --locked (the programs of the packages)");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let renamed =
        [(workspace(), "/usr/src/onenet"), (home, "/usr/src/cargo"), (folder.to_owned(), "/usr/src/built")];
    let flags = |option: &str| -> Vec<String> {
        renamed.iter().map(|(from, to)| format!("{option}={}={to}", from.display())).collect()
    };
    let mut rust = flags("--remap-path-prefix");
    let mut built = folder.to_owned();
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "-p", "onenet-agent", "-p", "onenet-collector", "--bins"]);
    if let Some(cross) = cross {
        let target = architecture.target();
        built = built.join(target);
        cargo.args(["--target", target]).env("LIBPCAP_LIBDIR", &cross.libpcap);
        let upper = target.replace('-', "_").to_uppercase();
        cargo.env(format!("CARGO_TARGET_{upper}_LINKER"), &cross.linker);
        // What libpcap itself needs is on the machine that the program runs on, and not on this one.
        rust.push("-Clink-arg=-Wl,--allow-shlib-undefined".to_owned());
    }
    let status = cargo
        .env("CARGO_TARGET_DIR", folder)
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"))
        .env("CFLAGS", flags("-ffile-prefix-map").join(" "))
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the programs could not be built ({status})");
    }
    // After the build, which has downloaded every crate that this reads.
    let workspace = Workspace::load(architecture)?;
    let (audited, stripped) =
        (layout::fresh(folder.join("audited"))?, layout::fresh(folder.join("stripped"))?);
    for program in layout::PROGRAMS.iter().map(|program| program.name) {
        let (slim, data) = (stripped.join(program), audited.join(format!("{program}.data")));
        strip(architecture, &built.join("release").join(program), &slim)?;
        std::fs::write(&data, auditable::data(&workspace, program)?)
            .context("cannot write dependency data")?;
        auditable::add(architecture, &slim, &data, &audited.join(program))?;
        std::fs::remove_file(&data).with_context(|| data.display().to_string())?;
    }
    Ok(audited)
}

/// Leaves out what only a debugger reads. The profile cannot say so: cargo forgets it for a package that the profile
/// names, as it does the agent.
fn strip(architecture: Architecture, from: &Path, to: &Path) -> Result<()> {
    let tool = architecture.tool("strip")?;
    crate::tool::run(Command::new(tool).arg("-o").args([to, from])).map(drop)
}

/// Writes manual pages and completions, and gives where they are.
pub(super) fn manual(folder: &Path) -> Result<PathBuf> {
    say("manual pages and completions");
    let folder = layout::fresh(folder.to_owned())?;
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
        let host = Architecture::of_host().expect("known");
        strip(host, &whole, &stripped).expect("it is stripped");
        let size = |path: &Path| std::fs::metadata(path).expect("it is there").len();
        assert!(size(&stripped) < size(&whole));
        std::fs::remove_file(stripped).expect("removed");
    }
}
