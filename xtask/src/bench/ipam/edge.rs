//! What the edge needs: peak memory of the agent that has told every address as answered.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{super::captures::Capture, Bench, Limits, MEMORY, Report, ensure_is, number};
use crate::{
    bench::{captures::make, measure::Taken, rounds::grouped},
    programs::path,
    say,
};

/// Addresses of a capture that shows what the agent needs without addresses.
const FEW: &str = "1000";

pub(super) fn run(bench: &Bench, capture: &Capture, report: &mut Report) -> Result<()> {
    let few = make(&bench.program("onenet-load"), &bench.folder, "few", "addresses", &["--addresses", FEW])?;
    let flows = capture.count("flows");
    say("onenet-agent read: few addresses, all of them, and all with room for each");
    let (small, _) = read(bench, &few, Limits::Default)?;
    let (usual, told) = read(bench, capture, Limits::Default)?;
    let (roomy, told_once) = read(bench, capture, Limits::All)?;
    // With room for all, each use is told when it begins, and once more when its conversation is over. Without, one that
    // nobody has answered yet is summed, and told by itself once it was answered.
    ensure_is("observations", told_once, 2 * flows)?;
    ensure!(told > flows, "{told} observations of {flows} uses");
    report.text.push_str("| onenet-agent read | elapsed s | observations | peak MiB |\n|---|--:|--:|--:|\n");
    for (what, usage, told) in [
        (format!("{} addresses", grouped(few.count("addresses"))), small, 2 * few.count("flows")),
        (format!("{} addresses, default limits", grouped(capture.count("addresses"))), usual, told),
        (format!("{} addresses, room for each", grouped(capture.count("addresses"))), roomy, told_once),
    ] {
        // Writing to a string cannot fail.
        let _ =
            writeln!(report.text, "| {what} | {:.1} | {} | {:.0} |", usage.wall, grouped(told), usage.peak);
    }
    report.text.push('\n');
    let what = format!("peak memory of `onenet-agent read`, MiB, at most {MEMORY:.0}");
    report.targets.push((what, MEMORY, usual.peak));
    Ok(())
}

/// Reads a capture; what it took, and how many observations it told.
fn read(bench: &Bench, capture: &Capture, limits: Limits) -> Result<(Taken, u64)> {
    let config = bench.agent_config(&bench.folder.join("read"), capture, limits)?;
    let summary = bench.folder.join("summary.json");
    let words = [
        "read",
        "--quiet",
        "--config",
        path(&config)?,
        "--interface",
        "inside0",
        "--flows",
        "/dev/null",
        "--observations",
        "/dev/null",
        "--findings",
        "/dev/null",
        "--summary",
        path(&summary)?,
        path(&capture.path)?,
    ];
    let (usage, _) = bench.measure("onenet-agent", &words)?;
    let told: Value = serde_json::from_slice(&std::fs::read(&summary)?)?;
    Ok((usage, number(&told, "/observations/total")?))
}
