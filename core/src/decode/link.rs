//! Link headers by link type of the capture: what a packet begins with, and what follows it.

use super::{
    cursor::{Cursor, at_link},
    fast, metadata,
    packet::{CapturedPacket, Content, Decoded, Inner, InnerStart, Link, LinkDirection, LinkType, Unparsed},
    rare, read,
    shim::{self, Next},
    trace::{Trace, between},
    wan, wireless,
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
    /// IEEE 802.11.
    pub const IEEE802_11: Self = Self(105);
    /// Frame relay.
    pub const FRELAY: Self = Self(107);
    /// Linux "cooked" capture.
    pub const LINUX_SLL: Self = Self(113);
    /// IEEE 802.11 behind a header of Prism cards.
    pub const PRISM: Self = Self(119);
    /// IEEE 802.11 behind an AVS header.
    pub const AVS: Self = Self(163);
    /// IEEE 802.11 behind a radiotap header.
    pub const RADIOTAP: Self = Self(127);
    /// Per-packet information, then another link type.
    pub const PPI: Self = Self(192);
    /// IPv4 without a link header.
    pub const IPV4: Self = Self(228);
    /// IPv6 without a link header.
    pub const IPV6: Self = Self(229);
    /// Linux netfilter log.
    pub const NFLOG: Self = Self(239);
    /// Darwin's packet tap, then another link type.
    pub const PKTAP: Self = Self(258);
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
    match fast::usual(packet) {
        Some((plain, bytes)) => {
            Ok(Decoded { link: plain.link(), content: Content::Ip(plain.ip_with(bytes)) })
        }
        None => decode_traced(packet, &mut ()),
    }
}

/// [`decode`] without the short way for the usual headers, which tells each header that it reads.
pub fn decode_traced<'a, T: Trace>(
    packet: &CapturedPacket<'a>,
    trace: &mut T,
) -> Result<Decoded<'a>, Unparsed> {
    let mut link = Link { direction: packet.direction, ..Link::default() };
    let start = Cursor::new(packet.data, packet.wire_length);
    let (next, at) = match packet.link_type {
        LinkType::ETHERNET => (Next::Ethernet, start),
        other => {
            let (next, at) = link_header(other, start, &mut link)?;
            trace.header("link header", between(start.data, at.data), Some(&link));
            (next, at)
        }
    };
    let content = shim::content(next, at, &mut link, trace)?;
    Ok(Decoded { link, content })
}

/// Decodes the packet inside a tunnel. The link of the result is that of the inner packet: its MAC addresses
/// and tags, where it begins with an Ethernet header.
pub fn decode_inner<'a>(inner: &Inner<'a>) -> Result<Decoded<'a>, Unparsed> {
    decode_inner_traced(inner, &mut ())
}

/// [`decode_inner`], which tells each header that it reads.
pub fn decode_inner_traced<'a, T: Trace>(inner: &Inner<'a>, trace: &mut T) -> Result<Decoded<'a>, Unparsed> {
    let mut link = Link::default();
    if let Some(vlan) = inner.vlan {
        // The list is empty before the first header.
        let _ = link.vlans.try_push(vlan);
    }
    let at = Cursor::new(inner.data, inner.wire_length);
    let (next, at) = match inner.starts_with {
        InnerStart::Ethernet => (Next::Ethernet, at),
        InnerStart::EtherType(ether_type) => (Next::EtherType(ether_type), at),
        InnerStart::SwappedIeee80211 => {
            let (next, behind) = wireless::swapped(at, &mut link)?;
            trace.header("IEEE 802.11", between(at.data, behind.data), Some(&link));
            (next, behind)
        }
        InnerStart::Link(link_type) => {
            let (next, behind) = link_header(link_type, at, &mut link)?;
            trace.header("link header", between(at.data, behind.data), Some(&link));
            (next, behind)
        }
    };
    let content = shim::content(next, at, &mut link, trace)?;
    Ok(Decoded { link, content })
}

fn link_header<'a>(
    link_type: LinkType,
    at: Cursor<'a>,
    link: &mut Link,
) -> Result<(Next, Cursor<'a>), Unparsed> {
    let found = match link_type {
        LinkType::NULL | LinkType::LOOP => loopback(link_type, at),
        LinkType::PPP | LinkType::PPP_HDLC => wan::ppp(at),
        LinkType::PPP_ETHER => Some((Next::EtherType(0x8864), at)),
        // 12 and 14 are DLT_RAW of some systems, which some programs write into files.
        LinkType(12 | 14) | LinkType::RAW => Some((Next::Ip, at)),
        LinkType::C_HDLC => wan::cisco_hdlc(at),
        LinkType::LINUX_SLL => cooked(at, link),
        LinkType::IPV4 => Some((Next::EtherType(shim::IPV4), at)),
        LinkType::IPV6 => Some((Next::EtherType(shim::IPV6), at)),
        LinkType::LINUX_SLL2 => cooked_v2(at, link),
        LinkType::IEEE802_11 => return wireless::ieee80211(at, link, false),
        LinkType::RADIOTAP => match wireless::radiotap(at) {
            Some((at, padded)) => return wireless::ieee80211(at, link, padded),
            None if at.byte(0).is_some_and(|version| version != 0) => {
                return Err(at_link(Reason::BadVersion));
            }
            None => None,
        },
        LinkType::PPI | LinkType::PKTAP => return named_link(link_type, at, link),
        other => rare_link_header(other, at, link)?,
    };
    found.ok_or(at_link(Reason::Truncated))
}

