//! flood.syn: half-open connections flood one address and port.
//!
//! Attempts are counted by the second of their SYN; an attempt that is completed, refused, or goes on although no
//! answer is seen (the answers take another path) is taken out of its second again. A second is judged only after
//! a time of grace, so connections that are about to be answered are not half-open: a burst of downloads, or a
//! busy server, is no flood however fast it is.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    net::IpAddr,
};

use arrayvec::ArrayVec;

use super::{
    Hashes, TCP,
    config::FloodConfig,
    few::Latest,
    view::{Space, scoped_party, secretariat_of},
};
use crate::{
    bounded::{Bounded, Near, hash_address},
    decode::InterfaceIndex,
    distinct::{Distinct, hash_of},
    findings::{Desk, Draft, FindingSink, Findings, Incident},
    flow::{FlowContext, FlowEvent, Party, TOGETHER},
    ipam::Places,
    net::Name,
    plan::ExemptionQuery,
    record::{Confidence, Evidence, FlowId, RuleId, Severity, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};

const VERSION: u32 = 1;
/// A target is watched second by second once it had this share of the attempts that make a flood possible.
const WATCH_SHARE: u32 = 20;
/// Attempts in one second from which on a flood is critical.
const CRITICAL_PER_SECOND: u64 = 10_000;

/// Address and port in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) space: Space,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_address(self.ip, state);
        state.write_u16(self.port);
        self.space.hash(state);
    }
}

/// A target on an interface.
type Spot = (InterfaceIndex, Target);

/// The rule, the targets it watches, and its incidents.
#[derive(Clone, Debug)]
pub(super) struct Flood {
    config: FloodConfig,
    targets: Bounded<Spot, Watch>,
    /// Targets that are watched second by second.
    hot: Vec<Spot>,
    judged: i64,
    /// Where the target stands that was tried last: in a flood it is the next one, too.
    latest: Near,
    pub(super) findings: Findings<Flooded>,
}

/// Attempts at one target on one interface.
#[derive(Clone, Debug)]
struct Watch {
    /// Second of the first attempt that `early` counts.
    since: i64,
    /// Attempts before the target is watched second by second.
    early: u32,
    seconds: Option<Box<Seconds>>,
}

/// Attempts by second, the oldest first.
#[derive(Clone, Debug)]
struct Seconds {
    first: i64,
    counts: VecDeque<Second>,
    /// Attempts in the seconds that are kept, and how many of them were resolved.
    all: Second,
    last: Timestamp,
    sources: Distinct,
    samples: Latest,
    names: Names,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    attempts: u32,
    resolved: u32,
}

/// What a finding says about its target beside numbers.
#[derive(Clone, Debug)]
struct Names {
    interface: Name,
    space: Option<Name>,
    target: String,
    secretariat: Option<Name>,
}

fn second_of(time: Timestamp) -> i64 {
    time.as_nanos().div_euclid(NANOS_PER_SECOND)
}

impl Flood {
    pub(super) fn new(config: &FloodConfig, seed: [u64; 4]) -> Self {
        let limit = config.limit as usize;
        Self {
            config: config.clone(),
            targets: Bounded::new(limit, seed),
            hot: Vec::new(),
            judged: i64::MIN,
            latest: Near::default(),
            findings: Findings::new(limit, config.quiet_seconds, seed),
        }
    }

    pub(super) fn on_flow(&mut self, event: FlowEvent, flow: &FlowContext, places: &Places) {
        if !self.config.enabled || flow.protocol != TCP || !flow.syn_seen {
            return;
        }
        let spot = || spot_of(flow, places);
        let one_way = || flow.responder.packets == 0 && flow.originator.payload_bytes > 0;
        match event {
            FlowEvent::Started => self.attempt(spot(), flow, places),
            // What is not watched second by second is not resolved either.
            _ if self.hot.is_empty() => {}
            FlowEvent::Established | FlowEvent::Refused => self.resolve(&spot(), flow),
            FlowEvent::Unanswered if one_way() => self.resolve(&spot(), flow),
            _ => {}
        }
    }

    /// Makes ready for attempts that are about to be told, but for those at the target that was tried last: in a flood
    /// they all are, and it is at hand.
    pub(super) fn warm(&self, events: &[(FlowEvent, FlowContext)], places: &Places) {
        let is_attempt = |event: FlowEvent, flow: &FlowContext| {
            event == FlowEvent::Started && flow.protocol == TCP && flow.syn_seen
        };
        if self.config.enabled {
            let attempts = events.iter().filter(|(event, flow)| is_attempt(*event, flow)).take(TOGETHER);
            let hashes: Hashes = attempts
                .filter(|(_, flow)| !self.is_latest(flow))
                .map(|(_, flow)| self.targets.hash_of(&spot_of(flow, places)))
                .collect();
            self.targets.warm(hashes.into_iter(), |(_, target), watch| {
                u64::from(target.port) ^ u64::from(watch.early)
            });
        }
    }

