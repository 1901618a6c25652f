//! Tunnels on UDP ports. Anything can use a port, so each opener checks every field that has a known value and
//! every length; what fails is not a tunnel, and no error.

use super::{
    capwap,
    cursor::{Cursor, saturate},
    gre, l2tp,
    packet::{Inner, InnerStart, LinkType},
    read,
    shim::{ETHERNET_BRIDGING, IPV4, IPV6},
    tunnel::{found, ip_version},
};
use crate::record::TunnelKind;

/// An Ethernet header.
const FRAME_MINIMUM: u32 = 14;
/// An IPv6 header.
const IPV6_HEADER: u32 = 40;
/// GTP-U extension headers that are followed.
const MAX_GTP_EXTENSIONS: usize = 8;
/// Trailers of Teredo that are looked at.
const MAX_TEREDO_TRAILERS: usize = 8;
/// Tagged fields of TZSP that are looked at.
const MAX_TZSP_FIELDS: usize = 16;
/// MPLS labels that are looked at.
const MAX_LABELS: usize = 16;

/// Opens the payload of a UDP datagram. Of a datagram that is the first of several fragments, the rest is
/// missing, so that lengths can only be checked to be no less than what is there.
pub(super) fn open<'a>(
    source: u16,
    destination: u16,
    at: Cursor<'a>,
    is_fragment: bool,
) -> Option<Inner<'a>> {
    if !may_open(source, destination) {
        return None;
    }
    // Where the source port spreads load over links, only the destination port names the tunnel.
    match destination {
        4789 | 8472 => return vxlan(at),
        4790 => return vxlan_gpe(at),
        6081 => return geneve(at),
        6635 => return mpls(at),
        37008 => return tzsp(at),
        4341 => return lisp(at, is_fragment),
        6080 => return gue(at, is_fragment),
        4754 => return gre::open_in_udp(at),
        _ => {}
    }
    let is_port = |port| source == port || destination == port;
    if is_port(2152) {
        gtp(at, is_fragment)
    } else if is_port(3544) {
        teredo(at, is_fragment)
    } else if is_port(1701) {
        l2tp::open_in_udp(at, is_fragment)
    } else if is_port(5072) {
        ayiya(at)
    } else if is_port(5247) {
        capwap::open(at)
    } else {
        None
    }
}

/// Whether [`open`] looks at the payload between these ports.
#[inline]
pub(super) const fn may_open(source: u16, destination: u16) -> bool {
    matches!(destination, 4341 | 4754 | 4789 | 4790 | 6080 | 6081 | 6635 | 8472 | 37008)
        || matches!(source, 1701 | 2152 | 3544 | 5072 | 5247)
        || matches!(destination, 1701 | 2152 | 3544 | 5072 | 5247)
}

/// Whether a kind of tunnel has this UDP port by registration, of those that mirrors use.
pub fn is_mirror_port(kind: TunnelKind, destination: u16) -> bool {
    match kind {
        TunnelKind::Vxlan => matches!(destination, 4789 | 4790 | 8472),
        TunnelKind::Geneve => destination == 6081,
        TunnelKind::Tzsp => destination == 37008,
        _ => false,
    }
}

