//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers, with options, extension headers, AH (RFC 4302) and fragments.
//!
//! Counts come from the length fields, so that a capture cut at a snap length counts as the wire did. Headers
//! are read here and not by etherparse where it asks for more of a cut packet than the counts need: the whole
//! of the IPv4 options, the whole of an extension header.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};

use super::{
    cursor::{Cursor, at_network, saturate},
    packet::{Fragment, IpPacket, Transport, Unparsed},
    read,
    trace::{Trace, between},
    transport::{self, Body},
};
use crate::record::Reason;

/// Extension headers that are followed. RFC 8200 recommends each at most once, six kinds in all; longer chains
/// are a way to hide ports from monitors that give up early.
const MAX_EXTENSIONS: usize = 128;
/// IP protocol number of the authentication header.
const AUTHENTICATION: u8 = 51;
/// IPv6 next header: nothing follows.
const NO_NEXT_HEADER: u8 = 59;

/// What is behind the IP headers read so far.
struct Upper<'a> {
    protocol: u8,
    /// Captured bytes, without what is behind the packet's end by its length field.
    data: &'a [u8],
    /// Bytes by the length field.
    length: u32,
    fragment: Option<Fragment>,
    estimated: bool,
    /// Whether a header between here and the transport header is cut, so that what follows is not known.
    cut: bool,
}

impl<'a> Upper<'a> {
    /// Moves past a header of `size` bytes; the captured bytes may end within it.
    fn skip(&mut self, size: usize) {
        self.data = read::rest(self.data, size);
        self.estimated |= self.length < saturate(size);
        self.length = self.length.saturating_sub(saturate(size));
    }

    /// Moves past an extension header whose next header and length are in its first two bytes; the length
    /// counts `unit` bytes and leaves `extra` units out. False where its first eight bytes are not all there.
    fn skip_extension(&mut self, unit: usize, extra: usize, trace: &mut impl Trace) -> bool {
        let Some([next, length, ..]) = read::array::<8>(self.data, 0) else { return false };
        let (name, before) = (extension_name(self.protocol), self.data);
        self.protocol = next;
        self.skip((usize::from(length) + extra) * unit);
        trace.header(name, between(before, self.data), None);
        true
    }

    /// Moves past an IPv6 fragment header; gives the offset. None where it is cut.
    fn skip_fragment_header(&mut self) -> Option<u16> {
        let header = Ipv6FragmentHeaderSlice::from_slice(self.data).ok()?;
        self.protocol = header.next_header().0;
        let offset = header.fragment_offset().value() << 3;
        if header.is_fragmenting_payload() {
            let (identification, more) = (header.identification(), header.more_fragments());
            self.fragment = Some(Fragment { key_protocol: 0, identification, offset, more });
        }
        self.skip(8);
        Some(offset)
    }

    fn into_packet(self, header: Addressed<'a>, trace: &mut impl Trace) -> IpPacket<'a> {
        let is_later_fragment = self.fragment.is_some_and(|fragment| fragment.offset != 0);
        let body = match (self.cut, is_later_fragment) {
            (true, _) => Body { transport: Transport::None, payload_bytes: 0, payload: &[], estimated: true },
            (false, true) => Body::whole(self.data, self.length),
            (false, false) => transport::read(self.protocol, self.data, self.length),
        };
        if !matches!(body.transport, Transport::None) {
            trace.header(transport::name(self.protocol), between(self.data, body.payload), None);
        }
        IpPacket {
            source: header.source,
            destination: header.destination,
            protocol: self.protocol,
            ttl: header.ttl,
            dscp: header.dscp,
            ip_bytes: header.ip_bytes,
            payload_bytes: body.payload_bytes,
            estimated: self.estimated || body.estimated,
            fragment: self.fragment,
            transport: body.transport,
            bytes: header.start,
            header_bytes: saturate(header.start.len().saturating_sub(self.data.len())),
            payload: body.payload,
        }
    }
}

/// What both versions' headers say beside what follows them.
struct Addressed<'a> {
    /// Captured bytes up to the packet's end by its length field.
    start: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    dscp: u8,
    ip_bytes: u32,
}

