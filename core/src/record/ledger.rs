//! The ledger: the conservation account of one sensor. packets = parsed + unparsed(layer, reason), and what the
//! source dropped before the engine saw it stands beside them.

use serde::{Deserialize, Serialize};

use super::flow::named_enum;

named_enum! {
    /// Layer at which parsing stopped.
    Layer {
        /// The capture record or the link header.
        Link = 0 "link",
        /// A tag or shim between link and network: VLAN, MPLS, PPPoE, …
        Shim = 1 "shim",
        /// IPv4, IPv6 or ARP.
        Network = 2 "network",
        /// TCP, UDP, ICMP, …
        Transport = 3 "transport",
    }
}

named_enum! {
    /// Why parsing stopped. Each reason is its own counter.
    Reason {
        /// The link type of the capture is not one that is decoded.
        UnknownLinkType = 0 "unknown-link-type",
        /// The bytes end before the header does.
        Truncated = 1 "truncated",
        /// A network protocol that is not decoded (neither IP nor ARP).
        NotIp = 2 "not-ip",
        /// The IP version does not fit the link's protocol.
        BadVersion = 3 "bad-version",
        /// A header length below its minimum.
        BadHeaderLength = 4 "bad-header-length",
        /// A length field contradicts another.
        BadLength = 5 "bad-length",
        /// More tags or headers than are followed.
        TooDeep = 6 "too-deep",
        /// A frame that carries no data: 802.11 management, loopback keep-alive, …
        NoPayload = 7 "no-payload",
        /// The frame's content is encrypted at the link (802.11, MACsec).
        Encrypted = 8 "encrypted",
        /// A tunnel header whose fields contradict its kind, where nothing else can be meant.
        BadTunnel = 9 "bad-tunnel",
        /// The checksum of the IPv4 header is wrong, where that is to be verified.
        BadChecksum = 10 "bad-checksum",
    }
}

named_enum! {
    /// Where packets or records were lost, before or behind the engine.
    DropStage {
        /// The network card or driver, by libpcap's `ifdropped`.
        Interface = 0 "interface",
        /// The kernel's capture buffer, by libpcap's `dropped`; by eBPF, packets that neither its tables nor its rings had
        /// room for.
        Kernel = 1 "kernel",
        /// Filtered out on request.
        Filter = 2 "filter",
        /// Between a mirror and the sensor, by the gaps in the mirror's sequence numbers.
        Mirror = 3 "mirror",
        /// Left out on request: packets of flows that are not in the sample.
        Sampling = 4 "sampling",
    }
}

const LAYERS: usize = Layer::ALL.len();
const REASONS: usize = Reason::ALL.len();
const STAGES: usize = DropStage::ALL.len();

/// Counters of one sensor since its start. `packets == parsed + unparsed_total()` always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Packets handed to the engine.
    pub packets: u64,
    /// Their bytes on the wire.
    pub wire_bytes: u64,
    /// Packets counted to a flow or understood as ARP, and later fragments of a mirror's tunnel.
    pub parsed: u64,
    /// Of the parsed, those that are ARP and belong to no flow.
    pub arp: u64,
    /// Packets whose outer headers were parsed and counted but whose inner tunnel layer could not be.
    pub tunnels_unopened: u64,
    /// Packets that came in the tunnel of a configured mirror, which was stripped; parsed or unparsed by what was
    /// in it.
    pub mirrored: u64,
    /// Bytes on the wire that were the mirrors' own: their tunnels' headers, and whole later fragments of them.
    pub mirror_bytes: u64,
    /// Of the mirrored, later fragments of a mirror's tunnel. What they carry was counted with the first.
    pub mirror_fragments: u64,
    /// Where datagrams are counted whole: fragments of datagrams that never became so, and are in no flow.
    pub fragments_unassembled: u64,
    /// Flow records written, parts included.
    pub flow_records: u64,
    /// Observations written.
    pub observations: u64,
    /// Finding changes written.
    pub finding_changes: u64,
    unparsed: [[u64; REASONS]; LAYERS],
    unopened: [[u64; REASONS]; LAYERS],
    dropped: [u64; STAGES],
}

/// The counters of a table that are not zero, in order of layer and reason.
fn counters(table: &[[u64; REASONS]; LAYERS]) -> impl Iterator<Item = (Layer, Reason, u64)> + '_ {
    Layer::ALL.iter().flat_map(move |&layer| {
        Reason::ALL.iter().filter_map(move |&reason| {
            let packets = table[layer as usize][reason as usize];
            (packets > 0).then_some((layer, reason, packets))
        })
    })
}

impl Ledger {
    /// Counts one packet that could not be parsed.
    pub const fn count_unparsed(&mut self, layer: Layer, reason: Reason) {
        self.add_unparsed(layer, reason, 1);
    }

    /// Adds to one unparsed counter.
    pub const fn add_unparsed(&mut self, layer: Layer, reason: Reason, packets: u64) {
        let counter = &mut self.unparsed[layer as usize][reason as usize];
        *counter = counter.saturating_add(packets);
    }

    /// Counts one packet that was counted to its outer flow and whose inner packet could not be parsed.
    pub const fn count_unopened(&mut self, layer: Layer, reason: Reason) {
        self.tunnels_unopened = self.tunnels_unopened.saturating_add(1);
        self.add_unopened(layer, reason, 1);
    }

    /// Adds to one counter of tunnels that were not opened, and not to their sum.
    pub const fn add_unopened(&mut self, layer: Layer, reason: Reason, packets: u64) {
        let counter = &mut self.unopened[layer as usize][reason as usize];
        *counter = counter.saturating_add(packets);
    }