    /// Whether a flow is to the target that was tried last, or to one of that address in another space.
    pub(super) fn is_latest(&self, flow: &FlowContext) -> bool {
        let Party { ip, port, .. } = &flow.responder;
        let is =
            |(interface, held): &Spot| *interface == flow.interface && held.port == *port && held.ip == *ip;
        self.targets.peek_near(self.latest, is).is_some()
    }

    /// Whether any target is watched second by second.
    pub(super) const fn watches_any(&self) -> bool {
        !self.hot.is_empty()
    }

    /// Whether a target is watched second by second.
    pub(super) fn watches(&self, interface: InterfaceIndex, space: Space, target: &(IpAddr, u16)) -> bool {
        self.seconds(interface, space, target).is_some()
    }

    /// Whether a target is under a flood as far as can be seen before judgement: so many attempts are kept, and so
    /// few of them resolved, as make one.
    pub(super) fn floods(&self, interface: InterfaceIndex, space: Space, target: &(IpAddr, u16)) -> bool {
        self.seconds(interface, space, target).is_some_and(|seconds| {
            let Second { attempts, resolved } = seconds.all;
            is_flood(attempts.into(), resolved.into(), &self.config)
        })
    }

    /// The attempts at a target that is watched second by second.
    #[inline]
    fn seconds(
        &self,
        interface: InterfaceIndex,
        space: Space,
        &(ip, port): &(IpAddr, u16),
    ) -> Option<&Seconds> {
        if self.hot.is_empty() {
            return None;
        }
        // An address that was made just now is compared in place: a copy of it would wait for its pieces.
        let is = |(held_at, held): &Spot| {
            *held_at == interface && held.port == port && held.ip == ip && held.space == space
        };
        let watch = match self.targets.peek_near(self.latest, is) {
            Some(watch) => watch,
            None => self.targets.peek(&(interface, Target { space, ip, port }))?,
        };
        watch.seconds.as_deref()
    }

    fn attempt(&mut self, key: Spot, flow: &FlowContext, places: &Places) {
        let second = second_of(flow.start);
        let window = i64::from(self.config.window_seconds);
        let fresh = || Watch { since: second, early: 0, seconds: None };
        let Some(watch) = self.targets.get_or_insert_near(&mut self.latest, key, fresh) else { return };
        if let Some(seconds) = &mut watch.seconds {
            if let Some(count) = seconds.at(second) {
                count.attempts = count.attempts.saturating_add(1);
                seconds.all.attempts = seconds.all.attempts.saturating_add(1);
            }
            seconds.last = seconds.last.max(flow.start);
            seconds.sources.add(hash_of(flow.originator.ip, 0));
            seconds.samples.push(flow.identity);
            return;
        }
        if second.saturating_sub(watch.since) >= window {
            (watch.since, watch.early) = (second, 0);
        }
        watch.early = watch.early.saturating_add(1);
        if watch.early >= self.config.min_attempts.div_ceil(WATCH_SHARE) {
            let names = Names {
                interface: places.interface_name(flow.interface),
                space: Space::of(&flow.responder, places).name(places),
                target: scoped_party(&flow.responder, places),
                secretariat: secretariat_of(&flow.responder, places),
            };
            watch.seconds = Some(Box::new(Seconds::new(second, names)));
            self.hot.push(key);
        }
    }

    fn resolve(&mut self, key: &Spot, flow: &FlowContext) {
        if let Some(seconds) = self.targets.peek_mut(key).and_then(|watch| watch.seconds.as_mut())
            && let Some(count) = seconds.at(second_of(flow.start))
            // Attempts from before the watch began were not counted either.
            && count.resolved < count.attempts
        {
            count.resolved = count.resolved.saturating_add(1);
            seconds.all.resolved = seconds.all.resolved.saturating_add(1);
        }
    }

    /// Once in a second of packet time: judges the seconds whose grace is over.
    pub(super) fn advance(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        let second = second_of(now);
        if second > self.judged {
            let grace = i64::from(self.config.grace_seconds);
            self.judge_until(now, second.saturating_sub(grace), desk, sink);
            self.judged = second;
        }
        self.findings.advance(now, desk, sink);
    }

