//! Links that begin with a header of the capturing system (PPI, PKTAP, NFLOG, IPNET) or of a switch (DSA,
//! Broadcom), and then the frame or packet.

use super::{
    cursor::Cursor,
    packet::{Link, LinkDirection, LinkType},
    read,
    shim::{IPV4, IPV6, Next},
};
use crate::net::MacAddress;

/// Attributes of one NFLOG message that are looked at.
const MAX_ATTRIBUTES: usize = 32;

fn le16(data: &[u8], at: usize) -> Option<u16> {
    read::array(data, at).map(u16::from_le_bytes)
}

fn le32(data: &[u8], at: usize) -> Option<u32> {
    read::array(data, at).map(u32::from_le_bytes)
}

/// PPI: version, flags, length, link type of what follows; little endian.
pub(super) fn ppi(at: Cursor<'_>) -> Option<(LinkType, Cursor<'_>)> {
    let length = usize::from(le16(at.data, 2)?).max(8);
    Some((link_type(le32(at.data, 4)?), at.skip(length)?))
}

/// PKTAP of Darwin: length, record type (1 is a packet), link type, interface name, flags.
pub(super) fn pktap<'a>(at: Cursor<'a>, link: &mut Link) -> Option<(LinkType, Cursor<'a>)> {
    let length = usize::try_from(le32(at.data, 0)?).ok()?.max(40);
    if link.direction == LinkDirection::Unknown {
        link.direction = match le32(at.data, 36)? & 0x03 {
            1 => LinkDirection::Received,
            2 => LinkDirection::Sent,
            _ => LinkDirection::Unknown,
        };
    }
    Some((link_type(le32(at.data, 8)?), at.skip(length)?))
}

fn link_type(number: u32) -> LinkType {
    LinkType(u16::try_from(number).unwrap_or(u16::MAX))
}

/// NFLOG: family, version, resource id, then attributes of a length, a type and a value, padded to four bytes.
/// The packet is attribute 9, the source's hardware address attribute 8.
pub(super) fn nflog<'a>(at: Cursor<'a>, link: &mut Link) -> Option<(Next, Cursor<'a>)> {
    let next = match at.byte(0)? {
        2 => Next::EtherType(IPV4),
        10 => Next::EtherType(IPV6),
        _ => Next::NotIp,
    };
    let mut at = at.skip(4)?;
    for _ in 0..MAX_ATTRIBUTES {
        let (length, kind) = attribute(at.data)?;
        if kind & 0x7fff == 9 {
            return Some((next, at.skip(4)?));
        }
        if kind & 0x7fff == 8 && at.be16(4) == Some(6) {
            link.source_mac = read::array(at.data, 8).map(MacAddress);
        }
        at = at.skip(length.next_multiple_of(4))?;
    }
    Some((Next::NotIp, at))
}

/// Length and type, in the byte order of the machine that captured; one of the two makes a length that fits.
fn attribute(data: &[u8]) -> Option<(usize, u16)> {
    let little = usize::from(le16(data, 0)?);
    if (4..=data.len()).contains(&little) {
        return Some((little, le16(data, 2)?));
    }
    let big = usize::from(read::be16(data, 0)?);
    // The packet may be cut, so its attribute may be longer than what there is.
    let (length, kind) =
        if (4..=data.len()).contains(&big) { (big, read::be16(data, 2)?) } else { (little, le16(data, 2)?) };
    (length >= 4).then_some((length, kind))
}

/// IPNET of Solaris: version, family, and interfaces, in 24 bytes.
pub(super) fn ipnet(at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    let next = match at.byte(1)? {
        2 => Next::EtherType(IPV4),
        26 => Next::EtherType(IPV6),
        _ => Next::NotIp,
    };
    Some((next, at.skip(24)?))
}

