//! `cargo xtask repo`: a folder of packages becomes repositories that apt and dnf read, signed where a key is stated.
//! Packages of earlier versions stay, and clients see either the whole old state or the whole new one.

mod apt;
mod key;
mod packages;
mod place;
mod rpm;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    package::{DPKG_DEB, Moment},
    say,
    setup::{self, Need, Purpose},
    target,
};
use key::Keys;
use packages::Kind;

/// What to serve, and how.
#[derive(Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the packages; `packages` beside what cargo builds where none is named.
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Folder to make the repositories in; `repository` beside what cargo builds where none is named.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Serve the packages of the folder only, and drop those that the repositories have beside them.
    #[arg(long)]
    only: bool,
    /// Sign by this secret key: fingerprint or e-mail address.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Give this public key to the hosts, too, because it is to sign later.
    #[arg(long, value_name = "KEY", requires = "key")]
    next_key: Option<String>,
    /// GnuPG's folder, where it is not its own choice.
    #[arg(long, value_name = "DIR")]
    gnupg_home: Option<PathBuf>,
    /// Suite of the apt repository.
    #[arg(long, value_name = "WORD", default_value = "stable", value_parser = word)]
    suite: String,
    /// Who the packages come from, for hosts that prefer some by their origin.
    #[arg(long, value_name = "TEXT", default_value = "One Network", value_parser = line)]
    origin: String,
    /// Where the hosts find the folder.
    #[arg(long, value_name = "URL", default_value = "https://packages.onenet.example", value_parser = url)]
    url: String,
}

/// For the lists of an rpm repository.
pub(crate) const CREATEREPO: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "createrepo_c, which makes the lists of an rpm repository",
    probe: "command -v createrepo_c",
    debian: &["createrepo-c"],
    fedora: &["createrepo_c"],
};

/// For signatures.
pub(crate) const GPG: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "GnuPG, which signs repositories",
    probe: "command -v gpg && command -v gpgconf && command -v gpg-agent",
    debian: &["gpg", "gpgconf", "gpg-agent"],
    fedora: &["gnupg2"],
};

/// For packages that are in an rpm repository.
pub(crate) const RPM: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "rpm and rpmsign, which read and sign RPM packages",
    probe: "command -v rpm && command -v rpmkeys && command -v rpmsign",
    debian: &["rpm"],
    fedora: &["rpm", "rpm-sign"],
};

/// For the lists of an apt repository.
pub(crate) const XZ: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "xz, which compresses the lists of an apt repository",
    probe: "command -v xz",
    debian: &["xz-utils"],
    fedora: &["xz"],
};

/// For the tests only: a client.
pub(crate) const DNF: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "dnf, which reads an rpm repository in a test",
    probe: "command -v dnf",
    debian: &["dnf"],
    fedora: &["dnf"],
};

/// Installs what is missing, makes the repositories and says where they are.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let folder = arguments.packages.clone().unwrap_or_else(|| target().join("packages"));
    let out = arguments.out.clone().unwrap_or_else(|| target().join("repository"));
    let found = packages::find(&folder)?;
    let kept = if arguments.only { Vec::new() } else { packages::kept(&out)? };
    let kinds = |kind| found.iter().chain(&kept).any(|(_, k)| *k == kind);
    if kinds(Kind::Deb) {
        setup::try_install(&DPKG_DEB)?;
        setup::try_install(&XZ)?;
    }
    if kinds(Kind::Rpm) {
        setup::try_install(&RPM)?;
        setup::try_install(&CREATEREPO)?;
    }
    if arguments.key.is_some() {
        setup::try_install(&GPG)?;
    }
    for path in make(arguments, &folder, &out, Moment::of_source()?)? {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the repositories in a folder beside `out`, and puts it in the place of `out` when all is there.
fn make(arguments: &Arguments, folder: &Path, out: &Path, moment: Moment) -> Result<Vec<PathBuf>> {
    let keys = Keys::find(arguments)?;
    let mut fresh = place::Fresh::beside(out)?;
    let out = fresh.out().to_owned();
    check(arguments, &out)?;
    apt::not_before(moment, &out, &arguments.suite)?;
    let found = packages::find(folder)?;
    let kept = if arguments.only { Vec::new() } else { packages::kept(&out)? };
    let packages = packages::read(&kept, &found, keys.is_some())?;
    match &keys {
        Some(keys) => {
            say(&format!("signing by {}", keys.fingerprint()));
            let given = out.join("onenet.asc");
            if given.exists() && !keys.known_by(&given) {
                say(
                    "hosts that have the onenet.asc served so far refuse this: give them the new one by another way",
                );
            }
        }
        None => say(
            "nothing is signed: a host must state [trusted=yes] (apt), or gpgcheck=0 and repo_gpgcheck=0 (dnf), as the files do",
        ),
    }
    let (debs, rpms) = packages.split();
    let mut made = Vec::new();
    if !debs.is_empty() {
        let about = apt::About { suite: &arguments.suite, origin: &arguments.origin, moment };
        apt::make(&debs, &about, keys.as_ref(), fresh.path(), &out)?;
        let sources = apt::sources(&arguments.url, &arguments.suite, keys.is_some());
        write(&fresh.path().join("onenet.sources"), &sources)?;
        made.extend([out.join("apt"), out.join("onenet.sources")]);
    }
    if !rpms.is_empty() {
        rpm::make(&rpms, moment, keys.as_ref(), fresh.path(), &out)?;
        let repo = rpm::repo(&arguments.url, &arguments.origin, keys.is_some());
        write(&fresh.path().join("onenet.repo"), &repo)?;
        made.extend([out.join("rpm"), out.join("onenet.repo")]);
    }
    if let Some(keys) = &keys {
        write(&fresh.path().join("onenet.asc"), keys.public())?;
        made.push(out.join("onenet.asc"));
    }
    fresh.switch()?;
    say(&format!(
        "{} Debian and {} RPM packages, {} of them served before",
        debs.len(),
        rpms.len(),
        packages.kept
    ));
    Ok(made)
}

/// Refuses what the hosts that read `out` already could not follow.
fn check(arguments: &Arguments, out: &Path) -> Result<()> {
    let signed = out.join("onenet.asc").exists();
    ensure!(
        !signed || arguments.key.is_some(),
        "{} is signed, and its hosts refuse what is not: state --key, or another --out",
        out.display()
    );
    let dists = out.join("apt/dists");
    if dists.exists() {
        for suite in crate::package::names(&dists)? {
            ensure!(
                suite == arguments.suite,
                "{} serves the suite {suite}: state --suite {suite}, or another --out",
                out.display()
            );
        }
    }
    Ok(())
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// For paths and for fields of one word.
fn word(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.starts_with(['.', '-']) || !text.chars().all(plain) {
        return Err("expected a word of letters, digits, - _ and .".to_owned());
    }
    Ok(text.to_owned())
}

/// For fields: one line.
fn line(text: &str) -> Result<String, String> {
    if text.trim() != text || text.is_empty() || text.chars().any(char::is_control) {
        return Err("expected one line without blanks at its ends".to_owned());
    }
    Ok(text.to_owned())
}

fn url(text: &str) -> Result<String, String> {
    let scheme = ["https://", "http://", "file:/"].iter().any(|scheme| text.starts_with(scheme));
    if !scheme || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("expected https://…, http://… or file:/…".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}
