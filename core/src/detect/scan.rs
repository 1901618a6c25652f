//! scan.horizontal and scan.vertical: the threshold random walk of Jung, Paxson, Berger and Balakrishnan (2004).
//!
//! Each first contact of a source with a destination moves a likelihood ratio: a failure by (1 − θ1) / (1 − θ0),
//! a success by θ1 / θ0. At η1 = β / α the source is a scanner; at η0 = (1 − β) / (1 − α) it is benign and the walk
//! begins anew. A walk is of one source and one port over hosts (horizontal), or of one source and one host over
//! ports (vertical).
//!
//! Only TCP counts. A failure is a refusal, or a SYN that was never answered and after which the source sent
//! nothing more: where it went on, the answers take another path that this sensor does not see. Silence of UDP is
//! no failure, because syslog, SNMP traps, metrics and games are silent too.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::{
    TCP,
    config::ScanConfig,
    view::{Space, scoped_party, secretariat_of},
    walk::{Course, Key, Walk, Walker, Walkers},
};
use crate::{
    bounded::Bounded,
    decode::InterfaceIndex,
    distinct::{Distinct, hash_of},
    findings::{Desk, Draft, FindingSink, Findings, Incident},
    flow::{FlowContext, FlowEvent},
    ipam::Places,
    net::Name,
    plan::ExemptionQuery,
    record::{Confidence, Evidence, FlowId, Locality, RuleId, Severity, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};

const VERSION: u32 = 1;
/// Both rules and their incidents.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    config: ScanConfig,
    walk: Walk,
    walkers: Walkers,
    pub(super) findings: Findings<Scanner>,
    /// When connections of a source were last seen to go on one way only, so that silence says nothing of it.
    one_way: Bounded<(Space, IpAddr), Timestamp>,
}

/// What became of a first contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Succeeded,
    Refused,
    Ignored,
}

impl Scan {
    pub(super) fn new(config: &ScanConfig, seed: [u64; 4]) -> Self {
        let limit = config.limit as usize;
        Self {
            walk: Walk::new(config),
            walkers: Walkers::new(limit.saturating_mul(2), seed),
            findings: Findings::new(limit, config.quiet_seconds, seed),
            one_way: Bounded::new(limit, seed),
            config: config.clone(),
        }
    }

    /// Makes ready for failures that are about to be told, but for those that say nothing.
    pub(super) fn warm(
        &self,
        events: &[(FlowEvent, FlowContext)],
        places: &Places,
        says_nothing: impl Fn(&FlowContext) -> bool,
    ) {
        let failed =
            |event| matches!(event, FlowEvent::Refused | FlowEvent::Unanswered | FlowEvent::Collapsed);
        let failures = events
            .iter()
            .filter(|(event, flow)| failed(*event) && flow.protocol == TCP && !says_nothing(flow));
        self.walkers.warm(failures.flat_map(|(_, flow)| {
            let (source, space) = (flow.originator.ip, Space::of(&flow.originator, places));
            let courses = [Course::Hosts(flow.responder.port), Course::Ports(flow.responder.ip)];
            courses.map(|course| Key { space, source, course })
        }));
    }

    pub(super) fn on_flow(
        &mut self,
        event: FlowEvent,
        flow: &FlowContext,
        places: &Places,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let source = &flow.originator;
        let fate = match event {
            FlowEvent::Established => Fate::Succeeded,
            FlowEvent::Refused => Fate::Refused,
            FlowEvent::Unanswered | FlowEvent::Collapsed => Fate::Ignored,
            _ => return,
        };
        if flow.protocol != TCP || !flow.syn_seen {
            return;
        }
        // A success of a source that never failed is what every client does all the time.
        if fate == Fate::Succeeded && self.findings.is_empty() && !self.walkers.may_hold(source.ip) {
            return;
        }
        let space = Space::of(source, places);
        if event == FlowEvent::Unanswered && source.payload_bytes > 0 {
            self.one_way.insert((space, source.ip), flow.now);
            return;
        }
        if fate == Fate::Ignored && self.is_one_way(space, source.ip, flow.now) {
            return;
        }
        let (target, port) = (flow.responder.ip, flow.responder.port);
        if self.config.horizontal {
            self.contact(Course::Hosts(port), space, hash_of(target, 0), fate, flow, places, desk, sink);
        }
        if self.config.vertical {
            let hash = hash_of(target, u64::from(port));
            self.contact(Course::Ports(target), space, hash, fate, flow, places, desk, sink);
        }
    }

