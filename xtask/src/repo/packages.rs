//! Packages in folders: which there are, that they are whole, and where each goes. Name, version and architecture stand
//! for one content only, because hosts and caches take it for that.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deb,
    Rpm,
}

/// A package that is whole.
#[derive(Clone, Debug)]
pub(super) struct Package {
    /// Where it is.
    pub(super) from: PathBuf,
    /// Where it goes in the repositories.
    pub(super) place: String,
    pub(super) kind: Kind,
    pub(super) architecture: String,
    /// The fields of a Debian package.
    pub(super) control: String,
    /// When an RPM package was built: seconds since 1970.
    pub(super) built: u64,
    /// The same for the same content. An RPM package's is the same with any signature, and with none.
    identity: String,
}

/// All that is served, by place.
pub(super) struct Packages {
    all: BTreeMap<String, Package>,
    /// How many are served already.
    pub(super) kept: usize,
}

impl Packages {
    /// Those of Debian, and those of RPM.
    pub(super) fn split(&self) -> (Vec<&Package>, Vec<&Package>) {
        self.all.values().partition(|package| package.kind == Kind::Deb)
    }
}

/// The packages that lie in a folder. None is an error.
pub(super) fn find(folder: &Path) -> Result<Vec<(PathBuf, Kind)>> {
    let mut found = Vec::new();
    search(folder, 0, &mut found)?;
    ensure!(
        !found.is_empty(),
        "no .deb and no .rpm in {}: cargo xtask package makes them, and --packages names another folder",
        folder.display()
    );
    Ok(found)
}

/// Those that the repositories have.
pub(super) fn kept(out: &Path) -> Result<Vec<(PathBuf, Kind)>> {
    let mut found = Vec::new();
    for (folder, depth) in [(out.join("apt/pool"), 3), (out.join("rpm/packages"), 0)] {
        if folder.exists() {
            search(&folder, depth, &mut found)?;
        }
    }
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<(PathBuf, Kind)>) -> Result<()> {
    for name in crate::package::names(folder)? {
        let path = folder.join(&name);
        if depth > 0 && path.is_dir() {
            search(&path, depth - 1, found)?;
        } else if name.ends_with(".deb") {
            found.push((path, Kind::Deb));
        } else if name.ends_with(".rpm") {
            found.push((path, Kind::Rpm));
        }
    }
    Ok(())
}

/// Reads them all. Of a package that is on both sides the kept one is served where it may bear a signature already.
pub(super) fn read(
    kept: &[(PathBuf, Kind)],
    found: &[(PathBuf, Kind)],
    prefer_kept: bool,
) -> Result<Packages> {
    let mut all = BTreeMap::<String, Package>::new();
    for (path, kind) in kept {
        let package = one(path, *kind)?;
        all.insert(package.place.clone(), package);
    }
    let served = all.len();
    for (path, kind) in found {
        let package = one(path, *kind)?;
        if let Some(there) = all.get(&package.place) {
            ensure!(
                there.identity == package.identity,
                "{} and {} have the same name, version and architecture, but other content: give one another version",
                there.from.display(),
                package.from.display()
            );
            if prefer_kept {
                continue;
            }
        }
        all.insert(package.place.clone(), package);
    }
    Ok(Packages { all, kept: served })
}

fn one(path: &Path, kind: Kind) -> Result<Package> {
    ensure!(fs::metadata(path).is_ok_and(|file| file.is_file()), "{} is no file", path.display());
    let package = match kind {
        Kind::Deb => deb(path),
        Kind::Rpm => rpm(path),
    };
    package.with_context(|| format!("{} is no whole package", path.display()))
}

fn deb(path: &Path) -> Result<Package> {
    let control = tool::text(Command::new("dpkg-deb").arg("--field").arg(path))?;
    // The fields stand before what they list, so only this finds a package that is cut.
    tool::run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(path).stdout(Stdio::null()))?;
    let control = control.trim_end_matches('\n');
    ensure!(!control.lines().any(|line| line.trim().is_empty()), "an empty line among its fields");
    for field in ["Filename", "Size", "SHA256"] {
        ensure!(value(control, field).is_none(), "it has a field {field} of its own");
    }
    let field = |name: &str| value(control, name).with_context(|| format!("no field {name}"));
    let (name, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
    for part in [name, version, architecture] {
        plain(part)?;
    }
    // An epoch does not stand in names of files.
    let bare = version.split_once(':').map_or(version, |(_, bare)| bare);
    let initial = name.get(..if name.starts_with("lib") { 4 } else { 1 }).unwrap_or(name);
    Ok(Package {
        from: path.to_owned(),
        place: format!("apt/pool/main/{initial}/{name}/{name}_{bare}_{architecture}.deb"),
        kind: Kind::Deb,
        architecture: architecture.to_owned(),
        control: control.to_owned(),
        built: 0,
        identity: tool::sha256(path)?,
    })
}

fn rpm(path: &Path) -> Result<Package> {
    tool::run(Command::new("rpmkeys").args(["--checksig", "--nosignature"]).arg(path))?;
    let wanted = "%{NAME}\\n%{VERSION}-%{RELEASE}\\n%{ARCH}\\n%{BUILDTIME}\\n%{SHA256HEADER}\\n";
    let told = tool::text(Command::new("rpm").args(["-qp", "--nosignature", "--qf", wanted]).arg(path))?;
    let [name, version, architecture, built, identity] = told.lines().collect::<Vec<_>>()[..] else {
        bail!("rpm printed {told:?}");
    };
    for part in [name, version, architecture] {
        plain(part)?;
    }
    ensure!(identity.len() == 64, "its header has no SHA-256: rpm before 4.14 built it");
    Ok(Package {
        from: path.to_owned(),
        place: format!("rpm/packages/{name}-{version}.{architecture}.rpm"),
        kind: Kind::Rpm,
        architecture: architecture.to_owned(),
        control: String::new(),
        built: built.parse().with_context(|| format!("built at {built:?}"))?,
        identity: identity.to_owned(),
    })
}

/// A field that stands on one line; names are the same in capitals and in small letters.
fn value<'a>(control: &'a str, field: &str) -> Option<&'a str> {
    let mut fields = control.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, value)| value.trim())
}

/// What is part of a path must not lead elsewhere.
fn plain(part: &str) -> Result<()> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "+-.~:_^".contains(c);
    ensure!(
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(sound),
        "{part:?} can be no part of a path"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_repository() {
        for part in ["onenet-agent", "0.1.0~rc1-1", "1:2.0+dfsg", "x86_64"] {
            plain(part).expect(part);
        }
        for part in ["", "..", "../etc", "a/b", ".hidden", "-option", "two words", "a\nb"] {
            assert!(plain(part).is_err(), "{part:?}");
        }
    }

    #[test]
    fn a_field_is_found_whatever_its_letters_and_not_in_a_description() {
        let control = "Package: a\nversion:  1-1 \nDescription: short\n Size: 3\n";
        assert_eq!(value(control, "Version"), Some("1-1"));
        assert_eq!(value(control, "Size"), None);
    }
}
