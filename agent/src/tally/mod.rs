//! What `read` counts beside the records it writes: flows by protocol, addresses, the latest of each finding.
//! Every table has a limit; what is beyond it is counted and said.

mod addresses;

use std::{collections::HashMap, net::IpAddr};

use onenet_core::{
    distinct::{Distinct, hash_of},
    net::Name,
    record::{Change, Counting, EndReason, FindingChange, FindingId, FlowRecord, FlowSide, Observation},
};

use self::addresses::{Addresses, Hashed, Value};

/// Addresses that are followed at most, each for talkers and for observations.
const MAX_ADDRESSES: usize = 500_000;

/// Findings that are kept whole at most.
const MAX_FINDINGS: usize = 10_000;

/// Flows of one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProtocolTally {
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    pub(crate) ip_bytes: u64,
}

/// What one address sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TalkerTally {
    pub(crate) flows: u64,
    pub(crate) sent_ip_bytes: u64,
    pub(crate) received_ip_bytes: u64,
}

impl Value for TalkerTally {
    #[inline]
    fn last_word(&self) -> u64 {
        self.received_ip_bytes
    }
}

/// Updates of addresses that are gathered and then applied together. Where nearly every flow has addresses of its own,
/// each of them waits for memory; so they all wait at the same time.
const TOGETHER: usize = 64;

/// The counts of flows, which can be made apart from the others.
#[derive(Debug)]
pub(crate) struct FlowTally {
    pub(crate) flows: u64,
    pub(crate) flow_records: u64,
    pub(crate) half_flows: u64,
    pub(crate) estimated_flows: u64,
    pub(crate) tunnelled_flows: u64,
    /// By number; none of those that never came.
    protocols: Box<[Option<ProtocolTally>; 256]>,
    talkers: Addresses<TalkerTally>,
    /// What is to be added to talkers.
    talked: Vec<(Hashed, TalkerTally)>,
    /// Addresses that came when as many were followed as are.
    more_talkers: Distinct,
    /// Addresses that are followed at most.
    limit: usize,
}

/// The counts.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) of_flows: FlowTally,
    pub(crate) observations: u64,
    pub(crate) findings: u64,
    /// Names of address spaces, by the number they have in `addresses`.
    spaces: Vec<Name>,
    addresses: Addresses<()>,
    /// What is to be added to addresses.
    observed: Vec<Hashed>,
    /// Addresses that came when as many were followed as are.
    more_addresses: Distinct,
    latest: HashMap<FindingId, FindingChange>,
    /// Addresses that are followed at most.
    limit: usize,
}

impl Default for FlowTally {
    fn default() -> Self {
        Self::with_limit(MAX_ADDRESSES)
    }
}

impl FlowTally {
    fn with_limit(limit: usize) -> Self {
        Self {
            flows: 0,
            flow_records: 0,
            half_flows: 0,
            estimated_flows: 0,
            tunnelled_flows: 0,
            protocols: Box::new([None; 256]),
            talkers: Addresses::default(),
            talked: Vec::new(),
            more_talkers: Distinct::default(),
            limit,
        }
    }

    pub(crate) fn flow(&mut self, flow: &FlowRecord) {
        self.flow_records += 1;
        let sides = [(&flow.originator, &flow.responder), (&flow.responder, &flow.originator)];
        // A flow is counted with its last part; each flow has one.
        let last = flow.end_reason != EndReason::Active;
        let flows = if last { flow.flows() } else { 0 };
        let protocol = self.protocols[usize::from(flow.protocol)].get_or_insert_default();
        for (side, _) in sides {
            protocol.packets = protocol.packets.saturating_add(side.packets);
            protocol.ip_bytes = protocol.ip_bytes.saturating_add(side.ip_bytes);
        }
        protocol.flows = protocol.flows.saturating_add(flows);
        self.flows = self.flows.saturating_add(flows);
        if last {
            if flow.part == 0 && flow.is_half_flow() {
                self.half_flows = self.half_flows.saturating_add(flows);
            }
            self.estimated_flows += u64::from(flow.counting == Counting::Estimated);
            self.tunnelled_flows += u64::from(flow.tunnel.is_some());
        }
        for (index, (side, other)) in sides.into_iter().enumerate() {
            if is_one_address(flow, side, index == 0) {
                let (sent_ip_bytes, received_ip_bytes) = (side.ip_bytes, other.ip_bytes);
                let more = TalkerTally { flows, sent_ip_bytes, received_ip_bytes };
                self.talked.push((self.talkers.hashed(side.ip, 0), more));
            }
        }
        if self.talked.len() >= TOGETHER {
            self.settle_talkers();
        }
    }

