//! What ARP, NDP, DHCPv4 and DHCPv6 messages say about addresses in use.

use std::{fmt::Write, net::IpAddr};

use arrayvec::ArrayVec;

use crate::{
    decode::{
        ArpOperation, ArpPacket, IpPacket, Link, Transport,
        dhcp4::{self, Dhcp4Message, Dhcp4Operation, Dhcp4Type},
        dhcp6::{self, Dhcp6Message, Dhcp6Type},
        ndp::{self, NdpKind, NdpMessage},
    },
    net::MacAddress,
    record::{ObservationKind, Strength},
};

/// Longest host name or vendor class that is kept, in characters.
const MAX_TEXT: usize = 255;
/// At most this many statements of one message are used: sixteen addresses and the server.
pub(super) const MAX_STATEMENTS: usize = 18;

/// What a DHCP message says beside the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) hostname: Option<String>,
    pub(super) lease_seconds: Option<u32>,
    pub(super) server: Option<IpAddr>,
    pub(super) relay: Option<IpAddr>,
    pub(super) vendor_class: Option<String>,
    pub(super) duid: Option<String>,
}

/// One address that a message says something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) kind: ObservationKind,
    pub(super) address: IpAddr,
    pub(super) mac: Option<MacAddress>,
    pub(super) details: Option<Box<Details>>,
}

pub(super) type Statements = ArrayVec<Statement, MAX_STATEMENTS>;

/// How far an observation of this kind proves use: a host that answers for an address, claims it or is leased it
/// uses it; a source address anyone can write; a question is no use.
pub(super) const fn strength(kind: ObservationKind) -> Strength {
    match kind {
        ObservationKind::ArpReply
        | ObservationKind::ArpAnnouncement
        | ObservationKind::NeighborAdvertisement
        | ObservationKind::Dhcp4Lease
        | ObservationKind::Dhcp6Lease => Strength::Strong,
        ObservationKind::ArpProbe
        | ObservationKind::NeighborProbe
        | ObservationKind::Dhcp4Request
        | ObservationKind::Dhcp6Request
        | ObservationKind::Dhcp4Release
        | ObservationKind::Dhcp6Release => Strength::Weak,
        ObservationKind::Traffic
        | ObservationKind::ArpRequest
        | ObservationKind::NeighborSolicitation
        | ObservationKind::RouterAdvertisement
        | ObservationKind::NeighborOther
        | ObservationKind::DhcpServer => Strength::Medium,
    }
}

fn plain(kind: ObservationKind, address: impl Into<IpAddr>, mac: Option<MacAddress>) -> Statement {
    let mac = mac.filter(|mac| !mac.is_zero() && !mac.is_group());
    Statement { kind, address: address.into(), mac, details: None }
}

/// ARP (RFC 826, RFC 5227).
pub(super) fn of_arp(arp: &ArpPacket) -> Option<Statement> {
    let mac = Some(arp.sender_mac);
    let kind = match arp.operation {
        ArpOperation::Other(_) => return None,
        ArpOperation::Request if arp.sender_ip.is_unspecified() => {
            return Some(plain(ObservationKind::ArpProbe, arp.target_ip, mac));
        }
        _ if arp.sender_ip == arp.target_ip => ObservationKind::ArpAnnouncement,
        ArpOperation::Request => ObservationKind::ArpRequest,
        ArpOperation::Reply => ObservationKind::ArpReply,
    };
    Some(plain(kind, arp.sender_ip, mac))
}

/// Whether a packet may be NDP or DHCP, by type or ports.
pub(crate) const fn may_state(packet: &IpPacket<'_>) -> bool {
    match packet.transport {
        Transport::Icmp { kind, .. } => may_state_by(packet.protocol, kind as u16, 0),
        Transport::Ports { source, destination } => may_state_by(packet.protocol, source, destination),
        _ => false,
    }
}

