//! The list of crates that a program carries in itself, in the section and the format of `cargo auditable`: scanners read
//! it from the file, without a bill of materials and wherever the program went.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result};
use auditable_serde::{DependencyKind, Package, Source, VersionInfo};

use super::{
    arch::Architecture,
    crates::{Place, Workspace},
};

/// Name of the section; the number is that of the format.
const SECTION: &str = ".dep-v0";

/// Dependencies that macros and build scripts bring count as those of the build.
const FORMAT: u32 = 1;

/// As `cargo auditable` compresses.
const LEVEL: u8 = 7;

/// What the section of a program holds. The same lock file gives the same bytes.
pub(super) fn data(workspace: &Workspace, program: &str) -> Result<Vec<u8>> {
    let crates = workspace.with_build(program)?;
    let places: BTreeMap<String, usize> =
        crates.iter().enumerate().map(|(place, one)| (one.url(), place)).collect();
    let mut packages = Vec::new();
    for one in &crates {
        let used = one.uses.iter().chain(&one.builds_with);
        let mut dependencies: Vec<usize> = used.filter_map(|url| places.get(url).copied()).collect();
        dependencies.sort_unstable();
        dependencies.dedup();
        packages.push(Package {
            name: one.name.clone(),
            version: one.version.parse().with_context(|| format!("version of {}", one.name))?,
            source: source(one.source.as_deref()),
            kind: if one.place == Place::Program { DependencyKind::Runtime } else { DependencyKind::Build },
            dependencies,
            root: one.name == program,
        });
    }
    let text = serde_json::to_vec(&VersionInfo { packages, format: FORMAT })?;
    Ok(miniz_oxide::deflate::compress_to_vec_zlib(&text, LEVEL))
}

/// As the format names what cargo says of an origin.
fn source(cargo: Option<&str>) -> Source {
    match cargo {
        None => Source::Local,
        Some("registry+https://github.com/rust-lang/crates.io-index") => Source::CratesIo,
        Some(other) => Source::from(other.split('+').next().unwrap_or(other)),
    }
}

/// Copies the program with the section, which is not loaded when it runs.
pub(super) fn add(architecture: Architecture, program: &Path, data: &Path, to: &Path) -> Result<()> {
    let tool = architecture.tool("objcopy")?;
    let mut objcopy = Command::new(tool);
    objcopy
        .args(["--add-section", &format!("{SECTION}={}", data.display())])
        .args(["--set-section-flags", &format!("{SECTION}=noload,readonly")])
        .args([program, to]);
    crate::tool::run(&mut objcopy).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// A program with the section, in a folder that goes with the test.
    struct Audited(PathBuf);

    impl Audited {
        fn new(name: &str, from: &Path, of: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("made");
            let host = Architecture::of_host().expect("known");
            let workspace = Workspace::load(host).expect("cargo answers");
            let section = folder.join("data");
            fs::write(&section, data(&workspace, of).expect("data")).expect("written");
            add(host, from, &section, &folder.join("program")).expect("added");
            Self(folder)
        }

        fn program(&self) -> PathBuf {
            self.0.join("program")
        }

        fn info(&self) -> VersionInfo {
            auditable_info::audit_info_from_file(&self.program(), Default::default()).expect("it parses")
        }
    }

    impl Drop for Audited {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_program_names_its_crates_and_still_runs() {
        let this = std::env::current_exe().expect("this program");
        let audited = Audited::new("audited", &this, "onenet-agent");
        let info = audited.info();
        let find = |name: &str| {
            let found: Vec<_> = info.packages.iter().filter(|one| one.name == name).collect();
            assert!(found.len() <= 1, "{name} once");
            found.first().copied()
        };
        let tokio = find("tokio").expect("tokio is in it");
        assert_eq!((tokio.kind, &tokio.source), (DependencyKind::Runtime, &Source::CratesIo));
        assert_eq!(find("onenet-core").map(|one| &one.source), Some(&Source::Local));
        for build in ["serde_derive", "quote", "cc", "protox"] {
            assert_eq!(find(build).map(|one| one.kind), Some(DependencyKind::Build), "{build}");
        }
        for absent in ["proptest", "onenet-collector", "rusqlite"] {
            assert!(find(absent).is_none(), "{absent}");
        }
        let root = info.packages.iter().find(|one| one.root).expect("the program itself");
        assert_eq!(root.name, "onenet-agent");
        let used = root.dependencies.iter().map(|&place| info.packages[place].name.as_str());
        assert!(used.collect::<Vec<_>>().contains(&"tokio"), "what it uses");
        let ran = Command::new(audited.program()).arg("--list").output().expect("it runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    #[test]
    fn the_section_is_the_same_each_time() {
        let this = std::env::current_exe().expect("this program");
        let (one, two) = (
            Audited::new("once", &this, "onenet-collector"),
            Audited::new("twice", &this, "onenet-collector"),
        );
        assert!(fs::read(one.program()).expect("read") == fs::read(two.program()).expect("read"));
    }
}
