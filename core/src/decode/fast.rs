//! The headers that nearly every packet has, read by themselves: Ethernet with at most one VLAN tag, IPv4 without
//! options or IPv6 without extension headers, not fragmented and of a length that fits, then TCP, UDP or ICMP.
//! Whatever else a packet is, the general way decodes it; what is read here is what the general way reads.

use super::{
    packet::{CapturedPacket, LinkType, TcpSegment},
    plain::{Plain, PlainTransport},
    read, shim,
};
use crate::net::MacAddress;

/// A header of UDP or ICMP.
const SHORT_HEADER: u32 = 8;

/// The packet and the captured bytes from its IP header on, without Ethernet padding, where a packet has the usual
/// headers and no other.
#[inline]
pub(crate) fn usual<'a>(packet: &CapturedPacket<'a>) -> Option<(Plain, &'a [u8])> {
    let mut plain = Plain::EMPTY;
    let bytes = read_usual(packet, &mut plain)?;
    Some((plain, bytes))
}

/// [`usual`] in place, so that nothing is carried about: each field is written where it will be read. What `plain` is
/// where the headers are not the usual ones is open.
#[inline]
pub(crate) fn read_usual<'a>(packet: &CapturedPacket<'a>, plain: &mut Plain) -> Option<&'a [u8]> {
    if packet.link_type != LinkType::ETHERNET {
        return None;
    }
    let data = packet.data;
    let (header, mut rest) = data.split_first_chunk::<14>()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1] = *header;
    plain.source_mac = MacAddress([s0, s1, s2, s3, s4, s5]);
    plain.destination_mac = MacAddress([d0, d1, d2, d3, d4, d5]);
    let wire = (packet.wire_length as usize).max(data.len());
    let (mut ether_type, mut network_wire) = (u16::from_be_bytes([e0, e1]), wire.saturating_sub(14));
    plain.vlan = 0;
    if ether_type == 0x8100 {
        let (&[t0, t1, e0, e1], behind) = rest.split_first_chunk()?;
        plain.vlan = u16::from_be_bytes([t0, t1]) & 0x0fff | Plain::TAGGED;
        (ether_type, network_wire, rest) = (u16::from_be_bytes([e0, e1]), wire.saturating_sub(18), behind);
    }
    let header_length = match ether_type {
        shim::IPV4 => read_v4(rest, plain)?,
        shim::IPV6 => read_v6(rest, plain)?,
        _ => return None,
    };
    let ip_bytes = plain.ip_bytes as usize;
    if ip_bytes > network_wire {
        return None;
    }
    let bytes = rest.get(..ip_bytes).unwrap_or(rest);
    let length = plain.ip_bytes.saturating_sub(header_length);
    read_transport(bytes.get(header_length as usize..)?, length, plain)?;
    plain.time = packet.time;
    plain.wire_length = packet.wire_length;
    plain.interface = packet.interface;
    plain.direction = packet.direction;
    plain.is_flawed = false;
    Some(bytes)
}

