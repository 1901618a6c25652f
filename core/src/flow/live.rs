//! One live flow: the part that each packet touches, and the part that is needed when something is told.

use arrayvec::ArrayVec;

use super::{
    history::History,
    key::{FlowKey, Side},
};
use crate::{
    decode::{InterfaceIndex, IpPacket, Link, Transport},
    net::MacAddress,
    record::{DirectionReason, FlowId, Locality, Tunnel},
    time::Timestamp,
};

/// No entry of a slab.
pub(super) const NO_ENTRY: u32 = u32::MAX;

/// Where a packet belongs in the plan, as `ipam::Places` answers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketPlace {
    /// What flows are kept apart by.
    pub scope: u16,
    /// Address space.
    pub space: u16,
    /// Index into the plan's segments.
    pub segment: Option<u16>,
    /// Index into the plan's secretariats.
    pub secretariat: Option<u16>,
}

/// What one side of a flow is to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SidePlace {
    /// Ours or not.
    pub locality: Locality,
    /// Segment its packets arrive on: index into the plan's segments.
    pub segment: Option<u16>,
    /// Index into the plan's secretariats.
    pub secretariat: Option<u16>,
}

impl Default for SidePlace {
    fn default() -> Self {
        Self { locality: Locality::Unknown, segment: None, secretariat: None }
    }
}

/// Where a packet came from, beside its IP header.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Interface it was captured on.
    pub interface: InterfaceIndex,
    /// Link header and tags.
    pub link: &'a Link,
    /// Its place in the plan.
    pub place: PacketPlace,
    /// The innermost tunnel around it.
    pub tunnel: Option<Tunnel>,
    /// Flows that carry it, outermost first.
    pub parents: &'a [FlowId],
    /// On an outside interface, whether it leaves.
    pub leaving: Option<bool>,
}

/// A packet as the flow table takes it.
#[derive(Clone, Copy, Debug)]
pub struct FlowPacket<'a> {
    /// Packet time.
    pub time: Timestamp,
    /// Bytes on the wire.
    pub wire_bytes: u32,
    /// Network and transport header.
    pub ip: &'a IpPacket<'a>,
    /// Where it came from.
    pub origin: Origin<'a>,
    /// What its checksums say.
    pub integrity: Integrity,
}

/// What the checksums of a packet make of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Integrity {
    /// Nothing, or they were not looked at.
    #[default]
    Sound,
    /// One is wrong; the packet counts all the same.
    Flawed,
    /// One is wrong, and the packet counts as nothing else.
    Rejected,
}

/// What is counted of one packet, or of several of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub packets: u64,
    pub wire_bytes: u64,
    pub ip_bytes: u64,
    pub payload_bytes: u64,
    pub fragments: u64,
    pub tcp_flags: u16,
    pub ttl_min: u8,
    pub ttl_max: u8,
    pub dscp: u8,
    pub estimated: bool,
    pub flaws: Flaws,
    pub mac: Option<MacAddress>,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Packets that something was wrong with, which most flows do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    pub bad_checksums: u64,
    pub overlapping_fragments: u64,
}

/// What was wrong with packets of a flow, by side.
#[derive(Clone, Debug, Default)]
pub(super) struct Flawed {
    /// In the current part.
    pub flaws: [Flaws; 2],
    /// Packets that were rejected, over the whole flow.
    pub rejected: [u64; 2],
    /// The history of a flow that is not TCP, from the first rejected packet on.
    pub history: Option<History>,
}

impl Flaws {
    pub(super) fn add(&mut self, other: Self) {
        self.bad_checksums = self.bad_checksums.saturating_add(other.bad_checksums);
        self.overlapping_fragments = self.overlapping_fragments.saturating_add(other.overlapping_fragments);
    }
}

impl Tally {
    /// Of one packet.
    pub(super) fn of(packet: &FlowPacket<'_>) -> Self {
        let ip = packet.ip;
        let tcp_flags = match ip.transport {
            Transport::Tcp(segment) => segment.flags,
            _ => 0,
        };
        Self {
            packets: 1,
            wire_bytes: packet.wire_bytes.into(),
            ip_bytes: ip.ip_bytes.into(),
            payload_bytes: ip.payload_bytes.into(),
            fragments: ip.fragment.is_some().into(),
            tcp_flags,
            ttl_min: ip.ttl,
            ttl_max: ip.ttl,
            dscp: ip.dscp,
            estimated: ip.estimated,
            flaws: Flaws {
                bad_checksums: u64::from(packet.integrity != Integrity::Sound),
                overlapping_fragments: 0,
            },
            mac: packet.origin.link.source_mac,
            first: packet.time,
            last: packet.time,
        }
    }

