//! Whether the agent saw what is in a capture: its summary and its flows against the truth.

use std::{fs::File, io::BufRead, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{captures::Capture, peers::Seen};

/// Most flows, beyond those of the truth, that are due to the rules of flows: a tuple that is silent for longer than
/// a timeout is two flows. In thousandths.
const MORE_FLOWS: u64 = 25;

/// Holds a summary of `read` against the truth of its capture. Where SYNs of a flood are merged, fewer flows are
/// right.
pub(crate) fn summary(text: &str, capture: &Capture) -> Result<Seen> {
    let summary: Value = serde_json::from_str(text).context("no summary")?;
    let number = |of: &Value| of.as_u64().unwrap_or_default();
    let ledger = &summary["ledger"];
    ensure!(ledger["balanced"] == true, "the ledger is not balanced");
    // A packet of a tunnel counts to the flows inside and outside.
    let tunnelled = number(&summary["flows"]["tunnelled"]) > 0;
    for (name, counted, may_be_more) in [
        ("packets", number(&ledger["parsed"]), false),
        ("wire_bytes", number(&ledger["wire_bytes"]), false),
        ("packets", sum(&summary, "packets"), tunnelled),
        ("ip_bytes", sum(&summary, "ip_bytes"), tunnelled),
    ] {
        let expected = capture.count(name);
        // Not every generator tells all.
        let right = expected == 0 || counted == expected || may_be_more && counted > expected;
        ensure!(right, "{name}: {counted}, and there are {expected}");
    }
    let (flows, expected) = (number(&summary["flows"]["total"]), capture.count("flows"));
    let fewest = if capture.part("flood").is_some() { 0 } else { expected };
    let most = expected + expected * MORE_FLOWS / 1000;
    ensure!((fewest..=most).contains(&flows), "{flows} flows, and there are {expected}");
    Ok(Seen { packets: Some(number(&ledger["packets"])), flows: Some(flows) })
}

fn sum(summary: &Value, name: &str) -> u64 {
    let protocols = summary["flows"]["by_protocol"].as_array().map(Vec::as_slice).unwrap_or_default();
    protocols.iter().filter_map(|protocol| protocol[name].as_u64()).sum()
}

/// Holds a peer's counts against the truth: it must have seen every packet.
pub(crate) fn peer(seen: Seen, capture: &Capture) -> Result<Seen> {
    let expected = capture.count("packets");
    let packets = seen.packets.unwrap_or(expected);
    ensure!(packets == expected, "it saw {packets} packets, and there are {expected}");
    Ok(seen)
}

/// What became of a flood and of the flows that stand in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FloodSeen {
    /// Connections and lookups among the canaries that were reported as one flow with every packet.
    pub(crate) whole: u64,
    /// Canaries of the truth.
    pub(crate) canaries: u64,
    /// Findings of the flood, by incident.
    pub(crate) findings: u64,
    /// Attempts that the finding states.
    pub(crate) stated: u64,
    /// SYNs of the truth.
    pub(crate) syns: u64,
}

/// Reads flows and findings, as lines of JSON, of a capture with a flood in it; none where its truth tells of none.
pub(crate) fn flood(flows: &Path, findings: &Path, capture: &Capture) -> Result<Option<FloodSeen>> {
    let (Some(canaries), Some(flood)) = (capture.part("canaries"), capture.part("flood")) else {
        return Ok(None);
    };
    let number = |of: &Value| of.as_u64().unwrap_or_default();
    let prefix = canaries["clients"].as_str().context("canaries without clients")?;
    let tcp_packets = number(&canaries["tcp_packets"]);
    let mut seen = FloodSeen {
        canaries: number(&canaries["tcp"]) + number(&canaries["dns"]),
        syns: number(&flood["packets"]),
        ..FloodSeen::default()
    };
    lines(
        flows,
        |line| line.contains(prefix),
        |flow| {
            let packets = |side: &str| number(&flow[side]["packets"]);
            let from_canary = flow["originator"]["ip"].as_str().is_some_and(|ip| ip.starts_with(prefix));
            let expected = if flow["protocol"] == 6 { tcp_packets } else { 2 };
            let complete = packets("originator") + packets("responder") == expected;
            let closed = flow["protocol"] != 6 || flow["conn_state"] == "SF";
            seen.whole += u64::from(from_canary && complete && closed);
        },
    )?;
    let mut incidents = std::collections::HashSet::new();
    lines(
        findings,
        |line| line.contains("flood.syn"),
        |finding| {
            incidents.insert(finding["finding_id"].to_string());
            seen.stated = seen.stated.max(number(&finding["evidence"]["counts"]["attempts"]));
        },
    )?;
    seen.findings = incidents.len() as u64;
    Ok(Some(seen))
}

fn lines(file: &Path, wanted: impl Fn(&str) -> bool, mut each: impl FnMut(Value)) -> Result<()> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    for line in std::io::BufReader::new(opened).lines() {
        let line = line?;
        if wanted(&line) {
            each(serde_json::from_str(&line).with_context(|| format!("{}: not JSON", file.display()))?);
        }
    }
    Ok(())
}
