//! Checksums of a decoded packet: IPv4 header (RFC 791), TCP, UDP, ICMP and ICMPv6 (RFC 1071), SCTP (RFC 9260).
//!
//! Only what was captured whole can be checked; what cannot be is taken for sound.

use std::net::IpAddr;

use super::{
    crc32c::crc32c,
    packet::{IpPacket, Transport},
    read,
};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// UDP ports of tunnels that may do without a checksum over IPv6 (RFC 6935, RFC 6936): GTP-U, GRE, VXLAN, Geneve,
/// MPLS.
const ZERO_CHECKSUM_TUNNELS: [u16; 6] = [2152, 4754, 4789, 4790, 6081, 6635];

/// What the checksums of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing against it, as far as they can be checked.
    Sound,
    /// The IPv4 header's is wrong.
    WrongHeader,
    /// That of TCP, UDP, ICMP or SCTP is wrong.
    WrongTransport,
}

/// Checks a packet.
pub fn check(packet: &IpPacket<'_>) -> Checksum {
    if is_header_wrong(packet) {
        return Checksum::WrongHeader;
    }
    let (header, body) = (packet.header(), packet.body());
    // Without a stated length it is a segment that the network card was to cut and to sum up.
    let stated = read::be16(header, if packet.source.is_ipv4() { 2 } else { 4 }) != Some(0);
    if !(packet.is_whole() && stated) || packet.fragment.is_some() || packet.transport == Transport::None {
        return Checksum::Sound;
    }
    let is_sound = match packet.protocol {
        TCP => is_covered(packet, header, body),
        UDP => udp(packet, header, body),
        ICMP if packet.source.is_ipv4() => is_zero_sum(sum(body)),
        ICMPV6 if packet.source.is_ipv6() => is_covered(packet, header, body),
        SCTP => sctp(body),
        _ => true,
    };
    if is_sound { Checksum::Sound } else { Checksum::WrongTransport }
}

/// Whether a packet has an IPv4 header, all of it, with a wrong checksum.
pub fn is_header_wrong(packet: &IpPacket<'_>) -> bool {
    packet.source.is_ipv4() && ipv4_header(packet.header()).is_some_and(|header| !is_zero_sum(sum(header)))
}

/// The IPv4 header, all of it, without an authentication header behind it. an authentication header behind it.
fn ipv4_header(header: &[u8]) -> Option<&[u8]> {
    header.get(..usize::from(header.first()? & 0x0f) * 4)
}

fn udp(packet: &IpPacket<'_>, header: &[u8], body: &[u8]) -> bool {
    let (Some(to), Some(stated), Some(checksum)) =
        (read::be16(body, 2), read::be16(body, 4), read::be16(body, 6))
    else {
        return true;
    };
    // Zero is a jumbogram's (RFC 2675).
    let length = if stated == 0 { body.len() } else { usize::from(stated) };
    match (checksum, packet.source) {
        (0, IpAddr::V4(_)) => true,
        (0, IpAddr::V6(_)) => ZERO_CHECKSUM_TUNNELS.contains(&to),
        // A length that contradicts the packet's leaves open what the sum is over.
        _ => length < 8 || body.get(..length).is_none_or(|body| is_covered(packet, header, body)),
    }
}

fn sctp(body: &[u8]) -> bool {
    let Some((header, rest)) = body.split_first_chunk::<12>() else { return true };
    let [ports @ .., c0, c1, c2, c3] = *header;
    crc32c(&[&ports, &[0; 4], rest]) == u32::from_le_bytes([c0, c1, c2, c3])
}

/// Whether the sum over pseudo-header and body is right; true where the final destination is not known.
fn is_covered(packet: &IpPacket<'_>, header: &[u8], body: &[u8]) -> bool {
    let Some(pseudo) = pseudo_header(packet, header) else { return true };
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let last = sum(&length).wrapping_add(sum(&[0, packet.protocol]));
    is_zero_sum(pseudo.wrapping_add(last).wrapping_add(sum(body)))
}

/// Sum of source and final destination: behind a source route the packet's own destination is only the next hop.
fn pseudo_header(packet: &IpPacket<'_>, header: &[u8]) -> Option<u64> {
    let base = match packet.source {
        IpAddr::V4(_) => {
            if has_source_route(header) {
                return None;
            }
            header.get(12..20)?
        }
        IpAddr::V6(_) => {
            if header.len() > 40 {
                let destination = final_destination(header)?;
                return Some(sum(header.get(8..24)?).wrapping_add(sum(destination)));
            }
            header.get(8..40)?
        }
    };
    Some(sum(base))
}

