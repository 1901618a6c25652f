//! Flows that cannot be kept one by one, folded together: one record for each pair of prefixes in a place, with exact
//! sums. What is lost is which hosts and ports they were; how many flows that concerns stands in a loss record of the
//! same batch.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _},
};

use ahash::RandomState;
use onenet_core::record::{ConnState, Counting, DirectionReason, EndReason};
use onenet_proto::v1::{self, Flow, FlowSide};
use ring::digest;

/// Pairs of prefixes that are kept apart at most; beyond, flows are folded into the whole of their place.
const MOST_PAIRS: usize = 1000;
/// Places beyond which a flow is folded into what is left of its address family.
const MOST_PLACES: usize = 200;
/// Bits of the prefixes by which flows are folded.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 48;
/// Different originators that are counted exactly.
const EXACT: usize = 32;
/// Registers of the estimate beyond: its standard error is 1.04 / √256 = 6.5 %.
const REGISTERS: usize = 256;
/// Protocol of a record that tells of several: reserved by IANA.
const SEVERAL_PROTOCOLS: u32 = 255;

/// What the flows of a record have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    is_v6: bool,
    site: String,
    interface: String,
    protocol: u32,
    direction: u32,
    sampling: u32,
    sides: [Place; 2],
    /// First bytes of originator and responder; none where pairs are not kept apart.
    prefixes: Option<[[u8; 6]; 2]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    locality: u32,
    segment: String,
    secretariat: String,
}

impl Place {
    fn of(side: &FlowSide) -> Self {
        Self { locality: side.locality, segment: side.segment.clone(), secretariat: side.secretariat.clone() }
    }
}

/// How many different originators there are.
#[derive(Clone, Debug)]
struct Distinct {
    exact: Vec<u64>,
    registers: Vec<u8>,
}

impl Distinct {
    fn add(&mut self, hash: u64) {
        if self.registers.is_empty() {
            if self.exact.contains(&hash) {
                return;
            }
            if self.exact.len() < EXACT {
                self.exact.push(hash);
                return;
            }
            self.registers = vec![0; REGISTERS];
            for known in std::mem::take(&mut self.exact) {
                self.estimate(known);
            }
        }
        self.estimate(hash);
    }

    fn estimate(&mut self, hash: u64) {
        let index = usize::from(hash.to_le_bytes()[0]);
        let rank = u8::try_from((hash >> 8 | 1 << 56).trailing_zeros() + 1).unwrap_or(u8::MAX);
        if let Some(register) = self.registers.get_mut(index) {
            *register = rank.max(*register);
        }
    }

    /// HyperLogLog (Flajolet et al. 2007), with linear counting where few registers are in use.
    fn count(&self) -> u64 {
        if self.registers.is_empty() {
            return self.exact.len() as u64;
        }
        let m = 256.0_f64;
        let sum: f64 = self.registers.iter().map(|&rank| 2.0_f64.powi(-i32::from(rank))).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let zeros = self.registers.iter().filter(|&&rank| rank == 0).count();
        let estimate = if estimate <= 2.5 * m && zeros > 0 {
            m * (m / f64::from(u16::try_from(zeros).unwrap_or(u16::MAX))).ln()
        } else {
            estimate
        };
        // Never negative, and far below 2^64.
        let rounded = estimate.round();
        if rounded.is_finite() { format!("{rounded:.0}").parse().unwrap_or_default() } else { 0 }
    }
}

/// Many flows.
#[derive(Clone, Debug)]
struct Folded {
    flow: Flow,
    flows: u64,
    originators: Distinct,
    /// Bits that all addresses of a side have in common.
    bits: [u8; 2],
}

/// Bits that two addresses of one family have in common, at most `most`.
fn common_bits(one: &[u8], other: &[u8], most: u8) -> u8 {
    let mut bits = 0_u32;
    for (a, b) in one.iter().zip(other) {
        let same = (a ^ b).leading_zeros();
        bits += same;
        if same < 8 {
            break;
        }
    }
    u8::try_from(bits).unwrap_or(u8::MAX).min(most)
}

