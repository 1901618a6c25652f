//! Runs the programs that read, compress and sign, and turns what they complain of into one line.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// What the program printed; where it fails, the last line of its complaint is the error.
pub(super) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C").output();
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        // rpmkeys complains on its standard output.
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
        let last = last.map_or_else(|| output.status.to_string(), str::to_owned);
        // Most say themselves who they are.
        bail!("{name}: {}", last.trim_start_matches(&format!("{name}: ")));
    }
    Ok(output.stdout)
}

/// The same as text.
pub(super) fn text(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    String::from_utf8(run(command)?).with_context(|| format!("{name} printed no UTF-8"))
}

/// SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let printed = text(Command::new("sha256sum").arg("-").stdin(Stdio::from(file)))?;
    let sum = printed.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(sum.to_owned())
}
