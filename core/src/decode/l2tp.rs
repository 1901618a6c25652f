//! L2TP: version 2 on UDP (RFC 2661), and version 3 on UDP and on IP (RFC 3931).
//!
//! What a data packet of version 3 carries, and how long its cookie is, only the two ends know. It is opened
//! where exactly what follows proves itself: a frame, PPP or IP whose IPv4 header has a right checksum, or whose
//! IPv6 or ARP header fills it to the byte.

use super::{
    cursor::{Cursor, at_shim},
    packet::{Inner, InnerStart},
    shim::{self, IPV4, IPV6, Next},
    tunnel::{Opened, found, ip_version, under_ppp},
};
use crate::record::{Reason, TunnelKind};

const CONTROL: u16 = 0x8000;
const LENGTH: u16 = 0x4000;
const SEQUENCE: u16 = 0x0800;
const OFFSET: u16 = 0x0200;
const PRIORITY: u16 = 0x0100;

/// Bytes of cookie and sublayer between the session and the frame: none, four or eight, and four of a sublayer.
const BETWEEN: [usize; 4] = [0, 4, 8, 12];
/// VLAN tags within a frame that are looked behind.
const MAX_TAGS: usize = 3;

/// Opens a UDP datagram on L2TP's port: data, with all that can be checked right.
pub(super) fn open_in_udp(at: Cursor<'_>, is_fragment: bool) -> Option<Inner<'_>> {
    match at.be16(0)? {
        // Version 3: 16 reserved bits, then the session.
        3 if at.be16(2)? == 0 => session(at.skip(4)?).ok()?,
        _ => version_2(at, is_fragment),
    }
}

/// Opens L2TP over IP, where session 0 is control.
pub(super) fn open_in_ip(at: Cursor<'_>) -> Opened<'_> {
    session(at)
}

/// A data message of version 2 with tunnel and session, then PPP.
fn version_2(at: Cursor<'_>, is_fragment: bool) -> Option<Inner<'_>> {
    let flags = at.be16(0)?;
    if flags & CONTROL != 0 || flags & !(LENGTH | SEQUENCE | OFFSET | PRIORITY) != 2 {
        return None;
    }
    let mut inner = at.skip(2)?;
    if flags & LENGTH != 0 {
        let stated = u32::from(inner.be16(0)?);
        if stated != at.wire && !(is_fragment && stated > at.wire) {
            return None;
        }
        inner = inner.skip(2)?;
    }
    let (tunnel, session) = (inner.be16(0)?, inner.be16(2)?);
    inner = inner.skip(if flags & SEQUENCE == 0 { 4 } else { 8 })?;
    if flags & OFFSET != 0 {
        inner = inner.skip(2 + usize::from(inner.be16(0)?))?;
    }
    let (start, inner) = under_ppp(inner)?;
    let is_sound = tunnel != 0 && session != 0 && ip_version(inner) == Some(start);
    is_sound.then(|| found(TunnelKind::L2tp, Some(u32::from(session)), start, inner))
}

/// A session of version 3.
fn session(at: Cursor<'_>) -> Opened<'_> {
    let (Some(session), Some(behind)) = (at.be32(0), at.skip(4)) else {
        return Err(at_shim(Reason::Truncated));
    };
    if session == 0 {
        return Ok(None);
    }
    let proven = BETWEEN.iter().find_map(|&length| proven(behind.skip(length)?));
    match proven {
        Some((start, inner)) => Ok(Some(found(TunnelKind::L2tp, Some(session), start, inner))),
        None => Err(at_shim(Reason::NotIp)),
    }
}

/// What the bytes here are, where they prove it.
fn proven(at: Cursor<'_>) -> Option<(InnerStart, Cursor<'_>)> {
    if is_frame(at) == Some(true) {
        return Some((InnerStart::Ethernet, at));
    }
    if let Some((Next::EtherType(ether_type @ (IPV4 | IPV6)), inner)) = ppp(at)
        && is_network(ether_type, inner) == Some(true)
    {
        return Some((InnerStart::EtherType(ether_type), inner));
    }
    [IPV4, IPV6]
        .into_iter()
        .find(|&ether_type| is_network(ether_type, at) == Some(true))
        .map(|ether_type| (InnerStart::EtherType(ether_type), at))
}

fn ppp(at: Cursor<'_>) -> Option<(Next, Cursor<'_>)> {
    shim::ppp(if at.be16(0)? == 0xff03 { at.skip(2)? } else { at })
}

fn is_frame(at: Cursor<'_>) -> Option<bool> {
    let mut at = at.skip(12)?;
    for _ in 0..MAX_TAGS {
        match at.be16(0)? {
            0x8100 | 0x88a8 => at = at.skip(4)?,
            ether_type => return is_network(ether_type, at.skip(2)?),
        }
    }
    Some(false)
}

/// Whether a network header here is right in every respect that can be checked.
fn is_network(ether_type: u16, at: Cursor<'_>) -> Option<bool> {
    match ether_type {
        IPV4 => {
            let first = at.byte(0)?;
            let words = usize::from(first & 0x0f) * 2;
            let sum = (0..words).map(|word| at.be16(word * 2).map(u32::from)).sum::<Option<u32>>()?;
            let folded = (sum & 0xffff) + (sum >> 16);
            let is_right = first >> 4 == 4 && words >= 10 && matches!(folded, 0xffff);
            Some(is_right && u32::from(at.be16(2)?) <= at.wire)
        }
        IPV6 => Some(at.byte(0)? >> 4 == 6 && u32::from(at.be16(4)?) + 40 == at.wire),
        0x0806 => Some((at.be32(0)?, at.be16(4)?) == (0x0001_0800, 0x0604)),
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        inner,
        testing::{IPV4_UDP, over_ipv4, over_udp, raw, tunnel_of},
    };
    use super::*;
    use crate::record::Tunnel;

    const FRAME: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];

    /// The packet of the tests with its checksum right.
    fn summed() -> Vec<u8> {
        let mut packet = IPV4_UDP.to_vec();
        let sum: u32 = packet[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet[10..12].copy_from_slice(&(!folded).to_be_bytes());
        packet
    }

    #[test]
    fn version_3_is_opened_with_each_length_of_cookie_and_sublayer() {
        for between in BETWEEN {
            for payload in [&FRAME[..], &[0xff, 0x03, 0x00, 0x21], &[0x00, 0x21], &[]] {
                let data = [&[0, 0, 0x12, 0x34][..], &vec![0x5a; between], payload, &summed()].concat();
                let expected = Tunnel { kind: TunnelKind::L2tp, id: Some(0x1234) };
                assert_eq!(tunnel_of(&over_ipv4(115, &data)), expected, "{between} {payload:02x?}");
                let in_udp = over_udp(1701, &[&[0, 3, 0, 0][..], &data].concat());
                assert_eq!(tunnel_of(&in_udp), expected, "{between} {payload:02x?}");
            }
        }
    }

    #[test]
    fn version_3_is_opened_only_where_what_it_carries_proves_itself() {
        let mut wrong_sum = summed();
        wrong_sum[11] ^= 1;
        let data = [&[0, 0, 0x12, 0x34][..], &FRAME, &wrong_sum].concat();
        let bytes = over_ipv4(115, &data);
        assert_eq!(inner(&raw(&bytes)).unwrap_err(), at_shim(Reason::NotIp));
        let bytes = over_udp(1701, &[&[0, 3, 0, 0][..], &data].concat());
        assert!(inner(&raw(&bytes)).unwrap().is_none());
        let control = over_ipv4(115, &[&[0; 4][..], &FRAME, &summed()].concat());
        assert!(inner(&raw(&control)).unwrap().is_none());
        assert_eq!(inner(&raw(&over_ipv4(115, &[1, 2]))).unwrap_err(), at_shim(Reason::Truncated));
    }

    #[test]
    fn tagged_frames_and_arp_prove_themselves() {
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[2; 20]].concat();
        for rest in [[&[0x81, 0, 0, 7, 8, 0][..], &summed()].concat(), [&[8, 6][..], &arp].concat()] {
            let data = [&[0, 0, 0, 9][..], &[2; 12], &rest].concat();
            assert_eq!(tunnel_of(&over_ipv4(115, &data)).id, Some(9));
        }
    }
}
