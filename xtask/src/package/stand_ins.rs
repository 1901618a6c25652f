//! For tests: whole packages of small stand-ins for the programs, made in seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    Format, Moment,
    arch::Architecture,
    crates::Workspace,
    layout::{PROGRAMS, Parts},
    packages,
};

/// Who answers for them.
pub(super) const MAINTAINER: &str = "Somebody <somebody@onenet.example>";

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xtask-package-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Programs and a manual that take no time to build.
pub(super) fn stand_ins(folder: &Path) {
    for name in PROGRAMS.iter().map(|program| program.name) {
        fs::write(folder.join(name), format!("#!/bin/sh\necho {name}\n")).expect("written");
        for (kind, files) in [
            ("man", vec![format!("{name}.1"), format!("{name}-run.1")]),
            ("completions", vec![format!("{name}.bash"), format!("_{name}"), format!("{name}.fish")]),
        ] {
            let kind = folder.join(name.to_owned() + ".manual").join(kind);
            fs::create_dir_all(&kind).expect("made");
            for file in files {
                fs::write(kind.join(&file), &file).expect("written");
            }
        }
        let manual = folder.join("manual");
        fs::create_dir_all(&manual).expect("made");
        fs::rename(folder.join(name.to_owned() + ".manual"), manual.join(name)).expect("moved");
    }
}

/// Of this machine.
pub(super) fn host() -> Architecture {
    Architecture::of_host().expect("known")
}

/// Makes the packages in the folder's `out`, of the workspace's version or of another one.
pub(crate) fn make(folder: &Path, formats: &[Format], version: Option<&str>) -> Vec<PathBuf> {
    make_by(folder, formats, version, MAINTAINER)
}

/// The same by another maintainer: the same names, and other content.
pub(crate) fn make_by(
    folder: &Path,
    formats: &[Format],
    version: Option<&str>,
    maintainer: &str,
) -> Vec<PathBuf> {
    stand_ins(folder);
    pack(folder, formats, version, maintainer, host()).expect("packages")
}

/// The same of this version for an architecture.
pub(super) fn make_for(folder: &Path, formats: &[Format], architecture: Architecture) -> Vec<PathBuf> {
    stand_ins(folder);
    pack(folder, formats, None, MAINTAINER, architecture).expect("packages")
}

/// Packs what is in the folder.
pub(super) fn pack(
    folder: &Path,
    formats: &[Format],
    later: Option<&str>,
    maintainer: &str,
    architecture: Architecture,
) -> Result<Vec<PathBuf>> {
    let workspace = Workspace::load(host())?;
    let (programs, manual, moment) = (folder, &folder.join("manual"), Moment(1_700_000_000));
    let parts = Parts { programs, manual, workspace: &workspace, moment, later, architecture };
    packages(&parts, formats, maintainer, &folder.join("out"))
}

/// Whether the tool is there; where it is not, this says so aloud.
pub(crate) fn is_here(tool: &str) -> bool {
    let here = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !here {
        eprintln!("{tool} is not installed: what it makes or reads is NOT tested here");
    }
    here
}
