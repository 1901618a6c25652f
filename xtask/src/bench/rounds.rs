//! Runs several programs in turn on one file, round after round, so that a busy moment of the machine meets all of
//! them, and makes a table of the medians.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{
    measure::{Outcome, Taken, measure, median},
    peers::Seen,
};
use crate::say;

/// One that takes longer than this is not run again: its figure is not the one that decides.
const SLOW: f64 = 8.0;

/// Reads from what a program said what it saw; fails where that is not what is in the capture.
pub(crate) type Check<'a> = Box<dyn Fn(&str) -> Result<Seen> + 'a>;

/// A program in the run.
pub(crate) struct Runner<'a> {
    pub(crate) name: String,
    /// Its command line; called before each run.
    pub(crate) command: Box<dyn Fn() -> Result<Vec<String>> + 'a>,
    pub(crate) check: Check<'a>,
    /// Seconds that it sleeps before it begins.
    pub(crate) sleeps: f64,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) runs: Vec<Taken>,
    pub(crate) seen: Seen,
    /// Why there are no figures.
    pub(crate) failure: Option<String>,
}

impl Row {
    /// Median of a figure over the rounds.
    pub(crate) fn median(&self, of: impl Fn(&Taken) -> f64) -> Option<f64> {
        median(self.runs.iter().map(of).collect())
    }

    /// Processor seconds.
    pub(crate) fn cpu(&self) -> Option<f64> {
        self.median(|taken| taken.cpu)
    }
}

/// Runs all of them so many times, or until a slow one has been run once. `said` is a file to write to.
pub(crate) fn run(runners: &[Runner<'_>], rounds: usize, limit: Duration, said: &Path) -> Result<Vec<Row>> {
    let fresh = |runner: &Runner<'_>| Row {
        name: runner.name.clone(),
        runs: Vec::new(),
        seen: Seen::default(),
        failure: None,
    };
    let mut rows: Vec<Row> = runners.iter().map(fresh).collect();
    for round in 1..=rounds {
        for (runner, row) in runners.iter().zip(&mut rows) {
            if row.failure.is_some() || row.runs.iter().any(|taken| taken.cpu > SLOW) {
                continue;
            }
            match measure(&(runner.command)()?, limit, said)? {
                Outcome::Done(mut taken, heard) => {
                    taken.wall -= runner.sleeps;
                    match (runner.check)(&heard) {
                        Ok(seen) => row.seen = seen,
                        Err(error) => row.failure = Some(format!("{error:#}")),
                    }
                    row.runs.push(taken);
                    let Taken { wall, cpu, peak } = taken;
                    let name = &row.name;
                    say(&format!(
                        "{round}: {name}: {cpu:.2} s processor, {wall:.2} s elapsed, {peak:.0} MiB"
                    ));
                }
                Outcome::Failed(why) => row.failure = Some(why),
            }
            if let Some(failure) = &row.failure {
                say(&format!("{round}: {}: FAILED: {failure}", row.name));
            }
        }
    }
    Ok(rows)
}

/// The table in Markdown. Ratios are those of processor time to the rows of these names.
pub(crate) fn table(rows: &[Row], packets: u64, yardsticks: &[(&str, &str)]) -> String {
    let base: Vec<(&str, Option<f64>)> = yardsticks
        .iter()
        .map(|(name, title)| (*title, rows.iter().find(|row| row.name == *name).and_then(Row::cpu)))
        .collect();
    let mut text =
        "| program | CPU s (median) | least | elapsed s | Mpps of CPU | peak MiB | flows |".to_owned();
    for (title, _) in &base {
        text += &format!(" {title} |");
    }
    text += "\n|---|--:|--:|--:|--:|--:|--:|";
    text += &"--:|".repeat(base.len());
    text.push('\n');
    for row in rows {
        let Some(cpu) = row.cpu() else {
            let why = row.failure.as_deref().and_then(|why| why.lines().next()).unwrap_or("not run");
            let why = why.split(':').next().unwrap_or(why);
            text += &format!("| {} | {why} |{}\n", row.name, " |".repeat(5 + base.len()));
            continue;
        };
        let least = row.runs.iter().map(|taken| taken.cpu).fold(f64::INFINITY, f64::min);
        let wall = row.median(|taken| taken.wall).unwrap_or_default();
        let peak = row.median(|taken| taken.peak).unwrap_or_default();
        let flows = row.seen.flows.map_or_else(|| "–".to_owned(), grouped);
        let speed = packets as f64 / 1e6 / cpu.max(0.001);
        text += &format!(
            "| {} | {cpu:.2} | {least:.2} | {wall:.2} | {speed:.2} | {peak:.0} | {flows} |",
            row.name
        );
        for (_, base) in &base {
            match base {
                Some(base) => text += &format!(" {:.2} |", cpu / base.max(0.001)),
                None => text += " – |",
            }
        }
        text.push('\n');
    }
    text
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, cpu: &[f64]) -> Row {
        let runs = cpu.iter().map(|cpu| Taken { wall: cpu * 2.0, cpu: *cpu, peak: 10.4 }).collect();
        let seen = Seen { packets: None, flows: Some(1_234_567) };
        Row { name: name.to_owned(), runs, seen, failure: None }
    }

    #[test]
    fn the_table_has_medians_and_ratios() {
        let mut broken = row("broken", &[]);
        broken.failure = Some("killed after 120 s: broken".to_owned());
        let rows = [row("floor", &[0.5, 0.4, 0.6]), row("ours", &[1.0]), broken];
        let text = table(&rows, 2_000_000, &[("floor", "to the floor")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "| floor | 0.50 | 0.40 | 1.00 | 4.00 | 10 | 1,234,567 | 1.00 |");
        assert_eq!(lines[3], "| ours | 1.00 | 1.00 | 2.00 | 2.00 | 10 | 1,234,567 | 2.00 |");
        assert_eq!(lines[4], "| broken | killed after 120 s | | | | | | |");
        let columns = |line: &str| line.matches('|').count();
        assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{text}");
    }
}
