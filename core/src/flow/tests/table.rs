//! Timeouts, parts, limits, scopes, stations.

use super::kit::{CLIENT, Host, Packet, SERVER, run, table};
use crate::{
    flow::{FlowConfig, FlowEvent},
    net::MacAddress,
    record::{EndReason, FlowRecord},
    time::Timestamp,
};

fn reasons(host: &Host) -> Vec<(EndReason, u32, u64)> {
    let packets = |r: &FlowRecord| r.originator.packets + r.responder.packets;
    host.records.iter().map(|r| (r.end_reason, r.part, packets(r))).collect()
}

#[test]
fn silence_ends_a_flow_at_its_timeout_even_when_nothing_else_is_seen() {
    let (mut table, mut host) = (table(&FlowConfig::default()), Host::default());
    Packet::udp(0, CLIENT, SERVER, 1).send(&mut table, &mut host);
    table.advance(Timestamp(59_999_000_000), &mut host);
    assert_eq!(table.len(), 1);
    table.advance(Timestamp(60_200_000_000), &mut host);
    assert_eq!((table.len(), reasons(&host)), (0, vec![(EndReason::Idle, 0, 1)]));
}

#[test]
fn a_packet_at_the_timeout_begins_another_flow_and_one_before_it_does_not() {
    for (millis, flows) in [(59_999, 1), (60_000, 2)] {
        let packets = [Packet::udp(0, CLIENT, SERVER, 1), Packet::udp(millis, CLIENT, SERVER, 1)];
        assert_eq!(run(&FlowConfig::default(), &packets).records.len(), flows, "{millis}");
    }
}

