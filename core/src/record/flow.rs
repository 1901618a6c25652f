//! The flow record: one biflow, or one part of a long one.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use super::FlowId;
use crate::{
    net::{MacAddress, Name},
    time::Timestamp,
};

/// Defines an enum whose names in JSON and text, and whose codes, stand in one table.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $code:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$item_doc])* #[serde(rename = $text)] $item = $code,)+
        }

        impl $name {
            /// Every value, in order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$item),+];

            /// The name in JSON and text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$item => $text,)+ }
            }

            /// The code, on the wire where it travels.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The value of a code; none where the code is not known.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$item),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// Why a record was written: IPFIX flowEndReason (IANA IPFIX information element 136), same codes.
    EndReason {
        /// No packet for the idle timeout.
        Idle = 1 "idle",
        /// Still active at the active timeout; another part follows.
        Active = 2 "active",
        /// The end was seen: FIN from both sides, or RST.
        Ended = 3 "ended",
        /// The capture ended, or the sensor was told to stop.
        Forced = 4 "forced",
        /// The table was full and this flow gave way.
        Resources = 5 "resources",
    }
}

named_enum! {
    /// State of a connection, with the meaning of Zeek's `conn_state`.
    ConnState {
        /// Attempt seen, no reply.
        S0 = 0 "S0",
        /// Established, not ended.
        S1 = 1 "S1",
        /// Established and closed on both sides.
        SF = 2 "SF",
        /// Attempt rejected.
        Rej = 3 "REJ",
        /// Established, the originator closed, no close from the responder.
        S2 = 4 "S2",
        /// Established, the responder closed, no close from the originator.
        S3 = 5 "S3",
        /// Established, the originator reset.
        Rsto = 6 "RSTO",
        /// The responder reset.
        Rstr = 7 "RSTR",
        /// The originator sent SYN then RST, with no SYN-ACK from the responder.
        Rstos0 = 8 "RSTOS0",
        /// The responder sent SYN-ACK then RST, with no SYN from the originator.
        Rstrh = 9 "RSTRH",
        /// The originator sent SYN then FIN, with no SYN-ACK ("half open").
        Sh = 10 "SH",
        /// The responder sent SYN-ACK then FIN, with no SYN from the originator.
        Shr = 11 "SHR",
        /// No SYN seen, or no state applies.
        Oth = 12 "OTH",
    }
}

impl ConnState {
    /// Whether the handshake was seen whole, however the connection ended.
    pub const fn was_established(self) -> bool {
        matches!(self, Self::S1 | Self::SF | Self::S2 | Self::S3 | Self::Rsto | Self::Rstr)
    }
}

named_enum! {
    /// Way of a flow in respect of the networks that are ours.
    Direction {
        /// Neither side could be placed.
        Unknown = 0 "unknown",
        /// From outside to us.
        Inbound = 1 "inbound",
        /// From us to outside.
        Outbound = 2 "outbound",
        /// Both sides are ours.
        Internal = 3 "internal",
        /// Neither side is ours.
        External = 4 "external",
    }
}

named_enum! {
    /// Why the originator is taken as originator.
    DirectionReason {
        /// It sent the first packet seen, and nothing speaks against it.
        FirstPacket = 0 "first-packet",
        /// It sent the SYN.
        Syn = 1 "syn",
        /// The other side sent a SYN-ACK first, so this side must have sent the SYN before the capture.
        SynAck = 2 "syn-ack",
        /// Only the other side's port is one that servers use; the first packet seen was a reply.
        ServerPort = 3 "server-port",
        /// Later packets showed the first guess wrong; every counter was moved.
        Repaired = 4 "repaired",
    }
}

named_enum! {
    /// Whether counters are as on the wire.
    Counting {
        /// Every packet was seen as on the wire.
        Exact = 0 "exact",
        /// Sampling, offload or cut headers make the counts an estimate.
        Estimated = 1 "estimated",
    }
}

named_enum! {
    /// Where an address belongs.
    Locality {
        /// Not decided by the plan.
        Unknown = 0 "unknown",
        /// Ours.
        Inside = 1 "inside",
        /// Not ours.
        Outside = 2 "outside",
    }
}

named_enum! {
    /// Encapsulations that are opened.
    TunnelKind {
        /// Generic Routing Encapsulation (RFC 2784, RFC 2890; version 1: RFC 2637).
        Gre = 0 "gre",
        /// IP in IP (RFC 2003, RFC 2473) and 6in4 (RFC 4213).
        IpInIp = 1 "ip-in-ip",
        /// VXLAN (RFC 7348) and VXLAN-GPE.
        Vxlan = 2 "vxlan",
        /// Geneve (RFC 8926).
        Geneve = 3 "geneve",
        /// GTP-U (3GPP TS 29.281).
        GtpU = 4 "gtp-u",
        /// ERSPAN types I, II and III (carried by GRE).
        Erspan = 5 "erspan",
        /// Teredo (RFC 4380).
        Teredo = 6 "teredo",
        /// L2TP (RFC 2661, RFC 3931).
        L2tp = 7 "l2tp",
        /// AYIYA.
        Ayiya = 8 "ayiya",
        /// MPLS in UDP (RFC 7510).
        MplsInUdp = 9 "mpls-in-udp",
        /// EtherIP (RFC 3378).
        EtherIp = 10 "etherip",
        /// CAPWAP data (RFC 5415).
        Capwap = 11 "capwap",
        /// MPLS in IP (RFC 4023).
        MplsInIp = 12 "mpls-in-ip",
        /// TaZmen Sniffer Protocol.
        Tzsp = 13 "tzsp",
        /// LISP data (RFC 9300).
        Lisp = 14 "lisp",
        /// Generic UDP Encapsulation (draft-ietf-intarea-gue).
        Gue = 15 "gue",
    }
}

