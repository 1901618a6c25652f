//! Incidents by source address, as leak.private and spoof.inbound raise them. Sources can be made up, so beyond a
//! number of them in one prefix, or altogether, the prefix becomes the incident.

use std::{fmt::Write, net::IpAddr};

use ipnet::IpNet;

use super::border::Crossing;
use crate::{
    bounded::Bounded,
    distinct::{Distinct, hash_of},
    findings::{Desk, Draft, FindingSink, Findings, Incident},
    ipam::{ObservedOwner, Places},
    net::Name,
    plan::ExemptionQuery,
    record::{Confidence, Evidence, FlowId, RuleId, Severity, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};

const VERSION: u32 = 1;
/// Owners by observation that one incident names.
const MAX_OWNERS: usize = 16;
/// Crossing flows whose packets are followed until they report.
const MAX_FOLLOWED: usize = 16_384;
/// Prefixes whose sources are counted.
const MAX_PREFIXES: usize = 65_536;

/// What an incident is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Address(IpAddr),
    Prefix(IpNet),
}

/// The incidents of one rule.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    rule: RuleId,
    limits: Limits,
    quiet: i64,
    prefixes: Bounded<IpNet, (Timestamp, u32)>,
    followed: Bounded<FlowId, (IpAddr, Whose)>,
    findings: Findings<Source>,
}

/// How incidents are bounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Sources in one prefix that are incidents of their own.
    pub(super) per_prefix: u32,
    /// Open incidents beyond which no further source is one of its own.
    pub(super) sources: u32,
    /// Incidents at a time.
    pub(super) incidents: u32,
    pub(super) quiet_seconds: u32,
    /// The prefix that a source is counted in.
    pub(super) prefix_of: fn(IpAddr) -> IpNet,
}

/// What a rule adds to a crossing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge {
    pub(super) severity: Severity,
    pub(super) confidence: Confidence,
    /// What is wrong, as the middle of a sentence behind the source.
    pub(super) what: &'static str,
}

impl Sources {
    pub(super) fn new(rule: RuleId, limits: Limits, seed: [u64; 4]) -> Self {
        Self {
            rule,
            limits,
            quiet: i64::from(limits.quiet_seconds).saturating_mul(NANOS_PER_SECOND),
            prefixes: Bounded::new(MAX_PREFIXES, seed),
            followed: Bounded::new(MAX_FOLLOWED, seed),
            findings: Findings::new(limits.incidents as usize, limits.quiet_seconds, seed),
        }
    }

    /// Charges the source of a crossing, unless the plan exempts it. `owners` are who was observed using the
    /// source; they are named where neither segment nor plan says whose it is.
    pub(super) fn charge(
        &mut self,
        crossing: &Crossing,
        charge: Charge,
        owners: &[ObservedOwner],
        places: &Places,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let query = ExemptionQuery {
            rule: self.rule,
            source: Some(crossing.source),
            destination: Some(crossing.destination),
            port: crossing.port,
        };
        if desk.is_exempt(&query) {
            return;
        }
        let whose = self.whose(crossing.source, crossing.time);
        let flow_id = crossing.identity.id();
        self.followed.insert(flow_id, (crossing.source, whose));
        let rule = self.rule;
        let start = || Source {
            rule,
            charge,
            interface: places.interface_name(crossing.interface),
            secretariat: crossing.secretariat.and_then(|s| places.secretariat_name(s)).cloned(),
            space: crossing.secretariat.map(|s| places.space_name(places.space_of(Some(s)))),
            observed: Vec::new(),
            first_seen: crossing.time,
            last_seen: crossing.time,
            flows: 0,
            packets: 0,
            destination: crossing.destination,
            port: crossing.port,
            protocol: crossing.protocol,
            sources: Distinct::default(),
            destinations: Distinct::default(),
            flow_ids: arrayvec::ArrayVec::new(),
        };
        let grow = |source: &mut Source| {
            source.grow(crossing, flow_id, charge);
            if crossing.secretariat.is_none() {
                source.name_owners(owners);
            }
        };
        self.findings.note(crossing.time, whose, desk, start, grow, sink);
    }

    /// Whether a source, or its prefix, has been charged of late.
    pub(super) fn is_charged(&self, source: IpAddr) -> bool {
        if self.findings.is_empty() {
            return false;
        }
        let prefix = (self.limits.prefix_of)(source);
        self.findings.get(&Whose::Address(source)).is_some()
            || self.findings.get(&Whose::Prefix(prefix)).is_some()
    }

    /// Whether an incident of this source alone is open whose owner neither segment nor plan tells.
    pub(super) fn lacks_owner(&self, source: IpAddr) -> bool {
        self.findings.get(&Whose::Address(source)).is_some_and(|source| source.secretariat.is_none())
    }

    /// Names who was observed using the source of an open incident, which is told where it is news.
    pub(super) fn on_owners(
        &mut self,
        source: IpAddr,
        owners: &[ObservedOwner],
        now: Timestamp,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let name = |source: &mut Source| source.name_owners(owners);
        self.findings.amend(now, &Whose::Address(source), desk, name, sink);
    }

    /// Whether any flow is followed that was charged.
    pub(super) fn follows(&self) -> bool {
        !self.followed.is_empty()
    }

    /// Packets of a flow that was charged: those its source sent since the last report.
    pub(super) fn report(
        &mut self,
        flow_id: FlowId,
        packets_of: impl FnOnce(IpAddr) -> u64,
        time: Timestamp,
        is_last: bool,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let Some(&(source, whose)) = self.followed.peek(&flow_id) else { return };
        if is_last {
            self.followed.remove(&flow_id);
        }
        let packets = packets_of(source);
        if packets > 0 {
            let grow = |source: &mut Source| {
                source.packets = source.packets.saturating_add(packets);
                source.last_seen = source.last_seen.max(time);
            };
            self.findings.add(time, &whose, desk, grow, sink);
        }
    }

