//! A frame as the generator thinks of it, and its bytes. Frames are kept as this description until they are
//! written, because the bytes of a whole day would not fit beside each other in memory.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::{Context, Result};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpDscp, IpFragOffset, IpNumber,
    Ipv4Header, Ipv6FragmentHeader, Ipv6Header, SingleVlanHeader, TcpHeader, TcpOptionElement, UdpHeader,
    VlanId, VlanPcp, checksum::Sum16BitWords,
};
use onenet_core::net::MacAddress;

/// Shortest Ethernet frame without its check sequence.
const SHORTEST: usize = 60;

/// One frame on a link.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Source MAC address.
    pub(super) source: MacAddress,
    /// Destination MAC address.
    pub(super) destination: MacAddress,
    /// 802.1Q tag.
    pub(super) vlan: Option<u16>,
    /// What it carries.
    pub(super) content: Content,
}

/// What a frame carries.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// IPv4 or IPv6, by its addresses.
    Ip(Packet),
}

/// An ARP message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arp {
    /// Reply, or else request.
    pub(super) reply: bool,
    /// Sender's MAC and IP address.
    pub(super) sender: (MacAddress, Ipv4Addr),
    /// Target's MAC (zero where it is asked for) and IP address.
    pub(super) target: (MacAddress, Ipv4Addr),
}

/// An IP packet.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// Source address.
    pub(super) source: IpAddr,
    /// Destination address, of the same family.
    pub(super) destination: IpAddr,
    /// Time to live or hop limit.
    pub(super) ttl: u8,
    /// DSCP.
    pub(super) dscp: u8,
    /// Identification; its low 16 bits in IPv4, in IPv6 only where it is a fragment.
    pub(super) identification: u32,
    /// What it carries.
    pub(super) body: Body,
}

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Its data.
        payload: Arc<[u8]>,
    },
    /// A whole ICMP or ICMPv6 message; its checksum is filled in. For echo, octets 4 and 5 are the identifier.
    Icmp(Arc<[u8]>),
    /// A part of a UDP datagram that was too long for one packet.
    Fragment {
        /// Offset in octets, a multiple of eight.
        offset: u16,
        /// Whether more follow.
        more: bool,
        /// This part of header and data.
        part: Arc<[u8]>,
    },
    /// Another protocol: number and octets.
    Other(u8, Arc<[u8]>),
}

/// A TCP segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Source port.
    pub(super) source: u16,
    /// Destination port.
    pub(super) destination: u16,
    /// Sequence number.
    pub(super) sequence: u32,
    /// Acknowledgement number.
    pub(super) acknowledgement: u32,
    /// Flags as in the header's octet 13.
    pub(super) flags: u8,
    /// Window, not scaled.
    pub(super) window: u16,
    /// Maximum segment size, on SYN.
    pub(super) mss: u16,
    /// What tells one kind of host's segments from another's.
    pub(super) look: Look,
    /// Its data.
    pub(super) payload: Payload,
}

/// What a host's TCP implementation shows in its segments beside what TCP needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// The header's options as they are written; where none are given a SYN has those of a present-day desktop.
    pub(super) options: Option<Arc<[u8]>>,
    /// Whether routers may fragment the packet; IPv4 only.
    pub(super) fragmentable: bool,
}

/// FIN flag.
pub(super) const FIN: u8 = 0x01;
/// SYN flag.
pub(super) const SYN: u8 = 0x02;
/// RST flag.
pub(super) const RST: u8 = 0x04;
/// PSH flag.
pub(super) const PSH: u8 = 0x08;
/// ACK flag.
pub(super) const ACK: u8 = 0x10;

/// Data of a segment.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// None.
    Empty,
    /// These octets.
    Octets(Arc<[u8]>),
    /// `length` octets from `offset` on of a body that is made up when it is written.
    Made(MadeBody, u32, u16),
}

/// A body whose octets follow from a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct MadeBody {
    /// TLS application data: record headers stand in the stream.
    pub(super) tls: bool,
    /// What the octets follow from.
    pub(super) key: u32,
    /// Length of the whole body, record headers included.
    pub(super) length: u32,
}

/// Most octets in one TLS record here, its header included.
const TLS_RECORD: u32 = 16_389;

impl Payload {
    /// Length in octets.
    pub(super) fn len(&self) -> u16 {
        match self {
            Self::Empty => 0,
            Self::Octets(octets) => u16::try_from(octets.len()).unwrap_or(u16::MAX),
            Self::Made(_, _, length) => *length,
        }
    }

    fn append(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Octets(octets) => out.extend_from_slice(octets),
            Self::Made(body, offset, length) => {
                out.extend((*offset..*offset + u32::from(*length)).map(|at| body.octet(at)));
            }
        }
    }
}

