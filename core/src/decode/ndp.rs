//! Neighbour Discovery for IPv6 (RFC 4861), as far as it tells who uses which address.

use std::net::{IpAddr, Ipv6Addr};

use arrayvec::ArrayVec;
use ipnet::Ipv6Net;

use super::{
    packet::{IpPacket, Transport},
    read,
};
use crate::net::MacAddress;

/// Options of one message that are read; RFC 4861 sets no bound.
const MAX_OPTIONS: usize = 32;

/// One Neighbour Discovery message that passes the checks of RFC 4861 (hop limit 255, code 0, lengths,
/// addresses); its checksum is not verified, because a capture at the sender has it unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NdpMessage {
    /// Source of the packet; unspecified for a host that has no address yet.
    pub source: Ipv6Addr,
    /// Destination of the packet.
    pub destination: Ipv6Addr,
    /// Which message.
    pub kind: NdpKind,
    /// Source link-layer address option (1).
    pub source_mac: Option<MacAddress>,
    /// Target link-layer address option (2).
    pub target_mac: Option<MacAddress>,
    /// Prefix information options (3) of a router advertisement; the first eight.
    pub prefixes: ArrayVec<NdpPrefix, 8>,
}

/// The five messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpKind {
    /// Type 133.
    RouterSolicitation,
    /// Type 134.
    RouterAdvertisement {
        /// Hop limit that hosts are to use; 0 is unspecified.
        hop_limit: u8,
        /// M: addresses come by DHCPv6.
        managed: bool,
        /// O: other configuration comes by DHCPv6.
        other: bool,
        /// Seconds the sender is a default router; 0: it is none.
        lifetime_seconds: u16,
    },
    /// Type 135. A source of `::` makes it duplicate address detection (RFC 4862).
    NeighborSolicitation {
        /// The address asked for.
        target: Ipv6Addr,
    },
    /// Type 136.
    NeighborAdvertisement {
        /// The address answered for.
        target: Ipv6Addr,
        /// R: the sender is a router.
        router: bool,
        /// S: it answers a solicitation.
        solicited: bool,
        /// O: it replaces what is cached.
        replaces: bool,
    },
    /// Type 137.
    Redirect {
        /// The better first hop.
        target: Ipv6Addr,
        /// The destination it is for.
        destination: Ipv6Addr,
    },
}

/// A prefix that a router announces (RFC 4861 section 4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdpPrefix {
    /// The prefix.
    pub prefix: Ipv6Net,
    /// L: addresses in it are on the link.
    pub on_link: bool,
    /// A: hosts may form addresses in it.
    pub autonomous: bool,
    /// Seconds it is valid; `u32::MAX` is for ever.
    pub valid_seconds: u32,
    /// Seconds addresses from it are preferred; `u32::MAX` is for ever.
    pub preferred_seconds: u32,
}

/// Reads a Neighbour Discovery message out of an IPv6 packet. None where the packet is another, is a fragment
/// (RFC 6980), is cut, or fails a check of RFC 4861 sections 6.1, 7.1 and 8.1.
pub fn parse(packet: &IpPacket<'_>) -> Option<NdpMessage> {
    let Transport::Icmp { kind, code: 0, rest } = packet.transport else { return None };
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
        return None;
    };
    if packet.protocol != 58 || packet.ttl != 255 || packet.fragment.is_some() {
        return None;
    }
    let body = packet.payload;
    let (kind, options_at) = match kind {
        133 => (NdpKind::RouterSolicitation, 0),
        134 => (router_advertisement(rest), 8),
        135 => (NdpKind::NeighborSolicitation { target: address(body, 0)? }, 16),
        136 => (neighbor_advertisement(rest, address(body, 0)?), 16),
        137 => (NdpKind::Redirect { target: address(body, 0)?, destination: address(body, 16)? }, 32),
        _ => return None,
    };
    let mut message = NdpMessage {
        source,
        destination,
        kind,
        source_mac: None,
        target_mac: None,
        prefixes: ArrayVec::new(),
    };
    let names_source = read_options(body.get(options_at..)?, &mut message)?;
    is_valid(&message, names_source).then_some(message)
}

fn address(data: &[u8], at: usize) -> Option<Ipv6Addr> {
    read::array::<16>(data, at).map(Ipv6Addr::from)
}

fn router_advertisement([hop_limit, flags, high, low]: [u8; 4]) -> NdpKind {
    NdpKind::RouterAdvertisement {
        hop_limit,
        managed: flags & 0x80 != 0,
        other: flags & 0x40 != 0,
        lifetime_seconds: u16::from_be_bytes([high, low]),
    }
}

