//! GRE (RFC 2784, RFC 2890), its PPTP version (RFC 2637), and ERSPAN in it.

use super::{
    cursor::{Cursor, at_shim},
    packet::{Inner, InnerStart, LinkType, Unparsed},
    shim::{ETHERNET_BRIDGING, IPV4, IPV6, PPP},
    tunnel::{Opened, found, under_ppp},
};
use crate::record::{Reason, TunnelKind};

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Version 1 only.
const ACKNOWLEDGEMENT: u16 = 0x0080;
const VERSION: u16 = 0x0007;
/// Entries of source routes that are followed.
const MAX_ROUTES: usize = 16;
/// Flags that RFC 2784 and RFC 2890 leave zero in version 0.
const RESERVED: u16 = 0x4ff8;

/// Opens the GRE packet at the cursor.
pub(super) fn open(at: Cursor<'_>) -> Opened<'_> {
    let (Some(flags), Some(protocol)) = (at.be16(0), at.be16(2)) else {
        return Err(at_shim(Reason::Truncated));
    };
    match flags & VERSION {
        0 => version_0(flags, protocol, at),
        1 => version_1(flags, at),
        _ => Err(at_shim(Reason::BadVersion)),
    }
}

/// Whether a GRE packet is ERSPAN or something else, by its protocol; none where it is cut before that.
pub(super) fn kind(at: Cursor<'_>) -> Option<TunnelKind> {
    at.be16(2).map(|protocol| match protocol {
        0x88be | 0x22eb => TunnelKind::Erspan,
        _ => TunnelKind::Gre,
    })
}

/// Opens GRE in UDP (RFC 8086), which is taken for GRE only where all that can be checked is right.
pub(super) fn open_in_udp(at: Cursor<'_>) -> Option<Inner<'_>> {
    let is_plain = at.be16(0)? & (RESERVED | VERSION) == 0;
    if is_plain { open(at).ok()? } else { None }
}

fn version_0(flags: u16, protocol: u16, at: Cursor<'_>) -> Opened<'_> {
    let field = |flag| if flags & flag == 0 { 0 } else { 4 };
    // With routes there is an offset beside the checksum, so the two come together.
    let key_at = 4 + field(CHECKSUM | ROUTING);
    let header_length = key_at + field(KEY) + field(SEQUENCE);
    let Some(mut inner) = at.skip(header_length) else { return Err(at_shim(Reason::Truncated)) };
    if flags & ROUTING != 0 {
        inner = behind_routes(inner)?;
    }
    let key = if flags & KEY == 0 { None } else { at.be32(key_at) };
    let sequence = if flags & SEQUENCE == 0 { None } else { at.be32(key_at + field(KEY)) };
    let opened = under_gre(flags, protocol, key, inner)?;
    Ok(opened.map(|inner| Inner { sequence, ..inner }))
}

/// Cisco metadata in GRE: the ethertype of what follows, version, and how many options of four bytes there are.
fn behind_metadata(at: Cursor<'_>) -> Option<(InnerStart, Cursor<'_>)> {
    let behind = at.skip(4 + usize::from(at.byte(3)?) * 4)?;
    Some((InnerStart::EtherType(at.be16(0)?), behind))
}

/// Source routes (RFC 1701): entries of a family, an offset, a length and so many bytes, up to an empty one of
/// family 0.
fn behind_routes(mut at: Cursor<'_>) -> Result<Cursor<'_>, Unparsed> {
    for _ in 0..MAX_ROUTES {
        let entry = at.be16(0).zip(at.byte(3));
        let Some((family, length)) = entry else { return Err(at_shim(Reason::Truncated)) };
        at = at.skip(4 + usize::from(length)).ok_or(at_shim(Reason::Truncated))?;
        if family == 0 && length == 0 {
            return Ok(at);
        }
    }
    Err(at_shim(Reason::TooDeep))
}

fn under_gre(flags: u16, protocol: u16, key: Option<u32>, inner: Cursor<'_>) -> Opened<'_> {
    let gre = |start| Ok(Some(found(TunnelKind::Gre, key, start, inner)));
    match protocol {
        // Keep-alives of routers carry protocol 0.
        0 => Ok(None),
        IPV4 | IPV6 | 0x0806 | 0x8100 | 0x88a8 | 0x8847 | 0x8848 | 0x894f => {
            gre(InnerStart::EtherType(protocol))
        }
        ETHERNET_BRIDGING => gre(InnerStart::Ethernet),
        PPP => Ok(under_ppp(inner).map(|(start, inner)| found(TunnelKind::Gre, key, start, inner))),
        0x88be if flags & SEQUENCE == 0 => {
            Ok(Some(found(TunnelKind::Erspan, None, InnerStart::Ethernet, inner)))
        }
        0x88be => erspan_2(inner),
        0x22eb => erspan_3(inner),
        0x883e => wccp(key, inner),
        0x8909 => Ok(behind_metadata(inner).map(|(start, at)| found(TunnelKind::Gre, key, start, at))),
        // Frames that an Aruba access point sends to its controller.
        0x8200 => gre(InnerStart::Link(LinkType::IEEE802_11)),
        _ => Err(at_shim(Reason::NotIp)),
    }
}

/// PPTP: payload length and call id, then what the flags say; a packet without sequence carries no payload.
fn version_1(flags: u16, at: Cursor<'_>) -> Opened<'_> {
    if flags & SEQUENCE == 0 {
        return Ok(None);
    }
    let header_length = if flags & ACKNOWLEDGEMENT == 0 { 12 } else { 16 };
    let (Some(call), Some(inner)) = (at.be16(6), at.skip(header_length)) else {
        return Err(at_shim(Reason::Truncated));
    };
    let id = Some(u32::from(call));
    Ok(under_ppp(inner).map(|(start, inner)| found(TunnelKind::Gre, id, start, inner)))
}

/// ERSPAN type II: eight bytes, version 1; the session is the lower ten bits of the second half word, behind the
/// encapsulation of the mirrored port (draft-foschiano-erspan): 1 and 2 say that a VLAN tag was taken off.
fn erspan_2(at: Cursor<'_>) -> Opened<'_> {
    let (Some(first), Some(second), Some(inner)) = (at.be16(0), at.be16(2), at.skip(8)) else {
        return Err(at_shim(Reason::Truncated));
    };
    if first >> 12 != 1 {
        return Err(at_shim(Reason::BadVersion));
    }
    let is_untagged = matches!((second >> 11) & 0x03, 1 | 2);
    let vlan = is_untagged.then_some(first & 0x0fff);
    Ok(Some(Inner { vlan, ..erspan(second, InnerStart::Ethernet, inner) }))
}

/// ERSPAN type III: twelve bytes, version 2, with the frame's type, and eight more where the last bit is set.
fn erspan_3(at: Cursor<'_>) -> Opened<'_> {
    let (Some(first), Some(second), Some(last)) = (at.be16(0), at.be16(2), at.be16(10)) else {
        return Err(at_shim(Reason::Truncated));
    };
    if first >> 12 != 2 {
        return Err(at_shim(Reason::BadVersion));
    }
    let Some(inner) = at.skip(if last & 1 == 0 { 12 } else { 20 }) else {
        return Err(at_shim(Reason::Truncated));
    };
    match (last >> 10) & 0x1f {
        0 => Ok(Some(erspan(second, InnerStart::Ethernet, inner))),
        // An IP packet without its frame.
        2 => match super::tunnel::ip_version(inner) {
            Some(start) => Ok(Some(erspan(second, start, inner))),
            None => Err(at_shim(Reason::BadVersion)),
        },
        _ => Err(at_shim(Reason::NotIp)),
    }
}

fn erspan<'a>(session: u16, start: InnerStart, at: Cursor<'a>) -> Inner<'a> {
    found(TunnelKind::Erspan, Some(u32::from(session & 0x3ff)), start, at)
}

/// WCCP redirection: version 2 puts four bytes before the packet, version 1 none; the nibble tells which.
fn wccp(key: Option<u32>, at: Cursor<'_>) -> Opened<'_> {
    let inner = match at.byte(0) {
        Some(first) if first >> 4 == 4 => Some(at),
        _ => at.skip(4),
    };
    match inner {
        Some(inner) => Ok(Some(found(TunnelKind::Gre, key, InnerStart::EtherType(IPV4), inner))),
        None => Err(at_shim(Reason::Truncated)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{IPV4_UDP, over_ipv4, tunnel_of};
    use crate::{
        decode::{InnerStart, Unparsed, inner},
        record::{Layer, Reason, Tunnel, TunnelKind},
    };

    const FRAME: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];

    fn opened(gre: &[&[u8]]) -> (TunnelKind, Option<u32>) {
        let Tunnel { kind, id } = tunnel_of(&over_ipv4(47, &[&gre.concat()[..], &IPV4_UDP].concat()));
        (kind, id)
    }

    fn refused(gre: &[u8]) -> Unparsed {
        let bytes = over_ipv4(47, gre);
        inner(&super::super::testing::raw(&bytes)).unwrap_err()
    }

    #[test]
    fn gre_is_opened_with_each_optional_field() {
        assert_eq!(opened(&[&[0, 0, 8, 0]]), (TunnelKind::Gre, None));
        assert_eq!(opened(&[&[0x20, 0, 8, 0, 0, 0, 0, 9]]), (TunnelKind::Gre, Some(9)));
        assert_eq!(
            opened(&[&[0xb0, 0, 8, 0], &[1; 4], &[0, 0, 1, 0], &[3; 4]]),
            (TunnelKind::Gre, Some(256))
        );
        assert_eq!(opened(&[&[0, 0, 0x65, 0x58], &FRAME]), (TunnelKind::Gre, None));
        assert_eq!(opened(&[&[0, 0, 0x89, 9, 8, 0, 1, 1, 0, 1, 0, 5]]), (TunnelKind::Gre, None));
        let routes = [&[0x60, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[8, 0, 4, 8], &[9; 8], &[0; 4]].concat();
        assert_eq!(opened(&[&routes]), (TunnelKind::Gre, Some(7)));
        assert_eq!(opened(&[&[0, 0, 0x88, 0x47, 0, 1, 1, 64]]), (TunnelKind::Gre, None));
    }

    #[test]
    fn pptp_is_opened_where_it_carries_ip() {
        let with_ack = [0x30, 0x81, 0x88, 0x0b, 0, 36, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0x03, 0x00, 0x21];
        assert_eq!(opened(&[&with_ack]), (TunnelKind::Gre, Some(7)));
        let compressed = [0x30, 0x01, 0x88, 0x0b, 0, 33, 0, 7, 0, 0, 0, 1, 0x21];
        assert_eq!(opened(&[&compressed]), (TunnelKind::Gre, Some(7)));
        let only_ack = over_ipv4(47, &[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 7, 0, 0, 0, 1]);
        assert!(inner(&super::super::testing::raw(&only_ack)).unwrap().is_none());
    }

    #[test]
    fn the_three_types_of_erspan_are_opened() {
        assert_eq!(opened(&[&[0, 0, 0x88, 0xbe], &FRAME]), (TunnelKind::Erspan, None));
        let second = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0x64, 0x04, 0x65, 0, 0, 0, 0];
        assert_eq!(opened(&[&second, &FRAME]), (TunnelKind::Erspan, Some(0x65)));
        let third = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0x64, 0x00, 0x66, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(opened(&[&third, &FRAME]), (TunnelKind::Erspan, Some(0x66)));
        let with_platform = [&third[..19], &[1], &[0; 8]].concat();
        assert_eq!(opened(&[&with_platform, &FRAME]), (TunnelKind::Erspan, Some(0x66)));
    }

    #[test]
    fn wccp_is_opened_with_and_without_its_redirect_header() {
        assert_eq!(opened(&[&[0, 0, 0x88, 0x3e]]), (TunnelKind::Gre, None));
        assert_eq!(opened(&[&[0, 0, 0x88, 0x3e, 0, 1, 2, 3]]), (TunnelKind::Gre, None));
    }

    #[test]
    fn frames_of_wireless_access_points_are_opened() {
        let frame = [&[0x08, 0, 0, 0][..], &[2; 18], &[0, 0], &[0xaa, 0xaa, 0x03, 0, 0, 0, 8, 0]].concat();
        assert_eq!(opened(&[&[0, 0, 0x82, 0x00], &frame]), (TunnelKind::Gre, None));
    }

    #[test]
    fn gre_that_cannot_be_opened_says_why() {
        let at_shim = |reason| Unparsed { layer: Layer::Shim, reason };
        assert_eq!(refused(&[0, 0, 8]), at_shim(Reason::Truncated));
        assert_eq!(refused(&[0x20, 0, 8, 0]), at_shim(Reason::Truncated));
        assert_eq!(refused(&[0, 2, 8, 0, 0, 0]), at_shim(Reason::BadVersion));
        assert_eq!(refused(&[0x40, 0, 8, 0, 0, 0, 0, 0]), at_shim(Reason::Truncated));
        let endless = [&[0x40, 0, 8, 0, 0, 0, 0, 0][..], &[8, 0, 0, 4, 1, 2, 3, 4].repeat(20)].concat();
        assert_eq!(refused(&endless), at_shim(Reason::TooDeep));
        assert_eq!(refused(&[0, 0, 0x20, 0x01, 0, 0]), at_shim(Reason::NotIp));
        assert_eq!(
            refused(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x20, 0, 0, 0, 0, 0, 0, 0]),
            at_shim(Reason::BadVersion)
        );
    }

    #[test]
    fn inner_lengths_follow_the_outer_ones_where_the_capture_is_cut() {
        let mut bytes = over_ipv4(47, &[&[0, 0, 8, 0], &IPV4_UDP[..]].concat());
        bytes.truncate(20 + 4 + 20);
        let packet = super::super::testing::raw(&bytes);
        let opened = inner(&packet).unwrap().unwrap();
        assert_eq!((opened.starts_with, opened.data.len()), (InnerStart::EtherType(0x0800), 20));
        assert_eq!(opened.wire_length, 32);
    }
}
