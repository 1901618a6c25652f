//! Links of wide area networks: PPP, Cisco HDLC, frame relay, ATM; and FDDI.

use super::{
    cursor::Cursor,
    packet::{Link, LinkDirection},
    read,
    shim::{IPV4, IPV6, Next},
};
use crate::net::MacAddress;

/// With or without address and control bytes (RFC 1662); Cisco HDLC in the same frames shows by its address.
pub(super) fn ppp(at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    match at.data {
        [0xff, 0x03, ..] => Some((Next::Ppp, at.skip(2)?)),
        [0x0f | 0x8f, 0, ..] => cisco_hdlc(at),
        [] => None,
        _ => Some((Next::Ppp, at)),
    }
}

/// Address, control, ethertype.
pub(super) fn cisco_hdlc(at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    let next = match at.be16(2)? {
        // Here the number is not RARP's but Cisco's keep-alive.
        0x8035 => Next::KeepAlive,
        ether_type => Next::EtherType(ether_type),
    };
    Some((next, at.skip(4)?))
}

/// Frame relay (RFC 2427): an address of two to four bytes whose last has its lowest bit set, then unnumbered
/// information and a protocol id, or as Cisco does it an ethertype.
pub(super) fn frame_relay(at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    let address = at.data.iter().take(4).position(|byte| byte & 1 == 1)? + 1;
    let mut at = at.skip(address)?;
    if at.byte(0)? != 0x03 {
        return Some((Next::EtherType(at.be16(0)?), at.skip(2)?));
    }
    at = at.skip(1)?;
    if at.byte(0)? == 0 {
        at = at.skip(1)?;
    }
    let (protocol, at) = (at.byte(0)?, at.skip(1)?);
    Some(match protocol {
        0xcc => (Next::EtherType(IPV4), at),
        0x8e => (Next::EtherType(IPV6), at),
        0x80 => (Next::Snap, at),
        // PPP in frame relay (RFC 1973).
        0xcf => (Next::Ppp, at),
        _ => (Next::NotIp, at),
    })
}

/// LINKTYPE_ATM_CLIP: 802.2, or IP without any header (RFC 2684 section 6).
pub(super) fn classical_ip(at: Cursor<'_>) -> (Next, Cursor<'_>) {
    (if at.data.starts_with(&[0xaa, 0xaa, 0x03]) { Next::Llc } else { Next::Ip }, at)
}

/// Frame control, destination, source, 802.2.
pub(super) fn fddi<'a>(at: Cursor<'a>, link: &mut Link) -> Option<(Next, Cursor<'a>)> {
    link.destination_mac = read::array(at.data, 1).map(MacAddress);
    link.source_mac = read::array(at.data, 7).map(MacAddress);
    // Only LLC frames (control 0101_0xxx) carry data.
    let next = if at.byte(0)? & 0xf8 == 0x50 { Next::Llc } else { Next::KeepAlive };
    Some((next, at.skip(13)?))
}

/// The byte before each frame of a link type "with direction": 0 is received.
pub(super) fn direction_byte<'a>(at: Cursor<'a>, link: &mut Link) -> Option<Cursor<'a>> {
    let direction = if at.byte(0)? == 0 { LinkDirection::Received } else { LinkDirection::Sent };
    if link.direction == LinkDirection::Unknown {
        link.direction = direction;
    }
    at.skip(1)
}

#[cfg(test)]
mod tests {
    use super::super::{
        LinkType,
        testing::{assert_opens, error, link_of, with_packet},
    };
    use super::*;
    use crate::record::{Layer, Reason};

    #[test]
    fn ppp_is_read_with_and_without_its_hdlc_bytes() {
        for link_type in [LinkType::PPP, LinkType::PPP_HDLC] {
            assert_opens(link_type, &[0xff, 0x03, 0x00, 0x21]);
            assert_opens(link_type, &[0xff, 0x03, 0x21]);
            assert_opens(link_type, &[0x00, 0x21]);
            assert_opens(link_type, &[0x21]);
            assert_opens(link_type, &[0x0f, 0x00, 0x08, 0x00]);
            assert_eq!(error(link_type, &[0xff, 0x03, 0xc0, 0x21, 1]), (Layer::Network, Reason::NotIp));
        }
        assert_opens(LinkType::PPP_ETHER, &[0x11, 0, 0, 1, 0, 34, 0x00, 0x21]);
    }

    #[test]
    fn cisco_hdlc_carries_ethertypes_and_keep_alives() {
        assert_opens(LinkType::C_HDLC, &[0x0f, 0x00, 0x08, 0x00]);
        let keep_alive = [0x8f, 0x00, 0x80, 0x35, 0, 0, 0, 2];
        assert_eq!(error(LinkType::C_HDLC, &keep_alive), (Layer::Network, Reason::NoPayload));
    }

    #[test]
    fn frame_relay_is_read_with_each_address_length_and_encapsulation() {
        assert_opens(LinkType::FRELAY, &[0x18, 0x41, 0x03, 0xcc]);
        assert_opens(LinkType::FRELAY, &[0x18, 0x40, 0x00, 0x01, 0x03, 0x00, 0xcc]);
        assert_opens(LinkType::FRELAY, &[0x18, 0x41, 0x03, 0x00, 0x80, 0, 0, 0, 0x08, 0x00]);
        assert_opens(LinkType::FRELAY, &[0x18, 0x41, 0x08, 0x00]);
        assert_opens(LinkType::FRELAY, &[0x18, 0x41, 0x03, 0xcf, 0x00, 0x21]);
        assert_eq!(error(LinkType::FRELAY, &[0; 8]), (Layer::Link, Reason::Truncated));
        assert_eq!(error(LinkType::FRELAY, &[0x18, 0x41, 0x03, 0x81]), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn links_with_direction_tell_it() {
        for (link_type, header) in
            [(204, &[0xff, 0x03, 0x00, 0x21]), (205, &[0x0f, 0, 8, 0]), (206, &[0x18, 0x41, 8, 0])]
        {
            for (byte, direction) in [(0, LinkDirection::Received), (1, LinkDirection::Sent)] {
                let bytes = with_packet(&[&[byte][..], header].concat());
                assert_eq!(link_of(LinkType(link_type), &bytes).direction, direction, "{link_type}");
            }
        }
    }

    #[test]
    fn atm_and_fddi_carry_802_2() {
        let llc = [0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00];
        assert_opens(LinkType(100), &llc);
        assert_opens(LinkType(106), &llc);
        assert_opens(LinkType(106), &[]);
        let frame = [&[0x57][..], &[2; 6], &[4; 6], &llc].concat();
        assert_opens(LinkType(10), &frame);
        let bytes = with_packet(&frame);
        assert_eq!(link_of(LinkType(10), &bytes).source_mac, Some(MacAddress([4; 6])));
    }
}
