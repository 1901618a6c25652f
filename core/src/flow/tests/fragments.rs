//! Fragments: each is counted to the flow of its datagram's first.

use super::kit::{CLIENT, Packet, SERVER, run};
use crate::{flow::FlowConfig, record::FlowRecord};

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