    /// Adds what has gathered to the talkers.
    fn settle_talkers(&mut self) {
        let touched = self.talked.iter().fold(0, |sum, (ip, _)| sum ^ self.talkers.touch(ip));
        std::hint::black_box(touched);
        for (ip, more) in self.talked.drain(..) {
            let may_add = self.talkers.len() < self.limit;
            match self.talkers.entry(&ip, may_add) {
                Some(talker) => {
                    talker.flows = talker.flows.saturating_add(more.flows);
                    talker.sent_ip_bytes = talker.sent_ip_bytes.saturating_add(more.sent_ip_bytes);
                    talker.received_ip_bytes =
                        talker.received_ip_bytes.saturating_add(more.received_ip_bytes);
                }
                None => count(&mut self.more_talkers, &ip),
            }
        }
    }

    /// The protocols that came, by number.
    pub(crate) fn protocols(&self) -> impl Iterator<Item = (u8, ProtocolTally)> {
        (0..=u8::MAX).zip(self.protocols.iter()).filter_map(|(number, tally)| Some((number, (*tally)?)))
    }

    /// Addresses that sent or received and are not among the talkers, because there were too many: exact for a few,
    /// then an estimate.
    pub(crate) fn more_talkers(&self) -> u64 {
        self.more_talkers.count()
    }

    /// The addresses with the most bytes, most first.
    pub(crate) fn top_talkers(&self, count: usize) -> Vec<(IpAddr, TalkerTally)> {
        let mut talkers: Vec<_> = self.talkers.iter().collect();
        let bytes = |tally: &TalkerTally| tally.sent_ip_bytes.saturating_add(tally.received_ip_bytes);
        let order = |(ip, tally): &(IpAddr, TalkerTally)| (std::cmp::Reverse(bytes(tally)), *ip);
        if count < talkers.len() {
            talkers.select_nth_unstable_by_key(count, order);
            talkers.truncate(count);
        }
        talkers.sort_unstable_by_key(order);
        talkers
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::with_limit(MAX_ADDRESSES)
    }
}

impl Tally {
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self {
            of_flows: FlowTally::with_limit(limit),
            observations: 0,
            findings: 0,
            spaces: Vec::new(),
            addresses: Addresses::default(),
            observed: Vec::new(),
            more_addresses: Distinct::default(),
            latest: HashMap::new(),
            limit,
        }
    }

    pub(crate) fn flow(&mut self, flow: &FlowRecord) {
        self.of_flows.flow(flow);
    }

    pub(crate) fn observation(&mut self, seen: &Observation) {
        self.observations += 1;
        let space = self.spaces.iter().position(|known| *known == seen.address_space).unwrap_or_else(|| {
            self.spaces.push(seen.address_space.clone());
            self.spaces.len() - 1
        });
        let space = u32::try_from(space).unwrap_or(u32::MAX);
        self.observed.push(self.addresses.hashed(seen.address, space));
        if self.observed.len() >= TOGETHER {
            self.settle_observed();
        }
    }

    /// Adds what has gathered to the addresses.
    fn settle_observed(&mut self) {
        let touched = self.observed.iter().fold(0, |sum, ip| sum ^ self.addresses.touch(ip));
        std::hint::black_box(touched);
        for ip in self.observed.drain(..) {
            let may_add = self.addresses.len() < self.limit;
            if self.addresses.entry(&ip, may_add).is_none() {
                count(&mut self.more_addresses, &ip);
            }
        }
    }

    /// Applies what has gathered. Before that, the counts of addresses are behind.
    pub(crate) fn settle(&mut self) {
        self.of_flows.settle_talkers();
        self.settle_observed();
    }

    pub(crate) fn finding(&mut self, change: &FindingChange) {
        self.findings += u64::from(change.change == Change::Raised);
        if self.latest.len() < MAX_FINDINGS || self.latest.contains_key(&change.finding_id) {
            self.latest.insert(change.finding_id, change.clone());
        }
    }

    /// Addresses observed in use, each counted once per address space.
    pub(crate) fn observed_addresses(&self) -> usize {
        self.addresses.len()
    }

    /// Addresses beyond those: exact for a few, then an estimate.
    pub(crate) fn more_addresses(&self) -> u64 {
        self.more_addresses.count()
    }

    /// The latest change of each finding: worst first, then by time.
    pub(crate) fn findings(&self) -> Vec<&FindingChange> {
        let mut findings: Vec<_> = self.latest.values().collect();
        findings.sort_unstable_by_key(|change| {
            (std::cmp::Reverse(change.severity), change.first_seen, change.finding_id)
        });
        findings
    }
}

/// Counts an address that is not followed.
#[cold]
fn count(more: &mut Distinct, hashed: &Hashed) {
    let (ip, number) = hashed.parts();
    more.add(hash_of(ip, number));
}

/// Whether a side is one address, and not a prefix.
fn is_one_address(flow: &FlowRecord, side: &FlowSide, is_originator: bool) -> bool {
    flow.aggregate.is_none_or(|many| {
        let bits = if side.ip.is_ipv4() { 32 } else { 128 };
        bits == if is_originator { many.originator_prefix } else { many.responder_prefix }
    })
}

#[cfg(test)]
mod tests;
