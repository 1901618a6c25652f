//! Rules about one address: in use in two address spaces (overlap.address), and by two hosts in one of them
//! (address.duplicate). Both sites' observations are judged together, so that a host which is seen at both is one.

use std::fmt::Write as _;

use onenet_core::{
    findings::Draft,
    ipam::{
        Usage,
        verdict::{Judgement, Relation, judge},
    },
    net::Name,
    record::{Confidence, Evidence, ObservationEvidence, RuleId, Severity, Strength, Subject, Verdict},
    time::Timestamp,
};

use super::judge::Judge;
use crate::store::control_inventory::InventoryEntry;

/// Observations in one finding.
const MAX_EVIDENCE: usize = 16;
/// Turns between two stations of one segment from which on they are two hosts.
const SWAPS: u32 = 3;
const VERSION: u32 = 2;

/// Two uses, and what is behind them.
struct Pair<'a> {
    uses: [&'a Usage; 2],
    judgement: Judgement,
}

/// What the entries of one address, in all its address spaces, give reason to say at `now`.
pub(super) fn assess(judge: &Judge, entries: &[InventoryEntry], now: Timestamp) -> Vec<Draft> {
    let horizon = judge.horizon(now);
    let mut drafts = Vec::new();
    let sides: Vec<Side<'_>> = entries
        .iter()
        .filter(|entry| Judge::may_overlap(entry) && entry.last_seen >= horizon)
        .map(|entry| Side::of(entry, horizon))
        .filter(|side| !side.uses.is_empty())
        .collect();
    let Some(address) = sides.first().map(|side| side.entry.address) else { return drafts };
    let is_shared = |side: &Side<'_>| judge.desk.shared().has(address, &side.entry.address_space);
    if sides.len() >= 2 && !sides.iter().all(is_shared) && !judge.is_exempt(RuleId::OverlapAddress, address) {
        drafts.push(overlap(&sides));
    }
    if !judge.is_exempt(RuleId::AddressDuplicate, address) {
        for side in sides.iter().filter(|side| !is_shared(side)) {
            drafts.extend(side.duplicate(judge, horizon));
        }
    }
    drafts
}

/// An entry, and its uses that count.
struct Side<'a> {
    entry: &'a InventoryEntry,
    uses: Vec<&'a Usage>,
}

impl<'a> Side<'a> {
    fn of(entry: &'a InventoryEntry, horizon: Timestamp) -> Self {
        let counts = |usage: &&Usage| usage.is_shown() && usage.last_seen >= horizon;
        Self { entry, uses: entry.usages.iter().filter(counts).collect() }
    }

    fn strength(&self) -> Strength {
        self.uses.iter().map(|usage| usage.strength).max().unwrap_or(Strength::Weak)
    }

    /// Two hosts in this address space: at two attachments, or taking turns at one.
    fn duplicate(&self, judge: &Judge, horizon: Timestamp) -> Option<Draft> {
        let pairs = self.uses.iter().enumerate().flat_map(|(at, one)| {
            self.uses.iter().skip(at + 1).map(|other| Pair::of([one, other], Relation::WithinSpace))
        });
        if let Some(pair) = weightiest(pairs).filter(|pair| pair.judgement.verdict == Verdict::TwoHosts) {
            let [one, other] = pair.uses.map(place);
            let what = format!("has two hosts in {}: at {one} and at {other}", self.entry.address_space);
            return Some(self.draft(&what, &pair.uses, Some(&pair.judgement), 90));
        }
        let takes_turns = |usage: &&&Usage| {
            let is_gateway = super::servers::is_gateway(judge, self.entry, usage);
            usage.swaps >= SWAPS && usage.last_swap.is_some_and(|last| last >= horizon) && !is_gateway
        };
        let usage = self.uses.iter().find(takes_turns)?;
        let macs: Vec<String> = usage
            .stations
            .iter()
            .filter(|station| station.is_own())
            .filter_map(|station| Some(station.mac?.to_string()))
            .take(4)
            .collect();
        let what = format!(
            "has two hosts in {}: {} take turns at {}, {} times",
            self.entry.address_space,
            macs.join(" and "),
            place(usage),
            usage.swaps
        );
        Some(self.draft(&what, &[usage], None, 95))
    }

