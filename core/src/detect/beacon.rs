//! beacon: a host of ours calls out at regular intervals with even sizes, by RITA's score (see `score`).
//!
//! Connections count when they have ended and were answered, so a host that keeps failing to connect is no beacon.
//! The latest connections of a pair are remembered; the window of the score reaches back to the first packet of
//! the sensor, a day at most. A destination that half of our hosts call is lowered: that is what updates and time
//! servers look like.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    net::IpAddr,
};

use arrayvec::ArrayVec;

use super::{
    Hashes, TCP,
    config::BeaconConfig,
    few::Latest,
    score::Scores,
    view::{Space, scoped_in, secretariat_of},
};
use crate::{
    bounded::{Bounded, hash_address},
    decode::InterfaceIndex,
    distinct::{Distinct, hash_of},
    findings::{Desk, Draft, FindingSink, Findings, Incident},
    flow::{FlowContext, FlowEvent, FlowIdentity, TOGETHER},
    ipam::{Places, classify},
    net::Name,
    plan::{ExemptionQuery, Role},
    record::{Confidence, Evidence, FlowId, Locality, RuleId, Severity, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};

const VERSION: u32 = 1;
const UDP: u8 = 17;
/// What a common destination loses, as RITA's prevalence does.
const COMMON_PENALTY: f64 = 0.15;

/// Who calls whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    space: Space,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    protocol: u8,
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_address(self.source, state);
        hash_address(self.destination, state);
        let [[a, b], [c, d]] = [self.space.number(), self.port].map(u16::to_be_bytes);
        state.write_u64(u64::from_be_bytes([0, 0, 0, self.protocol, a, b, c, d]));
    }
}

/// A host that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Destination(IpAddr);

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_address(self.0, state);
    }
}

/// The rule, the pairs it remembers, and its incidents.
#[derive(Clone, Debug)]
pub(super) struct Beacon {
    config: BeaconConfig,
    pairs: Bounded<(InterfaceIndex, Pair), Calls>,
    /// Our hosts that called anybody.
    callers: Distinct,
    /// Our hosts by destination.
    destinations: Bounded<Destination, Distinct>,
    first: Option<Timestamp>,
    pub(super) findings: Findings<Beaconing>,
}

/// One connection: its start as a whole second, and the bytes of IP the source sent.
type Call = (u32, u64);

/// The connections of a pair. Most pairs call once, and that takes no memory beside the table's.
#[derive(Clone, Debug)]
enum Calls {
    Once(Once),
    Often(Box<Series>),
}

/// The only connection of a pair.
#[derive(Clone, Debug)]
struct Once {
    start: Timestamp,
    last: Timestamp,
    bytes: u64,
    identity: FlowIdentity,
}

/// The connections of a pair that called again.
#[derive(Clone, Debug)]
struct Series {
    latest: VecDeque<Call>,
    total: u64,
    scored_at: Timestamp,
    /// Whether a connection came since.
    is_due: bool,
    start: Timestamp,
    last: Timestamp,
    flows: Latest,
    names: Names,
}

#[derive(Clone, Debug)]
struct Names {
    interface: Name,
    space: Option<Name>,
    secretariat: Option<Name>,
}

fn key_of(flow: &FlowContext, places: &Places) -> (InterfaceIndex, Pair) {
    let (source, target) = (&flow.originator, &flow.responder);
    let pair = Pair {
        space: Space::of(source, places),
        source: source.ip,
        destination: target.ip,
        port: target.port,
        protocol: flow.protocol,
    };
    (flow.interface, pair)
}

fn seconds_of(time: Timestamp) -> u32 {
    u32::try_from(time.as_nanos().div_euclid(NANOS_PER_SECOND).max(0)).unwrap_or(u32::MAX)
}

