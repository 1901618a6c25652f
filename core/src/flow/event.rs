//! What the flow table tells the floors above it: an event, and the flow it happened to.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;

use super::identity::FlowIdentity;
use crate::{
    decode::InterfaceIndex,
    net::MacAddress,
    plan::Role,
    record::{ConnState, EndReason, FlowId, Locality, StackSample},
    time::Timestamp,
};

/// What happened to a flow. Per-packet updates raise no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// First packet. The originator can still turn out to be the other side.
    Started,
    /// First packet of the side that did not send the first one: both sides have been heard.
    Answered,
    /// TCP: the handshake is complete, or both sides were heard in midstream.
    Established,
    /// TCP: a RST in answer to SYN. ICMP destination unreachable is not taken as a refusal here.
    Refused,
    /// TCP: the attempt timer ran out with no answer to the SYN.
    Unanswered,
    /// TCP: there were too many attempts, and this one was added to an aggregate before its timer ran out. Nothing
    /// more is told of it, and its packet is that of the context.
    Collapsed,
    /// A packet of one side has another MAC address than those before; the context is that before this packet,
    /// and `Party::packets_by_mac` is of the old address. At most 16 times in one part of a flow.
    Moved,
    /// The record of this part is written. The last part of a flow can be empty.
    Reported(EndReason),
}

/// One side of a flow at the time of an event.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Address.
    pub ip: IpAddr,
    /// Port, type or code, as in the flow record.
    pub port: u16,
    /// Source MAC of its packets.
    pub mac: Option<MacAddress>,
    /// Packets it sent, over the whole flow.
    pub packets: u64,
    /// Packets it sent with `mac` since the last `Moved` or `Reported`: what passive observation counts.
    pub packets_by_mac: u64,
    /// Bytes of IP it sent, over the whole flow.
    pub ip_bytes: u64,
    /// Payload bytes it sent, over the whole flow.
    pub payload_bytes: u64,
    /// Lowest TTL or hop limit; 0 before its first packet.
    pub ttl_min: u8,
    /// Highest TTL or hop limit.
    pub ttl_max: u8,
    /// Ours or not.
    pub locality: Locality,
    /// Segment its packets arrived on: index into the plan's segments.
    pub segment: Option<u16>,
    /// Secretariat by segment, or else by prefix: index into the plan's secretariats.
    pub secretariat: Option<u16>,
}

/// The flow an event happened to.
#[derive(Clone, Debug)]
pub struct FlowContext {
    /// Identity, made when it is asked for.
    pub identity: FlowIdentity,
    /// IP protocol number.
    pub protocol: u8,
    /// Originator.
    pub originator: Party,
    /// Responder.
    pub responder: Party,
    /// State so far.
    pub conn_state: ConnState,
    /// Whether the originator's SYN (without ACK) was seen.
    pub syn_seen: bool,
    /// First packet of the flow.
    pub start: Timestamp,
    /// Last packet so far.
    pub last: Timestamp,
    /// When the event happened, in packet time.
    pub now: Timestamp,
    /// Interface of the first packet.
    pub interface: InterfaceIndex,
    /// Its role.
    pub role: Role,
    /// VLANs of the first packet.
    pub vlans: ArrayVec<u16, 3>,
    /// Whether the flow was found inside a tunnel.
    pub tunnelled: bool,
    /// Way of the packet that raised the event, on an outside interface: from us to the internet (`Some(true)`),
    /// from the internet to us (`Some(false)`), by router MAC or link direction; none where neither is known.
    pub leaving: Option<bool>,
    /// Whether the originator sent the packet that raised the event (the side that sent the first packet seen can be
    /// the responder); none where no packet raised it.
    pub by_originator: Option<bool>,
    /// What the packet that raised the event says of its sender's stack, where it is a SYN.
    pub stack: Option<StackSample>,
}

impl Default for Party {
    fn default() -> Self {
        Self {
            ip: Ipv4Addr::UNSPECIFIED.into(),
            port: 0,
            mac: None,
            packets: 0,
            packets_by_mac: 0,
            ip_bytes: 0,
            payload_bytes: 0,
            ttl_min: 0,
            ttl_max: 0,
            locality: Locality::Unknown,
            segment: None,
            secretariat: None,
        }
    }
}

impl Default for FlowContext {
    /// Of no flow: to be written over.
    fn default() -> Self {
        let never = Timestamp(0);
        Self {
            identity: FlowIdentity::Known(FlowId(0)),
            protocol: 0,
            originator: Party::default(),
            responder: Party::default(),
            conn_state: ConnState::Oth,
            syn_seen: false,
            start: never,
            last: never,
            now: never,
            interface: InterfaceIndex(0),
            role: Role::Unknown,
            vlans: ArrayVec::new(),
            tunnelled: false,
            leaving: None,
            by_originator: None,
            stack: None,
        }
    }
}

impl FlowContext {
    /// Identity. Each call makes it anew.
    pub fn flow_id(&self) -> FlowId {
        self.identity.id()
    }
}
