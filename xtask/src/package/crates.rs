//! The crates that are compiled into a program, as cargo resolves them for this platform.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{arch::Architecture, layout::PROGRAMS};

/// What becomes of a crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// It is compiled into the program.
    Program,
    /// It is a procedural macro or what one uses, runs in the compiler and is not in the program.
    Macro,
    /// Only build scripts use it.
    BuildScript,
}

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
    pub(super) place: Place,
    /// It has a build script.
    pub(super) scripted: bool,
    /// Where cargo has it from; nothing where it is of this workspace.
    pub(super) source: Option<String>,
    /// Of this workspace.
    pub(super) own: bool,
    /// SHA-256 of its archive, by Cargo.lock.
    pub(super) checksum: Option<String>,
    /// Package URLs of the crates it uses.
    pub(super) uses: BTreeSet<String>,
    /// Package URLs of the crates that its build script uses.
    pub(super) builds_with: BTreeSet<String>,
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
    /// What each package uses, by kind.
    uses: BTreeMap<String, Value>,
    checksums: BTreeMap<(String, String), String>,
    /// Where each crate of each program goes, by name and version.
    places: BTreeMap<&'static str, Places>,
}

type Places = BTreeMap<(String, String), Place>;

impl Workspace {
    /// Asks cargo; nothing is downloaded and the lock file stays as it is.
    pub(super) fn load(architecture: Architecture) -> Result<Self> {
        let target = architecture.target();
        let printed = ask(&["metadata", "--format-version", "1", "--filter-platform", target])?;
        let metadata: Value = serde_json::from_str(&printed).context("the output of cargo metadata")?;
        let lock = std::fs::read_to_string(crate::workspace().join("Cargo.lock")).context("Cargo.lock")?;
        let packages = list(&metadata["packages"]).map(|package| (text(&package["id"]), package.clone()));
        let nodes = list(&metadata["resolve"]["nodes"]).map(|node| (text(&node["id"]), node["deps"].clone()));
        Ok(Self {
            packages: packages.collect(),
            uses: nodes.collect(),
            checksums: checksums(&lock),
            places: places(target)?,
        })
    }

    /// The version of the workspace's programs.
    pub(super) fn version(&self, program: &str) -> Result<String> {
        let package = self.packages.values().find(|package| package["name"] == program);
        Ok(text(&package.with_context(|| format!("no package {program}"))?["version"]))
    }

    /// The program itself, every crate in it and the macros that made it, each once, in the order of names.
    pub(super) fn crates_of(&self, program: &str) -> Result<Vec<Crate>> {
        let mut crates = self.with_build(program)?;
        crates.retain(|one| one.place != Place::BuildScript);
        let kept: BTreeSet<String> = crates.iter().map(Crate::url).collect();
        for one in &mut crates {
            one.uses.retain(|url| kept.contains(url));
        }
        Ok(crates)
    }

    /// The same and what build scripts use.
    pub(super) fn with_build(&self, program: &str) -> Result<Vec<Crate>> {
        let places = self.places.get(program).with_context(|| format!("no package {program}"))?;
        let mut crates = Vec::new();
        for (id, package) in &self.packages {
            let name = (text(&package["name"]), text(&package["version"]));
            if let Some(place) = places.get(&name) {
                crates.push(self.one(id, package, *place)?);
            }
        }
        ensure!(crates.len() == places.len(), "cargo tree and cargo metadata disagree on {program}");
        crates.sort();
        Ok(crates)
    }

    fn one(&self, id: &str, package: &Value, place: Place) -> Result<Crate> {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let used = |kind: Value| -> BTreeSet<String> {
            let uses = self.uses.get(id).into_iter().flat_map(list);
            let uses = uses.filter(|used| list(&used["dep_kinds"]).any(|one| one["kind"] == kind));
            let packages = uses.filter_map(|used| self.packages.get(used["pkg"].as_str()?));
            packages.map(|one| package_url(&text(&one["name"]), &text(&one["version"]))).collect()
        };
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        Ok(Crate {
            licence: package["license"].as_str().map(|licence| licence.replace('/', " OR ")),
            repository: package["repository"].as_str().map(str::to_owned),
            folder: manifest.parent().context("a manifest without a folder")?.to_owned(),
            place,
            scripted: list(&package["targets"])
                .any(|target| list(&target["kind"]).any(|kind| kind == "custom-build")),
            source: package["source"].as_str().map(str::to_owned),
            own: package["source"].is_null(),
            checksum: self.checksums.get(&(name.clone(), version.clone())).cloned(),
            uses: used(Value::Null),
            builds_with: used("build".into()),
            name,
            version,
        })
    }
}