/// The first address of a prefix.
fn first_of(address: &[u8], bits: u8) -> Vec<u8> {
    let mut address = address.to_vec();
    for (index, byte) in address.iter_mut().enumerate() {
        let kept = usize::from(bits).saturating_sub(index * 8).min(8);
        *byte &= u8::try_from(0xff00_u16 >> kept & 0xff).unwrap_or_default();
    }
    address
}

fn add_side(sum: &mut FlowSide, side: &FlowSide) {
    let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
    let heard = sum.packets > 0;
    if side.packets > 0 {
        sum.ttl_min = if heard { sum.ttl_min.min(side.ttl_min) } else { side.ttl_min };
        sum.ttl_max = sum.ttl_max.max(side.ttl_max);
    }
    add(&mut sum.packets, side.packets);
    add(&mut sum.wire_bytes, side.wire_bytes);
    add(&mut sum.ip_bytes, side.ip_bytes);
    add(&mut sum.payload_bytes, side.payload_bytes);
    add(&mut sum.fragments, side.fragments);
    add(&mut sum.retransmissions, side.retransmissions);
    add(&mut sum.missed_bytes, side.missed_bytes);
    add(&mut sum.zero_windows, side.zero_windows);
    add(&mut sum.bad_checksums, side.bad_checksums);
    add(&mut sum.overlapping_fragments, side.overlapping_fragments);
    sum.tcp_flags |= side.tcp_flags;
    if sum.port != side.port {
        sum.port = 0;
    }
}

impl Folded {
    fn new(key: &Key, flow: &Flow, originator: &FlowSide, responder: &FlowSide) -> Self {
        let side = |side: &FlowSide, place: &Place| FlowSide {
            ip: side.ip.clone(),
            port: side.port,
            dscp: side.dscp,
            locality: place.locality,
            segment: place.segment.clone(),
            secretariat: place.secretariat.clone(),
            ..FlowSide::default()
        };
        let [from, to] = &key.sides;
        let bits = |side: &FlowSide| u8::try_from(side.ip.len() * 8).unwrap_or_default();
        Self {
            flows: 0,
            originators: Distinct { exact: Vec::new(), registers: Vec::new() },
            bits: [bits(originator), bits(responder)],
            flow: Flow {
                flow_start: flow.start,
                start: flow.start,
                end: flow.end,
                end_reason: EndReason::Resources.code().into(),
                protocol: key.protocol,
                originator: Some(side(originator, from)),
                responder: Some(side(responder, to)),
                conn_state: ConnState::Oth.code().into(),
                direction_reason: DirectionReason::FirstPacket.code().into(),
                direction: key.direction,
                site: key.site.clone(),
                interface: key.interface.clone(),
                counting: Counting::Exact.code().into(),
                sampling: key.sampling,
                ..Flow::default()
            },
        }
    }

    fn add(&mut self, flow: &Flow, originator: &FlowSide, responder: &FlowSide, hash: u64) {
        let sum = &mut self.flow;
        sum.start = sum.start.min(flow.start);
        sum.flow_start = sum.start;
        sum.end = sum.end.max(flow.end);
        sum.counting = sum.counting.max(flow.counting);
        for ((sum, side), bits) in [(&mut sum.originator, originator), (&mut sum.responder, responder)]
            .into_iter()
            .zip(&mut self.bits)
        {
            if let Some(sum) = sum {
                *bits = common_bits(&sum.ip, &side.ip, *bits);
                add_side(sum, side);
            }
        }
        let one = flow.aggregate.as_ref().map_or(1, |aggregate| aggregate.flows);
        self.flows = self.flows.saturating_add(one);
        self.originators.add(hash);
    }

