//! Bytes of a packet of load: Ethernet, perhaps an 802.1Q tag, IPv4 or IPv6, then TCP, UDP or ICMP echo, with right
//! lengths and checksums.

use etherparse::checksum::Sum16BitWords;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Shortest Ethernet frame without its check sequence.
const SHORTEST: usize = 60;

/// TCP flags (RFC 9293, 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// The two ends of a flow. In IPv6 the addresses are the last four octets of a fixed prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) v6: bool,
    pub(super) client: u32,
    pub(super) server: u32,
    pub(super) client_port: u16,
    pub(super) server_port: u16,
    pub(super) vlan: Option<u16>,
}

/// One packet of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) from_client: bool,
    pub(super) body: Body,
    /// Octets behind the transport header.
    pub(super) payload: u16,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// With the timestamp option (RFC 7323) where `stamp` is not zero.
    Tcp {
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        stamp: u32,
    },
    Udp,
    /// Request from the client, reply from the server; the identifier is the client's port.
    Echo(u16),
}

impl Ends {
    /// Protocol number of a body between these ends.
    pub(super) fn protocol(&self, body: &Body) -> u8 {
        match body {
            Body::Tcp { .. } => TCP,
            Body::Udp => UDP,
            Body::Echo(_) if self.v6 => ICMP6,
            Body::Echo(_) => ICMP,
        }
    }
}

/// Writes the frame into `out`, which it clears first; tells the octets of its IP packet. `filler` is what payloads
/// are made of, from the place `from` on.
pub(super) fn render(ends: &Ends, packet: &Packet, mark: u16, filler: &[u8], out: &mut Vec<u8>) -> u32 {
    out.clear();
    let client = mac(0, ends.client);
    let router = mac(1, 0x0101_0101);
    let (from, to) = if packet.from_client { (client, router) } else { (router, client) };
    out.extend_from_slice(&to);
    out.extend_from_slice(&from);
    if let Some(vlan) = ends.vlan {
        out.extend_from_slice(&0x8100_u16.to_be_bytes());
        out.extend_from_slice(&vlan.to_be_bytes());
    }
    let protocol = ends.protocol(&packet.body);
    let transport = match packet.body {
        Body::Tcp { stamp: 0, .. } => 20,
        Body::Tcp { .. } => 32,
        Body::Udp | Body::Echo(_) => 8,
    } + packet.payload;
    let pseudo = if ends.v6 {
        ip6(ends, packet.from_client, protocol, transport, out)
    } else {
        ip4(ends, packet.from_client, protocol, transport, mark, out)
    };
    let header = out.len();
    let checksum_at = header
        + match packet.body {
            Body::Tcp { .. } => 16,
            Body::Udp => 6,
            Body::Echo(_) => 2,
        };
    transport_header(ends, packet, transport, out);
    let start = usize::from(mark) % (filler.len() - usize::from(u16::MAX));
    out.extend_from_slice(&filler[start..start + usize::from(packet.payload)]);
    // ICMP for IPv4 has no pseudo header.
    let pseudo = if protocol == ICMP { Sum16BitWords::new() } else { pseudo };
    // The sum is over words in the machine's own order, and so is what comes of it (RFC 1071, 2 (B)).
    let sum = pseudo.add_slice(&out[header..]).ones_complement();
    let sum = if sum == 0 && protocol == UDP { u16::MAX } else { sum };
    out[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_ne_bytes());
    if out.len() < SHORTEST {
        out.resize(SHORTEST, 0);
    }
    u32::from(transport) + if ends.v6 { 40 } else { 20 }
}

