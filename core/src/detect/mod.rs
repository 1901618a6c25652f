//! Rules: flows and observations in, findings out. One file per rule family; `docs/rules.md` states for each rule
//! what raises it, its thresholds, its evidence and its false positives.

mod beacon;
mod border;
mod config;
mod few;
mod flood;
mod health;
mod leak;
mod ranges;
mod scan;
mod score;
mod sources;
mod spoof;
mod view;
mod walk;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use arrayvec::ArrayVec;
use beacon::Beacon;
use border::Border;
pub use config::{
    BeaconConfig, DetectConfig, FloodConfig, HealthConfig, LeakConfig, ScanConfig, SpoofConfig,
};
use flood::Flood;
use health::Health;
pub use health::HealthReport;
use leak::Leak;
pub use ranges::InvalidSetting;
use scan::Scan;
use spoof::Spoof;
use view::Space;

use crate::{
    bounded::KeyHash,
    decode::InterfaceIndex,
    findings::{Desk, FindingSink},
    flow::{FlowContext, FlowEvent, Party, TOGETHER},
    ipam::{OverlapTracker, Places},
    net::Name,
    plan::{AddressPlan, Role},
    record::{EndReason, Locality, Observation},
    time::Timestamp,
};

const TCP: u8 = 6;

/// Hashes of what they look up in one table.
type Hashes = ArrayVec<KeyHash, TOGETHER>;

/// Every rule of one sensor and what it remembers.
#[derive(Clone, Debug)]
pub struct Detector {
    desk: Desk,
    seed: [u64; 4],
    now: Timestamp,
    /// When what is quiet was last closed.
    advanced: Timestamp,
    border: Border,
    overlap: OverlapTracker,
    leak: Leak,
    spoof: Spoof,
    scan: Scan,
    flood: Flood,
    beacon: Beacon,
    health: Health,
}

impl Detector {
    /// Rules with nothing in memory. `seed` keys the hash tables.
    pub fn new(site: Name, plan: Arc<AddressPlan>, config: &DetectConfig, seed: [u64; 4]) -> Self {
        Self {
            desk: Desk::new(site, plan),
            seed,
            now: Timestamp::default(),
            advanced: Timestamp(i64::MIN),
            border: Border::new(seed),
            overlap: OverlapTracker::new(&config.overlap, seed),
            leak: Leak::new(&config.leak, seed),
            spoof: Spoof::new(&config.spoof, seed),
            scan: Scan::new(&config.scan, seed),
            flood: Flood::new(&config.flood, seed),
            beacon: Beacon::new(&config.beacon, seed),
            health: Health::new(&config.health, seed),
        }
    }

    /// What happened to a flow. `places` must be compiled from the plan the detector has.
    pub fn on_flow(
        &mut self,
        event: FlowEvent,
        flow: &FlowContext,
        places: &Places,
        sink: &mut FindingSink<'_>,
    ) {
        // What is quiet is closed at the pace of the flow table's timers, and not with each flow.
        if step_of(flow.now) > step_of(self.advanced) {
            self.advance(flow.now, sink);
        }
        self.now = self.now.max(flow.now);
        self.flood.on_flow(event, flow, places);
        // What ours start is judged on the inside, where they have their own address, and not once more behind
        // the translation.
        let translated = flow.role == Role::Outside && flow.originator.locality == Locality::Inside;
        if !(translated && places.sees_inside()) {
            self.beacon.begin(flow.start);
            match event {
                FlowEvent::Established | FlowEvent::Refused => {
                    self.scan.on_flow(event, flow, places, &self.desk, sink);
                }
                FlowEvent::Unanswered | FlowEvent::Collapsed if !self.is_explained(event, flow, places) => {
                    self.scan.on_flow(event, flow, places, &self.desk, sink);
                }
                FlowEvent::Reported(reason) if reason != EndReason::Active => {
                    self.beacon.on_end(flow, places, &self.desk, sink);
                }
                _ => {}
            }
        }
        if flow.role == Role::Outside && !flow.tunnelled {
            self.on_outside(event, flow, places, sink);
        }
    }

    /// Whether rules make anything of such an event. What becomes of an attempt is asked of TCP alone; others are
    /// established when they are answered, which is told by itself.
    pub const fn hears(event: FlowEvent, protocol: u8) -> bool {
        protocol == TCP
            || !matches!(event, FlowEvent::Established | FlowEvent::Refused | FlowEvent::Unanswered)
    }

    /// Makes ready for events that are about to be told together: what they look up is read at once, so that it
    /// waits for memory once. Changes nothing.
    pub fn warm(&self, events: &[(FlowEvent, FlowContext)], places: &Places) {
        for some in events.chunks(TOGETHER) {
            self.flood.warm(some, places);
            // Nearly all attempts of a flood say nothing to scans.
            let says_nothing = |flow: &FlowContext| self.flood.watches_any() && self.flood.is_latest(flow);
            self.scan.warm(some, places, says_nothing);
            self.beacon.warm(some, places);
        }
    }

