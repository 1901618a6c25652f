//! What the sensor wires together for one step: what the flow table asks of the plan and the observer, where events
//! and records go, and what is counted on the way out.

use std::{net::IpAddr, sync::Arc};

use super::{Judging, Waiting};
use crate::{
    decode::{ArpPacket, InterfaceIndex, IpPacket},
    detect::{DetectConfig, HealthReport},
    flow::{FlowContext, FlowEvent, FlowHost, Origin, PacketPlace, SidePlace},
    ipam::{Ahead, Came, ObservationSink, ObserveConfig, Observer, Place, Places, Seen, Stated, may_state},
    net::{MacAddress, Name},
    plan::{AddressPlan, InterfacePlan, Role},
    record::{FindingChange, FlowRecord, Ledger, Observation, RecordSink, StackSample},
    time::Timestamp,
};

/// Counts what is written.
pub(super) struct CountingSink<'a> {
    pub(super) sink: &'a mut dyn RecordSink,
    pub(super) ledger: &'a mut Ledger,
}

impl RecordSink for CountingSink<'_> {
    fn flow(&mut self, record: &FlowRecord) {
        self.ledger.flow_records = self.ledger.flow_records.saturating_add(1);
        self.sink.flow(record);
    }

    fn observation(&mut self, observation: &Observation) {
        self.ledger.observations = self.ledger.observations.saturating_add(1);
        self.sink.observation(observation);
    }

    fn finding(&mut self, change: &FindingChange) {
        self.ledger.finding_changes = self.ledger.finding_changes.saturating_add(1);
        self.sink.finding(change);
    }
}

/// What the flow table asks, and where what it tells goes.
pub(super) struct Wiring<'a> {
    pub(super) places: &'a Places,
    pub(super) interfaces: &'a [InterfacePlan],
    pub(super) sampling: &'a [u32],
    pub(super) observer: &'a mut Option<Observer>,
    pub(super) judging: &'a mut Judging,
    pub(super) later: &'a mut Waiting,
    pub(super) out: CountingSink<'a>,
    /// What the packet that is being taken says of its sender's stack.
    pub(super) stack: Option<StackSample>,
}

impl Wiring<'_> {
    /// Lets the observer tell something: what it tells goes out, and to the rules.
    fn observe(&mut self, tell: impl FnOnce(&mut Observer, &Places, &mut ObservationSink<'_>)) {
        let Self { places, observer, judging, later, out, .. } = self;
        let Some(observer) = observer else { return };
        tell(observer, places, &mut |observation| match judging {
            Judging::Here(detector) => {
                out.observation(observation);
                detector.on_observation(observation, &mut |change| out.finding(change));
            }
            Judging::Apart(outbox) => outbox.observation(observation, later),
        });
    }

    pub(super) fn arp(&mut self, seen: &Seen<'_>, arp: &ArpPacket) {
        self.settle();
        match (&mut self.judging, &self.observer) {
            (Judging::Apart(outbox), None) => outbox.stated(Stated::by_arp(seen, arp), self.later),
            _ => self.observe(|observer, places, sink| observer.on_arp(seen, arp, places, sink)),
        }
    }

    pub(super) fn packet(&mut self, seen: &Seen<'_>, ip: &IpPacket<'_>) {
        if may_state(ip) {
            self.settle();
            match (&mut self.judging, &self.observer) {
                (Judging::Apart(outbox), None) => outbox.stated(Stated::by_packet(seen, ip), self.later),
                _ => self.observe(|observer, places, sink| observer.on_packet(seen, ip, places, sink)),
            }
        }
    }

    pub(super) fn advance(&mut self, now: Timestamp) {
        self.settle();
        self.observe(|observer, places, sink| observer.advance(now, places, sink));
        match self.judging {
            Judging::Here(detector) => detector.advance(now, &mut |change| self.out.finding(change)),
            Judging::Apart(outbox) => outbox.advance(now, self.later),
        }
    }

    pub(super) fn health(&mut self, report: &HealthReport) {
        self.settle();
        match self.judging {
            Judging::Here(detector) => detector.on_health(report, &mut |change| self.out.finding(change)),
            Judging::Apart(outbox) => outbox.health(report, self.later),
        }
    }

    pub(super) fn finish(&mut self) {
        self.settle();
        self.observe(|observer, places, sink| observer.finish(places, sink));
        match self.judging {
            Judging::Here(detector) => detector.finish(&mut |change| self.out.finding(change)),
            Judging::Apart(outbox) => outbox.finish(self.later),
        }
    }

    /// Observer and rules begin anew under another plan. The observer remembers nothing, so this is where it can
    /// come from the rules, or go to them.
    pub(super) fn restart(
        &mut self,
        plan: &Arc<AddressPlan>,
        detect: &DetectConfig,
        begin: impl FnOnce(&ObserveConfig) -> Observer,
        has_segments: bool,
    ) {
        self.settle();
        self.observe(|observer, places, sink| observer.finish(places, sink));
        let anew = Some(begin(&detect.observe));
        match self.judging {
            Judging::Here(detector) => {
                detector.restart(plan.clone(), detect, &mut |change| self.out.finding(change));
                *self.observer = anew;
            }
            Judging::Apart(outbox) => {
                let (here, there) = if has_segments { (anew, None) } else { (None, anew) };
                *self.observer = here;
                outbox.restart(plan, detect, there, self.later);
            }
        }
    }

    /// Tells observer and rules what happened to a flow.
    pub(super) fn tell_now(&mut self, event: FlowEvent, flow: &FlowContext, ahead: (&Ahead, usize)) {
        self.observe(|observer, places, sink| observer.on_event(event, flow, ahead, places, sink));
        match self.judging {
            Judging::Here(detector) => {
                detector.on_flow(event, flow, self.places, &mut |change| self.out.finding(change));
            }
            Judging::Apart(outbox) => outbox.event(),
        }
    }
}