/// Where the crates of each program go, by `cargo tree`: it alone knows which features, and so which crates, a build of
/// both programs has. `cargo metadata` also counts what tests turn on, and optional crates that nothing does.
fn places(target: &str) -> Result<BTreeMap<&'static str, Places>> {
    let mut places: BTreeMap<&str, Places> = BTreeMap::new();
    for (edges, place) in [
        ("normal,build", Place::BuildScript),
        ("normal", Place::Macro),
        ("normal,no-proc-macro", Place::Program),
    ] {
        let mut words = vec!["tree", "--target", target, "--edges", edges, "--prefix", "none", "--no-dedupe"];
        words.extend(PROGRAMS.iter().flat_map(|program| ["--package", program.name]));
        let printed = ask(&words)?;
        for program in PROGRAMS.iter().map(|program| program.name) {
            let mine = |tree: &&str| tree.split(' ').next() == Some(program);
            let tree = printed.split("\n\n").find(mine);
            let tree = tree.with_context(|| format!("cargo tree does not tell of {program}"))?;
            let places = places.entry(program).or_default();
            for mut words in tree.lines().map(str::split_whitespace) {
                let name = words.next().zip(words.next().and_then(|version| version.strip_prefix('v')));
                let (name, version) = name.context("a line of cargo tree without name and version")?;
                // Later questions are narrower.
                places.insert((name.to_owned(), version.to_owned()), place);
            }
        }
    }
    Ok(places)
}

/// What cargo answers.
fn ask(words: &[&str]) -> Result<String> {
    let line = format!("cargo {}", words.join(" "));
    let output = crate::cargo().args(words).args(["--locked", "--offline"]).output();
    let output = output.with_context(|| format!("cannot run {line}"))?;
    if !output.status.success() {
        bail!("{line} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of {line}"))
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
        let workspace = Workspace::load(Architecture::of_host().expect("known")).expect("cargo answers");
        let crates = workspace.crates_of("onenet-agent").expect("its crates");
        let has = |name: &str| crates.iter().any(|one| one.name == name);
        assert!(has("onenet-agent") && has("onenet-core") && has("tokio"), "what it is made of");
        assert!(!has("proptest") && !has("protox") && !has("onenet-collector"), "and nothing else");
        for one in crates.iter().filter(|one| !one.own) {
            assert!(one.checksum.is_some() && one.licence.is_some(), "{}: checksum and licence", one.name);
        }
    }

    #[test]
    fn what_only_the_compiler_runs_is_told_from_what_is_in_the_program() {
        let workspace = Workspace::load(Architecture::of_host().expect("known")).expect("cargo answers");
        let crates = workspace.with_build("onenet-agent").expect("its crates");
        let place = |name: &str| crates.iter().find(|one| one.name == name).map(|one| one.place);
        assert_eq!(place("tokio"), Some(Place::Program));
        assert_eq!((place("serde_derive"), place("quote")), (Some(Place::Macro), Some(Place::Macro)));
        assert_eq!((place("cc"), place("protox")), (Some(Place::BuildScript), Some(Place::BuildScript)));
        // `cargo metadata` names it, and no feature that is on brings it.
        assert_eq!(place("zlib-rs"), None);
        assert!(crates.iter().any(|one| one.name == "tokio" && !one.scripted));
        let ring = crates.iter().find(|one| one.name == "ring").expect("ring");
        assert!(ring.scripted && ring.builds_with.iter().any(|url| url.starts_with("pkg:cargo/cc@")));
    }
}