/// The encapsulation that a flow was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    /// Which encapsulation.
    pub kind: TunnelKind,
    /// VNI, GRE key, GTP TEID, ERSPAN or L2TP session; none where the header carries no number.
    pub id: Option<u32>,
}

/// What is told in one record: attempts, because there were more at a time than are kept apart, or flows, because the spool
/// had no room for each. The sides of such a record are prefixes: `ip` is the first address of each, `port` is 0 where the
/// ports differ. Its counters are exact sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aggregate {
    /// Attempts in it, each a flow that has no record of its own.
    pub flows: u64,
    /// Different originators: exact up to 32, then an estimate with a standard error of 6.5 %.
    pub originators: u64,
    /// Bits of the longest prefix that holds every originator.
    pub originator_prefix: u8,
    /// Bits of the longest prefix that holds every responder.
    pub responder_prefix: u8,
}

/// One side of a biflow and what it sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowSide {
    /// Address.
    pub ip: IpAddr,
    /// Port; for ICMP the type (originator) and its counterpart or the code (responder), as Community ID does.
    pub port: u16,
    /// Source MAC address of its packets, as first seen.
    pub mac: Option<MacAddress>,
    /// Packets it sent (each fragment is a packet).
    pub packets: u64,
    /// Bytes on the wire, link header included, as the capture record states them.
    pub wire_bytes: u64,
    /// Bytes of IP: IPv4 total length, or 40 + IPv6 payload length. Ethernet padding is not counted.
    pub ip_bytes: u64,
    /// Bytes behind the transport header, by the length fields.
    pub payload_bytes: u64,
    /// OR of the TCP flags, 0x100 = NS/AE; zero for other protocols.
    pub tcp_flags: u16,
    /// Packets that were IP fragments.
    pub fragments: u64,
    /// Lowest time to live or hop limit; zero before the side sent anything.
    pub ttl_min: u8,
    /// Highest time to live or hop limit.
    pub ttl_max: u8,
    /// DSCP of the first packet (RFC 2474).
    pub dscp: u8,
    /// TCP segments with payload that had been seen before.
    pub retransmissions: u64,
    /// Payload bytes missing from the TCP sequence (Zeek's missed_bytes, each way).
    pub missed_bytes: u64,
    /// TCP segments that closed the window: it was zero, and the segment no RST nor behind the peer's FIN.
    pub zero_windows: u64,
    /// Packets with a wrong checksum (IPv4 header, TCP, UDP, ICMP, SCTP), as far as they could be checked.
    pub bad_checksums: u64,
    /// Fragments that cover bytes which other fragments of their datagram cover too, exact repeats left out:
    /// what the receiver makes of them depends on the receiver.
    pub overlapping_fragments: u64,
    /// Ours or not.
    pub locality: Locality,
    /// Segment the packets of this side arrived on.
    pub segment: Option<Name>,
    /// Secretariat, by segment or else by address plan.
    pub secretariat: Option<Name>,
}

/// One biflow, or one part of a long one. Counters are of this part; the parts of a flow add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Identity of the flow, the same in each of its parts.
    pub flow_id: FlowId,
    /// Community ID version 1, with the seed of the configuration.
    pub community_id: String,
    /// First packet of the flow.
    pub flow_start: Timestamp,
    /// First packet of this part.
    pub start: Timestamp,
    /// Last packet of this part.
    pub end: Timestamp,
    /// Number of this part, from 0.
    pub part: u32,
    /// Why this record was written.
    pub end_reason: EndReason,
    /// IP protocol number (IANA).
    pub protocol: u8,
    /// Who started it.
    pub originator: FlowSide,
    /// Who answered, or was to answer.
    pub responder: FlowSide,
    /// State at the end of this part.
    pub conn_state: ConnState,
    /// What happened, in Zeek's letters, over the whole flow so far; empty for protocols without history.
    pub history: String,
    /// Why the originator is the originator.
    pub direction_reason: DirectionReason,
    /// Way in respect of our networks.
    pub direction: Direction,
    /// Site of the sensor.
    pub site: Name,
    /// Interface of the first packet.
    pub interface: Name,
    /// 802.1Q VLAN ids of the first packet, outermost first.
    pub vlans: ArrayVec<u16, 3>,
    /// MPLS labels of the first packet, outermost first (the first four).
    pub mpls_labels: ArrayVec<u32, 4>,
    /// The innermost encapsulation around the flow.
    pub tunnel: Option<Tunnel>,
    /// Flows that carry this one, outermost first.
    pub tunnel_parents: ArrayVec<FlowId, 4>,
    /// Nanoseconds from SYN to SYN-ACK.
    pub rtt_syn_to_syn_ack: Option<i64>,
    /// Nanoseconds from SYN-ACK to the ACK that completed the handshake.
    pub rtt_syn_ack_to_ack: Option<i64>,
    /// Whether the counters are as on the wire.
    pub counting: Counting,
    /// Of so many flows one was metered, and this is of those: 1 where all were. Nothing is scaled.
    pub sampling: u32,
    /// Set where this stands for many attempts; none for a flow of its own.
    pub aggregate: Option<Aggregate>,
}

impl FlowRecord {
    /// Flows that this record tells of.
    pub const fn flows(&self) -> u64 {
        match &self.aggregate {
            Some(aggregate) => aggregate.flows,
            None => 1,
        }
    }

    /// Whether only one direction was ever seen in this part.
    pub const fn is_half_flow(&self) -> bool {
        self.originator.packets == 0 || self.responder.packets == 0
    }
}