impl Beacon {
    pub(super) fn new(config: &BeaconConfig, seed: [u64; 4]) -> Self {
        let limit = config.limit as usize;
        Self {
            config: config.clone(),
            pairs: Bounded::new(limit, seed),
            callers: Distinct::default(),
            destinations: Bounded::new(limit, seed),
            first: None,
            findings: Findings::new(limit, config.quiet_seconds, seed),
        }
    }

    /// The window of the score reaches back to the first packet that rules were told of.
    pub(super) fn begin(&mut self, start: Timestamp) {
        self.first = Some(self.first.map_or(start, |first| first.min(start)));
    }

    /// Makes ready for connections that are about to be told.
    pub(super) fn warm(&self, events: &[(FlowEvent, FlowContext)], places: &Places) {
        if !self.config.enabled {
            return;
        }
        let (mut pairs, mut destinations) = (Hashes::new(), Hashes::new());
        for (event, flow) in events.iter().take(TOGETHER) {
            if matches!(event, FlowEvent::Reported(_)) && self.is_call(flow) {
                pairs.push(self.pairs.hash_of(&key_of(flow, places)));
                destinations.push(self.destinations.hash_of(&Destination(flow.responder.ip)));
            }
        }
        self.pairs
            .warm(pairs.into_iter(), |(_, pair), calls| u64::from(pair.port) ^ u64::from(calls.is_series()));
        self.destinations.warm(destinations.into_iter(), |_, hosts| hosts.is_one().into());
    }

    /// A flow has ended.
    pub(super) fn on_end(
        &mut self,
        flow: &FlowContext,
        places: &Places,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        if !self.config.enabled || !self.is_call(flow) {
            return;
        }
        let (source, target) = (&flow.originator, &flow.responder);
        let host = hash_of(source.ip, 0);
        self.callers.add(host);
        if let Some(hosts) = self.destinations.get_or_insert_with(Destination(target.ip), Distinct::default) {
            hosts.add(host);
        }
        let key = key_of(flow, places);
        let call =
            Once { start: flow.start, last: flow.last, bytes: source.ip_bytes, identity: flow.identity };
        let hash = self.pairs.hash_of(&key);
        let Some(calls) = self.pairs.get_hashed(hash, &key) else {
            self.pairs.insert_hashed(hash, key, Calls::Once(call));
            return;
        };
        let samples = self.config.samples as usize;
        let series = calls.again(samples, self.config.window_seconds, || Names {
            interface: places.interface_name(flow.interface),
            space: Space::of(source, places).name(places),
            secretariat: secretariat_of(source, places),
        });
        let Some(series) = series else { return };
        series.add(&call, samples, self.config.window_seconds);
        let wait = i64::from(self.config.score_seconds).saturating_mul(NANOS_PER_SECOND);
        if flow.now.since(series.scored_at) >= wait {
            self.score(&key, flow.now, desk, sink);
        }
    }

    /// Whether a flow is a connection that was answered, from ours to one that is not ours. Where the role of the
    /// interface is not stated, a source that nobody placed will do.
    fn is_call(&self, flow: &FlowContext) -> bool {
        let from_us = match flow.originator.locality {
            Locality::Inside => true,
            Locality::Unknown => flow.role == Role::Unknown && classify(flow.originator.ip).is_private(),
            Locality::Outside => false,
        };
        let answered = match flow.protocol {
            TCP => flow.conn_state.was_established(),
            UDP => {
                flow.responder.packets > 0 && !self.config.ignored_udp_ports.contains(&flow.responder.port)
            }
            _ => false,
        };
        from_us && answered && flow.originator.packets > 0 && flow.responder.locality == Locality::Outside
    }

