//! The rpm repository: packages, each signed where a key is stated, and lists by createrepo_c.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{apt::copy, key::Keys, packages::Package, write};
use crate::{
    package::{Moment, names},
    tool,
};

/// Makes `rpm` in the folder `fresh`, for hosts that may have read the lists in `served` just before.
pub(super) fn make(
    packages: &[&Package],
    moment: Moment,
    keys: Option<&Keys>,
    fresh: &Path,
    served: &Path,
) -> Result<()> {
    let keyring = keys.map(|keys| Keyring::new(keys, fresh)).transpose()?;
    for package in packages {
        let to = fresh.join(&package.place);
        copy(&package.from, &to)?;
        match &keyring {
            Some(keyring) => keyring.sign(&to)?,
            // The lists tell the times of the files.
            None => {
                let built = std::time::UNIX_EPOCH + Duration::from_secs(package.built);
                fs::File::open(&to).and_then(|file| file.set_modified(built)).context("cannot set a time")?;
            }
        }
    }
    drop(keyring);
    let root = fresh.join("rpm");
    tool::run(
        Command::new("createrepo_c")
            .args(["--quiet", "--no-database", "--checksum", "sha256", "--general-compress-type", "gz"])
            .args(["--revision", &moment.0.to_string(), "--set-timestamp-to-revision"])
            .arg(&root),
    )?;
    let data = root.join("repodata");
    if let Some(keys) = keys {
        keys.sign_apart(&data.join("repomd.xml"), &data.join("repomd.xml.asc"))?;
    }
    keep(&served.join("rpm/repodata"), &data)
}

/// A host that read repomd.xml just before the switch asks for what it names just after it.
fn keep(served: &Path, data: &Path) -> Result<()> {
    let Ok(named) = fs::read_to_string(served.join("repomd.xml")) else { return Ok(()) };
    for name in names(served)? {
        if named.contains(&format!("\"repodata/{name}\"")) && !data.join(&name).exists() {
            copy(&served.join(&name), &data.join(&name))?;
        }
    }
    Ok(())
}

/// What rpm needs to verify by the key, in a folder that goes.
struct Keyring<'a> {
    keys: &'a Keys,
    folder: PathBuf,
    gpg: String,
}

impl<'a> Keyring<'a> {
    fn new(keys: &'a Keys, fresh: &Path) -> Result<Self> {
        // rpm runs GnuPG by its whole path only.
        let gpg = tool::text(Command::new("sh").args(["-c", "command -v gpg"]))?.trim().to_owned();
        let folder = fresh.join("rpm-keyring");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let keyring = Self { keys, folder, gpg };
        let file = keyring.folder.join("key.asc");
        write(&file, keys.public())?;
        tool::run(keyring.rpmkeys().arg("--import").arg(&file))?;
        Ok(keyring)
    }

    fn rpmkeys(&self) -> Command {
        let mut rpmkeys = Command::new("rpmkeys");
        rpmkeys.arg("--dbpath").arg(&self.folder);
        // Without this a package that nobody signed passes.
        rpmkeys.args(["--define", "_pkgverify_level all"]);
        rpmkeys
    }

    fn verify(&self, package: &Path) -> Result<()> {
        tool::run(self.rpmkeys().arg("--checksig").arg(package)).map(drop)
    }

    /// Signs a package, unless it bears the signature already: a package that is served keeps its bytes.
    fn sign(&self, package: &Path) -> Result<()> {
        if self.verify(package).is_ok() {
            return Ok(());
        }
        let name = format!("_gpg_name {}", self.keys.fingerprint());
        let mut rpmsign = self.keys.known_to("rpmsign");
        rpmsign.args(["--resign", "--define", &name, "--define", &format!("__gpg {}", self.gpg)]);
        let signed = tool::run(rpmsign.arg(package)).and_then(|_| self.verify(package));
        signed.with_context(|| format!("cannot sign {}", package.display()))
    }
}

impl Drop for Keyring<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a host states, in /etc/yum.repos.d.
pub(super) fn repo(url: &str, name: &str, signed: bool) -> String {
    let check = u8::from(signed);
    let key = if signed { format!("gpgkey={url}/onenet.asc\n") } else { String::new() };
    format!(
        "[onenet]\nname={name}\nbaseurl={url}/rpm\nenabled=1\ngpgcheck={check}\nrepo_gpgcheck={check}\n{key}"
    )
}
