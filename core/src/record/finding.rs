//! The finding: something that the IPAM team or the SOC must act on, and each change of it.

use std::{collections::BTreeMap, net::IpAddr};

use arrayvec::ArrayVec;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::{
    FindingId, FlowId,
    flow::named_enum,
    observation::{Observation, ObservationKind, Strength},
};
use crate::{
    net::{MacAddress, Name},
    time::Timestamp,
};

named_enum! {
    /// A rule, by its stable id.
    RuleId {
        /// One private address in use in two address spaces.
        OverlapAddress = 0 "overlap.address",
        /// A source that is not globally reachable leaves outside.
        LeakPrivate = 1 "leak.private",
        /// Our own or a bogon source arrives from outside.
        SpoofInbound = 2 "spoof.inbound",
        /// One source tries one service on many hosts.
        ScanHorizontal = 3 "scan.horizontal",
        /// One source tries many ports of one host.
        ScanVertical = 4 "scan.vertical",
        /// Half-open connections flood a target.
        FloodSyn = 5 "flood.syn",
        /// A host calls out at regular intervals.
        Beacon = 6 "beacon",
        /// A hook sees nothing while its interface counts packets.
        SensorBlind = 7 "sensor.blind",
        /// A sensor loses packets.
        SensorLoss = 8 "sensor.loss",
        /// Batches of a sensor are missing from its chain.
        SensorGap = 9 "sensor.gap",
        /// One sensor tells two histories.
        SensorFork = 10 "sensor.fork",
        /// A sensor goes back behind what it has delivered.
        SensorRollback = 11 "sensor.rollback",
        /// A sensor has not been heard for too long.
        SensorSilent = 12 "sensor.silent",
        /// A sensor's clock differs from the collector's, or steps.
        SensorClock = 13 "sensor.clock",
        /// A batch's signature does not hold.
        SensorSeal = 14 "sensor.seal",
        /// A sensor had to give up records.
        SensorShed = 15 "sensor.shed",
        /// Claims of two address spaces share addresses.
        OverlapDeclared = 16 "overlap.declared",
        /// A secretariat's prefix arrives on another's segment.
        OverlapRouted = 17 "overlap.routed",
        /// Two hosts have one address in one address space.
        AddressDuplicate = 18 "address.duplicate",
        /// Addresses are in use that no claim covers.
        AddressUndeclared = 19 "address.undeclared",
        /// Addresses are in use by another secretariat than the one that claims them.
        AddressMisplaced = 20 "address.misplaced",
        /// Another station answers for a segment's gateway.
        GatewayMac = 21 "gateway.mac",
        /// A DHCP server that is not one of the segment's.
        DhcpRogue = 22 "dhcp.rogue",
        /// Claims in which no address was seen in use.
        ClaimDark = 23 "claim.dark",
    }
}

/// The rule id that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rule has the id {0:?}")]
pub struct UnknownRule(pub String);

impl std::str::FromStr for RuleId {
    type Err = UnknownRule;

    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        Self::ALL
            .iter()
            .copied()
            .find(|rule| rule.as_str() == text)
            .ok_or_else(|| UnknownRule(text.to_owned()))
    }
}

impl RuleId {
    /// What the rule is called where people read it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::OverlapAddress => "Private address in use in two address spaces",
            Self::LeakPrivate => "Private source address leaves to the internet",
            Self::SpoofInbound => "Spoofed source address arrives from the internet",
            Self::ScanHorizontal => "One service scanned on many hosts",
            Self::ScanVertical => "Many ports of one host scanned",
            Self::FloodSyn => "SYN flood",
            Self::Beacon => "Host calls out at regular intervals",
            Self::SensorBlind => "Sensor is blind on an interface",
            Self::SensorLoss => "Sensor loses packets",
            Self::SensorGap => "Batches of a sensor are missing",
            Self::SensorFork => "Sensor tells two histories",
            Self::SensorRollback => "Sensor goes back behind what it delivered",
            Self::SensorSilent => "Sensor has not been heard",
            Self::SensorClock => "Sensor's clock is wrong",
            Self::SensorSeal => "Batch with a signature that does not hold",
            Self::SensorShed => "Sensor gave up records",
            Self::OverlapDeclared => "Claims of two address spaces overlap",
            Self::OverlapRouted => "Prefix arrives on another secretariat's segment",
            Self::AddressDuplicate => "Two hosts have one address",
            Self::AddressUndeclared => "Addresses in use that nobody claims",
            Self::AddressMisplaced => "Addresses in use by another secretariat than claims them",
            Self::GatewayMac => "Another station answers for a gateway",
            Self::DhcpRogue => "DHCP server that is not the segment's",
            Self::ClaimDark => "Claims without an address in use",
        }
    }

    /// MITRE ATT&CK technique, where one applies.
    pub const fn technique(self) -> Option<&'static str> {
        match self {
            Self::OverlapAddress
            | Self::LeakPrivate
            | Self::SpoofInbound
            | Self::SensorBlind
            | Self::SensorLoss
            | Self::SensorGap
            | Self::SensorClock
            | Self::SensorShed
            | Self::OverlapDeclared
            | Self::OverlapRouted
            | Self::AddressDuplicate
            | Self::AddressUndeclared
            | Self::AddressMisplaced
            | Self::ClaimDark => None,
            // Adversary-in-the-Middle: ARP Cache Poisoning, DHCP Spoofing.
            Self::GatewayMac => Some("T1557.002"),
            Self::DhcpRogue => Some("T1557.003"),
            // Impair Defenses: Disable or Modify Tools; below, Stored Data Manipulation.
            Self::SensorSilent => Some("T1562.001"),
            Self::SensorFork | Self::SensorRollback | Self::SensorSeal => Some("T1565.001"),
            Self::ScanHorizontal | Self::ScanVertical => Some("T1046"),
            Self::FloodSyn => Some("T1498.001"),
            Self::Beacon => Some("T1071"),
        }
    }
}

