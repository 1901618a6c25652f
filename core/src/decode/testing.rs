//! What the tests of this module share: one small packet, and ways to wrap it.

use super::{
    CapturedPacket, Content, Decoded, InterfaceIndex, IpPacket, Link, LinkDirection, LinkType, decode,
    decode_inner, inner,
};
use crate::{
    record::{Layer, Reason, Tunnel},
    time::Timestamp,
};

/// 192.0.2.1:4660 → 198.51.100.2:22136, UDP, payload `data`.
pub(super) const IPV4_UDP: [u8; 32] = [
    0x45, 0xb8, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0x56, 0x78, 0,
    12, 0, 0, b'd', b'a', b't', b'a',
];

/// A packet that was captured whole.
pub(super) fn captured(link_type: LinkType, data: &[u8]) -> CapturedPacket<'_> {
    let wire_length = u32::try_from(data.len()).unwrap();
    let direction = LinkDirection::Unknown;
    CapturedPacket {
        time: Timestamp(0),
        interface: InterfaceIndex(0),
        link_type,
        direction,
        wire_length,
        data,
    }
}

pub(super) fn ip_packet(link_type: LinkType, data: &[u8]) -> IpPacket<'_> {
    match decode(&captured(link_type, data)) {
        Ok(Decoded { content: Content::Ip(packet), .. }) => packet,
        other => panic!("no IP in {data:02x?}: {other:?}"),
    }
}

/// A link header, then the packet of the tests.
pub(super) fn with_packet(header: &[u8]) -> Vec<u8> {
    [header, &IPV4_UDP].concat()
}

/// The packet of the tests is found behind this link header.
pub(super) fn assert_opens(link_type: LinkType, header: &[u8]) {
    let bytes = with_packet(header);
    let packet = ip_packet(link_type, &bytes);
    assert_eq!((packet.ip_bytes, packet.payload), (32, &b"data"[..]), "{link_type:?} {header:02x?}");
}

/// A packet without a link header.
pub(super) fn raw(data: &[u8]) -> IpPacket<'_> {
    ip_packet(LinkType::RAW, data)
}

pub(super) fn link_of(link_type: LinkType, data: &[u8]) -> Link {
    decode(&captured(link_type, data)).unwrap().link
}

pub(super) fn error(link_type: LinkType, data: &[u8]) -> (Layer, Reason) {
    let unparsed = decode(&captured(link_type, data)).unwrap_err();
    (unparsed.layer, unparsed.reason)
}

/// An IPv4 packet of this protocol.
pub(super) fn over_ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let header = [0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
    [&header[..], payload].concat()
}

/// A UDP datagram from port 50000 to this one.
pub(super) fn over_udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let ([p0, p1], [l0, l1]) = (port.to_be_bytes(), u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    over_ipv4(17, &[&[0xc3, 0x50, p0, p1, l0, l1, 0, 0][..], payload].concat())
}

/// Opens the tunnel in a packet, decodes what is in it, and gives the tunnel.
pub(super) fn tunnel_of(bytes: &[u8]) -> Tunnel {
    let packet = raw(bytes);
    let opened = inner(&packet).unwrap().unwrap_or_else(|| panic!("not opened: {bytes:02x?}"));
    decode_inner(&opened).unwrap_or_else(|error| panic!("{error} in {bytes:02x?}"));
    opened.tunnel
}
