//! Rules from flow events to findings.

mod beacon;
mod border;
mod flood;
mod scan;

use std::{net::IpAddr, sync::Arc};

use arrayvec::ArrayVec;

use super::{DetectConfig, Detector};
use crate::{
    decode::InterfaceIndex,
    flow::{FlowContext, FlowEvent, Party},
    ipam::{Came, Place, Places},
    net::MacAddress,
    plan::{AddressPlan, InterfacePlan, Role},
    record::{Change, ConnState, EndReason, FindingChange, FlowId, Observation},
    time::Timestamp,
};

pub(super) const PLAN: &str = "
    secretariat = [{id='eohhs', contact='soc@eohhs'}, {id='massdot', contact='soc@massdot'}]
    prefix = [{cidr='10.40.0.0/16', secretariat='eohhs'}, {cidr='10.80.0.0/16', secretariat='massdot'}]
    public = [{cidr='146.243.0.0/16'}]
    exemption = [
        {source='10.40.0.99/32', reason='vulnerability scanner'},
        {rule='flood.syn', destination='146.243.1.99/32', port=443, reason='load test'},
        {rule='beacon', destination='17.0.0.0/8', reason='monitoring service'},
        {rule='leak.private', source='10.40.7.0/24', reason='known, ticket 7'},
    ]";

pub(super) const INSIDE: InterfaceIndex = InterfaceIndex(0);
pub(super) const OUTSIDE: InterfaceIndex = InterfaceIndex(1);
pub(super) const UNKNOWN: InterfaceIndex = InterfaceIndex(2);
/// Outside, where neither router nor direction is stated.
pub(super) const TAP: InterfaceIndex = InterfaceIndex(3);

pub(super) const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(super) const PROVIDER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// A detector with its surroundings, and what it told.
pub(super) struct Bench {
    pub(super) detector: Detector,
    pub(super) places: Places,
    pub(super) changes: Vec<FindingChange>,
    next_id: u128,
}

/// A connection to be played to the rules.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) interface: InterfaceIndex,
    pub(super) protocol: u8,
    pub(super) source: (IpAddr, u16),
    pub(super) target: (IpAddr, u16),
    /// When it starts, in nanoseconds.
    pub(super) at: i64,
    /// Bytes the originator sends.
    pub(super) bytes: u64,
}

#[expect(clippy::cast_possible_truncation, reason = "tests take a few hours at most")]
fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

impl Call {
    pub(super) fn tcp(interface: InterfaceIndex, source: &str, target: &str, port: u16) -> Self {
        let (source, target) = ((ip(source), 50_000), (ip(target), port));
        Self { interface, protocol: 6, source, target, at: 0, bytes: 500 }
    }

    pub(super) fn at(self, seconds: f64) -> Self {
        Self { at: nanos(seconds), ..self }
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(PLAN, &DetectConfig::default())
    }

    pub(super) fn with(plan: &str, config: &DetectConfig) -> Self {
        let plan: Arc<AddressPlan> = Arc::new(toml::from_str(plan).expect("a plan"));
        assert_eq!(config.check(), Ok(()));
        let interface =
            |name: &str, role, router_macs| InterfacePlan { name: name.into(), role, router_macs };
        let interfaces = [
            interface("in", Role::Inside, vec![ROUTER]),
            interface("out", Role::Outside, vec![ROUTER]),
            interface("any", Role::Unknown, vec![]),
            interface("tap", Role::Outside, vec![]),
        ];
        Self {
            places: Places::new(&plan, "boston", &interfaces),
            detector: Detector::new("boston".into(), plan, config, [3; 4]),
            changes: Vec::new(),
            next_id: 1,
        }
    }

    /// The context of a call that began just now.
    pub(super) fn context(&mut self, call: &Call) -> FlowContext {
        let role = self.places.role(call.interface);
        let scope = match role {
            Role::Inside => 2,
            Role::Outside => 1,
            Role::Unknown => 0,
        };
        let place = Place { scope, ..Place::default() };
        let party = |(ip, port): (IpAddr, u16)| {
            let resident = self.places.resident(&ip, place, Came::Unheard);
            Party {
                ip,
                port,
                locality: resident.locality,
                segment: resident.segment,
                secretariat: resident.secretariat,
                ..Party::default()
            }
        };
        let (originator, responder) = (party(call.source), party(call.target));
        self.next_id += 1;
        let mut flow = FlowContext {
            identity: FlowId(self.next_id).into(),
            protocol: call.protocol,
            originator,
            responder,
            conn_state: ConnState::S0,
            syn_seen: call.protocol == 6,
            start: Timestamp(call.at),
            last: Timestamp(call.at),
            now: Timestamp(call.at),
            interface: call.interface,
            role,
            vlans: ArrayVec::new(),
            tunnelled: false,
            leaving: None,
            by_originator: Some(true),
            stack: None,
        };
        send(&mut flow.originator, 1);
        flow
    }

    pub(super) fn tell(&mut self, event: FlowEvent, flow: &FlowContext) {
        let Self { detector, places, changes, .. } = self;
        let mut flow = flow.clone();
        if event == FlowEvent::Answered {
            flow.by_originator = Some(flow.responder.packets != 1);
        }
        detector.on_flow(event, &flow, places, &mut |change| changes.push(change.clone()));
    }