/// Link types of which an edge sees few.
fn rare_link_header<'a>(
    link_type: LinkType,
    at: Cursor<'a>,
    link: &mut Link,
) -> Result<Option<(Next, Cursor<'a>)>, Unparsed> {
    match link_type {
        LinkType::FRELAY => Ok(wan::frame_relay(at)),
        LinkType::NFLOG => Ok(metadata::nflog(at, link)),
        LinkType::PRISM | LinkType::AVS => match wireless::older_header(at) {
            Some(at) => wireless::ieee80211(at, link, false).map(Some),
            None => Ok(None),
        },
        // A private number, under which Darwin wrote PKTAP.
        LinkType(149) if rare::is_pktap(at) => named_link(LinkType::PKTAP, at, link).map(Some),
        other => rare::header(other, at, link)
            .or_else(|| rare::juniper(other, at, link))
            .ok_or(at_link(Reason::UnknownLinkType)),
    }
}

/// A header that names the link type of what follows it; that cannot be such a header again.
fn named_link<'a>(
    link_type: LinkType,
    at: Cursor<'a>,
    link: &mut Link,
) -> Result<(Next, Cursor<'a>), Unparsed> {
    let named = if link_type == LinkType::PPI { metadata::ppi(at) } else { metadata::pktap(at, link) };
    match named {
        None => Err(at_link(Reason::Truncated)),
        Some((LinkType::PPI | LinkType::PKTAP, _)) => Err(at_link(Reason::TooDeep)),
        Some((LinkType::ETHERNET, at)) => Ok((Next::Ethernet, at)),
        Some((link_type, at)) => link_header(link_type, at, link),
    }
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

#[cfg(test)]
mod tests {
    use super::super::testing::{IPV4_UDP, assert_opens, captured, error, link_of};
    use super::*;
    use crate::record::Layer;

    #[test]
    fn links_without_a_header_begin_with_ip() {
        for link_type in [12, 14, 101, 228] {
            assert_opens(LinkType(link_type), &[]);
        }
        assert_eq!(error(LinkType::RAW, &[0x50; 40]), (Layer::Network, Reason::BadVersion));
    }

    #[test]
    fn loopback_families_are_read_in_either_byte_order() {
        assert_opens(LinkType::NULL, &[2, 0, 0, 0]);
        assert_opens(LinkType::NULL, &[0, 0, 0, 2]);
        assert_opens(LinkType::LOOP, &[0, 0, 0, 2]);
        assert_eq!(error(LinkType::NULL, &[30, 0, 0, 0, 0x45]), (Layer::Network, Reason::BadVersion));
        assert_eq!(error(LinkType::NULL, &[7, 0, 0, 0, 0x45]), (Layer::Network, Reason::NotIp));
        assert_eq!(error(LinkType::NULL, &[2, 0, 0]), (Layer::Link, Reason::Truncated));
    }

    #[test]
    fn cooked_captures_give_the_source_and_the_direction() {
        let v1 = [&[0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0, 8, 0][..], &IPV4_UDP].concat();
        let v2 = [&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 2, 0, 0, 0, 0, 9, 0, 0][..], &IPV4_UDP].concat();
        for (link_type, bytes) in [(LinkType::LINUX_SLL, v1), (LinkType::LINUX_SLL2, v2)] {
            let link = link_of(link_type, &bytes);
            assert_eq!(link.source_mac, Some(MacAddress([2, 0, 0, 0, 0, 9])));
            assert_eq!((link.destination_mac, link.direction), (None, LinkDirection::Sent));
        }
    }

    #[test]
    fn a_cooked_header_of_a_link_without_mac_addresses_gives_none() {
        let tunnel = [&[0, 0, 2, 0, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0, 8, 0][..], &IPV4_UDP].concat();
        let link = link_of(LinkType::LINUX_SLL, &tunnel);
        assert_eq!((link.source_mac, link.direction), (None, LinkDirection::Received));
        let netlink = [0, 4, 3, 56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0x45];
        assert_eq!(error(LinkType::LINUX_SLL, &netlink), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn a_direction_that_the_source_states_goes_first() {
        let bytes = [&[0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0, 8, 0][..], &IPV4_UDP].concat();
        let stated =
            CapturedPacket { direction: LinkDirection::Received, ..captured(LinkType::LINUX_SLL, &bytes) };
        assert_eq!(decode(&stated).unwrap().link.direction, LinkDirection::Received);
    }

    #[test]
    fn a_frame_that_ends_in_its_header_is_truncated_and_a_link_not_known_says_so() {
        assert_eq!(error(LinkType::ETHERNET, &[0; 13]), (Layer::Link, Reason::Truncated));
        assert_eq!(error(LinkType::LINUX_SLL, &[0; 15]), (Layer::Link, Reason::Truncated));
        assert_eq!(error(LinkType(147), &IPV4_UDP), (Layer::Link, Reason::UnknownLinkType));
    }

    #[test]
    fn arp_comes_out_of_a_frame() {
        let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
        for ether_type in [[0x08, 0x06], [0x80, 0x35]] {
            let bytes = [&[0xff; 6][..], &[2; 6], &ether_type, &arp, &[0; 18]].concat();
            let decoded = decode(&captured(LinkType::ETHERNET, &bytes)).unwrap();
            assert!(matches!(decoded.content, Content::Arp(_)));
        }
    }
}
