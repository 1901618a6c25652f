//! Link types of which an edge sees few: each a header of fixed or stated length before a frame or packet. The
//! layouts are those of the tcpdump.org registry of link types and what it refers to.

use super::{
    cursor::Cursor,
    metadata,
    packet::{Link, LinkDirection, LinkType},
    read,
    shim::{IPV4, IPV6, Next},
    wan,
};
use crate::net::MacAddress;

/// What a link header leads to; none where it is cut.
type Found<'a> = Option<(Next, Cursor<'a>)>;

/// Extension headers of one ERF record that are followed.
const MAX_ERF_EXTENSIONS: usize = 16;

/// Reads the header of a rare link type; none where the type is not known.
pub(super) fn header<'a>(link_type: LinkType, at: Cursor<'a>, link: &mut Link) -> Option<Found<'a>> {
    Some(match link_type.0 {
        6 => token_ring(at, link),
        7 => arcnet(at, 2, true),
        8 => slip(at, link),
        10 => wan::fddi(at, link),
        // ATM_RFC1483, by its number in files and by that of BSD; ATM_CLIP the same.
        11 | 100 => Some((Next::Llc, at)),
        19 | 106 => Some(wan::classical_ip(at)),
        109 => then_family(at, 12),
        117 => pflog(at),
        122 => fibre_channel(at, link),
        123 => sun_atm(at, link),
        129 => arcnet(at, 4, false),
        // IP over IEEE 1394: two addresses of eight bytes.
        138 => at.be16(16).zip(at.skip(18)).map(|(ether_type, at)| (Next::EtherType(ether_type), at)),
        143 => docsis(at),
        // PPP, Cisco HDLC and frame relay with direction, which pppd writes in place of the address.
        166 => wan::direction_byte(at, link).and_then(|at| match at.byte(0)? {
            0x03 => Some((Next::Ppp, at.skip(1)?)),
            _ => wan::ppp(at),
        }),
        204 => wan::direction_byte(at, link).and_then(wan::ppp),
        205 => wan::direction_byte(at, link).and_then(wan::cisco_hdlc),
        206 => wan::direction_byte(at, link).and_then(wan::frame_relay),
        197 => erf(at),
        219 => Some((Next::EtherType(0x8847), at)),
        226 => metadata::ipnet(at),
        // netANALYZER, and with the preamble; EPON's preamble.
        240 => at.skip(4).map(|at| (Next::Ethernet, at)),
        241 => at.skip(12).map(|at| (Next::Ethernet, at)),
        259 => at.skip(8).map(|at| (Next::Ethernet, at)),
        // IP over InfiniBand: a global routing header, then (RFC 4391 section 6) an ethertype and two reserved bytes.
        242 => at.be16(40).zip(at.skip(44)).map(|(ether_type, at)| (Next::EtherType(ether_type), at)),
        274 => mpacket(at),
        // Broadcom's switch tag, behind the addresses or before them; Marvell's, short and with an ethertype.
        281 => metadata::tagged(at, link, 4),
        282 => at.skip(4).map(|at| (Next::Ethernet, at)),
        284 => metadata::dsa(at, link, 4),
        285 => metadata::dsa(at, link, 8),
        _ => return None,
    })
}

fn le32(data: &[u8], at: usize) -> Option<u32> {
    read::array(data, at).map(u32::from_le_bytes)
}

/// The IP version that an address family of any system stands for.
fn family(number: u32) -> Next {
    match number {
        2 => Next::EtherType(IPV4),
        10 | 24 | 28 | 30 => Next::EtherType(IPV6),
        _ => Next::NotIp,
    }
}

/// A family of four bytes in the order of the capturing machine, as small as families are.
fn then_family(at: Cursor<'_>, length: usize) -> Found<'_> {
    let number = at.be32(0)?;
    let number = if number > 0xffff { number.swap_bytes() } else { number };
    Some((family(number), at.skip(length)?))
}

/// OpenBSD's packet filter log: its length (padded to four bytes), the address family, and what does not matter
/// here.
fn pflog(at: Cursor<'_>) -> Found<'_> {
    let (length, number) = (usize::from(at.byte(0)?), at.byte(1)?);
    Some((family(number.into()), at.skip(length.next_multiple_of(4).max(4))?))
}

/// IEEE 802.5: access and frame control, destination, source, routing information where the source says so,
/// 802.2.
fn token_ring<'a>(at: Cursor<'a>, link: &mut Link) -> Found<'a> {
    let [first, a, b, c, d, e] = read::array(at.data, 8)?;
    link.destination_mac = read::array(at.data, 2).map(MacAddress);
    link.source_mac = Some(MacAddress([first & 0x7f, a, b, c, d, e]));
    let routing = if first & 0x80 == 0 { 0 } else { usize::from(at.byte(14)? & 0x1f) };
    // Only LLC frames (control 01) carry data.
    let next = if at.byte(1)? & 0xc0 == 0x40 { Next::Llc } else { Next::KeepAlive };
    Some((next, at.skip(14 + routing)?))
}

