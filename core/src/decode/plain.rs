//! A packet that has the usual headers and nothing else that counts, in a line and a half of cache: what the flow
//! table needs of it, and nothing that points to the capture.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    packet::{InterfaceIndex, IpPacket, Link, LinkDirection, TcpSegment, Transport},
    udp_tunnel,
};
use crate::{ipam, net::MacAddress, time::Timestamp};

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

    /// A packet without anything, to be written over.
    pub(crate) const EMPTY: Self = Self {
        time: Timestamp(0),
        source: [0; 2],
        destination: [0; 2],
        wire_length: 0,
        ip_bytes: 0,
        payload_bytes: 0,
        sequence: 0,
        acknowledgement: 0,
        source_port: 0,
        destination_port: 0,
        window: 0,
        tcp_flags: 0,
        interface: InterfaceIndex(0),
        vlan: 0,
        source_mac: MacAddress([0; 6]),
        destination_mac: MacAddress([0; 6]),
        protocol: 0,
        ttl: 0,
        dscp: 0,
        transport: PlainTransport::Tcp,
        direction: LinkDirection::Unknown,
        is_v6: false,
        is_flawed: false,
    };

    /// Whether its payload may say something by its ports or type: as a tunnel, or of addresses.
    #[inline]
    pub(crate) const fn may_say_more(&self) -> bool {
        let (source, destination) = (self.source_port, self.destination_port);
        match self.transport {
            PlainTransport::Tcp => false,
            PlainTransport::Udp => {
                udp_tunnel::may_open(source, destination)
                    || ipam::may_state_by(self.protocol, source, destination)
            }
            PlainTransport::Icmp => ipam::may_state_by(self.protocol, source, destination),
        }
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

    /// Its IP header, with the captured bytes from it on.
    pub(crate) fn ip_with<'a>(&self, bytes: &'a [u8]) -> IpPacket<'a> {
        let payload = bytes.get(self.ip_bytes.saturating_sub(self.payload_bytes) as usize..);
        let header_bytes = if self.is_v6 { 40 } else { 20 };
        IpPacket { bytes, header_bytes, payload: payload.unwrap_or_default(), ..self.ip() }
    }

    /// Its source.
    pub(crate) fn source_address(&self) -> IpAddr {
        self.address(self.source)
    }

    fn address(&self, [upper, lower]: [u64; 2]) -> IpAddr {
        if self.is_v6 {
            return Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into();
        }
        let [.., a, b, c, d] = lower.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
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