named_enum! {
    /// How bad it is if it is true.
    Severity {
        /// For the record.
        Low = 1 "low",
        /// To be looked at within days.
        Medium = 2 "medium",
        /// To be looked at today.
        High = 3 "high",
        /// To be looked at now.
        Critical = 4 "critical",
    }
}

named_enum! {
    /// What happened to the finding.
    Change {
        /// First told.
        Raised = 0 "raised",
        /// Its evidence grew.
        Updated = 1 "updated",
        /// What it told of has ended.
        Closed = 2 "closed",
    }
}

named_enum! {
    /// What is behind two uses of one address.
    Verdict {
        /// Two hosts.
        TwoHosts = 1 "two-hosts",
        /// One host that has moved from one place to the other.
        Moved = 2 "moved",
        /// One host that is seen in both places.
        SeenTwice = 3 "seen-twice",
        /// The evidence does not tell.
        Unknown = 4 "unknown",
    }
}

/// How sure the rule is, 0 to 100.
pub type Confidence = u8;

/// What a finding is about. Which fields are set depends on the rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Who does it: scanner, leaking or spoofed source, beaconing host.
    pub source: Option<IpAddr>,
    /// To whom: flooded or scanned host, beacon's peer.
    pub target: Option<IpAddr>,
    /// The private address that overlaps.
    pub address: Option<IpAddr>,
    /// The prefix, where the subject is one.
    pub prefix: Option<IpNet>,
    /// Port of the target.
    pub port: Option<u16>,
    /// IP protocol number.
    pub protocol: Option<u8>,
}

/// One observation inside the evidence of a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservationEvidence {
    /// Address space it was seen in.
    pub address_space: Name,
    /// Site it was seen at.
    pub site: Name,
    /// Segment it was seen on.
    pub segment: Option<Name>,
    /// What showed it.
    pub kind: ObservationKind,
    /// How far it proves use.
    pub strength: Strength,
    /// The address.
    pub address: IpAddr,
    /// MAC address of the station.
    pub mac: Option<MacAddress>,
    /// First packet.
    pub first_seen: Timestamp,
    /// Last packet.
    pub last_seen: Timestamp,
}

impl From<&Observation> for ObservationEvidence {
    fn from(observation: &Observation) -> Self {
        Self {
            address_space: observation.address_space.clone(),
            site: observation.site.clone(),
            segment: observation.segment.clone(),
            kind: observation.kind,
            strength: observation.strength,
            address: observation.address,
            mac: observation.mac,
            first_seen: observation.first_seen,
            last_seen: observation.last_seen,
        }
    }
}

/// Why a rule says what it says, bounded in size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The first flows that showed it.
    pub flow_ids: ArrayVec<FlowId, 8>,
    /// The observations that showed it, at most 16.
    pub observations: Vec<ObservationEvidence>,
    /// Counts by name, such as `packets`, `targets`, `failures`; units are in the name where there is one.
    pub counts: BTreeMap<String, u64>,
    /// Scores by name, such as `score`, `likelihood_ratio`.
    pub scores: BTreeMap<String, f64>,
    /// What is behind the uses of the address, where the rule judges that.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// One change of a finding. The latest change states the finding whole, so a reader needs no earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingChange {
    /// Identity, from the key.
    pub finding_id: FindingId,
    /// Stable key: rule, then what makes the incident one. The same incident has the same key at every site,
    /// after every restart.
    pub key: String,
    /// The rule.
    pub rule: RuleId,
    /// Version of the rule.
    pub rule_version: u32,
    /// What happened.
    pub change: Change,
    /// Number of this change of this finding at this sensor, from 0.
    pub revision: u32,
    /// When it changed, in packet time.
    pub time: Timestamp,
    /// First packet that belongs to it.
    pub first_seen: Timestamp,
    /// Last packet that belongs to it, so far.
    pub last_seen: Timestamp,
    /// How bad.
    pub severity: Severity,
    /// How sure, 0 to 100.
    pub confidence: Confidence,
    /// One line for a person, with the addresses and the numbers.
    pub summary: String,
    /// What it is about.
    pub subject: Subject,
    /// Site of the sensor.
    pub site: Name,
    /// Interface, where one is to be named.
    pub interface: Option<Name>,
    /// Address spaces it touches, sorted.
    pub address_spaces: Vec<Name>,
    /// Secretariats it touches, sorted.
    pub secretariats: Vec<Name>,
    /// Whom to call: contacts of those secretariats, in the same order.
    pub contacts: Vec<Name>,
    /// Why.
    pub evidence: Evidence,
}

impl FindingId {
    /// The identity of the finding with this stable key.
    pub fn of_key(key: &str) -> Self {
        let digest = Sha1::digest(key.as_bytes());
        Self(digest.iter().take(16).fold(0, |id, &byte| (id << 8) | u128::from(byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_the_start_of_the_sha1_of_the_key() {
        // SHA-1 of "abc", FIPS 180-2 appendix A.
        assert_eq!(FindingId::of_key("abc").to_string(), "a9993e364706816aba3e25717850c26c");
    }

    #[test]
    fn every_rule_reads_back_from_its_id() {
        for &rule in RuleId::ALL {
            assert_eq!(rule.as_str().parse(), Ok(rule));
            assert_eq!(RuleId::from_code(rule.code()), Some(rule));
        }
    }
}