/// [`may_state`] by protocol and ports, or the type of ICMP in place of the first.
#[inline]
pub(crate) const fn may_state_by(protocol: u8, source: u16, destination: u16) -> bool {
    match protocol {
        58 => matches!(source, 133..=137),
        17 => matches!((source, destination), (67 | 68 | 546 | 547, 67 | 68 | 546 | 547)),
        _ => false,
    }
}

/// NDP or DHCP out of an IP packet behind this link header; empty for all others.
pub(super) fn of_ip(packet: &IpPacket<'_>, link: &Link) -> Statements {
    match packet.transport {
        Transport::Icmp { kind: 133..=137, .. } if packet.protocol == 58 => {
            ndp::parse(packet).map(|message| of_ndp(&message, link.source_mac)).unwrap_or_default()
        }
        Transport::Ports { source, destination } if packet.protocol == 17 && packet.fragment.is_none() => {
            match (source, destination) {
                (67 | 68, 67 | 68) => dhcp4::parse(packet.payload)
                    .map(|message| of_dhcp4(&message, packet.source))
                    .unwrap_or_default(),
                (546 | 547, 546 | 547) => dhcp6::parse(packet.payload)
                    .map(|message| of_dhcp6(&message, packet, link))
                    .unwrap_or_default(),
                _ => Statements::new(),
            }
        }
        _ => Statements::new(),
    }
}

fn of_ndp(message: &NdpMessage, source_mac: Option<MacAddress>) -> Statements {
    let mut statements = Statements::new();
    let mac = message.source_mac.or(source_mac);
    match message.kind {
        NdpKind::NeighborSolicitation { target } if message.source.is_unspecified() => {
            statements.push(plain(ObservationKind::NeighborProbe, target, source_mac));
        }
        NdpKind::NeighborSolicitation { .. } => {
            statements.push(plain(ObservationKind::NeighborSolicitation, message.source, mac));
        }
        NdpKind::NeighborAdvertisement { target, .. } => {
            let mac = message.target_mac.or(source_mac);
            statements.push(plain(ObservationKind::NeighborAdvertisement, target, mac));
        }
        NdpKind::RouterAdvertisement { .. } => {
            statements.push(plain(ObservationKind::RouterAdvertisement, message.source, mac));
        }
        NdpKind::RouterSolicitation if message.source.is_unspecified() => {}
        NdpKind::RouterSolicitation | NdpKind::Redirect { .. } => {
            statements.push(plain(ObservationKind::NeighborOther, message.source, mac));
        }
    }
    statements
}

fn text(value: Option<&String>) -> Option<String> {
    value.filter(|v| !v.is_empty()).map(|v| v.chars().take(MAX_TEXT).collect())
}