/// ARCNET (RFC 1201, RFC 1051): addresses of one byte, for Linux an offset, a protocol; with the protocols of RFC
/// 1201 a split flag and a sequence number, which exceptions (flag 0xff) state twice.
fn arcnet(at: Cursor<'_>, addresses: usize, exceptions: bool) -> Found<'_> {
    let next = match at.byte(addresses)? {
        0xf0 => return Some((Next::EtherType(IPV4), at.skip(addresses + 1)?)),
        0xf1 => return Some((Next::NotIp, at)),
        0xd4 => Next::EtherType(IPV4),
        0xc4 => Next::EtherType(IPV6),
        _ => return Some((Next::NotIp, at)),
    };
    let mut length = addresses + 4;
    let mut split = at.byte(addresses + 1)?;
    if exceptions && split == 0xff {
        split = at.byte(addresses + 5)?;
        length += 4;
    }
    // An even flag is a later part of a packet that was split.
    let is_later = split != 0 && split & 1 == 0;
    Some((if is_later { Next::KeepAlive } else { next }, at.skip(length)?))
}

/// SLIP as BSD captures it: direction (0 is received), 15 bytes of the compressed header, the packet.
fn slip<'a>(at: Cursor<'a>, link: &mut Link) -> Found<'a> {
    wan::direction_byte(at, link)?;
    Some((Next::Ip, at.skip(16)?))
}

/// IP over Fibre Channel (RFC 2625): a network header of two addresses, 802.2.
fn fibre_channel<'a>(at: Cursor<'a>, link: &mut Link) -> Found<'a> {
    link.destination_mac = read::array(at.data, 2).map(MacAddress);
    link.source_mac = read::array(at.data, 10).map(MacAddress);
    Some((Next::Llc, at.skip(16)?))
}

/// SunATM: direction and kind of traffic, VPI, VCI.
fn sun_atm<'a>(at: Cursor<'a>, link: &mut Link) -> Found<'a> {
    let first = at.byte(0)?;
    if link.direction == LinkDirection::Unknown {
        link.direction = if first & 0x80 == 0 { LinkDirection::Received } else { LinkDirection::Sent };
    }
    let behind = at.skip(4)?;
    Some(match first & 0x0f {
        // LAN emulation: the client's id, then a frame.
        1 => (Next::Ethernet, behind.skip(2)?),
        2 => (Next::Llc, behind),
        _ => (Next::NotIp, behind),
    })
}

