//! overlap.address: one private address in use in two address spaces. An agent asks it about its own site, the
//! collector about all of them; the key is the same, so both speak of one finding.
//!
//! Use is shown by what is answered, leased, or named by a station on its link, and by packets that nobody answered only
//! where they come for more than an hour, because anyone can write a source; questions (ARP probes, duplicate address
//! detection, DHCP requests) never raise. Observations that no plan places are left out: they say nothing about spaces.
//!
//! What is remembered for this also tells who uses an address that no prefix of the plan covers.
//!
//! Nearly every address has one use, shown in one way, and there are as many as hosts: such a use is kept in few bytes, and
//! written out once anything else is seen of the address.

mod one;

use std::{fmt::Write, net::IpAddr};

use serde::{Deserialize, Serialize};

use self::one::{Address, One, Spots};
use super::{
    registry::classify,
    usage::{is_of_station, is_shown},
};
use crate::{
    bounded::Bounded,
    findings::{Desk, Draft, FindingSink, Findings, Incident},
    net::Name,
    plan::ExemptionQuery,
    record::{Confidence, Evidence, Observation, ObservationEvidence, RuleId, Severity, Strength, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};

/// Address spaces that are told apart for one address.
const MAX_SPACES: usize = 16;
/// Observations that are kept for each of them.
const MAX_PER_SPACE: usize = 4;
/// Observations in one finding.
const MAX_EVIDENCE: usize = 16;
const VERSION: u32 = 1;

/// Settings of overlap.address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OverlapConfig {
    /// Whether the rule runs. Who uses an address is remembered either way.
    pub enabled: bool,
    /// Seconds of packet time within which both uses must have been seen, and after which without new evidence
    /// the finding is closed.
    pub window_seconds: u32,
    /// Private addresses that are remembered; beyond, the one seen longest ago is forgotten.
    pub limit: u32,
}

impl Default for OverlapConfig {
    fn default() -> Self {
        Self { enabled: true, window_seconds: 604_800, limit: 131_072 }
    }
}

/// Use of one address in one space.
#[derive(Clone, Debug)]
struct Use {
    space: Name,
    strength: Strength,
    packets: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    holders: Vec<Holder>,
    observations: Vec<ObservationEvidence>,
}

/// A secretariat that was observed with the address.
#[derive(Clone, Debug)]
struct Holder {
    secretariat: Name,
    /// Last observation that shows use; a question shows none.
    used: Option<Timestamp>,
}

/// What is remembered of one address.
#[derive(Clone, Debug)]
enum Uses {
    /// One use, shown by one kind of observation of one station.
    One(One),
    /// Anything else.
    Several(Vec<Use>),
}

/// Who was observed using an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedOwner {
    /// The secretariat.
    pub secretariat: Name,
    /// Address space of its use.
    pub address_space: Name,
}

/// Remembers in which address spaces every private address is in use.
#[derive(Clone, Debug)]
pub struct OverlapTracker {
    enabled: bool,
    window: i64,
    uses: Bounded<Address, Uses>,
    spots: Spots,
    findings: Findings<Overlap>,
}

impl OverlapTracker {
    /// Knows nothing yet; `seed` keys its hash tables.
    pub fn new(config: &OverlapConfig, seed: [u64; 4]) -> Self {
        let limit = config.limit as usize;
        Self {
            enabled: config.enabled,
            window: i64::from(config.window_seconds).saturating_mul(NANOS_PER_SECOND),
            uses: Bounded::new(limit, seed),
            spots: Spots::new(seed),
            findings: Findings::new(limit, config.window_seconds, seed),
        }
    }

    /// Addresses that are remembered, and addresses that overlap.
    pub fn counts(&self) -> (usize, usize) {
        (self.uses.len(), self.findings.len())
    }

