//! The whole sensor as a state machine: packets of a few hosts, most of them sound, at times that also run back, with
//! tables so small that they are always full, and the steps of time, ends and reloads between them.
//!
//! Input: eight bytes of settings, then steps of one byte for the kind and what that kind takes.

use std::{collections::HashMap, sync::Arc};

use onenet_core::{
    decode::{self, CapturedPacket, Content, InterfaceIndex, IpPacket, LinkDirection, LinkType},
    detect::DetectConfig,
    flow::{FlowConfig, TunnelFlows},
    mirror::{MirrorKind, MirrorPlan},
    net::MacAddress,
    plan::{AddressPlan, InterfacePlan, Role},
    record::{EndReason, FindingChange, FlowId, FlowRecord, FlowSide, Ledger, Observation, RecordSink},
    sensor::{Sensor, SensorConfig},
    time::Timestamp,
};
use onenet_proto::v1;

use super::{Input, LINK_TYPES, packet};

/// Steps of one input at most.
const STEPS: usize = 400;

/// Runs the sensor as `bytes` say. Where they ask for it, it runs twice with different keys of its hash tables, which
/// nothing may depend on.
pub fn sensor(bytes: &[u8]) {
    let twice = bytes.first().is_some_and(|&first| first & 0x80 != 0);
    let one = Run::new(bytes, 1).run();
    if twice {
        let other = Run::new(bytes, 99).run();
        assert_eq!(one.digest, other.digest, "records depend on the hash seed");
    }
}

const PLAN: &str = "[[secretariat]]\nid = 'eohhs'\n[[secretariat]]\nid = 'dot'\n\
    [[segment]]\nid = 'b-eohhs'\nsecretariat = 'eohhs'\nsite = 'boston'\nvlan = 10\n\
    [[segment]]\nid = 'b-dot'\nsecretariat = 'dot'\nsite = 'boston'\nvlan = 20\n\
    [[prefix]]\ncidr = '10.0.0.0/16'\nsecretariat = 'eohhs'\n\
    [[prefix]]\ncidr = '10.9.0.0/16'\nsecretariat = 'dot'\n";
const OTHER_PLAN: &str = "[[secretariat]]\nid = 'dot'\naddress_space = 'shared'\n\
    [[segment]]\nid = 'b-dot'\nsecretariat = 'dot'\nsite = 'boston'\nvlan = 10\n\
    [[prefix]]\ncidr = '10.0.0.0/24'\nsecretariat = 'dot'\n\
    [[public]]\ncidr = '198.51.100.0/24'\n";

fn plan(which: u8) -> Arc<AddressPlan> {
    let text = ["", PLAN, OTHER_PLAN][usize::from(which % 3)];
    let plan = toml::from_str(text);
    assert!(plan.is_ok(), "the plans of this file are sound");
    plan.unwrap_or_else(|_| AddressPlan::default()).into()
}

/// Rules that remember little and are raised by little.
fn rules(which: u8) -> DetectConfig {
    let mut rules = DetectConfig::default();
    let (limit, quiet) = (1 + u32::from(which % 7), u32::from(which / 7));
    rules.observe.enabled = which & 1 == 0;
    (rules.observe.limit, rules.observe.report_seconds, rules.observe.hold_seconds) = (limit, quiet, quiet);
    (rules.leak.limit, rules.leak.quiet_seconds, rules.leak.sources_per_prefix) = (limit, quiet, 2);
    (rules.spoof.limit, rules.spoof.quiet_seconds, rules.spoof.sources_per_prefix) = (limit, quiet, 2);
    (rules.scan.limit, rules.scan.quiet_seconds) = (limit, quiet);
    (rules.scan.min_failed_hosts, rules.scan.min_failed_ports) = (1, 2);
    (rules.flood.limit, rules.flood.quiet_seconds, rules.flood.min_attempts) = (limit, quiet, 3);
    (rules.beacon.limit, rules.beacon.quiet_seconds, rules.beacon.samples) = (limit, quiet, 6);
    (rules.beacon.min_connections, rules.beacon.min_span_seconds, rules.beacon.min_hosts) = (4, 1, 1);
    (rules.beacon.min_score, rules.beacon.min_timing_score, rules.beacon.score_seconds) = (0.1, 0.1, 1);
    rules
}

