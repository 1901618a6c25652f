//! What the distributions' own checkers of packages say.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::super::units;
use crate::setup::{self, Need, Purpose, SYSTEMD_ANALYZE};

/// For .deb.
pub(crate) const LINTIAN: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "lintian, which checks Debian packages",
    probe: "command -v lintian",
    debian: &["lintian"],
    fedora: &["lintian"],
};

/// For .rpm.
pub(crate) const RPMLINT: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "rpmlint, which checks RPM packages",
    probe: "command -v rpmlint",
    debian: &["rpmlint"],
    fedora: &["rpmlint"],
};

/// Fails where lintian has a warning or rpmlint an error that no override of ours explains.
pub(super) fn check(made: &[PathBuf]) -> Result<()> {
    let of = |kind: &str| {
        made.iter().filter(|file| file.extension().is_some_and(|its| its == kind)).collect::<Vec<_>>()
    };
    setup::try_install(&LINTIAN)?;
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root", "--tag-display-limit", "0"]).args(of("deb"));
    passes("lintian", &mut lintian)?;
    setup::try_install(&RPMLINT)?;
    let mut rpmlint = Command::new("rpmlint");
    rpmlint.arg("--config").arg(crate::workspace().join("packaging/rpm/rpmlint.toml")).args(of("rpm"));
    passes("rpmlint", &mut rpmlint)
}

fn passes(name: &str, command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let told = told.trim();
    ensure!(output.status.success(), "{name} finds fault:\n{told}");
    println!("  ok: {name}: {}", told.lines().last().unwrap_or("nothing to say"));
    Ok(())
}

/// Fails where a unit leaves its service more exposed than it may be, by systemd's own reckoning.
pub(super) fn exposure() -> Result<()> {
    setup::try_install(&SYSTEMD_ANALYZE)?;
    for (unit, tenths) in units::LIMITS {
        let found = units::exposure(unit)?;
        ensure!(
            found <= tenths,
            "{unit} is exposed by {}, {} at most",
            units::shown(found),
            units::shown(tenths)
        );
        println!("  ok: {unit}: exposed by {}, {} at most", units::shown(found), units::shown(tenths));
    }
    Ok(())
}
