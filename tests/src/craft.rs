//! Packets made field by field, sound unless told otherwise: what the hostile tests send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 1071: the ones' complement of the ones' complement sum of 16-bit words.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for word in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A length in the two bytes of a header; what does not fit becomes the longest there is.
pub fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// An IP header to be written around a payload.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source; its family decides the version.
    pub source: IpAddr,
    /// Destination, of the same family.
    pub destination: IpAddr,
    /// Protocol, or first next header.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Identification (IPv4; for IPv6 of a fragment header).
    pub identification: u32,
    /// Offset in bytes and whether more follow; none for a whole datagram.
    pub fragment: Option<(u16, bool)>,
    /// Options of IPv4, a multiple of four bytes.
    pub options: Vec<u8>,
}

impl Ip {
    /// A header from one IPv4 address to another.
    pub fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8) -> Self {
        Self::new(Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into(), protocol)
    }

    /// A header from 2001:db8::`source` to 2001:db8::`destination`.
    pub fn v6(source: u16, destination: u16, protocol: u8) -> Self {
        let address = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        Self::new(address(source), address(destination), protocol)
    }

    fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: 64,
            identification: 1,
            fragment: None,
            options: Vec::new(),
        }
    }

    /// The same with another time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The same as a fragment at a byte offset.
    #[must_use]
    pub fn fragment(mut self, identification: u32, offset: u16, more: bool) -> Self {
        self.identification = identification;
        self.fragment = Some((offset, more));
        self
    }

    /// The packet with this payload.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.packet_v4(source.octets(), destination.octets(), payload)
            }
            (source, destination) => self.packet_v6(octets(source), octets(destination), payload),
        }
    }

    fn packet_v4(&self, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let header_length = 20 + self.options.len();
        let [_, _, id0, id1] = self.identification.to_be_bytes();
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let words = ((offset / 8) | u16::from(more) << 13).to_be_bytes();
        let mut header = vec![0x40 | u8::try_from(header_length / 4).unwrap_or(15), 0];
        header.extend(length16(header_length + payload.len()));
        header.extend([id0, id1, words[0], words[1], self.ttl, self.protocol, 0, 0]);
        header.extend([source, destination].concat());
        header.extend(&self.options);
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        [&header[..], payload].concat()
    }

    fn packet_v6(&self, source: [u8; 16], destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let mut extension = Vec::new();
        if let Some((offset, more)) = self.fragment {
            extension.extend([self.protocol, 0]);
            extension.extend((offset & !7 | u16::from(more)).to_be_bytes());
            extension.extend(self.identification.to_be_bytes());
        }
        let next = if extension.is_empty() { self.protocol } else { 44 };
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length16(extension.len() + payload.len()));
        packet.extend([next, self.ttl]);
        packet.extend([source, destination].concat());
        packet.extend(extension);
        packet.extend(payload);
        packet
    }

    /// Writes the transport checksum at `at` of a segment, which is a whole datagram.
    fn sum(&self, mut segment: Vec<u8>, at: usize, protocol: u8) -> Vec<u8> {
        let length = u32::try_from(segment.len()).unwrap_or(u32::MAX).to_be_bytes();
        let ends = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (source, destination) => [octets(source), octets(destination)].concat(),
        };
        let sum = match checksum(&[&ends, &length, &[0, protocol], &segment]) {
            0 if protocol == 17 => u16::MAX,
            sum => sum,
        };
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    /// A UDP datagram between these ends.
    pub fn udp(&self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram =
            [source.to_be_bytes(), destination.to_be_bytes(), length16(8 + payload.len()), [0; 2]].concat();
        datagram.extend(payload);
        self.sum(datagram, 6, 17)
    }

    /// A TCP segment between these ends.
    pub fn tcp(&self, segment: &Tcp<'_>) -> Vec<u8> {
        let mut bytes = [segment.source.to_be_bytes(), segment.destination.to_be_bytes()].concat();
        bytes.extend(segment.sequence.to_be_bytes());
        bytes.extend(segment.acknowledgement.to_be_bytes());
        let words = u8::try_from(5 + segment.options.len() / 4).unwrap_or(15);
        bytes.extend([words << 4, segment.flags]);
        bytes.extend(segment.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(segment.urgent.to_be_bytes());
        bytes.extend(segment.options);
        bytes.extend(segment.payload);
        self.sum(bytes, 16, 6)
    }

    /// An ICMP or ICMPv6 message: type, code, the four bytes behind the checksum, and the rest.
    pub fn icmp(&self, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest);
        message.extend(payload);
        if self.source.is_ipv4() {
            let sum = checksum(&[&message]).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
            message
        } else {
            self.sum(message, 2, 58)
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A TCP segment. `Tcp::default()` is an empty one without flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp<'a> {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// The eight flags, FIN lowest.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, a multiple of four bytes.
    pub options: &'a [u8],
    /// Data.
    pub payload: &'a [u8],
}

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// PSH.
pub const PSH: u8 = 8;
/// ACK.
pub const ACK: u8 = 16;
/// URG.
pub const URG: u8 = 32;

/// An Ethernet frame between two stations of the sort 02:00:00:00:00:nn.
pub fn frame(source: u8, destination: u8, vlans: &[u16], payload: &[u8]) -> Vec<u8> {
    let ether_type: [u8; 2] = match payload.first().map(|byte| byte >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    frame_of(source, destination, vlans, ether_type, payload)
}

/// An Ethernet frame of any ethertype.
pub fn frame_of(source: u8, destination: u8, vlans: &[u16], ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, destination, 2, 0, 0, 0, 0, source];
    for vlan in vlans {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ether_type);
    frame.extend(payload);
    frame
}

/// An ARP frame (RFC 826).
pub fn arp(operation: u8, sender: (u8, [u8; 4]), target: (u8, [u8; 4])) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, sender.0];
    body.extend(sender.1);
    body.extend([2, 0, 0, 0, 0, target.0]);
    body.extend(target.1);
    frame_of(sender.0, target.0, &[], [0x08, 0x06], &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_checksums_of_another_builder() {
        let ip = Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 6);
        let segment = Tcp {
            source: 1025,
            destination: 80,
            sequence: 7,
            flags: SYN,
            window: 1024,
            payload: b"odd",
            ..Tcp::default()
        };
        let mine = ip.packet(&ip.tcp(&segment));
        let builder =
            etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1025, 80, 7, 1024).syn();
        let mut theirs = Vec::new();
        builder.write(&mut theirs, b"odd").expect("a packet");
        assert_eq!(mine[20..], theirs[20..]);
        assert_eq!(checksum(&[&mine[..20]]), 0);
        let ip = Ip::v6(1, 2, 17);
        let builder =
            etherparse::PacketBuilder::ipv6(octets(ip.source), octets(ip.destination), 64).udp(53, 5353);
        let mut theirs = Vec::new();
        builder.write(&mut theirs, b"name").expect("a packet");
        assert_eq!(ip.packet(&ip.udp(53, 5353, b"name")), theirs);
    }
}
