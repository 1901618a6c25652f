//! What a kernel has counted becomes flows: states by flags and times, counters whole, nothing taken for a gap.

use arrayvec::ArrayVec;

use super::kit::{CLIENT, Host, Packet, SERVER, end, table};
use crate::{
    decode::{InterfaceIndex, Link, TcpSegment},
    flow::{DeltaOrigin, FlowConfig, FlowDelta, FlowEvent, FlowTable, PacketPlace, WayDelta},
    net::MacAddress,
    record::{ConnState, EndReason},
    time::Timestamp,
};

const SYN: u16 = TcpSegment::SYN;
const ACK: u16 = TcpSegment::ACK;
const FIN: u16 = TcpSegment::FIN;
const RST: u16 = TcpSegment::RST;
const PSH: u16 = TcpSegment::PSH;

fn at(millis: i64) -> Timestamp {
    Timestamp(millis * 1_000_000)
}

fn way(packets: u64, payload: u64, tcp_flags: u16, first: i64, last: i64) -> WayDelta {
    WayDelta {
        packets,
        wire_bytes: packets * 54 + payload,
        ip_bytes: packets * 40 + payload,
        payload_bytes: payload,
        tcp_flags,
        ttl_min: 60,
        ttl_max: 64,
        source_mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
        first: at(first),
        last: at(last),
        ..WayDelta::default()
    }
}

fn delta(protocol: u8, ways: [WayDelta; 2]) -> FlowDelta {
    FlowDelta {
        interface: InterfaceIndex(0),
        vlans: ArrayVec::new(),
        mpls_labels: ArrayVec::new(),
        protocol,
        ends: [end(CLIENT), end(SERVER)],
        ways,
        mirror_bytes: None,
    }
}

fn take(table: &mut FlowTable, delta: &FlowDelta, host: &mut Host) {
    let links = [0, 1].map(|way| delta.link(way));
    let [one, other]: [&Link; 2] = [&links[0], &links[1]];
    let origins = [one, other].map(|link| DeltaOrigin { link, place: PacketPlace::default(), leaving: None });
    table.observe_delta(delta, origins, host);
}

fn run(deltas: &[FlowDelta]) -> Host {
    let (mut table, mut host) = (table(&FlowConfig::default()), Host::default());
    for delta in deltas {
        take(&mut table, delta, &mut host);
    }
    table.finish(&mut host);
    host
}

#[test]
fn a_whole_connection_has_its_state_its_direction_and_its_round_trips() {
    let client =
        WayDelta { syn: Some(at(0)), ack: Some(at(30)), ..way(5, 100, SYN | ACK | PSH | FIN, 0, 90) };
    let server =
        WayDelta { syn_ack: Some(at(20)), ack: Some(at(40)), ..way(4, 900, SYN | ACK | PSH | FIN, 20, 80) };
    let host = run(&[delta(6, [client, server])]);
    let [flow] = &host.records[..] else { panic!("{:?}", host.records) };
    assert_eq!((flow.conn_state, flow.end_reason), (ConnState::SF, EndReason::Ended));
    assert_eq!((flow.originator.ip, flow.originator.port), end(CLIENT));
    assert_eq!((flow.rtt_syn_to_syn_ack, flow.rtt_syn_ack_to_ack), (Some(20_000_000), Some(10_000_000)));
    assert_eq!((flow.originator.packets, flow.responder.packets), (5, 4));
    assert_eq!((flow.originator.payload_bytes, flow.responder.payload_bytes), (100, 900));
    assert_eq!((flow.start, flow.end), (at(0), at(90)));
    assert_eq!((flow.originator.ttl_min, flow.originator.ttl_max), (60, 64));
    let names = host.event_names();
    for event in [FlowEvent::Started, FlowEvent::Answered, FlowEvent::Established] {
        assert_eq!(names.iter().filter(|name| **name == event).count(), 1, "{names:?}");
    }
}

#[test]
fn an_attempt_that_nobody_answers_and_one_that_is_refused() {
    let syn = || WayDelta { syn: Some(at(0)), ..way(3, 0, SYN, 0, 900) };
    let host = run(&[delta(6, [syn(), WayDelta::default()])]);
    assert_eq!(host.records[0].conn_state, ConnState::S0);
    let host = run(&[delta(6, [syn(), way(3, 0, RST | ACK, 1, 901)])]);
    assert_eq!((host.records[0].conn_state, host.records.len()), (ConnState::Rej, 1));
    assert!(host.event_names().contains(&FlowEvent::Refused));
}

