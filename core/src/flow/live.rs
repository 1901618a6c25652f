//! What the flow table takes: a packet, where it came from, and what of it is counted.

use arrayvec::ArrayVec;

use super::history::History;
use crate::{
    decode::{InterfaceIndex, IpPacket, Link, Plain, PlainTransport, Transport},
    net::MacAddress,
    record::{FlowId, Locality, Tunnel},
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
    /// How many packets on the wire it stands for.
    pub offload: Offload,
}

/// How many packets on the wire a captured one stands for, where the card or the kernel has joined them (GRO, LRO) or
/// is still to divide it (TSO, GSO). Each of them has the headers of the captured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Packets; 0 is taken for 1.
    pub segments: u16,
    /// Whether that is known, and not reckoned from lengths.
    pub is_exact: bool,
}

impl Default for Offload {
    /// One packet that was on the wire as it is.
    fn default() -> Self {
        Self { segments: 1, is_exact: true }
    }
}

impl Offload {
    /// Packets on the wire, at least 1.
    pub fn packets(self) -> u64 {
        self.segments.max(1).into()
    }

    /// Bytes of the headers that the packets beyond the first had, where one has so many.
    pub(crate) fn more_headers(self, headers: u32) -> u64 {
        (self.packets() - 1).saturating_mul(headers.into())
    }
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
        let offload = packet.offload;
        let wire_headers = packet.wire_bytes.saturating_sub(ip.payload_bytes);
        let ip_headers = ip.ip_bytes.saturating_sub(ip.payload_bytes);
        let with = |bytes: u32, headers| u64::from(bytes).saturating_add(offload.more_headers(headers));
        Self {
            packets: offload.packets(),
            wire_bytes: with(packet.wire_bytes, wire_headers),
            ip_bytes: with(ip.ip_bytes, ip_headers),
            payload_bytes: ip.payload_bytes.into(),
            fragments: ip.fragment.is_some().into(),
            tcp_flags,
            ttl_min: ip.ttl,
            ttl_max: ip.ttl,
            dscp: ip.dscp,
            estimated: ip.estimated || !offload.is_exact,
            flaws: Flaws {
                bad_checksums: u64::from(packet.integrity != Integrity::Sound),
                overlapping_fragments: 0,
            },
            mac: packet.origin.link.source_mac,
            first: packet.time,
            last: packet.time,
        }
    }

    /// Of one plain packet.
    pub(super) fn of_plain(packet: &Plain) -> Self {
        Self {
            packets: 1,
            wire_bytes: packet.wire_length.into(),
            ip_bytes: packet.ip_bytes.into(),
            payload_bytes: packet.payload_bytes.into(),
            tcp_flags: if packet.transport == PlainTransport::Tcp { packet.tcp_flags } else { 0 },
            ttl_min: packet.ttl,
            ttl_max: packet.ttl,
            dscp: packet.dscp,
            flaws: Flaws { bad_checksums: packet.is_flawed.into(), overlapping_fragments: 0 },
            mac: Some(packet.source_mac),
            ..Self::none(packet.time)
        }
    }

    /// Of nothing, at a time.
    pub(super) const fn none(time: Timestamp) -> Self {
        Self {
            packets: 0,
            wire_bytes: 0,
            ip_bytes: 0,
            payload_bytes: 0,
            fragments: 0,
            tcp_flags: 0,
            ttl_min: 0,
            ttl_max: 0,
            dscp: 0,
            estimated: false,
            flaws: Flaws { bad_checksums: 0, overlapping_fragments: 0 },
            mac: None,
            first: time,
            last: time,
        }
    }

    /// Whether it counts nothing out of the ordinary.
    pub(super) fn is_plain(&self) -> bool {
        self.packets == 1 && self.fragments == 0 && !self.estimated && self.flaws == Flaws::default()
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

/// Tags and tunnels, which most flows do not have.
#[derive(Clone, Debug, Default)]
pub(super) struct Wrapping {
    pub mpls_labels: ArrayVec<u32, 4>,
    pub tunnel: Option<Tunnel>,
    pub parents: ArrayVec<FlowId, 4>,
}