    /// The source itself, or its prefix where too many of it have been charged of late.
    fn whose(&mut self, source: IpAddr, now: Timestamp) -> Whose {
        if self.findings.get(&Whose::Address(source)).is_some() {
            return Whose::Address(source);
        }
        let prefix = (self.limits.prefix_of)(source);
        if self.findings.len() >= self.limits.sources as usize {
            return Whose::Prefix(prefix);
        }
        let Some((since, count)) = self.prefixes.get(&prefix) else {
            self.prefixes.insert(prefix, (now, 1));
            return Whose::Address(source);
        };
        if self.quiet > 0 && now.since(*since) > self.quiet {
            (*since, *count) = (now, 0);
        }
        if *count >= self.limits.per_prefix {
            return Whose::Prefix(prefix);
        }
        *count += 1;
        Whose::Address(source)
    }

    pub(super) fn advance(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.findings.advance(now, desk, sink);
    }

    pub(super) fn finish(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.findings.finish(now, desk, sink);
    }

    pub(super) fn open(&self) -> usize {
        self.findings.len()
    }
}

/// One source or prefix that was charged.
#[derive(Clone, Debug)]
struct Source {
    rule: RuleId,
    charge: Charge,
    interface: Name,
    secretariat: Option<Name>,
    space: Option<Name>,
    observed: Vec<ObservedOwner>,
    first_seen: Timestamp,
    last_seen: Timestamp,
    flows: u64,
    packets: u64,
    destination: IpAddr,
    port: Option<u16>,
    protocol: u8,
    sources: Distinct,
    destinations: Distinct,
    flow_ids: arrayvec::ArrayVec<FlowId, 8>,
}

impl Source {
    fn grow(&mut self, crossing: &Crossing, flow_id: FlowId, charge: Charge) {
        self.flows = self.flows.saturating_add(1);
        self.last_seen = self.last_seen.max(crossing.time);
        self.sources.add(hash_of(crossing.source, 0));
        self.destinations.add(hash_of(crossing.destination, crossing.port.map_or(0, u64::from)));
        if charge.severity > self.charge.severity {
            self.charge = charge;
        }
        self.charge.confidence = self.charge.confidence.max(charge.confidence);
        if !self.flow_ids.contains(&flow_id) {
            // The first eight are kept.
            let _ = self.flow_ids.try_push(flow_id);
        }
    }
}

impl Source {
    /// Adds who was observed using the source; true if that was not known.
    fn name_owners(&mut self, owners: &[ObservedOwner]) -> bool {
        let before = self.observed.len();
        for owner in owners {
            if self.observed.len() < MAX_OWNERS && !self.observed.contains(owner) {
                self.observed.push(owner.clone());
            }
        }
        self.observed.len() > before
    }

    /// Secretariats that were observed using the source, sorted, each once.
    fn observed_secretariats(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.observed.iter().map(|owner| owner.secretariat.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Incident for Source {
    type Key = Whose;

    fn size(&self) -> u64 {
        self.flows
    }

    fn grade(&self) -> (Severity, Confidence) {
        (self.charge.severity, self.charge.confidence)
    }

    fn draft(&self, whose: &Whose, desk: &Desk) -> Draft {
        let (name, source, prefix) = match whose {
            Whose::Address(ip) => (ip.to_string(), Some(*ip), None),
            Whose::Prefix(net) => (net.to_string(), None, Some(*net)),
        };
        let destinations = self.destinations.count();
        let single = destinations <= 1;
        let packets = self.packets.max(self.flows);
        let mut evidence = Evidence { flow_ids: self.flow_ids.clone(), ..Evidence::default() };
        for (name, count) in [
            ("flows", self.flows),
            ("packets", packets),
            ("destinations", destinations),
            ("sources", self.sources.count()),
        ] {
            evidence.counts.insert(name.into(), count);
        }
        let towards = if single {
            format!("to {}", self.destination)
        } else {
            format!("to {destinations} destinations")
        };
        let plural = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let mut summary = format!(
            "{name} {} on {} {towards} ({}, {})",
            self.charge.what,
            self.interface,
            plural(self.flows, "flow"),
            plural(packets, "packet"),
        );
        let observed = self.observed_secretariats();
        if !observed.is_empty() {
            evidence.counts.insert("observed_owners".into(), observed.len() as u64);
            let owners = if observed.len() == 1 { "owner" } else { "owners" };
            // Writing to a string cannot fail.
            let _ = write!(summary, "; {owners} by observation: {}", observed.join(", "));
        }
        // A private address that leaks is another host at another site; a forged source is the same everywhere.
        let key = match self.rule {
            RuleId::LeakPrivate => format!("{}|{}|{name}", self.rule, desk.site()),
            _ => format!("{}|{name}", self.rule),
        };
        Draft {
            key,
            rule: self.rule,
            rule_version: VERSION,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            severity: self.charge.severity,
            confidence: self.charge.confidence,
            summary,
            subject: Subject {
                source,
                target: single.then_some(self.destination),
                address: None,
                prefix,
                port: self.port.filter(|_| single),
                protocol: single.then_some(self.protocol),
            },
            interface: Some(self.interface.clone()),
            address_spaces: {
                let observed = self.observed.iter().map(|owner| &owner.address_space);
                self.space.iter().chain(observed).cloned().collect()
            },
            secretariats: self.secretariat.iter().cloned().chain(observed).collect(),
            evidence,
        }
    }
}
