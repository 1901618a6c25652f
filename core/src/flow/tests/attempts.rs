//! Attempts apart from flows: the same records as if they were flows, and what becomes of them when they are too many.

use proptest::prelude::*;

use super::kit::{Host, Packet, SERVER, end, table};
use crate::{
    decode::TcpSegment,
    flow::{FlowConfig, FlowEvent},
    record::{ConnState, EndReason, FlowRecord},
    time::Timestamp,
};

fn tcp(micros: i64, from: (&str, u16), to: (&str, u16), flags: u16, sequence: u32) -> Packet {
    let segment = TcpSegment {
        source: 0,
        destination: 0,
        sequence,
        acknowledgement: if flags & TcpSegment::ACK == 0 { 0 } else { 1 },
        flags,
        window: 1000,
    };
    let packet = Packet::udp(0, from, to, 0);
    Packet { nanos: micros * 1000, protocol: 6, tcp: Some(segment), ..packet }
}

const SYN: u16 = TcpSegment::SYN;
const ACK: u16 = TcpSegment::ACK;
const SYN_ACK: u16 = SYN | ACK;
const FIN_ACK: u16 = TcpSegment::FIN | ACK;

/// A few hosts that open, answer, refuse, repeat, send and close, with steps of time that can be long.
fn traffic() -> impl Strategy<Value = Vec<Packet>> {
    let flags = prop::sample::select(vec![SYN, SYN, SYN, SYN_ACK, ACK, FIN_ACK, TcpSegment::RST, SYN | 0x80]);
    let step = prop_oneof![5 => 0_i64..2_000, 1 => 0_i64..8_000_000, 1 => -1_000_i64..0];
    let packet = (0_u8..2, 0_u16..4, any::<bool>(), flags, 0_u32..2, 0_u32..2, step);
    prop::collection::vec(packet, 1..120).prop_map(|packets| {
        let mut micros = 1_000_000_000;
        packets
            .into_iter()
            .map(|(host, port, back, flags, sequence, payload, step)| {
                micros += step;
                let client = (["10.0.0.1", "fd00::1"][usize::from(host)], 40_000 + port);
                let server = (["192.0.2.80", "fd00::2"][usize::from(host)], 80);
                let (from, to) = if back { (server, client) } else { (client, server) };
                Packet { payload: payload * 100, ..tcp(micros, from, to, flags, sequence) }
            })
            .collect()
    })
}

/// Records in an order of their own, and events by flow.
fn told(packets: &[Packet], apart: bool) -> (Vec<FlowRecord>, Vec<String>) {
    let (mut table, mut host) = (table(&FlowConfig::default()), Host::default());
    table.timeouts.attempts_apart = apart;
    for packet in packets {
        packet.send(&mut table, &mut host);
    }
    table.finish(&mut host);
    let mut records = host.records;
    records.sort_by_key(|record| (record.flow_id, record.part));
    let mut events: Vec<String> = host.events.iter().map(|event| format!("{event:?}")).collect();
    events.sort();
    (records, events)
}

proptest! {
    #[test]
    fn attempts_apart_from_flows_give_what_they_would_give_as_flows(packets in traffic()) {
        let (apart, together) = (told(&packets, true), told(&packets, false));
        prop_assert_eq!(apart.0, together.0);
        prop_assert_eq!(apart.1, together.1);
    }
}

#[test]
fn an_attempt_that_nobody_answers_ends_as_one() {
    let (mut table, mut host) = (table(&FlowConfig::default()), Host::default());
    tcp(0, ("10.0.0.1", 1), SERVER, SYN, 7).send(&mut table, &mut host);
    assert_eq!((table.len(), table.attempts.len()), (1, 1));
    table.advance(Timestamp(5_200_000_000), &mut host);
    assert_eq!(
        host.event_names(),
        [FlowEvent::Started, FlowEvent::Unanswered, FlowEvent::Reported(EndReason::Idle)]
    );
    let record = &host.records[0];
    assert_eq!((record.conn_state, record.history.as_str()), (ConnState::S0, "S"));
    assert_eq!((record.originator.packets, record.originator.tcp_flags), (1, SYN));
    assert!(table.is_empty() && record.aggregate.is_none());
}

