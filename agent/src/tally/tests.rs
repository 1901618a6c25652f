//! The tally against one that counts each record at once, in maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use onenet_core::record::Aggregate;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::samples;

/// What is counted, record by record.
#[derive(Default)]
struct Plain {
    protocols: BTreeMap<u8, ProtocolTally>,
    talkers: BTreeMap<IpAddr, TalkerTally>,
    addresses: BTreeSet<(Name, IpAddr)>,
    more_talkers: BTreeSet<IpAddr>,
    more_addresses: BTreeSet<(Name, IpAddr)>,
    limit: usize,
}

impl Plain {
    fn flow(&mut self, flow: &FlowRecord) {
        let flows = if flow.end_reason == EndReason::Active { 0 } else { flow.flows() };
        let protocol = self.protocols.entry(flow.protocol).or_default();
        protocol.flows += flows;
        for (side, other) in [(&flow.originator, &flow.responder), (&flow.responder, &flow.originator)] {
            protocol.packets += side.packets;
            protocol.ip_bytes += side.ip_bytes;
            if flow.aggregate.is_some() && side.port == flow.originator.port {
                continue;
            }
            if self.talkers.len() >= self.limit && !self.talkers.contains_key(&side.ip) {
                self.more_talkers.insert(side.ip);
                continue;
            }
            let talker = self.talkers.entry(side.ip).or_default();
            talker.flows += flows;
            talker.sent_ip_bytes += side.ip_bytes;
            talker.received_ip_bytes += other.ip_bytes;
        }
    }

    fn observation(&mut self, seen: &Observation) {
        let address = (seen.address_space.clone(), seen.address);
        if self.addresses.len() < self.limit {
            self.addresses.insert(address);
        } else if !self.addresses.contains(&address) {
            self.more_addresses.insert(address);
        }
    }
}

/// Whether a count is exact, or an estimate that is near where it may be one.
fn is_near(count: u64, exact: usize) -> bool {
    if exact <= 32 { count == exact as u64 } else { (exact as f64 / count as f64 - 1.0).abs() < 0.3 }
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..300_u32).prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        (0..300_u128).prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

/// A flow; of an aggregate the originator is a prefix.
fn flow() -> impl Strategy<Value = FlowRecord> {
    let counts = (0..9_u64, 0..9_u64, 0..90_u64, 0..90_u64);
    (ip(), ip(), counts, 0..4_u8, any::<bool>(), prop::option::weighted(0.2, 1..99_u64)).prop_map(
        |(from, to, counts, protocol, is_active, aggregate)| {
            let mut flow = FlowRecord { protocol, ..samples::flow() };
            (flow.originator.ip, flow.responder.ip) = (from, to);
            (flow.originator.packets, flow.responder.packets) = (counts.0, counts.1);
            (flow.originator.ip_bytes, flow.responder.ip_bytes) = (counts.2, counts.3);
            if is_active {
                flow.end_reason = EndReason::Active;
            }
            flow.aggregate = aggregate.map(|flows| Aggregate {
                flows,
                originators: 1,
                originator_prefix: 24,
                responder_prefix: if to.is_ipv4() { 32 } else { 128 },
            });
            flow
        },
    )
}

fn observation() -> impl Strategy<Value = Observation> {
    let space = prop::sample::select(vec!["eohhs", "massdot"]);
    (ip(), space).prop_map(|(address, space)| Observation {
        address,
        address_space: space.into(),
        ..samples::observation()
    })
}

proptest! {
    #[test]
    fn gathered_updates_count_as_single_ones_do(
        flows in vec(flow(), 0..300),
        seen in vec(observation(), 0..300),
        limit in prop_oneof![2 => 0..400_usize, 1 => 150..300_usize, 1 => Just(MAX_ADDRESSES)],
    ) {
        let (mut tally, mut plain) = (Tally::with_limit(limit), Plain { limit, ..Plain::default() });
        for flow in &flows {
            tally.flow(flow);
            plain.flow(flow);
        }
        for seen in &seen {
            tally.observation(seen);
            plain.observation(seen);
        }
        tally.settle();
        prop_assert_eq!(tally.of_flows.protocols().collect::<BTreeMap<_, _>>(), plain.protocols);
        prop_assert_eq!(tally.of_flows.top_talkers(usize::MAX).into_iter().collect::<BTreeMap<_, _>>(), plain.talkers);
        prop_assert_eq!(tally.observed_addresses(), plain.addresses.len());
        prop_assert!(is_near(tally.of_flows.more_talkers(), plain.more_talkers.len()));
        prop_assert!(is_near(tally.more_addresses(), plain.more_addresses.len()));
        prop_assert_eq!(tally.of_flows.flow_records, flows.len() as u64);
    }
}

#[test]
fn the_talkers_with_the_most_bytes_are_first() {
    let mut tally = Tally::default();
    let mut flow = FlowRecord { aggregate: None, ..samples::flow() };
    for last in 0..200_u8 {
        flow.originator.ip = [10, 0, 0, last].into();
        flow.originator.ip_bytes = last.into();
        tally.flow(&flow);
    }
    tally.settle();
    let top: Vec<IpAddr> = tally.of_flows.top_talkers(3).into_iter().map(|(ip, _)| ip).collect();
    assert_eq!(top, [flow.responder.ip, [10, 0, 0, 199].into(), [10, 0, 0, 198].into()]);
}
