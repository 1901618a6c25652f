//! The apt repository: pool, lists and their checksums. What there is to a list is written here instead of by apt's own
//! tools, which Red Hat's systems do not have.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{key::Keys, packages::Package, write};
use crate::{
    package::{Moment, gzip, piped},
    tool,
};

/// The files of an architecture, which Release has the checksums of.
const LISTS: [&str; 4] = ["Packages", "Packages.gz", "Packages.xz", "Release"];

/// Where each lies once more under its checksum.
const BY_HASH: &str = "by-hash/SHA256";

/// What the lists say of the repository.
pub(super) struct About<'a> {
    pub(super) suite: &'a str,
    pub(super) origin: &'a str,
    pub(super) moment: Moment,
}

/// Makes `apt` in the folder `fresh`, for hosts that may have read the lists in `served` just before.
pub(super) fn make(
    packages: &[&Package],
    about: &About<'_>,
    keys: Option<&Keys>,
    fresh: &Path,
    served: &Path,
) -> Result<()> {
    let mut listed = Vec::new();
    for package in packages {
        let to = fresh.join(&package.place);
        copy(&package.from, &to)?;
        listed.push((package.architecture.as_str(), entry(package, &to)?));
    }
    let dist = PathBuf::from("apt/dists").join(about.suite);
    let architectures = architectures(packages);
    let mut sums = String::new();
    for architecture in &architectures {
        let here = |one: &str| one == *architecture || one == "all";
        let list: Vec<&str> =
            listed.iter().filter(|(one, _)| here(one)).map(|(_, entry)| entry.as_str()).collect();
        let place = format!("main/binary-{architecture}");
        let folder = fresh.join(&dist).join(&place);
        for (name, sum) in lists(&list.join("\n"), about, architecture, &folder)? {
            let size = fs::metadata(folder.join(name))?.len();
            sums += &format!(" {sum} {size:>8} {place}/{name}\n");
        }
        keep(&served.join(&dist).join(place), &folder)?;
    }
    let release = fresh.join(&dist).join("Release");
    let words: Vec<&str> = architectures.into_iter().collect();
    write(&release, checksums(about, &words.join(" "), &sums)?)?;
    if let Some(keys) = keys {
        keys.sign_around(&release, &release.with_file_name("InRelease"))?;
        keys.sign_apart(&release, &release.with_file_name("Release.gpg"))?;
    }
    Ok(())
}

/// Those that there are packages for; one for `all` is for each of them, and only alone it has a list of its own.
fn architectures<'a>(packages: &[&'a Package]) -> BTreeSet<&'a str> {
    let mut all: BTreeSet<&str> = packages.iter().map(|package| package.architecture.as_str()).collect();
    if all.len() > 1 {
        all.remove("all");
    }
    all
}

/// What a list says of a package.
fn entry(package: &Package, file: &Path) -> Result<String> {
    let place = package.place.trim_start_matches("apt/");
    let (size, sum) = (fs::metadata(file)?.len(), tool::sha256(file)?);
    Ok(format!("{}\nFilename: {place}\nSize: {size}\nSHA256: {sum}\n", package.control))
}

/// Writes what there is for an architecture, and gives the SHA-256 of each file.
fn lists(
    list: &str,
    about: &About<'_>,
    architecture: &str,
    folder: &Path,
) -> Result<Vec<(&'static str, String)>> {
    let (suite, origin) = (about.suite, about.origin);
    let release = format!(
        "Archive: {suite}\nOrigin: {origin}\nLabel: {origin}\nComponent: main\nArchitecture: {architecture}\n"
    );
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    write(&folder.join("Packages"), list)?;
    write(&folder.join("Packages.gz"), gzip(list.as_bytes())?)?;
    // Blocks of xz are cut by the number of threads.
    write(&folder.join("Packages.xz"), piped("xz", &["-9", "-T1", "-c"], list.as_bytes())?)?;
    write(&folder.join("Release"), release)?;
    LISTS
        .iter()
        .map(|name| {
            let sum = tool::sha256(&folder.join(name))?;
            copy(&folder.join(name), &folder.join(BY_HASH).join(&sum))?;
            Ok((*name, sum))
        })
        .collect()
}

fn checksums(about: &About<'_>, architectures: &str, sums: &str) -> Result<String> {
    let (suite, origin) = (about.suite, about.origin);
    let date = about.moment.format("%a, %d %b %Y %H:%M:%S UTC")?;
    Ok(format!(
        "Origin: {origin}\nLabel: {origin}\nSuite: {suite}\nCodename: {suite}\nDate: {date}\n\
         Architectures: {architectures}\nComponents: main\nAcquire-By-Hash: yes\nSHA256:\n{sums}"
    ))
}

/// A host that read the checksums just before the switch asks for the lists by them just after it.
fn keep(served: &Path, folder: &Path) -> Result<()> {
    for file in LISTS.map(|name| served.join(name)).iter().filter(|file| file.is_file()) {
        copy(file, &folder.join(BY_HASH).join(tool::sha256(file)?))?;
    }
    Ok(())
}

/// Refuses a moment before that of the lists that are served: apt keeps what it has, and says nothing.
pub(super) fn not_before(moment: Moment, served: &Path, suite: &str) -> Result<()> {
    let release = served.join("apt/dists").join(suite).join("Release");
    let Ok(text) = fs::read_to_string(&release) else { return Ok(()) };
    let date = text.lines().find_map(|line| line.strip_prefix("Date: "));
    let date = date.with_context(|| format!("{} has no date", release.display()))?;
    let seconds = tool::text(Command::new("date").args(["-u", "-d", date, "+%s"]))?;
    let seconds: u64 = seconds.trim().parse().context("date printed no number")?;
    ensure!(
        seconds <= moment.0,
        "{} is of {date}, and hosts ignore what is older: state SOURCE_DATE_EPOCH={seconds} or later",
        served.display()
    );
    Ok(())
}

/// Copies a file with its time, by which hosts and caches tell that they have it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let cannot = || format!("cannot copy {} to {}", from.display(), to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    fs::copy(from, to).with_context(cannot)?;
    let time = fs::metadata(from).and_then(|file| file.modified()).with_context(cannot)?;
    fs::File::open(to).and_then(|file| file.set_modified(time)).with_context(cannot)?;
    // rpmsign writes it.
    fs::set_permissions(to, fs::Permissions::from_mode(0o644)).with_context(cannot)
}

/// What a host states, in /etc/apt/sources.list.d.
pub(super) fn sources(url: &str, suite: &str, signed: bool) -> String {
    let trust = if signed { "Signed-By: /etc/apt/keyrings/onenet.asc" } else { "Trusted: yes" };
    format!("Types: deb\nURIs: {url}/apt\nSuites: {suite}\nComponents: main\n{trust}\n")
}