impl MadeBody {
    fn octet(&self, at: u32) -> u8 {
        let within = at % TLS_RECORD;
        if self.tls && within < 5 {
            let record = (self.length - (at - within)).min(TLS_RECORD).saturating_sub(5);
            let [_, _, high, low] = record.to_be_bytes();
            return [0x17, 3, 3, high, low][within as usize];
        }
        let mixed = (at ^ self.key).wrapping_mul(0x9e37_79b1).rotate_left(at & 15);
        let octet = mixed.to_be_bytes()[0];
        if self.tls { octet } else { b' ' + octet % 90 }
    }
}

/// Appends the bytes of `frame` to `out`.
pub(super) fn render(frame: &Frame, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let ether_type = match &frame.content {
        Content::Arp(_) => EtherType::ARP,
        Content::Ip(packet) if packet.source.is_ipv4() => EtherType::IPV4,
        Content::Ip(_) => EtherType::IPV6,
    };
    let link = Ethernet2Header {
        source: frame.source.0,
        destination: frame.destination.0,
        ether_type: if frame.vlan.is_some() { EtherType::VLAN_TAGGED_FRAME } else { ether_type },
    };
    link.write(out)?;
    if let Some(vlan) = frame.vlan {
        let tag = SingleVlanHeader {
            pcp: VlanPcp::ZERO,
            drop_eligible_indicator: false,
            vlan_id: VlanId::try_new(vlan)?,
            ether_type,
        };
        tag.write(out)?;
    }
    match &frame.content {
        Content::Arp(arp) => render_arp(arp, out)?,
        Content::Ip(packet) => render_ip(packet, out)?,
    }
    out.resize(out.len().max(start + SHORTEST), 0);
    Ok(())
}

fn render_arp(arp: &Arp, out: &mut Vec<u8>) -> Result<()> {
    let operation = if arp.reply { ArpOperation::REPLY } else { ArpOperation::REQUEST };
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &arp.sender.0.0,
        &arp.sender.1.octets(),
        &arp.target.0.0,
        &arp.target.1.octets(),
    )?;
    Ok(packet.write(out)?)
}

/// Appends the bytes of an IP packet to `out`.
pub(super) fn render_ip(packet: &Packet, out: &mut Vec<u8>) -> Result<()> {
    let mut body = Vec::new();
    let protocol = render_body(packet, &mut body)?;
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header::new(
                u16::try_from(body.len()).context("a body longer than an IPv4 packet")?,
                packet.ttl,
                protocol,
                source.octets(),
                destination.octets(),
            )?;
            header.dscp = IpDscp::try_new(packet.dscp)?;
            let [_, _, high, low] = packet.identification.to_be_bytes();
            header.identification = u16::from_be_bytes([high, low]);
            header.dont_fragment = matches!(&packet.body, Body::Tcp(segment) if !segment.look.fragmentable);
            if let Body::Fragment { offset, more, .. } = packet.body {
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new(offset / 8)?;
            }
            header.header_checksum = header.calc_header_checksum();
            header.write(out)?;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let fragment = match packet.body {
                Body::Fragment { offset, more, .. } => Some(Ipv6FragmentHeader::new(
                    protocol,
                    IpFragOffset::try_new(offset / 8)?,
                    more,
                    packet.identification,
                )),
                _ => None,
            };
            let length = body.len() + if fragment.is_some() { Ipv6FragmentHeader::LEN } else { 0 };
            let header = Ipv6Header {
                traffic_class: packet.dscp << 2,
                flow_label: etherparse::Ipv6FlowLabel::ZERO,
                payload_length: u16::try_from(length).context("a body longer than an IPv6 packet")?,
                next_header: if fragment.is_some() { IpNumber::IPV6_FRAGMENTATION_HEADER } else { protocol },
                hop_limit: packet.ttl,
                source: source.octets(),
                destination: destination.octets(),
            };
            header.write(out)?;
            if let Some(fragment) = fragment {
                fragment.write(out)?;
            }
        }
        _ => anyhow::bail!("{} and {} are of two families", packet.source, packet.destination),
    }
    out.extend_from_slice(&body);
    Ok(())
}

fn render_body(packet: &Packet, out: &mut Vec<u8>) -> Result<IpNumber> {
    let ends = (packet.source, packet.destination);
    Ok(match &packet.body {
        Body::Tcp(segment) => {
            render_tcp(segment, ends, out)?;
            IpNumber::TCP
        }
        Body::Udp { source, destination, payload } => {
            udp_datagram(ends, (*source, *destination), payload, out)?;
            IpNumber::UDP
        }
        Body::Icmp(message) => {
            out.extend_from_slice(message);
            let sum = match ends {
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    pseudo_header(source, destination, message.len())?
                }
                _ => Sum16BitWords::new(),
            };
            let sum = sum.add_slice(message).ones_complement();
            // The sum is in network order in memory, whatever the machine's own order.
            out.get_mut(2..4)
                .context("an ICMP message without a checksum")?
                .copy_from_slice(&sum.to_ne_bytes());
            if ends.0.is_ipv6() { IpNumber::IPV6_ICMP } else { IpNumber::ICMP }
        }
        Body::Fragment { part, .. } => {
            out.extend_from_slice(part);
            IpNumber::UDP
        }
        Body::Other(protocol, octets) => {
            out.extend_from_slice(octets);
            IpNumber(*protocol)
        }
    })
}

fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, length: usize) -> Result<Sum16BitWords> {
    let length = u32::try_from(length)?.to_be_bytes();
    let next_header = [0, 0, 0, IpNumber::IPV6_ICMP.0];
    Ok(Sum16BitWords::new()
        .add_16bytes(source.octets())
        .add_16bytes(destination.octets())
        .add_4bytes(length)
        .add_4bytes(next_header))
}

fn render_tcp(segment: &Segment, ends: (IpAddr, IpAddr), out: &mut Vec<u8>) -> Result<()> {
    let mut header = TcpHeader::new(segment.source, segment.destination, segment.sequence, segment.window);
    header.acknowledgment_number = segment.acknowledgement;
    header.fin = segment.flags & FIN != 0;
    header.syn = segment.flags & SYN != 0;
    header.rst = segment.flags & RST != 0;
    header.psh = segment.flags & PSH != 0;
    header.ack = segment.flags & ACK != 0;
    if let Some(options) = &segment.look.options {
        header.set_options_raw(options)?;
    } else if header.syn {
        header.set_options(&[
            TcpOptionElement::MaximumSegmentSize(segment.mss),
            TcpOptionElement::Noop,
            TcpOptionElement::WindowScale(8),
            TcpOptionElement::Noop,
            TcpOptionElement::Noop,
            TcpOptionElement::SelectiveAcknowledgementPermitted,
        ])?;
    }
    let mut payload = Vec::with_capacity(usize::from(segment.payload.len()));
    segment.payload.append(&mut payload);
    header.checksum = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &payload)?
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &payload)?
        }
        _ => anyhow::bail!("{} and {} are of two families", ends.0, ends.1),
    };
    header.write(out)?;
    out.extend_from_slice(&payload);
    Ok(())
}

/// Appends a UDP header and its data to `out`.
pub(super) fn udp_datagram(
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut header = UdpHeader {
        source_port: ports.0,
        destination_port: ports.1,
        length: u16::try_from(UdpHeader::LEN + payload.len()).context("a datagram longer than UDP's")?,
        checksum: 0,
    };
    header.checksum = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), payload)?
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), payload)?
        }
        _ => anyhow::bail!("{} and {} are of two families", ends.0, ends.1),
    };
    header.write(out)?;
    out.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_has_the_bytes_of_the_specifications() {
        let packet = Packet {
            source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            destination: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
            ttl: 64,
            dscp: 0,
            identification: 1,
            body: Body::Icmp(Arc::from([8, 0, 0, 0, 0, 1, 0, 1])),
        };
        let frame = Frame {
            source: MacAddress([2, 0, 0, 0, 0, 1]),
            destination: MacAddress([2, 0, 0, 0, 0, 2]),
            vlan: Some(110),
            content: Content::Ip(packet),
        };
        let mut bytes = Vec::new();
        render(&frame, &mut bytes).expect("a frame");
        assert_eq!(bytes.len(), SHORTEST);
        let link = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 110, 8, 0];
        assert_eq!(bytes[..18], link);
        // 0x66de: sum of the words 4500 001c 0001 4001 0a00 0001 0a00 0002, complemented (RFC 1071).
        let network = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xde, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(bytes[18..38], network);
        assert_eq!(bytes[38..46], [8, 0, 0xf7, 0xfd, 0, 1, 0, 1]);
    }

    #[test]
    fn a_stack_that_is_given_shows_in_options_and_header() {
        let ends = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        let bytes_of = |look: Look| {
            let segment = Segment {
                source: 1,
                destination: 2,
                sequence: 0,
                acknowledgement: 0,
                flags: SYN,
                window: 4128,
                mss: 1460,
                look,
                payload: Payload::Empty,
            };
            let [source, destination] = ends;
            let body = Body::Tcp(segment);
            let packet = Packet { source, destination, ttl: 255, dscp: 0, identification: 7, body };
            let mut bytes = Vec::new();
            render_ip(&packet, &mut bytes).expect("a packet");
            bytes
        };
        let usual = bytes_of(Look::default());
        assert_eq!((usual.len(), usual[6]), (52, 0x40));
        let options: Arc<[u8]> = Arc::from([2, 4, 2, 24]);
        let given = bytes_of(Look { options: Some(options.clone()), fragmentable: true });
        assert_eq!((given[6], given[32] >> 4, &given[40..]), (0, 6, &*options));
    }

    #[test]
    fn a_made_body_is_whole_tls_records() {
        let body = MadeBody { tls: true, key: 9, length: TLS_RECORD + 105 };
        let record = |at| [0, 1, 2, 3, 4].map(|offset| body.octet(at + offset));
        assert_eq!(record(0), [0x17, 3, 3, 0x40, 0]);
        assert_eq!(record(TLS_RECORD), [0x17, 3, 3, 0, 100]);
    }
}