#[test]
fn a_long_flow_is_reported_in_parts_that_add_up() {
    let packets: Vec<Packet> = (0..100)
        .map(|n| {
            let (from, to) = if n % 3 == 0 { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
            Packet { ttl: 60 + u8::try_from(n % 7).unwrap_or(0), ..Packet::udp(n * 50_000, from, to, 10) }
        })
        .collect();
    let host = run(&FlowConfig::default(), &packets);
    assert_eq!(
        reasons(&host),
        [(EndReason::Active, 0, 36), (EndReason::Active, 1, 36), (EndReason::Forced, 2, 28)]
    );
    assert!(host.records.iter().all(|r| r.flow_id == host.records[0].flow_id));
    assert_eq!(host.records[1].start, Timestamp(1_800_000_000_000));
    assert!(host.records.iter().all(|r| r.flow_start == Timestamp(0)));
    let sum: u64 = host.records.iter().map(|r| r.originator.ip_bytes + r.responder.ip_bytes).sum();
    assert_eq!(sum, 100 * 50);
    let (_, last) = host.events.last().expect("an event");
    assert_eq!(last.originator.packets + last.responder.packets, 100);
}

#[test]
fn time_that_runs_backwards_moves_no_timer_and_loses_no_packet() {
    let times = [10_000, 5_000, 70_000, 1_000, 69_000, i64::MIN / 1_000_000, 70_500];
    let packets = times.map(|millis| Packet::udp(millis, CLIENT, SERVER, 1));
    let host = run(&FlowConfig::default(), &packets);
    assert_eq!(reasons(&host), [(EndReason::Idle, 0, 2), (EndReason::Forced, 0, 5)]);
    let first = &host.records[0];
    assert_eq!((first.start, first.end), (Timestamp(5_000_000_000), Timestamp(10_000_000_000)));
}

#[test]
fn a_jump_to_the_end_of_time_ends_what_is_due_and_the_table_goes_on() {
    let times = [0, i64::MAX / 1_000_000, 5];
    let packets = times.map(|millis| Packet::udp(millis, CLIENT, SERVER, 1));
    let host = run(&FlowConfig::default(), &packets);
    assert_eq!(reasons(&host), [(EndReason::Idle, 0, 1), (EndReason::Forced, 0, 2)]);
}

#[test]
fn when_the_table_is_full_the_unanswered_give_way_first_and_then_the_quiet() {
    let config = FlowConfig { max_flows: 3, ..FlowConfig::default() };
    let client = |port| ("10.0.0.1", port);
    let ask = |millis, port| Packet::udp(millis, client(port), SERVER, 1);
    let answer = |millis, port| Packet::udp(millis, SERVER, client(port), 1);
    let packets = [
        ask(0, 1),
        answer(1, 1),
        ask(2, 2),
        ask(3, 3),
        // Full: 2 has no answer and is older than 3.
        ask(4, 4),
        answer(5, 3),
        answer(6, 4),
        ask(7, 1),
        // All answered; 1 was active last, 3 was not since it was answered.
        ask(8, 5),
    ];
    let (mut table, mut host) = (table(&config), Host::default());
    for packet in &packets {
        packet.send(&mut table, &mut host);
    }
    let gone: Vec<_> = host.records.iter().map(|r| (r.originator.port, r.end_reason)).collect();
    assert_eq!(gone[0], (2, EndReason::Resources));
    assert_eq!((gone.len(), gone[1].1), (2, EndReason::Resources));
    assert_eq!((table.len(), table.gave_way()), (3, 2));
}

#[test]
fn the_same_tuple_in_two_scopes_is_two_flows() {
    let packets = [1, 2, 1].map(|scope| Packet { scope, ..Packet::udp(0, CLIENT, SERVER, 1) });
    let host = run(&FlowConfig::default(), &packets);
    let mut packets: Vec<u64> = host.records.iter().map(|r| r.originator.packets).collect();
    packets.sort_unstable();
    assert_eq!(packets, [1, 2]);
    assert_ne!(host.records[0].flow_id, host.records[1].flow_id);
    assert_eq!(host.records[0].community_id, host.records[1].community_id);
}

#[test]
fn a_new_mac_address_is_told_with_the_packets_of_the_old_one() {
    let packet = |millis, mac: u8| Packet {
        mac: Some(MacAddress([0, 0, 0, 0, 0, mac])),
        ..Packet::udp(millis, CLIENT, SERVER, 1)
    };
    let host =
        run(&FlowConfig::default(), &[packet(0, 1), packet(1, 1), packet(2, 2), packet(3, 2), packet(4, 2)]);
    let told: Vec<_> = host
        .events
        .iter()
        .map(|(event, flow)| {
            (*event, flow.originator.mac.map(|mac| mac.0[5]), flow.originator.packets_by_mac)
        })
        .collect();
    assert_eq!(
        told,
        [
            (FlowEvent::Started, Some(1), 1),
            (FlowEvent::Moved, Some(1), 2),
            (FlowEvent::Reported(EndReason::Forced), Some(2), 3),
        ]
    );
    assert_eq!(host.records[0].originator.mac, Some(MacAddress([0, 0, 0, 0, 0, 1])));
}

#[test]
fn icmp_is_paired_by_type_and_errors_are_one_way() {
    let icmp = |from, to, kind, code| Packet {
        protocol: 1,
        icmp: Some((kind, code)),
        ..Packet::udp(0, (from, 0), (to, 0), 8)
    };
    let (a, b) = ("10.0.0.1", "192.0.2.1");
    let host = run(
        &FlowConfig::default(),
        &[icmp(a, b, 8, 0), icmp(b, a, 0, 0), icmp(b, a, 3, 1), icmp(a, b, 3, 1)],
    );
    let mut told: Vec<_> = host
        .records
        .iter()
        .map(|r| (r.originator.ip.to_string(), r.originator.port, r.responder.port, r.responder.packets))
        .collect();
    told.sort();
    assert_eq!(told, [(a.to_owned(), 3, 1, 0), (a.to_owned(), 8, 0, 1), (b.to_owned(), 3, 1, 0)]);
}

#[test]
fn identities_are_the_same_on_every_machine_and_depend_on_what_they_name() {
    let host = run(&FlowConfig::default(), &[Packet::udp(1_700_000_000_000, CLIENT, SERVER, 1)]);
    // SHA-1 of the stated bytes, computed once by another program.
    assert_eq!(host.records[0].flow_id.to_string(), "bb7e0b4496c1162e5d2d889146f80bf9");
}

#[test]
fn the_part_of_a_flow_that_packets_touch_is_small() {
    use crate::flow::{compact::Flow, rare::RareBoth, tcp::TcpState};
    let sizes = [size_of::<Flow>(), size_of::<TcpState>()];
    eprintln!("bytes of a flow: {}, and {} more for TCP", sizes[0], sizes[1]);
    assert_eq!(sizes, [128, 64]);
    assert!(size_of::<RareBoth>() <= 200, "{}", size_of::<RareBoth>());
}