    fn finish(mut self, flow_id: Vec<u8>) -> Flow {
        for (side, bits) in [&mut self.flow.originator, &mut self.flow.responder].into_iter().zip(self.bits) {
            if let Some(side) = side {
                side.ip = first_of(&side.ip, bits).into();
            }
        }
        let [originator_prefix, responder_prefix] = self.bits.map(u32::from);
        self.flow.aggregate = Some(v1::Aggregate {
            flows: self.flows,
            originators: self.originators.count(),
            originator_prefix,
            responder_prefix,
        });
        self.flow.flow_id = flow_id.into();
        self.flow
    }
}

/// Flows that are folded together, until they are told.
#[derive(Debug)]
pub(super) struct Aggregates {
    folded: BTreeMap<Key, Folded>,
    pairs: usize,
    hash: RandomState,
}

impl Aggregates {
    pub(super) fn new() -> Self {
        // Counting originators needs no secret: an estimate that is off costs nobody anything.
        let hash = RandomState::with_seeds(1, 2, 3, 4);
        Self { folded: BTreeMap::new(), pairs: 0, hash }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.folded.is_empty()
    }

    /// Folds a flow in.
    pub(super) fn add(&mut self, flow: &Flow) {
        let empty = FlowSide::default();
        let originator = flow.originator.as_ref().unwrap_or(&empty);
        let responder = flow.responder.as_ref().unwrap_or(&empty);
        let key = self.key(flow, originator, responder);
        if key.prefixes.is_some() && !self.folded.contains_key(&key) {
            self.pairs += 1;
        }
        let mut hasher = self.hash.build_hasher();
        hasher.write(&originator.ip);
        let hash = hasher.finish();
        let new = || Folded::new(&key, flow, originator, responder);
        self.folded.entry(key.clone()).or_insert_with(new).add(flow, originator, responder, hash);
    }

    /// Where a flow is folded in: the narrowest key that there is room for.
    fn key(&self, flow: &Flow, originator: &FlowSide, responder: &FlowSide) -> Key {
        let is_v6 = originator.ip.len() == 16;
        let prefix = |side: &FlowSide| {
            let mut bytes = [0; 6];
            let first = first_of(&side.ip, if is_v6 { PREFIX_V6 } else { PREFIX_V4 });
            bytes.iter_mut().zip(first).for_each(|(byte, of)| *byte = of);
            bytes
        };
        let mut key = Key {
            is_v6,
            site: flow.site.clone(),
            interface: flow.interface.clone(),
            protocol: flow.protocol,
            direction: flow.direction,
            sampling: flow.sampling.max(1),
            sides: [Place::of(originator), Place::of(responder)],
            prefixes: Some([prefix(originator), prefix(responder)]),
        };
        if self.folded.contains_key(&key) || self.pairs < MOST_PAIRS {
            return key;
        }
        key.prefixes = None;
        if self.folded.contains_key(&key) || self.folded.len() - self.pairs < MOST_PLACES {
            return key;
        }
        Key { is_v6, site: key.site, protocol: SEVERAL_PROTOCOLS, sampling: key.sampling, ..Key::default() }
    }

    /// The records; none are left. `name` sets their identities apart from all others.
    pub(super) fn take(&mut self, name: &[u8]) -> Vec<Flow> {
        self.pairs = 0;
        let folded = std::mem::take(&mut self.folded);
        let with_identity = |(index, one): (usize, Folded)| {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(b"onenet-aggregate\0");
            context.update(name);
            context.update(&(index as u64).to_le_bytes());
            let id = context.finish();
            one.finish(id.as_ref().iter().take(16).copied().collect())
        };
        folded.into_values().enumerate().map(with_identity).collect()
    }
}

#[cfg(test)]
mod tests {
    use onenet_core::record::FlowRecord;

    use super::*;