fn transport_header(ends: &Ends, packet: &Packet, length: u16, out: &mut Vec<u8>) {
    let (source, destination) = if packet.from_client {
        (ends.client_port, ends.server_port)
    } else {
        (ends.server_port, ends.client_port)
    };
    match packet.body {
        Body::Tcp { flags, sequence, acknowledgement, stamp } => {
            out.extend_from_slice(&source.to_be_bytes());
            out.extend_from_slice(&destination.to_be_bytes());
            out.extend_from_slice(&sequence.to_be_bytes());
            out.extend_from_slice(&acknowledgement.to_be_bytes());
            out.extend_from_slice(&[if stamp == 0 { 0x50 } else { 0x80 }, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
            if stamp != 0 {
                out.extend_from_slice(&[1, 1, 8, 10]);
                out.extend_from_slice(&stamp.to_be_bytes());
                out.extend_from_slice(&[0; 4]);
            }
        }
        Body::Udp => {
            for field in [source, destination, length, 0] {
                out.extend_from_slice(&field.to_be_bytes());
            }
        }
        Body::Echo(sequence) => {
            let kind = match (ends.v6, packet.from_client) {
                (false, true) => 8,
                (false, false) => 0,
                (true, true) => 128,
                (true, false) => 129,
            };
            out.extend_from_slice(&[kind, 0, 0, 0]);
            out.extend_from_slice(&ends.client_port.to_be_bytes());
            out.extend_from_slice(&sequence.to_be_bytes());
        }
    }
}

/// Writes the IPv4 header; tells the sum over the pseudo header (RFC 9293, 3.1).
fn ip4(
    ends: &Ends,
    from_client: bool,
    protocol: u8,
    transport: u16,
    mark: u16,
    out: &mut Vec<u8>,
) -> Sum16BitWords {
    let (client, server) = (ends.client.to_be_bytes(), ends.server.to_be_bytes());
    let (source, destination) = if from_client { (client, server) } else { (server, client) };
    out.extend_from_slice(&0x0800_u16.to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&[0x45, 0]);
    out.extend_from_slice(&(20 + transport).to_be_bytes());
    out.extend_from_slice(&mark.to_be_bytes());
    out.extend_from_slice(&[0x40, 0, if from_client { 63 } else { 55 }, protocol, 0, 0]);
    out.extend_from_slice(&source);
    out.extend_from_slice(&destination);
    let sum = Sum16BitWords::new().add_slice(&out[start..]).ones_complement();
    out[start + 10..start + 12].copy_from_slice(&sum.to_ne_bytes());
    let mut pseudo = Sum16BitWords::new();
    pseudo = pseudo.add_4bytes(source).add_4bytes(destination);
    pseudo.add_2bytes([0, protocol]).add_2bytes(transport.to_be_bytes())
}

/// Writes the IPv6 header; tells the sum over the pseudo header (RFC 8200, 8.1).
fn ip6(ends: &Ends, from_client: bool, protocol: u8, transport: u16, out: &mut Vec<u8>) -> Sum16BitWords {
    let end = |prefix: [u8; 4], host: u32| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&prefix);
        address[12..].copy_from_slice(&host.to_be_bytes());
        address
    };
    let (client, server) = (end([0xfd, 0, 0, 1], ends.client), end([0x26, 0x06, 0x47, 0], ends.server));
    let (source, destination) = if from_client { (client, server) } else { (server, client) };
    out.extend_from_slice(&0x86dd_u16.to_be_bytes());
    out.extend_from_slice(&[0x60, 0, 0, 0]);
    out.extend_from_slice(&transport.to_be_bytes());
    out.extend_from_slice(&[protocol, if from_client { 63 } else { 55 }]);
    out.extend_from_slice(&source);
    out.extend_from_slice(&destination);
    let mut pseudo = Sum16BitWords::new();
    pseudo = pseudo.add_16bytes(source).add_16bytes(destination);
    pseudo.add_2bytes([0, protocol]).add_2bytes(transport.to_be_bytes())
}

fn mac(kind: u8, host: u32) -> [u8; 6] {
    let [a, b, c, d] = host.to_be_bytes();
    [2, kind, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(v6: bool, vlan: Option<u16>) -> Ends {
        Ends { v6, client: 0x0a01_0203, server: 0x2d0a_0b0c, client_port: 40_000, server_port: 443, vlan }
    }

    #[test]
    fn every_kind_of_packet_is_one_that_another_decoder_takes_whole() {
        let filler = vec![0x5a; 1 << 17];
        let tcp = |stamp| Body::Tcp { flags: SYN, sequence: 7, acknowledgement: 0, stamp };
        for (v6, vlan) in [(false, None), (true, None), (false, Some(7)), (true, Some(4000))] {
            for body in [tcp(0), tcp(9), Body::Udp, Body::Echo(3)] {
                for (from_client, payload) in [(true, 0), (false, 1), (true, 1400)] {
                    let mut frame = Vec::new();
                    let packet = Packet { from_client, body, payload };
                    let ip_bytes = render(&ends(v6, vlan), &packet, 77, &filler, &mut frame);
                    let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).expect("a packet");
                    let net = parsed.net.expect("a network header");
                    let transport = parsed.transport.expect("a transport header");
                    let rest = parsed.payload.slice();
                    assert_eq!(rest.len(), usize::from(payload), "{packet:?}");
                    let headers = net.header_len() + transport.header_len();
                    assert_eq!(headers + rest.len(), ip_bytes as usize, "{packet:?}");
                    let mut again = transport.clone();
                    match net {
                        etherparse::NetHeaders::Ipv4(ip, _) => {
                            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                            again.update_checksum_ipv4(&ip, rest).expect("a checksum");
                        }
                        etherparse::NetHeaders::Ipv6(ip, _) => {
                            again.update_checksum_ipv6(&ip, rest).expect("a checksum");
                        }
                        etherparse::NetHeaders::Arp(_) => panic!("no ARP was written"),
                    }
                    assert_eq!(again, transport, "{packet:?}");
                }
            }
        }
    }
}
