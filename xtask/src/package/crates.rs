//! The crates that are compiled into a program, as cargo resolves them for this platform.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// One crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// SPDX expression.
    pub(super) licence: Option<String>,
    pub(super) repository: Option<String>,
    /// Where its source is.
    pub(super) folder: PathBuf,
    /// It runs in the compiler and is not in the program.
    pub(super) procedural: bool,
    /// Of this workspace.
    pub(super) own: bool,
    /// SHA-256 of its archive, by Cargo.lock.
    pub(super) checksum: Option<String>,
    /// Package URLs of the crates it uses.
    pub(super) uses: BTreeSet<String>,
}

impl Crate {
    /// Its package URL, which names it in a bill of materials.
    pub(super) fn url(&self) -> String {
        package_url(&self.name, &self.version)
    }
}

fn package_url(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{version}")
}

/// What cargo says of the workspace.
pub(super) struct Workspace {
    packages: BTreeMap<String, Value>,
    /// Of each package, those it uses when it runs.
    uses: BTreeMap<String, Vec<String>>,
    checksums: BTreeMap<(String, String), String>,
}

impl Workspace {
    /// Asks cargo; nothing is downloaded and the lock file stays as it is.
    pub(super) fn load() -> Result<Self> {
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = crate::cargo()
            .args([
                "metadata",
                "--locked",
                "--offline",
                "--format-version",
                "1",
                "--filter-platform",
                &platform,
            ])
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("the output of cargo metadata")?;
        let lock = std::fs::read_to_string(crate::workspace().join("Cargo.lock")).context("Cargo.lock")?;
        let packages = list(&metadata["packages"]).map(|package| (text(&package["id"]), package.clone()));
        let uses = list(&metadata["resolve"]["nodes"]).map(|node| (text(&node["id"]), used(node)));
        Ok(Self { packages: packages.collect(), uses: uses.collect(), checksums: checksums(&lock) })
    }

    /// The version of the workspace's programs.
    pub(super) fn version(&self, program: &str) -> Result<String> {
        let package = self.packages.values().find(|package| package["name"] == program);
        Ok(text(&package.with_context(|| format!("no package {program}"))?["version"]))
    }

    /// The program itself and every crate in it, each once, in the order of names.
    pub(super) fn crates_of(&self, program: &str) -> Result<Vec<Crate>> {
        let root = self.packages.iter().find(|(_, package)| package["name"] == program);
        let mut waiting = vec![root.with_context(|| format!("no package {program}"))?.0.clone()];
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if seen.insert(id.clone()) {
                waiting.extend(self.uses.get(&id).into_iter().flatten().cloned());
            }
        }
        let mut crates = seen.iter().map(|id| self.one(id)).collect::<Result<Vec<_>>>()?;
        crates.sort();
        Ok(crates)
    }

    fn one(&self, id: &str) -> Result<Crate> {
        let package = self.packages.get(id).with_context(|| format!("cargo names no package {id}"))?;
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let url = |id: &String| {
            let package = self.packages.get(id)?;
            Some(package_url(&text(&package["name"]), &text(&package["version"])))
        };
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        Ok(Crate {
            licence: package["license"].as_str().map(|licence| licence.replace('/', " OR ")),
            repository: package["repository"].as_str().map(str::to_owned),
            folder: manifest.parent().context("a manifest without a folder")?.to_owned(),
            procedural: list(&package["targets"])
                .any(|target| list(&target["kind"]).any(|k| k == "proc-macro")),
            own: package["source"].is_null(),
            checksum: self.checksums.get(&(name.clone(), version.clone())).cloned(),
            uses: self.uses.get(id).into_iter().flatten().filter_map(url).collect(),
            name,
            version,
        })
    }
}

/// What a package uses when it runs: neither what only its tests use nor what only its build script does.
fn used(node: &Value) -> Vec<String> {
    let runs = |dependency: &&Value| list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
    list(&node["deps"]).filter(runs).map(|dependency| text(&dependency["pkg"])).collect()
}

/// Name and version to SHA-256, by the lock file.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            Some(((field(block, "name")?, field(block, "version")?), field(block, "checksum")?))
        })
        .collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_made_of_its_crates_and_not_of_its_tests() {
        let workspace = Workspace::load().expect("cargo answers");
        let crates = workspace.crates_of("onenet-agent").expect("its crates");
        let has = |name: &str| crates.iter().any(|one| one.name == name);
        assert!(has("onenet-agent") && has("onenet-core") && has("tokio"), "what it is made of");
        assert!(!has("proptest") && !has("protox") && !has("onenet-collector"), "and nothing else");
        for one in crates.iter().filter(|one| !one.own) {
            assert!(one.checksum.is_some() && one.licence.is_some(), "{}: checksum and licence", one.name);
        }
    }
}
