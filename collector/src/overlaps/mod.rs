//! Overlaps as the IPAM team reads them, in every layer: prefixes claimed twice, addresses in use in two address spaces,
//! prefixes that arrive on another's segment, and two hosts with one address. They are findings, told with whoever must
//! renumber; their evidence is asked for by itself.

pub(crate) mod command;

use std::{net::IpAddr, str::FromStr};

use clap::ValueEnum;
use ipnet::IpNet;
use onenet_core::{
    net::Name,
    record::{Confidence, FindingId, ObservationEvidence, RuleId, Severity, Verdict},
    time::Timestamp,
};
use rusqlite::Connection;
use serde::Serialize;

use crate::{
    correlate::{self, Finding, State},
    store::{
        control_inventory,
        control_overlaps::{self, OverlapFilter},
        inventory_sweep,
    },
    uses::UsageView,
};

/// Addresses of a routed prefix whose uses are told.
const MAX_ROUTED: u32 = 16;

/// Where two uses or claims meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layer {
    /// Two claims of the plan.
    Declared,
    /// One address in use in two address spaces.
    Observed,
    /// A secretariat's prefix on another's segment.
    Routed,
    /// Two hosts with one address in one address space.
    Duplicate,
}

impl Layer {
    /// All, from the plan to the wire.
    pub(crate) const ALL: [Self; 4] = [Self::Declared, Self::Observed, Self::Routed, Self::Duplicate];

    /// The name on the command line, in JSON and on the page.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Observed => "observed",
            Self::Routed => "routed",
            Self::Duplicate => "duplicate",
        }
    }

    /// The rule that raises it.
    pub(crate) const fn rule(self) -> RuleId {
        match self {
            Self::Declared => RuleId::OverlapDeclared,
            Self::Observed => RuleId::OverlapAddress,
            Self::Routed => RuleId::OverlapRouted,
            Self::Duplicate => RuleId::AddressDuplicate,
        }
    }

    /// The layer that a rule raises; that of addresses for every rule that is none of an overlap.
    fn of(rule: RuleId) -> Self {
        Self::ALL.into_iter().find(|layer| layer.rule() == rule).unwrap_or(Self::Observed)
    }
}

/// Layers by name, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layers(pub(crate) Vec<Layer>);

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let layer = |name: &str| {
            let known = Layer::ALL.into_iter().find(|layer| layer.as_str() == name.trim());
            known.ok_or_else(|| format!("{name:?}, expected declared, observed, routed or duplicate"))
        };
        text.split(',').map(layer).collect::<Result<_, _>>().map(Self)
    }
}

/// Reads a verdict by its name.
pub(crate) fn verdict(text: &str) -> Result<Verdict, String> {
    let known = Verdict::ALL.iter().copied().find(|verdict| verdict.as_str() == text);
    known.ok_or_else(|| format!("{text:?}, expected two-hosts, moved, seen-twice or unknown"))
}

/// One overlap.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Overlap {
    /// Where it was found.
    pub(crate) layer: Layer,
    /// The address, where it is one.
    pub(crate) address: Option<IpAddr>,
    /// The prefix, where it is one.
    pub(crate) prefix: Option<IpNet>,
    /// What is behind the uses; none where that is not judged.
    pub(crate) verdict: Option<Verdict>,
    /// How bad.
    pub(crate) severity: Severity,
    /// How sure, 0 to 100.
    pub(crate) confidence: Confidence,
    /// Where it is in use or claimed.
    pub(crate) address_spaces: Vec<Name>,
    /// Whose these are.
    pub(crate) secretariats: Vec<Name>,
    /// Whom to call, in the order of the secretariats.
    pub(crate) contacts: Vec<Name>,
    /// Where it was seen.
    pub(crate) sites: Vec<Name>,
    /// First packet that belongs to it.
    pub(crate) first_seen: Timestamp,
    /// Last packet that belongs to it.
    pub(crate) last_seen: Timestamp,
    /// Open or closed.
    pub(crate) state: State,
    /// One line for a person.
    pub(crate) summary: String,
    /// The finding that tells the rest.
    pub(crate) finding_id: FindingId,
    /// By what it was seen in each address space.
    pub(crate) observations: Vec<ObservationEvidence>,
}

impl From<&Finding> for Overlap {
    fn from(finding: &Finding) -> Self {
        Self {
            layer: Layer::of(finding.rule),
            address: finding.subject.address,
            prefix: finding.subject.prefix,
            verdict: finding.evidence.verdict,
            severity: finding.severity,
            confidence: finding.confidence,
            address_spaces: finding.address_spaces.clone(),
            secretariats: finding.secretariats.clone(),
            contacts: finding.contacts.clone(),
            sites: finding.sites.clone(),
            first_seen: finding.first_seen,
            last_seen: finding.last_seen,
            state: finding.state,
            summary: finding.summary.clone(),
            finding_id: finding.finding_id,
            observations: finding.evidence.observations.clone(),
        }
    }
}

