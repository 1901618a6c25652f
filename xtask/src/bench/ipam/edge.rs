//! What the edge needs: peak memory of the agent that has told every address as answered.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{super::captures::Capture, Bench, MEMORY, Report, ensure_is, number};
use crate::{
    bench::{captures::make, rounds::grouped},
    programs::path,
    say,
};

/// Addresses of a capture that shows what the agent needs without addresses.
const FEW: &str = "1000";

pub(super) fn run(bench: &Bench, capture: &Capture, report: &mut Report) -> Result<()> {
    let few = make(&bench.program("onenet-load"), &bench.folder, "few", "addresses", &["--addresses", FEW])?;
    let config = bench.agent_config(&bench.folder.join("read"), capture)?;
    let summary = bench.folder.join("summary.json");
    let read = |capture: &Capture| {
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
        bench.measure("onenet-agent", &words)
    };
    say("onenet-agent read, few addresses and then all");
    let (small, _) = read(&few)?;
    let (all, _) = read(capture)?;
    let told: Value = serde_json::from_slice(&std::fs::read(&summary)?)?;
    // Each use is told when it begins, and once more when its conversation is over.
    let flows = capture.count("flows");
    let observations = number(&told, "/observations/total")?;
    ensure_is("observations", observations, 2 * flows)?;
    let more = (capture.count("addresses") - few.count("addresses")).max(1);
    let bytes = (all.peak - small.peak) * f64::from(1 << 20) / more as f64;
    // Writing to a string cannot fail.
    let _ = writeln!(
        report.text,
        "| onenet-agent read | elapsed s | observations | peak MiB | bytes an address |\n|---|--:|--:|--:|--:|\n\
         | {} addresses | {:.1} | {} | {:.0} | – |\n| {} addresses | {:.1} | {} | {:.0} | {bytes:.0} |\n",
        grouped(few.count("addresses")),
        small.wall,
        grouped(2 * few.count("flows")),
        small.peak,
        grouped(capture.count("addresses")),
        all.wall,
        grouped(observations),
        all.peak,
    );
    let what = format!("peak memory of `onenet-agent read`, MiB, at most {MEMORY:.0}");
    report.targets.push((what, MEMORY, all.peak));
    Ok(())
}
