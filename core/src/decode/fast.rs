//! The headers that nearly every packet has, read by themselves: Ethernet with at most one VLAN tag, IPv4 without
//! options or IPv6 without extension headers, not fragmented and of a length that fits, then TCP, UDP or ICMP.
//! Whatever else a packet is, the general way decodes it; what is read here is what the general way reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    cursor::saturate,
    packet::{CapturedPacket, IpPacket, Link, LinkType},
    read, shim,
    transport::{self, Body},
};
use crate::net::MacAddress;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Link and IP packet, where a packet has the usual headers and no other.
#[inline]
pub(crate) fn usual<'a>(packet: &CapturedPacket<'a>) -> Option<(Link, IpPacket<'a>)> {
    if packet.link_type != LinkType::ETHERNET {
        return None;
    }
    let data = packet.data;
    let header = data.first_chunk::<14>()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1] = *header;
    let mut link = Link {
        source_mac: Some(MacAddress([s0, s1, s2, s3, s4, s5])),
        destination_mac: Some(MacAddress([d0, d1, d2, d3, d4, d5])),
        direction: packet.direction,
        ..Link::default()
    };
    let (ether_type, at) = match u16::from_be_bytes([e0, e1]) {
        0x8100 => {
            link.vlans.push(read::be16(data, 14)? & 0x0fff);
            (read::be16(data, 16)?, 18)
        }
        other => (other, 14),
    };
    let wire = packet.wire_length.max(saturate(data.len())).saturating_sub(saturate(at));
    let ip = match ether_type {
        shim::IPV4 => v4(read::rest(data, at), wire)?,
        shim::IPV6 => v6(read::rest(data, at), wire)?,
        _ => return None,
    };
    Some((link, ip))
}

#[inline]
fn v4(data: &[u8], wire: u32) -> Option<IpPacket<'_>> {
    let header = data.first_chunk::<IPV4_HEADER>()?;
    let [first, tos, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let is_fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    if first != 0x45 || is_fragment {
        return None;
    }
    let total = u32::from(u16::from_be_bytes([l0, l1]));
    let length = total.checked_sub(20)?;
    let body = body(protocol, data, IPV4_HEADER, total, length, wire)?;
    Some(packet(
        IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        (protocol, ttl, tos >> 2, total),
        (data, IPV4_HEADER),
        body,
    ))
}

#[inline]
fn v6(data: &[u8], wire: u32) -> Option<IpPacket<'_>> {
    let header = data.first_chunk::<IPV6_HEADER>()?;
    let [first, second, _, _, l0, l1, protocol, ttl, addresses @ ..] = header;
    let length = u32::from(u16::from_be_bytes([*l0, *l1]));
    // A length of zero may be a jumbogram.
    if first >> 4 != 6 || length == 0 {
        return None;
    }
    let total = length.saturating_add(40);
    let body = body(*protocol, data, IPV6_HEADER, total, length, wire)?;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let dscp = (first & 0x0f) << 2 | second >> 6;
    Some(packet(
        IpAddr::V6(Ipv6Addr::from(*source)),
        IpAddr::V6(Ipv6Addr::from(*destination.first_chunk::<16>()?)),
        (*protocol, *ttl, dscp, total),
        (data, IPV6_HEADER),
        body,
    ))
}

/// What is behind an IP header of `header` bytes, where it is TCP, UDP or ICMP and the length fits the frame.
#[inline]
fn body(protocol: u8, data: &[u8], header: usize, total: u32, length: u32, wire: u32) -> Option<Body<'_>> {
    if !matches!(protocol, 1 | 6 | 17 | 58) || total > wire {
        return None;
    }
    let end = data.len().min(total as usize);
    Some(transport::read(protocol, data.get(header..end)?, length))
}

#[inline]
fn packet<'a>(
    source: IpAddr,
    destination: IpAddr,
    (protocol, ttl, dscp, ip_bytes): (u8, u8, u8, u32),
    (data, header): (&'a [u8], usize),
    body: Body<'a>,
) -> IpPacket<'a> {
    IpPacket {
        source,
        destination,
        protocol,
        ttl,
        dscp,
        ip_bytes,
        payload_bytes: body.payload_bytes,
        estimated: body.estimated,
        fragment: None,
        transport: body.transport,
        bytes: data.get(..ip_bytes as usize).unwrap_or(data),
        header_bytes: saturate(header),
        payload: body.payload,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        prelude::*,
        sample::{Index, select},
    };

    use super::*;
    use crate::decode::{
        Content, Decoded,
        link::decode_traced,
        testing::{IPV4_UDP, captured, over_ipv4},
    };

    /// What the usual headers give is what the general way gives; tells whether they were the usual ones.
    fn agree(packet: &CapturedPacket<'_>) -> bool {
        let Some((link, ip)) = usual(packet) else { return false };
        assert_eq!(
            Ok(Decoded { link, content: Content::Ip(ip) }),
            decode_traced(packet, &mut ()),
            "{:02x?}",
            packet.data
        );
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