    /// Sets what a stage has dropped since the start.
    pub const fn set_dropped(&mut self, stage: DropStage, packets: u64) {
        self.dropped[stage as usize] = packets;
    }

    /// Packets a stage has dropped.
    pub const fn dropped(&self, stage: DropStage) -> u64 {
        self.dropped[stage as usize]
    }

    /// Packets dropped at any stage.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().fold(0, |sum, &packets| sum.saturating_add(packets))
    }

    /// Packets that could not be parsed, for any reason.
    pub fn unparsed_total(&self) -> u64 {
        self.unparsed.iter().flatten().fold(0, |sum, &packets| sum.saturating_add(packets))
    }

    /// The unparsed counters that are not zero, in order of layer and reason.
    pub fn unparsed(&self) -> impl Iterator<Item = (Layer, Reason, u64)> + '_ {
        counters(&self.unparsed)
    }

    /// The same of tunnels that were not opened: where and why parsing stopped inside.
    pub fn unopened(&self) -> impl Iterator<Item = (Layer, Reason, u64)> + '_ {
        counters(&self.unopened)
    }

    /// Whether every packet is accounted for.
    pub fn balances(&self) -> bool {
        self.parsed.checked_add(self.unparsed_total()) == Some(self.packets)
    }

    /// Adds another ledger to this one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.packets, other.packets),
            (&mut self.wire_bytes, other.wire_bytes),
            (&mut self.parsed, other.parsed),
            (&mut self.arp, other.arp),
            (&mut self.tunnels_unopened, other.tunnels_unopened),
            (&mut self.mirrored, other.mirrored),
            (&mut self.mirror_bytes, other.mirror_bytes),
            (&mut self.mirror_fragments, other.mirror_fragments),
            (&mut self.fragments_unassembled, other.fragments_unassembled),
            (&mut self.flow_records, other.flow_records),
            (&mut self.observations, other.observations),
            (&mut self.finding_changes, other.finding_changes),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        for (layer, reason, packets) in other.unparsed() {
            self.add_unparsed(layer, reason, packets);
        }
        for (layer, reason, packets) in other.unopened() {
            self.add_unopened(layer, reason, packets);
        }
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine = mine.saturating_add(theirs);
        }
    }
}

/// One unparsed counter in JSON.
#[derive(Serialize, Deserialize)]
struct Unparsed {
    layer: Layer,
    reason: Reason,
    packets: u64,
}

/// One stage's drops in JSON.
#[derive(Serialize, Deserialize)]
struct Dropped {
    stage: DropStage,
    packets: u64,
}

fn listed(counters: impl Iterator<Item = (Layer, Reason, u64)>) -> Vec<Unparsed> {
    counters.map(|(layer, reason, packets)| Unparsed { layer, reason, packets }).collect()
}

/// The ledger in JSON.
#[derive(Serialize)]
struct LedgerView {
    packets: u64,
    wire_bytes: u64,
    parsed: u64,
    arp: u64,
    unparsed: u64,
    unparsed_by: Vec<Unparsed>,
    dropped: u64,
    dropped_by: Vec<Dropped>,
    tunnels_unopened: u64,
    tunnels_unopened_by: Vec<Unparsed>,
    mirrored: u64,
    mirror_bytes: u64,
    mirror_fragments: u64,
    fragments_unassembled: u64,
    flow_records: u64,
    observations: u64,
    finding_changes: u64,
    balanced: bool,
}

impl Serialize for Ledger {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        LedgerView {
            packets: self.packets,
            wire_bytes: self.wire_bytes,
            parsed: self.parsed,
            arp: self.arp,
            unparsed: self.unparsed_total(),
            unparsed_by: listed(self.unparsed()),
            dropped: self.dropped_total(),
            dropped_by: DropStage::ALL
                .iter()
                .map(|&stage| Dropped { stage, packets: self.dropped(stage) })
                .filter(|dropped| dropped.packets > 0)
                .collect(),
            tunnels_unopened: self.tunnels_unopened,
            tunnels_unopened_by: listed(self.unopened()),
            mirrored: self.mirrored,
            mirror_bytes: self.mirror_bytes,
            mirror_fragments: self.mirror_fragments,
            fragments_unassembled: self.fragments_unassembled,
            flow_records: self.flow_records,
            observations: self.observations,
            finding_changes: self.finding_changes,
            balanced: self.balances(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_balances_only_when_every_packet_is_accounted_for() {
        let mut ledger = Ledger { packets: 3, parsed: 2, ..Ledger::default() };
        assert!(!ledger.balances());
        ledger.count_unparsed(Layer::Network, Reason::BadVersion);
        assert!(ledger.balances());
        assert_eq!(ledger.unparsed().collect::<Vec<_>>(), [(Layer::Network, Reason::BadVersion, 1)]);
    }

    #[test]
    fn an_account_that_a_hostile_sensor_made_up_overflows_nothing() {
        let mut ledger = Ledger { packets: u64::MAX, parsed: u64::MAX, ..Ledger::default() };
        ledger.add_unparsed(Layer::Link, Reason::Truncated, u64::MAX);
        ledger.add_unparsed(Layer::Link, Reason::NotIp, u64::MAX);
        ledger.merge(&ledger.clone());
        assert_eq!((ledger.packets, ledger.unparsed_total(), ledger.balances()), (u64::MAX, u64::MAX, false));
    }

    #[test]
    fn merging_adds_every_counter() {
        let mut one = Ledger { packets: 1, ..Ledger::default() };
        one.count_unparsed(Layer::Link, Reason::Truncated);
        let mut two = one.clone();
        two.merge(&one);
        assert_eq!((two.packets, two.unparsed_total(), two.balances()), (2, 2, true));
    }
}