/// Whether IPv4 options route the packet on from its destination (RFC 791).
fn has_source_route(header: &[u8]) -> bool {
    let mut options = ipv4_header(header).and_then(|header| header.get(20..)).unwrap_or_default();
    loop {
        options = match *options {
            [] | [0, ..] => return false,
            [1, ref rest @ ..] => rest,
            [131 | 137, length, pointer, ..] => return pointer <= length,
            [_, length, ..] if length >= 2 => options.get(usize::from(length)..).unwrap_or_default(),
            _ => return false,
        };
    }
}

/// Where an IPv6 packet with extension headers goes in the end (RFC 8200 section 8.1); none where that is not
/// known: routing headers of other types, and a home address (RFC 6275) in the place of the source.
fn final_destination(header: &[u8]) -> Option<&[u8]> {
    let mut kind = *header.get(6)?;
    let mut at = 40;
    let mut destination = header.get(24..40)?;
    while let Some(&[next, length, first, second]) = header.get(at..).and_then(<[u8]>::first_chunk) {
        let size = match kind {
            44 => 8,
            51 => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        match kind {
            43 if second > 0 => {
                let end = at.checked_add(size)?;
                destination = match first {
                    0 if length > 0 => header.get(end.checked_sub(16)?..end)?,
                    // The segments of RFC 8754 stand in reverse.
                    4 => header.get(at + 8..at + 24)?,
                    _ => return None,
                };
            }
            60 if first == 201 => return None,
            _ => {}
        }
        kind = next;
        at = at.checked_add(size)?;
    }
    Some(destination)
}

/// Sum of 16-bit words in the machine's byte order, not folded. Four bytes at a time into 64 bits is what the
/// compiler turns into vector instructions, and a packet's words cannot overflow it.
fn sum(data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks::<4>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let word = |bytes: &[u8; 4]| u64::from(u32::from_ne_bytes(*bytes));
    words.iter().fold(word(&last), |total, bytes| total.wrapping_add(word(bytes)))
}

/// Whether a sum is zero in ones' complement: all bits set, or none.
const fn is_zero_sum(sum: u64) -> bool {
    // 2^16 - 1 divides 2^64 - 1, so folding keeps the remainder.
    sum.is_multiple_of(0xffff)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::{
        super::testing::{ip_packet, raw},
        Checksum::{Sound, WrongHeader, WrongTransport},
        *,
    };
    use crate::decode::LinkType;

    /// UDP 192.168.0.1 → 192.168.0.199, total length 0x73, as it is worked out in many a textbook.
    const TEXTBOOK_HEADER: [u8; 20] =
        [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 192, 168, 0, 1, 192, 168, 0, 199];

    /// An SCTP cookie acknowledgement over IPv4, as it was captured.
    const SCTP_COOKIE_ACK: [u8; 36] = [
        0x45, 0, 0, 0x24, 0xb0, 0xee, 0, 0, 0x80, 0x84, 0xb3, 0xd5, 0xc0, 0xa8, 0xaa, 0x38, 0xc0, 0xa8, 0xaa,
        8, 0, 7, 0, 7, 0x43, 0x23, 0x25, 0x44, 0xce, 0xec, 0x2d, 0x79, 0x0b, 0, 0, 4,
    ];

    /// Packets of another builder, with where their transport header begins.
    fn built(payload: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let v4 = || PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 64);
        let v6 = || PacketBuilder::ipv6([0x20; 16], [0xfd; 16], 64);
        let mut packets = vec![(20, Vec::new()), (40, Vec::new()), (20, Vec::new()), (40, Vec::new())];
        packets.extend([(20, Vec::new()), (40, Vec::new())]);
        v4().tcp(50_000, 443, 7, 1_000).write(&mut packets[0].1, payload).unwrap();
        v6().tcp(50_000, 443, 7, 1_000).write(&mut packets[1].1, payload).unwrap();
        v4().udp(50_000, 53).write(&mut packets[2].1, payload).unwrap();
        v6().udp(50_000, 53).write(&mut packets[3].1, payload).unwrap();
        v4().icmpv4_echo_request(1, 2).write(&mut packets[4].1, payload).unwrap();
        v6().icmpv6_echo_request(1, 2).write(&mut packets[5].1, payload).unwrap();
        packets
    }

    #[test]
    fn sums_of_another_builder_are_right_and_any_byte_changed_is_wrong() {
        for length in [0, 1, 2, 3, 4, 31, 1459] {
            let payload: Vec<u8> = (0..=255).cycle().take(length).collect();
            for (start, bytes) in built(&payload) {
                assert_eq!(check(&raw(&bytes)), Sound, "{bytes:02x?}");
                for at in start..bytes.len() {
                    let mut changed = bytes.clone();
                    changed[at] ^= 0x10;
                    let packet = raw(&changed);
                    let is_udp_length = packet.protocol == UDP && (start + 4..start + 6).contains(&at);
                    let expected = if is_udp_length { check(&packet) } else { WrongTransport };
                    assert_eq!(check(&packet), expected, "byte {at} of {bytes:02x?}");
                }
            }
        }
    }

    #[test]
    fn the_header_of_the_textbook_is_right() {
        let mut bytes = [&TEXTBOOK_HEADER[..], &[0; 95]].concat();
        assert!(!is_header_wrong(&raw(&bytes)));
        bytes[8] -= 1;
        assert_eq!(check(&raw(&bytes)), WrongHeader);
        assert_eq!(check(&raw(&bytes[..19 + 1])), WrongHeader, "a cut packet whose header is there");
    }

    #[test]
    fn sctp_has_a_crc() {
        assert_eq!(check(&raw(&SCTP_COOKIE_ACK)), Sound);
        let mut changed = SCTP_COOKIE_ACK;
        changed[33] = 1;
        assert_eq!(check(&raw(&changed)), WrongTransport);
    }

    #[test]
    fn what_cannot_be_checked_is_sound() {
        for (start, bytes) in built(b"0123456789") {
            let mut wrong = bytes.clone();
            *wrong.last_mut().unwrap() ^= 1;
            assert_eq!(check(&ip_packet(LinkType::RAW, &wrong[..wrong.len() - 2])), Sound, "cut");
            if start == 20 {
                wrong[6] = 0x20;
                let left = !u16::try_from(sum_of_header(&wrong)).unwrap();
                wrong[10..12].copy_from_slice(&left.to_ne_bytes());
                assert_eq!(check(&raw(&wrong)), Sound, "a fragment");
            }
        }
    }

    /// Sum of the header without its checksum, folded.
    fn sum_of_header(bytes: &[u8]) -> u64 {
        match (sum(&bytes[..10]) + sum(&bytes[12..20])) % 0xffff {
            0 => 0xffff,
            rest => rest,
        }
    }

    #[test]
    fn udp_may_do_without_over_ipv4_and_in_tunnels_over_ipv6() {
        for (start, to, expected) in [(20, 53, Sound), (40, 53, WrongTransport), (40, 4789, Sound)] {
            let mut bytes = Vec::new();
            if start == 20 {
                PacketBuilder::ipv4([1; 4], [2; 4], 64).udp(1, to).write(&mut bytes, b"data").unwrap();
            } else {
                PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(1, to).write(&mut bytes, b"data").unwrap();
            }
            bytes[start + 6..start + 8].fill(0);
            assert_eq!(check(&raw(&bytes)), expected, "IP header of {start} bytes, port {to}");
        }
    }

    #[test]
    fn behind_a_routing_header_the_sum_is_by_the_final_destination() {
        let mut direct = Vec::new();
        PacketBuilder::ipv6([1; 16], [9; 16], 64).udp(1, 2).write(&mut direct, b"data").unwrap();
        let udp = &direct[40..];
        for (kind, left, segments, expected) in [
            (0, 1, [[9; 16]], Sound),
            (4, 1, [[9; 16]], Sound),
            (0, 1, [[8; 16]], WrongTransport),
            (0, 0, [[9; 16]], WrongTransport),
            (253, 1, [[8; 16]], Sound),
        ] {
            let mut bytes = direct[..40].to_vec();
            bytes[24..40].fill(5);
            bytes[5] += 24;
            bytes[6] = 43;
            bytes.extend([UDP, 2, kind, left, 0, 0, 0, 0]);
            bytes.extend(segments.concat());
            bytes.extend(udp);
            assert_eq!(check(&raw(&bytes)), expected, "type {kind}, {left} left, {segments:?}");
        }
    }

    #[test]
    fn behind_a_source_route_of_ipv4_the_destination_is_not_known() {
        let route = |pointer| [&[0x47][..], &[0; 19], &[131, 7, pointer, 1, 2, 3, 4, 0]].concat();
        assert!(has_source_route(&route(4)));
        assert!(!has_source_route(&route(8)), "it has arrived");
        assert!(!has_source_route(&[&[0x46][..], &[0; 19], &[1, 1, 1, 131]].concat()));
    }
}
