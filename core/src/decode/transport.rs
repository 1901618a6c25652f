//! Transport headers, as far as flows need them, out of packets that may end within them.

use super::{
    cursor::saturate,
    packet::{TcpSegment, Transport},
    read,
};

const TCP: u8 = 6;
/// A TCP header without options.
const TCP_MINIMUM: usize = 20;
/// A TCP header up to the window field: what flows need of it.
const TCP_NEEDED: usize = 16;

/// Name of the header that is read of a protocol.
pub(super) const fn name(protocol: u8) -> &'static str {
    match protocol {
        1 => "ICMP",
        TCP => "TCP",
        17 => "UDP",
        33 => "DCCP",
        58 => "ICMPv6",
        132 => "SCTP",
        136 => "UDP-Lite",
        _ => "transport header",
    }
}

/// What is behind the IP headers.
pub(super) struct Body<'a> {
    pub(super) transport: Transport,
    /// Bytes behind the transport header by the length fields.
    pub(super) payload_bytes: u32,
    /// Those of them that are captured.
    pub(super) payload: &'a [u8],
    /// Whether `payload_bytes` is an estimate.
    pub(super) estimated: bool,
}

impl<'a> Body<'a> {
    /// All of it is payload.
    pub(super) fn whole(data: &'a [u8], length: u32) -> Self {
        Self { transport: Transport::None, payload_bytes: length, payload: data, estimated: false }
    }

    /// A header of `size` bytes, then payload.
    fn behind(transport: Option<Transport>, size: usize, data: &'a [u8], length: u32) -> Self {
        Self {
            transport: transport.unwrap_or(Transport::None),
            payload_bytes: length.saturating_sub(saturate(size)),
            payload: read::rest(data, size),
            estimated: false,
        }
    }
}

/// Reads the header of `protocol` at the start of `data`, where `length` bytes were by the length fields.
pub(super) fn read(protocol: u8, data: &[u8], length: u32) -> Body<'_> {
    match protocol {
        TCP => tcp(data, length),
        // UDP and UDP-Lite (RFC 3828).
        17 | 136 => Body::behind(ports(data), 8, data, length),
        // SCTP (RFC 9260) and DCCP (RFC 4340), whose generic header is 12 bytes with short sequence numbers.
        132 | 33 => Body::behind(ports(data), 12, data, length),
        1 | 58 => Body::behind(icmp(data), 8, data, length),
        _ => Body::whole(data, length),
    }
}

fn ports(data: &[u8]) -> Option<Transport> {
    Some(Transport::Ports { source: read::be16(data, 0)?, destination: read::be16(data, 2)? })
}

fn icmp(data: &[u8]) -> Option<Transport> {
    let [kind, code] = read::array(data, 0)?;
    Some(Transport::Icmp { kind, code, rest: read::array(data, 4).unwrap_or_default() })
}

impl TcpSegment {
    /// Reads a header out of at least its first 16 bytes; gives it and its length by the data offset.
    #[inline]
    pub fn read(data: &[u8]) -> Option<(Self, u32)> {
        let header = data.first_chunk::<TCP_NEEDED>()?;
        let [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags, w0, w1] = *header;
        let segment = Self {
            source: u16::from_be_bytes([s0, s1]),
            destination: u16::from_be_bytes([d0, d1]),
            sequence: u32::from_be_bytes([n0, n1, n2, n3]),
            acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
            flags: u16::from_be_bytes([offset & 1, flags]),
            window: u16::from_be_bytes([w0, w1]),
        };
        Some((segment, u32::from(offset >> 4) * 4))
    }
}

/// RFC 9293. A data offset below 5, or beyond the packet's end, is impossible: the counts are then an estimate.
fn tcp(data: &[u8], length: u32) -> Body<'_> {
    let Some((segment, size)) = TcpSegment::read(data) else {
        // How long the header was is not known; it had at least its fixed part.
        return Body { estimated: true, ..Body::behind(ports(data), TCP_MINIMUM, data, length) };
    };
    let size = size as usize;
    let estimated = size < TCP_MINIMUM || saturate(size) > length;
    Body { estimated, ..Body::behind(Some(Transport::Tcp(segment)), size, data, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 50000 → 443, sequence 1, acknowledgement 2, offset 6, NS SYN ACK, window 1024, a maximum segment size.
    const SYN_ACK: [u8; 24] =
        [0xc3, 0x50, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x61, 0x12, 4, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4];

    #[test]
    fn tcp_is_read_with_its_options_left_out() {
        let data = [&SYN_ACK[..], b"late"].concat();
        let body = read(6, &data, 28);
        let segment = TcpSegment {
            source: 50000,
            destination: 443,
            sequence: 1,
            acknowledgement: 2,
            flags: 0x112,
            window: 1024,
        };
        assert_eq!(body.transport, Transport::Tcp(segment));
        assert_eq!((body.payload_bytes, body.payload, body.estimated), (4, &b"late"[..], false));
        assert!(segment.has(TcpSegment::SYN | TcpSegment::ACK) && !segment.has(TcpSegment::FIN));
    }

    #[test]
    fn tcp_that_is_cut_keeps_what_is_there() {
        let body = read(6, &SYN_ACK[..16], 28);
        assert!(matches!(body.transport, Transport::Tcp(_)));
        assert_eq!((body.payload_bytes, body.estimated), (4, false));
        let body = read(6, &SYN_ACK[..15], 28);
        assert_eq!(body.transport, Transport::Ports { source: 50000, destination: 443 });
        assert_eq!((body.payload_bytes, body.estimated), (8, true));
        assert_eq!(read(6, &SYN_ACK[..3], 28).transport, Transport::None);
    }

    #[test]
    fn an_impossible_data_offset_makes_an_estimate() {
        for offset in [0x00, 0x40, 0xf0] {
            let mut bytes = SYN_ACK;
            bytes[12] = offset;
            assert!(read(6, &bytes, 24).estimated, "{offset:02x}");
        }
    }

    #[test]
    fn each_protocol_with_ports_has_its_header_length() {
        for (protocol, header) in [(17, 8), (136, 8), (132, 12), (33, 12)] {
            let body = read(protocol, &SYN_ACK, 24);
            assert_eq!(body.transport, Transport::Ports { source: 50000, destination: 443 }, "{protocol}");
            assert_eq!((body.payload_bytes, body.payload), (24 - header, &SYN_ACK[header as usize..]));
        }
    }

    #[test]
    fn icmp_gives_type_code_and_the_rest_of_its_header() {
        for protocol in [1, 58] {
            let body = read(protocol, &[8, 1, 0xff, 0xff, 0, 7, 0, 9, 0xaa], 9);
            assert_eq!(body.transport, Transport::Icmp { kind: 8, code: 1, rest: [0, 7, 0, 9] });
            assert_eq!((body.payload_bytes, body.payload), (1, &[0xaa][..]));
        }
        assert_eq!(read(1, &[3, 1], 36).transport, Transport::Icmp { kind: 3, code: 1, rest: [0; 4] });
        assert_eq!(read(1, &[3], 36).transport, Transport::None);
    }

    #[test]
    fn of_other_protocols_all_is_payload() {
        let body = read(50, &SYN_ACK, 24);
        assert_eq!((body.transport, body.payload_bytes, body.payload.len()), (Transport::None, 24, 24));
    }
}
