//! ARP and RARP (RFC 826, RFC 903) for IPv4 over Ethernet.

use std::net::Ipv4Addr;

use etherparse::ArpPacketSlice;

use super::{
    cursor::{Cursor, at_network},
    packet::{ArpOperation, ArpPacket, Unparsed},
    read,
    shim::IPV4,
};
use crate::{net::MacAddress, record::Reason};

/// Hardware types whose addresses are MAC addresses: Ethernet, and IEEE 802 (RFC 1042 networks).
const HARDWARE_WITH_MAC: [u16; 2] = [1, 6];

/// Decodes an ARP packet; ARP for other hardware or protocols is [`Reason::NotIp`].
pub(super) fn decode(at: Cursor<'_>) -> Result<ArpPacket, Unparsed> {
    let arp = ArpPacketSlice::from_slice(at.data).map_err(|_| at_network(Reason::Truncated))?;
    let hardware = arp.hw_addr_type().0;
    if !HARDWARE_WITH_MAC.contains(&hardware) || arp.proto_addr_type().0 != IPV4 {
        return Err(at_network(Reason::NotIp));
    }
    let mac = |field| read::array(field, 0).map(MacAddress);
    let ip = |field| read::array::<4>(field, 0).map(Ipv4Addr::from);
    if (arp.hw_addr_size(), arp.proto_addr_size()) != (6, 4) {
        return Err(at_network(Reason::BadLength));
    }
    let fields = || {
        Some(ArpPacket {
            operation: match arp.operation().0 {
                1 => ArpOperation::Request,
                2 => ArpOperation::Reply,
                other => ArpOperation::Other(other),
            },
            sender_mac: mac(arp.sender_hw_addr())?,
            sender_ip: ip(arp.sender_protocol_addr())?,
            target_mac: mac(arp.target_hw_addr())?,
            target_ip: ip(arp.target_protocol_addr())?,
        })
    };
    fields().ok_or(at_network(Reason::Truncated))
}
