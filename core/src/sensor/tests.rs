//! Tests of the sensor as a whole, on packets made byte by byte.

use proptest::prelude::*;

use super::*;
use crate::{
    decode::{LinkDirection, LinkType},
    net::MacAddress,
    plan::Role,
    record::{FindingChange, FlowRecord, Observation},
};

/// Keeps what it is given.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    flows: Vec<FlowRecord>,
    observations: Vec<Observation>,
    findings: Vec<FindingChange>,
}

impl RecordSink for Kept {
    fn flow(&mut self, record: &FlowRecord) {
        self.flows.push(record.clone());
    }

    fn observation(&mut self, observation: &Observation) {
        self.observations.push(observation.clone());
    }

    fn finding(&mut self, change: &FindingChange) {
        self.findings.push(change.clone());
    }
}

fn sensor(plan: &str, seed: u64) -> Sensor {
    let plan: AddressPlan = toml::from_str(plan).expect("the plan parses");
    let mut sensor = Sensor::new(SensorConfig {
        site: "boston".into(),
        sensor: "boston-1".into(),
        plan: plan.into(),
        flow: FlowConfig::default(),
        detect: DetectConfig::default(),
        hash_seed: [seed, 2, 3, 4],
    })
    .expect("the plan is sound");
    let inside = InterfacePlan { name: "in".into(), role: Role::Inside, router_macs: Vec::new() };
    assert_eq!(sensor.add_interface(inside.clone()), InterfaceIndex(0));
    assert_eq!(sensor.add_interface(inside), InterfaceIndex(0));
    sensor
}

fn captured(seconds: i64, data: &[u8]) -> CapturedPacket<'_> {
    CapturedPacket {
        time: Timestamp::from_parts(1_700_000_000 + seconds, 0),
        interface: InterfaceIndex(0),
        link_type: LinkType(1),
        direction: LinkDirection::Unknown,
        wire_length: u32::try_from(data.len()).expect("a short packet"),
        data,
    }
}

fn feed(sensor: &mut Sensor, seconds: i64, data: &[u8], kept: &mut Kept) {
    sensor.handle_packet(&captured(seconds, data), kept);
}

fn ethernet(vlan: Option<u16>, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 20).expect("a short packet");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    // A right checksum, so that these take the ways that ordinary packets take.
    let words = packet.as_chunks::<2>().0.iter().map(|&word| u32::from(u16::from_be_bytes(word)));
    let sum = words.sum::<u32>();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("no second carry");
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("a short datagram");
    let words = [from, to, length, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).chain(payload.iter().copied()).collect()
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 9, 0, 2];

#[test]
fn a_tunnel_and_what_it_carries_are_two_flows_that_know_each_other() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let inner = ipv4(17, [192, 168, 0, 1], [192, 168, 0, 2], &udp(5000, 6000, b"four"));
    let gre = [&[0, 0, 8, 0], &inner[..]].concat();
    feed(&mut sensor, 0, &ethernet(None, 0x0800, &ipv4(47, A, B, &gre)), &mut kept);
    sensor.finish(&mut kept);
    let outer = kept.flows.iter().find(|flow| flow.protocol == 47).expect("the outer flow");
    let inner = kept.flows.iter().find(|flow| flow.protocol == 17).expect("the inner flow");
    assert_eq!((inner.tunnel_parents.as_slice(), outer.tunnel_parents.len()), (&[outer.flow_id][..], 0));
    assert_eq!((outer.originator.wire_bytes, outer.originator.ip_bytes), (14 + 20 + 4 + 32, 56));
    assert_eq!((inner.originator.wire_bytes, inner.originator.payload_bytes), (32, 4));
    assert!(inner.tunnel.is_some() && inner.originator.mac.is_none());
    let ledger = sensor.ledger();
    assert_eq!((ledger.packets, ledger.parsed, ledger.flow_records, ledger.balances()), (1, 1, 2, true));
}

#[test]
fn tunnels_are_opened_to_the_stated_depth_and_no_further() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let nested = (0..9).fold(ipv4(17, A, B, &udp(1, 2, b"")), |inner, n| ipv4(4, [10, 1, 0, n], B, &inner));
    feed(&mut sensor, 0, &ethernet(None, 0x0800, &nested), &mut kept);
    assert_eq!(sensor.live_flows(), 1 + usize::from(FlowConfig::default().max_tunnel_depth));
    sensor.finish(&mut kept);
    assert_eq!(kept.flows.iter().map(|flow| flow.tunnel_parents.len()).max(), Some(3));
}

