//! What a system under test finds at /srv: the packages under test, those of a version after, and a signed repository.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    super::{
        Format,
        layout::{self, Parts},
        packages,
    },
    LATER,
};

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
        Ok(shelf)
    }

    /// Serves these packages beside those that are served, by the command that a packager uses.
    pub(super) fn serve(&self, packages: &str) -> Result<()> {
        let mut repo = Command::new(std::env::current_exe()?);
        repo.args(["repo", "--url", "file:/srv/repository", "--key", KEY, "--gnupg-home"]).arg(&self.keys);
        repo.arg("--packages").arg(self.folder.join(packages));
        repo.arg("--out").arg(self.folder.join("repository"));
        succeeds(&mut repo)
    }

    fn gpg(&self, words: &[&str]) -> Result<()> {
        succeeds(Command::new("gpg").args(["--batch", "--quiet", "--homedir"]).arg(&self.keys).args(words))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(&self.keys).args(["--kill", "all"]).output();
        let _ = fs::remove_dir_all(&self.keys);
    }
}

fn succeeds(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