/// DOCSIS: a frame control, of which only packets (type 0) hold a frame; an extended header where it says so.
fn docsis(at: Cursor<'_>) -> Found<'_> {
    let (control, extended) = (at.byte(0)?, usize::from(at.byte(1)?));
    let length = if control & 0x01 == 0 { 6 } else { 6 + extended };
    let next = if control >> 6 == 0 { Next::Ethernet } else { Next::KeepAlive };
    Some((next, at.skip(length)?))
}

/// Ethernet with its preamble (802.3br): the eighth byte tells whole frames and first fragments from the rest.
fn mpacket(at: Cursor<'_>) -> Found<'_> {
    let next = match at.byte(7)? {
        0xd5 | 0xe6 | 0x4c | 0x7f | 0xb3 => Next::Ethernet,
        _ => Next::KeepAlive,
    };
    Some((next, at.skip(8)?))
}

/// Endace ERF: time, type, flags, lengths, a loss counter; extension headers of eight bytes, each of which says
/// whether another follows; then what the type says.
fn erf(at: Cursor<'_>) -> Found<'_> {
    let kind = at.byte(8)?;
    let mut more = kind & 0x80 != 0;
    let mut inner = at.skip(16)?;
    for _ in 0..MAX_ERF_EXTENSIONS {
        if !more {
            break;
        }
        more = inner.byte(0)? & 0x80 != 0;
        inner = inner.skip(8)?;
    }
    match kind & 0x7f {
        // Ethernet and its coloured kinds: two bytes before the frame.
        2 | 11 | 16 => Some((Next::Ethernet, inner.skip(2)?)),
        1 | 10 | 15 => wan::ppp(inner),
        // A channel number of four bytes before the frame.
        5 | 17 => wan::ppp(inner.skip(4)?),
        22 => Some((Next::EtherType(IPV4), inner)),
        23 => Some((Next::EtherType(IPV6), inner)),
        _ => Some((Next::NotIp, inner)),
    }
}

/// Juniper's header: magic, flags, extensions where a flag says so; then by flag an IP packet, or what the link
/// type says, on some behind a cookie.
pub(super) fn juniper<'a>(link_type: LinkType, at: Cursor<'a>, link: &mut Link) -> Option<Found<'a>> {
    const EXTENSIONS: u8 = 0x80;
    const NO_LINK_HEADER: u8 = 0x02;
    const RECEIVED: u8 = 0x01;
    let cookie = match link_type.0 {
        133 | 135 | 136 | 164 => 8,
        137 => 4,
        167 | 168 | 178..=181 => 0,
        _ => return None,
    };
    let mut behind = || {
        let [b'M', b'G', b'C', flags] = read::array(at.data, 0)? else {
            return Some((Next::NotIp, at));
        };
        if link.direction == LinkDirection::Unknown {
            link.direction =
                if flags & RECEIVED == 0 { LinkDirection::Sent } else { LinkDirection::Received };
        }
        let length = if flags & EXTENSIONS == 0 { 4 } else { 6 + usize::from(at.be16(4)?) };
        if flags & NO_LINK_HEADER != 0 {
            return Some((Next::Ip, at.skip(length + 4)?));
        }
        let at = at.skip(length + cookie)?;
        match link_type.0 {
            167 | 178 => Some((Next::Ethernet, at)),
            168 => Some((Next::EtherType(at.be16(0)?), at.skip(2)?)),
            179 => wan::ppp(at),
            180 => wan::frame_relay(at),
            181 => wan::cisco_hdlc(at),
            135 | 137 => match at.data {
                [0xfe, 0xfe, 0x03, ..] | [0xaa, 0xaa, 0x03, ..] => Some((Next::Llc, at)),
                _ => Some((Next::Ip, at)),
            },
            _ => Some((Next::Ip, at)),
        }
    };
    Some(behind())
}

/// Darwin wrote PKTAP with the number of a private link type: whether this is such a header (108 bytes or more, a
/// packet, a link type).
pub(super) fn is_pktap(at: Cursor<'_>) -> bool {
    let fields = le32(at.data, 0).zip(le32(at.data, 4)).zip(le32(at.data, 8));
    fields.is_some_and(|((length, kind), link_type)| {
        (108..=256).contains(&length) && kind == 1 && link_type < 300
    })
}

#[cfg(test)]
mod tests {
    use super::super::{
        decode,
        testing::{IPV4_UDP, assert_opens, captured, error, link_of, with_packet},
    };
    use super::*;
    use crate::record::{Layer, Reason};

    const LLC: [u8; 8] = [0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00];
    const FRAME: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];

    fn opens(link_type: u16, parts: &[&[u8]]) {
        assert_opens(LinkType(link_type), &parts.concat());
    }

    #[test]
    fn headers_of_fixed_length_are_skipped() {
        opens(11, &[&LLC]);
        opens(19, &[]);
        opens(138, &[&[1; 16], &[8, 0]]);
        opens(219, &[&[0, 1, 1, 64]]);
        opens(240, &[&[0; 4], &FRAME]);
        opens(241, &[&[0; 4], &[0x55; 7], &[0xd5], &FRAME]);
        opens(242, &[&[0; 40], &[8, 0, 0, 0]]);
        opens(166, &[&[0, 0x03, 0x00, 0x21]]);
        opens(166, &[&[1, 0x21]]);
        opens(259, &[&[0x55; 8], &FRAME]);
        opens(274, &[&[0x55; 7], &[0xd5], &FRAME]);
        opens(122, &[&[0x10, 0], &[1; 6], &[0x10, 0], &[2; 6], &LLC]);
    }

    #[test]
    fn every_rare_link_that_is_cut_is_truncated() {
        for link_type in [6, 7, 8, 109, 117, 122, 123, 129, 138, 143, 166, 197, 240, 241, 242, 259, 274, 178]
        {
            let found = decode(&captured(LinkType(link_type), &[])).unwrap_err();
            assert_eq!((found.layer, found.reason), (Layer::Link, Reason::Truncated), "{link_type}");
        }
    }

    #[test]
    fn address_families_are_read_in_the_order_of_the_machine() {
        opens(109, &[&[2, 0, 0, 0], &[0; 8]]);
        opens(109, &[&[0, 0, 0, 2], &[0; 8]]);
        opens(117, &[&[61, 2], &[0; 62]]);
        assert_eq!(error(LinkType(117), &[64, 9].repeat(50)), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn token_ring_is_read_with_and_without_routing_information() {
        let plain = [&[0x10, 0x40][..], &[1; 6], &[2; 6], &LLC].concat();
        opens(6, &[&plain]);
        let routed = [&[0x10, 0x40][..], &[1; 6], &[0x82, 2, 2, 2, 2, 2], &[0xc4, 0, 0, 0x10], &LLC].concat();
        opens(6, &[&routed]);
        assert_eq!(link_of(LinkType(6), &with_packet(&routed)).source_mac, Some(MacAddress([2; 6])));
        let control = [&[0x10, 0x00][..], &[1; 12], &LLC].concat();
        assert_eq!(error(LinkType(6), &control), (Layer::Network, Reason::NoPayload));
    }

    #[test]
    fn arcnet_is_read_with_each_of_its_headers() {
        opens(129, &[&[1, 2, 0, 0, 0xd4, 0, 0, 1]]);
        opens(129, &[&[1, 2, 0, 0, 0xf0]]);
        opens(7, &[&[1, 2, 0xd4, 0, 0, 1]]);
        opens(7, &[&[1, 2, 0xd4, 0xff, 0xff, 0xff, 0xff, 0, 0, 1]]);
        let later = [&[1, 2, 0, 0, 0xd4, 2, 0, 1][..], &IPV4_UDP].concat();
        assert_eq!(error(LinkType(129), &later), (Layer::Network, Reason::NoPayload));
    }

    #[test]
    fn slip_and_sun_atm_tell_their_direction() {
        let slip = [&[1][..], &[0; 15]].concat();
        opens(8, &[&slip]);
        assert_eq!(link_of(LinkType(8), &with_packet(&slip)).direction, LinkDirection::Sent);
        opens(123, &[&[0x02, 0, 0, 5], &LLC]);
        opens(123, &[&[0x81, 0, 0, 5, 0, 1], &FRAME]);
        assert_eq!(error(LinkType(123), &[0x06, 0, 0, 5, 1]), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn docsis_holds_frames_and_management() {
        opens(143, &[&[0, 0, 0, 46, 0, 0], &FRAME]);
        opens(143, &[&[1, 3, 0, 46, 9, 9, 9, 0, 0], &FRAME]);
        assert_eq!(error(LinkType(143), &[0xc2; 30]), (Layer::Network, Reason::NoPayload));
    }

    #[test]
    fn erf_records_of_each_kind_are_opened() {
        let record = |kind: u8| [&[0; 8][..], &[kind], &[4, 0, 60, 0, 0, 0, 46]].concat();
        opens(197, &[&record(2), &[0, 0], &FRAME]);
        opens(197, &[&record(0x82), &[0x80; 8], &[0; 8], &[0, 0], &FRAME]);
        opens(197, &[&record(1), &[0x0f, 0, 8, 0]]);
        opens(197, &[&record(5), &[0; 4], &[0xff, 3, 0, 0x21]]);
        opens(197, &[&record(22)]);
        let error_of = |kind| error(LinkType(197), &with_packet(&record(kind)));
        assert_eq!(error_of(3), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn juniper_links_are_opened_by_flag_and_type() {
        let plain = [b'M', b'G', b'C', 0x01];
        let extended = [b'M', b'G', b'C', 0x80, 0, 3, 1, 2, 3];
        for header in [&plain[..], &extended] {
            opens(178, &[header, &FRAME]);
            opens(179, &[header, &[0, 0x21]]);
            opens(180, &[header, &[0x18, 0x41, 0x03, 0xcc]]);
            opens(181, &[header, &[0x0f, 0, 8, 0]]);
            opens(137, &[header, &[0; 4], &LLC]);
            opens(135, &[header, &[0; 8], &LLC]);
            opens(135, &[header, &[0; 8]]);
            opens(164, &[header, &[0; 8]]);
            opens(168, &[header, &[8, 0]]);
        }
        let bytes = with_packet(&[&plain[..], &FRAME].concat());
        assert_eq!(link_of(LinkType(178), &bytes).direction, LinkDirection::Received);
        opens(178, &[b"MGC\x02", &[0, 0, 0, 2]]);
        assert_eq!(error(LinkType(178), &[0; 40]), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn pktap_is_known_under_the_number_that_darwin_wrote() {
        let mut pktap = [0; 108];
        (pktap[0], pktap[4], pktap[8]) = (108, 1, 1);
        opens(149, &[&pktap, &FRAME]);
        assert_eq!(error(LinkType(149), &IPV4_UDP), (Layer::Link, Reason::UnknownLinkType));
    }
}
