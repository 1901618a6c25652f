//! Runs the programs that read, compress and sign, and turns what they complain of into one line.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// What the program printed; where it fails, the last line of its complaint is the error.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C").output();
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        // rpmkeys complains on its standard output.
        let last = last_line(&[output.stderr, output.stdout].concat());
        let last = last.unwrap_or_else(|| output.status.to_string());
        // Most say themselves who they are.
        bail!("{name}: {}", last.trim_start_matches(&format!("{name}: ")));
    }
    Ok(output.stdout)
}

/// Why the command failed, in one line; nothing where it did not.
pub(crate) fn refusal(command: &mut Command) -> Result<Option<String>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(None);
    }
    Ok(Some(last_line(&output.stderr).unwrap_or_else(|| "it does not say why".to_owned())))
}

/// The last line that says anything.
fn last_line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    said.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

/// What the program printed, as `run` gives it, as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    String::from_utf8(run(command)?).with_context(|| format!("{name} printed no UTF-8"))
}

/// SHA-256 of a file, in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let printed = text(Command::new("sha256sum").arg("-").stdin(Stdio::from(file)))?;
    let sum = printed.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(sum.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_download_is_told_in_one_line_and_a_granted_one_is_not() {
        let shell = |line: &str| refusal(Command::new("sh").args(["-c", line])).expect("it runs");
        assert_eq!(shell("exit 0"), None);
        let why = shell("echo 'cloning' >&2; echo 'fatal: no such host' >&2; echo >&2; exit 1");
        assert_eq!(why.as_deref(), Some("fatal: no such host"));
        assert_eq!(shell("exit 1").as_deref(), Some("it does not say why"));
    }
}
