//! Tunnels: what an IP packet carries that is itself a packet. Tunnels that are an IP protocol of their own are
//! opened here and in `gre`, those on a UDP port in `udp_tunnel`.

use super::{
    cursor::{Cursor, at_network, at_shim},
    gre, l2tp,
    packet::{Inner, InnerStart, IpPacket, Transport, Unparsed},
    shim::{self, IPV4, IPV6, Next},
    udp_tunnel,
};
use crate::record::{Reason, Tunnel, TunnelKind};

/// What opening gives: the inner packet, none where there is no tunnel or no packet in it, or why a tunnel that
/// is one for certain could not be opened.
pub(super) type Opened<'a> = Result<Option<Inner<'a>>, Unparsed>;

/// The packet inside an IP packet, where that is a tunnel: GRE, ERSPAN, IP in IP, EtherIP, Ethernet in IPv6 (RFC
/// 8986), L2TP, MPLS in IP, and on their registered UDP ports VXLAN, Geneve, GTP-U, Teredo, L2TP, AYIYA, MPLS,
/// GRE, CAPWAP, LISP, GUE and TZSP. UDP is opened only where every field of the tunnel header that can be checked
/// is right, because anything can use a port.
///
/// Of a fragmented tunnel packet only the first fragment is opened: it holds the inner headers.
pub fn inner<'a>(packet: &IpPacket<'a>) -> Result<Option<Inner<'a>>, Unparsed> {
    if packet.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return Ok(None);
    }
    let at = Cursor::new(packet.payload, packet.payload_bytes);
    match (packet.protocol, packet.transport) {
        (6, _) => Ok(None),
        (17, Transport::Ports { source, destination }) => {
            Ok(udp_tunnel::open(source, destination, at, packet.fragment.is_some()))
        }
        (4 | 94, _) => ip_in_ip(IPV4, at),
        (41, _) => ip_in_ip(IPV6, at),
        (47, _) => gre::open(at),
        (97, _) => ether_ip(at),
        (115, _) => l2tp::open_in_ip(at),
        (137, _) => mpls_in_ip(at),
        (143, _) => Ok(Some(found(TunnelKind::EtherIp, None, InnerStart::Ethernet, at))),
        _ => Ok(None),
    }
}

/// The packet in the tunnel of a mirror, which is known to be of this kind: UDP with another port than the
/// registered one is opened too.
pub fn mirrored<'a>(
    kind: TunnelKind,
    port: Option<u16>,
    packet: &IpPacket<'a>,
) -> Result<MirrorOpened<'a>, Unparsed> {
    let at = Cursor::new(packet.payload, packet.payload_bytes);
    match (packet.protocol, packet.transport) {
        (47, _) if gre::kind(at) == Some(kind) => {
            gre::open(at).map(|inner| inner.map_or(MirrorOpened::Other, MirrorOpened::Inner))
        }
        (17, Transport::Ports { destination, .. }) => {
            let is_port = match port {
                Some(port) => destination == port,
                None => udp_tunnel::is_mirror_port(kind, destination),
            };
            Ok(match is_port {
                true => udp_tunnel::open_as(kind, destination, at)
                    .map_or(MirrorOpened::Contradicts, MirrorOpened::Inner),
                false => MirrorOpened::Other,
            })
        }
        _ => Ok(MirrorOpened::Other),
    }
}

/// What a packet is to a mirror of one kind.
#[derive(Clone, Copy, Debug)]
pub enum MirrorOpened<'a> {
    /// Another kind of packet, or one without a copy in it.
    Other,
    /// A copy.
    Inner(Inner<'a>),
    /// On the mirror's UDP port, but its header is not one of the kind.
    Contradicts,
}

/// The inner packet at a cursor.
pub(super) fn found<'a>(
    kind: TunnelKind,
    id: Option<u32>,
    starts_with: InnerStart,
    at: Cursor<'a>,
) -> Inner<'a> {
    let (data, wire_length) = (at.data, at.wire);
    Inner { tunnel: Tunnel { kind, id }, starts_with, data, wire_length, vlan: None, sequence: None }
}

/// What a PPP frame carries, if it is IP or MPLS; its address and control bytes may be left out (RFC 2637
/// section 4.4), and its protocol field may be one byte.
pub(super) fn under_ppp(at: Cursor<'_>) -> Option<(InnerStart, Cursor<'_>)> {
    let at = if at.be16(0)? == 0xff03 { at.skip(2)? } else { at };
    match shim::ppp(at)? {
        (Next::EtherType(ether_type), inner) => Some((InnerStart::EtherType(ether_type), inner)),
        _ => None,
    }
}

