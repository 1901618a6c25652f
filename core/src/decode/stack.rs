//! The signature of the host that opens a TCP connection: what its SYN has beside what flows need of it.

use super::{
    packet::{IpPacket, TcpSegment, Transport},
    read,
};
use crate::record::{OptionKind, Quirk, StackSample, StackSignature, initial_ttl};

/// A TCP header without options.
const MINIMUM: usize = 20;
/// Fields of it.
const OFFSET: usize = 12;
const WINDOW: usize = 14;
const ECN_FLAGS: u16 = 0x0c0;

/// Whether a segment with these flags opens a connection.
#[inline]
pub(crate) const fn opens(flags: u16) -> bool {
    flags & (TcpSegment::SYN | TcpSegment::ACK | TcpSegment::RST | TcpSegment::FIN) == TcpSegment::SYN
}

/// What the SYN in a packet says of its sender; none where the packet has none, or it is cut within its options.
pub(crate) fn sample(packet: &IpPacket<'_>) -> Option<StackSample> {
    match packet.transport {
        Transport::Tcp(segment) if packet.protocol == 6 && opens(segment.flags) => {
            sample_of(packet.ttl, segment.flags, packet.header(), packet.body())
        }
        _ => None,
    }
}

/// The same by the headers: `ip` are the IP headers, `tcp` is what is behind them.
pub(crate) fn sample_of(ttl: u8, flags: u16, ip: &[u8], tcp: &[u8]) -> Option<StackSample> {
    let size = usize::from(tcp.get(OFFSET)? >> 4).checked_mul(4).filter(|&size| size >= MINIMUM)?;
    let options = tcp.get(MINIMUM..size)?;
    let version = ip.first()? >> 4;
    let mut signature = StackSignature::new(version, initial_ttl(ttl), read::be16(tcp, WINDOW)?);
    let mut ecn = flags & ECN_FLAGS != 0;
    let mut ip_id = None;
    if version == 4 {
        let length = usize::from(ip.first()? & 0xf) * 4;
        signature.ip_options = u8::try_from(length.saturating_sub(20)).unwrap_or(u8::MAX);
        ecn |= ip.get(1)? & 3 != 0;
        let id = read::be16(ip, 4)?;
        let must_not_fragment = ip.get(6)? & 0x40 != 0;
        ip_id = Some(id);
        match (must_not_fragment, id) {
            (true, 0) => signature.set(Quirk::DontFragment),
            (true, _) => {
                signature.set(Quirk::DontFragment);
                signature.set(Quirk::IdWithDf);
            }
            (false, 0) => signature.set(Quirk::NoId),
            (false, _) => {}
        }
    } else {
        ecn |= ip.get(1)? & 0x30 != 0;
    }
    if ecn {
        signature.set(Quirk::Ecn);
    }
    let timestamp = read_options(options, &mut signature);
    Some(StackSample { signature, timestamp, ip_id })
}

