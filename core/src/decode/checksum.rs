//! Checksums of a decoded packet: IPv4 header (RFC 791), TCP, UDP, ICMP and ICMPv6 (RFC 1071), SCTP (RFC 9260).
//!
//! Only what was captured whole can be checked; what cannot be is taken for sound.

use std::net::IpAddr;

use super::{
    crc32c::crc32c,
    packet::{IpPacket, Transport},
    plain::{Plain, PlainTransport},
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
        UDP => is_udp_sound(body, packet.source.is_ipv6(), |body| is_covered(packet, header, body)),
        ICMP if packet.source.is_ipv4() => is_zero_sum(sum(body)),
        ICMPV6 if packet.source.is_ipv6() => is_covered(packet, header, body),
        SCTP => sctp(body),
        _ => true,
    };
    if is_sound { Checksum::Sound } else { Checksum::WrongTransport }
}

/// Whether [`check`] finds nothing against a packet of the usual headers, of which these are the captured bytes from
/// its IP header on.
#[inline]
pub(crate) fn is_plain_sound(packet: &Plain, bytes: &[u8]) -> bool {
    let (addresses, body) = if packet.is_v6 {
        let Some((header, body)) = bytes.split_first_chunk::<40>() else { return true };
        let Some((_, addresses)) = header.split_first_chunk::<8>() else { return true };
        let Some(addresses) = addresses.first_chunk::<32>() else { return true };
        (sum_of(0, addresses), body)
    } else {
        let Some((header, body)) = bytes.split_first_chunk::<20>() else { return true };
        let ([first, second], [e0, e1, e2, e3]) = header.as_chunks() else { return true };
        let second = u64::from_le_bytes(*second);
        let end = u32::from_le_bytes([*e0, *e1, *e2, *e3]).into();
        if !is_zero_sum(add(add(u64::from_le_bytes(*first), second), end)) {
            return false;
        }
        // The source is the upper half of the second word.
        ((second >> 32).wrapping_add(end), body)
    };
    if bytes.len() < packet.ip_bytes as usize {
        return true;
    }
    match (packet.transport, packet.protocol) {
        (PlainTransport::Tcp, _) => is_sum_covered(addresses, TCP, body),
        (PlainTransport::Udp, _) => {
            is_udp_sound(body, packet.is_v6, |body| is_sum_covered(addresses, UDP, body))
        }
        (PlainTransport::Icmp, ICMP) => packet.is_v6 || is_zero_sum(sum(body)),
        (PlainTransport::Icmp, _) => !packet.is_v6 || is_sum_covered(addresses, ICMPV6, body),
    }
}

/// Whether a packet has an IPv4 header, all of it, with a wrong checksum.
pub fn is_header_wrong(packet: &IpPacket<'_>) -> bool {
    packet.source.is_ipv4() && ipv4_header(packet.header()).is_some_and(|header| !is_zero_sum(sum(header)))
}

/// The IPv4 header, all of it, without an authentication header behind it.
fn ipv4_header(header: &[u8]) -> Option<&[u8]> {
    header.get(..usize::from(header.first()? & 0x0f) * 4)
}

/// Whether a datagram is right; `is_covered` tells that of so many bytes of it.
#[inline]
fn is_udp_sound(body: &[u8], is_v6: bool, is_covered: impl FnOnce(&[u8]) -> bool) -> bool {
    let Some(&[_, _, t0, t1, l0, l1, c0, c1]) = body.first_chunk() else { return true };
    let (stated, checksum) = (u16::from_be_bytes([l0, l1]), u16::from_be_bytes([c0, c1]));
    // Zero is a jumbogram's (RFC 2675).
    let length = if stated == 0 { body.len() } else { usize::from(stated) };
    if checksum == 0 {
        return !is_v6 || ZERO_CHECKSUM_TUNNELS.contains(&u16::from_be_bytes([t0, t1]));
    }
    // A length that contradicts the packet's leaves open what the sum is over.
    length < 8 || body.get(..length).is_none_or(is_covered)
}