/// An Ethernet header with `tag` bytes of a switch between the addresses and the ethertype.
pub(super) fn tagged<'a>(at: Cursor<'a>, link: &mut Link, tag: usize) -> Option<(Next, Cursor<'a>)> {
    link.destination_mac = Some(MacAddress(read::array(at.data, 0)?));
    link.source_mac = Some(MacAddress(read::array(at.data, 6)?));
    let at = at.skip(12 + tag)?;
    Some((Next::EtherType(at.be16(0)?), at.skip(2)?))
}

/// Marvell's DSA tag in its last four bytes takes the place of the frame's own VLAN tag, and says so.
pub(super) fn dsa<'a>(at: Cursor<'a>, link: &mut Link, tag: usize) -> Option<(Next, Cursor<'a>)> {
    let [first, _, high, low] = read::array(at.data, 8 + tag)?;
    if first & 0x20 != 0 {
        // The list is empty before the first header.
        let _ = link.vlans.try_push(u16::from_be_bytes([high & 0x0f, low]));
    }
    tagged(at, link, tag)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{IPV4_UDP, assert_opens, error, link_of, with_packet};
    use super::*;
    use crate::record::{Layer, Reason};

    #[test]
    fn ppi_and_pktap_lead_to_the_link_they_name() {
        assert_opens(LinkType::PPI, &[0, 0, 12, 0, 101, 0, 0, 0, 9, 9, 9, 9]);
        let mut pktap = [0; 108];
        (pktap[0], pktap[4], pktap[8], pktap[36]) = (108, 1, 1, 2);
        let header = [&pktap[..], &[2; 12], &[8, 0]].concat();
        assert_opens(LinkType::PKTAP, &header);
        assert_eq!(link_of(LinkType::PKTAP, &with_packet(&header)).direction, LinkDirection::Sent);
    }

    #[test]
    fn a_metadata_header_within_another_is_not_followed() {
        let nested = [0, 0, 8, 0, 192, 0, 0, 0].repeat(20);
        assert_eq!(error(LinkType::PPI, &nested), (Layer::Link, Reason::TooDeep));
    }

    #[test]
    fn nflog_finds_the_packet_behind_other_attributes_in_either_byte_order() {
        let little =
            [&[2, 0, 0, 1, 8, 0, 1, 0, 8, 0, 1, 0, 16, 0, 8, 0, 0, 6, 0, 0][..], &[7; 8], &[36, 0, 9, 0]];
        assert_opens(LinkType::NFLOG, &little.concat());
        let link = link_of(LinkType::NFLOG, &with_packet(&little.concat()));
        assert_eq!(link.source_mac, Some(MacAddress([7; 6])));
        assert_opens(LinkType::NFLOG, &[2, 0, 0, 1, 0, 5, 0, 10, b'x', 0, 0, 0, 0, 36, 0, 9]);
        let cut = [&[2, 0, 0, 1, 0xff, 0, 9, 0][..], &IPV4_UDP].concat();
        assert!(link_of(LinkType::NFLOG, &cut).source_mac.is_none());
    }

    #[test]
    fn ipnet_names_its_family() {
        let mut header = [0; 24];
        header[1] = 2;
        assert_opens(LinkType(226), &header);
    }

    #[test]
    fn switch_tags_are_skipped_and_their_vlan_kept() {
        let macs = [2; 12];
        assert_opens(LinkType(281), &[&macs[..], &[0; 4], &[8, 0]].concat());
        assert_opens(LinkType(282), &[&[0; 4][..], &macs, &[8, 0]].concat());
        let dsa = [&macs[..], &[0xe0, 0, 0x0e, 0x99], &[8, 0]].concat();
        assert_opens(LinkType(284), &dsa);
        assert_eq!(link_of(LinkType(284), &with_packet(&dsa)).vlans.as_slice(), [0xe99]);
        let edsa = [&macs[..], &[0xda, 0xda, 0, 0], &[0x40, 0, 0, 1], &[8, 0]].concat();
        assert_opens(LinkType(285), &edsa);
        assert!(link_of(LinkType(285), &with_packet(&edsa)).vlans.is_empty());
    }
}