/// The ethertype of IP that the first nibble at a cursor stands for.
pub(super) fn ip_version(at: Cursor<'_>) -> Option<InnerStart> {
    match at.byte(0)? >> 4 {
        4 => Some(InnerStart::EtherType(IPV4)),
        6 => Some(InnerStart::EtherType(IPV6)),
        _ => None,
    }
}

fn ip_in_ip(ether_type: u16, at: Cursor<'_>) -> Opened<'_> {
    match ip_version(at) {
        None if at.data.is_empty() => Err(at_network(Reason::Truncated)),
        Some(start) if start == InnerStart::EtherType(ether_type) => {
            Ok(Some(found(TunnelKind::IpInIp, None, start, at)))
        }
        _ => Err(at_network(Reason::BadVersion)),
    }
}

/// RFC 4023: a label stack and what it carries.
fn mpls_in_ip(at: Cursor<'_>) -> Opened<'_> {
    Ok(Some(found(TunnelKind::MplsInIp, None, InnerStart::EtherType(0x8847), at)))
}

/// RFC 3378: version 3 and twelve reserved bits, then a frame.
fn ether_ip(at: Cursor<'_>) -> Opened<'_> {
    match (at.be16(0), at.skip(2)) {
        (Some(0x3000), Some(at)) => Ok(Some(found(TunnelKind::EtherIp, None, InnerStart::Ethernet, at))),
        (Some(_), _) => Err(at_shim(Reason::BadVersion)),
        (None, _) => Err(at_shim(Reason::Truncated)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Content, decode_inner,
        testing::{IPV4_UDP, over_ipv4, raw, tunnel_of},
    };
    use super::*;

    #[test]
    fn ip_in_ip_is_opened_where_the_version_is_the_protocols() {
        let bytes = over_ipv4(4, &IPV4_UDP);
        assert_eq!(tunnel_of(&bytes), Tunnel { kind: TunnelKind::IpInIp, id: None });
        let wrong = over_ipv4(41, &IPV4_UDP);
        assert_eq!(inner(&raw(&wrong)).unwrap_err(), at_network(Reason::BadVersion));
    }

    #[test]
    fn ether_ip_is_opened_by_its_version() {
        let frame = [&[0x30, 0][..], &[2; 12], &[0x08, 0x00], &IPV4_UDP].concat();
        assert_eq!(tunnel_of(&over_ipv4(97, &frame)).kind, TunnelKind::EtherIp);
        let other = over_ipv4(97, &[0x40, 0, 0, 0]);
        assert_eq!(inner(&raw(&other)).unwrap_err(), at_shim(Reason::BadVersion));
    }

    #[test]
    fn mpls_in_ip_and_ethernet_in_ip_are_opened() {
        let labelled = over_ipv4(137, &[&[0, 1, 1, 64], &IPV4_UDP[..]].concat());
        assert_eq!(tunnel_of(&labelled).kind, TunnelKind::MplsInIp);
        let frame = over_ipv4(143, &[&[2; 12][..], &[8, 0], &IPV4_UDP].concat());
        assert_eq!(tunnel_of(&frame).kind, TunnelKind::EtherIp);
    }

    #[test]
    fn only_the_first_fragment_of_a_tunnel_packet_is_opened() {
        let mut bytes = over_ipv4(4, &IPV4_UDP);
        bytes[6] = 0x20;
        assert!(inner(&raw(&bytes)).unwrap().is_some());
        bytes[7] = 0x03;
        assert!(inner(&raw(&bytes)).unwrap().is_none());
    }

    #[test]
    fn tunnels_within_tunnels_open_one_at_a_time() {
        let bytes = over_ipv4(4, &over_ipv4(47, &[&[0, 0, 8, 0], &IPV4_UDP[..]].concat()));
        let outer = raw(&bytes);
        let Content::Ip(middle) = decode_inner(&inner(&outer).unwrap().unwrap()).unwrap().content else {
            panic!("not IP")
        };
        assert_eq!(middle.protocol, 47);
        let Content::Ip(innermost) = decode_inner(&inner(&middle).unwrap().unwrap()).unwrap().content else {
            panic!("not IP")
        };
        assert_eq!((innermost.protocol, innermost.payload), (17, &b"data"[..]));
    }
}
