//! Finding changes as Elastic Common Schema (ECS 9) documents. What ECS has no field for stands under
//! `onenet.`; `docs/siem.md` states each field. Pure: a change in, JSON out.

use std::{collections::BTreeSet, net::IpAddr};

use onenet_core::{
    net::{Name, protocol_keyword},
    record::{Change, RuleId, Severity},
};
use serde_json::{Map, Value, json};

use super::rfc5424::{Level, Message};
use crate::correlate::{Finding, RecordedChange, State};

/// Version of ECS that the documents follow.
pub(crate) const ECS_VERSION: &str = "9.0.0";

/// How much of a finding's evidence goes into a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// All of it.
    Full,
    /// Counts and scores only, for receivers that cut long messages.
    Brief,
}

/// The event id of a change: the same however often it is sent.
pub(crate) fn event_id(finding: &Finding) -> String {
    format!("{}-{}", finding.finding_id, finding.revision)
}

/// One finding change as an ECS alert.
pub(crate) fn finding_event(recorded: &RecordedChange, detail: Detail) -> Value {
    let finding = &recorded.finding;
    let mut document = Map::new();
    document.insert("@timestamp".to_owned(), json!(finding.time));
    document.insert("ecs".to_owned(), json!({ "version": ECS_VERSION }));
    document.insert("message".to_owned(), json!(finding.summary));
    document.insert("event".to_owned(), event(recorded));
    document.insert(
        "rule".to_owned(),
        json!({
            "id": finding.rule,
            "name": finding.rule.title(),
            "version": finding.rule_version.to_string(),
            "ruleset": "onenet",
        }),
    );
    if let Some(threat) = threat(finding.rule) {
        document.insert("threat".to_owned(), threat);
    }
    insert_endpoints(&mut document, finding);
    document.insert("observer".to_owned(), observer(finding));
    document.insert("related".to_owned(), json!({ "ip": related_ips(finding) }));
    if let [only] = finding.secretariats.as_slice() {
        document.insert("organization".to_owned(), json!({ "id": only }));
    }
    document.insert("tags".to_owned(), json!(["onenet", finding.rule]));
    document.insert("onenet".to_owned(), json!({ "finding": own_fields(finding, detail) }));
    Value::Object(document)
}

fn event(recorded: &RecordedChange) -> Value {
    let finding = &recorded.finding;
    json!({
        "id": event_id(finding),
        "kind": "alert",
        "category": categories(finding.rule),
        "type": ["info"],
        "action": action(finding.change),
        "module": "onenet",
        "dataset": "onenet.finding",
        "provider": "onenet-collector",
        "severity": severity_number(finding.severity),
        "risk_score": risk(finding),
        "reason": finding.summary,
        "sequence": recorded.sequence,
        "created": recorded.recorded,
        "start": finding.first_seen,
        "end": finding.last_seen,
        "duration": finding.last_seen.since(finding.first_seen),
    })
}

/// ECS values of event.category. An address in use twice and a leak are faults of the network; the rest is
/// somebody's doing.
fn categories(rule: RuleId) -> &'static [&'static str] {
    match rule {
        RuleId::OverlapAddress
        | RuleId::LeakPrivate
        | RuleId::OverlapDeclared
        | RuleId::OverlapRouted
        | RuleId::AddressDuplicate
        | RuleId::AddressUndeclared
        | RuleId::AddressMisplaced
        | RuleId::ClaimDark => &["network"],
        RuleId::SensorFork | RuleId::SensorRollback | RuleId::SensorSeal => &["host", "intrusion_detection"],
        RuleId::SensorBlind
        | RuleId::SensorLoss
        | RuleId::SensorGap
        | RuleId::SensorSilent
        | RuleId::SensorClock
        | RuleId::SensorShed => &["host"],
        RuleId::SpoofInbound
        | RuleId::ScanHorizontal
        | RuleId::ScanVertical
        | RuleId::FloodSyn
        | RuleId::Beacon
        | RuleId::GatewayMac
        | RuleId::DhcpRogue => &["intrusion_detection", "network"],
    }
}

