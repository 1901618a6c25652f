//! `cargo xtask package --test`: the packages are installed, used as a packager's page says, upgraded, removed and purged,
//! in systems of their own, with systemd as the first process.

mod deb;
mod host;
mod hostile;
mod rpm;
mod story;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use super::{
    Format,
    layout::{self, Parts},
    packages,
};
use crate::{
    say,
    setup::{self, Need, Purpose},
    target,
};

/// The version that is installed over the one under test.
const LATER: &str = "99.1.0";

/// Makes the system that packages are installed in.
pub(crate) const DEBOOTSTRAP: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "debootstrap, which makes the system that packages are installed in",
    probe: "PATH=$PATH:/usr/sbin command -v debootstrap",
    debian: &["debootstrap"],
    fedora: &["debootstrap"],
};

/// Where the packages of both versions are.
struct Shelf {
    /// The folder that a system sees as /srv.
    folder: PathBuf,
}

impl Shelf {
    /// Makes it: `now` with these packages, `later` with those of the version after.
    fn new(parts: &Parts<'_>, made: &[PathBuf], maintainer: &str, folder: &Path) -> Result<Self> {
        let folder = layout::fresh(folder.to_owned())?;
        let now = folder.join("now");
        fs::create_dir(&now)?;
        for package in made {
            fs::copy(package, now.join(package.file_name().context("a package without a name")?))?;
        }
        let later = Parts { later: Some(LATER), ..*parts };
        packages(&later, &[Format::Deb, Format::Rpm], maintainer, &folder.join("later"))?;
        Ok(Self { folder })
    }
}

/// What can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Test {
    /// .deb on a clean machine: installation, first finding, upgrade, downgrade, removal, purge.
    Deb,
    /// .deb where systemd does not run, as when an image is made.
    Chroot,
    /// Both where something is wrong: no user database, a read-only /etc, a full /var, a kernel that shows no BTF.
    Hostile,
    /// .rpm on a clean machine: installation, first finding, upgrade, downgrade, removal.
    Rpm,
}

/// Installs these packages, and fails where they do not do what a packager is told.
pub(super) fn run(tests: &[Test], parts: &Parts<'_>, made: &[PathBuf], maintainer: &str) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "packages are installed in systems of their own, which only root can make: run this as root"
    );
    setup::try_install(&DEBOOTSTRAP)?;
    let shelf = Shelf::new(parts, made, maintainer, &target().join("package-test/shelf"))?;
    let all = Test::value_variants();
    for test in if tests.is_empty() { all } else { tests } {
        let name = test.to_possible_value().context("a test without a name")?;
        say(&format!("{}: {}", name.get_name(), name.get_help().context("a test without a word on it")?));
        match test {
            Test::Deb => deb::story(&shelf)?,
            Test::Chroot => deb::chroot(&shelf)?,
            Test::Hostile => hostile::packages(&shelf)?,
            Test::Rpm => rpm::story(&shelf)?,
        }
    }
    Ok(())
}
