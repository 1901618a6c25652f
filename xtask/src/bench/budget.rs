//! `cargo xtask bench budget`: instructions per packet of two small captures, counted by callgrind and held against
//! the committed budget. Instructions do not depend on how busy the machine is, so a test can hold them.
//!
//! What is counted is the program as it is shipped: in the profile of the tests the parts stand in another relation
//! to each other, and a change that matters there may not matter in the field.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{build, captures, document, folder};
use crate::{say, setup, target, workspace};

/// How to count.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Write what was counted as the new budget.
    #[arg(long)]
    update: bool,
}

/// How much more than the budget is a failure, in percent.
const MORE: f64 = 5.0;

/// The captures: name, and how the generator makes them.
const CAPTURES: [(&str, &str, &[&str]); 2] = [
    ("mix", "mix", &["--mib", "16", "--flows", "4000", "--seed", "2"]),
    ("syn", "syn", &["--packets", "40000", "--seed", "2"]),
];

/// What a source file belongs to, by the first of these that its path has; the rest is libraries.
const PARTS: [(&str, &str); 13] = [
    // Rust's own, one of which is called core too.
    ("/library/", REST),
    ("/core/src/decode/", "decode"),
    ("/etherparse", "decode"),
    ("/core/src/flow/", "flow"),
    ("/hashbrown", "flow"),
    ("/ahash", "flow"),
    ("/sha1", "identity"),
    ("/core/src/ipam/", "observe"),
    ("/core/src/detect/", "detect"),
    ("/core/src/findings", "detect"),
    ("/core/src/", "sensor"),
    ("/agent/src/source/", "source"),
    ("/agent/src/", "output"),
];
const REST: &str = "libraries";