fn neighbor_advertisement([flags, ..]: [u8; 4], target: Ipv6Addr) -> NdpKind {
    NdpKind::NeighborAdvertisement {
        target,
        router: flags & 0x80 != 0,
        solicited: flags & 0x40 != 0,
        replaces: flags & 0x20 != 0,
    }
}

/// Whether there is a source link-layer address option, of whatever length. None where an option has length 0 or
/// is longer than what is left: then the whole message is void.
fn read_options(options: &[u8], message: &mut NdpMessage) -> Option<bool> {
    let mut names_source = false;
    let mut left = options;
    for _ in 0..MAX_OPTIONS {
        let (&kind, &units) = match left {
            [] => break,
            [kind, units, ..] => (kind, units),
            [_] => return None,
        };
        let (option, behind) = left.split_at_checked(usize::from(units) * 8)?;
        if option.is_empty() {
            return None;
        }
        match kind {
            1 => {
                names_source = true;
                message.source_mac = message.source_mac.or(mac(option));
            }
            2 => message.target_mac = message.target_mac.or(mac(option)),
            3 => {
                // Options beyond the capacity are not an error, they are not kept.
                if let Some(prefix) = prefix(option) {
                    let _ = message.prefixes.try_push(prefix);
                }
            }
            _ => {}
        }
        left = behind;
    }
    Some(names_source)
}

/// A link-layer address of six bytes; those of other links are longer (RFC 4861 section 4.6.1).
fn mac(option: &[u8]) -> Option<MacAddress> {
    read::array(option, 2).map(MacAddress).filter(|_| option.len() == 8)
}

fn prefix(option: &[u8]) -> Option<NdpPrefix> {
    let [length, flags] = read::array(option, 2)?;
    Some(NdpPrefix {
        prefix: Ipv6Net::new(address(option, 16)?, length).ok()?.trunc(),
        on_link: flags & 0x80 != 0,
        autonomous: flags & 0x40 != 0,
        valid_seconds: read::be32(option, 4)?,
        preferred_seconds: read::be32(option, 8)?,
    })
}

fn is_valid(message: &NdpMessage, names_source: bool) -> bool {
    let NdpMessage { source, destination, .. } = message;
    let unspecified = source.is_unspecified();
    match message.kind {
        NdpKind::RouterSolicitation => !(unspecified && names_source),
        NdpKind::RouterAdvertisement { .. } => source.is_unicast_link_local(),
        NdpKind::NeighborSolicitation { target } => {
            let probe_is_sound = !names_source && is_solicited_node(*destination);
            !target.is_multicast() && (!unspecified || probe_is_sound)
        }
        NdpKind::NeighborAdvertisement { target, solicited, .. } => {
            !(target.is_multicast() || solicited && destination.is_multicast())
        }
        NdpKind::Redirect { target, destination: redirected } => {
            let is_router = target.is_unicast_link_local() || target == redirected;
            source.is_unicast_link_local() && !redirected.is_multicast() && is_router
        }
    }
}

/// ff02::1:ff00:0/104, RFC 4291 section 2.7.1.
fn is_solicited_node(address: Ipv6Addr) -> bool {
    address.octets().starts_with(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff])
}

#[cfg(test)]
mod tests {
    use super::super::testing::raw;
    use super::*;

