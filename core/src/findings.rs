//! The life of findings inside the engine: raised once per incident, updated when the evidence has doubled or
//! weighs more, closed when quiet. Rules and the overlap tracker keep their incidents here.

use std::{hash::Hash, sync::Arc};

use crate::{
    bounded::Bounded,
    net::Name,
    plan::{AddressPlan, ExemptionQuery, SharedAddresses},
    record::{Change, Confidence, Evidence, FindingChange, FindingId, RuleId, Severity, Subject},
    time::Timestamp,
};

/// What rules know about whom they work for.
#[derive(Clone, Debug)]
pub struct Desk {
    site: Name,
    plan: Arc<AddressPlan>,
    shared: Arc<SharedAddresses>,
}

impl Desk {
    /// For findings of this site under this plan.
    pub fn new(site: Name, plan: Arc<AddressPlan>) -> Self {
        let shared = Arc::new(plan.shared_addresses());
        Self { site, plan, shared }
    }

    /// Addresses that several hosts may have.
    pub fn shared(&self) -> &SharedAddresses {
        &self.shared
    }

    /// The site.
    pub const fn site(&self) -> &Name {
        &self.site
    }

    /// Whether the plan exempts it.
    pub fn is_exempt(&self, query: &ExemptionQuery) -> bool {
        self.plan.exemptions.iter().any(|exemption| exemption.covers(query))
    }

    /// Contacts of these secretariats, in their order; those without one are left out.
    pub fn contacts(&self, secretariats: &[Name]) -> Vec<Name> {
        secretariats.iter().filter_map(|id| self.plan.secretariat(id)?.contact.clone()).collect()
    }
}

/// What a rule says about an incident, whole, as of now.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Stable key of the incident, beginning with the rule.
    pub key: String,
    /// The rule.
    pub rule: RuleId,
    /// Version of the rule.
    pub rule_version: u32,
    /// First packet that belongs to it.
    pub first_seen: Timestamp,
    /// Last packet that belongs to it.
    pub last_seen: Timestamp,
    /// How bad.
    pub severity: Severity,
    /// How sure, 0 to 100.
    pub confidence: Confidence,
    /// One line for a person.
    pub summary: String,
    /// What it is about.
    pub subject: Subject,
    /// Interface, where one is to be named.
    pub interface: Option<Name>,
    /// Address spaces it touches, in any order.
    pub address_spaces: Vec<Name>,
    /// Secretariats it touches, in any order.
    pub secretariats: Vec<Name>,
    /// Why.
    pub evidence: Evidence,
}

impl Draft {
    /// The change that tells it.
    pub fn into_change(self, change: Change, revision: u32, time: Timestamp, desk: &Desk) -> FindingChange {
        let Self { mut address_spaces, mut secretariats, .. } = self;
        address_spaces.sort();
        address_spaces.dedup();
        secretariats.sort();
        secretariats.dedup();
        FindingChange {
            finding_id: FindingId::of_key(&self.key),
            key: self.key,
            rule: self.rule,
            rule_version: self.rule_version,
            change,
            revision,
            time,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            severity: self.severity,
            confidence: self.confidence,
            summary: self.summary,
            subject: self.subject,
            site: desk.site.clone(),
            interface: self.interface,
            address_spaces,
            contacts: desk.contacts(&secretariats),
            secretariats,
            evidence: self.evidence,
        }
    }
}

/// What a rule remembers about one incident.
pub trait Incident {
    /// What makes the incident one, within its rule.
    type Key: Hash + Eq + Clone;

    /// How much evidence there is; an update is told when it has doubled.
    fn size(&self) -> u64;

    /// How bad and how sure; an update is told when it changes.
    fn grade(&self) -> (Severity, Confidence);

    /// States the incident.
    fn draft(&self, key: &Self::Key, desk: &Desk) -> Draft;
}

#[derive(Clone, Debug)]
struct Held<I> {
    incident: I,
    revision: u32,
    told_size: u64,
    told_grade: (Severity, Confidence),
    has_news: bool,
    noted: Timestamp,
}

/// The open incidents of one rule, at most so many; beyond, the one that was quiet longest is forgotten, its last
/// state told. Whoever can make up incidents can push others out, so rules collapse what could be made up.
#[derive(Clone, Debug)]
pub struct Findings<I: Incident> {
    open: Bounded<I::Key, Held<I>>,
    /// Next revision of incidents that were closed, so that one that comes back goes on counting.
    closed: Bounded<I::Key, u32>,
    quiet: i64,
}

