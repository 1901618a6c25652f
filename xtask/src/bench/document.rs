//! The measured parts of docs/benchmarks.md and docs/sizes.md: each stands between two marks and is replaced as a whole. What is around
//! them is written by people.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{say, workspace};

/// Replaces the part of this name, in the document of benchmarks.
pub(crate) fn write(name: &str, text: &str) -> Result<()> {
    write_in("docs/benchmarks.md", name, text)
}

/// The same in another document, which is named from the workspace.
pub(crate) fn write_in(document: &str, name: &str, text: &str) -> Result<()> {
    let file: PathBuf = workspace().join(document);
    let before = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let after = replaced(&before, name, text)
        .with_context(|| format!("{} has no marks for {name}", file.display()))?;
    fs::write(&file, after).with_context(|| format!("cannot write {}", file.display()))?;
    say(&format!("{document}: wrote {name}"));
    Ok(())
}

fn replaced(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = marks(name);
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

/// What stands between the marks of this name.
#[cfg(test)]
pub(crate) fn part<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (begin, end) = marks(name);
    Some(document.split_once(&begin)?.1.split_once(&end)?.0)
}

fn marks(name: &str) -> (String, String) {
    (format!("<!-- measured: {name} -->\n"), format!("<!-- end: {name} -->\n"))
}

/// The machine and the day, as lines of Markdown. Nothing that names the machine.
pub(crate) fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, label: &str| {
        let line = text.lines().find(|line| line.starts_with(label))?.split_once(':')?.1.trim();
        Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory = memory.unwrap_or_default() >> 20;
    let word = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok();
        output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default().trim().to_owned()
    };
    let kernel = word("uname", "-r");
    let kernel = kernel.split(['-', '+']).next().unwrap_or_default();
    let (day, rust) = (word("date", "+%Y-%m-%d"), word("rustc", "--version"));
    let rust = rust.split(' ').nth(1).unwrap_or_default();
    let system = field(&read("/etc/os-release").replace('=', ":"), "PRETTY_NAME").unwrap_or_default();
    let system = system.trim_matches('"');
    format!(
        "{model}, {cores} cores, {memory} GiB; {system}, Linux {kernel}; Rust {rust}; {day}; load {}",
        load()
    )
}

/// Runnable tasks of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let document =
            "a\n<!-- measured: x -->\nold\n<!-- end: x -->\nb\n<!-- measured: y -->\n<!-- end: y -->\n";
        let after = replaced(document, "x", "new\n").expect("marks");
        assert_eq!(after, document.replace("old", "new"));
        assert_eq!(replaced(document, "z", "new\n"), None);
    }

    #[test]
    fn the_document_has_every_mark() {
        let document = fs::read_to_string(workspace().join("docs/benchmarks.md")).expect("the document");
        for name in ["mix", "syn", "live", "machine", "targets", "budget", "ebpf", "delivery", "ipam"] {
            assert!(replaced(&document, name, "").is_some(), "{name}");
        }
    }
}