/// Reads options into a signature; the timestamp, where there is one.
fn read_options(options: &[u8], signature: &mut StackSignature) -> Option<u32> {
    let (mut rest, mut timestamp) = (options, None);
    for at in 0.. {
        let Some(&kind) = rest.first() else { break };
        let value = match kind {
            0 | 1 => &[][..],
            _ => match rest.get(1).and_then(|&length| rest.get(2..usize::from(length).max(2))) {
                Some(value) if rest.get(1).is_some_and(|&length| length >= 2) => value,
                _ => {
                    signature.set(Quirk::Bad);
                    break;
                }
            },
        };
        let named = match (kind, value.len()) {
            (0, _) => OptionKind::End,
            (1, _) => OptionKind::Nop,
            (2, 2) => {
                signature.mss = read::be16(value, 0).unwrap_or(0);
                OptionKind::Mss
            }
            (3, 1) => {
                signature.window_scale = value.first().copied().unwrap_or(0);
                if signature.window_scale > 14 {
                    signature.set(Quirk::ExcessiveScale);
                }
                OptionKind::WindowScale
            }
            (4, 0) => OptionKind::SackPermitted,
            (5, _) => OptionKind::Sack,
            (8, 8) => {
                timestamp = read::be32(value, 0);
                if timestamp == Some(0) {
                    signature.set(Quirk::ZeroTimestamp);
                }
                if read::be32(value, 4) != Some(0) {
                    signature.set(Quirk::PeerTimestamp);
                }
                OptionKind::Timestamps
            }
            (2 | 3 | 4 | 8, _) => {
                signature.set(Quirk::Bad);
                OptionKind::Other
            }
            _ => OptionKind::Other,
        };
        if !signature.push_option(at, named) {
            signature.set(Quirk::Bad);
            break;
        }
        if kind == 0 {
            break;
        }
        let size = if kind == 1 { 1 } else { value.len() + 2 };
        rest = read::rest(rest, size);
    }
    timestamp
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::testing::raw;

    /// A SYN with these options, padded, in IPv4 with an identification and flags, or in IPv6.
    fn syn(is_v6: bool, ttl: u8, id: u16, flags: u8, window: u16, options: &[u8]) -> Vec<u8> {
        let padded = options.len().div_ceil(4) * 4;
        let size = u8::try_from(20 + padded).expect("short");
        let mut tcp = vec![0xc3, 0x50, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, (size / 4) << 4, 2];
        tcp.extend(window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.resize(20 + padded, 0);
        if is_v6 {
            let mut bytes = vec![0x60, 0, 0, 0, 0, size, 6, ttl];
            bytes.extend([0xfd; 32]);
            return [bytes, tcp].concat();
        }
        let mut bytes = vec![0x45, 0, 0, 20 + size];
        bytes.extend(id.to_be_bytes());
        bytes.extend([flags, 0, ttl, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7]);
        [bytes, tcp].concat()
    }

    fn told(bytes: &[u8]) -> Option<(String, Option<u32>, Option<u16>)> {
        sample(&raw(bytes)).map(|sample| (sample.signature.to_string(), sample.timestamp, sample.ip_id))
    }

    const LINUX: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7];
    const WINDOWS: [u8; 12] = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];

    #[test]
    fn the_syns_of_known_stacks_have_the_signatures_that_p0f_gives_them() {
        for (bytes, expected) in [
            (
                syn(false, 61, 0x1234, 0x40, 64_240, &LINUX),
                ("4:64:0:1460:64240,7:mss,sok,ts,nop,ws:df,id+:0", Some(256), Some(0x1234)),
            ),
            (
                syn(false, 125, 7, 0x40, 64_240, &WINDOWS),
                ("4:128:0:1460:64240,8:mss,nop,ws,nop,nop,sok:df,id+:0", None, Some(7)),
            ),
            (syn(true, 250, 0, 0, 4128, &[2, 4, 2, 0x18]), ("6:255:0:536:4128,0:mss::0", None, None)),
            (syn(false, 30, 0, 0, 0, &[]), ("4:32:0:0:0,0::id-:0", None, Some(0))),
        ] {
            let (signature, timestamp, ip_id) = told(&bytes).expect("a SYN");
            assert_eq!((signature.as_str(), timestamp, ip_id), expected);
        }
    }

    #[test]
    fn what_does_not_open_a_connection_says_nothing() {
        for flags in [0x12, 0x10, 0x06, 0x03, 0] {
            let mut bytes = syn(false, 64, 1, 0, 1, &LINUX);
            bytes[33] = flags;
            assert_eq!(told(&bytes), None, "{flags:#x}");
        }
        let whole = syn(false, 64, 1, 0, 1, &LINUX);
        for end in 0..whole.len() {
            let cut = whole.get(..end).expect("it is longer");
            let cut = crate::decode::testing::captured(crate::decode::LinkType::RAW, cut);
            if let Ok(crate::decode::Decoded { content: crate::decode::Content::Ip(packet), .. }) =
                crate::decode::decode(&cut)
            {
                assert_eq!(sample(&packet), None, "{end}");
            }
        }
    }

    #[test]
    fn options_that_cannot_be_read_are_a_quirk_and_end_the_reading() {
        for (options, expected) in [
            (&[2, 0, 0, 0][..], ":::bad:0"),
            (&[1, 1, 3, 9], "nop,nop:bad:0"),
            (&[8, 4, 0, 0], "?:bad:0"),
            (&[1; 20], "nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop:bad:0"),
        ] {
            let bytes = syn(true, 64, 0, 0, 1, options);
            let (signature, ..) = told(&bytes).expect("a SYN");
            assert!(signature.ends_with(expected.trim_start_matches(':')), "{signature} {expected}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(ip in prop::collection::vec(any::<u8>(), 0..60), tcp in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(sample) = sample_of(64, 2, &ip, &tcp) {
                prop_assert_eq!(sample.signature.to_string().parse(), Ok(sample.signature));
            }
        }
    }
}
