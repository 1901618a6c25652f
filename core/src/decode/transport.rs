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

/// RFC 9293. A data offset below 5, or beyond the packet's end, is impossible: the counts are then an estimate.
fn tcp(data: &[u8], length: u32) -> Body<'_> {
    let Some(header) = data.first_chunk::<TCP_NEEDED>() else {
        // How long the header was is not known; it had at least its fixed part.
        return Body { estimated: true, ..Body::behind(ports(data), TCP_MINIMUM, data, length) };
    };
    let [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags, w0, w1] = *header;
    let segment = TcpSegment {
        source: u16::from_be_bytes([s0, s1]),
        destination: u16::from_be_bytes([d0, d1]),
        sequence: u32::from_be_bytes([n0, n1, n2, n3]),
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        flags: u16::from_be_bytes([offset & 1, flags]),
        window: u16::from_be_bytes([w0, w1]),
    };
    let size = usize::from(offset >> 4) * 4;
    let estimated = size < TCP_MINIMUM || saturate(size) > length;
    Body { estimated, ..Body::behind(Some(Transport::Tcp(segment)), size, data, length) }
}
