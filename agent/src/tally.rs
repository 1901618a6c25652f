//! What `read` counts beside the records it writes: flows by protocol, addresses, the latest of each finding.
//! Every table has a limit; what is beyond it is counted and said.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher, RandomState},
    net::IpAddr,
};

use onenet_core::{
    net::Name,
    record::{Change, Counting, EndReason, FindingChange, FindingId, FlowRecord, FlowSide, Observation},
};

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

/// An address that is hashed as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(IpAddr);

impl Hash for Word {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(match self.0 {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        });
    }
}

/// Hashes with a key that is drawn at random, because addresses are chosen by others.
#[derive(Clone, Debug)]
struct Keyed(ahash::RandomState);

impl Default for Keyed {
    fn default() -> Self {
        // The standard library's hasher is keyed by the system's randomness.
        let random = RandomState::new();
        let [a, b, c, d] = [0_u8, 1, 2, 3].map(|word| random.hash_one(word));
        Self(ahash::RandomState::with_seeds(a, b, c, d))
    }
}

impl BuildHasher for Keyed {
    type Hasher = ahash::AHasher;

    fn build_hasher(&self) -> ahash::AHasher {
        self.0.build_hasher()
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) flows: u64,
    pub(crate) flow_records: u64,
    pub(crate) half_flows: u64,
    pub(crate) estimated_flows: u64,
    pub(crate) tunnelled_flows: u64,
    pub(crate) protocols: BTreeMap<u8, ProtocolTally>,
    pub(crate) observations: u64,
    pub(crate) findings: u64,
    talkers: HashMap<Word, TalkerTally, Keyed>,
    /// Names of address spaces, by the number they have in `addresses`.
    spaces: Vec<Name>,
    addresses: HashSet<(usize, Word), Keyed>,
    /// Whether more addresses came than are followed.
    pub(crate) addresses_cut: bool,
    latest: HashMap<FindingId, FindingChange>,
}

impl Tally {
    pub(crate) fn flow(&mut self, flow: &FlowRecord) {
        self.flow_records += 1;
        let protocol = self.protocols.entry(flow.protocol).or_default();
        let sides = [(&flow.originator, &flow.responder), (&flow.responder, &flow.originator)];
        for (side, _) in sides {
            protocol.packets = protocol.packets.saturating_add(side.packets);
            protocol.ip_bytes = protocol.ip_bytes.saturating_add(side.ip_bytes);
        }
        // A flow is counted with its last part; each flow has one.
        let last = flow.end_reason != EndReason::Active;
        if last {
            protocol.flows = protocol.flows.saturating_add(flow.flows());
            self.flows = self.flows.saturating_add(flow.flows());
            if flow.part == 0 && flow.is_half_flow() {
                self.half_flows = self.half_flows.saturating_add(flow.flows());
            }
            self.estimated_flows += u64::from(flow.counting == Counting::Estimated);
            self.tunnelled_flows += u64::from(flow.tunnel.is_some());
        }
        let flows = if last { flow.flows() } else { 0 };
        for (index, (side, other)) in sides.into_iter().enumerate() {
            if is_one_address(flow, side, index == 0) {
                self.talker(side, other, flows);
            }
        }
    }

    fn talker(&mut self, side: &FlowSide, other: &FlowSide, flows: u64) {
        let ip = Word(side.ip);
        if self.talkers.len() >= MAX_ADDRESSES && !self.talkers.contains_key(&ip) {
            self.addresses_cut = true;
            return;
        }
        let talker = self.talkers.entry(ip).or_default();
        talker.flows = talker.flows.saturating_add(flows);
        talker.sent_ip_bytes = talker.sent_ip_bytes.saturating_add(side.ip_bytes);
        talker.received_ip_bytes = talker.received_ip_bytes.saturating_add(other.ip_bytes);
    }

    pub(crate) fn observation(&mut self, seen: &Observation) {
        self.observations += 1;
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses_cut = true;
        } else {
            let space =
                self.spaces.iter().position(|known| *known == seen.address_space).unwrap_or_else(|| {
                    self.spaces.push(seen.address_space.clone());
                    self.spaces.len() - 1
                });
            self.addresses.insert((space, Word(seen.address)));
        }
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

    /// The addresses with the most bytes, most first.
    pub(crate) fn top_talkers(&self, count: usize) -> Vec<(IpAddr, TalkerTally)> {
        let mut talkers: Vec<_> = self.talkers.iter().map(|(&Word(ip), &tally)| (ip, tally)).collect();
        let bytes = |tally: &TalkerTally| tally.sent_ip_bytes.saturating_add(tally.received_ip_bytes);
        let order = |(ip, tally): &(IpAddr, TalkerTally)| (std::cmp::Reverse(bytes(tally)), *ip);
        if count < talkers.len() {
            talkers.select_nth_unstable_by_key(count, order);
            talkers.truncate(count);
        }
        talkers.sort_unstable_by_key(order);
        talkers
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

/// Whether a side is one address, and not a prefix.
fn is_one_address(flow: &FlowRecord, side: &FlowSide, is_originator: bool) -> bool {
    flow.aggregate.is_none_or(|many| {
        let bits = if side.ip.is_ipv4() { 32 } else { 128 };
        bits == if is_originator { many.originator_prefix } else { many.responder_prefix }
    })
}