fn of_dhcp4(message: &Dhcp4Message, source: IpAddr) -> Statements {
    let mut statements = Statements::new();
    let server = message.server_id.map(IpAddr::V4);
    let relay = message.relay_ip.map(IpAddr::V4);
    let mut state = |kind, address: Option<std::net::Ipv4Addr>, lease_seconds| {
        if let Some(address) = address {
            let details = Details {
                hostname: text(message.fqdn.as_ref()).or_else(|| text(message.hostname.as_ref())),
                lease_seconds,
                server,
                relay,
                vendor_class: text(message.vendor_class.as_ref()),
                duid: message.client_id.as_deref().map(hexadecimal),
            };
            let details = Some(Box::new(details));
            statements.push(Statement { details, ..plain(kind, address, message.client_mac) });
        }
    };
    match (message.operation, message.message_type) {
        // An Ack to Inform gives no address and has no lease (RFC 2131 section 3.4).
        (Dhcp4Operation::Reply, Some(Dhcp4Type::Ack)) if message.lease_seconds.is_some() => {
            state(ObservationKind::Dhcp4Lease, message.your_ip, message.lease_seconds);
        }
        // Renewing, the client has the address already; otherwise it asks for it.
        (Dhcp4Operation::Request, Some(Dhcp4Type::Request)) => {
            state(ObservationKind::Dhcp4Request, message.client_ip.or(message.requested_ip), None);
        }
        (Dhcp4Operation::Request, Some(Dhcp4Type::Release)) => {
            state(ObservationKind::Dhcp4Release, message.client_ip, None);
        }
        (Dhcp4Operation::Request, Some(Dhcp4Type::Decline)) => {
            state(ObservationKind::Dhcp4Release, message.requested_ip, None);
        }
        _ => {}
    }
    // A message without a type is BOOTP, or cut: it may be anything.
    if message.operation == Dhcp4Operation::Reply
        && message.message_type.is_some()
        && let Some(server) = server.or(Some(source))
    {
        // Behind a relay the frame is the relay's or a router's, so no MAC address is claimed for the server.
        let details = Details { relay, ..Details::default() };
        let statement = plain(ObservationKind::DhcpServer, server, None);
        statements.push(Statement { details: Some(Box::new(details)), ..statement });
    }
    statements
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The client's MAC address: that of its end of the frame where the message passes between it and its link's
/// server or relay, which its link-local address shows. Its identifier may be made from another interface.
fn client_mac6(message: &Dhcp6Message, packet: &IpPacket<'_>, link: &Link) -> Option<MacAddress> {
    let (client, mac) = match message.message_type.is_from_server() {
        true => (packet.destination, link.destination_mac),
        false => (packet.source, link.source_mac),
    };
    let is_on_link = matches!(client, IpAddr::V6(client) if client.is_unicast_link_local());
    let mac = mac.filter(|mac| is_on_link && message.relays.is_empty() && !mac.is_group());
    mac.or(message.client_mac)
}

fn of_dhcp6(message: &Dhcp6Message, packet: &IpPacket<'_>, link: &Link) -> Statements {
    let mut statements = Statements::new();
    let from_server = message.message_type.is_from_server();
    // A server that does not say who it is is none (RFC 8415 sections 16.3 and 16.10), and one that refuses gives
    // nothing.
    if from_server && (message.server_duid.is_none() || message.status != 0) {
        return statements;
    }
    let kind = match message.message_type {
        Dhcp6Type::Reply => Some(ObservationKind::Dhcp6Lease),
        Dhcp6Type::Request | Dhcp6Type::Renew | Dhcp6Type::Rebind | Dhcp6Type::Confirm => {
            Some(ObservationKind::Dhcp6Request)
        }
        Dhcp6Type::Release | Dhcp6Type::Decline => Some(ObservationKind::Dhcp6Release),
        _ => None,
    };
    let relay = message.relays.last().map(|relay| relay.link_address).filter(|ip| !ip.is_unspecified());
    let direct = message.relays.is_empty();
    let server = (from_server && direct).then_some(packet.source);
    let mac = client_mac6(message, packet, link);
    for address in &message.addresses {
        // A lifetime of zero takes the address away (RFC 8415 section 18.2.10.1).
        let kind = match kind {
            Some(ObservationKind::Dhcp6Lease) if address.valid_seconds == 0 => ObservationKind::Dhcp6Release,
            Some(kind) => kind,
            None => break,
        };
        let leased = kind == ObservationKind::Dhcp6Lease;
        let details = Details {
            hostname: text(message.fqdn.as_ref()),
            lease_seconds: leased.then_some(address.valid_seconds),
            server,
            relay: relay.map(IpAddr::V6),
            vendor_class: None,
            duid: message.client_duid.as_deref().map(hexadecimal),
        };
        let statement = plain(kind, address.address, mac);
        if statements.try_push(Statement { details: Some(Box::new(details)), ..statement }).is_err() {
            break;
        }
    }
    if let Some(server) = server {
        let _ = statements.try_push(plain(ObservationKind::DhcpServer, server, link.source_mac));
    }
    statements
}