    /// Whether a source was seen to go on without an answer of late.
    fn is_one_way(&self, space: Space, source: IpAddr, now: Timestamp) -> bool {
        let quiet = i64::from(self.config.quiet_seconds).saturating_mul(NANOS_PER_SECOND);
        self.one_way.peek(&(space, source)).is_some_and(|&seen| now.since(seen) <= quiet)
    }

    #[expect(clippy::too_many_arguments, reason = "what a contact is, and where findings go")]
    fn contact(
        &mut self,
        course: Course,
        space: Space,
        destination: u64,
        fate: Fate,
        flow: &FlowContext,
        places: &Places,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let key = Key { space, source: flow.originator.ip, course };
        if self.findings.get(&key).is_some() {
            // The same packets may pass another interface of this sensor; one of them counts.
            let grow = |scanner: &mut Scanner| {
                if scanner.told_by == flow.interface {
                    scanner.grow(destination, fate, flow);
                }
            };
            self.findings.note(flow.now, key, desk, || Scanner::new(flow, places), grow, sink);
            return;
        }
        let failed = fate != Fate::Succeeded;
        let quiet = i64::from(self.config.quiet_seconds).saturating_mul(NANOS_PER_SECOND);
        let (walk, needed) = (self.walk, self.needed(course));
        // A success first is what every client does; a walk begins with a failure.
        let walker = if failed { self.walkers.begin(key, flow.start) } else { self.walkers.get(&key) };
        let Some(walker) = walker else { return };
        if flow.now.since(walker.last) > quiet {
            *walker = Walker::new(flow.start);
        }
        walker.last = flow.now;
        if !walker.step(walk, destination, failed, flow) {
            return;
        }
        if walk.is_benign(walker.ratio) {
            self.walkers.remove(&key);
        } else if walk.is_scanner(walker.ratio) && walker.failures >= needed {
            let Some(walker) = self.walkers.remove(&key) else { return };
            if !self.is_exempt(&key, flow, desk) {
                let start = || Scanner::from_walk(&walker, flow, places);
                let grow = |scanner: &mut Scanner| scanner.see(flow);
                self.findings.note(flow.now, key, desk, start, grow, sink);
            }
        }
    }

    const fn needed(&self, course: Course) -> u32 {
        match course {
            Course::Hosts(_) => self.config.min_failed_hosts,
            Course::Ports(_) => self.config.min_failed_ports,
        }
    }

    fn is_exempt(&self, Key { source, course, .. }: &Key, flow: &FlowContext, desk: &Desk) -> bool {
        // Horizontally the destination is many hosts; the one that tipped the scale stands for them.
        let (rule, port) = match course {
            Course::Hosts(port) => (RuleId::ScanHorizontal, Some(*port)),
            Course::Ports(_) => (RuleId::ScanVertical, None),
        };
        desk.is_exempt(&ExemptionQuery {
            rule,
            source: Some(*source),
            destination: Some(flow.responder.ip),
            port,
        })
    }

    pub(super) fn advance(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        let quiet = i64::from(self.config.quiet_seconds).saturating_mul(NANOS_PER_SECOND);
        self.walkers.expire(|walker| now.since(walker.last) > quiet);
        self.findings.advance(now, desk, sink);
    }

    #[cfg(test)]
    pub(super) fn walkers(&self) -> usize {
        self.walkers.len()
    }
}

/// A source that was found to scan.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    told_by: InterfaceIndex,
    ratio: f64,
    inside: bool,
    interface: Name,
    space: Option<Name>,
    name: String,
    target_name: String,
    secretariat: Option<Name>,
    target_secretariat: Option<Name>,
    first: Timestamp,
    last: Timestamp,
    destinations: Distinct,
    refused: u64,
    ignored: u64,
    succeeded: u64,
    flow_ids: ArrayVec<FlowId, 8>,
}

