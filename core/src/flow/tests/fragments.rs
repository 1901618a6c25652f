//! Fragments: each is counted to the flow of its datagram's first.

use super::kit::{CLIENT, Host, Packet, SERVER, run, table};
use crate::{
    flow::{FlowConfig, FragmentMode},
    record::{ConnState, FlowRecord},
};

fn fragment(millis: i64, identification: u32, offset: u16) -> Packet {
    Packet { fragment: Some((identification, offset)), ..Packet::udp(millis, CLIENT, SERVER, 100) }
}

fn told(records: &[FlowRecord]) -> Vec<(u16, u64, u64, u64)> {
    let mut told: Vec<_> = records
        .iter()
        .map(|r| {
            (r.originator.port, r.originator.packets, r.originator.fragments, r.originator.payload_bytes)
        })
        .collect();
    told.sort_unstable();
    told
}

#[test]
fn fragments_count_to_their_flow_in_any_order() {
    for order in [[0, 800, 1600], [800, 1600, 0], [1600, 0, 800]] {
        let packets = order.map(|offset| fragment(offset.into(), 7, offset));
        let mut sorted = packets.to_vec();
        sorted.iter_mut().zip(0..).for_each(|(packet, millis)| packet.millis = millis);
        let host = run(&FlowConfig::default(), &sorted);
        assert_eq!(told(&host.records), [(CLIENT.1, 3, 3, 300)], "{order:?}");
        assert_eq!(host.records[0].start.0, 0);
    }
}

#[test]
fn fragments_without_a_first_one_count_to_a_flow_without_ports() {
    let host = run(&FlowConfig::default(), &[fragment(0, 7, 800), fragment(1, 8, 800), fragment(2, 8, 0)]);
    assert_eq!(told(&host.records), [(0, 1, 1, 100), (CLIENT.1, 2, 2, 200)]);
    // The wait ends by time, too.
    let host = run(&FlowConfig::default(), &[fragment(0, 7, 800), fragment(61_000, 7, 0)]);
    assert_eq!(told(&host.records), [(0, 1, 1, 100), (CLIENT.1, 1, 1, 100)]);
}

#[test]
fn more_datagrams_than_the_limit_lose_their_ports_and_never_their_counts() {
    let config = FlowConfig { max_fragmented_datagrams: 2, ..FlowConfig::default() };
    let mut packets: Vec<Packet> = (0..5).map(|n| fragment(n.into(), n, 800)).collect();
    packets.extend((0..5).map(|n| fragment(i64::from(n) + 10, n, 0)));
    let host = run(&config, &packets);
    assert_eq!(told(&host.records).iter().map(|(_, packets, ..)| packets).sum::<u64>(), 10);
}

#[test]
fn one_identification_in_two_scopes_is_two_datagrams() {
    let other = Packet { scope: 2, ..fragment(1, 7, 800) };
    let host = run(&FlowConfig::default(), &[fragment(0, 7, 0), other]);
    assert_eq!(told(&host.records), [(0, 1, 1, 100), (CLIENT.1, 1, 1, 100)]);
}

/// Three fragments: 100 bytes behind a transport header of 20, then 120 and 30 bytes.
fn datagram() -> [Packet; 3] {
    let later = |millis, offset, payload, last| {
        let fragment = Some((7, offset));
        Packet { fragment, last, ..Packet::udp(millis, CLIENT, SERVER, payload) }
    };
    [fragment(0, 7, 0), later(1, 120, 120, false), later(2, 240, 30, true)]
}

fn reassembled() -> FlowConfig {
    FlowConfig { fragments: FragmentMode::Reassembled, ..FlowConfig::default() }
}

/// Packets, fragments, IP bytes, payload bytes, overlapping fragments of the originator.
fn side(record: &FlowRecord) -> (u64, u64, u64, u64, u64) {
    let side = &record.originator;
    (side.packets, side.fragments, side.ip_bytes, side.payload_bytes, side.overlapping_fragments)
}

#[test]
fn a_reassembled_datagram_counts_once_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let packets = order.map(|at| datagram()[at].clone());
        let host = run(&reassembled(), &packets);
        assert_eq!(host.records.len(), 1, "{order:?}");
        assert_eq!(side(&host.records[0]), (1, 3, 290, 250, 0), "{order:?}");
        assert_eq!(host.records[0].originator.port, CLIENT.1);
        assert_eq!(host.records[0].originator.wire_bytes, 154 + 174 + 84);
    }
}

#[test]
fn a_datagram_that_never_is_whole_counts_to_no_flow_but_is_told() {
    let (mut table, mut host) = (table(&reassembled()), Host::default());
    for packet in &datagram()[..2] {
        packet.send(&mut table, &mut host);
    }
    Packet { millis: 70_000, ..Packet::udp(0, SERVER, CLIENT, 1) }.send(&mut table, &mut host);
    assert_eq!((table.unassembled(), host.records.len()), (2, 0));
    table.finish(&mut host);
    assert_eq!(host.records.iter().map(|record| record.responder.packets).sum::<u64>(), 0);
}

#[test]
fn identifications_are_used_again_once_a_datagram_is_whole() {
    for config in [FlowConfig::default(), reassembled()] {
        let packets: Vec<Packet> = (0..4).flat_map(|_| datagram()).collect();
        let record = run(&config, &packets).records.remove(0);
        assert_eq!((record.originator.fragments, record.originator.overlapping_fragments), (12, 0));
    }
}

#[test]
fn overlaps_are_flagged_and_repeats_are_not() {
    let [first, second, last] = datagram();
    let other = Packet { fragment: Some((7, 64)), ..second.clone() };
    let packets = [first.clone(), second.clone(), second.clone(), other.clone(), last.clone()];
    let record = run(&FlowConfig::default(), &packets).records.remove(0);
    assert_eq!(side(&record), (5, 5, 140 + 140 * 3 + 50, 100 + 120 * 3 + 30, 1));
    let record = run(&reassembled(), &packets).records.remove(0);
    assert_eq!(side(&record), (1, 5, 290, 250, 1));
    // Also before the first fragment comes, which then covers some of the same bytes itself.
    let record = run(&FlowConfig::default(), &[second, other, first, last]).records.remove(0);
    assert_eq!(record.originator.overlapping_fragments, 2);
}

#[test]
fn flags_in_a_second_fragment_are_the_connections_flags() {
    /// Eight bytes of a TCP header and the rest of it, each behind an IP header.
    const HEAD: [u8; 28] = [0; 28];
    const REST: [u8; 32] = {
        let mut bytes = [0; 32];
        (bytes[24], bytes[25], bytes[26]) = (0x50, 0x02, 4);
        bytes
    };
    let piece = |millis, bytes: &'static [u8], offset, ip_bytes| Packet {
        protocol: 6,
        bytes,
        fragment: Some((1, offset)),
        last: offset > 0,
        ip_bytes: Some(ip_bytes),
        ..Packet::udp(millis, CLIENT, SERVER, 0)
    };
    for config in [FlowConfig::default(), reassembled()] {
        let packets = [piece(0, &HEAD, 0, 28), piece(1, &REST, 8, 32)];
        let record = run(&config, &packets).records.remove(0);
        assert_eq!((record.conn_state, record.originator.tcp_flags), (ConnState::S0, 2), "{config:?}");
        assert_eq!(record.history, "S");
    }
}