    /// Scores one pair, and tells it if it beacons.
    fn score(
        &mut self,
        key: &(InterfaceIndex, Pair),
        now: Timestamp,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let Some(Calls::Often(calls)) = self.pairs.peek_mut(key) else { return };
        let (interface, pair) = *key;
        let Pair { source, destination, port, .. } = pair;
        let many = calls.latest.len() >= self.config.min_connections as usize;
        let constant = calls.per_window(self.config.window_seconds) >= f64::from(self.config.max_connections);
        if !calls.is_due || !many || constant || calls.span() < self.config.min_span_seconds {
            return;
        }
        (calls.scored_at, calls.is_due) = (now, false);
        let day_ago = seconds_of(now).saturating_sub(self.config.window_seconds);
        let from = seconds_of(self.first.unwrap_or(now)).max(day_ago);
        let times = calls.latest.iter().map(|&(time, _)| time).collect();
        let sizes: Vec<u64> = calls.latest.iter().map(|&(_, bytes)| bytes).collect();
        let Some(scores) = Scores::of(times, &sizes, (from, seconds_of(now).saturating_add(1))) else {
            return;
        };
        let hosts = self.callers.count();
        let callers = self.destinations.peek(&Destination(destination)).map_or(1, Distinct::count);
        let share = callers as f64 / hosts.max(1) as f64;
        let is_common = hosts >= u64::from(self.config.min_hosts) && share >= self.config.common_share;
        let total = if is_common { (scores.total() - COMMON_PENALTY).max(0.0) } else { scores.total() };
        let query = ExemptionQuery {
            rule: RuleId::Beacon,
            source: Some(source),
            destination: Some(destination),
            port: Some(port),
        };
        let beacons = total >= self.config.min_score && scores.timing >= self.config.min_timing_score;
        if beacons && !desk.is_exempt(&query) {
            let news = Beaconing::new(interface, calls, scores, total, callers);
            let grow = |held: &mut Beaconing| {
                if held.told_by == interface {
                    let best = held.best.max(news.best);
                    *held = Beaconing { best, ..news.clone() };
                }
            };
            self.findings.note(now, pair, desk, || news.clone(), grow, sink);
        }
    }

    pub(super) fn advance(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        let window = i64::from(self.config.window_seconds).saturating_mul(NANOS_PER_SECOND);
        while self.pairs.pop_oldest_if(|calls| now.since(calls.last()) > window).is_some() {}
        self.findings.advance(now, desk, sink);
    }

    /// The capture has ended: scores every pair that had connections since it was last scored.
    pub(super) fn finish(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        let due: Vec<_> =
            self.pairs.iter().filter(|(_, calls)| calls.is_series()).map(|(key, _)| *key).collect();
        for key in due {
            self.score(&key, now, desk, sink);
        }
        self.findings.finish(now, desk, sink);
    }

    #[cfg(test)]
    pub(super) fn remembered(&mut self) -> (usize, usize) {
        let longest = self.pairs.iter().map(|(_, calls)| match calls {
            Calls::Once(_) => 1,
            Calls::Often(series) => series.latest.len(),
        });
        let longest = longest.max().unwrap_or(0);
        (self.pairs.len(), longest)
    }
}

impl Calls {
    const fn is_series(&self) -> bool {
        matches!(self, Self::Often(_))
    }

    const fn last(&self) -> Timestamp {
        match self {
            Self::Once(call) => call.last,
            Self::Often(series) => series.last,
        }
    }

    /// What becomes of them when the pair calls again: a series, with what was there in it.
    fn again(
        &mut self,
        samples: usize,
        window_seconds: u32,
        names: impl FnOnce() -> Names,
    ) -> Option<&mut Series> {
        if let Self::Once(call) = self {
            let mut series = Box::new(Series {
                latest: VecDeque::new(),
                total: 0,
                scored_at: call.start,
                is_due: false,
                start: call.start,
                last: call.last,
                flows: Latest::default(),
                names: names(),
            });
            series.add(call, samples, window_seconds);
            *self = Self::Often(series);
        }
        match self {
            Self::Often(series) => Some(series),
            Self::Once(_) => None,
        }
    }
}