    /// Takes one observation, of any site. Raises or updates the finding of its address where it now is in use
    /// in two address spaces.
    pub fn on_observation(
        &mut self,
        observation: &Observation,
        now: Timestamp,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let address = observation.address;
        let is_counted = observation.secretariat.is_some() && observation.aggregate.is_none();
        if !is_counted || !classify(address).is_private() {
            return;
        }
        let key = Address::of(address);
        let hash = self.uses.hash_of(&key);
        if let Some(uses) = self.uses.get_hashed(hash, &key) {
            if let Uses::One(one) = uses {
                if one.take(observation, &self.spots) {
                    return;
                }
                let written = one.written_out(address, &self.spots);
                *uses = Uses::Several(written.into_iter().collect());
            }
        } else {
            // A question alone is not worth memory; beside a use it is.
            if observation.strength == Strength::Weak {
                return;
            }
            if let Some(one) = One::of(observation, &mut self.spots) {
                self.uses.insert_hashed(hash, key, Uses::One(one));
                return;
            }
            self.uses.insert_hashed(hash, key, Uses::Several(Vec::new()));
        }
        let Some(Uses::Several(uses)) = self.uses.get_hashed(hash, &key) else { return };
        let horizon = observation.last_seen.plus(self.window.saturating_neg());
        uses.retain(|one| one.last_seen >= horizon || one.space == observation.address_space);
        note_use(uses, observation);
        let in_use = uses.iter().filter(|one| one.is_shown()).count();
        let exempt = |source| {
            let rule = RuleId::OverlapAddress;
            desk.is_exempt(&ExemptionQuery { rule, source: Some(source), destination: None, port: None })
        };
        let are_shared = |uses: &[Use]| {
            let mut used = uses.iter().filter(|one| one.is_shown());
            used.all(|one| desk.shared().has(address, &one.space))
        };
        if self.enabled && in_use >= 2 && !exempt(address) && !are_shared(uses) {
            let uses: Vec<Use> = uses.iter().filter(|one| one.is_shown()).cloned().collect();
            let start = || Overlap { uses: Vec::new() };
            self.findings.note(now, address, desk, start, |overlap| overlap.uses = uses, sink);
        }
    }

    /// Who was observed using an address within the window before `now`, at most 16: the secretariats of the
    /// segments that showed use of it. Questions count for nobody.
    pub fn owners(&self, address: IpAddr, now: Timestamp) -> Vec<ObservedOwner> {
        let horizon = now.plus(self.window.saturating_neg());
        match self.uses.peek(&Address::of(address)) {
            None => Vec::new(),
            Some(Uses::One(one)) => {
                let recent = one.last_seen() >= horizon;
                one.owner(&self.spots).filter(|_| recent).into_iter().collect()
            }
            Some(Uses::Several(uses)) => {
                let owners = uses.iter().flat_map(|one| {
                    let recent = |holder: &&Holder| holder.used.is_some_and(|used| used >= horizon);
                    one.holders.iter().filter(recent).map(|holder| ObservedOwner {
                        secretariat: holder.secretariat.clone(),
                        address_space: one.space.clone(),
                    })
                });
                owners.take(MAX_SPACES).collect()
            }
        }
    }

    /// Closes findings whose address was not seen for the window.
    pub fn advance(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.findings.advance(now, desk, sink);
    }

    /// Tells the last state of findings that have news.
    pub fn finish(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.findings.finish(now, desk, sink);
    }
}

fn note_use(uses: &mut Vec<Use>, observation: &Observation) {
    let at = uses.iter().position(|one| one.space == observation.address_space).or_else(|| {
        (uses.len() < MAX_SPACES).then(|| {
            uses.push(Use {
                space: observation.address_space.clone(),
                strength: Strength::Weak,
                packets: 0,
                first_seen: observation.first_seen,
                last_seen: observation.last_seen,
                holders: Vec::new(),
                observations: Vec::new(),
            });
            uses.len() - 1
        })
    });
    let Some(one) = at.and_then(|at| uses.get_mut(at)) else { return };
    one.strength = one.strength.max(observation.strength);
    one.packets = one.packets.saturating_add(observation.packets);
    one.first_seen = one.first_seen.min(observation.first_seen);
    one.last_seen = one.last_seen.max(observation.last_seen);
    one.hold(observation);
    one.keep(observation);
}

