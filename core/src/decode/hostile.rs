//! Hostile input: whatever the bytes are, decoding ends, does not panic, and keeps its promises.

use proptest::{
    prelude::*,
    sample::{Index, select},
};

use super::{
    CapturedPacket, Content, Decoded, Inner, InnerStart, IpPacket, LinkType, decode, decode_inner, dhcp4,
    dhcp6, inner, ndp,
    testing::{IPV4_UDP, captured, over_ipv4, over_udp},
};
use crate::record::{Tunnel, TunnelKind};

/// Deeper than any sensor goes.
const DEPTH: usize = 8;

/// Link types that are decoded, and one that is not.
const LINK_TYPES: &[u16] = &[
    0, 1, 6, 7, 8, 9, 10, 12, 14, 50, 51, 100, 101, 104, 105, 106, 107, 108, 109, 113, 117, 119, 122, 123,
    127, 129, 135, 137, 138, 143, 147, 149, 163, 164, 168, 178, 179, 180, 181, 192, 197, 204, 205, 206, 226,
    228, 229, 239, 240, 241, 242, 253, 258, 259, 274, 276, 281, 282, 284, 285,
];

/// Ports that something is parsed on.
const PORTS: &[u16] =
    &[53, 67, 547, 1701, 2152, 3544, 4754, 4789, 4790, 5072, 6081, 6635, 8472, 37008, 4341, 5247, 6080];

fn check(packet: &IpPacket<'_>, captured: usize) {
    assert!(packet.payload.len() <= captured);
    assert!(packet.payload_bytes <= packet.ip_bytes);
    assert!(
        u64::try_from(packet.payload.len()).unwrap() <= u64::from(packet.payload_bytes) || packet.estimated
    );
    assert!(packet.fragment.is_none_or(|fragment| fragment.offset > 0 || fragment.more));
    let _ = (ndp::parse(packet), dhcp4::parse(packet.payload), dhcp6::parse(packet.payload));
}

/// Decodes through every tunnel, as far as it goes.
fn walk(packet: &CapturedPacket<'_>) {
    let length = packet.data.len();
    let mut decoded = decode(packet);
    for _ in 0..DEPTH {
        let Ok(Decoded { content: Content::Ip(packet), .. }) = &decoded else { return };
        check(packet, length);
        let Ok(Some(opened)) = inner(packet) else { return };
        assert!(opened.data.len() < length, "a tunnel header has a length");
        decoded = decode_inner(&opened);
    }
}

/// Packets that reach far into the parsers.
fn sound_packets() -> Vec<Vec<u8>> {
    let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &[2; 12], &[8, 0], &IPV4_UDP].concat();
    let gtp = [&[0x36, 0xff, 0, 40, 0, 0, 0, 4, 0, 1, 0, 0x85, 1, 0, 9, 0][..], &IPV4_UDP].concat();
    let geneve =
        [&[1, 0, 0x65, 0x58, 0, 0, 3, 0, 0xff, 0xff, 0, 0][..], &[2; 12], &[8, 0], &IPV4_UDP].concat();
    let l2tp = [&[0x4a, 2, 0, 50, 0, 5, 0, 6, 0, 1, 0, 1, 0, 2, 9, 9, 0, 0x21][..], &IPV4_UDP].concat();
    let gre = [&[0xb0, 0, 8, 0][..], &[0; 12], &IPV4_UDP].concat();
    let extensions = [60, 0, 1, 4, 0, 0, 0, 0].repeat(3);
    let ipv6 = [&[0x60, 0, 0, 0, 0, 44, 60, 255][..], &[0xfe; 32], &extensions, &[58; 20]].concat();
    let dhcp =
        [&[1, 1, 6, 0][..], &[0; 232], &[99, 130, 83, 99, 52, 1, 3, 12, 3, 1, 2, 3, 53, 1, 1]].concat();
    let frame = |ether_type: [u8; 2], body: &[u8]| [&[2; 12][..], &ether_type, body].concat();
    vec![
        frame([0x81, 0], &[&[0, 1, 8, 0][..], &over_udp(4789, &vxlan)].concat()),
        frame([8, 0], &over_udp(2152, &gtp)),
        frame([8, 0], &over_udp(6081, &geneve)),
        frame([8, 0], &over_udp(1701, &l2tp)),
        frame([8, 0], &over_udp(67, &dhcp)),
        frame([8, 0], &over_ipv4(47, &gre)),
        frame([0x86, 0xdd], &ipv6),
        frame([0x88, 0x47], &[&[0, 1, 1, 64, 0, 0, 0, 0][..], &frame([8, 0], &IPV4_UDP)].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic_on_any_link(
        link_type in select(LINK_TYPES),
        wire_length: u32,
        data in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        walk(&CapturedPacket { wire_length, ..captured(LinkType(link_type), &data) });
    }

    #[test]
    fn random_payloads_never_panic_behind_sound_headers(
        port in select(PORTS),
        protocol in select(&[1_u8, 4, 6, 17, 41, 47, 51, 58, 97, 115, 132, 137, 143][..]),
        data in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        walk(&captured(LinkType::RAW, &over_udp(port, &data)));
        walk(&captured(LinkType::RAW, &over_ipv4(protocol, &data)));
    }

    #[test]
    fn sound_packets_with_bytes_changed_and_ends_cut_never_panic(
        packet in select(sound_packets()),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut: Index,
    ) {
        let mut bytes = packet;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        walk(&captured(LinkType::ETHERNET, &bytes));
        bytes.truncate(cut.index(bytes.len()));
        walk(&captured(LinkType::ETHERNET, &bytes));
    }

    #[test]
    fn random_bytes_never_panic_in_a_tunnel(
        ether_type in select(&[0x0800_u16, 0x86dd, 0x8100, 0x8847, 0x8864, 0x88e5, 0x88e7, 0x894f][..]),
        wire_length: u32,
        data in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let tunnel = Tunnel { kind: TunnelKind::Gre, id: None };
        let wireless = InnerStart::Link(LinkType::IEEE802_11);
        let swapped = InnerStart::SwappedIeee80211;
        for starts_with in [InnerStart::Ethernet, InnerStart::EtherType(ether_type), wireless, swapped] {
            let vlan = Some(5);
            let _ = decode_inner(&Inner { tunnel, starts_with, data: &data, wire_length, vlan, sequence: None });
        }
    }

    #[test]
    fn control_plane_parsers_take_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (dhcp4::parse(&data), dhcp6::parse(&data));
        let with_cookie = [&[2; 236][..], &[99, 130, 83, 99], &data].concat();
        let _ = dhcp4::parse(&with_cookie);
    }
}
