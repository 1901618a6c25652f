//! CAPWAP data (RFC 5415 section 4): what access points send to their controller.

use super::{
    cursor::Cursor,
    packet::{Inner, InnerStart, LinkType},
    read,
    tunnel::found,
    wireless,
};
use crate::record::TunnelKind;

/// The frame is in its native format, not in that of 802.3.
const NATIVE: u8 = 0x01;
const FRAGMENT: u8 = 0x80;
const KEEP_ALIVE: u8 = 0x08;
/// Binding: IEEE 802.11.
const BINDING_802_11: u8 = 1;

/// Opens a UDP datagram on the port of CAPWAP data: version 0, not encrypted (then nothing can be seen), a first
/// or only fragment, a frame of 802.3 or 802.11.
pub(super) fn open(at: Cursor<'_>) -> Option<Inner<'_>> {
    let [preamble, length, binding, flags, _, _, offset, reserved] = read::array(at.data, 0)?;
    let header = usize::from(length >> 3) * 4;
    let is_later = flags & FRAGMENT != 0 && (offset != 0 || reserved >> 3 != 0);
    if preamble != 0 || header < 8 || is_later || flags & KEEP_ALIVE != 0 || flags & 0x07 != 0 {
        return None;
    }
    let inner = at.skip(header)?;
    // Behind two bits of the radio: the binding, and whether the frame is native.
    let is_802_11 = (binding >> 1) & 0x1f == BINDING_802_11;
    let start = match (binding & NATIVE, inner.byte(0)?, inner.byte(1)?) {
        (0, _, _) if inner.wire >= 14 => InnerStart::Ethernet,
        (NATIVE, first, _) if is_802_11 && wireless::is_data(first) => InnerStart::Link(LinkType::IEEE802_11),
        (NATIVE, _, second) if is_802_11 && wireless::is_data(second) => InnerStart::SwappedIeee80211,
        _ => return None,
    };
    Some(found(TunnelKind::Capwap, None, start, inner))
}

#[cfg(test)]
mod tests {
    use super::super::{
        inner,
        testing::{IPV4_UDP, over_udp, raw, tunnel_of},
    };
    use super::*;

    const LLC: [u8; 8] = [0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00];

    fn bytes(header: &[u8], frame: &[u8]) -> Vec<u8> {
        over_udp(5247, &[header, frame, &IPV4_UDP].concat())
    }

    #[test]
    fn frames_of_both_formats_are_opened() {
        // Header of 8 bytes, radio 1, binding 802.11, native.
        let native = [0, 0x10, 0x43, 0, 0, 0, 0, 0];
        let wireless = [&[0x08, 0x01, 0, 0][..], &[2; 18], &[0, 0], &LLC].concat();
        assert_eq!(tunnel_of(&bytes(&native, &wireless)).kind, TunnelKind::Capwap);
        let swapped = [&[0x01, 0x08, 0, 0][..], &[2; 18], &[0x76, 0x30], &LLC].concat();
        assert_eq!(tunnel_of(&bytes(&native, &swapped)).kind, TunnelKind::Capwap);
        // With wireless information: eight bytes more.
        let informed = [&[0, 0x20, 0x43, 0x20, 0, 0, 0, 0][..], &[4, 1, 2, 3, 4, 0, 0, 0]].concat();
        assert_eq!(tunnel_of(&bytes(&informed, &wireless)).kind, TunnelKind::Capwap);
        let ethernet = [&[2; 12][..], &[8, 0]].concat();
        assert_eq!(tunnel_of(&bytes(&[0, 0x10, 0x42, 0, 0, 0, 0, 0], &ethernet)).kind, TunnelKind::Capwap);
        assert_eq!(tunnel_of(&bytes(&[0, 0x10, 0x42, 0x80, 0, 7, 0, 0], &ethernet)).kind, TunnelKind::Capwap);
    }

    #[test]
    fn what_carries_no_frame_is_not_opened() {
        let frame = [&[2; 12][..], &[8, 0]].concat();
        for header in [
            [1, 0, 0, 0, 0x16, 0xfe, 0xff, 0], // DTLS
            [0x10, 0x10, 0x42, 0, 0, 0, 0, 0], // another version
            [0, 0x08, 0x42, 0, 0, 0, 0, 0],    // header too short
            [0, 0x10, 0x42, 0x80, 0, 7, 0, 8], // later fragment
            [0, 0x10, 0x42, 0x08, 0, 0, 0, 0], // keep-alive
            [0, 0x10, 0x45, 0, 0, 0, 0, 0],    // another binding, native
        ] {
            let packet = bytes(&header, &frame);
            assert!(inner(&raw(&packet)).unwrap().is_none(), "{header:02x?}");
        }
    }
}