    /// The capture has ended: there is no more grace, because nothing more can be answered.
    pub(super) fn finish(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.judge_until(now, second_of(now).saturating_add(1), desk, sink);
        self.findings.finish(now, desk, sink);
    }

    /// Judges every window that has ended since the last judgement and has an attempt, up to the one that ends
    /// before the second `until`.
    fn judge_until(&mut self, now: Timestamp, until: i64, desk: &Desk, sink: &mut FindingSink<'_>) {
        if self.hot.is_empty() {
            return;
        }
        // No attempt is later than the second of the last judgement, so later windows hold nothing new.
        let grace = i64::from(self.config.grace_seconds);
        let through = until.min(self.judged.saturating_add(1));
        for end in self.judged.saturating_sub(grace).saturating_add(1)..=through {
            self.judge(now, end, desk, sink);
        }
        if until > through {
            self.judge(now, until, desk, sink);
        }
    }

    /// Judges every watched target over the window that ends before the second `until`.
    fn judge(&mut self, now: Timestamp, until: i64, desk: &Desk, sink: &mut FindingSink<'_>) {
        let window = i64::from(self.config.window_seconds);
        let mut hot = std::mem::take(&mut self.hot);
        hot.retain(|key| {
            let Some(watch) = self.targets.peek_mut(key) else { return false };
            let Some(seconds) = &mut watch.seconds else { return false };
            let verdict = seconds.judge(until, window, &self.config);
            if let Some(step) = verdict
                && !is_exempt(key.1, desk)
            {
                let start = || Flooded::new(key.0, seconds);
                let grow = |flooded: &mut Flooded| flooded.grow(key.0, &step, seconds);
                self.findings.note(now, key.1, desk, start, grow, sink);
            }
            seconds.forget_before(until.saturating_sub(window));
            let idle = seconds.counts.iter().all(|count| count.attempts == 0);
            if idle {
                watch.seconds = None;
                (watch.since, watch.early) = (until, 0);
            }
            !idle
        });
        self.hot = hot;
    }

    #[cfg(test)]
    pub(super) fn watched(&self) -> (usize, usize) {
        (self.targets.len(), self.hot.len())
    }
}

fn spot_of(flow: &FlowContext, places: &Places) -> Spot {
    let Party { ip, port, .. } = flow.responder;
    (flow.interface, Target { space: Space::of(&flow.responder, places), ip, port })
}

fn is_exempt(Target { ip, port, .. }: Target, desk: &Desk) -> bool {
    let rule = RuleId::FloodSyn;
    desk.is_exempt(&ExemptionQuery { rule, source: None, destination: Some(ip), port: Some(port) })
}

/// Whether so many attempts, so many of which were resolved, make a flood.
fn is_flood(attempts: u64, resolved: u64, config: &FloodConfig) -> bool {
    let share = resolved as f64 / attempts.max(1) as f64;
    attempts >= u64::from(config.min_attempts) && share < config.max_resolved_share
}

/// What one judgement adds to a flood.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The last second that was judged, and what it had.
    second: i64,
    /// Half-open attempts in seconds that no judgement counted before.
    half_open: u64,
    attempts: u64,
    peak: u64,
    first: i64,
}

impl Seconds {
    fn new(first: i64, names: Names) -> Self {
        let one = Second { attempts: 1, resolved: 0 };
        Self {
            first,
            counts: VecDeque::from([one]),
            all: one,
            last: Timestamp(i64::MIN),
            sources: Distinct::default(),
            samples: Latest::default(),
            names,
        }
    }

    /// The counts of a second, from the first one kept to a minute behind it.
    fn at(&mut self, second: i64) -> Option<&mut Second> {
        let at = usize::try_from(second.checked_sub(self.first)?).ok().filter(|&at| at < 64)?;
        while self.counts.len() <= at {
            self.counts.push_back(Second::default());
        }
        self.counts.get_mut(at)
    }

    fn forget_before(&mut self, second: i64) {
        while self.first < second
            && let Some(gone) = self.counts.pop_front()
        {
            self.first = self.first.saturating_add(1);
            self.all.attempts = self.all.attempts.saturating_sub(gone.attempts);
            self.all.resolved = self.all.resolved.saturating_sub(gone.resolved);
        }
        if self.counts.is_empty() {
            self.first = self.first.max(second);
        }
    }