impl Use {
    /// Whether it counts.
    fn is_shown(&self) -> bool {
        let is_own = |seen: &ObservationEvidence| seen.strength > Strength::Weak && is_of_station(seen.kind);
        is_shown(self.strength, (self.first_seen, self.last_seen), || self.observations.iter().any(is_own))
    }

    fn hold(&mut self, observation: &Observation) {
        let Some(secretariat) = &observation.secretariat else { return };
        let used = (observation.strength > Strength::Weak).then_some(observation.last_seen);
        if let Some(held) = self.holders.iter_mut().find(|held| held.secretariat == *secretariat) {
            held.used = held.used.max(used);
        } else if self.holders.len() < MAX_SPACES {
            // Most have one for long.
            self.holders.reserve_exact(1);
            self.holders.push(Holder { secretariat: secretariat.clone(), used });
        }
    }

    /// Keeps an observation as evidence: the same one moves on, a stronger one takes the weakest one's place.
    fn keep(&mut self, observation: &Observation) {
        let same = |held: &&mut ObservationEvidence| {
            held.kind == observation.kind
                && held.mac == observation.mac
                && held.site == observation.site
                && held.segment == observation.segment
        };
        if let Some(held) = self.observations.iter_mut().find(same) {
            held.first_seen = held.first_seen.min(observation.first_seen);
            held.last_seen = held.last_seen.max(observation.last_seen);
            return;
        }
        if self.observations.len() >= MAX_PER_SPACE
            && self.observations.last().is_some_and(|weakest| weakest.strength >= observation.strength)
        {
            return;
        }
        self.observations.truncate(MAX_PER_SPACE - 1);
        self.observations.reserve_exact(1);
        self.observations.push(observation.into());
        self.observations.sort_by_key(|held| std::cmp::Reverse(held.strength));
    }
}

/// One address that overlaps.
#[derive(Clone, Debug)]
struct Overlap {
    uses: Vec<Use>,
}

impl Overlap {
    /// Whether every observation in every space is of one and the same station: a host with a leg in both, or a
    /// link that carries both, rather than two hosts.
    fn is_one_station(&self) -> bool {
        let mut macs = self.uses.iter().flat_map(|one| &one.observations).map(|held| held.mac);
        let first = macs.next().flatten();
        first.is_some() && macs.all(|mac| mac == first)
    }

    fn evidence(&self) -> Vec<ObservationEvidence> {
        let by_rank = (0..MAX_PER_SPACE)
            .flat_map(|rank| self.uses.iter().filter_map(move |one| one.observations.get(rank)).cloned());
        by_rank.take(MAX_EVIDENCE).collect()
    }

    fn summary(&self, address: IpAddr) -> String {
        let mut text = format!("{address} is in use in {} address spaces:", self.uses.len());
        for (at, one) in self.uses.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{} {}", if at == 0 { "" } else { "," }, one.space);
            if let Some(best) = one.observations.first() {
                let place = best.segment.as_deref().unwrap_or(&best.site);
                let _ = write!(text, " ({place}, by {}", best.kind);
                if let Some(mac) = best.mac {
                    let _ = write!(text, " of {mac}");
                }
                text.push(')');
            }
        }
        text
    }
}

impl Incident for Overlap {
    type Key = IpAddr;

    fn size(&self) -> u64 {
        self.uses.iter().fold(0, |sum, one| sum.saturating_add(one.packets))
    }

    fn grade(&self) -> (Severity, Confidence) {
        let strong = self.uses.iter().filter(|one| one.strength == Strength::Strong).count();
        let (severity, confidence) = match strong {
            0 => (Severity::Medium, 60),
            1 => (Severity::Medium, 80),
            _ => (Severity::High, 95),
        };
        if self.is_one_station() {
            return (Severity::Medium, 40);
        }
        // Each further space makes chance less likely, and is news.
        let further = u8::try_from(self.uses.len().saturating_sub(2)).unwrap_or(u8::MAX);
        (severity, u8::saturating_add(confidence, further).min(99))
    }