    const HOST: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a];
    const TARGET: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x22, 0x33];
    const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const SOLICITED: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x11, 0x22, 0x33];
    const SOURCE_MAC: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 7];
    const TARGET_MAC: [u8; 8] = [2, 1, 2, 0, 0, 0, 0, 8];

    fn packet(source: [u8; 16], destination: [u8; 16], icmp: &[&[u8]]) -> Vec<u8> {
        let icmp = icmp.concat();
        let header = [0x60, 0, 0, 0, 0, u8::try_from(icmp.len()).unwrap(), 58, 255];
        [&header[..], &source, &destination, &icmp].concat()
    }

    fn read(source: [u8; 16], destination: [u8; 16], icmp: &[&[u8]]) -> Option<NdpMessage> {
        parse(&raw(&packet(source, destination, icmp)))
    }

    #[test]
    fn a_router_advertisement_gives_router_and_prefixes() {
        let prefix =
            [&[3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 7, 8, 0, 0, 0, 0][..], &TARGET[..8], &[9; 8]].concat();
        let head = [134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let message = read(HOST, ALL_NODES, &[&head, &SOURCE_MAC, &prefix]).unwrap();
        let kind = NdpKind::RouterAdvertisement {
            hop_limit: 64,
            managed: true,
            other: true,
            lifetime_seconds: 1800,
        };
        assert_eq!((message.kind, message.source), (kind, Ipv6Addr::from(HOST)));
        assert_eq!(message.source_mac, Some(MacAddress([2, 0, 0, 0, 0, 7])));
        let expected = NdpPrefix {
            prefix: "2001:db8::/64".parse().unwrap(),
            on_link: true,
            autonomous: true,
            valid_seconds: 3600,
            preferred_seconds: 1800,
        };
        assert_eq!(message.prefixes.as_slice(), [expected]);
        assert_eq!(read(TARGET, ALL_NODES, &[&head]), None, "routers send from link-local addresses");
    }

    #[test]
    fn a_solicitation_gives_its_target_and_a_probe_has_no_source() {
        let head = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &TARGET].concat();
        let message = read(HOST, SOLICITED, &[&head, &SOURCE_MAC]).unwrap();
        assert_eq!(message.kind, NdpKind::NeighborSolicitation { target: Ipv6Addr::from(TARGET) });
        let probe = read([0; 16], SOLICITED, &[&head]).unwrap();
        assert!(probe.source.is_unspecified());
        assert_eq!(read([0; 16], SOLICITED, &[&head, &SOURCE_MAC]), None);
        assert_eq!(read([0; 16], ALL_NODES, &[&head]), None);
    }

    #[test]
    fn an_advertisement_gives_its_flags_and_the_station() {
        let head = [&[136, 0, 0, 0, 0xe0, 0, 0, 0][..], &TARGET].concat();
        let message = read(HOST, HOST, &[&head, &TARGET_MAC]).unwrap();
        let target = Ipv6Addr::from(TARGET);
        let kind = NdpKind::NeighborAdvertisement { target, router: true, solicited: true, replaces: true };
        assert_eq!((message.kind, message.target_mac), (kind, Some(MacAddress([2, 0, 0, 0, 0, 8]))));
        assert_eq!(read(HOST, ALL_NODES, &[&head]), None, "an answer goes to who asked");
        let multicast = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &ALL_NODES].concat();
        assert_eq!(read(HOST, HOST, &[&multicast]), None);
    }

    #[test]
    fn a_link_layer_address_that_is_no_mac_address_is_left_out() {
        let head = [&[136, 0, 0, 0, 0xe0, 0, 0, 0][..], &TARGET].concat();
        let eui64 = [2, 2, 2, 0, 0, 0, 0, 8, 9, 10, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(HOST, HOST, &[&head, &eui64]).unwrap().target_mac, None);
    }

    #[test]
    fn solicitations_of_routers_and_redirects_are_read() {
        let head = [133, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(HOST, ALL_NODES, &[&head]).unwrap().kind, NdpKind::RouterSolicitation);
        assert_eq!(read([0; 16], ALL_NODES, &[&head, &SOURCE_MAC]), None);
        let redirect = [&[137, 0, 0, 0, 0, 0, 0, 0][..], &HOST, &TARGET].concat();
        let kind = NdpKind::Redirect { target: HOST.into(), destination: TARGET.into() };
        assert_eq!(read(HOST, TARGET, &[&redirect]).unwrap().kind, kind);
    }

    #[test]
    fn a_message_that_came_over_a_router_or_is_damaged_is_none() {
        let head = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &TARGET].concat();
        let mut routed = packet(HOST, SOLICITED, &[&head]);
        routed[7] = 254;
        assert_eq!(parse(&raw(&routed)), None);
        let mut with_code = packet(HOST, SOLICITED, &[&head]);
        with_code[41] = 1;
        assert_eq!(parse(&raw(&with_code)), None);
        assert_eq!(read(HOST, SOLICITED, &[&head[..23]]), None, "cut in the target");
        assert_eq!(read(HOST, SOLICITED, &[&head, &[1, 0, 0, 0, 0, 0, 0, 0]]), None, "option of length 0");
        assert_eq!(read(HOST, SOLICITED, &[&head, &SOURCE_MAC[..7]]), None, "option that is cut");
    }

    #[test]
    fn a_fragmented_message_is_none() {
        let icmp = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &TARGET].concat();
        let mut bytes = packet(HOST, SOLICITED, &[&[58, 0, 0, 1, 0, 0, 0, 1], &icmp]);
        bytes[6] = 44;
        assert_eq!(parse(&raw(&bytes)), None);
    }
}