/// A sensor with what must come out of it.
struct Run<'a> {
    input: Input<'a>,
    sensor: Sensor,
    limits: FlowConfig,
    mirrored: bool,
    now: Timestamp,
    counted: Expected,
    sink: Checker,
}

/// What the flow records must add up to.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    outer: Sums,
    inner_packets: u64,
}

/// Counters of packets on the outside of all tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    packets: u64,
    wire_bytes: u64,
    ip_bytes: u64,
    payload_bytes: u64,
    fragments: u64,
}

impl Sums {
    fn add(&mut self, wire_bytes: u32, ip: &IpPacket<'_>) {
        self.packets += 1;
        self.wire_bytes += u64::from(wire_bytes);
        self.ip_bytes += u64::from(ip.ip_bytes);
        self.payload_bytes += u64::from(ip.payload_bytes);
        self.fragments += u64::from(ip.fragment.is_some());
    }

    fn add_side(&mut self, side: &FlowSide) {
        self.packets += side.packets;
        self.wire_bytes += side.wire_bytes;
        self.ip_bytes += side.ip_bytes;
        self.payload_bytes += side.payload_bytes;
        self.fragments += side.fragments;
    }
}

impl<'a> Run<'a> {
    fn new(bytes: &'a [u8], seed: u64) -> Self {
        let mut input = Input(bytes);
        let [which, limit, idle, active, depth, fragments, detect, mode] = input.array();
        let limits = FlowConfig {
            tcp_idle_seconds: u32::from(idle) * 3,
            udp_idle_seconds: idle.into(),
            icmp_idle_seconds: u32::from(idle) / 2,
            other_idle_seconds: idle.into(),
            attempt_seconds: u32::from(idle % 8),
            closing_seconds: u32::from(idle % 5),
            active_seconds: active.into(),
            max_flows: 1 + u32::from(limit % 24),
            max_attempts: 1 + u32::from(limit % 5),
            max_fragmented_datagrams: 1 + u32::from(fragments % 6),
            max_tunnel_depth: depth % 6,
            tunnels: [TunnelFlows::Both, TunnelFlows::Inner, TunnelFlows::Outer][usize::from(mode % 3)],
            ..FlowConfig::default()
        };
        let config = SensorConfig {
            site: "boston".into(),
            sensor: "boston-1".into(),
            plan: plan(which),
            flow: limits.clone(),
            detect: rules(detect),
            hash_seed: [seed, 2, 3, 4],
        };
        let sensor = Sensor::new(config);
        assert!(sensor.is_ok(), "{:?}", sensor.err());
        let Ok(mut sensor) = sensor else { unreachable!("asserted above") };
        let mirrored = mode >= 192;
        if mirrored {
            let kind = [MirrorKind::Gre, MirrorKind::Vxlan, MirrorKind::Erspan][usize::from(mode >> 2) % 3];
            let name = "mirror".into();
            let plan = MirrorPlan { name, kind, destination: None, id: None, port: None };
            let interface =
                InterfacePlan { name: "mirror".into(), role: Role::Inside, router_macs: Vec::new() };
            sensor.add_mirror(plan, interface);
        }
        Self {
            input,
            sensor,
            limits,
            mirrored,
            now: Timestamp::from_parts(1_700_000_000, 0),
            counted: Expected::default(),
            sink: Checker::default(),
        }
    }

    fn run(mut self) -> Checker {
        self.interface(0);
        self.interface(1);
        for _ in 0..STEPS {
            if self.input.0.is_empty() {
                break;
            }
            self.step();
            assert!(self.sensor.ledger().balances());
            assert!(self.sensor.live_flows() <= (self.limits.max_flows + self.limits.max_attempts) as usize);
        }
        self.finish();
        self.sink
    }