#[test]
fn the_same_packet_by_itself_and_in_a_tunnel_is_two_flows() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let plain = ipv4(17, A, B, &udp(1, 2, b""));
    feed(&mut sensor, 0, &ethernet(None, 0x0800, &plain), &mut kept);
    feed(&mut sensor, 0, &ethernet(None, 0x0800, &ipv4(4, A, B, &plain)), &mut kept);
    sensor.finish(&mut kept);
    let packets: Vec<_> = kept.flows.iter().map(|flow| (flow.protocol, flow.originator.packets)).collect();
    assert_eq!(packets.len(), 3, "{packets:?}");
    assert!(packets.iter().all(|&(_, packets)| packets == 1));
}

#[test]
fn a_tunnel_that_cannot_be_opened_still_counts_and_is_told_in_the_ledger() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    feed(&mut sensor, 0, &ethernet(None, 0x0800, &ipv4(4, A, B, &[0x45, 0, 0])), &mut kept);
    sensor.finish(&mut kept);
    assert_eq!(kept.flows.len(), 1);
    assert_eq!((sensor.ledger().tunnels_unopened, sensor.ledger().balances()), (1, true));
}

#[test]
fn arp_is_observed_and_belongs_to_no_flow() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1];
    arp.extend(A);
    arp.extend([2, 0, 0, 0, 0, 2]);
    arp.extend(B);
    feed(&mut sensor, 0, &ethernet(None, 0x0806, &arp), &mut kept);
    sensor.finish(&mut kept);
    assert_eq!(kept.flows.len(), 0);
    assert!(!kept.observations.is_empty());
    let ledger = sensor.ledger();
    assert_eq!((ledger.parsed, ledger.arp, ledger.balances()), (1, 1, true));
    assert_eq!(usize::try_from(ledger.observations).ok(), Some(kept.observations.len()));
}

/// A sensor with other settings of the flow table.
fn with_flow(flow: FlowConfig) -> Sensor {
    Sensor::new(SensorConfig {
        site: "boston".into(),
        sensor: "boston-1".into(),
        plan: Arc::default(),
        flow,
        detect: DetectConfig::default(),
        hash_seed: [1, 2, 3, 4],
    })
    .expect("the plan is sound")
}

/// GRE around IP, a tunnel that cannot be opened, and ARP in a tunnel, through tunnels counted in one way.
fn tunnelled(tunnels: TunnelFlows) -> (Ledger, Vec<(u8, u64, bool)>) {
    let (mut sensor, mut kept) =
        (with_flow(FlowConfig { tunnels, ..FlowConfig::default() }), Kept::default());
    let inner = ipv4(17, [192, 168, 0, 1], [192, 168, 0, 2], &udp(5000, 6000, b"four"));
    let gre = |ether_type: [u8; 2], inner: &[u8]| ipv4(47, A, B, &[&[0, 0], &ether_type, inner].concat());
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1][..], &A, &[2, 0, 0, 0, 0, 2], &B].concat();
    let nested = ipv4(4, [10, 0, 0, 7], B, &gre([8, 0], &inner));
    for packet in [gre([8, 0], &inner), gre([8, 0], &[0x45]), gre([8, 6], &arp), nested] {
        feed(&mut sensor, 0, &ethernet(None, 0x0800, &packet), &mut kept);
    }
    sensor.finish(&mut kept);
    let flows = kept.flows.iter();
    let mut flows: Vec<_> =
        flows.map(|flow| (flow.protocol, flow.originator.packets, !flow.tunnel_parents.is_empty())).collect();
    flows.sort_unstable();
    (sensor.ledger().clone(), flows)
}

#[test]
fn a_setting_says_which_flows_of_a_tunnel_are_recorded() {
    let (ledger, flows) = tunnelled(TunnelFlows::Both);
    // The flow inside the nested tunnel is the same as inside the plain one; a flow of GRE in IP is not.
    assert_eq!(flows, [(4, 1, false), (17, 2, true), (47, 1, true), (47, 3, false)]);
    assert_eq!((ledger.parsed, ledger.tunnels_unopened, ledger.arp, ledger.balances()), (4, 1, 0, true));
    let (ledger, flows) = tunnelled(TunnelFlows::Inner);
    assert_eq!(flows, [(17, 2, false), (47, 1, false)]);
    assert_eq!((ledger.parsed, ledger.tunnels_unopened, ledger.arp, ledger.balances()), (4, 1, 1, true));
    let (ledger, flows) = tunnelled(TunnelFlows::Outer);
    assert_eq!(flows, [(4, 1, false), (47, 3, false)]);
    assert_eq!((ledger.parsed, ledger.tunnels_unopened, ledger.arp, ledger.balances()), (4, 0, 0, true));
}