impl FlowHost for Wiring<'_> {
    fn side_place(&self, origin: &Origin<'_>, ip: &IpAddr, mac: Option<MacAddress>) -> SidePlace {
        let PacketPlace { scope, space, segment, secretariat } = origin.place;
        let place = Place { segment, secretariat, space, scope };
        // Where its packets came from says something of a segment or its secretariat, and else nothing.
        let came = match mac {
            Some(mac) if segment.is_some() || secretariat.is_some() => {
                // The observer is here wherever there are segments.
                self.observer.as_ref().map_or(Came::Unheard, |observer| {
                    observer.came(origin.interface, origin.link, mac, self.places)
                })
            }
            _ => Came::Unheard,
        };
        let resident = self.places.resident(ip, place, came);
        SidePlace {
            locality: resident.locality,
            segment: resident.segment,
            secretariat: resident.secretariat,
        }
    }

    fn role(&self, interface: InterfaceIndex) -> Role {
        self.places.role(interface)
    }

    fn interface_name(&self, interface: InterfaceIndex) -> Name {
        match self.interfaces.get(usize::from(interface.0)) {
            Some(plan) => plan.name.clone(),
            None => "unknown".into(),
        }
    }

    fn name_interface(&self, interface: InterfaceIndex, name: &mut Name) {
        match self.interfaces.get(usize::from(interface.0)) {
            Some(plan) if Arc::ptr_eq(&plan.name, name) => {}
            _ => *name = self.interface_name(interface),
        }
    }

    fn sampling(&self, interface: InterfaceIndex) -> u32 {
        self.sampling.get(usize::from(interface.0)).copied().unwrap_or(1)
    }

    fn wants_identities(&self) -> bool {
        self.out.sink.wants_identities()
    }

    fn scope_name(&self, scope: u16, space: u16) -> Name {
        match scope {
            0 => "unknown".into(),
            1 => "outside".into(),
            2 => "inside".into(),
            _ => format!("space {}", self.places.space_name(space)).into(),
        }
    }

    fn segment_name(&self, segment: u16) -> Option<Name> {
        self.places.segment_name(segment).cloned()
    }

    fn secretariat_name(&self, secretariat: u16) -> Option<Name> {
        self.places.secretariat_name(secretariat).cloned()
    }

    fn hears_collapse(
        &self,
        interface: InterfaceIndex,
        originator: &IpAddr,
        responder: &(IpAddr, u16),
        secretariat: Option<u16>,
    ) -> bool {
        let hears = match &self.judging {
            Judging::Here(detector) => {
                detector.hears_collapse(interface, responder, secretariat, self.places)
            }
            // The rules are elsewhere, and it makes no difference to them.
            Judging::Apart(_) => true,
        };
        // What waits may make the rules follow flows of an outside link.
        let hears = hears || !self.later.is_empty() && self.places.role(interface) == Role::Outside;
        let counts = |observer: &Observer| observer.counts_traffic(interface, *originator, self.places);
        hears || self.observer.as_ref().is_none_or(counts)
    }

    fn tell(&mut self, event: FlowEvent, protocol: u8, now: Timestamp, write: impl FnOnce(&mut FlowContext)) {
        self.put(event, protocol, now, write);
    }

    fn event(&mut self, event: FlowEvent, flow: &FlowContext) {
        self.settle();
        self.hold(event, |context| context.clone_from(flow));
        self.settle();
    }

    fn record(&mut self, record: &mut Box<FlowRecord>) {
        match self.judging {
            Judging::Apart(outbox) if !outbox.keeps_records => outbox.record(record, self.later),
            _ => self.out.flow(record),
        }
    }
}