    /// A connection that is established, sends, and ends after `seconds`.
    pub(super) fn succeed(&mut self, call: &Call, seconds: f64) {
        let mut flow = self.context(call);
        self.tell(FlowEvent::Started, &flow);
        self.answer(&mut flow, call.bytes);
        flow.now = flow.now.plus(nanos(seconds));
        flow.last = flow.now;
        self.tell(FlowEvent::Reported(EndReason::Ended), &flow);
    }

    /// The responder answers, and the originator sends.
    pub(super) fn answer(&mut self, flow: &mut FlowContext, bytes: u64) {
        send(&mut flow.responder, 1);
        self.tell(FlowEvent::Answered, flow);
        send(&mut flow.originator, 1);
        flow.conn_state = ConnState::S1;
        self.tell(FlowEvent::Established, flow);
        flow.originator.ip_bytes += bytes;
        flow.originator.payload_bytes += bytes;
        flow.conn_state = ConnState::SF;
    }

    /// A connection that the target refuses.
    pub(super) fn refuse(&mut self, call: &Call) {
        let mut flow = self.context(call);
        self.tell(FlowEvent::Started, &flow);
        send(&mut flow.responder, 1);
        flow.conn_state = ConnState::Rej;
        self.tell(FlowEvent::Answered, &flow);
        self.tell(FlowEvent::Refused, &flow);
        self.tell(FlowEvent::Reported(EndReason::Ended), &flow);
    }

    /// A SYN that nobody answers. Told when the timer runs out, after five seconds.
    pub(super) fn ignore(&mut self, call: &Call, payload: u64) {
        let mut flow = self.context(call);
        self.tell(FlowEvent::Started, &flow);
        flow.originator.payload_bytes = payload;
        flow.now = flow.now.plus(5_000_000_000);
        self.tell(FlowEvent::Unanswered, &flow);
        self.tell(FlowEvent::Reported(EndReason::Idle), &flow);
    }

    pub(super) fn advance(&mut self, seconds: f64) {
        let Self { detector, changes, .. } = self;
        detector.advance(Timestamp(nanos(seconds)), &mut |change| changes.push(change.clone()));
    }

    pub(super) fn finish(&mut self) {
        let Self { detector, changes, .. } = self;
        detector.finish(&mut |change| changes.push(change.clone()));
    }

    /// An address is observed on a secretariat's segment, by traffic.
    pub(super) fn observe(&mut self, address: &str, secretariat: &str, seconds: f64) {
        let text = format!(
            r#"{{"kind":"traffic","strength":"medium","address":"{address}","address_space":"{secretariat}",
            "secretariat":"{secretariat}","segment":"boston-{secretariat}","site":"boston","interface":"in",
            "vlans":[],"first_seen":"{t}","last_seen":"{t}","packets":1}}"#,
            t = Timestamp(nanos(seconds)),
        );
        let observation: Observation = serde_json::from_str(&text).expect("an observation");
        let Self { detector, changes, .. } = self;
        detector.on_observation(&observation, &mut |change| changes.push(change.clone()));
    }

    /// Keys that were raised, in order.
    pub(super) fn raised(&self) -> Vec<&str> {
        self.changes.iter().filter(|c| c.change == Change::Raised).map(|c| c.key.as_str()).collect()
    }

    pub(super) fn last(&self) -> &FindingChange {
        self.changes.last().expect("a finding was told")
    }
}

pub(super) fn send(party: &mut Party, packets: u64) {
    party.packets += packets;
    party.packets_by_mac += packets;
    party.ip_bytes += 60 * packets;
    (party.ttl_min, party.ttl_max) = (64, 64);
}

#[test]
fn a_rule_that_is_switched_off_says_nothing() {
    let config: DetectConfig = toml::from_str(
        "leak.enabled = false\nscan = {horizontal = false, vertical = false}\nflood.enabled = false\n\
         beacon.enabled = false\nspoof.enabled = false\noverlap.enabled = false",
    )
    .unwrap();
    let mut bench = Bench::with(PLAN, &config);
    for n in 0..3000 {
        let call = Call::tcp(OUTSIDE, "10.40.0.1", "8.8.8.8", 443).at(f64::from(n) / 300.0);
        bench.ignore(&call, 0);
        bench.succeed(&call, 0.1);
    }
    bench.finish();
    assert_eq!(bench.changes, []);
}

#[test]
fn a_new_plan_keeps_the_keys_of_incidents_that_go_on() {
    let mut bench = Bench::new();
    let call = Call::tcp(OUTSIDE, "10.40.0.1", "8.8.8.8", 443);
    let leak = |bench: &mut Bench| {
        let mut flow = bench.context(&call);
        flow.leaving = Some(true);
        bench.tell(FlowEvent::Started, &flow);
    };
    leak(&mut bench);
    let plan = Arc::new(toml::from_str(PLAN).unwrap());
    let Bench { detector, changes, .. } = &mut bench;
    detector.restart(plan, &DetectConfig::default(), &mut |change| changes.push(change.clone()));
    leak(&mut bench);
    assert_eq!(bench.raised(), ["leak.private|boston|10.40.0.1"; 2]);
}