/// A flood of SYNs, each from an address of its own, with canaries in it: established connections that go on, and
/// questions with answers.
fn flood(attempts: u32, mut send: impl FnMut(&Packet)) -> u64 {
    let mut packets = 0;
    let mut put = |packet: Packet| {
        send(&packet);
        packets += 1;
    };
    for number in 0..attempts {
        let [a, b, c, d] = number.wrapping_mul(2_654_435_761).to_be_bytes();
        let mut syn = tcp(number.into(), ("10.0.0.0", 1024), ("198.51.100.20", 80), SYN, number);
        syn.from.0 = [a, b, c, d].into();
        put(syn);
        if number % 1000 != 0 {
            continue;
        }
        let canary = u16::try_from(number / 1000 % 100).expect("few");
        let (client, server) = (("192.0.2.7", 50_000 + canary), ("198.51.100.20", 80));
        let micros = i64::from(number);
        match number / 100_000 {
            0 => put(tcp(micros, client, server, SYN, 100)),
            1 => put(tcp(micros, server, client, SYN_ACK, 500)),
            2 => put(tcp(micros, client, server, ACK, 101)),
            _ => put(Packet { payload: 10, ..tcp(micros, client, server, ACK, 101) }),
        }
        let ask =
            Packet { nanos: micros * 1000, ..Packet::udp(0, ("192.0.2.9", canary), ("192.0.2.53", 53), 30) };
        put(ask.clone());
        put(Packet { from: ask.to, to: ask.from, ..ask });
    }
    packets
}

#[test]
fn in_a_flood_totals_stay_exact_and_canaries_whole() {
    let config = FlowConfig { max_attempts: 150_000, ..FlowConfig::default() };
    let (mut table, mut host) = (table(&config), Host::default());
    host.drops_events = true;
    let packets = flood(600_000, |packet| packet.send(&mut table, &mut host));
    assert!(table.attempts.len() <= 150_000);
    table.finish(&mut host);
    let sum: u64 = host.records.iter().map(|r| r.originator.packets + r.responder.packets).sum();
    let bytes: u64 = host.records.iter().map(|r| r.originator.ip_bytes + r.responder.ip_bytes).sum();
    assert_eq!((sum, bytes), (packets, packets * 40 + 100 * 2 * 6 * 30 + 300 * 10));
    let aggregates: Vec<_> = host.records.iter().filter_map(|r| Some((r, r.aggregate?))).collect();
    assert_eq!(aggregates.len(), 1, "one target");
    let (record, aggregate) = aggregates[0];
    assert_eq!((record.responder.ip, record.responder.port), end(("198.51.100.20", 80)));
    assert_eq!((aggregate.flows, aggregate.responder_prefix), (record.originator.packets, 32));
    assert_eq!(aggregate.flows, 450_000);
    let error = aggregate.originators as f64 / 450_000.0 - 1.0;
    assert!(error.abs() < 0.2, "{error}");
    let canaries = host.records.iter().filter(|r| r.originator.ip == end(("192.0.2.7", 0)).0);
    let whole = canaries.filter(|r| r.conn_state == ConnState::S1 && r.originator.packets == 5);
    assert_eq!(whole.count(), 100);
    let answered = |r: &&FlowRecord| r.protocol == 17 && r.originator.packets == r.responder.packets;
    assert_eq!(host.records.iter().filter(answered).map(|r| r.originator.packets).sum::<u64>(), 600);
}

#[test]
fn repeated_attempts_in_a_full_table_collapse_too() {
    let config = FlowConfig { max_flows: 10, max_attempts: 10, ..FlowConfig::default() };
    let (mut table, mut host) = (table(&config), Host::default());
    for number in 0..100_u16 {
        for again in 0..2 {
            let micros = i64::from(number) * 10 + again;
            tcp(micros, ("10.0.0.1", number), SERVER, SYN, 5).send(&mut table, &mut host);
        }
        assert!(table.len() <= 20);
    }
    table.finish(&mut host);
    let collapsed = host.records.iter().find_map(|record| record.aggregate.map(|many| (many, record)));
    let (many, record) = collapsed.expect("an aggregate");
    assert_eq!((many.flows, record.originator.packets), (90, 180));
    assert_eq!((many.originators, many.originator_prefix), (1, 32));
    let told = host.event_names().iter().filter(|event| **event == FlowEvent::Collapsed).count();
    assert_eq!((told, table.collapsed()), (90, 90));
    assert_eq!(host.records.iter().map(|r| r.originator.packets).sum::<u64>(), 200);
}