const fn action(change: Change) -> &'static str {
    match change {
        Change::Raised => "finding-raised",
        Change::Updated => "finding-updated",
        Change::Closed => "finding-closed",
    }
}

/// The severity numbers that Elastic's own detection rules use, so that ours sort among theirs.
const fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 21,
        Severity::Medium => 47,
        Severity::High => 73,
        Severity::Critical => 99,
    }
}

/// Severity weighted by confidence, 0 to 99, rounded down.
fn risk(finding: &Finding) -> u16 {
    u16::from(severity_number(finding.severity)) * u16::from(finding.confidence.min(100)) / 100
}

/// The ATT&CK entries of a rule: tactic, technique and, where the rule names one, sub-technique.
fn threat(rule: RuleId) -> Option<Value> {
    let technique = rule.technique()?;
    let (tactic_id, tactic, technique_name, sub_name) = match technique {
        "T1046" => ("TA0007", "Discovery", "Network Service Discovery", None),
        "T1498.001" => ("TA0040", "Impact", "Network Denial of Service", Some("Direct Network Flood")),
        "T1557.002" => {
            ("TA0006", "Credential Access", "Adversary-in-the-Middle", Some("ARP Cache Poisoning"))
        }
        "T1557.003" => ("TA0006", "Credential Access", "Adversary-in-the-Middle", Some("DHCP Spoofing")),
        "T1071" => ("TA0011", "Command and Control", "Application Layer Protocol", None),
        _ => return None,
    };
    let parent = technique.split('.').next().unwrap_or(technique);
    let mut entry = json!({ "id": [parent], "name": [technique_name] });
    if let (Some(sub_name), Some(fields)) = (sub_name, entry.as_object_mut()) {
        fields.insert("subtechnique".to_owned(), json!({ "id": [technique], "name": [sub_name] }));
    }
    Some(json!({
        "framework": "MITRE ATT&CK",
        "tactic": { "id": [tactic_id], "name": [tactic] },
        "technique": entry,
    }))
}

/// `source`, `destination` and `network`, as far as the subject states them. The address of an overlap is the
/// source: the address that traffic in either space comes from.
fn insert_endpoints(document: &mut Map<String, Value>, finding: &Finding) {
    let subject = &finding.subject;
    let source = subject.source.or(subject.address);
    if let Some(ip) = source {
        document.insert("source".to_owned(), json!({ "ip": ip, "address": ip }));
    }
    let mut destination = Map::new();
    if let Some(ip) = subject.target {
        destination.insert("ip".to_owned(), json!(ip));
        destination.insert("address".to_owned(), json!(ip));
    }
    if let Some(port) = subject.port {
        destination.insert("port".to_owned(), json!(port));
    }
    if !destination.is_empty() {
        document.insert("destination".to_owned(), Value::Object(destination));
    }
    let mut network = Map::new();
    if let Some(ip) = source.or(subject.target) {
        network.insert("type".to_owned(), json!(network_type(ip)));
    }
    if let Some(protocol) = subject.protocol {
        network.insert("iana_number".to_owned(), json!(protocol.to_string()));
        if let Some(name) = protocol_keyword(protocol) {
            network.insert("transport".to_owned(), json!(name));
        }
    }
    if !network.is_empty() {
        document.insert("network".to_owned(), Value::Object(network));
    }
}

