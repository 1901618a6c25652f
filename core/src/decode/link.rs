//! Link headers by link type of the capture: what a packet begins with, and what follows it.

use super::{
    cursor::{Cursor, at_link},
    packet::{CapturedPacket, Decoded, Inner, InnerStart, Link, LinkDirection, LinkType, Unparsed},
    read,
    shim::{self, Next},
};
use crate::{net::MacAddress, record::Reason};

impl LinkType {
    /// BSD loopback, family in the byte order of the capturing machine.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// PPP.
    pub const PPP: Self = Self(9);
    /// PPP in HDLC-like framing, or Cisco HDLC.
    pub const PPP_HDLC: Self = Self(50);
    /// PPPoE session packets without their Ethernet header.
    pub const PPP_ETHER: Self = Self(51);
    /// IPv4 or IPv6 without a link header.
    pub const RAW: Self = Self(101);
    /// Cisco PPP with HDLC framing.
    pub const C_HDLC: Self = Self(104);
    /// OpenBSD loopback, family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux "cooked" capture.
    pub const LINUX_SLL: Self = Self(113);
    /// IPv4 without a link header.
    pub const IPV4: Self = Self(228);
    /// IPv6 without a link header.
    pub const IPV6: Self = Self(229);
    /// Linux "cooked" capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);
}

/// ARPHRD_ETHER of Linux: the address in a cooked header is a MAC address.
const HARDWARE_ETHERNET: u16 = 1;
/// ARPHRD_LOOPBACK: so is that of the loopback interface.
const HARDWARE_LOOPBACK: u16 = 772;
/// ARPHRD_NETLINK: the protocol field is a netlink family, not an ethertype.
const HARDWARE_NETLINK: u16 = 824;

/// Decodes one packet: link header, tags, the outermost network header and the transport header behind it.
/// Work is bounded by constants, whatever the bytes are.
pub fn decode<'a>(packet: &CapturedPacket<'a>) -> Result<Decoded<'a>, Unparsed> {
    let mut link = Link { direction: packet.direction, ..Link::default() };
    let start = Cursor::new(packet.data, packet.wire_length);
    let (next, at) = match packet.link_type {
        LinkType::ETHERNET => (Next::Ethernet, start),
        other => link_header(other, start, &mut link)?,
    };
    let content = shim::content(next, at, &mut link)?;
    Ok(Decoded { link, content })
}

/// Decodes the packet inside a tunnel. The link of the result is that of the inner packet: its MAC addresses
/// and tags, where it begins with an Ethernet header.
pub fn decode_inner<'a>(inner: &Inner<'a>) -> Result<Decoded<'a>, Unparsed> {
    let mut link = Link::default();
    let at = Cursor::new(inner.data, inner.wire_length);
    let next = match inner.starts_with {
        InnerStart::Ethernet => Next::Ethernet,
        InnerStart::EtherType(ether_type) => Next::EtherType(ether_type),
    };
    let content = shim::content(next, at, &mut link)?;
    Ok(Decoded { link, content })
}

fn link_header<'a>(
    link_type: LinkType,
    at: Cursor<'a>,
    link: &mut Link,
) -> Result<(Next, Cursor<'a>), Unparsed> {
    let found = match link_type {
        LinkType::NULL | LinkType::LOOP => loopback(link_type, at),
        LinkType::PPP | LinkType::PPP_HDLC => ppp(at),
        LinkType::PPP_ETHER => Some((Next::EtherType(0x8864), at)),
        // 12 and 14 are DLT_RAW of some systems, which some programs write into files.
        LinkType(12 | 14) | LinkType::RAW => Some((Next::Ip, at)),
        LinkType::C_HDLC => cisco_hdlc(at),
        LinkType::LINUX_SLL => cooked(at, link),
        LinkType::IPV4 => Some((Next::EtherType(shim::IPV4), at)),
        LinkType::IPV6 => Some((Next::EtherType(shim::IPV6), at)),
        LinkType::LINUX_SLL2 => cooked_v2(at, link),
        _ => return Err(at_link(Reason::UnknownLinkType)),
    };
    found.ok_or(at_link(Reason::Truncated))
}

/// Address family of the capturing system: 2 is IPv4 everywhere, IPv6 differs.
fn loopback(link_type: LinkType, at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    let big_endian = at.be32(0)?;
    // Families are small numbers, so the byte order shows by itself.
    let swapped = link_type == LinkType::NULL && big_endian > 0xffff;
    let next = match if swapped { big_endian.swap_bytes() } else { big_endian } {
        2 => Next::EtherType(shim::IPV4),
        10 | 24 | 28 | 30 => Next::EtherType(shim::IPV6),
        _ => Next::NotIp,
    };
    Some((next, at.skip(4)?))
}

/// With or without address and control bytes (RFC 1662); Cisco HDLC in the same frames shows by its address.
fn ppp(at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    match at.data {
        [0xff, 0x03, ..] => Some((Next::Ppp, at.skip(2)?)),
        [0x0f | 0x8f, 0, ..] => cisco_hdlc(at),
        [] => None,
        _ => Some((Next::Ppp, at)),
    }
}

/// Address, control, ethertype.
fn cisco_hdlc(at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    let next = match at.be16(2)? {
        // Here the number is not RARP's but Cisco's keep-alive.
        0x8035 => Next::KeepAlive,
        ether_type => Next::EtherType(ether_type),
    };
    Some((next, at.skip(4)?))
}

/// LINKTYPE_LINUX_SLL: packet type, hardware type, address length, address, protocol.
fn cooked<'a>(at: Cursor<'a>, link: &mut Link) -> Option<(Next, Cursor<'a>)> {
    let (hardware, protocol) = (at.be16(2)?, at.be16(14)?);
    link.source_mac = cooked_mac(hardware, at.be16(4)?, at.data, 6);
    set_direction(link, at.be16(0)?);
    Some((cooked_next(hardware, protocol), at.skip(16)?))
}

/// LINKTYPE_LINUX_SLL2: protocol, reserved, interface, hardware type, packet type, address length, address.
fn cooked_v2<'a>(at: Cursor<'a>, link: &mut Link) -> Option<(Next, Cursor<'a>)> {
    let (protocol, hardware) = (at.be16(0)?, at.be16(8)?);
    link.source_mac = cooked_mac(hardware, u16::from(at.byte(11)?), at.data, 12);
    set_direction(link, u16::from(at.byte(10)?));
    Some((cooked_next(hardware, protocol), at.skip(20)?))
}

fn cooked_mac(hardware: u16, length: u16, data: &[u8], at: usize) -> Option<MacAddress> {
    let has_mac = matches!(hardware, HARDWARE_ETHERNET | HARDWARE_LOOPBACK) && length == 6;
    read::array(data, at).filter(|_| has_mac).map(MacAddress)
}

fn cooked_next(hardware: u16, protocol: u16) -> Next {
    match protocol {
        _ if hardware == HARDWARE_NETLINK => Next::NotIp,
        4 => Next::Llc,
        ether_type => Next::EtherType(ether_type),
    }
}

/// The packet type of a cooked header; a direction that the source states beside the bytes goes first.
fn set_direction(link: &mut Link, packet_type: u16) {
    if link.direction == LinkDirection::Unknown {
        link.direction = match packet_type {
            0..=2 => LinkDirection::Received,
            4 => LinkDirection::Sent,
            _ => LinkDirection::Unknown,
        };
    }
}
