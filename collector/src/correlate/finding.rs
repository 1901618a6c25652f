//! The merged finding: what every source (each sensor, and the collector's own correlation) last told of one
//! finding, folded into one. Pure; `correlate::apply` stores what comes out.

use std::collections::{BTreeMap, BTreeSet};

use onenet_core::{
    net::Name,
    plan::AddressPlan,
    record::{
        Change, Confidence, Evidence, FindingChange, FindingId, ObservationEvidence, RuleId, Severity,
        Subject,
    },
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Where a finding is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// At least one source still sees it.
    Open,
    /// Every source that told of it says that it has ended.
    Closed,
}

impl State {
    /// The name in JSON, in the store and in text.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err(format!("no state is called {text:?}; expected open or closed")),
        }
    }
}

/// One finding as all its sources together tell it. The fields that a sensor's `FindingChange` has too mean the
/// same here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// Identity, from the key.
    pub(crate) finding_id: FindingId,
    /// Stable key of the incident.
    pub(crate) key: String,
    /// The rule.
    pub(crate) rule: RuleId,
    /// Version of the rule.
    pub(crate) rule_version: u32,
    /// Open or closed.
    pub(crate) state: State,
    /// What happened last.
    pub(crate) change: Change,
    /// Number of the last change at the collector, from 0.
    pub(crate) revision: u32,
    /// When it last changed, in packet time.
    pub(crate) time: Timestamp,
    /// First packet, at any source.
    pub(crate) first_seen: Timestamp,
    /// Last packet, at any source.
    pub(crate) last_seen: Timestamp,
    /// The highest that a source states, or what the one says that judged what is behind the address.
    pub(crate) severity: Severity,
    /// The same.
    pub(crate) confidence: Confidence,
    /// One line for a person.
    pub(crate) summary: String,
    /// What it is about.
    pub(crate) subject: Subject,
    /// Sites that see it, sorted.
    pub(crate) sites: Vec<Name>,
    /// Who told of it, sorted: names of sensors, and `collector` for its own correlation.
    pub(crate) sources: Vec<Name>,
    /// Interfaces, sorted.
    pub(crate) interfaces: Vec<Name>,
    /// Address spaces it touches, sorted.
    pub(crate) address_spaces: Vec<Name>,
    /// Secretariats it touches, sorted.
    pub(crate) secretariats: Vec<Name>,
    /// Contacts of those secretariats, in the same order; empty where the plan states none.
    pub(crate) contacts: Vec<Name>,
    /// Why.
    pub(crate) evidence: Evidence,
}

/// What one source last told of a finding, by the name of the source.
pub(crate) type Sources = BTreeMap<Name, FindingChange>;

/// Flow ids that a finding carries.
const MAX_FLOW_IDS: usize = 8;
/// Observations that a finding carries.
const MAX_OBSERVATIONS: usize = 16;

/// Counts that add up over sensors, because no packet passes two of them in one direction. Any other count
/// (thresholds, distinct hosts) is the highest that one source states, so that it is never overstated.
const ADDITIVE: &[&str] = &[
    "attempts",
    "bytes",
    "connections",
    "failures",
    "flows",
    "packets",
    "payload_bytes",
    "successes",
    "syns",
];

/// Enters what a source now says into what it said before. A replay of packets that were already told of
/// changes nothing, and a sensor that starts counting anew does not shrink the evidence.
pub(crate) fn absorb(before: Option<FindingChange>, mut now: FindingChange) -> FindingChange {
    // What is no number cannot be written as JSON, and would differ from itself.
    now.evidence.scores.retain(|_, score| score.is_finite());
    let Some(before) = before else { return now };
    // A sensor that starts anew counts its changes from 0, at packet times that it may have told of before.
    if (now.time, now.revision) <= (before.time, before.revision) {
        return FindingChange { first_seen: before.first_seen.min(now.first_seen), ..before };
    }
    let new_incident = before.change == Change::Closed && now.first_seen > before.last_seen;
    now.first_seen = now.first_seen.min(before.first_seen);
    now.last_seen = now.last_seen.max(before.last_seen);
    if !new_incident {
        now.evidence = join_evidence(&[&before.evidence, &now.evidence], |_| false);
    }
    now
}