/// ECS value of network.type.
pub(crate) const fn network_type(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

fn observer(finding: &Finding) -> Value {
    let mut observer = json!({
        "name": joined(&finding.sources),
        "type": "sensor",
        "vendor": "One Network",
        "product": "onenet",
        "version": env!("CARGO_PKG_VERSION"),
    });
    let Some(fields) = observer.as_object_mut() else { return observer };
    if !finding.sites.is_empty() {
        fields.insert("geo".to_owned(), json!({ "name": joined(&finding.sites) }));
    }
    if let [only] = finding.interfaces.as_slice() {
        fields.insert("ingress".to_owned(), json!({ "interface": { "name": only } }));
    }
    observer
}

/// Several names in a field of one value; each by itself stands under `onenet.finding`.
fn joined(names: &[Name]) -> String {
    names.join(",")
}

fn related_ips(finding: &Finding) -> BTreeSet<IpAddr> {
    let subject = &finding.subject;
    let named = [subject.source, subject.target, subject.address].into_iter().flatten();
    named.chain(finding.evidence.observations.iter().map(|o| o.address)).collect()
}

/// What only this project knows of a finding.
fn own_fields(finding: &Finding, detail: Detail) -> Value {
    let owners = finding.secretariats.iter().enumerate().map(|(index, id)| {
        let contact = finding.contacts.get(index).filter(|contact| !contact.is_empty());
        json!({ "id": id, "contact": contact })
    });
    let mut fields = json!({
        "id": finding.finding_id,
        "key": finding.key,
        "state": finding.state,
        "change": finding.change,
        "revision": finding.revision,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "sites": finding.sites,
        "sources": finding.sources,
        "address_spaces": finding.address_spaces,
        "secretariats": owners.collect::<Vec<_>>(),
        "counts": finding.evidence.counts,
        "scores": finding.evidence.scores,
    });
    if let Some(fields) = fields.as_object_mut() {
        if let Some(prefix) = finding.subject.prefix {
            fields.insert("prefix".to_owned(), json!(prefix));
        }
        if let Some(verdict) = finding.evidence.verdict {
            fields.insert("verdict".to_owned(), json!(verdict));
        }
        if detail == Detail::Full {
            fields.insert("flow_ids".to_owned(), json!(finding.evidence.flow_ids));
            fields.insert("observations".to_owned(), json!(finding.evidence.observations));
        }
    }
    fields
}

/// What the parameters of one finding's structured data say, in order.
pub(crate) fn parameters(finding: &Finding) -> Vec<(&'static str, String)> {
    let subject = &finding.subject;
    let mut parameters = vec![
        ("event", event_id(finding)),
        ("finding", finding.finding_id.to_string()),
        ("revision", finding.revision.to_string()),
        ("rule", finding.rule.to_string()),
        ("change", finding.change.to_string()),
        ("state", finding.state.as_str().to_owned()),
        ("severity", finding.severity.to_string()),
        ("confidence", finding.confidence.to_string()),
    ];
    let mut optional = |name, value: Option<String>| parameters.extend(value.map(|value| (name, value)));
    optional("verdict", finding.evidence.verdict.map(|verdict| verdict.to_string()));
    optional("source", subject.source.map(|ip| ip.to_string()));
    optional("target", subject.target.map(|ip| ip.to_string()));
    optional("address", subject.address.map(|ip| ip.to_string()));
    optional("prefix", subject.prefix.map(|prefix| prefix.to_string()));
    optional("port", subject.port.map(|port| port.to_string()));
    optional("protocol", subject.protocol.map(|protocol| protocol.to_string()));
    for (name, values) in [
        ("site", &finding.sites),
        ("space", &finding.address_spaces),
        ("secretariat", &finding.secretariats),
        ("contact", &finding.contacts),
    ] {
        let stated = values.iter().filter(|value| !value.is_empty());
        parameters.extend(stated.map(|value| (name, value.to_string())));
    }
    parameters
}

/// A finding change as a syslog message with `text`.
pub(crate) fn finding_message<'a>(
    finding: &Finding,
    parameters: &'a [(&'static str, String)],
    text: &'a str,
) -> Message<'a> {
    Message {
        level: Level::of(finding.severity, finding.state == State::Closed),
        time: finding.time,
        message_id: "FINDING",
        parameters,
        text,
    }
}

/// The JSON of a document in ASCII: what is beyond is written as `\u` escapes, so that a syslog message that
/// carries it needs no byte order mark, which JSON readers refuse.
pub(crate) fn ascii_json(document: &Value) -> String {
    let text = document.to_string();
    if text.is_ascii() {
        return text;
    }
    let mut out = String::with_capacity(text.len().saturating_mul(2));
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}