    fn step(&mut self) {
        match self.input.byte() % 32 {
            kind @ 0..=19 => {
                let bytes = packet::crafted(kind, &mut self.input);
                self.packet(LinkType::ETHERNET, &bytes);
            }
            20..=23 => {
                let kind = self.input.byte();
                let mut bytes = packet::crafted(kind % 20, &mut self.input);
                packet::damage(&mut bytes, &mut self.input);
                self.packet(LinkType::ETHERNET, &bytes);
            }
            24 | 25 => {
                let link_type = LINK_TYPES[usize::from(self.input.byte()) % LINK_TYPES.len()];
                let length = usize::from(self.input.byte());
                let bytes = self.input.bytes(length);
                self.packet(LinkType(link_type), bytes);
            }
            26 | 27 => {
                self.pass();
                self.sensor.advance(self.now, &mut self.sink);
            }
            28 => self.finish(),
            29 => {
                let (which, detect) = (self.input.byte(), self.input.byte());
                let outcome = self.sensor.reload(plan(which), rules(detect));
                assert!(outcome.is_ok(), "{outcome:?}");
            }
            30 => {
                let which = self.input.byte();
                self.interface(which % 4);
            }
            _ => {
                self.now =
                    [i64::MIN, -1, 0, 1 << 62, i64::MAX].map(Timestamp)[usize::from(self.input.byte()) % 5]
            }
        }
    }

    fn interface(&mut self, which: u8) {
        let role = if which.is_multiple_of(2) { Role::Inside } else { Role::Outside };
        let router_macs = if which == 1 { vec![MacAddress([2, 0, 0, 0, 0, 1])] } else { Vec::new() };
        let name = ["in", "out", "in2", "out2"][usize::from(which % 4)].into();
        self.sensor.add_interface(InterfacePlan { name, role, router_macs });
    }

    /// Lets time pass, or run back.
    fn pass(&mut self) {
        let step = self.input.byte();
        let units = i64::from(step & 0x3f);
        self.now = self.now.plus(match step >> 6 {
            0 => units * 1_000_000,
            1 => units * 300_000_000,
            2 => units * 20_000_000_000,
            _ => units * -700_000_000,
        });
    }

    fn packet(&mut self, link_type: LinkType, bytes: &[u8]) {
        self.pass();
        let mode = self.input.byte();
        let cut = if mode & 0x18 == 0x18 { usize::from(mode >> 5) * 9 } else { 0 };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let captured = CapturedPacket {
            time: self.now,
            interface: InterfaceIndex(u16::from(mode & 3)),
            link_type,
            direction: if mode & 4 == 0 { LinkDirection::Unknown } else { LinkDirection::Sent },
            wire_length: if mode == 0xff { u32::MAX } else { length },
            data: &bytes[..bytes.len() - cut.min(bytes.len())],
        };
        self.expect(&captured);
        self.sensor.handle_packet(&captured, &mut self.sink);
    }

    /// Notes what the packet must be counted as.
    fn expect(&mut self, captured: &CapturedPacket<'_>) {
        let depth_limit =
            if self.limits.tunnels == TunnelFlows::Outer { 0 } else { self.limits.max_tunnel_depth };
        let Ok(mut decoded) = decode::decode(captured) else { return };
        let mut wire_bytes = captured.wire_length;
        for depth in 0..=depth_limit {
            let ip = match &decoded.content {
                Content::Ip(ip) => ip,
                Content::Arp(_) => return,
            };
            let inner = if depth < depth_limit { decode::inner(ip).ok().flatten() } else { None };
            let opened =
                inner.and_then(|inner| Some((inner.wire_length, decode::decode_inner(&inner).ok()?)));
            match (self.limits.tunnels, &opened) {
                (TunnelFlows::Inner, Some(_)) => {}
                (TunnelFlows::Both, _) if depth > 0 => self.counted.inner_packets += 1,
                _ => self.counted.outer.add(wire_bytes, ip),
            }
            let Some((length, inside)) = opened else { return };
            (wire_bytes, decoded) = (length, inside);
        }
    }

    /// Ends every flow: what was counted and what was written must agree.
    fn finish(&mut self) {
        self.sensor.finish(&mut self.sink);
        assert_eq!(self.sensor.live_flows(), 0);
        let ledger = self.sensor.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(ledger.parsed - ledger.arp - ledger.mirror_fragments, self.sink.sums.outer.packets);
        assert!(ledger.mirror_bytes <= ledger.wire_bytes && ledger.mirrored <= ledger.packets);
        if !self.mirrored {
            assert_eq!(self.sink.sums, self.counted, "what was written is not what was counted");
        }
        assert!(self.sink.open.values().all(|progress| progress.ended), "a flow has no last part");
        self.sink.agrees_with(ledger);
    }
}

