//! What a packet is to the rest of the engine, before and after decoding.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;

use crate::{
    net::MacAddress,
    record::{Layer, Reason, Tunnel},
    time::Timestamp,
};

/// Number of an interface within one sensor, in order of `Sensor::add_interface`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InterfaceIndex(pub u16);

/// Link type of a capture: the number of the tcpdump.org registry of LINKTYPE_ values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

/// Which way a packet passed the capture point, where the source knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkDirection {
    /// Not known.
    #[default]
    Unknown,
    /// Received by the capturing host.
    Received,
    /// Sent by the capturing host.
    Sent,
}

/// One packet as a source hands it over.
#[derive(Clone, Copy, Debug)]
pub struct CapturedPacket<'a> {
    /// Packet time.
    pub time: Timestamp,
    /// Where it was captured.
    pub interface: InterfaceIndex,
    /// What its first header is.
    pub link_type: LinkType,
    /// Way, where the source states it beside the bytes (pcapng `epb_flags`).
    pub direction: LinkDirection,
    /// Length on the wire; at least `data.len()` in a sound capture, and not trusted to be.
    pub wire_length: u32,
    /// Captured bytes, cut at the snap length.
    pub data: &'a [u8],
}

/// A packet whose parsing stopped: where, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{layer}: {reason}")]
pub struct Unparsed {
    /// The layer.
    pub layer: Layer,
    /// The reason.
    pub reason: Reason,
}

/// Everything up to the network header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Source MAC address; none on links without one.
    pub source_mac: Option<MacAddress>,
    /// Destination MAC address.
    pub destination_mac: Option<MacAddress>,
    /// 802.1Q VLAN ids, outermost first; more than three are [`Reason::TooDeep`].
    pub vlans: ArrayVec<u16, 3>,
    /// MPLS labels, outermost first; the first four.
    pub mpls_labels: ArrayVec<u32, 4>,
    /// Way past the capture point.
    pub direction: LinkDirection,
}

/// One packet, decoded through its outermost network header and the transport header behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Link header and tags.
    pub link: Link,
    /// What they carry.
    pub content: Content<'a>,
}

/// What a link carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// IPv4 or IPv6.
    Ip(IpPacket<'a>),
    /// ARP (or RARP) for IPv4 over Ethernet.
    Arp(ArpPacket),
}

/// An IP packet: header, fragment and transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol behind all extension headers (and AH).
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// DSCP: the upper six bits of type of service or traffic class.
    pub dscp: u8,
    /// IPv4 total length, or 40 + IPv6 payload length; where that is 0 (offload, jumbogram), what is left of
    /// the frame by its wire length.
    pub ip_bytes: u32,
    /// Bytes behind the transport header by the length fields; for a later fragment or another protocol,
    /// everything behind the IP headers.
    pub payload_bytes: u32,
    /// Whether a length field was 0 or contradicted another, so that the counts are an estimate.
    pub estimated: bool,
    /// Set on every fragment but an atomic one.
    pub fragment: Option<Fragment>,
    /// The transport header.
    pub transport: Transport,
    /// Captured bytes of the packet from its IP header on, without Ethernet padding.
    pub bytes: &'a [u8],
    /// How many of them are IP headers.
    pub header_bytes: u32,
    /// Captured bytes behind the transport header (behind the IP headers where there is none), without
    /// Ethernet padding.
    pub payload: &'a [u8],
}

impl<'a> IpPacket<'a> {
    /// Captured bytes of the IP headers.
    pub fn header(&self) -> &'a [u8] {
        self.bytes.get(..self.header_bytes as usize).unwrap_or(self.bytes)
    }

    /// Captured bytes behind the IP headers.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(self.header_bytes as usize..).unwrap_or_default()
    }

    /// Bytes behind the IP headers by the length fields.
    pub const fn body_bytes(&self) -> u32 {
        self.ip_bytes.saturating_sub(self.header_bytes)
    }

    /// Whether all of it was captured.
    pub fn is_whole(&self) -> bool {
        self.bytes.len() >= self.ip_bytes as usize
    }
}

/// Where a fragment belongs. The fragments of one datagram agree in source, destination, `identification` and
/// `key_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Protocol field of the IPv4 header (RFC 791), which is not the protocol behind AH; 0 for IPv6, where
    /// it is no part of the key (RFC 8200 section 4.5).
    pub key_protocol: u8,
    /// Identification field (16 bits for IPv4, 32 for IPv6).
    pub identification: u32,
    /// Offset in bytes; zero for a first fragment.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}

/// The transport header, as far as flows need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with its header at least up to the window field.
    Tcp(TcpSegment),
    /// UDP, UDP-Lite, SCTP, DCCP: ports. Also TCP whose header is cut behind the ports.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Bytes 4 to 7 of the header, whose meaning the type gives (echo: identifier and sequence); zero
        /// where they are cut.
        rest: [u8; 4],
    },
    /// Another protocol, a later fragment, or a header that is cut before its ports.
    None,
}

/// What the TCP state machine reads of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSegment {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags, 0x001 FIN … 0x080 CWR, 0x100 NS/AE.
    pub flags: u16,
    /// Window as sent, not scaled.
    pub window: u16,
}

impl TcpSegment {
    /// FIN.
    pub const FIN: u16 = 0x001;
    /// SYN.
    pub const SYN: u16 = 0x002;
    /// RST.
    pub const RST: u16 = 0x004;
    /// PSH.
    pub const PSH: u16 = 0x008;
    /// ACK.
    pub const ACK: u16 = 0x010;

    /// Whether all of these flags are set.
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

/// ARP operations that say something about addresses (IANA arp-parameters).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArpOperation {
    /// 1.
    Request,
    /// 2.
    Reply,
    /// Any other, RARP among them.
    Other(u16),
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// Operation.
    pub operation: ArpOperation,
    /// Sender hardware address.
    pub sender_mac: MacAddress,
    /// Sender protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: MacAddress,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

/// The packet inside a tunnel, to be decoded as one more IP packet or frame.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// The encapsulation.
    pub tunnel: Tunnel,
    /// What `data` begins with.
    pub starts_with: InnerStart,
    /// Captured bytes of the inner packet.
    pub data: &'a [u8],
    /// Its length by the outer length fields.
    pub wire_length: u32,
    /// The VLAN id that the frame had on the wire and that only the tunnel header still tells (ERSPAN type II).
    pub vlan: Option<u16>,
    /// The packet's sequence number (GRE, ERSPAN).
    pub sequence: Option<u32>,
}

/// What an inner packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerStart {
    /// An Ethernet header.
    Ethernet,
    /// This ethertype's header (0x0800, 0x86dd, 0x8847, …).
    EtherType(u16),
    /// The header of this link type.
    Link(LinkType),
    /// An IEEE 802.11 header whose frame control and sequence control have their two bytes in the wrong order, as
    /// some access points send them.
    SwappedIeee80211,
}