    fn draft(&self, address: &IpAddr, _: &Desk) -> Draft {
        let (severity, confidence) = self.grade();
        let mut evidence = Evidence { observations: self.evidence(), ..Evidence::default() };
        let mut stations: Vec<_> =
            self.uses.iter().flat_map(|one| &one.observations).map(|o| o.mac).collect();
        stations.sort();
        stations.dedup();
        for (name, count) in [
            ("address_spaces", self.uses.len() as u64),
            ("packets", self.size()),
            ("stations", stations.iter().flatten().count() as u64),
        ] {
            evidence.counts.insert(name.into(), count);
        }
        Draft {
            key: format!("{}|{address}", RuleId::OverlapAddress),
            rule: RuleId::OverlapAddress,
            rule_version: VERSION,
            first_seen: self.uses.iter().map(|one| one.first_seen).min().unwrap_or_default(),
            last_seen: self.uses.iter().map(|one| one.last_seen).max().unwrap_or_default(),
            severity,
            confidence,
            summary: self.summary(*address),
            subject: Subject { address: Some(*address), ..Subject::default() },
            interface: None,
            address_spaces: self.uses.iter().map(|one| one.space.clone()).collect(),
            secretariats: self
                .uses
                .iter()
                .flat_map(|one| one.holders.iter().map(|holder| holder.secretariat.clone()))
                .collect(),
            evidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        net::MacAddress,
        record::{Change, FindingChange, ObservationKind},
    };

    const PLAN: &str = "
        secretariat = [{id='eohhs', contact='eohhs@x'}, {id='massdot', contact='dot@x'}, {id='anf'}]
        exemption = [{rule='overlap.address', source='10.255.0.0/16', reason='anycast'}]";

    fn seen(address: &str, space: &str, kind: ObservationKind, second: i64) -> Observation {
        let strength = match kind {
            ObservationKind::ArpReply => Strength::Strong,
            ObservationKind::ArpProbe => Strength::Weak,
            _ => Strength::Medium,
        };
        let mac = MacAddress([2, 0, 0, 0, 0, space.len().try_into().unwrap()]);
        let text = format!(
            r#"{{"kind":"{kind}","strength":"{strength}","address":"{address}","address_space":"{space}",
            "secretariat":"{space}","segment":"boston-{space}","site":"boston","interface":"in0","vlans":[],
            "mac":"{mac}","first_seen":"{t}","last_seen":"{t}","packets":1}}"#,
            t = Timestamp::from_parts(second, 0),
        );
        serde_json::from_str(&text).expect("an observation")
    }

    fn run(observations: &[Observation]) -> Vec<FindingChange> {
        let desk = Desk::new("boston".into(), Arc::new(toml::from_str(PLAN).unwrap()));
        let mut tracker = OverlapTracker::new(&OverlapConfig::default(), [0; 4]);
        let mut changes = Vec::new();
        for observation in observations {
            let now = observation.last_seen;
            tracker.on_observation(observation, now, &desk, &mut |c| changes.push(c.clone()));
        }
        changes
    }

    use ObservationKind::{ArpProbe, ArpReply, ArpRequest, Traffic};

    #[test]
    fn two_hosts_that_answer_for_one_address_in_two_spaces_are_one_sure_finding() {
        let changes =
            run(&[seen("10.1.1.1", "eohhs", ArpReply, 1), seen("10.1.1.1", "massdot", ArpReply, 2)]);
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(change.key, "overlap.address|10.1.1.1");
        assert_eq!((change.change, change.severity, change.confidence), (Change::Raised, Severity::High, 95));
        assert_eq!(change.address_spaces, ["eohhs".into(), "massdot".into()]);
        assert_eq!(change.contacts, ["eohhs@x".into(), "dot@x".into()]);
        assert_eq!(change.evidence.observations.len(), 2);
        assert_eq!(
            change.summary,
            "10.1.1.1 is in use in 2 address spaces: eohhs (boston-eohhs, by arp-reply of 02:00:00:00:00:05), \
             massdot (boston-massdot, by arp-reply of 02:00:00:00:00:07)"
        );
    }

    #[test]
    fn better_evidence_and_a_third_space_update_the_finding() {
        let changes = run(&[
            seen("10.1.1.1", "eohhs", Traffic, 1),
            seen("10.1.1.1", "massdot", Traffic, 2),
            seen("10.1.1.1", "eohhs", Traffic, 4_000),
            seen("10.1.1.1", "massdot", Traffic, 4_001),
            seen("10.1.1.1", "massdot", ArpReply, 4_003),
            seen("10.1.1.1", "eohhs", ArpReply, 4_004),
            seen("10.1.1.1", "anf", Traffic, 4_005),
            seen("10.1.1.1", "anf", ArpRequest, 4_006),
        ]);
        let grades: Vec<_> = changes.iter().map(|c| (c.change, c.revision, c.confidence)).collect();
        let updated = Change::Updated;
        assert_eq!(grades, [(Change::Raised, 0, 60), (updated, 1, 80), (updated, 2, 95), (updated, 3, 96)]);
    }

    #[test]
    fn what_is_no_overlap_is_not_raised() {
        for (what, observations) in [
            (
                "one space",
                vec![seen("10.1.1.1", "eohhs", ArpReply, 1), seen("10.1.1.1", "eohhs", Traffic, 2)],
            ),
            (
                "a question",
                vec![seen("10.1.1.1", "eohhs", ArpReply, 1), seen("10.1.1.1", "massdot", ArpProbe, 2)],
            ),
            (
                "only questions",
                vec![seen("10.1.1.1", "eohhs", ArpProbe, 1), seen("10.1.1.1", "massdot", ArpProbe, 2)],
            ),
            (
                "exempt",
                vec![seen("10.255.1.1", "eohhs", ArpReply, 1), seen("10.255.1.1", "massdot", ArpReply, 2)],
            ),
            (
                "link-local",
                vec![seen("169.254.1.1", "eohhs", ArpReply, 1), seen("169.254.1.1", "massdot", ArpReply, 2)],
            ),
            ("global", vec![seen("8.8.8.8", "eohhs", ArpReply, 1), seen("8.8.8.8", "massdot", ArpReply, 2)]),
            (
                "moved",
                vec![seen("10.1.1.1", "eohhs", ArpReply, 1), seen("10.1.1.1", "massdot", ArpReply, 700_000)],
            ),
        ] {
            assert_eq!(run(&observations), [], "{what}");
        }
    }

    #[test]
    fn observations_without_a_place_say_nothing_about_spaces() {
        let mut placeless = seen("10.1.1.1", "default", ArpReply, 2);
        placeless.secretariat = None;
        assert_eq!(run(&[seen("10.1.1.1", "eohhs", ArpReply, 1), placeless]), []);
    }

    #[test]
    fn one_station_in_both_spaces_is_unsure() {
        let mut other = seen("10.1.1.1", "massdot", ArpReply, 2);
        other.mac = seen("10.1.1.1", "eohhs", ArpReply, 1).mac;
        let changes = run(&[seen("10.1.1.1", "eohhs", ArpReply, 1), other]);
        assert_eq!((changes[0].severity, changes[0].confidence), (Severity::Medium, 40));
    }

    #[test]
    fn owners_are_who_used_the_address_within_the_window_whether_or_not_the_rule_runs() {
        let desk = Desk::new("boston".into(), Arc::default());
        let config = OverlapConfig { enabled: false, ..OverlapConfig::default() };
        let mut tracker = OverlapTracker::new(&config, [0; 4]);
        for one in [
            seen("10.1.1.1", "eohhs", ArpReply, 1),
            seen("10.1.1.1", "massdot", ArpProbe, 2),
            seen("10.1.1.1", "anf", Traffic, 600_000),
        ] {
            tracker.on_observation(&one, one.last_seen, &desk, &mut |c| panic!("{c:?}"));
        }
        let owners = |address: &str, second| -> Vec<String> {
            let owners = tracker.owners(address.parse().unwrap(), Timestamp::from_parts(second, 0));
            owners.iter().map(|owner| format!("{}/{}", owner.address_space, owner.secretariat)).collect()
        };
        assert_eq!(owners("10.1.1.1", 600_000), ["eohhs/eohhs", "anf/anf"]);
        assert_eq!(owners("10.1.1.1", 604_802), ["anf/anf"]);
        assert!(owners("10.1.1.2", 3).is_empty());
    }

    #[test]
    fn questions_alone_take_no_memory() {
        let desk = Desk::new("boston".into(), Arc::default());
        let mut tracker = OverlapTracker::new(&OverlapConfig::default(), [0; 4]);
        let probe = seen("10.1.1.1", "eohhs", ArpProbe, 1);
        tracker.on_observation(&probe, probe.last_seen, &desk, &mut |_| ());
        assert_eq!(tracker.counts(), (0, 0));
    }

    #[test]
    fn a_use_that_was_kept_in_few_bytes_is_written_out_whole() {
        let at = |second| Timestamp::from_parts(second, 0);
        let (mut first, mut answered) =
            (seen("10.1.1.1", "eohhs", Traffic, 5), seen("10.1.1.1", "eohhs", Traffic, 9));
        (first.packets, answered.packets, answered.first_seen) = (7, 4, at(3));
        answered.strength = Strength::Strong;
        let changes = run(&[first.clone(), answered, seen("10.1.1.1", "massdot", ArpReply, 10)]);
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((change.severity, change.confidence), (Severity::High, 95), "both uses are strong");
        assert_eq!((change.first_seen, change.last_seen), (at(3), at(10)));
        assert_eq!(change.evidence.counts.get("packets"), Some(&12));
        let evidence = &change.evidence.observations[0];
        let expected =
            ObservationEvidence { first_seen: at(3), last_seen: at(9), ..ObservationEvidence::from(&first) };
        assert_eq!(*evidence, expected, "the evidence is that of the first observation, seen since");
    }

    #[test]
    fn what_does_not_fit_in_few_bytes_is_remembered_as_well() {
        let mut many = seen("10.1.1.1", "eohhs", ArpReply, 1);
        many.packets = u64::from(u32::MAX);
        let mut nowhere = seen("10.1.1.1", "massdot", ArpReply, 4);
        (nowhere.mac, nowhere.segment) = (None, None);
        let changes = run(&[many.clone(), many, nowhere]);
        assert_eq!(changes[0].evidence.counts.get("packets"), Some(&(u64::from(u32::MAX) * 2 + 1)));
        assert_eq!(changes[0].evidence.observations[1].mac, None);
        let v6 = run(&[seen("fd00::1", "eohhs", ArpReply, 1), seen("fd00::1", "massdot", ArpReply, 2)]);
        assert_eq!(v6[0].key, "overlap.address|fd00::1");
    }

    #[test]
    fn a_use_takes_32_bytes() {
        assert_eq!((size_of::<One>(), size_of::<Uses>(), size_of::<(Address, Uses)>()), (32, 32, 48));
    }

    #[test]
    fn memory_stays_within_the_limit() {
        let desk = Desk::new("boston".into(), Arc::default());
        let mut tracker = OverlapTracker::new(&OverlapConfig { limit: 8, ..Default::default() }, [0; 4]);
        for host in 0..200u8 {
            for space in ["eohhs", "massdot"] {
                let one = seen(&format!("10.1.1.{host}"), space, ArpReply, i64::from(host));
                tracker.on_observation(&one, one.last_seen, &desk, &mut |_| ());
            }
        }
        assert_eq!(tracker.counts(), (8, 8));
    }
}