/// Where findings go.
pub type FindingSink<'a> = dyn FnMut(&FindingChange) + 'a;

impl<I: Incident> Findings<I> {
    /// No incidents yet; at most `limit` at a time, each closed after `quiet_seconds` of packet time without
    /// news (0: never).
    pub fn new(limit: usize, quiet_seconds: u32, seed: [u64; 4]) -> Self {
        Self {
            open: Bounded::new(limit, seed),
            closed: Bounded::new(limit, seed),
            quiet: i64::from(quiet_seconds).saturating_mul(crate::time::NANOS_PER_SECOND),
        }
    }

    /// Open incidents.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no incident is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What is remembered about an incident.
    pub fn get(&self, key: &I::Key) -> Option<&I> {
        self.open.peek(key).map(|held| &held.incident)
    }

    /// Notes evidence: `grow` adds it to the incident, which `start` makes where there is none. Tells the sink
    /// if the incident is new, has doubled, or weighs otherwise than it did.
    pub fn note(
        &mut self,
        now: Timestamp,
        key: I::Key,
        desk: &Desk,
        start: impl FnOnce() -> I,
        grow: impl FnOnce(&mut I),
        sink: &mut FindingSink<'_>,
    ) {
        if let Some(held) = self.open.get(&key) {
            grow(&mut held.incident);
            held.noted = held.noted.max(now);
            held.has_news = true;
            let size = held.incident.size();
            if size >= held.told_size.saturating_mul(2) || held.incident.grade() != held.told_grade {
                held.tell(&key, Change::Updated, now, desk, sink);
            }
            return;
        }
        let mut incident = start();
        grow(&mut incident);
        let revision = self.closed.remove(&key).unwrap_or(0);
        let told_grade = incident.grade();
        let mut held = Held { incident, revision, told_size: 0, told_grade, has_news: true, noted: now };
        held.tell(&key, Change::Raised, now, desk, sink);
        if let Some((gone, mut held)) = self.open.insert(key, held)
            && held.has_news
        {
            held.tell(&gone, Change::Updated, now, desk, sink);
        }
    }

    /// Adds evidence to an incident that is open, without making it one: nothing where there is none.
    pub fn add(
        &mut self,
        now: Timestamp,
        key: &I::Key,
        desk: &Desk,
        grow: impl FnOnce(&mut I),
        sink: &mut FindingSink<'_>,
    ) {
        if let Some(held) = self.open.get(key) {
            grow(&mut held.incident);
            held.noted = held.noted.max(now);
            held.has_news = true;
            if held.incident.size() >= held.told_size.saturating_mul(2) {
                held.tell(key, Change::Updated, now, desk, sink);
            }
        }
    }

    /// Corrects an incident that is open, where `correct` says that it did, and tells so at once. It keeps nothing
    /// open, because it is no evidence that the incident goes on.
    pub fn amend(
        &mut self,
        now: Timestamp,
        key: &I::Key,
        desk: &Desk,
        correct: impl FnOnce(&mut I) -> bool,
        sink: &mut FindingSink<'_>,
    ) {
        if let Some(held) = self.open.peek_mut(key)
            && correct(&mut held.incident)
        {
            held.tell(key, Change::Updated, now, desk, sink);
        }
    }

    /// Closes what has been quiet for long enough.
    pub fn advance(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        while self.quiet > 0
            && let Some((key, mut held)) = self.open.pop_oldest_if(|held| now.since(held.noted) >= self.quiet)
        {
            held.tell(&key, Change::Closed, now, desk, sink);
            self.closed.insert(key, held.revision);
        }
    }

    /// Tells the last state of whatever has news; nothing is closed, because the end of a capture ends nothing.
    pub fn finish(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.open.for_each(|key, held| {
            if held.has_news {
                held.tell(key, Change::Updated, now, desk, sink);
            }
        });
    }
}