impl Series {
    fn add(&mut self, call: &Once, samples: usize, window_seconds: u32) {
        let time = seconds_of(call.start);
        while self.latest.len() >= samples.max(1)
            || self.latest.front().is_some_and(|&(oldest, _)| time.saturating_sub(oldest) > window_seconds)
        {
            self.latest.pop_front();
        }
        self.latest.push_back((time, call.bytes));
        self.total = self.total.saturating_add(1);
        self.is_due = true;
        self.start = self.start.min(call.start);
        self.last = self.last.max(call.last);
        self.flows.push(call.identity);
    }

    /// Seconds from the earliest remembered connection to the latest.
    fn span(&self) -> u32 {
        let times = || self.latest.iter().map(|&(time, _)| time);
        times().max().unwrap_or(0).saturating_sub(times().min().unwrap_or(0))
    }

    /// Connections in a window at the rate of those remembered.
    fn per_window(&self, window_seconds: u32) -> f64 {
        self.latest.len() as f64 / f64::from(self.span().max(1)) * f64::from(window_seconds)
    }
}

/// A pair that beacons.
#[derive(Clone, Debug)]
pub(super) struct Beaconing {
    told_by: InterfaceIndex,
    names: Names,
    scores: Scores,
    total: f64,
    /// The best score so far, which confidence goes by: a score that trembles is no news.
    best: f64,
    connections: u64,
    bytes: u64,
    callers: u64,
    first: Timestamp,
    last: Timestamp,
    flow_ids: ArrayVec<FlowId, 8>,
}

impl Beaconing {
    fn new(told_by: InterfaceIndex, calls: &Series, scores: Scores, total: f64, callers: u64) -> Self {
        Self {
            told_by,
            names: calls.names.clone(),
            scores,
            total,
            best: total,
            connections: calls.total,
            bytes: calls.latest.back().map_or(0, |&(_, bytes)| bytes),
            callers,
            first: calls.start,
            last: calls.last,
            flow_ids: calls.flows.ids(),
        }
    }
}

impl Incident for Beaconing {
    type Key = Pair;

    fn size(&self) -> u64 {
        self.connections
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a score is between 0 and 1")]
    fn grade(&self) -> (Severity, Confidence) {
        let confidence = (self.best * 20.0).floor() as u8 * 5;
        (Severity::Medium, confidence.min(95))
    }

    fn draft(&self, Pair { source, destination, port, protocol, .. }: &Pair, _: &Desk) -> Draft {
        let (severity, confidence) = self.grade();
        let scoped = scoped_in(*source, self.names.space.as_ref());
        let protocol_name = if *protocol == TCP { "tcp" } else { "udp" };
        let mut evidence = Evidence { flow_ids: self.flow_ids.clone(), ..Evidence::default() };
        for (name, count) in [
            ("connections", self.connections),
            ("hosts_calling", self.callers),
            ("last_bytes_sent", self.bytes),
        ] {
            evidence.counts.insert(name.into(), count);
        }
        for (name, score) in [
            ("score", self.total),
            ("timing", self.scores.timing),
            ("sizes", self.scores.sizes),
            ("histogram", self.scores.histogram),
            ("duration", self.scores.duration),
            ("interval_seconds", self.scores.interval),
        ] {
            evidence.scores.insert(name.into(), score);
        }
        Draft {
            key: format!("{}|{scoped}|{destination}|{protocol_name}/{port}", RuleId::Beacon),
            rule: RuleId::Beacon,
            rule_version: VERSION,
            first_seen: self.first,
            last_seen: self.last,
            severity,
            confidence,
            summary: format!(
                "{source} called {destination} {protocol_name}/{port} {} times, every {} s: score {:.3}",
                self.connections, self.scores.interval, self.total
            ),
            subject: Subject {
                source: Some(*source),
                target: Some(*destination),
                port: Some(*port),
                protocol: Some(*protocol),
                ..Subject::default()
            },
            interface: Some(self.names.interface.clone()),
            address_spaces: self.names.space.iter().cloned().collect(),
            secretariats: self.names.secretariat.iter().cloned().collect(),
            evidence,
        }
    }
}
