//! What was planted: the findings that must come of the captures, and what must not raise any.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use onenet_core::{
    plan::InterfacePlan,
    record::{RuleId, Subject},
};
use serde::{Deserialize, Serialize};

/// One finding that must be raised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planted {
    /// The rule.
    pub rule: RuleId,
    /// What the finding is about, as [`incident`] writes it.
    pub key: String,
    /// Sites whose packets show it. Where there are two, each alone shows nothing, or both show the same.
    pub sites: Vec<String>,
    /// Whether only both sites' records together show it, so that the collector must raise it.
    pub collector_only: bool,
    /// Secretariats it touches.
    pub secretariats: Vec<String>,
    /// How it was planted.
    pub planted: String,
}

/// Traffic that looks like an incident and is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Innocent {
    /// The rules that must not name it.
    pub rules: Vec<RuleId>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What it does.
    pub what: String,
}

/// One capture file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileTruth {
    /// Site.
    pub site: String,
    /// Interface, as in the interface settings.
    pub interface: String,
    /// Packets in it.
    pub packets: u64,
    /// Bytes of those packets on the wire.
    pub wire_bytes: u64,
    /// Of them, ARP messages.
    pub arp: u64,
    /// Conversations: different pairs of addresses and ports, whoever began, for each VLAN and protocol,
    /// tunnels not opened. Flows differ where a pair comes again after a timeout.
    pub conversations: u64,
}

/// One site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteTruth {
    /// Packets in both its captures.
    pub packets: u64,
    /// Their bytes.
    pub wire_bytes: u64,
    /// Its captures and what the sensor is told of them.
    pub interfaces: Vec<InterfaceTruth>,
}

/// One interface of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceTruth {
    /// The capture file.
    pub file: String,
    /// Name, role and router, as in the interface settings.
    #[serde(flatten)]
    pub plan: InterfacePlan,
}

/// `truth.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Seed.
    pub seed: u64,
    /// Scale of the ordinary traffic.
    pub scale: f64,
    /// Sites by name.
    pub sites: BTreeMap<String, SiteTruth>,
    /// Capture files by name.
    pub files: BTreeMap<String, FileTruth>,
    /// Findings that must be raised, and no others.
    pub findings: Vec<Planted>,
    /// What must not raise any.
    pub must_not: Vec<Innocent>,
}

/// What makes an incident one, in one text: the rule and the addresses it is about.
pub fn incident(rule: RuleId, subject: &Subject) -> String {
    let text = |address: Option<IpAddr>| address.map_or_else(|| "?".to_owned(), |ip| ip.to_string());
    let about = match rule {
        RuleId::OverlapAddress | RuleId::AddressDuplicate | RuleId::GatewayMac | RuleId::DhcpRogue => {
            text(subject.address)
        }
        RuleId::OverlapDeclared
        | RuleId::OverlapRouted
        | RuleId::AddressUndeclared
        | RuleId::AddressMisplaced => {
            subject.prefix.map_or_else(|| "?".to_owned(), |prefix| prefix.to_string())
        }
        RuleId::ClaimDark => "claims".to_owned(),
        RuleId::LeakPrivate | RuleId::SpoofInbound | RuleId::ScanHorizontal => text(subject.source),
        RuleId::FloodSyn => text(subject.target),
        // No traffic plants these.
        RuleId::SensorBlind
        | RuleId::SensorLoss
        | RuleId::SensorGap
        | RuleId::SensorFork
        | RuleId::SensorRollback
        | RuleId::SensorSilent
        | RuleId::SensorClock
        | RuleId::SensorSeal
        | RuleId::SensorShed => "sensor".to_owned(),
        RuleId::ScanVertical | RuleId::Beacon => {
            format!("{}>{}", text(subject.source), text(subject.target))
        }
    };
    format!("{rule}|{about}")
}

/// Findings against truth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Incidents that were planted and found.
    pub found: BTreeSet<String>,
    /// Incidents that were planted and not found.
    pub missing: BTreeSet<String>,
    /// Incidents that were found and not planted.
    pub unexpected: BTreeSet<String>,
}

impl Comparison {
    /// Whether findings and truth are the same set.
    pub fn is_equal(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty()
    }
}

impl Truth {
    /// Compares incidents, as [`incident`] writes them, with what was planted. With `site` stated only what
    /// those sites show alone is expected.
    pub fn compare(&self, found: impl IntoIterator<Item = String>, site: Option<&str>) -> Comparison {
        // That a sensor is not heard once its captures are read is true, and says nothing of the traffic.
        let of_traffic = |incident: &String| !incident.starts_with(RuleId::SensorSilent.as_str());
        let found: BTreeSet<String> = found.into_iter().filter(of_traffic).collect();
        let expected = self.findings.iter().filter(|planted| match site {
            Some(site) => !planted.collector_only && planted.sites.iter().any(|s| s == site),
            None => true,
        });
        let expected: BTreeSet<String> = expected.map(|planted| planted.key.clone()).collect();
        Comparison {
            missing: expected.difference(&found).cloned().collect(),
            unexpected: found.difference(&expected).cloned().collect(),
            found: found.intersection(&expected).cloned().collect(),
        }
    }
}