    /// Whether it says nothing of a source that nobody answered its attempt.
    fn is_explained(&self, event: FlowEvent, flow: &FlowContext, places: &Places) -> bool {
        let target = &flow.responder;
        // Nobody can answer a source that leaves untranslated; its silence is told as a leak.
        if target.locality == Locality::Outside && self.leak.sources.is_charged(flow.originator.ip) {
            return true;
        }
        // The attempts of a flood say nothing of those who made them up; nor do those of others that it drowns.
        if !self.flood.watches_any() {
            return false;
        }
        let (space, target) = (Space::of(target, places), (target.ip, target.port));
        match event {
            FlowEvent::Collapsed => self.flood.watches(flow.interface, space, &target),
            _ => self.flood.floods(flow.interface, space, &target),
        }
    }

    /// Whether a rule makes anything of an attempt that is added to an aggregate: not if it is part of a flood that
    /// is watched already, and no flow of these rules is followed.
    pub fn hears_collapse(
        &self,
        interface: InterfaceIndex,
        responder: &(IpAddr, u16),
        secretariat: Option<u16>,
        places: &Places,
    ) -> bool {
        let follows = self.leak.sources.follows() || self.spoof.sources.follows();
        let space = || Space::at(responder.0, secretariat, places);
        follows || !self.flood.watches_any() || !self.flood.watches(interface, space(), responder)
    }

    /// An address was observed in use.
    pub fn on_observation(&mut self, observation: &Observation, sink: &mut FindingSink<'_>) {
        self.now = self.now.max(observation.last_seen);
        self.overlap.on_observation(observation, self.now, &self.desk, sink);
        self.leak.on_observation(observation.address, &self.overlap, self.now, &self.desk, sink);
    }

    /// A source says how it fares.
    pub fn on_health(&mut self, report: &HealthReport, sink: &mut FindingSink<'_>) {
        self.health.on_report(report, &self.desk, sink);
    }

    /// Packet time has moved on: closes what is quiet. Cheap where nothing is due.
    pub fn advance(&mut self, now: Timestamp, sink: &mut FindingSink<'_>) {
        self.now = self.now.max(now);
        self.advanced = self.now;
        let (now, desk) = (self.now, &self.desk);
        self.overlap.advance(now, desk, sink);
        self.leak.sources.advance(now, desk, sink);
        self.spoof.sources.advance(now, desk, sink);
        self.scan.advance(now, desk, sink);
        self.flood.advance(now, desk, sink);
        self.beacon.advance(now, desk, sink);
        self.health.advance(now, desk, sink);
    }

    /// The capture has ended: judges what can be judged now, and tells the last state of whatever has news.
    pub fn finish(&mut self, sink: &mut FindingSink<'_>) {
        let (now, desk) = (self.now, &self.desk);
        self.overlap.finish(now, desk, sink);
        self.leak.sources.finish(now, desk, sink);
        self.spoof.sources.finish(now, desk, sink);
        self.scan.findings.finish(now, desk, sink);
        self.flood.finish(now, desk, sink);
        self.beacon.finish(now, desk, sink);
        self.health.finish(now, desk, sink);
    }

    /// Goes on under another plan and other thresholds. What has news is told first; rules begin anew, because
    /// indices into the old plan mean nothing now. Keys are stable, so incidents that go on keep their findings.
    pub fn restart(&mut self, plan: Arc<AddressPlan>, config: &DetectConfig, sink: &mut FindingSink<'_>) {
        self.finish(sink);
        let now = self.now;
        *self = Self::new(self.desk.site().clone(), plan, config, self.seed);
        self.now = now;
    }

    /// Findings that are open, over all rules.
    pub fn open_findings(&self) -> usize {
        let outside = self.leak.sources.open() + self.spoof.sources.open();
        let hosts = self.scan.findings.len() + self.flood.findings.len() + self.beacon.findings.len();
        let own = self.health.blind.len() + self.health.loss.len();
        self.overlap.counts().1 + outside + hosts + own
    }

    fn on_outside(
        &mut self,
        event: FlowEvent,
        flow: &FlowContext,
        places: &Places,
        sink: &mut FindingSink<'_>,
    ) {
        let (originator, responder) = (&flow.originator, &flow.responder);
        let (source, destination) = match event {
            FlowEvent::Started | FlowEvent::Answered => match flow.by_originator {
                Some(true) => (originator, responder),
                Some(false) => (responder, originator),
                None => return,
            },
            FlowEvent::Moved | FlowEvent::Collapsed | FlowEvent::Reported(_) => {
                if !(self.leak.sources.follows() || self.spoof.sources.follows()) {
                    return;
                }
                let flow_id = flow.flow_id();
                let is_last = match event {
                    FlowEvent::Reported(reason) => reason != EndReason::Active,
                    _ => event == FlowEvent::Collapsed,
                };
                let side = |ip| [originator, responder].into_iter().find(|party: &&Party| party.ip == ip);
                let packets = |ip| side(ip).map_or(0, |party| party.packets_by_mac);
                self.leak.sources.report(flow_id, packets, flow.last, is_last, &self.desk, sink);
                self.spoof.sources.report(flow_id, packets, flow.last, is_last, &self.desk, sink);
                return;
            }
            FlowEvent::Established | FlowEvent::Refused | FlowEvent::Unanswered => return,
        };
        let crossing = self.border.cross(flow, source, destination, places);
        self.leak.on_crossing(&crossing, &self.overlap, places, &self.desk, sink);
        self.spoof.on_crossing(&crossing, &self.border, places, &self.desk, sink);
    }
}

/// Steps of an eighth of a second.
const fn step_of(time: Timestamp) -> i64 {
    time.as_nanos() >> 27
}