    /// Adds another of the same direction.
    pub(super) fn add(&mut self, other: &Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.wire_bytes = self.wire_bytes.saturating_add(other.wire_bytes);
        self.ip_bytes = self.ip_bytes.saturating_add(other.ip_bytes);
        self.payload_bytes = self.payload_bytes.saturating_add(other.payload_bytes);
        self.fragments = self.fragments.saturating_add(other.fragments);
        self.tcp_flags |= other.tcp_flags;
        self.ttl_min = self.ttl_min.min(other.ttl_min);
        self.ttl_max = self.ttl_max.max(other.ttl_max);
        self.estimated |= other.estimated;
        self.flaws.add(other.flaws);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Counters of one side in the current part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub packets: u64,
    pub wire_bytes: u64,
    pub ip_bytes: u64,
    pub payload_bytes: u64,
    pub fragments: u64,
    pub tcp_flags: u16,
    pub ttl_min: u8,
    pub ttl_max: u8,
    pub dscp: u8,
    /// Whether the side has ever sent anything.
    pub heard: bool,
    /// Source MAC address of its latest packets.
    pub mac: Option<MacAddress>,
}

impl Counters {
    pub(super) fn add(&mut self, tally: &Tally) {
        if self.packets == 0 {
            (self.ttl_min, self.ttl_max) = (u8::MAX, 0);
        }
        if !self.heard {
            self.heard = true;
            self.dscp = tally.dscp;
        }
        self.packets = self.packets.saturating_add(tally.packets);
        self.wire_bytes = self.wire_bytes.saturating_add(tally.wire_bytes);
        self.ip_bytes = self.ip_bytes.saturating_add(tally.ip_bytes);
        self.payload_bytes = self.payload_bytes.saturating_add(tally.payload_bytes);
        self.fragments = self.fragments.saturating_add(tally.fragments);
        self.tcp_flags |= tally.tcp_flags;
        self.ttl_min = self.ttl_min.min(tally.ttl_min);
        self.ttl_max = self.ttl_max.max(tally.ttl_max);
    }

    /// Begins a new part; what is true of the side as such stays.
    pub(super) fn reset(&mut self) {
        *self = Self { dscp: self.dscp, heard: self.heard, mac: self.mac, ..Self::default() };
    }
}

/// What a flow waits for, beside silence and the active timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing.
    No,
    /// An answer to a TCP SYN.
    Answer,
    /// Late packets of a connection that has ended.
    Late,
}

/// The part of a flow that each packet touches. Sides are those of the key: 0 is the lower endpoint.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub key: FlowKey,
    /// Earliest and latest packet of this part; the latest before it, while the part is empty.
    pub start: Timestamp,
    pub end: Timestamp,
    /// Clock of the table at the latest packet.
    pub seen: Timestamp,
    /// Clock at which the part began.
    pub part_since: Timestamp,
    /// Clock at which the wait ends.
    pub wait_until: Timestamp,
    pub sides: [Counters; 2],
    /// Entry of the slab of TCP states.
    pub tcp: u32,
    pub waiting: Waiting,
    pub originator: u8,
    /// Had a packet since it was last looked at for eviction.
    pub referenced: bool,
    /// Packets of both sides were seen.
    pub answered: bool,
    pub established: bool,
    pub estimated: bool,
}

impl Flow {
    pub(super) fn originator(&self) -> Side {
        self.originator.into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sides[0].packets == 0 && self.sides[1].packets == 0
    }
}

/// Totals of the parts that were reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    pub packets: u64,
    pub ip_bytes: u64,
    pub payload_bytes: u64,
    pub ttl: Option<(u8, u8)>,
}

/// Tags and tunnels, which most flows do not have.
#[derive(Clone, Debug, Default)]
pub(super) struct Wrapping {
    pub mpls_labels: ArrayVec<u32, 4>,
    pub tunnel: Option<Tunnel>,
    pub parents: ArrayVec<FlowId, 4>,
}

/// The part of a flow that is needed when something is told of it.
#[derive(Clone, Debug)]
pub(super) struct Cold {
    /// Time of the first packet to arrive: part of the identity.
    pub created: Timestamp,
    /// Distinguishes flows of one tuple that began at the same moment: 0, or a number that counts such beginnings.
    pub serial: u16,
    /// Number of moves told in this part.
    pub moves: u8,
    pub reason: DirectionReason,
    pub flow_start: Timestamp,
    pub part: u32,
    pub interface: InterfaceIndex,
    pub space: u16,
    pub vlans: ArrayVec<u16, 3>,
    pub places: [SidePlace; 2],
    /// First MAC address of each side.
    pub first_mac: [Option<MacAddress>; 2],
    /// Packets of each side in this part that were counted to an earlier MAC address.
    pub moved_packets: [u64; 2],
    pub id: Option<FlowId>,
    pub past: Option<Box<[Past; 2]>>,
    /// What was wrong with packets.
    pub flawed: Option<Box<Flawed>>,
    pub wrapping: Option<Box<Wrapping>>,
}