/// How far the parts of a flow have come.
struct Progress {
    part: u32,
    ended: bool,
}

/// Takes records and holds each to what is promised of it.
#[derive(Default)]
struct Checker {
    sums: Expected,
    open: HashMap<FlowId, Progress>,
    flows: u64,
    observations: u64,
    findings: u64,
    digest: u64,
}

impl Checker {
    fn agrees_with(&self, ledger: &Ledger) {
        assert_eq!(
            (ledger.flow_records, ledger.observations, ledger.finding_changes),
            (self.flows, self.observations, self.findings)
        );
        let wire = v1::Ledger::from(ledger);
        assert_eq!(Ledger::try_from(&wire).as_ref(), Ok(ledger));
    }

    fn note(&mut self, text: &str) {
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn side(side: &FlowSide, protocol: u8) {
    assert!(side.fragments <= side.packets && side.retransmissions <= side.packets, "{side:?}");
    assert!(side.payload_bytes <= side.ip_bytes, "{side:?}");
    assert!(side.ttl_min <= side.ttl_max && side.dscp < 64, "{side:?}");
    assert!(side.tcp_flags == 0 || protocol == 6 && side.tcp_flags < 0x200, "{side:?}");
    assert!(side.packets > 0 || side.wire_bytes == 0 && side.ip_bytes == 0, "{side:?}");
}

impl RecordSink for Checker {
    fn flow(&mut self, flow: &FlowRecord) {
        self.flows += 1;
        assert!(flow.flow_start <= flow.start && flow.start <= flow.end, "{flow:?}");
        assert!(flow.part > 0 || flow.originator.packets + flow.responder.packets > 0, "{flow:?}");
        assert!(flow.rtt_syn_to_syn_ack.is_none_or(|time| time >= 0), "{flow:?}");
        assert!(flow.rtt_syn_ack_to_ack.is_none_or(|time| time >= 0), "{flow:?}");
        assert!(flow.tunnel.is_some() || flow.tunnel_parents.is_empty(), "{flow:?}");
        assert!(
            flow.history.chars().all(|letter| "ShHADadFfRrCcGgTtWwIiQqXx^s".contains(letter)),
            "{flow:?}"
        );
        for one in [&flow.originator, &flow.responder] {
            side(one, flow.protocol);
            match flow.tunnel_parents.is_empty() {
                true => self.sums.outer.add_side(one),
                false => self.sums.inner_packets += one.packets,
            }
        }
        let ended = flow.end_reason != EndReason::Active;
        match self.open.get_mut(&flow.flow_id) {
            None => {
                assert_eq!(flow.part, 0, "the first part of a flow is missing: {flow:?}");
                self.open.insert(flow.flow_id, Progress { part: 0, ended });
            }
            Some(progress) => {
                assert!(!progress.ended, "two flows have one identity: {flow:?}");
                assert_eq!(flow.part, progress.part + 1, "a part is missing: {flow:?}");
                *progress = Progress { part: flow.part, ended };
            }
        }
        let back = FlowRecord::try_from(v1::Flow::from(flow));
        assert_eq!(back.as_ref(), Ok(flow));
        self.note(&format!("{}{}{}{:?}", flow.flow_id, flow.part, flow.history, flow.end_reason));
    }

    fn observation(&mut self, observation: &Observation) {
        self.observations += 1;
        assert!(observation.first_seen <= observation.last_seen, "{observation:?}");
        let back = Observation::try_from(v1::Observation::from(observation));
        assert_eq!(back.as_ref(), Ok(observation));
        self.note(&format!("{:?}{}{:?}", observation.kind, observation.address, observation.mac));
    }

    fn finding(&mut self, change: &FindingChange) {
        self.findings += 1;
        assert!(change.first_seen <= change.last_seen, "{change:?}");
        let back = FindingChange::try_from(v1::FindingChange::from(change));
        assert_eq!(back.as_ref(), Ok(change));
        self.note(&format!("{}{}", change.key, change.revision));
    }
}
