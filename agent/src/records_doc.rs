//! docs/records.md against what is written: every field and every value is in it, and nothing else.

use std::collections::BTreeSet;

use onenet_core::record::{
    Change, ConnState, Counting, Direction, DirectionReason, DropStage, EndReason, IpIdBehaviour, Layer,
    Locality, ObservationKind, Reason, RuleId, Severity, Strength, TunnelKind, Verdict,
};
use serde_json::Value;

use crate::{
    samples,
    source::{CaptureDrops, CaptureReport},
    summary::Summary,
    tally::Tally,
};

const DOCUMENT: &str = include_str!("../../docs/records.md");

/// What stands in backticks in the first column of the tables under a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let mut section = DOCUMENT.lines().skip_while(|line| *line != heading);
    assert!(section.next().is_some(), "docs/records.md has no heading {heading:?}");
    let rows = section.take_while(|line| !line.starts_with('#')).filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect()
}

/// Asserts that the section names the fields of this object, no more and no fewer.
fn assert_fields(heading: &str, object: &Value) {
    let fields: BTreeSet<String> =
        object.as_object().unwrap_or_else(|| panic!("{heading}: an object")).keys().cloned().collect();
    assert_eq!(documented(heading), fields, "docs/records.md, {heading}");
}

fn assert_values<T: std::fmt::Display>(heading: &str, all: &[T]) {
    let values: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(documented(heading), values, "docs/records.md, {heading}");
}

#[test]
fn the_document_names_every_field_of_every_record() {
    let flow: Value = serde_json::from_str(samples::FLOW).expect("JSON");
    assert_fields("## Flow", &flow);
    assert_fields("### Side of a flow", &flow["originator"]);
    assert_fields("### Side of a flow", &flow["responder"]);
    assert_fields("### Tunnel", &flow["tunnel"]);
    assert_fields("### Aggregate", &flow["aggregate"]);
    let observation: Value = serde_json::from_str(samples::OBSERVATION).expect("JSON");
    assert_fields("## Observation", &observation);
    assert_fields("### Stack", &observation["stack"]);
    assert_fields("### Seen signature", &observation["stack"]["signatures"][0]);
    assert_fields("### TCP clock", &observation["stack"]["clock"]);
    assert_fields("### Address sum", &observation["aggregate"]);
    assert_fields("### Top address", &observation["aggregate"]["top"][0]);
    let finding: Value = serde_json::from_str(samples::FINDING).expect("JSON");
    assert_fields("## Finding", &finding);
    assert_fields("### Subject", &finding["subject"]);
    assert_fields("### Evidence", &finding["evidence"]);
    assert_fields("### Observation in evidence", &finding["evidence"]["observations"][0]);
}

#[test]
fn the_document_names_every_field_of_the_summary() {
    let mut tally = Tally::default();
    tally.flow(&samples::flow());
    tally.observation(&samples::observation());
    tally.finding(&samples::finding());
    let ledger = samples::ledger();
    let reports = [CaptureReport {
        name: "a.pcap".into(),
        format: Some("pcap"),
        packets: 12,
        first: None,
        last: None,
        drops: CaptureDrops::default(),
        irregular_blocks: 0,
        size: None,
        bytes_read: 0,
        error: None,
    }];
    let summary = serde_json::to_value(Summary::new(&reports, &ledger, &mut tally)).expect("JSON");
    assert_fields("## Summary", &summary);
    assert_fields("### Capture", &summary["captures"][0]);
    assert_fields("### Ledger", &summary["ledger"]);
    assert_fields("### Unparsed", &summary["ledger"]["unparsed_by"][0]);
    assert_fields("### Dropped", &summary["ledger"]["dropped_by"][0]);
    assert_fields("### Flows in summary", &summary["flows"]);
    assert_fields("### Protocol", &summary["flows"]["by_protocol"][0]);
    assert_fields("### Observations in summary", &summary["observations"]);
    assert_fields("### Finding in summary", &summary["findings"][0]);
    assert_fields("### Talker", &summary["talkers"][0]);
}

#[test]
fn the_document_names_every_value() {
    assert_values("### End reason", EndReason::ALL);
    assert_values("### Connection state", ConnState::ALL);
    assert_values("### Direction", Direction::ALL);
    assert_values("### Direction reason", DirectionReason::ALL);
    assert_values("### Counting", Counting::ALL);
    assert_values("### Locality", Locality::ALL);
    assert_values("### Tunnel kind", TunnelKind::ALL);
    assert_values("### Drop stage", DropStage::ALL);
    assert_values("### Observation kind", ObservationKind::ALL);
    assert_values("### Strength", Strength::ALL);
    assert_values("### IP-ID behaviour", IpIdBehaviour::ALL);
    assert_values("### Verdict", Verdict::ALL);
    assert_values("### Rule", RuleId::ALL);
    assert_values("### Severity", Severity::ALL);
    assert_values("### Change", Change::ALL);
    assert_values("### Layer", Layer::ALL);
    assert_values("### Reason", Reason::ALL);
}
