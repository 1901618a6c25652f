//! Keys and signatures, by GnuPG. A secret key never leaves it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Arguments;
use crate::tool;

/// The key that signs, and what hosts are given.
pub(super) struct Keys {
    fingerprint: String,
    home: Option<PathBuf>,
    public: String,
}

impl Keys {
    /// Those that the arguments state, if any.
    pub(super) fn find(arguments: &Arguments) -> Result<Option<Self>> {
        let Some(stated) = &arguments.key else { return Ok(None) };
        let home = arguments.gnupg_home.clone();
        let fingerprint = find(stated, home.as_deref(), "--list-secret-keys", "sec")?;
        let next = arguments.next_key.as_ref();
        let next = next.map(|stated| find(stated, home.as_deref(), "--list-keys", "pub")).transpose()?;
        let mut export = gpg(home.as_deref());
        // Signatures of others say nothing to a host.
        export.args(["--armor", "--export-options", "export-minimal", "--export", &fingerprint]).args(next);
        let public = tool::text(&mut export)?;
        Ok(Some(Self { fingerprint, home, public }))
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The public key, and the next one.
    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// Whether hosts that were given this file know the key that signs.
    pub(super) fn known_by(&self, file: &Path) -> bool {
        let listed = tool::text(gpg(self.home.as_deref()).args(["--with-colons", "--show-keys"]).arg(file));
        listed.is_ok_and(|listed| listed.contains(&format!(":{}:", self.fingerprint)))
    }

    /// The text with a signature around it.
    pub(super) fn sign_around(&self, file: &Path, to: &Path) -> Result<()> {
        self.sign("--clearsign", file, to)
    }

    /// A signature apart from what it is of.
    pub(super) fn sign_apart(&self, file: &Path, to: &Path) -> Result<()> {
        self.sign("--detach-sign", file, to)
    }

    fn sign(&self, how: &str, file: &Path, to: &Path) -> Result<()> {
        let mut gpg = gpg(self.home.as_deref());
        gpg.args(["--armor", "--local-user", &self.fingerprint, "--output"]).arg(to).arg(how).arg(file);
        tool::run(&mut gpg).map(drop).with_context(|| format!("cannot sign by {}", self.fingerprint))
    }

    /// A command that asks GnuPG by itself, such as rpmsign.
    pub(super) fn known_to(&self, program: &str) -> Command {
        with_home(program, self.home.as_deref())
    }
}

fn with_home(program: &str, home: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    if let Some(home) = home {
        command.env("GNUPGHOME", home);
    }
    command
}

fn gpg(home: Option<&Path>) -> Command {
    let mut gpg = with_home("gpg", home);
    // A passphrase is asked by the agent, in a window or terminal of its own.
    gpg.args(["--batch", "--yes", "--no-tty"]);
    gpg
}

/// The fingerprint of the one key that is meant.
fn find(stated: &str, home: Option<&Path>, list: &str, record: &str) -> Result<String> {
    // The record of what was not found is an exit code, like that of a home that is none.
    let listed = gpg(home).args(["--with-colons", list, "--", stated]).output().context("cannot run gpg")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let fields: Vec<Vec<&str>> = listed.lines().map(|line| line.split(':').collect()).collect();
    let mut found = Vec::new();
    for (at, key) in fields.iter().enumerate().filter(|(_, fields)| fields.first() == Some(&record)) {
        let rest = fields.iter().skip(at).find(|fields| fields.first() == Some(&"fpr"));
        let fingerprint =
            rest.and_then(|fields| fields.get(9)).context("gpg lists a key without fingerprint")?;
        found.push(((*fingerprint).to_owned(), key.get(1).copied().unwrap_or_default()));
    }
    let kind = if record == "sec" { "secret" } else { "public" };
    match &found[..] {
        [] => bail!("GnuPG has no {kind} key {stated}: gpg {list} shows those it has"),
        [(fingerprint, validity)] => {
            ensure!(*validity != "e", "the key {fingerprint} has expired");
            ensure!(*validity != "r", "the key {fingerprint} has been revoked");
            Ok(fingerprint.clone())
        }
        several => bail!("{stated} fits {} {kind} keys: state a fingerprint", several.len()),
    }
}