mod apart;
mod mirrors;
mod stacks;

const EOHHS: &str = "[[secretariat]]\nid = 'eohhs'\n[[segment]]\nid = 'b-eohhs'\nsecretariat = 'eohhs'\n\
                     site = 'boston'\nvlan = 10\n";
const DOT: &str = "[[secretariat]]\nid = 'dot'\n[[segment]]\nid = 'b-dot'\nsecretariat = 'dot'\nsite = 'boston'\n\
                   vlan = 20\n";

/// A plan is one table after another, so tables of one kind need not stand together.
fn plan_of(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn two_secretariats_with_the_same_addresses_never_share_a_flow() {
    let (mut sensor, mut kept) = (sensor(&plan_of(&[EOHHS, DOT]), 1), Kept::default());
    let packet = ipv4(17, A, B, &udp(1, 2, b""));
    for vlan in [10, 20, 10] {
        feed(&mut sensor, 0, &ethernet(Some(vlan), 0x0800, &packet), &mut kept);
    }
    sensor.finish(&mut kept);
    let mut told: Vec<_> =
        kept.flows.iter().map(|flow| (flow.originator.segment.as_deref(), flow.originator.packets)).collect();
    told.sort_unstable();
    assert_eq!(told, [(Some("b-dot"), 1), (Some("b-eohhs"), 2)]);
    assert_ne!(kept.flows[0].flow_id, kept.flows[1].flow_id);
}

#[test]
fn a_flow_goes_on_over_a_reload_that_renumbers_the_plan() {
    let (mut sensor, mut kept) = (sensor(&plan_of(&[EOHHS, DOT]), 1), Kept::default());
    let packet = ethernet(Some(20), 0x0800, &ipv4(17, A, B, &udp(1, 2, b"")));
    feed(&mut sensor, 0, &packet, &mut kept);
    let plan: AddressPlan = toml::from_str(&plan_of(&[DOT, EOHHS])).expect("the plan parses");
    sensor.reload(plan.into(), DetectConfig::default()).expect("the plan is sound");
    feed(&mut sensor, 1, &packet, &mut kept);
    sensor.finish(&mut kept);
    assert_eq!(kept.flows.len(), 1);
    let flow = &kept.flows[0];
    assert_eq!((flow.originator.packets, flow.originator.segment.as_deref()), (2, Some("b-dot")));
    let wrong: AddressPlan =
        toml::from_str("[[prefix]]\ncidr = '10.0.0.0/8'\nsecretariat = 'x'").expect("the plan parses");
    assert!(sensor.reload(wrong.into(), DetectConfig::default()).is_err());
}

proptest! {
    #[test]
    fn the_ledger_balances_and_nothing_depends_on_the_hash_seed(
        packets in prop::collection::vec(
            (0_u8..6, 0_u8..6, 0_u16..4, prop::option::of(0_usize..60), any::<bool>(), 0_i64..30), 1..120,
        ),
    ) {
        let run = |seed| {
            let (mut sensor, mut kept) = (sensor("", seed), Kept::default());
            let mut seconds = 0;
            for &(from, to, port, cut, tunnelled, step) in &packets {
                seconds += step;
                let mut ip = ipv4(17, [10, 0, 0, from], [10, 0, 0, to], &udp(port, 9, b"data"));
                if tunnelled {
                    ip = ipv4(4, A, B, &ip);
                }
                let mut frame = ethernet(None, 0x0800, &ip);
                frame.truncate(cut.unwrap_or(usize::MAX));
                feed(&mut sensor, seconds, &frame, &mut kept);
            }
            sensor.finish(&mut kept);
            (sensor.ledger().clone(), kept)
        };
        let (ledger, kept) = run(1);
        prop_assert!(ledger.balances());
        let outermost = kept.flows.iter().filter(|flow| flow.tunnel_parents.is_empty());
        let counted: u64 = outermost.map(|flow| flow.originator.packets + flow.responder.packets).sum();
        prop_assert_eq!(counted, ledger.parsed);
        prop_assert_eq!(run(99), (ledger, kept));
    }
}

#[test]
fn a_length_on_the_wire_that_a_capture_makes_up_is_counted_to_the_octet() {
    let frame = ethernet(None, 0x0800, &ipv4(17, A, B, &udp(5000, 6000, b"data")));
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let mut batch = sensor.batch();
    for wire_length in [60, u32::MAX, 60, 1 << 31, u32::MAX] {
        // The flow of each but the first is there when it is looked up.
        batch.push(&CapturedPacket { wire_length, ..captured(0, &frame) });
        sensor.handle_batch(&batch, &mut kept);
        batch.clear();
    }
    sensor.finish(&mut kept);
    let counted = kept.flows[0].originator.wire_bytes;
    assert_eq!(counted, 2 * u64::from(u32::MAX) + (1 << 31) + 120);
    assert_eq!(sensor.ledger().wire_bytes, counted);
}

/// Packets by source, destination, port, length they are cut to, kind, and seconds since the one before.
type Recipe = (u8, u8, u16, Option<usize>, u8, i64);

fn mixed(packets: &[Recipe]) -> Vec<(i64, Vec<u8>)> {
    packets
        .iter()
        .scan(0, |seconds, &(from, to, port, cut, kind, step)| {
            *seconds += step;
            let (from, to) = ([10, 0, 0, from], [10, 0, 0, to]);
            let udp = ipv4(17, from, to, &udp(port, 67, b"data"));
            let arp =
                [&[0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0][..], &from[3..], &from, &[2, 0, 0, 0, 0, 9], &to]
                    .concat();
            // With options, of which a SYN tells its sender's system.
            let ticks = u8::try_from(*seconds & 0xff).expect("one octet");
            let tcp = [
                [0, 80, 0, 90, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 1 << (port % 5), 4, from[3], 0, 0, 0, 0],
                [1, 1, 8, 10, 0, 0, ticks, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            ];
            let tcp = &tcp.concat()[..32];
            let mut frame = match kind {
                0 => ethernet(None, 0x0800, &ipv4(4, A, B, &udp)),
                1 => ethernet(Some(20), 0x0800, &udp),
                2 => ethernet(None, 0x0806, &arp),
                _ => ethernet(Some(10), 0x0800, &ipv4(6, from, to, tcp)),
            };
            frame.truncate(cut.unwrap_or(usize::MAX));
            Some((*seconds, frame))
        })
        .collect()
}

proptest! {
    #[test]
    fn batches_give_what_packets_give_one_by_one(
        packets in prop::collection::vec(
            (0_u8..6, 0_u8..6, 66_u16..69, prop::option::of(0_usize..80), 0_u8..5, -3_i64..30), 1..400,
        ),
        ends in prop::collection::vec(1_usize..300, 1..9),
    ) {
        let frames = mixed(&packets);
        let plan = plan_of(&[EOHHS, DOT]);
        let outside = InterfacePlan { name: "out".into(), role: Role::Outside, router_macs: Vec::new() };
        let of = |index: usize, time, data| {
            let interface = InterfaceIndex(u16::from(index > 150));
            let packet = captured(time, data);
            // Lengths on the wire are whatever a capture claims.
            let wire_length = if index.is_multiple_of(3) { u32::MAX } else { packet.wire_length };
            CapturedPacket { interface, wire_length, ..packet }
        };

        let (mut single, mut one_by_one) = (sensor(&plan, 1), Kept::default());
        for (index, (time, frame)) in frames.iter().enumerate() {
            if index == 151 {
                single.add_interface(outside.clone());
            }
            single.handle_packet(&of(index, *time, frame), &mut one_by_one);
        }
        single.finish(&mut one_by_one);

        let (mut whole, mut batched) = (sensor(&plan, 1), Kept::default());
        let (mut batch, mut ends) = (whole.batch(), ends.iter().cycle());
        let mut left = *ends.next().expect("there is one");
        for (index, (time, frame)) in frames.iter().enumerate() {
            if index == 151 {
                batch.push_interface(outside.clone());
            }
            batch.push(&of(index, *time, frame));
            left -= 1;
            if batch.is_full() || left == 0 {
                whole.handle_batch(&batch, &mut batched);
                batch.clear();
                left = *ends.next().expect("there is one");
            }
        }
        whole.handle_batch(&batch, &mut batched);
        whole.finish(&mut batched);
        prop_assert_eq!(single.ledger(), whole.ledger());
        prop_assert_eq!(one_by_one, batched);
    }

    /// Events that wait for each other are told as they would be one by one.
    #[test]
    fn events_that_are_told_together_are_told_in_their_order(
        packets in prop::collection::vec(
            (0_u8..6, 0_u8..6, 66_u16..69, prop::option::of(0_usize..60), 0_u8..5, -1_i64..9), 1..400,
        ),
        has_plan: bool,
    ) {
        let plan = if has_plan { plan_of(&[EOHHS, DOT]) } else { String::new() };
        let (mut together, mut waiting) = (sensor(&plan, 1), Kept::default());
        let (mut single, mut told) = (sensor(&plan, 1), Kept::default());
        for (time, frame) in mixed(&packets) {
            // Many packets in each second.
            feed(&mut together, time / 16, &frame, &mut waiting);
            feed(&mut single, time / 16, &frame, &mut told);
            single.split(&mut told).1.settle();
            prop_assert!(single.later.is_empty() && (together.later.is_empty() || !has_plan));
        }
        together.finish(&mut waiting);
        single.finish(&mut told);
        prop_assert_eq!(single.ledger(), together.ledger());
        prop_assert_eq!(told, waiting);
    }
}

#[test]
fn a_packet_that_offload_joined_counts_as_those_on_the_wire() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let mut segment = [0_u8; 20 + 3000];
    segment[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
    (segment[12], segment[13], segment[14]) = (0x50, 0x10, 1);
    let frame = ethernet(Some(5), 0x0800, &ipv4(6, A, B, &segment));
    sensor.handle_offloaded(&captured(0, &frame), Offload { segments: 3, is_exact: true }, &mut kept);
    sensor.finish(&mut kept);
    let ledger = sensor.ledger();
    assert_eq!((ledger.packets, ledger.parsed, ledger.balances()), (3, 3, true));
    assert_eq!(ledger.wire_bytes, 3000 + 3 * (18 + 40));
    let side = &kept.flows[0].originator;
    assert_eq!((side.packets, side.wire_bytes, side.ip_bytes), (3, 3000 + 3 * 58, 3000 + 3 * 40));
    assert_eq!((side.payload_bytes, kept.flows[0].counting), (3000, crate::record::Counting::Exact));
}

#[test]
fn an_offload_that_was_reckoned_is_an_estimate_and_what_cannot_be_parsed_is_one_packet() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let guess = Offload { segments: 2, is_exact: false };
    let frame = ethernet(None, 0x0800, &ipv4(17, A, B, &udp(1, 2, &[0; 2000])));
    sensor.handle_offloaded(&captured(0, &frame), guess, &mut kept);
    sensor.handle_offloaded(&captured(0, &ethernet(None, 0x88cc, &[0; 60])), guess, &mut kept);
    sensor.finish(&mut kept);
    assert_eq!(kept.flows[0].counting, crate::record::Counting::Estimated);
    let ledger = sensor.ledger();
    assert_eq!((ledger.packets, ledger.parsed, ledger.unparsed_total(), ledger.balances()), (3, 2, 1, true));
}

#[test]
fn what_a_kernel_counted_is_in_the_ledger_with_what_the_mirror_was_stripped_of() {
    use crate::flow::WayDelta;
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    let time = Timestamp::from_parts(1_700_000_000, 0);
    let way = WayDelta {
        packets: 10,
        wire_bytes: 1000,
        ip_bytes: 860,
        first: time,
        last: time,
        ..WayDelta::default()
    };
    let delta = FlowDelta {
        interface: InterfaceIndex(0),
        vlans: ArrayVec::new(),
        mpls_labels: ArrayVec::new(),
        protocol: 17,
        ends: [(A.into(), 1), (B.into(), 2)],
        ways: [way, WayDelta::default()],
        mirror_bytes: Some(500),
    };
    sensor.handle_delta(&delta, &mut kept);
    sensor.finish(&mut kept);
    let ledger = sensor.ledger();
    assert_eq!((ledger.packets, ledger.parsed, ledger.mirrored, ledger.balances()), (10, 10, 10, true));
    assert_eq!((ledger.wire_bytes, ledger.mirror_bytes, kept.flows[0].originator.packets), (1500, 500, 10));
}
