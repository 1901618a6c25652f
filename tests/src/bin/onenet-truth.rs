//! `onenet-truth`: holds the findings that a collector raised against what was planted.

use std::{fs::File, io::Read, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use onenet_core::record::{RuleId, Subject};
use onenet_tests::traffic::truth::{Comparison, Truth, incident};
use serde::Deserialize;

/// Compares findings, as `onenet-collector findings --format json` prints them, with truth.json. Exit code 0 where
/// both are the same set, 1 where they are not.
#[derive(Debug, Parser)]
#[command(name = "onenet-truth", version)]
struct Arguments {
    /// The truth.json that `onenet-traffic` wrote
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// Rules that are not compared, such as those that need hours
    #[arg(long, value_name = "RULE")]
    without: Vec<RuleId>,
    /// Findings as a JSON array; `-` reads standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    findings: PathBuf,
}

/// What of a finding makes it an incident; the rest is not looked at.
#[derive(Debug, Deserialize)]
struct Finding {
    rule: RuleId,
    subject: Subject,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(comparison) => {
            let Comparison { found, missing, unexpected } = &comparison;
            for (sign, incidents) in [("=", found), ("-", missing), ("+", unexpected)] {
                for incident in incidents {
                    println!("{sign} {incident}");
                }
            }
            ExitCode::from(u8::from(!comparison.is_equal()))
        }
        Err(error) => {
            eprintln!("onenet-truth: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare(arguments: &Arguments) -> Result<Comparison> {
    let file =
        File::open(&arguments.truth).with_context(|| format!("cannot open {}", arguments.truth.display()))?;
    let mut truth: Truth =
        serde_json::from_reader(file).with_context(|| arguments.truth.display().to_string())?;
    let mut text = String::new();
    if arguments.findings.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(&arguments.findings)
            .with_context(|| format!("cannot read {}", arguments.findings.display()))?;
    }
    let findings: Vec<Finding> =
        serde_json::from_str(&text).context("the findings are not a JSON array of findings")?;
    let is_left_out = |rule: &str| arguments.without.iter().any(|without| without.as_str() == rule);
    truth.findings.retain(|planted| !is_left_out(planted.key.split('|').next().unwrap_or_default()));
    let findings: Vec<Finding> =
        findings.into_iter().filter(|finding| !is_left_out(finding.rule.as_str())).collect();
    Ok(truth.compare(findings.iter().map(|finding| incident(finding.rule, &finding.subject)), None))
}