/// Decodes an IPv4 packet.
pub(super) fn v4<'a>(at: Cursor<'a>, trace: &mut impl Trace) -> Result<IpPacket<'a>, Unparsed> {
    let Some(header) = at.data.first_chunk::<20>() else {
        return Err(at_network(match at.data {
            [first, ..] if first >> 4 != 4 => Reason::BadVersion,
            _ => Reason::Truncated,
        }));
    };
    let [first, tos, l0, l1, id0, id1, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    if first >> 4 != 4 {
        return Err(at_network(Reason::BadVersion));
    }
    let header_length = usize::from(first & 0x0f) * 4;
    if header_length < 20 {
        return Err(at_network(Reason::BadHeaderLength));
    }
    let stated = u32::from(u16::from_be_bytes([l0, l1]));
    // A total length of 0 is a segment that the network card was to cut (TSO), captured before it did.
    let total = if stated == 0 { at.wire } else { stated };
    let flags_offset = u16::from_be_bytes([f0, f1]);
    let (offset, more) = ((flags_offset & 0x1fff) << 3, flags_offset & 0x2000 != 0);
    let identification = u32::from(u16::from_be_bytes([id0, id1]));
    let mut upper = Upper {
        protocol,
        data: within(at.data, header_length, total),
        length: total.saturating_sub(saturate(header_length)),
        fragment: (offset != 0 || more).then_some(Fragment {
            key_protocol: protocol,
            identification,
            offset,
            more,
        }),
        estimated: stated == 0 || total < saturate(header_length) || total > at.wire,
        cut: false,
    };
    trace.header("IPv4", at.data.get(..header_length).unwrap_or(at.data), None);
    if protocol == AUTHENTICATION && offset == 0 {
        upper.cut = !upper.skip_extension(4, 2, trace);
    }
    let addressed = Addressed {
        start: within(at.data, 0, total),
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        ttl,
        dscp: tos >> 2,
        ip_bytes: total,
    };
    Ok(upper.into_packet(addressed, trace))
}

/// Decodes an IPv6 packet.
pub(super) fn v6<'a>(at: Cursor<'a>, trace: &mut impl Trace) -> Result<IpPacket<'a>, Unparsed> {
    let header = Ipv6HeaderSlice::from_slice(at.data).map_err(|_| {
        at_network(match at.data {
            [first, ..] if first >> 4 != 6 => Reason::BadVersion,
            _ => Reason::Truncated,
        })
    })?;
    let stated = u32::from(header.payload_length());
    let protocol = header.next_header().0;
    // 0 is a jumbogram (RFC 2675) or a segment that the network card was to cut.
    let unstated = stated == 0 && protocol != NO_NEXT_HEADER && at.wire > 40;
    let length = if unstated { at.wire.saturating_sub(40) } else { stated };
    let total = length.saturating_add(40);
    let mut upper = Upper {
        protocol,
        data: within(at.data, 40, total),
        length,
        fragment: None,
        estimated: unstated || total > at.wire,
        cut: false,
    };
    trace.header("IPv6", header.slice(), None);
    follow_extensions(&mut upper, trace)?;
    let addressed = Addressed {
        start: within(at.data, 0, total),
        source: IpAddr::V6(header.source_addr()),
        destination: IpAddr::V6(header.destination_addr()),
        ttl: header.hop_limit(),
        dscp: header.dscp().value(),
        ip_bytes: total,
    };
    Ok(upper.into_packet(addressed, trace))
}

const fn extension_name(protocol: u8) -> &'static str {
    match protocol {
        0 => "hop-by-hop options",
        43 => "routing header",
        AUTHENTICATION => "authentication header",
        60 => "destination options",
        135 => "mobility header",
        139 => "HIP",
        140 => "Shim6",
        _ => "extension header",
    }
}

/// Follows the chain up to the first header that is none of the extension headers, or to a later fragment.
fn follow_extensions(upper: &mut Upper<'_>, trace: &mut impl Trace) -> Result<(), Unparsed> {
    for _ in 0..MAX_EXTENSIONS {
        let whole = match upper.protocol {
            // Hop-by-hop, routing, destination options, mobility, HIP, Shim6.
            0 | 43 | 60 | 135 | 139 | 140 => upper.skip_extension(8, 1, trace),
            AUTHENTICATION => upper.skip_extension(4, 2, trace),
            44 => {
                let before = upper.data;
                let offset = upper.skip_fragment_header();
                trace.header("fragment header", between(before, upper.data), None);
                match offset {
                    Some(0) => true,
                    Some(_) => return Ok(()),
                    None => false,
                }
            }
            _ => return Ok(()),
        };
        if !whole {
            upper.cut = true;
            return Ok(());
        }
    }
    Err(at_network(Reason::TooDeep))
}

