//! The status as metrics: Prometheus's text format (version 0.0.4), for node_exporter's textfile collector or whoever
//! reads files. A router needs no listening socket for it.

use std::fmt::Write as _;

use serde_json::Value;

/// A metric: its name, what kind it is, what it means, and where the status has it.
type Metric = (&'static str, Kind, &'static str, &'static str);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

const PLAIN: &[Metric] = &[
    ("up", Kind::Gauge, "Whether the agent runs", "running"),
    ("packets_total", Kind::Counter, "Packets handed to the engine", "packets"),
    ("wire_bytes_total", Kind::Counter, "Their bytes on the wire", "wire_bytes"),
    ("packets_parsed_total", Kind::Counter, "Packets counted to a flow or understood as ARP", "parsed"),
    ("flow_records_total", Kind::Counter, "Flow records written", "flow_records"),
    ("observations_total", Kind::Counter, "Observations written", "observations"),
    ("finding_changes_total", Kind::Counter, "Changes of findings written", "finding_changes"),
    ("live_flows", Kind::Gauge, "Flows that are live", "live_flows"),
    ("batches_sealed_total", Kind::Counter, "Batches sealed in this epoch", "batches_sealed"),
    ("batches_acked_total", Kind::Counter, "Of them, those that the collector has", "batches_acked"),
    ("spool_bytes", Kind::Gauge, "Bytes in the spool", "spool_bytes"),
    ("spool_limit_bytes", Kind::Gauge, "Bytes it may take", "spool_limit_bytes"),
    ("spool_oldest_seconds", Kind::Gauge, "Age of the oldest batch that waits", "spool_oldest_seconds"),
    ("spool_segments", Kind::Gauge, "Segment files in the spool", "spool_segments"),
    (
        "spool_reserve_bytes",
        Kind::Gauge,
        "Bytes kept back for a full disk, while they are",
        "spool_reserve_bytes",
    ),
    (
        "spool_disk_full",
        Kind::Gauge,
        "Whether the disk is full and the reserve given back",
        "spool_disk_full",
    ),
    ("spool_damaged_records_total", Kind::Counter, "Damaged records found", "spool_damaged_records"),
    ("spool_skipped_bytes_total", Kind::Counter, "Damaged bytes between records", "spool_skipped_bytes"),
    ("spool_torn_bytes_total", Kind::Counter, "Bytes of torn writes cut off at start", "spool_torn_bytes"),
    ("spool_quarantine_bytes", Kind::Gauge, "Bytes in quarantine", "spool_quarantine_bytes"),
    (
        "spool_quarantine_dropped_total",
        Kind::Counter,
        "Files that the quarantine had no room for",
        "spool_quarantine_dropped",
    ),
    (
        "plan_version",
        Kind::Gauge,
        "Version of the collector's address plan in use, 0 for the sensor's own",
        "plan_version",
    ),
    ("plans_refused_total", Kind::Counter, "Plans of the collector that were refused", "plan_refused"),
    ("cosigned_batch", Kind::Gauge, "Last batch that the collector has signed for", "cosigned_batch"),
    ("collector_set_back", Kind::Gauge, "Whether the collector is refused as set back", "collector_set_back"),
    ("connected", Kind::Gauge, "Whether the collector is connected", "connected"),
];

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// The metrics of a status.
pub(crate) fn of(status: &Value) -> String {
    let mut out = String::new();
    for &(name, kind, help, key) in PLAIN {
        if let Some(value) = status.get(key).and_then(number) {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "onenet_agent_{name} {value}");
        }
    }
    if let Some(untrusted) = status.get("collector_untrusted") {
        head(&mut out, "collector_refused", Kind::Gauge, "Whether the collector is not trusted");
        let _ = writeln!(out, "onenet_agent_collector_refused {}", u8::from(!untrusted.is_null()));
    }
    let unparsed =
        ("packets_unparsed_total", Kind::Counter, "Packets that could not be parsed", "unparsed_by");
    labelled(&mut out, status, unparsed, &["layer", "reason"], "packets");
    let dropped = ("packets_dropped_total", Kind::Counter, "Packets lost or left out", "dropped_by");
    labelled(&mut out, status, dropped, &["stage"], "packets");
    let lost = ("records_lost_total", Kind::Counter, "Records shed, as signed loss records say", "losses");
    labelled(&mut out, status, lost, &["what", "reason"], "count");
    let sources = ("source_packets_total", Kind::Counter, "Packets of a source", "sources");
    labelled(&mut out, status, sources, &["name", "method"], "packets");
    source_errors(&mut out, status);
    accounts(&mut out, status);
    out
}

