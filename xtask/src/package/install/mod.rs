//! `cargo xtask package --test`: the packages are installed, used as a packager's page says, upgraded, removed and purged,
//! in systems of their own, with systemd as the first process.

mod deb;
mod host;
mod hostile;
pub(crate) mod lint;
mod rpm;
mod shelf;
mod story;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::layout::Parts;
use crate::{
    repo, say,
    setup::{self, Need, Purpose},
    target,
};
pub(in crate::package) use host::refusal;
use shelf::Shelf;

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

/// What can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Test {
    /// What lintian, rpmlint and systemd-analyze say.
    Lint,
    /// .deb on a clean machine: installation by apt from a signed repository, first finding, upgrade, downgrade, removal, purge.
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
    let all = Test::value_variants();
    let tests = if tests.is_empty() { all } else { tests };
    if tests.contains(&Test::Lint) {
        say("lint: what lintian, rpmlint and systemd-analyze say");
        lint::check(made)?;
        lint::exposure()?;
    }
    if tests.iter().all(|test| *test == Test::Lint) {
        return Ok(());
    }
    if let Some(why) = refusal()? {
        bail!("packages are installed in systems of their own, which cannot be made here: {why}");
    }
    for need in [&DEBOOTSTRAP, &repo::GPG, &repo::CREATEREPO] {
        setup::try_install(need)?;
    }
    let shelf = Shelf::new(parts, made, maintainer, &target().join("package-test/shelf"))?;
    for test in tests.iter().filter(|test| **test != Test::Lint) {
        let name = test.to_possible_value().context("a test without a name")?;
        say(&format!("{}: {}", name.get_name(), name.get_help().context("a test without a word on it")?));
        match test {
            Test::Lint => {}
            Test::Deb => deb::story(&shelf)?,
            Test::Chroot => deb::chroot(&shelf)?,
            Test::Hostile => hostile::packages(&shelf)?,
            Test::Rpm => rpm::story(&shelf)?,
        }
    }
    Ok(())
}