impl Overlap {
    /// The address or prefix, as people read it.
    pub(crate) fn subject(&self) -> String {
        let address = self.address.map(|address| address.to_string());
        address.or_else(|| self.prefix.map(|prefix| prefix.to_string())).unwrap_or_default()
    }
}

/// One term of the likelihood ratio.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TermView {
    /// What was compared.
    pub(crate) name: String,
    /// Its bits; positive ones speak for two hosts.
    pub(crate) bits: f64,
}

/// Why an overlap is what it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Grounds {
    /// How many times as likely the evidence is with two hosts as with one.
    pub(crate) likelihood_ratio: Option<f64>,
    /// The same in bits: the sum of the terms.
    pub(crate) bits: Option<f64>,
    /// The terms, the weightiest first.
    pub(crate) terms: Vec<TermView>,
    /// The uses in full, as the inventory holds them now.
    pub(crate) usages: Vec<UsageView>,
}

impl Grounds {
    /// The terms alone.
    pub(crate) fn terms(finding: &Finding) -> Self {
        let scores = &finding.evidence.scores;
        let term = |(name, &bits): (&String, &f64)| {
            let name = name.strip_prefix("bits.")?.to_owned();
            Some(TermView { name, bits })
        };
        let mut terms: Vec<TermView> = scores.iter().filter_map(term).collect();
        terms.sort_by(|a, b| b.bits.abs().total_cmp(&a.bits.abs()));
        let bits = (!terms.is_empty()).then(|| terms.iter().map(|term| term.bits).sum());
        Self { likelihood_ratio: scores.get("likelihood_ratio").copied(), bits, terms, usages: Vec::new() }
    }

    /// Terms and uses.
    pub(crate) fn read(connection: &Connection, finding: &Finding) -> Result<Self, rusqlite::Error> {
        let entries = match (finding.rule, finding.subject.address) {
            (RuleId::OverlapRouted, _) => {
                let group = correlate::group_of(&finding.key);
                inventory_sweep::of_group(connection, &group, Timestamp(i64::MIN), MAX_ROUTED)?
            }
            (RuleId::OverlapAddress | RuleId::AddressDuplicate, Some(address)) => {
                control_inventory::of_address(connection, address)?
            }
            _ => Vec::new(),
        };
        let is_of = |usage: &UsageView| finding.address_spaces.contains(&usage.address_space);
        let usages = entries.iter().flat_map(UsageView::of).filter(is_of).collect();
        Ok(Self { usages, ..Self::terms(finding) })
    }

    /// What the sum says, in words; none where nothing was compared.
    pub(crate) fn sum(&self) -> Option<String> {
        let bits = self.bits?;
        let ratio = self.likelihood_ratio.unwrap_or_else(|| bits.exp2());
        let times = |ratio: f64| if ratio < 100.0 { format!("{ratio:.1}") } else { format!("{ratio:.0}") };
        Some(if ratio >= 1.0 {
            format!("{bits:+} bits: {} times as likely with two hosts as with one", times(ratio))
        } else {
            format!("{bits:+} bits: {} times as likely with one host as with two", times(1.0 / ratio))
        })
    }
}

/// An overlap with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct OverlapDetail {
    #[serde(flatten)]
    pub(crate) overlap: Overlap,
    #[serde(flatten)]
    pub(crate) grounds: Grounds,
}

impl OverlapDetail {
    /// Reads the evidence of an overlap.
    pub(crate) fn of(connection: &Connection, finding: &Finding) -> Result<Self, rusqlite::Error> {
        Ok(Self { overlap: Overlap::from(finding), grounds: Grounds::read(connection, finding)? })
    }

    /// Reads an overlap, where there is one.
    pub(crate) fn read(connection: &Connection, id: FindingId) -> Result<Option<Self>, rusqlite::Error> {
        let found = control_overlaps::overlap(connection, id)?;
        found.map(|finding| Self::of(connection, &finding)).transpose()
    }
}

/// Overlaps, the open ones first.
pub(crate) fn overlaps(
    connection: &Connection,
    filter: &OverlapFilter,
    limit: u32,
    offset: u32,
) -> Result<Vec<Overlap>, rusqlite::Error> {
    let findings = control_overlaps::overlaps(connection, filter, limit, offset)?;
    Ok(findings.iter().map(Overlap::from).collect())
}
