//! The table against a model that keeps every flow in a map and scans it, and conservation under random traffic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::kit::{Host, Packet, run, table};
use crate::{
    flow::FlowConfig,
    record::{EndReason, FlowRecord},
};

/// What is compared of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    ends: [(std::net::IpAddr, u16); 2],
    part: u32,
    reason: u8,
    /// Packets and IP bytes of both sides, in order of `ends`.
    counts: [(u64, u64); 2],
    millis: (i64, i64),
}

fn told(record: &FlowRecord) -> Told {
    let mut sides = [&record.originator, &record.responder];
    sides.sort_by_key(|side| (side.ip, side.port));
    Told {
        ends: sides.map(|side| (side.ip, side.port)),
        part: record.part,
        reason: record.end_reason.code(),
        counts: sides.map(|side| (side.packets, side.ip_bytes)),
        millis: (record.start.0 / 1_000_000, record.end.0 / 1_000_000),
    }
}

/// A flow of the model.
#[derive(Clone, Debug)]
struct Modelled {
    told: Told,
    seen: i64,
    part_since: i64,
}

impl Modelled {
    fn is_empty(&self) -> bool {
        self.told.counts == [(0, 0); 2]
    }

    /// Reports what is due at `now`; true if the flow has ended.
    fn settle(&mut self, now: i64, idle: i64, active: i64, out: &mut Vec<Told>) -> bool {
        loop {
            let (end, part) = (self.seen + idle, self.part_since + active);
            if end.min(part) > now {
                return false;
            }
            if end <= part {
                out.push(Told { reason: EndReason::Idle.code(), ..self.told.clone() });
                return true;
            }
            if !self.is_empty() {
                out.push(Told { reason: EndReason::Active.code(), ..self.told.clone() });
                self.told.part += 1;
                self.told.counts = [(0, 0); 2];
                self.told.millis.0 = self.told.millis.1;
            }
            self.part_since = part;
        }
    }
}

/// The records that the rules ask for, by scanning.
fn model(config: &FlowConfig, packets: &[Packet]) -> Vec<Told> {
    let (idle, active) = (i64::from(config.udp_idle_seconds) * 1000, i64::from(config.active_seconds) * 1000);
    let mut flows: BTreeMap<[(std::net::IpAddr, u16); 2], Modelled> = BTreeMap::new();
    let mut out = Vec::new();
    let mut now = i64::MIN;
    for packet in packets {
        now = now.max(packet.millis);
        flows.retain(|_, flow| !flow.settle(now, idle, active, &mut out));
        let mut ends = [packet.from, packet.to];
        ends.sort_unstable();
        let flow = flows.entry(ends).or_insert_with(|| Modelled {
            told: Told {
                ends,
                part: 0,
                reason: 0,
                counts: [(0, 0); 2],
                millis: (packet.millis, packet.millis),
            },
            seen: now,
            part_since: now,
        });
        if flow.is_empty() {
            flow.told.millis = (packet.millis, packet.millis);
        }
        flow.told.millis = (flow.told.millis.0.min(packet.millis), flow.told.millis.1.max(packet.millis));
        flow.seen = now;
        let counts = &mut flow.told.counts[usize::from(packet.from != ends[0])];
        counts.0 += 1;
        counts.1 += u64::from(packet.ip().ip_bytes);
    }
    out.extend(flows.into_values().map(|flow| Told { reason: EndReason::Forced.code(), ..flow.told }));
    out.sort_unstable();
    out
}

/// Packets among a few hosts, with steps of time that can go back.
fn traffic(most: usize) -> impl Strategy<Value = Vec<Packet>> {
    let packet = (0_u8..4, 0_u8..4, 0_u16..3, 0_u16..3, 0_u32..1500, -500_i64..3_000);
    prop::collection::vec(packet, 1..most).prop_map(|packets| {
        let mut millis = 0;
        packets
            .into_iter()
            .map(|(a, b, from, to, payload, step)| {
                millis += step;
                let mut packet = Packet::udp(millis, ("10.0.0.0", from), ("10.0.1.0", to), payload);
                packet.from.0 = [10, 0, 0, a].into();
                packet.to.0 = [10, 0, 0, b].into();
                packet
            })
            .collect()
    })
}

fn totals(records: &[FlowRecord]) -> (u64, u64, u64) {
    records
        .iter()
        .flat_map(|record| [&record.originator, &record.responder])
        .fold((0, 0, 0), |sum, side| (sum.0 + side.packets, sum.1 + side.ip_bytes, sum.2 + side.wire_bytes))
}

proptest! {
    #[test]
    fn the_table_gives_the_records_that_a_scan_would(
        packets in traffic(400), idle in 1_u32..20, active in 1_u32..40,
    ) {
        let config = FlowConfig { udp_idle_seconds: idle, active_seconds: active, ..FlowConfig::default() };
        let mut records: Vec<Told> = run(&config, &packets).records.iter().map(told).collect();
        records.sort_unstable();
        prop_assert_eq!(records, model(&config, &packets));
    }

    #[test]
    fn nothing_is_lost_whatever_gives_way(
        packets in traffic(400), limit in 1_u32..6, active in 1_u32..40,
        fragments in prop::collection::vec(prop::option::weighted(0.5, (0_u32..4, 0_u16..3)), 400),
    ) {
        let config = FlowConfig {
            max_flows: limit,
            max_fragmented_datagrams: 2,
            active_seconds: active,
            ..FlowConfig::default()
        };
        let packets: Vec<Packet> =
            packets.into_iter().zip(fragments).map(|(packet, fragment)| Packet { fragment, ..packet }).collect();
        let (mut table, mut host) = (table(&config), Host::default());
        for packet in &packets {
            packet.send(&mut table, &mut host);
            prop_assert!(table.len() <= limit as usize);
        }
        table.finish(&mut host);
        let expected = packets.iter().fold((0, 0, 0), |sum, packet| {
            (sum.0 + 1, sum.1 + u64::from(packet.ip().ip_bytes), sum.2 + u64::from(packet.payload) + 54)
        });
        prop_assert_eq!(totals(&host.records), expected);
    }

    #[test]
    fn records_do_not_depend_on_the_hash_seed(packets in traffic(200), limit in 1_u32..6, seed: [u64; 4]) {
        let config = FlowConfig { max_flows: limit, ..FlowConfig::default() };
        let expected = run(&config, &packets).records;
        let mut table = crate::flow::FlowTable::new(&config, "boston".into(), "boston-1", seed);
        let mut host = Host::default();
        for packet in &packets {
            packet.send(&mut table, &mut host);
        }
        table.finish(&mut host);
        prop_assert_eq!(host.records, expected);
    }
}
