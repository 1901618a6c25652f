//! How large the programs and packages are and of how many crates they consist: the table that `cargo xtask package` ends
//! with, and the measured parts of docs/sizes.md.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    arch::Architecture,
    crates::{Crate, Place, Workspace},
    layout::PROGRAMS,
};
use crate::bench::document;

/// The document, from the workspace.
const DOCUMENT: &str = "docs/sizes.md";

/// Counts of crates by program: what the lock file says, so that it needs no build.
pub(super) fn crates(workspace: &Workspace) -> Result<String> {
    let mut table = "| program | crates in it | of them own | only in the compiler | with a build script | twice in it |\n\
                     | --- | --: | --: | --: | --: | --- |\n"
        .to_owned();
    for program in PROGRAMS.iter().map(|program| program.name) {
        let crates = workspace.with_build(program)?;
        let inside: Vec<&Crate> = crates.iter().filter(|one| one.place == Place::Program).collect();
        writeln!(
            table,
            "| {program} | {} | {} | {} | {} | {} |",
            inside.len(),
            inside.iter().filter(|one| one.own).count(),
            crates.len() - inside.len(),
            crates.iter().filter(|one| one.scripted).count(),
            twice(&inside),
        )?;
    }
    Ok(table)
}

/// Crates that are there in more than one version, with the versions.
fn twice(crates: &[&Crate]) -> String {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in crates {
        versions.entry(&one.name).or_default().push(&one.version);
    }
    let twice = versions.iter().filter(|(_, versions)| versions.len() > 1);
    let named: Vec<String> =
        twice.map(|(name, versions)| format!("{name} {}", versions.join(" and "))).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

/// Sizes of the programs in this folder and of the packages that were made of them.
pub(super) fn sizes(programs: &Path, made: &[PathBuf], architecture: Architecture) -> Result<String> {
    let mut table = format!(
        "| program ({}) | stripped, KiB | .deb, KiB | .rpm, KiB |\n| --- | --: | --: | --: |\n",
        architecture.debian()
    );
    for program in PROGRAMS.iter().map(|program| program.name) {
        let package = |kind: &str| -> Result<String> {
            let mine = |file: &&PathBuf| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(program) && file.extension().is_some_and(|found| found == kind)
            };
            made.iter().find(mine).map_or_else(|| Ok("-".to_owned()), |file| kib(file))
        };
        let (binary, deb, rpm) = (kib(&programs.join(program))?, package("deb")?, package("rpm")?);
        writeln!(table, "| {program} | {binary} | {deb} | {rpm} |")?;
    }
    Ok(table)
}

fn kib(file: &Path) -> Result<String> {
    let bytes = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    Ok(bytes.div_ceil(1024).to_string())
}

/// Writes a part of the document: `crates` or `sizes`.
pub(super) fn write(part: &str, table: &str) -> Result<()> {
    document::write_in(DOCUMENT, part, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace::load(Architecture::of_host().expect("known")).expect("cargo answers")
    }

    #[test]
    fn the_document_states_the_counts_of_the_lock_file() {
        let document = fs::read_to_string(crate::workspace().join(DOCUMENT)).expect("the document");
        let counts = crates(&workspace()).expect("counts");
        let stated = document::part(&document, "crates").expect("its marks");
        assert_eq!(stated, counts, "run: cargo xtask package --counts");
        assert!(document::part(&document, "sizes").is_some(), "marks for sizes");
    }

    #[test]
    fn a_crate_in_two_versions_is_named_with_both() {
        let crates = workspace().with_build("onenet-agent").expect("crates");
        let all: Vec<&Crate> = crates.iter().collect();
        let syn = twice(&all).split(", ").find(|one| one.starts_with("syn ")).map(str::to_owned);
        assert!(syn.expect("syn").contains(" and "), "both versions");
        let one: Vec<&Crate> = all.into_iter().filter(|one| one.name == "tokio").collect();
        assert_eq!(twice(&one), "none");
    }

    #[test]
    fn a_table_of_sizes_has_every_package_that_was_made() {
        let folder = std::env::temp_dir().join(format!("xtask-sizes-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        let mut made = Vec::new();
        for (name, bytes) in [
            ("onenet-agent", 2048),
            ("onenet-collector", 2049),
            ("onenet-agent_1-1_arm64.deb", 1024),
            ("onenet-collector_1-1_arm64.deb", 1),
            ("onenet-agent-1-1.aarch64.rpm", 5000),
        ] {
            fs::write(folder.join(name), vec![0; bytes]).expect("written");
            made.push(folder.join(name));
        }
        let table = sizes(&folder, &made, Architecture::Arm64).expect("a table");
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.first(), Some(&"| program (arm64) | stripped, KiB | .deb, KiB | .rpm, KiB |"));
        assert_eq!(rows.get(2), Some(&"| onenet-agent | 2 | 1 | 5 |"));
        assert_eq!(rows.get(3), Some(&"| onenet-collector | 3 | 1 | - |"));
        fs::remove_dir_all(folder).expect("removed");
    }
}