    fn draft(
        &self,
        what: &str,
        uses: &[&Usage],
        judgement: Option<&Judgement>,
        confidence: Confidence,
    ) -> Draft {
        let Self { entry, .. } = self;
        let mut evidence = evidence(entry.address, uses, judgement);
        evidence.verdict = Some(Verdict::TwoHosts);
        evidence.counts.insert("swaps".to_owned(), uses.iter().map(|one| u64::from(one.swaps)).sum());
        Draft {
            key: format!("{}|{}|{}", RuleId::AddressDuplicate, entry.address_space, entry.address),
            rule: RuleId::AddressDuplicate,
            rule_version: VERSION,
            first_seen: uses.iter().map(|one| one.first_seen).min().unwrap_or(entry.first_seen),
            last_seen: uses.iter().map(|one| one.last_seen).max().unwrap_or(entry.last_seen),
            severity: Severity::High,
            confidence,
            summary: format!("{} {what}{}", entry.address, reasons(judgement)),
            subject: Subject { address: Some(entry.address), ..Subject::default() },
            interface: None,
            address_spaces: vec![entry.address_space.clone()],
            secretariats: uses.iter().filter_map(|one| one.secretariat.clone()).collect(),
            evidence,
        }
    }
}

impl<'a> Pair<'a> {
    fn of(uses: [&'a Usage; 2], relation: Relation) -> Self {
        let [one, other] = uses;
        Self { uses, judgement: judge(one, other, relation) }
    }
}

/// The pair that says most: two hosts before one host before nothing, and of each the surest.
fn weightiest<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Option<Pair<'a>> {
    let rank = |pair: &Pair<'_>| match pair.judgement.verdict {
        Verdict::TwoHosts => (2, pair.judgement.bits),
        Verdict::Moved | Verdict::SeenTwice => (1, -pair.judgement.bits),
        Verdict::Unknown => (0, pair.judgement.bits),
    };
    pairs.max_by(|a, b| {
        let ((one, bits), (other, more)) = (rank(a), rank(b));
        one.cmp(&other).then(bits.total_cmp(&more))
    })
}

