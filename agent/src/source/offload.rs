//! How many packets on the wire a captured one stands for, by its length: a packet longer than the interface's MTU was
//! joined by the card or the kernel (GRO, LRO), or is yet to be divided (TSO, GSO). The kernel knows the number, but
//! tells it only with PACKET_VNET_HDR, which libpcap does not set; so it is reckoned, and the counts are estimates.

use onenet_core::{
    decode::{self, CapturedPacket, Content},
    flow::Offload,
};

/// Bytes before the network header that any link has at most: Ethernet with three tags.
const LINK_BYTES: u32 = 26;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a packet stands for, on an interface with this MTU in bytes; 0 where that is not known.
pub(crate) fn offload_of(packet: &CapturedPacket<'_>, mtu: u32) -> Offload {
    if mtu == 0 || packet.wire_length <= mtu.saturating_add(LINK_BYTES) {
        return Offload::default();
    }
    reckoned(packet, mtu).unwrap_or_default()
}

#[cold]
fn reckoned(packet: &CapturedPacket<'_>, mtu: u32) -> Option<Offload> {
    let Ok(decode::Decoded { content: Content::Ip(ip), .. }) = decode::decode(packet) else { return None };
    if !matches!(ip.protocol, TCP | UDP) || ip.fragment.is_some() || ip.ip_bytes <= mtu {
        return None;
    }
    let headers = ip.ip_bytes.checked_sub(ip.payload_bytes)?;
    let each = mtu.checked_sub(headers).filter(|&each| each > 0)?;
    let segments = u16::try_from(ip.payload_bytes.div_ceil(each)).unwrap_or(u16::MAX);
    (segments > 1).then_some(Offload { segments, is_exact: false })
}

#[cfg(test)]
mod tests {
    use onenet_core::{
        decode::{InterfaceIndex, LinkDirection, LinkType},
        time::Timestamp,
    };

    use super::*;

    /// Segments of an IPv4 packet with so many bytes of TCP header and payload.
    fn segments(protocol: u8, header: u8, payload: u32, mtu: u32, fragment: u8) -> u16 {
        let length = 20 + u32::from(header) + payload;
        let length_field = u16::try_from(length).unwrap_or(0).to_be_bytes();
        let mut data = vec![0x45, 0, length_field[0], length_field[1], 0, 1, fragment, 0, 64, protocol, 0, 0];
        data.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        data.extend([0, 80, 4, 0, 0, 0, 0, 1, 0, 0, 0, 1, (header / 4) << 4, 0x10, 1, 0, 0, 0, 0, 0]);
        data.resize(100, 0);
        let packet = CapturedPacket {
            time: Timestamp(0),
            interface: InterfaceIndex(0),
            link_type: LinkType(101),
            direction: LinkDirection::Unknown,
            wire_length: length,
            data: &data,
        };
        let offload = offload_of(&packet, mtu);
        assert_eq!(offload.is_exact, offload.segments == 1);
        offload.segments
    }

    #[test]
    fn a_segment_longer_than_the_mtu_is_as_many_as_its_payload_fills() {
        assert_eq!(segments(TCP, 20, 1460, 1500, 0), 1);
        assert_eq!(segments(TCP, 20, 2920, 1500, 0), 2);
        assert_eq!(segments(TCP, 20, 2921, 1500, 0), 3);
        assert_eq!(segments(TCP, 32, 65160, 1500, 0), 45);
        assert_eq!(segments(TCP, 32, 65160, 65535, 0), 1, "a longer MTU takes it as it is");
        assert_eq!(segments(TCP, 32, 200_000, 1500, 0), 139, "longer than the length field of IPv4");
    }

    #[test]
    fn what_nothing_divides_stays_one() {
        assert_eq!(segments(50, 20, 8000, 1500, 0), 1, "another protocol");
        assert_eq!(segments(TCP, 20, 8000, 1500, 0x20), 1, "a fragment");
        assert_eq!(segments(TCP, 20, 8000, 0, 0), 1, "an MTU that is not known");
        assert_eq!(segments(TCP, 60, 8000, 70, 0), 1, "an MTU smaller than the headers");
    }
}