/// Folds what the sources say into one finding; none where nobody says anything. `before` is the finding as it
/// was; the result equals it where nothing changed.
pub(crate) fn fold(
    sources: &Sources,
    before: Option<&Finding>,
    time: Timestamp,
    plan: &AddressPlan,
) -> Option<Finding> {
    let (_, lead) = sources.iter().max_by_key(|(name, told)| {
        let reach = (told.address_spaces.len(), told.secretariats.len());
        (reach, told.confidence, told.severity, told.last_seen, std::cmp::Reverse((*name).clone()))
    })?;
    let all = || sources.values();
    let closed = all().all(|told| told.change == Change::Closed);
    let names = |of: fn(&FindingChange) -> &[Name]| -> Vec<Name> {
        all().flat_map(of).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    };
    let secretariats = names(|told| &told.secretariats);
    let evidence: Vec<&Evidence> = all().map(|told| &told.evidence).collect();
    let overlap = lead.rule == RuleId::OverlapAddress;
    // Who has judged what is behind an address has seen it at every site.
    let judged = all().find(|told| told.evidence.verdict.is_some() && told.change != Change::Closed);
    let mut finding = Finding {
        finding_id: lead.finding_id,
        key: lead.key.clone(),
        rule: lead.rule,
        rule_version: all().map(|told| told.rule_version).max().unwrap_or(0),
        state: if closed { State::Closed } else { State::Open },
        change: Change::Raised,
        revision: 0,
        time,
        first_seen: all().map(|told| told.first_seen).min().unwrap_or_default(),
        last_seen: all().map(|told| told.last_seen).max().unwrap_or_default(),
        severity: judged
            .map_or_else(|| all().map(|told| told.severity).max(), |told| Some(told.severity))
            .unwrap_or(lead.severity),
        confidence: judged
            .map_or_else(|| all().map(|told| told.confidence).max(), |told| Some(told.confidence))
            .unwrap_or(0),
        summary: judged.unwrap_or(lead).summary.clone(),
        subject: lead.subject.clone(),
        sites: sites(sources),
        sources: sources.keys().cloned().collect(),
        interfaces: names(|told| told.interface.as_slice()),
        address_spaces: names(|told| &told.address_spaces),
        contacts: contacts(&secretariats, sources, plan),
        secretariats,
        // The collector and the sensors see the same observations of an overlap, so nothing of it adds up.
        evidence: join_evidence(&evidence, |count| !overlap && ADDITIVE.contains(&count)),
    };
    if let Some(before) = before {
        finding.first_seen = finding.first_seen.min(before.first_seen);
        finding.last_seen = finding.last_seen.max(before.last_seen);
        (finding.change, finding.revision, finding.time) = (before.change, before.revision, before.time);
        if finding != *before {
            finding.change = match (before.state, finding.state) {
                (State::Closed, State::Open) => Change::Raised,
                (State::Open, State::Closed) => Change::Closed,
                _ => Change::Updated,
            };
            finding.revision = before.revision.saturating_add(1);
            finding.time = time;
        }
    } else if closed {
        finding.change = Change::Closed;
    }
    Some(finding)
}

/// Sites, by what the sources state and by the evidence: the collector's own correlation speaks for both.
fn sites(sources: &Sources) -> Vec<Name> {
    let stated = sources.values().map(|told| &told.site);
    let seen = sources.values().flat_map(|told| told.evidence.observations.iter().map(|o| &o.site));
    let all: BTreeSet<&Name> = stated.chain(seen).filter(|site| !site.is_empty()).collect();
    all.into_iter().cloned().collect()
}