/// Reads an IPv4 header; its length.
#[inline]
fn read_v4(data: &[u8], plain: &mut Plain) -> Option<u32> {
    let header = data.first_chunk::<20>()?;
    let [first, tos, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let is_fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    let ip_bytes = u16::from_be_bytes([l0, l1]);
    if first != 0x45 || is_fragment || ip_bytes < 20 {
        return None;
    }
    plain.source = [0, u32::from_be_bytes([s0, s1, s2, s3]).into()];
    plain.destination = [0, u32::from_be_bytes([d0, d1, d2, d3]).into()];
    plain.ip_bytes = ip_bytes.into();
    plain.protocol = protocol;
    plain.ttl = ttl;
    plain.dscp = tos >> 2;
    plain.is_v6 = false;
    Some(20)
}

/// Reads an IPv6 header; its length.
#[inline]
fn read_v6(data: &[u8], plain: &mut Plain) -> Option<u32> {
    let header = data.first_chunk::<40>()?;
    let [first, second, _, _, l0, l1, protocol, ttl, addresses @ ..] = header;
    let length = u32::from(u16::from_be_bytes([*l0, *l1]));
    // A length of zero may be a jumbogram.
    if first >> 4 != 6 || length == 0 {
        return None;
    }
    let ([a, b, c, d], []) = addresses.as_chunks() else { return None };
    plain.source = [u64::from_be_bytes(*a), u64::from_be_bytes(*b)];
    plain.destination = [u64::from_be_bytes(*c), u64::from_be_bytes(*d)];
    plain.ip_bytes = length.saturating_add(40);
    plain.protocol = *protocol;
    plain.ttl = *ttl;
    plain.dscp = (first & 0x0f) << 2 | second >> 6;
    plain.is_v6 = true;
    Some(40)
}

/// Reads what is behind an IP header, `length` bytes by its account, where that is TCP, UDP or ICMP, captured far
/// enough and of a length that fits.
#[inline]
fn read_transport(body: &[u8], length: u32, plain: &mut Plain) -> Option<()> {
    if plain.protocol == 6 {
        let (segment, size) = TcpSegment::read(body)?;
        if size < 20 || size > length {
            return None;
        }
        plain.payload_bytes = length.saturating_sub(size);
        plain.transport = PlainTransport::Tcp;
        (plain.source_port, plain.destination_port) = (segment.source, segment.destination);
        (plain.sequence, plain.acknowledgement) = (segment.sequence, segment.acknowledgement);
        (plain.window, plain.tcp_flags) = (segment.window, segment.flags);
        return Some(());
    }
    plain.payload_bytes = length.saturating_sub(SHORT_HEADER);
    (plain.sequence, plain.acknowledgement, plain.window, plain.tcp_flags) = (0, 0, 0, 0);
    match plain.protocol {
        17 => {
            let [s0, s1, d0, d1] = *body.first_chunk()?;
            plain.transport = PlainTransport::Udp;
            plain.source_port = u16::from_be_bytes([s0, s1]);
            plain.destination_port = u16::from_be_bytes([d0, d1]);
        }
        1 | 58 => {
            let [kind, code] = *body.first_chunk()?;
            plain.transport = PlainTransport::Icmp;
            (plain.source_port, plain.destination_port) = (kind.into(), code.into());
            plain.sequence = read::be32(body, 4).unwrap_or_default();
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::{
        prelude::*,
        sample::{Index, select},
    };

    use super::*;
    use crate::decode::{
        cursor::saturate,
        decode, inner,
        link::decode_traced,
        packet::{InterfaceIndex, LinkDirection},
        testing::{IPV4_UDP, captured, over_ipv4, over_udp},
    };
    use crate::time::Timestamp;

    /// What the usual headers give is what the general way gives; tells whether they were the usual ones.
    fn agree(packet: &CapturedPacket<'_>) -> bool {
        let packet = CapturedPacket {
            time: Timestamp(7),
            interface: InterfaceIndex(3),
            direction: LinkDirection::Sent,
            ..*packet
        };
        let Some((plain, _)) = usual(&packet) else { return false };
        assert_eq!(decode(&packet), decode_traced(&packet, &mut ()), "{:02x?}", packet.data);
        assert_eq!((plain.time, plain.interface), (packet.time, packet.interface));
        assert_eq!((plain.wire_length, plain.is_flawed), (packet.wire_length, false));
        true
    }

    fn frame(ether_type: &[u8], body: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], ether_type, body].concat()
    }

    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0x6b, 0x80, 0, 0, high, low, next, 61][..], &[0x20; 16], &[0x21; 16], payload].concat()
    }

    /// 50000 → 443 with an option and payload.
    const TCP: [u8; 27] =
        [0xc3, 0x50, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x61, 0x12, 4, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4, 1, 2, 3];

    fn usual_packets() -> Vec<Vec<u8>> {
        let bodies = [
            (&[8, 0][..], IPV4_UDP.to_vec()),
            (&[8, 0], over_ipv4(6, &TCP)),
            (&[8, 0], [over_ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 2, 3]), vec![0; 12]].concat()),
            (&[0x86, 0xdd], ipv6(6, &TCP)),
            (&[0x86, 0xdd], ipv6(17, &IPV4_UDP[20..])),
            (&[0x86, 0xdd], ipv6(58, &[135, 0, 0, 0, 0, 0, 0, 0])),
        ];
        let tagged =
            |(ether_type, body): &(&[u8], Vec<u8>)| frame(&[&[0x81, 0, 0xe0, 7], *ether_type].concat(), body);
        let plain = |(ether_type, body): &(&[u8], Vec<u8>)| frame(ether_type, body);
        bodies.iter().map(plain).chain(bodies.iter().map(tagged)).collect()
    }

    #[test]
    fn the_usual_headers_read_as_the_general_way_reads_them() {
        for bytes in usual_packets() {
            assert!(agree(&captured(LinkType::ETHERNET, &bytes)), "{bytes:02x?}");
            for end in 0..bytes.len() {
                let wire_length = saturate(bytes.len());
                let cut = CapturedPacket { wire_length, ..captured(LinkType::ETHERNET, &bytes[..end]) };
                agree(&cut);
            }
        }
    }

    #[test]
    fn options_fragments_tunnels_and_other_links_are_left_to_the_general_way() {
        let base = frame(&[8, 0], &IPV4_UDP);
        for (at, value) in [(14, 0x46), (14, 0x65), (20, 0x20), (21, 1), (23, 47), (23, 132), (17, 255)] {
            let mut bytes = base.clone();
            bytes[at] = value;
            assert!(usual(&captured(LinkType::ETHERNET, &bytes)).is_none(), "{at}: {value}");
        }
        assert!(usual(&captured(LinkType::RAW, &base)).is_none());
        assert!(usual(&captured(LinkType::ETHERNET, &frame(&[8, 6], &[0; 28]))).is_none());
    }

    /// A packet is passed on by its ports and type alone wherever its payload may say anything.
    #[test]
    fn what_opens_or_states_something_may_say_more() {
        let gtp = [&[0x30, 0xff, 0, 32, 0, 0, 0, 4][..], &IPV4_UDP].concat();
        let headers: [&[u8]; 4] =
            [&[8, 0, 0, 0, 0, 0, 1, 0], &[0x0c, 0, 0, 1, 0, 0, 2, 0], &gtp[..8], &[0, 4, 0, 0]];
        let mut opened = 0;
        for header in headers {
            let payload = [header, &IPV4_UDP].concat();
            let mut frame = frame(&[8, 0], &over_udp(9, &payload));
            for port in 0..=u16::MAX {
                for at in [34, 36] {
                    frame[34..38].copy_from_slice(&[0, 9, 0, 9]);
                    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
                    let (plain, bytes) = usual(&captured(LinkType::ETHERNET, &frame)).expect("usual");
                    let is_opened = !matches!(inner(&plain.ip_with(bytes)), Ok(None));
                    assert!(plain.may_say_more() || !is_opened, "{port}");
                    opened += u16::from(is_opened);
                }
            }
        }
        assert!(opened > 6, "{opened}");
        for (kind, expected) in [(132, false), (133, true), (137, true), (138, false)] {
            let packet = frame(&[0x86, 0xdd], &ipv6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]));
            let (plain, _) = usual(&captured(LinkType::ETHERNET, &packet)).expect("usual");
            assert_eq!(plain.may_say_more(), expected, "{kind}");
        }
        for (source, destination, expected) in [(68, 67, true), (546, 547, true), (68, 53, false)] {
            let mut packet = frame(&[8, 0], &over_udp(destination, b"data"));
            packet[34..36].copy_from_slice(&u16::to_be_bytes(source));
            let (plain, _) = usual(&captured(LinkType::ETHERNET, &packet)).expect("usual");
            assert_eq!(plain.may_say_more(), expected, "{source} to {destination}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn changed_and_cut_packets_read_the_same_both_ways(
            packet in select(usual_packets()),
            changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
            cut: Option<Index>,
            wire_length: u16,
        ) {
            let mut bytes = packet;
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            agree(&captured(LinkType::ETHERNET, &bytes));
            agree(&CapturedPacket { wire_length: wire_length.into(), ..captured(LinkType::ETHERNET, &bytes) });
        }
    }
}