    fn flow(from: [u8; 4], to: [u8; 4], packets: u64) -> Flow {
        let side = |ip: [u8; 4], packets| FlowSide {
            ip: ip.to_vec().into(),
            port: 443,
            packets,
            wire_bytes: packets * 100,
            ttl_min: 60,
            ttl_max: 64,
            secretariat: "eohhs".into(),
            ..FlowSide::default()
        };
        Flow {
            start: i64::from(from[3]),
            end: 1000 + i64::from(from[3]),
            protocol: 6,
            originator: Some(side(from, packets)),
            responder: Some(side(to, 2 * packets)),
            site: "boston".into(),
            ..Flow::default()
        }
    }

    #[test]
    fn flows_of_a_pair_of_prefixes_are_one_record_with_exact_sums() {
        let mut all = Aggregates::new();
        for host in 8..16 {
            all.add(&flow([10, 1, 2, host], [192, 0, 2, 1], u64::from(host)));
            all.add(&flow([10, 1, 2, host], [192, 0, 2, 1], 1));
        }
        all.add(&flow([10, 1, 3, 9], [192, 0, 2, 1], 5));
        let records = all.take(b"a");
        assert!(all.is_empty());
        assert_eq!(records.len(), 2);
        let many = records[0].aggregate.unwrap();
        assert_eq!(
            (many.flows, many.originators, many.originator_prefix, many.responder_prefix),
            (16, 8, 29, 32)
        );
        let from = records[0].originator.as_ref().unwrap();
        assert_eq!((&from.ip[..], from.packets, from.wire_bytes), (&[10, 1, 2, 8][..], 100, 10_000));
        assert_eq!((from.port, from.ttl_min, from.ttl_max), (443, 60, 64));
        assert_eq!((records[0].start, records[0].end), (8, 1015));
        assert_ne!(records[0].flow_id, records[1].flow_id);
        for record in records {
            let read = FlowRecord::try_from(record).unwrap();
            assert!(read.flows() >= 1 && read.aggregate.is_some());
        }
    }

    #[test]
    fn however_many_prefixes_there_are_the_records_are_bounded_and_the_sums_exact() {
        let mut all = Aggregates::new();
        let mut packets = 0;
        for number in 0..20_000_u32 {
            let [_, _, a, b] = number.to_be_bytes();
            let mut one = flow([10, a, b, 1], [192, 0, 2, 1], u64::from(number % 7));
            one.protocol = number % 256;
            one.interface = format!("eth{}", number % 300);
            packets += u64::from(number % 7) * 3;
            all.add(&one);
        }
        let records = all.take(b"a");
        assert!(records.len() <= MOST_PAIRS + MOST_PLACES + 2, "{}", records.len());
        let sum = |flow: &Flow| {
            [&flow.originator, &flow.responder].into_iter().flatten().map(|side| side.packets).sum::<u64>()
        };
        assert_eq!(records.iter().map(sum).sum::<u64>(), packets);
        assert_eq!(records.iter().map(|flow| flow.aggregate.unwrap().flows).sum::<u64>(), 20_000);
        assert!(records.iter().any(|flow| flow.protocol == SEVERAL_PROTOCOLS));
    }

    #[test]
    fn originators_are_counted_and_beyond_32_estimated() {
        let count = |hosts: u32| {
            let mut all = Aggregates::new();
            for host in 0..hosts {
                let [_, _, a, b] = host.to_be_bytes();
                let mut one = flow([0; 4], [192, 0, 2, 1], 1);
                let mut ip = vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b];
                if let Some(side) = &mut one.originator {
                    side.ip = ip.clone().into();
                }
                ip[15] = 0;
                if let Some(side) = &mut one.responder {
                    side.ip = ip.into();
                }
                all.add(&one);
                all.add(&one);
            }
            let records = all.take(b"a");
            assert_eq!(records.len(), 1);
            records[0].aggregate.unwrap().originators
        };
        assert_eq!(count(32), 32);
        for hosts in [100, 1000, 20_000] {
            let error = count(hosts) as f64 / f64::from(hosts) - 1.0;
            assert!(error.abs() < 0.2, "{hosts}: {error}");
        }
    }
}