/// The contact of each secretariat: the collector's plan says, or else a sensor's did. A sensor leaves out the
/// secretariats that have none, so only a list as long as that of the secretariats says whose each contact is.
fn contacts(secretariats: &[Name], sources: &Sources, plan: &AddressPlan) -> Vec<Name> {
    let contact = |secretariat: &Name| -> Name {
        let planned = plan.secretariat(secretariat).and_then(|known| known.contact.clone());
        let whole = sources.values().filter(|told| told.contacts.len() == told.secretariats.len());
        let mut stated = whole.flat_map(|told| told.secretariats.iter().zip(&told.contacts));
        planned
            .or_else(|| stated.find(|(name, _)| *name == secretariat).map(|(_, contact)| contact.clone()))
            .unwrap_or_else(|| Name::from(""))
    };
    secretariats.iter().map(contact).collect()
}

/// Joins evidence: flow ids and observations without repetition and bounded, counts by sum or maximum.
fn join_evidence(parts: &[&Evidence], adds_up: impl Fn(&str) -> bool) -> Evidence {
    let mut joined = Evidence::default();
    for part in parts {
        for flow_id in &part.flow_ids {
            if joined.flow_ids.len() < MAX_FLOW_IDS && !joined.flow_ids.contains(flow_id) {
                joined.flow_ids.push(*flow_id);
            }
        }
        for observation in &part.observations {
            join_observation(&mut joined.observations, observation);
        }
        for (name, &count) in &part.counts {
            let total = joined.counts.entry(name.clone()).or_default();
            *total = if adds_up(name) { total.saturating_add(count) } else { count.max(*total) };
        }
        // The terms of a verdict belong together, and the latest counts.
        if part.verdict.is_some() {
            (joined.verdict, joined.scores) = (part.verdict, part.scores.clone());
        }
        for (name, &score) in part.scores.iter().filter(|_| part.verdict.is_none()) {
            let highest = joined.scores.entry(name.clone()).or_insert(score);
            *highest = score.max(*highest);
        }
    }
    joined.observations = spread(joined.observations);
    joined
}

fn join_observation(into: &mut Vec<ObservationEvidence>, observation: &ObservationEvidence) {
    let identity = |o: &ObservationEvidence| {
        (o.address_space.clone(), o.site.clone(), o.segment.clone(), o.kind, o.address, o.mac)
    };
    match into.iter_mut().find(|known| identity(known) == identity(observation)) {
        Some(known) => {
            known.first_seen = known.first_seen.min(observation.first_seen);
            known.last_seen = known.last_seen.max(observation.last_seen);
            known.strength = known.strength.max(observation.strength);
        }
        None => into.push(observation.clone()),
    }
}

/// Sorts observations and keeps at most the allowed number, the strongest of every address space and site
/// first, so that no side of an overlap loses its last witness to the other.
fn spread(mut all: Vec<ObservationEvidence>) -> Vec<ObservationEvidence> {
    all.sort_by(|a, b| {
        let place = |o: &ObservationEvidence| (o.address_space.clone(), o.site.clone());
        let rest = |o: &ObservationEvidence| (o.kind, o.segment.clone(), o.address, o.mac);
        place(a).cmp(&place(b)).then(b.strength.cmp(&a.strength)).then(rest(a).cmp(&rest(b)))
    });
    if all.len() <= MAX_OBSERVATIONS {
        return all;
    }
    let mut rank = BTreeMap::<(Name, Name), usize>::new();
    let mut ranked: Vec<(usize, usize)> = all
        .iter()
        .enumerate()
        .map(|(index, o)| {
            let nth = rank.entry((o.address_space.clone(), o.site.clone())).or_default();
            *nth += 1;
            (*nth, index)
        })
        .collect();
    ranked.sort_unstable();
    let mut kept: Vec<usize> = ranked.into_iter().take(MAX_OBSERVATIONS).map(|(_, index)| index).collect();
    kept.sort_unstable();
    let mut index = 0..;
    all.retain(|_| index.next().is_some_and(|i: usize| kept.binary_search(&i).is_ok()));
    all
}