/// An address in use in two address spaces or more.
fn overlap(sides: &[Side<'_>]) -> Draft {
    let pairs = sides.iter().enumerate().flat_map(|(at, one)| {
        let others = sides.iter().skip(at + 1).flat_map(|other| &other.uses);
        others.flat_map(|b| one.uses.iter().map(|a| Pair::of([a, b], Relation::AcrossSpaces)))
    });
    let pair = weightiest(pairs);
    let verdict = pair.as_ref().map_or(Verdict::Unknown, |pair| pair.judgement.verdict);
    let entries = || sides.iter().map(|side| side.entry);
    // Sides take turns, so that none loses its last witness to another.
    let mut uses: Vec<&Usage> = Vec::new();
    for rank in 0..sides.iter().map(|side| side.uses.len()).max().unwrap_or(0) {
        uses.extend(sides.iter().filter_map(|side| side.uses.get(rank).copied()));
    }
    let address = sides.first().map(|side| side.entry.address).unwrap_or([0; 4].into());
    let judgement = pair.as_ref().map(|pair| &pair.judgement);
    let mut evidence = evidence(address, &uses, judgement);
    evidence.counts.insert("address_spaces".to_owned(), sides.len() as u64);
    evidence.counts.insert("packets".to_owned(), entries().fold(0, |sum, e| e.packets.saturating_add(sum)));
    evidence.verdict = Some(verdict);
    let (severity, confidence) = grade(verdict, sides);
    Draft {
        key: format!("{}|{address}", RuleId::OverlapAddress),
        rule: RuleId::OverlapAddress,
        rule_version: VERSION,
        first_seen: entries().map(|entry| entry.first_seen).min().unwrap_or_default(),
        last_seen: entries().map(|entry| entry.last_seen).max().unwrap_or_default(),
        severity,
        confidence,
        summary: summary(address, sides, verdict, judgement),
        subject: Subject { address: Some(address), ..Subject::default() },
        interface: None,
        address_spaces: entries().map(|entry| entry.address_space.clone()).collect(),
        secretariats: uses.iter().filter_map(|usage| usage.secretariat.clone()).collect(),
        evidence,
    }
}

/// How bad and how sure, by the verdict; where there is none, by how the uses were shown.
fn grade(verdict: Verdict, sides: &[Side<'_>]) -> (Severity, Confidence) {
    let strong = sides.iter().filter(|side| side.strength() == Strength::Strong).count();
    let further = u8::try_from(sides.len().saturating_sub(2)).unwrap_or(u8::MAX);
    match verdict {
        Verdict::TwoHosts => (Severity::High, 95_u8.saturating_add(further).min(99)),
        Verdict::SeenTwice => (Severity::Medium, 40),
        Verdict::Moved => (Severity::Low, 60),
        Verdict::Unknown if strong >= 2 => (Severity::Medium, 80),
        Verdict::Unknown if strong == 1 => (Severity::Medium, 60),
        Verdict::Unknown => (Severity::Low, 40),
    }
}

fn evidence(address: std::net::IpAddr, uses: &[&Usage], judgement: Option<&Judgement>) -> Evidence {
    let mut evidence = Evidence::default();
    let by_use: Vec<Vec<ObservationEvidence>> =
        uses.iter().map(|usage| usage.evidence(address).collect()).collect();
    let by_rank = (0..MAX_EVIDENCE).flat_map(|rank| by_use.iter().filter_map(move |all| all.get(rank)));
    evidence.observations = by_rank.take(MAX_EVIDENCE).cloned().collect();
    let mut macs: Vec<_> = evidence.observations.iter().filter_map(|seen| seen.mac).collect();
    macs.sort();
    macs.dedup();
    let sum = |of: fn(&Usage) -> u64| uses.iter().fold(0, |sum: u64, usage| sum.saturating_add(of(usage)));
    for (name, count) in [
        ("stations", macs.len() as u64),
        ("packets", sum(|usage| usage.packets)),
        ("conversations", sum(|usage| usage.conversations)),
    ] {
        evidence.counts.insert(name.to_owned(), count);
    }
    if let Some(judgement) = judgement {
        evidence.counts.insert("turns".to_owned(), judgement.turns.into());
        evidence.counts.insert("shared_hours".to_owned(), judgement.shared_hours.into());
        evidence.scores.insert("likelihood_ratio".to_owned(), judgement.bits.exp2());
        for term in &judgement.terms {
            evidence.scores.insert(format!("bits.{}", term.name), term.bits);
        }
    }
    evidence
}

fn place(usage: &Usage) -> &Name {
    usage.segment.as_ref().unwrap_or(&usage.site)
}

fn summary(
    address: std::net::IpAddr,
    sides: &[Side<'_>],
    verdict: Verdict,
    judgement: Option<&Judgement>,
) -> String {
    let mut text = format!("{address} is in use in {} address spaces:", sides.len());
    for (at, side) in sides.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{} {}", if at == 0 { "" } else { "," }, side.entry.address_space);
        if let Some(usage) = side.uses.first()
            && let Some(best) = usage.stations.first()
        {
            let _ = write!(text, " ({}, by {}", place(usage), best.kind);
            if let Some(mac) = best.mac {
                let _ = write!(text, " of {mac}");
            }
            text.push(')');
        }
    }
    let said = match verdict {
        Verdict::TwoHosts => "; two hosts",
        Verdict::Moved => "; one host that has moved",
        Verdict::SeenTwice => "; one host that is seen in both",
        Verdict::Unknown => "; whether two hosts is not known",
    };
    text.push_str(said);
    text.push_str(&reasons(judgement));
    text
}

/// The terms of a judgement, the weightiest first.
fn reasons(judgement: Option<&Judgement>) -> String {
    let Some(judgement) = judgement.filter(|judgement| !judgement.terms.is_empty()) else {
        return String::new();
    };
    let mut terms: Vec<_> = judgement.terms.iter().collect();
    terms.sort_by(|a, b| b.bits.abs().total_cmp(&a.bits.abs()));
    let terms: Vec<String> = terms.iter().map(|term| format!("{} {:+}", term.name, term.bits)).collect();
    format!(" ({:+} bits: {})", judgement.bits, terms.join(", "))
}