#[test]
fn the_side_that_answers_may_be_the_first_of_the_key() {
    let server = WayDelta { syn_ack: Some(at(5)), ..way(1, 0, SYN | ACK, 5, 5) };
    let client = WayDelta { syn: Some(at(0)), ack: Some(at(9)), ..way(2, 0, SYN | ACK, 0, 9) };
    let host = run(&[delta(6, [server, client])]);
    let [flow] = &host.records[..] else { panic!("{:?}", host.records) };
    assert_eq!(((flow.originator.ip, flow.originator.port), flow.conn_state), (end(SERVER), ConnState::S1));
}

#[test]
fn what_was_counted_between_two_packets_is_no_gap() {
    let (mut table, mut host) = (table(&FlowConfig::default()), Host::default());
    let segment = |flags, sequence, acknowledgement| TcpSegment {
        source: 0,
        destination: 0,
        sequence,
        acknowledgement,
        flags,
        window: 1000,
    };
    let packet = |millis, from, to, flags, sequence, acknowledgement| Packet {
        protocol: 6,
        tcp: Some(segment(flags, sequence, acknowledgement)),
        mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
        ..Packet::udp(millis, from, to, 0)
    };
    packet(0, CLIENT, SERVER, SYN, 100, 0).send(&mut table, &mut host);
    packet(1, SERVER, CLIENT, SYN | ACK, 500, 101).send(&mut table, &mut host);
    packet(2, CLIENT, SERVER, ACK, 101, 501).send(&mut table, &mut host);
    let counted = [way(50, 50_000, ACK | PSH, 3, 600), way(40, 40_000, ACK | PSH, 4, 610)];
    take(&mut table, &delta(6, counted), &mut host);
    packet(700, CLIENT, SERVER, FIN | ACK, 50_101, 40_501).send(&mut table, &mut host);
    packet(701, SERVER, CLIENT, FIN | ACK, 40_501, 50_102).send(&mut table, &mut host);
    packet(702, CLIENT, SERVER, ACK, 50_102, 40_502).send(&mut table, &mut host);
    table.finish(&mut host);
    let [flow] = &host.records[..] else { panic!("{:?}", host.records) };
    assert_eq!(
        (flow.conn_state, flow.originator.missed_bytes, flow.responder.missed_bytes),
        (ConnState::SF, 0, 0)
    );
    assert_eq!((flow.originator.packets, flow.responder.packets), (54, 42));
    assert!(!flow.history.contains(['g', 'G', 't', 'T']), "{}", flow.history);
}

#[test]
fn a_flow_is_heard_of_until_the_last_packet_of_a_delta() {
    let config = FlowConfig { udp_idle_seconds: 2, ..FlowConfig::default() };
    let (mut table, mut host) = (table(&config), Host::default());
    take(&mut table, &delta(17, [way(9, 90, 0, 0, 1_500), WayDelta::default()]), &mut host);
    table.advance(at(3_000), &mut host);
    assert_eq!(table.len(), 1);
    table.advance(at(3_800), &mut host);
    assert!(table.is_empty());
    assert_eq!((host.records[0].end, host.records[0].end_reason), (at(1_500), EndReason::Idle));
}

#[test]
fn echo_and_its_answer_are_one_flow_though_they_were_counted_apart() {
    let (client, server) = (end(CLIENT).0, end(SERVER).0);
    let request = FlowDelta {
        ends: [(client, 8), (server, 0)],
        ..delta(1, [way(2, 112, 0, 0, 900), WayDelta::default()])
    };
    let answer = FlowDelta {
        ends: [(server, 0), (client, 0)],
        ..delta(1, [way(2, 112, 0, 10, 910), WayDelta::default()])
    };
    let host = run(&[request, answer]);
    let [flow] = &host.records[..] else { panic!("{:?}", host.records) };
    assert_eq!((flow.originator.ip, flow.originator.packets, flow.responder.packets), (client, 2, 2));
}

#[test]
fn nothing_counted_makes_nothing_and_great_counts_stay_whole() {
    let host = run(&[delta(17, [WayDelta::default(), WayDelta::default()])]);
    assert!(host.records.is_empty() && host.events.is_empty());
    let huge = || delta(17, [way(1 << 40, 1 << 50, 0, 0, 900), WayDelta::default()]);
    let host = run(&[huge(), huge()]);
    assert_eq!(
        (host.records[0].originator.packets, host.records[0].originator.payload_bytes),
        (1 << 41, 1 << 51)
    );
}
