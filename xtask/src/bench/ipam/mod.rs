//! `cargo xtask bench ipam`: the size that the side of addresses must hold. A plan with ten thousand claims and a million addresses
//! in use: what the edge needs for them, what the collector needs to judge all of them by a changed plan, and what an
//! import of as many rows takes.

mod edge;
mod import;
mod judge;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    captures::{Capture, make},
    delivery, document,
    measure::{Outcome, Taken, measure},
    rounds::grouped,
};
use crate::{
    programs::{output, path},
    say,
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Inside addresses in use.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=4_000_000))]
    addresses: u32,
    /// Claims of the plan.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(300..=100_000))]
    prefixes: u32,
    /// Rows of addresses that are imported.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=4_000_000))]
    rows: u32,
    /// Folder of onenet-agent, onenet-collector and onenet-load; they are built as they are shipped where none is named.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["edge", "judge", "import"])]
    only: Vec<Part>,
    /// Print, and leave docs/benchmarks.md as it is; so do other sizes than the default ones.
    #[arg(long)]
    dry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Edge,
    Judge,
    Import,
}

/// MiB of the edge's peak memory at most.
const MEMORY: f64 = 200.0;
/// Seconds in which everything is judged by a changed plan.
const JUDGED: f64 = 5.0;
/// Seconds of an import.
const IMPORTED: f64 = 30.0;

/// What the parts share.
struct Bench {
    programs: PathBuf,
    folder: PathBuf,
    addresses: u32,
    prefixes: u32,
    rows: u32,
}

/// Lines of one part, and its targets: what, at most, and what was measured.
#[derive(Default)]
struct Report {
    text: String,
    targets: Vec<(String, f64, f64)>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let programs = match &arguments.programs {
        Some(programs) => programs.clone(),
        None => super::build(&[
            ("onenet-agent", "onenet-agent"),
            ("onenet-collector", "onenet-collector"),
            ("onenet-tests", "onenet-load"),
        ])?,
    };
    let &Arguments { addresses, prefixes, rows, dry, .. } = arguments;
    let bench = Bench { programs, folder: super::folder()?.join("ipam"), addresses, prefixes, rows };
    delivery::empty(&bench.folder)?;
    let machine = document::machine();
    let measured = bench.parts(&arguments.only);
    // A capture of this size is not left behind, however it ended.
    fs::remove_dir_all(&bench.folder).with_context(|| bench.folder.display().to_string())?;
    let Report { text, targets } = measured?;
    let text = format!("\n{machine}\n\n{text}{}\n", judgement(&targets));
    println!("{text}");
    let is_full = (addresses, prefixes, rows, arguments.only.len()) == (1_000_000, 10_000, 1_000_000, 3);
    if is_full && !dry {
        document::write("ipam", &text)?;
    }
    let met = targets.iter().all(|(_, most, figure)| figure <= most);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn judgement(targets: &[(String, f64, f64)]) -> String {
    let mut text = "| target | measured | |\n|---|--:|---|\n".to_owned();
    for (what, most, figure) in targets {
        let verdict = if figure <= most { "met" } else { "not met" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {figure:.1} | {verdict} |");
    }
    text
}

impl Bench {
    fn parts(&self, only: &[Part]) -> Result<Report> {
        let mut report = Report::default();
        if only.contains(&Part::Edge) || only.contains(&Part::Judge) {
            self.generate(&["plan", path(&self.plan())?, "--prefixes", &self.prefixes.to_string()])?;
            let count = self.addresses.to_string();
            let capture = make(
                &self.program("onenet-load"),
                &self.folder,
                "addresses",
                "addresses",
                &["--addresses", &count],
            )?;
            let count = |name: &str| grouped(capture.count(name));
            // Writing to a string cannot fail.
            let _ = writeln!(
                report.text,
                "The capture: {} packets, {} MB, {} s; {} addresses, of which {} are in use in two address spaces. The plan: \
                 {} claims.\n",
                count("packets"),
                grouped(capture.count("file_bytes") / 1_000_000),
                count("seconds"),
                count("addresses"),
                count("shared"),
                grouped(self.prefixes.into()),
            );
            if only.contains(&Part::Edge) {
                edge::run(self, &capture, &mut report)?;
            }
            if only.contains(&Part::Judge) {
                judge::run(self, &capture, &mut report)?;
            }
        }
        if only.contains(&Part::Import) {
            import::run(self, &mut report)?;
        }
        Ok(report)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn plan(&self) -> PathBuf {
        self.folder.join("plan.toml")
    }

    /// Runs `onenet-load`; what it says is in what it wrote.
    fn generate(&self, words: &[&str]) -> Result<Value> {
        say(&format!("onenet-load {}", words.first().copied().unwrap_or_default()));
        Ok(serde_json::from_str(&output(&self.program("onenet-load"), words)?)?)
    }

    /// Measures a program that must succeed; what it took, and what it said.
    fn measure(&self, name: &str, words: &[&str]) -> Result<(Taken, String)> {
        let command: Vec<String> =
            [path(&self.program(name))?].iter().chain(words).map(|word| (*word).to_owned()).collect();
        self.measure_any(&command)
    }

    fn measure_any(&self, command: &[String]) -> Result<(Taken, String)> {
        match measure(command, delivery::LIMIT, &self.folder.join("said.txt"))? {
            Outcome::Done(taken, said) => Ok((taken, said)),
            Outcome::Failed(why) => anyhow::bail!(why),
        }
    }

    /// The agent's configuration: flows leave soon, so that what is measured is addresses.
    fn agent_config(&self, folder: &Path, capture: &Capture, limits: Limits) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let config = folder.join("agent.toml");
        let room = u64::from(self.addresses) + capture.count("shared") + 1_000;
        let limits = match limits {
            Limits::Default => String::new(),
            Limits::All => format!("[detect.observe]\nlimit = {room}\n[detect.overlap]\nlimit = {room}\n"),
        };
        fs::write(
            &config,
            format!(
                "plan = {:?}\n[sensor]\nname = \"boston-1\"\nsite = \"boston\"\nstate_dir = {:?}\n\
                 [[source]]\nkind = \"pcap-file\"\npath = {:?}\ninterface = \"inside0\"\n\
                 [[interface]]\nname = \"inside0\"\nrole = \"inside\"\nrouter_macs = [\"02:ed:6e:00:00:01\"]\n\
                 [flow]\ntcp_idle_seconds = 10\nclosing_seconds = 1\n{limits}",
                self.plan(),
                folder.join("state"),
                capture.path
            ),
        )?;
        Ok(config)
    }
}

/// How many addresses the edge remembers at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limits {
    /// As many as it does when nothing is said.
    Default,
    /// All that there are.
    All,
}

/// A number of a JSON text, by its path.
fn number(text: &Value, path: &str) -> Result<u64> {
    let found = text.pointer(path).and_then(Value::as_u64);
    found.with_context(|| format!("no number at {path}"))
}

/// Fails unless a count is what it must be.
fn ensure_is(what: &str, counted: u64, expected: u64) -> Result<()> {
    ensure!(counted == expected, "{what}: {counted}, expected {expected}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_up_to_its_bound() {
        let text = judgement(&[("a".to_owned(), 5.0, 5.0), ("b".to_owned(), 5.0, 5.1)]);
        assert!(text.ends_with("| a | 5.0 | met |\n| b | 5.1 | not met |\n"), "{text}");
    }
}