/// Captured bytes from `start` on, up to the packet's end by its length field.
fn within(data: &[u8], start: usize, total: u32) -> &[u8] {
    let end = usize::try_from(total).map_or(data.len(), |total| total.min(data.len()));
    data.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::super::{
        LinkType, decode,
        testing::{IPV4_UDP, captured, error, over_ipv4, raw},
    };
    use super::*;
    use crate::record::Layer;

    /// An IPv6 packet: first next header, then extension headers and the rest as they are.
    fn over_ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let header = [0x6b, 0x80, 0, 0, high, low, next, 61];
        let addresses = [[0x20, 1, 0x0d, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]].concat();
        [&header[..], &addresses, &addresses, payload].concat()
    }

    /// UDP from 4660 to 22136 with four bytes.
    fn udp() -> &'static [u8] {
        &IPV4_UDP[20..]
    }

    fn ports(packet: &IpPacket<'_>) -> Option<(u16, u16)> {
        match packet.transport {
            Transport::Ports { source, destination } => Some((source, destination)),
            _ => None,
        }
    }

    #[test]
    fn ipv4_fields_are_read() {
        let packet = raw(&IPV4_UDP);
        assert_eq!(packet.source, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(packet.destination, IpAddr::from([198, 51, 100, 2]));
        assert_eq!((packet.protocol, packet.ttl, packet.dscp), (17, 64, 46));
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.estimated), (32, 4, false));
        assert_eq!(
            (ports(&packet), packet.fragment, packet.payload),
            (Some((4660, 22136)), None, &b"data"[..])
        );
    }

    #[test]
    fn ipv6_fields_are_read() {
        let bytes = over_ipv6(17, udp());
        let packet = raw(&bytes);
        assert_eq!(packet.source, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!((packet.protocol, packet.ttl, packet.dscp), (17, 61, 46));
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.payload), (52, 4, &b"data"[..]));
    }

    #[test]
    fn packets_of_another_builder_read_the_same() {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6([1; 16], [2; 16], 9).tcp(80, 50000, 7, 8);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"hello").unwrap();
        bytes.extend([0; 9]); // padding
        let decoded = decode(&captured(LinkType::ETHERNET, &bytes)).unwrap();
        let super::super::Content::Ip(packet) = decoded.content else { panic!("not IP") };
        let Transport::Tcp(segment) = packet.transport else { panic!("not TCP") };
        assert_eq!(
            (segment.source, segment.destination, segment.sequence, segment.window),
            (80, 50000, 7, 8)
        );
        assert_eq!((packet.ip_bytes, packet.payload, packet.ttl), (65, &b"hello"[..], 9));
    }

    #[test]
    fn options_are_no_ports_and_padding_is_no_payload() {
        let mut bytes = [&IPV4_UDP[..20], &[1; 8], udp(), &[0xee; 6]].concat();
        bytes[0] = 0x47;
        bytes[3] = 40;
        let packet = raw(&bytes);
        assert_eq!((ports(&packet), packet.payload), (Some((4660, 22136)), &b"data"[..]));
    }

    #[test]
    fn a_cut_packet_counts_by_its_length_field() {
        let packet = raw(&IPV4_UDP[..22]);
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.payload), (32, 4, &b""[..]));
        assert_eq!(packet.transport, Transport::None);
        let mut options_cut = IPV4_UDP;
        options_cut[0] = 0x4f;
        options_cut[3] = 100;
        let packet = raw(&options_cut);
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.transport), (100, 32, Transport::None));
    }

    #[test]
    fn a_length_of_zero_counts_the_frame_as_an_estimate() {
        let mut offloaded = IPV4_UDP;
        offloaded[3] = 0;
        let packet = raw(&offloaded);
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.estimated), (32, 4, true));
        let mut jumbo = over_ipv6(17, udp());
        jumbo[5] = 0;
        let packet = raw(&jumbo);
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.estimated), (52, 4, true));
        let nothing = over_ipv6(59, &[]);
        let packet = raw(&nothing);
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.estimated), (40, 0, false));
    }

    #[test]
    fn lengths_that_contradict_each_other_make_an_estimate() {
        let mut below_header = IPV4_UDP;
        below_header[3] = 12;
        let packet = raw(&below_header);
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.estimated), (12, 0, true));
        let mut beyond_frame = IPV4_UDP;
        beyond_frame[2] = 1;
        let packet = raw(&beyond_frame);
        assert_eq!((packet.ip_bytes, packet.payload_bytes, packet.estimated), (288, 260, true));
    }

    #[test]
    fn headers_that_are_none_say_why() {
        let network = |reason| (Layer::Network, reason);
        assert_eq!(error(LinkType::IPV4, &IPV4_UDP[..19]), network(Reason::Truncated));
        assert_eq!(error(LinkType::RAW, &[]), network(Reason::Truncated));
        assert_eq!(error(LinkType::IPV6, &IPV4_UDP), network(Reason::BadVersion));
        assert_eq!(error(LinkType::IPV4, &over_ipv6(17, udp())), network(Reason::BadVersion));
        assert_eq!(error(LinkType::IPV6, &over_ipv6(17, udp())[..39]), network(Reason::Truncated));
        assert_eq!(error(LinkType::IPV4, &[0x44; 20]), network(Reason::BadHeaderLength));
    }

    #[test]
    fn fragments_of_ipv4_carry_their_key() {
        let mut bytes = IPV4_UDP;
        bytes[6] = 0x20;
        let first = raw(&bytes);
        let fragment = Fragment { key_protocol: 17, identification: 1, offset: 0, more: true };
        assert_eq!((first.fragment, ports(&first)), (Some(fragment), Some((4660, 22136))));
        bytes[6..8].copy_from_slice(&[0x1f, 0xff]);
        let last = raw(&bytes);
        assert_eq!(last.fragment, Some(Fragment { offset: 65528, more: false, ..fragment }));
        assert_eq!((last.transport, last.payload_bytes), (Transport::None, 12), "its bytes are no ports");
    }

    #[test]
    fn fragments_of_ipv6_carry_their_key_and_atomic_ones_are_none() {
        let header = |offset_more: [u8; 2]| [&[17, 0][..], &offset_more, &[0, 1, 0, 2], udp()].concat();
        let bytes = over_ipv6(44, &header([0, 1]));
        let first = raw(&bytes);
        let fragment = Fragment { key_protocol: 0, identification: 65538, offset: 0, more: true };
        assert_eq!((first.fragment, first.protocol, first.payload_bytes), (Some(fragment), 17, 4));
        let bytes = over_ipv6(44, &header([0x00, 0x08]));
        let later = raw(&bytes);
        assert_eq!(later.fragment, Some(Fragment { offset: 8, more: false, ..fragment }));
        assert_eq!((later.transport, later.payload_bytes, later.protocol), (Transport::None, 12, 17));
        let bytes = over_ipv6(44, &header([0, 0]));
        let atomic = raw(&bytes);
        assert_eq!((atomic.fragment, ports(&atomic)), (None, Some((4660, 22136))));
    }

    #[test]
    fn the_transport_is_found_behind_extension_headers_and_ah() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let authentication = [&[17, 4, 0, 0][..], &[0; 20]].concat();
        let chain = [&options(43)[..], &options(60), &options(51), &authentication, udp()].concat();
        let bytes = over_ipv6(0, &chain);
        let packet = raw(&bytes);
        assert_eq!((packet.protocol, ports(&packet)), (17, Some((4660, 22136))));
        assert_eq!((packet.ip_bytes, packet.payload_bytes), (100, 4));
        let bytes = over_ipv4(51, &[&authentication, udp()].concat());
        let packet = raw(&bytes);
        assert_eq!((packet.protocol, ports(&packet), packet.payload_bytes), (17, Some((4660, 22136)), 4));
    }

    #[test]
    fn an_extension_header_that_is_cut_leaves_its_protocol() {
        let bytes = over_ipv6(0, &[17, 0, 0, 0]);
        let packet = raw(&bytes);
        assert_eq!((packet.protocol, packet.payload_bytes, packet.estimated), (0, 0, true));
        let bytes = over_ipv6(44, &[17, 0, 0, 1]);
        assert_eq!((raw(&bytes).protocol, raw(&bytes).fragment), (44, None));
        let longer_than_the_packet = over_ipv6(0, &[17, 255, 0, 0, 0, 0, 0, 0]);
        let packet = raw(&longer_than_the_packet);
        assert_eq!((packet.protocol, packet.transport, packet.payload_bytes), (17, Transport::None, 0));
        assert!(packet.estimated);
    }

    #[test]
    fn a_chain_of_extension_headers_has_an_end() {
        let chain = |count: usize| [[60, 0, 1, 4, 0, 0, 0, 0].repeat(count), vec![59; 8]].concat();
        assert_eq!(raw(&over_ipv6(60, &chain(MAX_EXTENSIONS - 2))).protocol, 59);
        assert_eq!(error(LinkType::RAW, &over_ipv6(60, &chain(400))), (Layer::Network, Reason::TooDeep));
    }
}