impl<I: Incident> Held<I> {
    fn tell(
        &mut self,
        key: &I::Key,
        change: Change,
        now: Timestamp,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        self.told_size = self.incident.size();
        self.told_grade = self.incident.grade();
        self.has_news = false;
        sink(&self.incident.draft(key, desk).into_change(change, self.revision, now, desk));
        self.revision = self.revision.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counted(u64);

    impl Incident for Counted {
        type Key = u8;

        fn size(&self) -> u64 {
            self.0
        }

        fn grade(&self) -> (Severity, Confidence) {
            (if self.0 >= 100 { Severity::High } else { Severity::Low }, 50)
        }

        fn draft(&self, key: &u8, _: &Desk) -> Draft {
            Draft {
                key: format!("beacon|{key}"),
                rule: RuleId::Beacon,
                rule_version: 1,
                first_seen: Timestamp(0),
                last_seen: Timestamp(0),
                severity: self.grade().0,
                confidence: 50,
                summary: String::new(),
                subject: Subject::default(),
                interface: None,
                address_spaces: Vec::new(),
                secretariats: vec!["b".into(), "a".into(), "b".into()],
                evidence: Evidence::default(),
            }
        }
    }

    fn desk() -> Desk {
        let plan = "secretariat = [{id='a', contact='a@x'}, {id='b', contact='b@x'}]";
        Desk::new("boston".into(), Arc::new(toml::from_str(plan).unwrap()))
    }

    /// Notes `steps` of (second, key, count) and lists what was told as "change key revision".
    fn told(limit: usize, quiet: u32, steps: &[(i64, u8, u64)]) -> (Vec<String>, Findings<Counted>) {
        let mut findings = Findings::new(limit, quiet, [0; 4]);
        let mut lines = Vec::new();
        let mut sink = |c: &FindingChange| lines.push(format!("{} {} {}", c.change, c.key, c.revision));
        for &(second, key, count) in steps {
            let now = Timestamp::from_parts(second, 0);
            findings.advance(now, &desk(), &mut sink);
            findings.note(now, key, &desk(), || Counted(0), |c| c.0 += count, &mut sink);
        }
        (lines, findings)
    }

    #[test]
    fn an_incident_is_raised_once_updated_when_it_doubles_and_closed_when_quiet() {
        let (lines, _) = told(9, 60, &[(0, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1), (100, 2, 1)]);
        assert_eq!(
            lines,
            [
                "raised beacon|1 0",
                "updated beacon|1 1",
                "updated beacon|1 2",
                "closed beacon|1 3",
                "raised beacon|2 0"
            ]
        );
    }

    #[test]
    fn an_incident_that_comes_back_goes_on_counting_its_changes() {
        let (lines, _) = told(9, 60, &[(0, 1, 1), (100, 1, 1)]);
        assert_eq!(lines, ["raised beacon|1 0", "closed beacon|1 1", "raised beacon|1 2"]);
    }

    #[test]
    fn a_change_of_grade_is_told_before_the_evidence_has_doubled() {
        let (lines, _) = told(9, 60, &[(0, 1, 70), (1, 1, 30)]);
        assert_eq!(lines, ["raised beacon|1 0", "updated beacon|1 1"]);
    }

    #[test]
    fn at_the_limit_the_quietest_incident_gives_way_and_its_last_state_is_told() {
        let (lines, findings) = told(2, 60, &[(0, 1, 4), (1, 1, 1), (2, 2, 1), (3, 3, 1)]);
        assert_eq!(
            lines,
            ["raised beacon|1 0", "raised beacon|2 0", "raised beacon|3 0", "updated beacon|1 1"]
        );
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn at_the_end_what_has_news_is_told_once_and_not_closed() {
        let (_, mut findings) = told(9, 60, &[(0, 1, 4), (1, 1, 1), (1, 2, 1)]);
        for expected in [vec!["updated beacon|1 1"], vec![]] {
            let mut lines = Vec::new();
            let mut sink = |c: &FindingChange| lines.push(format!("{} {} {}", c.change, c.key, c.revision));
            findings.finish(Timestamp::from_parts(2, 0), &desk(), &mut sink);
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn secretariats_are_sorted_without_doubles_and_their_contacts_named_in_that_order() {
        let mut changes = Vec::new();
        let mut findings = Findings::new(1, 0, [0; 4]);
        findings.note(Timestamp(0), 1, &desk(), || Counted(1), |_| (), &mut |c| changes.push(c.clone()));
        let names = |list: &[Name]| list.join(" ");
        assert_eq!(names(&changes[0].secretariats), "a b");
        assert_eq!(names(&changes[0].contacts), "a@x b@x");
    }
}