fn sctp(body: &[u8]) -> bool {
    let Some((header, rest)) = body.split_first_chunk::<12>() else { return true };
    let [ports @ .., c0, c1, c2, c3] = *header;
    crc32c(&[&ports, &[0; 4], rest]) == u32::from_le_bytes([c0, c1, c2, c3])
}

/// Whether the sum over pseudo-header and body is right; true where the final destination is not known.
fn is_covered(packet: &IpPacket<'_>, header: &[u8], body: &[u8]) -> bool {
    let Some(pseudo) = pseudo_header(packet, header) else { return true };
    is_sum_covered(pseudo, packet.protocol, body)
}

/// Whether the sum over these addresses, protocol, length and body is right.
#[inline]
fn is_sum_covered(addresses: u64, protocol: u8, body: &[u8]) -> bool {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let length_and_protocol =
        u64::from(u32::from_le_bytes(length)).wrapping_add(u16::from_le_bytes([0, protocol]).into());
    is_zero_sum(add(add(addresses, length_and_protocol), sum(body)))
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
                return Some(add(sum(header.get(8..24)?), sum(destination)));
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

/// Sum in ones' complement of words in little-endian order, which is that of their 16-bit words: 2^16 - 1 divides
/// 2^64 - 1. The words of a packet are added with their carries, eight of them by nine instructions, in two sums that
/// the machine can work out side by side.
#[inline]
fn sum(data: &[u8]) -> u64 {
    let (mut total, mut left) = if data.len() >= 128 { sum_long(data) } else { (0, data) };
    if let Some((first, behind)) = left.split_first_chunk::<64>() {
        (total, left) = (sum_of(total, first), behind);
    }
    if let Some((first, behind)) = left.split_first_chunk::<32>() {
        (total, left) = (sum_of(total, first), behind);
    }
    if let Some((first, behind)) = left.split_first_chunk::<16>() {
        (total, left) = (sum_of(total, first), behind);
    }
    if let Some((first, behind)) = left.split_first_chunk() {
        (total, left) = (add(total, u64::from_le_bytes(*first)), behind);
    }
    add(total, last_word(data, left))
}

/// The sum over as many pieces of 128 bytes as there are, and what is left.
#[inline]
fn sum_long(data: &[u8]) -> (u64, &[u8]) {
    let (pieces, left) = data.as_chunks::<128>();
    let (mut one, mut other) = (0, 0);
    for piece in pieces {
        if let ([first, second], _) = piece.as_chunks::<64>() {
            one = sum_of(one, first);
            other = sum_of(other, second);
        }
    }
    (add(one, other), left)
}

/// The bytes `left` at the end of `data`, fewer than eight, as a word.
#[inline]
fn last_word(data: &[u8], left: &[u8]) -> u64 {
    if let Some(last) = data.last_chunk() {
        // Those before them are shifted out; by 64 bits where nothing is left.
        let unused = 63_usize.saturating_sub(left.len().saturating_mul(8));
        return u64::from_le_bytes(*last) >> 1 >> unused;
    }
    left.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The sum of `total` and the words of a piece.
#[inline]
fn sum_of<const SIZE: usize>(total: u64, piece: &[u8; SIZE]) -> u64 {
    let (mut sum, mut carry) = (total, false);
    for word in piece.as_chunks().0 {
        (sum, carry) = sum.carrying_add(u64::from_le_bytes(*word), carry);
    }
    // The first addition takes no carry in, so a sum that carries out is never all ones.
    sum.wrapping_add(carry.into())
}

/// The sum of two words.
#[inline]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u64)
}

/// Whether a sum is zero in ones' complement: all bits set, or none.
#[inline]
const fn is_zero_sum(sum: u64) -> bool {
    // 2^16 - 1 divides 2^64 - 1, so folding keeps the remainder.
    sum.is_multiple_of(0xffff)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::{prelude::*, sample::Index};

    use super::{
        super::testing::{captured, ip_packet, raw},
        Checksum::{Sound, WrongHeader, WrongTransport},
        *,
    };
    use crate::decode::{CapturedPacket, LinkType, fast};

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
                wrong[10..12].copy_from_slice(&left.to_le_bytes());
                assert_eq!(check(&raw(&wrong)), Sound, "a fragment");
            }
        }
    }

    /// Sum of the header without its checksum, folded.
    fn sum_of_header(bytes: &[u8]) -> u64 {
        match add(sum(&bytes[..10]), sum(&bytes[12..20])) % 0xffff {
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

    /// Both ways agree about a packet; none where only the general one takes it.
    fn is_sound_both_ways(packet: &CapturedPacket<'_>) -> Option<bool> {
        let (plain, bytes) = fast::usual(packet)?;
        let ip = plain.ip_with(bytes);
        let is_sound = is_plain_sound(&plain, bytes);
        assert_eq!(is_sound, check(&ip) == Sound, "{:02x?}", packet.data);
        Some(is_sound)
    }

    fn frame(ip: &[u8]) -> Vec<u8> {
        let ether_type = if ip.first().is_some_and(|first| first >> 4 == 4) { [8, 0] } else { [0x86, 0xdd] };
        [&[2; 12][..], &ether_type, ip].concat()
    }

    #[test]
    fn plain_packets_are_judged_as_any_are() {
        for (start, bytes) in built(b"0123456789abcdef") {
            let mut bytes = frame(&bytes);
            assert_eq!(is_sound_both_ways(&captured(LinkType::ETHERNET, &bytes)), Some(true));
            for at in 14..bytes.len() {
                bytes[at] ^= 0x10;
                is_sound_both_ways(&captured(LinkType::ETHERNET, &bytes));
                bytes[at] ^= 0x10;
            }
            bytes[start + 14 + 17] ^= 1;
            assert_eq!(is_sound_both_ways(&captured(LinkType::ETHERNET, &bytes)), Some(false));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn words_sum_up_as_pairs_of_bytes_do(data in prop::collection::vec(any::<u8>(), 0..700), ones: bool) {
            let data = if ones { vec![0xff; data.len()] } else { data };
            let pair = |pair: &[u8]| {
                u64::from(u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
            };
            let pairs: u64 = data.chunks(2).map(pair).sum();
            prop_assert_eq!(sum(&data) % 0xffff, pairs % 0xffff);
            prop_assert_eq!(sum(&data) == 0, pairs == 0);
        }

        #[test]
        fn changed_and_cut_packets_are_judged_the_same_both_ways(
            pick in 0_usize..6,
            payload in prop::collection::vec(any::<u8>(), 0..300),
            protocol in prop::option::of(prop::sample::select(vec![1_u8, 6, 17, 58])),
            clear_checksum: bool,
            changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
            cut in prop::option::of(any::<Index>()),
            padding in 0_usize..8,
        ) {
            let (start, mut ip) = built(&payload).swap_remove(pick);
            if let Some(protocol) = protocol {
                ip[if start == 20 { 9 } else { 6 }] = protocol;
            }
            if start == 20 {
                let left = !u16::try_from(sum_of_header(&ip)).unwrap();
                ip[10..12].copy_from_slice(&left.to_le_bytes());
            }
            if clear_checksum {
                ip[start + 6..start + 8].fill(0);
            }
            let mut bytes = frame(&ip);
            bytes.resize(bytes.len() + padding, 7);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let whole = captured(LinkType::ETHERNET, &bytes);
            is_sound_both_ways(&whole);
            if let Some(cut) = cut {
                is_sound_both_ways(&CapturedPacket { data: &bytes[..cut.index(bytes.len())], ..whole });
            }
        }
    }
}
