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
    fn skip_extension(&mut self, unit: usize, extra: usize) -> bool {
        let Some([next, length, ..]) = read::array::<8>(self.data, 0) else { return false };
        self.protocol = next;
        self.skip((usize::from(length) + extra) * unit);
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

    fn into_packet(self, header: Addressed) -> IpPacket<'a> {
        let is_later_fragment = self.fragment.is_some_and(|fragment| fragment.offset != 0);
        let body = match (self.cut, is_later_fragment) {
            (true, _) => Body { transport: Transport::None, payload_bytes: 0, payload: &[], estimated: true },
            (false, true) => Body::whole(self.data, self.length),
            (false, false) => transport::read(self.protocol, self.data, self.length),
        };
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
            payload: body.payload,
        }
    }
}

/// What both versions' headers say beside what follows them.
struct Addressed {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    dscp: u8,
    ip_bytes: u32,
}

/// Decodes an IPv4 packet.
pub(super) fn v4(at: Cursor<'_>) -> Result<IpPacket<'_>, Unparsed> {
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
    if protocol == AUTHENTICATION && offset == 0 {
        upper.cut = !upper.skip_extension(4, 2);
    }
    Ok(upper.into_packet(Addressed {
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        ttl,
        dscp: tos >> 2,
        ip_bytes: total,
    }))
}

/// Decodes an IPv6 packet.
pub(super) fn v6(at: Cursor<'_>) -> Result<IpPacket<'_>, Unparsed> {
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
    follow_extensions(&mut upper)?;
    Ok(upper.into_packet(Addressed {
        source: IpAddr::V6(header.source_addr()),
        destination: IpAddr::V6(header.destination_addr()),
        ttl: header.hop_limit(),
        dscp: header.dscp().value(),
        ip_bytes: total,
    }))
}

/// Follows the chain up to the first header that is none of the extension headers, or to a later fragment.
fn follow_extensions(upper: &mut Upper<'_>) -> Result<(), Unparsed> {
    for _ in 0..MAX_EXTENSIONS {
        let whole = match upper.protocol {
            // Hop-by-hop, routing, destination options, mobility, HIP, Shim6.
            0 | 43 | 60 | 135 | 139 | 140 => upper.skip_extension(8, 1),
            AUTHENTICATION => upper.skip_extension(4, 2),
            44 => match upper.skip_fragment_header() {
                Some(0) => true,
                Some(_) => return Ok(()),
                None => false,
            },
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