    fn judge(&self, until: i64, window: i64, config: &FloodConfig) -> Option<Step> {
        let (mut attempts, mut resolved, mut peak) = (0u64, 0u64, 0u64);
        let mut last = None;
        for (second, count) in (self.first..).zip(&self.counts) {
            if second >= until || second < until.saturating_sub(window) {
                continue;
            }
            attempts = attempts.saturating_add(count.attempts.into());
            resolved = resolved.saturating_add(count.resolved.into());
            peak = peak.max(count.attempts.into());
            last = Some(second).filter(|_| count.attempts > 0).or(last);
        }
        let second = last.filter(|_| is_flood(attempts, resolved, config))?;
        let first = self.first.max(until.saturating_sub(window));
        Some(Step { second, half_open: attempts.saturating_sub(resolved), attempts, peak, first })
    }

    /// Attempts and half-open attempts after a second, up to and including another.
    fn between(&self, after: i64, through: i64) -> (u64, u64) {
        (self.first..).zip(&self.counts).filter(|(second, _)| (after + 1..=through).contains(second)).fold(
            (0, 0),
            |(attempts, half_open), (_, count)| {
                let open = count.attempts.saturating_sub(count.resolved);
                (attempts + u64::from(count.attempts), half_open + u64::from(open))
            },
        )
    }
}

/// A target under a flood.
#[derive(Clone, Debug)]
pub(super) struct Flooded {
    /// The interface whose numbers are told; the same flood may pass another one on its way.
    told_by: InterfaceIndex,
    names: Names,
    first: i64,
    last: Timestamp,
    /// Last second that is counted.
    counted: i64,
    attempts: u64,
    half_open: u64,
    peak: u64,
    sources: u64,
    flow_ids: ArrayVec<FlowId, 8>,
}

impl Flooded {
    fn new(told_by: InterfaceIndex, seconds: &Seconds) -> Self {
        Self {
            told_by,
            names: seconds.names.clone(),
            first: i64::MAX,
            last: Timestamp(i64::MIN),
            counted: i64::MIN,
            attempts: 0,
            half_open: 0,
            peak: 0,
            sources: 0,
            flow_ids: seconds.samples.ids(),
        }
    }

    fn grow(&mut self, interface: InterfaceIndex, step: &Step, seconds: &Seconds) {
        if interface != self.told_by {
            return;
        }
        self.first = self.first.min(step.first);
        if self.counted == i64::MIN {
            (self.attempts, self.half_open) = (step.attempts, step.half_open);
        } else {
            let (attempts, half_open) = seconds.between(self.counted, step.second);
            self.attempts = self.attempts.saturating_add(attempts);
            self.half_open = self.half_open.saturating_add(half_open);
        }
        self.counted = self.counted.max(step.second);
        self.last =
            self.last.max(Timestamp::from_parts(self.counted, NANOS_PER_SECOND - 1).min(seconds.last));
        self.peak = self.peak.max(step.peak);
        // Sources are counted ahead of judgement.
        self.sources = self.sources.max(seconds.sources.count()).min(self.attempts);
    }
}

impl Incident for Flooded {
    type Key = Target;

    fn size(&self) -> u64 {
        self.half_open
    }

    fn grade(&self) -> (Severity, Confidence) {
        let critical = self.peak >= CRITICAL_PER_SECOND;
        (if critical { Severity::Critical } else { Severity::High }, 90)
    }

    fn draft(&self, Target { ip, port, .. }: &Target, _: &Desk) -> Draft {
        let (severity, confidence) = self.grade();
        let mut evidence = Evidence { flow_ids: self.flow_ids.clone(), ..Evidence::default() };
        for (name, count) in [
            ("attempts", self.attempts),
            ("half_open", self.half_open),
            ("sources", self.sources),
            ("peak_attempts_per_second", self.peak),
        ] {
            evidence.counts.insert(name.into(), count);
        }
        Draft {
            key: format!("{}|{}|tcp/{port}", RuleId::FloodSyn, self.names.target),
            rule: RuleId::FloodSyn,
            rule_version: VERSION,
            first_seen: Timestamp::from_parts(self.first, 0),
            last_seen: self.last,
            severity,
            confidence,
            summary: format!(
                "{} of {} connection attempts at {ip} tcp/{port} stay half-open, from about {} sources, up to {} \
                 a second",
                self.half_open, self.attempts, self.sources, self.peak
            ),
            subject: Subject {
                target: Some(*ip),
                port: Some(*port),
                protocol: Some(TCP),
                ..Subject::default()
            },
            interface: Some(self.names.interface.clone()),
            address_spaces: self.names.space.iter().cloned().collect(),
            secretariats: self.names.secretariat.iter().cloned().collect(),
            evidence,
        }
    }
}