impl Scanner {
    fn new(flow: &FlowContext, places: &Places) -> Self {
        let source = &flow.originator;
        Self {
            told_by: flow.interface,
            ratio: 1.0,
            inside: source.locality == Locality::Inside,
            interface: places.interface_name(flow.interface),
            space: Space::of(source, places).name(places),
            name: scoped_party(source, places),
            target_name: scoped_party(&flow.responder, places),
            secretariat: secretariat_of(source, places),
            target_secretariat: secretariat_of(&flow.responder, places),
            first: flow.start,
            last: flow.last,
            destinations: Distinct::default(),
            refused: 0,
            ignored: 0,
            succeeded: 0,
            flow_ids: ArrayVec::new(),
        }
    }

    fn from_walk(walker: &Walker, flow: &FlowContext, places: &Places) -> Self {
        let failures = u64::from(walker.failures);
        let mut destinations = Distinct::default();
        for &destination in walker.contacts.iter() {
            destinations.add(destination);
        }
        Self {
            destinations,
            ratio: walker.ratio,
            first: walker.first,
            ignored: failures,
            succeeded: (walker.contacts.len() as u64).saturating_sub(failures),
            flow_ids: walker.flows.ids(),
            ..Self::new(flow, places)
        }
    }

    fn see(&mut self, flow: &FlowContext) {
        self.last = self.last.max(flow.last);
    }

    fn grow(&mut self, destination: u64, fate: Fate, flow: &FlowContext) {
        self.see(flow);
        self.destinations.add(destination);
        let counter = match fate {
            Fate::Succeeded => &mut self.succeeded,
            Fate::Refused => &mut self.refused,
            Fate::Ignored => &mut self.ignored,
        };
        *counter = counter.saturating_add(1);
    }
}

impl Incident for Scanner {
    type Key = Key;

    fn size(&self) -> u64 {
        self.destinations.count()
    }

    fn grade(&self) -> (Severity, Confidence) {
        // The internet is scanned all day; one of ours that scans is broken into, or misconfigured.
        (if self.inside { Severity::High } else { Severity::Low }, 90)
    }

    fn draft(&self, Key { source, course, .. }: &Key, _: &Desk) -> Draft {
        let (severity, confidence) = self.grade();
        let count = self.destinations.count();
        let failed = self.refused.saturating_add(self.ignored);
        let mut evidence = Evidence { flow_ids: self.flow_ids.clone(), ..Evidence::default() };
        evidence.scores.insert("likelihood_ratio".into(), self.ratio);
        let (rule, key, subject, counted, what) = match *course {
            Course::Hosts(port) => {
                let subject = Subject {
                    source: Some(*source),
                    port: Some(port),
                    protocol: Some(TCP),
                    ..Subject::default()
                };
                let what = format!("tcp/{port} on {count} hosts");
                let key = format!("{}|{}|tcp/{port}", RuleId::ScanHorizontal, self.name);
                (RuleId::ScanHorizontal, key, subject, "targets", what)
            }
            Course::Ports(target) => {
                let subject = Subject {
                    source: Some(*source),
                    target: Some(target),
                    protocol: Some(TCP),
                    ..Subject::default()
                };
                let what = format!("{count} ports of {target}");
                let key = format!("{}|{}|{}", RuleId::ScanVertical, self.name, self.target_name);
                (RuleId::ScanVertical, key, subject, "ports", what)
            }
        };
        for (name, count) in [(counted, count), ("failures", failed), ("successes", self.succeeded)] {
            evidence.counts.insert(name.into(), count);
        }
        Draft {
            key,
            rule,
            rule_version: VERSION,
            first_seen: self.first,
            last_seen: self.last,
            severity,
            confidence,
            summary: format!("{source} tried {what}: {failed} attempts failed, {} succeeded", self.succeeded),
            subject,
            interface: Some(self.interface.clone()),
            address_spaces: self.space.iter().cloned().collect(),
            secretariats: match course {
                // Horizontally, the first target's secretariat is one of many.
                Course::Hosts(_) => self.secretariat.iter().cloned().collect(),
                Course::Ports(_) => {
                    self.secretariat.iter().chain(&self.target_secretariat).cloned().collect()
                }
            },
            evidence,
        }
    }
}
