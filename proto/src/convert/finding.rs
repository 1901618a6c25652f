//! Finding changes.

use onenet_core::{
    net::Name,
    record::{
        Change, Evidence, FindingChange, FindingId, ObservationEvidence, ObservationKind, RuleId, Severity,
        Strength, Subject, Verdict,
    },
    time::Timestamp,
};

use super::{
    InvalidField, bounded, code, flow_id_from_wire, flow_id_to_wire, invalid, ip_from_wire, ip_to_wire,
    mac_from_wire, mac_to_wire, name_from_wire, name_to_wire, narrow, optional_ip_from_wire,
    optional_ip_to_wire,
};
use crate::v1;

/// Observations in one finding's evidence at most.
const MAX_EVIDENCE_OBSERVATIONS: usize = 16;

impl From<&Subject> for v1::Subject {
    fn from(subject: &Subject) -> Self {
        Self {
            source: optional_ip_to_wire(subject.source),
            target: optional_ip_to_wire(subject.target),
            address: optional_ip_to_wire(subject.address),
            prefix: subject.prefix.map(|prefix| prefix.to_string()).unwrap_or_default(),
            port: subject.port.map(u32::from),
            protocol: subject.protocol.map(u32::from),
        }
    }
}

impl TryFrom<v1::Subject> for Subject {
    type Error = InvalidField;

    fn try_from(subject: v1::Subject) -> Result<Self, InvalidField> {
        let prefix = match subject.prefix.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid("prefix", "a prefix in CIDR form"))?),
        };
        Ok(Self {
            source: optional_ip_from_wire("source", &subject.source)?,
            target: optional_ip_from_wire("target", &subject.target)?,
            address: optional_ip_from_wire("address", &subject.address)?,
            prefix,
            port: subject.port.map(|port| narrow("port", port)).transpose()?,
            protocol: subject.protocol.map(|protocol| narrow("protocol", protocol)).transpose()?,
        })
    }
}

impl From<&ObservationEvidence> for v1::ObservationEvidence {
    fn from(evidence: &ObservationEvidence) -> Self {
        Self {
            address_space: evidence.address_space.to_string(),
            site: evidence.site.to_string(),
            segment: name_to_wire(evidence.segment.as_ref()),
            kind: evidence.kind.code().into(),
            strength: evidence.strength.code().into(),
            address: ip_to_wire(evidence.address),
            mac: mac_to_wire(evidence.mac),
            first_seen: evidence.first_seen.as_nanos(),
            last_seen: evidence.last_seen.as_nanos(),
        }
    }
}

impl TryFrom<v1::ObservationEvidence> for ObservationEvidence {
    type Error = InvalidField;

    fn try_from(evidence: v1::ObservationEvidence) -> Result<Self, InvalidField> {
        Ok(Self {
            address_space: evidence.address_space.into(),
            site: evidence.site.into(),
            segment: name_from_wire(&evidence.segment),
            kind: code("kind", evidence.kind, ObservationKind::from_code)?,
            strength: code("strength", evidence.strength, Strength::from_code)?,
            address: ip_from_wire("address", &evidence.address)?,
            mac: mac_from_wire("mac", &evidence.mac)?,
            first_seen: Timestamp(evidence.first_seen),
            last_seen: Timestamp(evidence.last_seen),
        })
    }
}

impl From<&FindingChange> for v1::FindingChange {
    fn from(change: &FindingChange) -> Self {
        let names = |names: &[Name]| names.iter().map(ToString::to_string).collect();
        Self {
            key: change.key.clone(),
            rule: change.rule.code().into(),
            rule_version: change.rule_version,
            change: change.change.code().into(),
            revision: change.revision,
            time: change.time.as_nanos(),
            first_seen: change.first_seen.as_nanos(),
            last_seen: change.last_seen.as_nanos(),
            severity: change.severity.code().into(),
            confidence: change.confidence.into(),
            summary: change.summary.clone(),
            subject: Some((&change.subject).into()),
            site: change.site.to_string(),
            interface: name_to_wire(change.interface.as_ref()),
            address_spaces: names(&change.address_spaces),
            secretariats: names(&change.secretariats),
            contacts: names(&change.contacts),
            flow_ids: change.evidence.flow_ids.iter().copied().map(flow_id_to_wire).collect(),
            observations: change.evidence.observations.iter().map(Into::into).collect(),
            counts: change.evidence.counts.clone(),
            scores: change.evidence.scores.clone(),
            verdict: change.evidence.verdict.map_or(0, |verdict| verdict.code().into()),
        }
    }
}

impl TryFrom<v1::FindingChange> for FindingChange {
    type Error = InvalidField;

    fn try_from(change: v1::FindingChange) -> Result<Self, InvalidField> {
        let names = |names: Vec<String>| names.into_iter().map(Name::from).collect();
        if change.observations.len() > MAX_EVIDENCE_OBSERVATIONS {
            return Err(invalid("observations", "at most 16 observations"));
        }
        if change.scores.values().any(|score| !score.is_finite()) {
            return Err(invalid("scores", "finite numbers"));
        }
        let observations: Result<_, _> =
            change.observations.into_iter().map(ObservationEvidence::try_from).collect();
        Ok(Self {
            finding_id: FindingId::of_key(&change.key),
            key: change.key,
            rule: code("rule", change.rule, RuleId::from_code)?,
            rule_version: change.rule_version,
            change: code("change", change.change, Change::from_code)?,
            revision: change.revision,
            time: Timestamp(change.time),
            first_seen: Timestamp(change.first_seen),
            last_seen: Timestamp(change.last_seen),
            severity: code("severity", change.severity, Severity::from_code)?,
            confidence: narrow::<u8>("confidence", change.confidence)?.min(100),
            summary: change.summary,
            subject: change.subject.unwrap_or_default().try_into()?,
            site: change.site.into(),
            interface: name_from_wire(&change.interface),
            address_spaces: names(change.address_spaces),
            secretariats: names(change.secretariats),
            contacts: names(change.contacts),
            evidence: Evidence {
                flow_ids: bounded("flow_ids", &change.flow_ids, |id| flow_id_from_wire("flow_ids", id))?,
                observations: observations?,
                counts: change.counts,
                scores: change.scores,
                verdict: match change.verdict {
                    0 => None,
                    verdict => Some(code("verdict", verdict, Verdict::from_code)?),
                },
            },
        })
    }
}
