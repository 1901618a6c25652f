//! The parts of a flow add up, in every field, to the record that there is without parts: under random traffic with
//! connections that turn round, fragments in both ways of counting, and packets with wrong checksums.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::kit::{CLIENT, Packet, run};
use crate::{
    decode::TcpSegment,
    flow::{FlowConfig, FragmentMode, Integrity},
    record::{Counting, EndReason, FlowRecord, FlowSide},
};

/// Segments between two hosts on two ports, in all orders of flags, with few sequence numbers.
fn segments() -> impl Strategy<Value = Vec<Packet>> {
    let flags = prop::sample::select(vec![0x02, 0x12, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14]);
    let numbers = (0_u32..4, 0_u32..4, prop::bool::weighted(0.1), 0_u32..40);
    let kind = (prop::bool::weighted(0.2), prop::option::weighted(0.2, (0_u32..2, 0_u16..3, any::<bool>())));
    let packet = (any::<bool>(), 0_u16..2, flags, numbers, kind, 0_u8..10, 0_i64..2_000);
    prop::collection::vec(packet, 1..150).prop_map(|packets| {
        let mut millis = 0;
        let packets = packets.into_iter().map(|(back, port, flags, numbers, kind, luck, step)| {
            millis += step;
            let (sequence, acknowledgement, closed, payload) = numbers;
            let ends = [CLIENT, ("192.0.2.80", 8_001 + port)];
            let (from, to) = if back { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
            let (is_udp, fragment) = kind;
            let segment = TcpSegment {
                source: 0,
                destination: 0,
                sequence: sequence * 20,
                acknowledgement: acknowledgement * 20,
                flags,
                window: u16::from(!closed),
            };
            Packet {
                protocol: if is_udp { 17 } else { 6 },
                tcp: (!is_udp).then_some(segment),
                fragment: fragment.map(|(identification, offset, _)| (identification, offset * 8)),
                last: fragment.is_some_and(|(_, _, last)| last),
                integrity: match (luck, fragment) {
                    (0, None) => Integrity::Rejected,
                    (1, _) => Integrity::Flawed,
                    _ => Integrity::Sound,
                },
                ttl: 60 + luck,
                ..Packet::udp(millis, from, to, payload)
            }
        });
        packets.collect()
    })
}

/// Everything that a side counts.
fn counts(side: &FlowSide) -> [u64; 10] {
    [
        side.packets,
        side.wire_bytes,
        side.ip_bytes,
        side.payload_bytes,
        side.fragments,
        side.retransmissions,
        side.missed_bytes,
        side.zero_windows,
        side.bad_checksums,
        side.overlapping_fragments,
    ]
}

/// Adds a later part, side by side of the later one, and takes what is no count from it.
fn add(sum: &mut FlowRecord, part: &FlowRecord) {
    let mut earlier = std::mem::replace(sum, part.clone());
    if earlier.originator.port != sum.originator.port || earlier.originator.ip != sum.originator.ip {
        std::mem::swap(&mut earlier.originator, &mut earlier.responder);
    }
    for (sum, more) in [(&mut sum.originator, &earlier.originator), (&mut sum.responder, &earlier.responder)]
    {
        let [a, b, c, d, e, f, g, h, i, j] = counts(more);
        for (counter, more) in [
            (&mut sum.packets, a),
            (&mut sum.wire_bytes, b),
            (&mut sum.ip_bytes, c),
            (&mut sum.payload_bytes, d),
            (&mut sum.fragments, e),
            (&mut sum.retransmissions, f),
            (&mut sum.missed_bytes, g),
            (&mut sum.zero_windows, h),
            (&mut sum.bad_checksums, i),
            (&mut sum.overlapping_fragments, j),
        ] {
            *counter += more;
        }
        sum.tcp_flags |= more.tcp_flags;
        // 0 stands for a part in which the side sent nothing.
        let lowest = [sum.ttl_min, more.ttl_min].into_iter().filter(|ttl| *ttl > 0).min();
        sum.ttl_min = lowest.unwrap_or(0);
        sum.ttl_max = sum.ttl_max.max(more.ttl_max);
    }
    sum.start = sum.start.min(earlier.start);
    sum.end = sum.end.max(earlier.end);
    sum.flow_start = sum.flow_start.min(earlier.flow_start);
    if earlier.counting == Counting::Estimated {
        sum.counting = Counting::Estimated;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn parts_add_up_in_every_field(packets in segments(), active in 1_u32..30, reassembled: bool) {
        let quiet = 1_000_000;
        let config = FlowConfig {
            tcp_idle_seconds: quiet,
            udp_idle_seconds: quiet,
            attempt_seconds: quiet,
            closing_seconds: quiet,
            active_seconds: 2 * quiet,
            fragments: if reassembled { FragmentMode::Reassembled } else { FragmentMode::Counted },
            ..FlowConfig::default()
        };
        let whole = run(&config, &packets).records;
        let parts = run(&FlowConfig { active_seconds: active, ..config }, &packets).records;
        let mut sums = BTreeMap::<u128, FlowRecord>::new();
        let mut number = BTreeMap::<u128, u32>::new();
        for part in &parts {
            let expected = number.entry(part.flow_id.0).or_default();
            prop_assert_eq!(part.part, *expected);
            *expected += 1;
            match sums.get_mut(&part.flow_id.0) {
                Some(sum) => {
                    prop_assert_eq!(sum.end_reason, EndReason::Active);
                    add(sum, part);
                }
                None => {
                    sums.insert(part.flow_id.0, part.clone());
                }
            }
        }
        prop_assert_eq!(sums.len(), whole.len());
        for record in &whole {
            let sum = sums.get_mut(&record.flow_id.0).expect("the same flows");
            sum.part = record.part;
            prop_assert_eq!(&*sum, record);
        }
    }
}
