//! Third-party notices: which crates are in a program, under which licences, and the texts and notices that they carry.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::crates::{Crate, Place};

/// Beginnings of the names of files that a licence wants passed on.
const NAMES: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// Writes the notices of a program.
pub(super) fn notices(program: &str, crates: &[Crate]) -> Result<String> {
    let mut text = format!(
        "Third-party software in {program}\n\n\
         Each crate with its version, licence and origin; then every licence and notice file that the crates carry, each\n\
         once, with the crates it belongs to. Crates that only run in the compiler are left out.\n\n"
    );
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in crates.iter().filter(|one| !one.own && one.place == Place::Program) {
        let licence = one.licence.as_deref().unwrap_or("see the texts below");
        let origin = one.repository.as_deref().unwrap_or("-");
        writeln!(text, "{} {}\n    {licence}\n    {origin}", one.name, one.version)?;
        for path in carried(&one.folder)? {
            let content = fs::read(&path).with_context(|| path.display().to_string())?;
            let content = String::from_utf8_lossy(&content).replace('\r', "").trim().to_owned();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.entry(content).or_default().push(format!("{} {} ({name})", one.name, one.version));
        }
    }
    let mut files: Vec<(Vec<String>, String)> = files.into_iter().map(|(text, of)| (of, text)).collect();
    files.sort();
    for (of, content) in files {
        writeln!(text, "\n{}\n{}\n\n{content}", "-".repeat(78), of.join("\n"))?;
    }
    Ok(text)
}

/// The licence and notice files of a crate.
fn carried(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|start| name.starts_with(start)) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{arch::Architecture, crates::Workspace},
        *,
    };

    #[test]
    fn every_crate_is_named_with_its_licence_and_the_texts_come_once() {
        let workspace = Workspace::load(Architecture::of_host().expect("known")).expect("cargo answers");
        let crates = workspace.crates_of("onenet-agent").expect("its crates");
        let text = notices("onenet-agent", &crates).expect("notices");
        for one in crates.iter().filter(|one| !one.own && one.place == Place::Program) {
            assert!(text.contains(&format!("\n{} {}\n", one.name, one.version)), "{}", one.name);
        }
        assert!(text.contains("Permission is hereby granted"), "a text");
        assert!(!text.contains(env!("HOME")), "and no place of this machine");
    }
}