/// What interfaces counted themselves, and what became of it.
fn accounts(out: &mut String, status: &Value) {
    const PARTS: &[(&str, Kind, &str, &str)] = &[
        ("interface_packets_total", Kind::Counter, "Packets that an interface itself counted", "wire"),
        ("interface_captured_total", Kind::Counter, "Of them, packets that the sensor took", "captured"),
        (
            "interface_dropped_total",
            Kind::Counter,
            "Packets known to be lost behind the interface",
            "dropped",
        ),
        ("interface_filtered_total", Kind::Counter, "Packets that the filter left out", "filtered"),
        ("interface_unexplained", Kind::Gauge, "Packets that it counted and nothing explains", "unexplained"),
    ];
    let sources = status.get("sources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let with_account = || sources.iter().filter_map(|source| Some((source, source.get("account")?)));
    if with_account().next().is_none() {
        return;
    }
    for &(name, kind, help, key) in PARTS {
        head(out, name, kind, help);
        for (source, account) in with_account() {
            let value = account.get(key).and_then(Value::as_i64).unwrap_or_default();
            let _ = writeln!(out, "onenet_agent_{name}{} {value}", labels(source, &["name"]));
        }
    }
}

/// Whether each source is well: what is read by libpcap for want of eBPF is, and says so in its method.
fn source_errors(out: &mut String, status: &Value) {
    let sources = status.get("sources").and_then(Value::as_array);
    let sources = sources.map(Vec::as_slice).unwrap_or_default();
    if sources.is_empty() {
        return;
    }
    head(out, "source_up", Kind::Gauge, "Whether a source is read without an error");
    for source in sources {
        let up = u8::from(source.get("error").is_none_or(Value::is_null));
        let _ = writeln!(out, "onenet_agent_source_up{} {up}", labels(source, &["name"]));
    }
}

fn head(out: &mut String, name: &str, kind: Kind, help: &str) {
    let _ = writeln!(out, "# HELP onenet_agent_{name} {help}");
    let _ = writeln!(out, "# TYPE onenet_agent_{name} {}", kind.as_str());
}

/// One metric for each entry of a list, with these of its texts as labels.
fn labelled(out: &mut String, status: &Value, (name, kind, help, list): Metric, keys: &[&str], value: &str) {
    let entries = status.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() {
        return;
    }
    head(out, name, kind, help);
    for entry in entries {
        let value = entry.get(value).and_then(number).unwrap_or_default();
        let _ = writeln!(out, "onenet_agent_{name}{} {value}", labels(entry, keys));
    }
}

fn labels(entry: &Value, keys: &[&str]) -> String {
    let mut text = String::from("{");
    for key in keys {
        let value = entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{}{key}=\"{value}\"", if text.len() > 1 { "," } else { "" });
    }
    text.push('}');
    text
}

/// A number, or whether something is.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_bool().map(u64::from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_prometheus_text_format() {
        let status = json!({
            "running": true, "connected": false, "packets": 12, "parsed": 11, "spool_oldest_seconds": null,
            "collector_untrusted": "it was set back", "spool_disk_full": true, "cosigned_batch": 7,
            "plan_version": 9, "plan_refused": 2,
            "unparsed_by": [{"layer": "network", "reason": "truncated", "packets": 1}],
            "dropped_by": [{"stage": "kernel", "packets": 7}],
            "losses": [{"what": "flow", "reason": "spool-full", "count": 3, "bytes": 300}],
            "sources": [
                {"name": "eth0", "method": "libpcap, because \"no\\go\"\n", "packets": 9,
                    "account": {"wire": 12, "captured": 9, "dropped": 2, "filtered": 0, "unexplained": -1}},
                {"name": "eth1", "method": "tcx ingress", "packets": 3, "error": "it went away"},
            ],
        });
        let text = of(&status);
        for line in [
            "# TYPE onenet_agent_packets_total counter\nonenet_agent_packets_total 12\n",
            "# TYPE onenet_agent_connected gauge\nonenet_agent_connected 0\n",
            "onenet_agent_up 1\n",
            "onenet_agent_collector_refused 1\n",
            "onenet_agent_spool_disk_full 1\n",
            "onenet_agent_cosigned_batch 7\n",
            "# TYPE onenet_agent_plan_version gauge\nonenet_agent_plan_version 9\n",
            "onenet_agent_plans_refused_total 2\n",
            "onenet_agent_packets_unparsed_total{layer=\"network\",reason=\"truncated\"} 1\n",
            "onenet_agent_packets_dropped_total{stage=\"kernel\"} 7\n",
            "onenet_agent_records_lost_total{what=\"flow\",reason=\"spool-full\"} 3\n",
            "{name=\"eth0\",method=\"libpcap, because \\\"no\\\\go\\\"\\n\"} 9\n",
            "onenet_agent_source_up{name=\"eth0\"} 1\nonenet_agent_source_up{name=\"eth1\"} 0\n",
            "onenet_agent_interface_packets_total{name=\"eth0\"} 12\n",
            "onenet_agent_interface_unexplained{name=\"eth0\"} -1\n",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        assert!(!text.contains("oldest"), "{text}");
    }
}