/// Instructions per packet of one capture, by part.
type Counted = BTreeMap<String, f64>;

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::install(setup::Purpose::Tests)?;
    let agent = build(&[("onenet-agent", "onenet-agent")])?.join("onenet-agent");
    if !arguments.update {
        return Ok(if within(&agent)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let counted = count(&agent)?;
    let all: serde_json::Map<String, Value> =
        counted.iter().map(|(name, counted)| (name.clone(), json!(rounded(counted)))).collect();
    let mut text = serde_json::to_string_pretty(&Value::Object(all))?;
    text.push('\n');
    fs::write(file(), text).with_context(|| format!("cannot write {}", file().display()))?;
    let table = table(&counted);
    println!("{table}");
    document::write("budget", &format!("\n{table}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Counts what an agent, built as it is shipped, needs, and compares; where it is over the budget, prints the head of the profile.
pub(crate) fn within(agent: &Path) -> Result<bool> {
    let committed = fs::read(file()).with_context(|| format!("cannot read {}", file().display()))?;
    let committed: BTreeMap<String, Counted> =
        serde_json::from_slice(&committed).with_context(|| format!("{}: no budget", file().display()))?;
    let counted = count(agent)?;
    println!("Instructions per packet\n\n{}", table(&counted));
    let mut within = true;
    for (name, counted) in &counted {
        let budget = committed.get(name).context("a capture without a budget; run it with --update")?;
        let (now, then) = (total(counted), total(budget));
        let percent = (now / then - 1.0) * 100.0;
        println!("{name}: {now:.0} instructions a packet, budget {then:.0}: {percent:+.1} %");
        if percent > MORE {
            within = false;
            println!("{name} is over its budget by more than {MORE} %. The parts that grew:");
            for (part, now) in counted {
                let then = budget.get(part).copied().unwrap_or_default();
                if *now > then + 1.0 {
                    println!("  {part}: {now:.0}, was {then:.0}");
                }
            }
            println!("{}", head(&profile(name)?)?);
        } else if percent < -MORE {
            println!("{name} needs less than its budget: commit it with `cargo xtask bench budget --update`");
        }
    }
    Ok(within)
}

/// The committed budget.
fn file() -> PathBuf {
    workspace().join("tests/budget.json")
}

fn profile(name: &str) -> Result<PathBuf> {
    Ok(folder()?.join(format!("budget-{name}.callgrind")))
}

fn total(counted: &Counted) -> f64 {
    counted.values().sum()
}

fn rounded(counted: &Counted) -> Counted {
    counted.iter().map(|(part, count)| (part.clone(), count.round())).collect()
}

/// Counts both captures.
fn count(agent: &Path) -> Result<BTreeMap<String, Counted>> {
    // The generator is made for the tests anyway; what it writes does not depend on how it was built.
    super::cargo(&["build", "--package", "onenet-tests", "--bin", "onenet-load", "--locked"])?;
    let generator = target().join("debug/onenet-load");
    let folder = folder()?;
    let mut all = BTreeMap::new();
    for (name, kind, options) in CAPTURES {
        let capture = captures::make(&generator, &folder, &format!("budget-{name}"), kind, options)?;
        say(&format!("counting the instructions of {name}"));
        let out = profile(name)?;
        let output = Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(agent)
            .args(["read", "--quiet", "--summary", "-", "--flows"])
            .args([&folder.join("budget-flows.ndjson"), &capture.path])
            .output()
            .context("cannot run valgrind")?;
        ensure!(output.status.success(), "valgrind: {}", String::from_utf8_lossy(&output.stderr));
        super::check::summary(&String::from_utf8_lossy(&output.stdout), &capture)?;
        let text = fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
        let packets = capture.count("packets") as f64;
        let by_part = by_part(&text);
        ensure!(!by_part.is_empty(), "{} counts nothing", out.display());
        all.insert(
            name.to_owned(),
            by_part.into_iter().map(|(part, cost)| (part, cost as f64 / packets)).collect(),
        );
    }
    Ok(all)
}

/// Adds up what each line of code cost itself, by the file that the line is in; so what was inlined counts where it
/// was written. The format is that of the Callgrind Format Specification, version 1.
fn by_part(profile: &str) -> BTreeMap<String, u64> {
    let mut names: HashMap<&str, &'static str> = HashMap::new();
    let mut costs: BTreeMap<String, u64> = BTreeMap::new();
    let (mut part, mut of_call) = (REST, false);
    for line in profile.lines() {
        let first = line.as_bytes().first().copied().unwrap_or_default();
        if let Some((kind, name)) = line.split_once('=') {
            match kind {
                "fl" | "fi" | "fe" | "cfi" | "cfl" => {
                    // `(12) path` the first time, `(12)` from then on.
                    let (number, path) = name.split_once(' ').unwrap_or((name, ""));
                    if !path.is_empty() {
                        names.insert(number, part_of(path));
                    }
                    if !kind.starts_with('c') {
                        part = names.get(number).copied().unwrap_or(REST);
                    }
                }
                // The next line tells what the callee cost, which is counted there.
                "calls" => of_call = true,
                _ => {}
            }
        } else if first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'*') {
            let cost = line.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
            if !std::mem::take(&mut of_call) {
                *costs.entry(part.to_owned()).or_default() += cost;
            }
        }
    }
    costs.retain(|_, cost| *cost > 0);
    costs
}

fn part_of(path: &str) -> &'static str {
    // Ours are told from the root of the workspace, or from that of the machine.
    let path = format!("/{path}");
    PARTS.iter().find(|(piece, _)| path.contains(piece)).map_or(REST, |(_, part)| part)
}

/// The head of a profile: the functions that cost most.
fn head(profile: &Path) -> Result<String> {
    let output =
        Command::new("callgrind_annotate").arg(profile).output().context("cannot run callgrind_annotate")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let functions = text.lines().filter(|line| line.contains('%') && line.contains(':'));
    Ok(functions.take(20).collect::<Vec<_>>().join("\n"))
}

fn table(counted: &BTreeMap<String, Counted>) -> String {
    let mut parts: Vec<&str> = PARTS.iter().skip(1).map(|(_, part)| *part).chain([REST]).collect();
    parts.dedup();
    let mut text =
        format!("| capture | {} | total |\n|---|{}--:|\n", parts.join(" | "), "--:|".repeat(parts.len()));
    for (name, counted) in counted {
        text += &format!("| {name} |");
        for part in &parts {
            text += &format!(" {:.0} |", counted.get(*part).copied().unwrap_or_default());
        }
        text += &format!(" {:.0} |\n", total(counted));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_counted_where_they_arise_and_calls_once() {
        let profile = "events: Ir\n\
                       fl=(1) /x/core/src/flow/table.rs\n\
                       fn=(1) account\n\
                       10 100\n\
                       +3 5\n\
                       fi=(2) core/src/decode/ip.rs\n\
                       7 30\n\
                       fe=(1)\n\
                       * 2\n\
                       cfi=(3) /x/library/core/src/num.rs\n\
                       cfn=(2) add\n\
                       calls=4 12\n\
                       -2 9000\n\
                       fl=(3)\n\
                       1 7\n";
        let expected = [("decode", 30), ("flow", 107), (REST, 7)];
        assert_eq!(by_part(profile), expected.map(|(part, cost)| (part.to_owned(), cost)).into());
    }

    #[test]
    fn the_committed_budget_can_be_read_and_has_both_captures() {
        let text = fs::read(file()).expect("the budget");
        let budget: BTreeMap<String, Counted> = serde_json::from_slice(&text).expect("a budget");
        for (name, _, _) in CAPTURES {
            assert!(budget.get(name).is_some_and(|counted| total(counted) > 100.0), "{name}");
        }
    }
}
