//! What a system under test finds at /srv: the packages under test, those of a version after, and a signed repository.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    super::{
        Format,
        layout::{self, Parts},
        packages,
    },
    LATER,
};
use crate::tool;

/// Who signs the repository.
const KEY: &str = "packages@onenet.example";

/// The folder with all of it.
pub(super) struct Shelf {
    pub(super) folder: PathBuf,
    /// GnuPG's, with the key.
    keys: PathBuf,
}

impl Shelf {
    /// Makes it: `now` with these packages, `later` with those of the version after, `repository` with the first.
    pub(super) fn new(parts: &Parts<'_>, made: &[PathBuf], maintainer: &str, folder: &Path) -> Result<Self> {
        let folder = layout::fresh(folder.to_owned())?;
        let now = folder.join("now");
        fs::create_dir(&now)?;
        for package in made {
            fs::copy(package, now.join(package.file_name().context("a package without a name")?))?;
        }
        let later = Parts { later: Some(LATER), ..*parts };
        packages(&later, &[Format::Deb, Format::Rpm], maintainer, &folder.join("later"))?;
        // A short path: GnuPG's agent listens on a socket in it.
        let keys = std::env::temp_dir().join(format!("onenet-keys-{}", std::process::id()));
        let keys = layout::fresh(keys)?;
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o700))?;
        let shelf = Self { folder, keys };
        shelf.gpg(&["--passphrase", "", "--quick-generate-key", KEY, "ed25519", "sign", "never"])?;
        shelf.serve("now")?;
        base_system(&shelf.folder)?;
        Ok(shelf)
    }

    /// Serves these packages beside those that are served, by the command that a packager uses.
    pub(super) fn serve(&self, packages: &str) -> Result<()> {
        // Not by its path: cargo may have put another program there since, as it built everything.
        let mut repo = Command::new(format!("/proc/{}/exe", std::process::id()));
        repo.args(["repo", "--url", "file:/srv/repository", "--key", KEY, "--gnupg-home"]).arg(&self.keys);
        repo.arg("--packages").arg(self.folder.join(packages));
        repo.arg("--out").arg(self.folder.join("repository"));
        tool::run(&mut repo).map(drop)
    }

    fn gpg(&self, words: &[&str]) -> Result<()> {
        tool::run(Command::new("gpg").args(["--batch", "--quiet", "--homedir"]).arg(&self.keys).args(words))
            .map(drop)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(&self.keys).args(["--kill", "all"]).output();
        let _ = fs::remove_dir_all(&self.keys);
    }
}

/// Makes an RPM package of nothing that provides what Enterprise Linux 9 provides, and no more: in a root that rpm knows
/// nothing of, ours are installed only if they ask for no more than that.
fn base_system(folder: &Path) -> Result<()> {
    let (major, glibc) = (2, 34);
    let mut provides: Vec<String> =
        ["/bin/sh", "/usr/sbin/useradd", "rtld(GNU_HASH)", "libpcap.so.1()(64bit)"]
            .map(str::to_owned)
            .to_vec();
    for library in ["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"] {
        provides.push(format!("{library}()(64bit)"));
        // Three of them have a third number.
        let versions = (0..=glibc).map(|minor| minor.to_string());
        for minor in versions.chain(["2.5", "3.2", "3.4"].map(str::to_owned)) {
            provides.push(format!("{library}(GLIBC_{major}.{minor})(64bit)"));
        }
    }
    provides.push("libgcc_s.so.1()(64bit)".to_owned());
    for version in ["3.0", "3.3", "3.3.1", "3.4", "4.2.0", "4.3.0"] {
        provides.push(format!("libgcc_s.so.1(GCC_{version})(64bit)"));
    }
    let spec = folder.join("base.spec");
    let lines: String = provides.iter().map(|one| format!("Provides: {one}\n")).collect();
    fs::write(
        &spec,
        format!(
            "Name: base\nVersion: 9\nRelease: 1\nSummary: Of a system\nLicense: none\n{lines}%description\nNothing.\n%files\n"
        ),
    )?;
    let (build, done) = (folder.join("base"), folder.join("system"));
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--quiet", "--define", &format!("_topdir {}", build.display())]);
    rpmbuild
        .args(["--define", &format!("_rpmdir {}", done.display()), "--define", "_rpmfilename base.rpm"])
        .arg(&spec);
    tool::run(&mut rpmbuild)?;
    fs::remove_dir_all(build)?;
    Ok(())
}
