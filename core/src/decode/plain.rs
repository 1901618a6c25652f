//! A packet that has the usual headers and nothing else that counts, in a line and a half of cache: what the flow
//! table needs of it, and nothing that points to the capture.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{CapturedPacket, InterfaceIndex, IpPacket, Link, LinkDirection, TcpSegment, Transport};
use crate::{net::MacAddress, time::Timestamp};

/// The transport headers that a plain packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainTransport {
    /// TCP, its header captured at least up to the window.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6: type and code stand in place of the ports, the rest of the header in that of the sequence
    /// number.
    Icmp,
}

/// The packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) time: Timestamp,
    /// Source and destination in words, as the keys of flows have them: IPv4 in the low half of the second.
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
    pub(crate) wire_length: u32,
    pub(crate) ip_bytes: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) window: u16,
    pub(crate) tcp_flags: u16,
    pub(crate) interface: InterfaceIndex,
    /// VLAN id, and [`Self::TAGGED`] where there is one.
    pub(crate) vlan: u16,
    pub(crate) source_mac: MacAddress,
    pub(crate) destination_mac: MacAddress,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) dscp: u8,
    pub(crate) transport: PlainTransport,
    pub(crate) direction: LinkDirection,
    pub(crate) is_v6: bool,
    /// A checksum is wrong, and the packet counts all the same.
    pub(crate) is_flawed: bool,
}

impl Plain {
    /// Bit of [`Self::vlan`]: the packet has a VLAN tag.
    pub(crate) const TAGGED: u16 = 0x8000;

    /// The packet of these headers, if they are plain: counted exactly, with a transport header that was captured.
    pub(crate) fn of(packet: &CapturedPacket<'_>, link: &Link, ip: &IpPacket<'_>) -> Option<Self> {
        if ip.estimated || ip.fragment.is_some() || !link.mpls_labels.is_empty() || link.vlans.len() > 1 {
            return None;
        }
        let mut plain = Self {
            time: packet.time,
            source: words(ip.source),
            destination: words(ip.destination),
            wire_length: packet.wire_length,
            ip_bytes: ip.ip_bytes,
            payload_bytes: ip.payload_bytes,
            sequence: 0,
            acknowledgement: 0,
            source_port: 0,
            destination_port: 0,
            window: 0,
            tcp_flags: 0,
            interface: packet.interface,
            vlan: link.vlans.first().map_or(0, |vlan| vlan | Self::TAGGED),
            source_mac: link.source_mac?,
            destination_mac: link.destination_mac?,
            protocol: ip.protocol,
            ttl: ip.ttl,
            dscp: ip.dscp,
            transport: PlainTransport::Udp,
            direction: link.direction,
            is_v6: ip.source.is_ipv6(),
            is_flawed: false,
        };
        match ip.transport {
            Transport::Tcp(segment) => {
                plain.transport = PlainTransport::Tcp;
                (plain.source_port, plain.destination_port) = (segment.source, segment.destination);
                (plain.sequence, plain.acknowledgement) = (segment.sequence, segment.acknowledgement);
                (plain.tcp_flags, plain.window) = (segment.flags, segment.window);
            }
            Transport::Ports { source, destination } if ip.protocol == 17 => {
                (plain.source_port, plain.destination_port) = (source, destination);
            }
            Transport::Icmp { kind, code, rest } => {
                plain.transport = PlainTransport::Icmp;
                (plain.source_port, plain.destination_port) = (kind.into(), code.into());
                plain.sequence = u32::from_be_bytes(rest);
            }
            Transport::Ports { .. } | Transport::None => return None,
        }
        Some(plain)
    }

    /// Its link header.
    pub(crate) fn link(&self) -> Link {
        let tagged = self.vlan & Self::TAGGED != 0;
        Link {
            source_mac: Some(self.source_mac),
            destination_mac: Some(self.destination_mac),
            vlans: tagged.then_some(self.vlan & !Self::TAGGED).into_iter().collect(),
            direction: self.direction,
            ..Link::default()
        }
    }

    /// Its TCP header.
    pub(crate) const fn segment(&self) -> TcpSegment {
        TcpSegment {
            source: self.source_port,
            destination: self.destination_port,
            sequence: self.sequence,
            acknowledgement: self.acknowledgement,
            flags: self.tcp_flags,
            window: self.window,
        }
    }

    /// Its IP header, without the payload.
    pub(crate) fn ip(&self) -> IpPacket<'static> {
        let (source, destination) = (self.source_port, self.destination_port);
        let transport = match self.transport {
            PlainTransport::Tcp => Transport::Tcp(self.segment()),
            PlainTransport::Udp => Transport::Ports { source, destination },
            PlainTransport::Icmp => {
                let [[_, kind], [_, code]] = [source.to_be_bytes(), destination.to_be_bytes()];
                Transport::Icmp { kind, code, rest: self.sequence.to_be_bytes() }
            }
        };
        IpPacket {
            source: self.address(self.source),
            destination: self.address(self.destination),
            protocol: self.protocol,
            ttl: self.ttl,
            dscp: self.dscp,
            ip_bytes: self.ip_bytes,
            payload_bytes: self.payload_bytes,
            estimated: false,
            fragment: None,
            transport,
            bytes: &[],
            header_bytes: 0,
            payload: &[],
        }
    }

    fn address(&self, [upper, lower]: [u64; 2]) -> IpAddr {
        if self.is_v6 {
            return Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into();
        }
        let [.., a, b, c, d] = lower.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
    }
}

fn words(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(v4) => [0, u64::from(v4.to_bits())],
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, low @ ..] = v6.octets();
            [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(low)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_packet_is_a_line_and_a_half_of_cache() {
        assert!(size_of::<Plain>() <= 96, "{}", size_of::<Plain>());
    }
}
