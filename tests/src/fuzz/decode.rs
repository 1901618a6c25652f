//! Decoding of one packet of any link type, through every tunnel that opens.
//!
//! Input: one byte for the link type (index into [`LINK_TYPES`]), one for the length on the wire and the way, then
//! the packet.

use std::ops::Range;

use onenet_core::{
    decode::{
        self, CapturedPacket, Content, Decoded, Inner, InterfaceIndex, IpPacket, LinkDirection, LinkType,
        Transport, dhcp4, dhcp6, ndp,
    },
    time::Timestamp,
};

use super::Input;

/// Every link type that is decoded, and two that are not.
pub const LINK_TYPES: [u16; 33] = [
    1, 0, 9, 10, 12, 14, 50, 51, 100, 101, 104, 105, 106, 107, 108, 113, 127, 147, 192, 204, 205, 206, 219,
    226, 228, 229, 239, 253, 258, 276, 281, 284, 285,
];

/// Tunnels are opened until they end; an inner packet is shorter than the outer one, so they do.
const DEPTH: usize = 64;

/// Decodes the packet that `bytes` describe.
pub fn decode(bytes: &[u8]) {
    let mut input = Input(bytes);
    let link_type = LINK_TYPES[usize::from(input.byte()) % LINK_TYPES.len()];
    let mode = input.byte();
    let data = input.0;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let packet = CapturedPacket {
        time: Timestamp(0),
        interface: InterfaceIndex(0),
        link_type: LinkType(link_type),
        direction: [LinkDirection::Unknown, LinkDirection::Received, LinkDirection::Sent]
            [usize::from(mode >> 2) % 3],
        wire_length: match mode & 3 {
            0 => length,
            1 => length.saturating_add(u32::from(mode >> 2) * 37),
            2 => length / 2,
            _ => u32::MAX,
        },
        data,
    };
    walk(&packet);
}

/// Decodes one packet and what is inside it; the number of layers of IP.
fn walk(packet: &CapturedPacket<'_>) -> usize {
    let mut within = packet.data.as_ptr_range();
    let mut decoded = decode::decode(packet);
    for depth in 0..DEPTH {
        let Ok(Decoded { content: Content::Ip(ip), .. }) = &decoded else { return depth };
        check(ip, &within);
        let Ok(Some(inner)) = decode::inner(ip) else { return depth + 1 };
        let Inner { data, .. } = inner;
        let inside = data.as_ptr_range();
        assert!(
            data.is_empty() || within.start <= inside.start && inside.end <= within.end,
            "an inner packet is of the outer one"
        );
        assert!(data.len() < length(&within), "an inner packet is shorter than the outer one");
        within = inside;
        decoded = decode::decode_inner(&inner);
    }
    DEPTH
}

fn length(range: &Range<*const u8>) -> usize {
    range.end.addr() - range.start.addr()
}

/// What holds of every packet that is decoded.
fn check(ip: &IpPacket<'_>, within: &Range<*const u8>) {
    let payload = ip.payload.as_ptr_range();
    assert!(
        ip.payload.is_empty() || within.start <= payload.start && payload.end <= within.end,
        "a payload is of its packet"
    );
    assert_eq!(ip.source.is_ipv4(), ip.destination.is_ipv4());
    assert!(ip.payload_bytes <= ip.ip_bytes, "{} bytes of payload in {}", ip.payload_bytes, ip.ip_bytes);
    let captured = u32::try_from(ip.payload.len()).unwrap_or(u32::MAX);
    assert!(captured <= ip.payload_bytes || ip.estimated, "{captured} bytes of {}", ip.payload_bytes);
    assert!(ip.dscp < 64);
    if let Some(fragment) = ip.fragment {
        assert!(fragment.offset > 0 || fragment.more, "an atomic fragment is none");
        assert!(fragment.offset % 8 == 0);
        assert!(fragment.offset == 0 || ip.transport == Transport::None, "a later fragment has no ports");
    }
    if let Transport::Tcp(segment) = ip.transport {
        assert!(ip.protocol == 6 && segment.flags < 0x200);
    }
    let _ = (ndp::parse(ip), dhcp4::parse(ip.payload), dhcp6::parse(ip.payload));
}