/// Opens the payload of a UDP datagram that is known to be of this kind, whatever its port.
pub(super) fn open_as(kind: TunnelKind, destination: u16, at: Cursor<'_>) -> Option<Inner<'_>> {
    match kind {
        TunnelKind::Vxlan if destination == 4790 => vxlan_gpe(at),
        TunnelKind::Vxlan => vxlan(at),
        TunnelKind::Geneve => geneve(at),
        TunnelKind::Tzsp => tzsp(at),
        _ => None,
    }
}

/// Whether a stated length fits what there is.
fn fits(stated: u32, at: Cursor<'_>, is_fragment: bool) -> bool {
    stated == at.wire || (is_fragment && stated > at.wire)
}

fn number24(high: u8, middle: u8, low: u8) -> Option<u32> {
    Some(u32::from_be_bytes([0, high, middle, low]))
}

fn frame_fits(at: Cursor<'_>) -> bool {
    at.wire >= FRAME_MINIMUM
}

/// RFC 7348: the I flag alone, or with G a group policy id (draft-smith-vxlan-group-policy); reserved zero.
fn vxlan(at: Cursor<'_>) -> Option<Inner<'_>> {
    let [flags, r0, r1, r2, v0, v1, v2, r3] = read::array(at.data, 0)?;
    let is_plain = flags == 0x08 && (r0, r1, r2) == (0, 0, 0);
    // D, "do not learn", and A, "policy applied", may be set beside a policy id.
    let is_group_policy = flags == 0x88 && r0 & !0x48 == 0;
    let inner = at.skip(8)?;
    let is_vxlan = (is_plain || is_group_policy) && r3 == 0 && frame_fits(inner);
    is_vxlan.then(|| found(TunnelKind::Vxlan, number24(v0, v1, v2), InnerStart::Ethernet, inner))
}

/// VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe): version 0, the I flag, no OAM; P says that a protocol is given.
fn vxlan_gpe(at: Cursor<'_>) -> Option<Inner<'_>> {
    let [flags, r0, r1, protocol, v0, v1, v2, r2] = read::array(at.data, 0)?;
    let inner = at.skip(8)?;
    let is_gpe = flags & !0x06 == 0x08 && (r0, r1, r2) == (0, 0, 0);
    let start = match (flags & 0x04, protocol) {
        (0, 0) | (4, 3) => InnerStart::Ethernet,
        (4, 1) => InnerStart::EtherType(IPV4),
        (4, 2) => InnerStart::EtherType(IPV6),
        (4, 4) => InnerStart::EtherType(0x894f),
        (4, 5) => InnerStart::EtherType(0x8847),
        _ => return None,
    };
    is_gpe.then(|| found(TunnelKind::Vxlan, number24(v0, v1, v2), start, inner))
}

/// RFC 8926: version 0, options that fit, reserved zero, a protocol that is known.
fn geneve(at: Cursor<'_>) -> Option<Inner<'_>> {
    let [first, flags, p0, p1, v0, v1, v2, reserved] = read::array(at.data, 0)?;
    let start = match u16::from_be_bytes([p0, p1]) {
        ETHERNET_BRIDGING => InnerStart::Ethernet,
        known @ (IPV4 | IPV6 | 0x0806 | 0x8847 | 0x8848 | 0x894f) => InnerStart::EtherType(known),
        _ => return None,
    };
    if first >> 6 != 0 || flags & 0x3f != 0 || reserved != 0 {
        return None;
    }
    let inner = at.skip(8 + usize::from(first & 0x3f) * 4)?;
    Some(found(TunnelKind::Geneve, number24(v0, v1, v2), start, inner))
}

/// 3GPP TS 29.281: version 1, a G-PDU (255) whose length is right, extension headers, then IP.
fn gtp(at: Cursor<'_>, is_fragment: bool) -> Option<Inner<'_>> {
    let [flags, kind, l0, l1, t0, t1, t2, t3] = read::array(at.data, 0)?;
    let length = u32::from(u16::from_be_bytes([l0, l1]));
    if flags & 0xf8 != 0x30 || kind != 0xff || !fits(length.saturating_add(8), at, is_fragment) {
        return None;
    }
    let mut inner = at.skip(8)?;
    if flags & 0x07 != 0 {
        let mut next = if flags & 0x04 == 0 { 0 } else { inner.byte(3)? };
        inner = inner.skip(4)?;
        for _ in 0..MAX_GTP_EXTENSIONS {
            if next == 0 {
                break;
            }
            let size = usize::from(inner.byte(0)?) * 4;
            next = inner.byte(size.checked_sub(1)?)?;
            inner = inner.skip(size)?;
        }
        if next != 0 {
            return None;
        }
    }
    Some(found(TunnelKind::GtpU, Some(u32::from_be_bytes([t0, t1, t2, t3])), ip_version(inner)?, inner))
}

/// RFC 4380: an authentication header, an origin indication, then IPv6 that fills the datagram, or is followed by
/// the trailers of RFC 6081, with an address that is Teredo's or of the link.
fn teredo(at: Cursor<'_>, is_fragment: bool) -> Option<Inner<'_>> {
    let mut inner = at;
    if inner.be16(0)? == 1 {
        let (identifier, value) = (inner.byte(2)?, inner.byte(3)?);
        inner = inner.skip(4 + usize::from(identifier) + usize::from(value) + 9)?;
    }
    if inner.be16(0)? == 0 {
        inner = inner.skip(8)?;
    }
    let length = u32::from(inner.be16(4)?).saturating_add(IPV6_HEADER);
    let is_teredo = |at| {
        let address = read::array::<4>(inner.data, at);
        address == Some([0x20, 1, 0, 0]) || address.is_some_and(|[a, b, _, _]| a == 0xfe && b & 0xc0 == 0x80)
    };
    let fills = fits(length, inner, is_fragment) || has_trailers(inner, length) == Some(true);
    let is_ipv6 = ip_version(inner)? == InnerStart::EtherType(IPV6) && fills;
    let inner = Cursor { wire: inner.wire.min(length), ..inner };
    (is_ipv6 && (is_teredo(8) || is_teredo(24)))
        .then(|| found(TunnelKind::Teredo, None, InnerStart::EtherType(IPV6), inner))
}

/// Whether what is behind the packet is trailers: each a type, a length and so many bytes, to the last one's end.
fn has_trailers(at: Cursor<'_>, length: u32) -> Option<bool> {
    let mut trailer = at.skip(usize::try_from(length).ok()?)?;
    for _ in 0..MAX_TEREDO_TRAILERS {
        if trailer.data.is_empty() {
            return Some(trailer.wire == 0);
        }
        trailer = trailer.skip(2 + usize::from(trailer.byte(1)?))?;
    }
    None
}

/// RFC 7510: a label stack, then IP, or a pseudowire's control word.
fn mpls(at: Cursor<'_>) -> Option<Inner<'_>> {
    let bottom = (0..MAX_LABELS).find(|index| at.byte(index * 4 + 2).is_some_and(|byte| byte & 1 == 1))?;
    let is_known = matches!(at.byte((bottom + 1) * 4)? >> 4, 0 | 4 | 6);
    is_known.then(|| found(TunnelKind::MplsInUdp, None, InnerStart::EtherType(0x8847), at))
}

/// Whether the length of an IP header here fills what there is.
fn ip_fits(at: Cursor<'_>, is_fragment: bool) -> Option<InnerStart> {
    let start = ip_version(at)?;
    let length = match start {
        InnerStart::EtherType(IPV4) => u32::from(at.be16(2)?),
        _ => u32::from(at.be16(4)?).saturating_add(IPV6_HEADER),
    };
    fits(length, at, is_fragment).then_some(start)
}

/// LISP data (RFC 9300 section 5): flags, nonce or map version, instance and locator bits; not encrypted (RFC
/// 8061); then IP that fills the datagram.
fn lisp(at: Cursor<'_>, is_fragment: bool) -> Option<Inner<'_>> {
    const INSTANCE: u8 = 0x08;
    const KEY: u8 = 0x03;
    let [flags, _, _, _, i0, i1, i2, _] = read::array(at.data, 0)?;
    let inner = at.skip(8)?;
    let id = if flags & INSTANCE == 0 { None } else { number24(i0, i1, i2) };
    let start = ip_fits(inner, is_fragment).filter(|_| flags & KEY == 0)?;
    Some(found(TunnelKind::Lisp, id, start, inner))
}

/// Generic UDP Encapsulation (draft-ietf-intarea-gue): version 0 with a protocol number behind a header of stated
/// length, or version 1, which is IP itself.
fn gue(at: Cursor<'_>, is_fragment: bool) -> Option<Inner<'_>> {
    let (first, protocol) = (at.byte(0)?, at.byte(1)?);
    let inner = match first >> 6 {
        // Not control, which is the flag behind the version.
        0 if first & 0x20 == 0 => at.skip(4 + usize::from(first & 0x1f) * 4)?,
        1 => at,
        _ => return None,
    };
    let start = ip_fits(inner, is_fragment)?;
    let is_sound = match start {
        _ if first >> 6 == 1 => true,
        InnerStart::EtherType(IPV4) => protocol == 4,
        _ => protocol == 41,
    };
    is_sound.then(|| found(TunnelKind::Gue, None, start, inner))
}

/// TaZmen Sniffer Protocol: version 1, a type, the kind of frame, then tagged fields up to the end tag (1) with
/// padding (0) between; a packet without a frame (type 2 to 4) is none.
fn tzsp(at: Cursor<'_>) -> Option<Inner<'_>> {
    let [version, kind, p0, p1] = read::array(at.data, 0)?;
    let start = match u16::from_be_bytes([p0, p1]) {
        1 => InnerStart::Ethernet,
        18 => InnerStart::Link(LinkType::IEEE802_11),
        _ => return None,
    };
    if version != 1 || kind > 1 {
        return None;
    }
    let mut inner = at.skip(4)?;
    for _ in 0..MAX_TZSP_FIELDS {
        match inner.byte(0)? {
            0 => inner = inner.skip(1)?,
            1 => {
                let inner = inner.skip(1).filter(|&inner| frame_fits(inner))?;
                return Some(found(TunnelKind::Tzsp, None, start, inner));
            }
            _ => inner = inner.skip(2 + usize::from(inner.byte(1)?))?,
        }
    }
    None
}

/// AYIYA (draft-massar-v6ops-ayiya): identity and signature of stated lengths, forwarding (1), IPv4 or IPv6.
fn ayiya(at: Cursor<'_>) -> Option<Inner<'_>> {
    let [identity, signature, operation, next_header] = read::array(at.data, 0)?;
    let start = match next_header {
        4 => InnerStart::EtherType(IPV4),
        41 => InnerStart::EtherType(IPV6),
        _ => return None,
    };
    let identity_length = 1_usize << (identity >> 4).min(15);
    let inner = at.skip(8 + identity_length + usize::from(signature >> 4) * 4)?;
    let has_identity = matches!(identity & 0x0f, 1 | 2);
    let is_forwarding = operation & 0x0f == 1 && saturate(identity_length) <= 16;
    (has_identity && is_forwarding && ip_version(inner)? == start)
        .then(|| found(TunnelKind::Ayiya, None, start, inner))
}

#[cfg(test)]
mod tests {
    use super::super::{
        inner,
        testing::{IPV4_UDP, over_udp, raw, tunnel_of},
    };
    use super::*;

    const FRAME: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    /// Teredo's bubble: IPv6 without payload between 2001::1 and fe80::1.
    const BUBBLE: [u8; 40] = [
        0x60, 0, 0, 0, 0, 0, 59, 21, 0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xfe, 0x80, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ];

    /// Opens with its header as given, and no longer with one byte of it changed at any place in `checked`.
    fn assert_checked(port: u16, parts: &[&[u8]], kind: TunnelKind, id: Option<u32>, checked: &[usize]) {
        let payload = parts.concat();
        let tunnel = tunnel_of(&over_udp(port, &payload));
        assert_eq!((tunnel.kind, tunnel.id), (kind, id));
        for &at in checked {
            let mut changed = payload.clone();
            changed[at] ^= 0xff;
            let bytes = over_udp(port, &changed);
            assert!(inner(&raw(&bytes)).unwrap().is_none(), "port {port}, byte {at}");
        }
    }

    #[test]
    fn vxlan_is_opened_by_its_flags_and_reserved_bytes() {
        let header = [8, 0, 0, 0, 0x12, 0x34, 0x56, 0];
        for port in [4789, 8472] {
            let parts: [&[u8]; 3] = [&header, &FRAME, &IPV4_UDP];
            assert_checked(port, &parts, TunnelKind::Vxlan, Some(0x12_3456), &[0, 1, 2, 3, 7]);
        }
        let group_policy = [0x88, 0, 0, 5, 0, 0, 1, 0];
        assert_checked(4789, &[&group_policy, &FRAME, &IPV4_UDP], TunnelKind::Vxlan, Some(1), &[0, 7]);
        let too_short = over_udp(4789, &header);
        assert!(inner(&raw(&too_short)).unwrap().is_none());
    }

    #[test]
    fn vxlan_gpe_is_opened_by_its_next_protocol() {
        let header = [0x0c, 0, 0, 1, 0, 0, 2, 0];
        assert_checked(4790, &[&header, &IPV4_UDP], TunnelKind::Vxlan, Some(2), &[0, 1, 2, 3, 7]);
        let frame = [0x08, 0, 0, 0, 0, 0, 2, 0];
        assert_checked(4790, &[&frame, &FRAME, &IPV4_UDP], TunnelKind::Vxlan, Some(2), &[0, 3]);
    }

    #[test]
    fn geneve_is_opened_behind_its_options() {
        let header = [1, 0x40, 0x65, 0x58, 0, 0, 3, 0, 0xff, 0xff, 0, 0];
        let parts: [&[u8]; 3] = [&header, &FRAME, &IPV4_UDP];
        assert_checked(6081, &parts, TunnelKind::Geneve, Some(3), &[0, 1, 2, 3, 7]);
    }

    #[test]
    fn gtp_is_opened_where_its_length_is_right() {
        let header = [0x30, 0xff, 0, 32, 0, 0, 0, 4];
        assert_checked(2152, &[&header, &IPV4_UDP], TunnelKind::GtpU, Some(4), &[0, 1, 2, 3]);
        // Sequence and extension flags: four bytes, then a PDU session container of one unit.
        let extended = [0x36, 0xff, 0, 40, 0, 0, 0, 4, 0, 1, 0, 0x85, 1, 0, 9, 0];
        assert_checked(2152, &[&extended, &IPV4_UDP], TunnelKind::GtpU, Some(4), &[0, 1, 3, 12, 15]);
    }

    #[test]
    fn teredo_is_opened_behind_authentication_and_origin() {
        let checked = [0, 5, 6 + 2];
        assert_checked(3544, &[&BUBBLE], TunnelKind::Teredo, None, &checked[..2]);
        let before = [&[0, 1, 0, 0][..], &[9; 9], &[0, 0], &[7; 6]].concat();
        assert_checked(
            3544,
            &[&before, &BUBBLE],
            TunnelKind::Teredo,
            None,
            &[0, before.len(), before.len() + 5],
        );
        let trailers = [&BUBBLE[..], &[1, 4, 9, 9, 9, 9, 4, 2, 0, 0]].concat();
        assert_checked(3544, &[&trailers], TunnelKind::Teredo, None, &[0, 5, 40 + 1, 40 + 7]);
        let elsewhere = [&BUBBLE[..8], &[0x20, 2], &BUBBLE[10..24], &[0x20, 2], &BUBBLE[26..]].concat();
        let bytes = over_udp(3544, &elsewhere);
        assert!(inner(&raw(&bytes)).unwrap().is_none(), "no address of Teredo");
    }

    #[test]
    fn l2tp_data_is_opened_and_control_is_not() {
        let header = [0x00, 0x02, 0, 5, 0, 6, 0xff, 0x03, 0x00, 0x21];
        assert_checked(1701, &[&header, &IPV4_UDP], TunnelKind::L2tp, Some(6), &[0, 1, 8]);
        let full = [0x4a, 0x02, 0, 50, 0, 5, 0, 6, 0, 1, 0, 1, 0, 2, 0xaa, 0xaa, 0x00, 0x21];
        assert_checked(1701, &[&full, &IPV4_UDP], TunnelKind::L2tp, Some(6), &[0, 1, 3]);
        let control = over_udp(1701, &[&[0xc8, 0x02, 0, 44][..], &[0; 8], &IPV4_UDP].concat());
        assert!(inner(&raw(&control)).unwrap().is_none());
    }

    #[test]
    fn mpls_and_gre_in_udp_are_opened() {
        assert_checked(6635, &[&[0, 1, 1, 64], &IPV4_UDP], TunnelKind::MplsInUdp, None, &[4]);
        assert_checked(4754, &[&[0, 0, 8, 0], &IPV4_UDP], TunnelKind::Gre, None, &[0, 1, 2]);
    }

    #[test]
    fn tzsp_is_opened_behind_its_fields() {
        let header = [1, 0, 0, 1, 10, 1, 0xc8, 0, 0, 1];
        assert_checked(37008, &[&header, &FRAME, &IPV4_UDP], TunnelKind::Tzsp, None, &[0, 1, 2, 3]);
        let wireless = [&[0x08, 0, 0, 0][..], &[2; 18], &[0, 0], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat();
        assert_checked(37008, &[&[1, 0, 0, 18, 1], &wireless, &IPV4_UDP], TunnelKind::Tzsp, None, &[0, 3]);
        let endless = over_udp(37008, &[&[1, 0, 0, 1][..], &[0; 80]].concat());
        assert!(inner(&raw(&endless)).unwrap().is_none());
    }

    #[test]
    fn lisp_is_opened_where_ip_fills_it() {
        let header = [0xc8, 1, 2, 3, 0, 0, 9, 1];
        assert_checked(4341, &[&header, &IPV4_UDP], TunnelKind::Lisp, Some(9), &[0, 8, 10, 11]);
        assert_checked(4341, &[&[0x80, 1, 2, 3, 0, 0, 9, 1], &BUBBLE], TunnelKind::Lisp, None, &[0, 8, 12]);
    }

    #[test]
    fn gue_is_opened_in_both_versions() {
        assert_checked(6080, &[&[0, 4, 0, 0], &IPV4_UDP], TunnelKind::Gue, None, &[0, 1, 4, 6]);
        assert_checked(6080, &[&[1, 41, 0, 0, 9, 9, 9, 9], &BUBBLE], TunnelKind::Gue, None, &[1, 8]);
        assert_checked(6080, &[&IPV4_UDP], TunnelKind::Gue, None, &[0, 2]);
    }

    #[test]
    fn ayiya_is_opened_by_its_operation_and_next_header() {
        let header = [&[0x41, 0x52, 0x11, 4, 0, 0, 0, 0][..], &[1; 16], &[2; 20]].concat();
        assert_checked(5072, &[&header, &IPV4_UDP], TunnelKind::Ayiya, None, &[0, 1, 2, 3]);
    }

    #[test]
    fn other_ports_are_not_opened() {
        let bytes = over_udp(53, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &FRAME, &IPV4_UDP].concat());
        assert!(inner(&raw(&bytes)).unwrap().is_none());
    }
}
