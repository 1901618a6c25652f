//! Who started a flow. The sender of the first packet, unless the ports say that it is the server whose client was
//! missed; then the sides change before anything is counted, so every counter is where it belongs.

use std::net::IpAddr;

use super::key::End;
use crate::{
    decode::TcpSegment,
    record::{Direction, DirectionReason, Locality},
};

/// Ports that servers use and clients do not, by protocol (IANA service names), in order.
const TCP_SERVERS: &[u16] = &[
    21, 22, 23, 25, 53, 80, 81, 88, 102, 110, 111, 135, 139, 143, 179, 389, 443, 445, 465, 502, 514, 515,
    543, 548, 554, 563, 585, 587, 614, 631, 636, 853, 989, 990, 992, 993, 995, 1080, 1433, 1521, 1723, 1883,
    2049, 2404, 2811, 3128, 3268, 3269, 3306, 3389, 5060, 5061, 5222, 5223, 5269, 5432, 5900, 5985, 5986,
    6379, 6514, 6666, 6667, 6668, 6669, 8000, 8080, 8443, 8883, 8888, 9100, 9200, 20000, 27017, 47808,
];
const UDP_SERVERS: &[u16] = &[
    53, 67, 69, 88, 111, 123, 137, 161, 162, 389, 443, 464, 500, 514, 547, 784, 853, 1194, 1645, 1646, 1812,
    1813, 2049, 2123, 2152, 3478, 3544, 4500, 4789, 5060, 5061, 5072, 5353, 5355, 5683, 6081, 20000, 47808,
];

/// Whether a port is one that servers use.
pub fn is_server_port(protocol: u8, port: u16) -> bool {
    let servers = match protocol {
        6 => TCP_SERVERS,
        17 => UDP_SERVERS,
        _ => &[],
    };
    servers.binary_search(&port).is_ok()
}

/// First judgement, by the first packet: whether its sender is the responder, and why.
pub fn judge(
    protocol: u8,
    source: End,
    destination: End,
    tcp: Option<&TcpSegment>,
) -> (bool, DirectionReason) {
    let server = |end: End| is_server_port(protocol, end.1);
    let syn = tcp.is_some_and(|tcp| tcp.has(TcpSegment::SYN));
    let ack = tcp.is_some_and(|tcp| tcp.has(TcpSegment::ACK));
    if syn && !ack {
        return (false, DirectionReason::Syn);
    }
    if !matches!(protocol, 6 | 17) || is_broadcast(destination.0) || !server(source) {
        return (false, DirectionReason::FirstPacket);
    }
    let flip = match (protocol, server(destination)) {
        (_, false) => true,
        // Both could be servers. A SYN-ACK alone may be a scan; else the lower port is the likelier server.
        (6, true) => !syn && source.1 < destination.1,
        (_, true) => false,
    };
    match (flip, syn) {
        (false, _) => (false, DirectionReason::FirstPacket),
        (true, true) => (true, DirectionReason::SynAck),
        (true, false) => (true, DirectionReason::ServerPort),
    }
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}

/// Way of a flow by where its sides belong.
pub const fn direction(originator: Locality, responder: Locality) -> Direction {
    match (originator, responder) {
        (Locality::Outside, Locality::Inside) => Direction::Inbound,
        (Locality::Inside, Locality::Outside) => Direction::Outbound,
        (Locality::Inside, Locality::Inside) => Direction::Internal,
        (Locality::Outside, Locality::Outside) => Direction::External,
        _ => Direction::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lists_are_in_order_so_that_they_can_be_searched() {
        assert!(TCP_SERVERS.is_sorted() && UDP_SERVERS.is_sorted());
    }

    #[test]
    fn the_first_packet_is_judged_by_flags_and_ports() {
        use DirectionReason::{FirstPacket, ServerPort, Syn, SynAck};
        const SYN: u16 = TcpSegment::SYN;
        const SYN_ACK: u16 = SYN | TcpSegment::ACK;
        const ACK: u16 = TcpSegment::ACK;
        let cases = [
            (6, 443, 50000, SYN, (false, Syn)),
            (6, 50000, 443, ACK, (false, FirstPacket)),
            (6, 443, 50000, ACK, (true, ServerPort)),
            (6, 443, 50000, SYN_ACK, (true, SynAck)),
            (6, 50000, 50001, SYN_ACK, (false, FirstPacket)),
            (6, 80, 443, ACK, (true, ServerPort)),
            (6, 443, 80, ACK, (false, FirstPacket)),
            (6, 80, 443, SYN_ACK, (false, FirstPacket)),
            (17, 53, 50000, 0, (true, ServerPort)),
            (17, 53, 53, 0, (false, FirstPacket)),
            (132, 53, 50000, 0, (false, FirstPacket)),
        ];
        for (protocol, from, to, flags, expected) in cases {
            let header = TcpSegment {
                source: from,
                destination: to,
                sequence: 1,
                acknowledgement: 0,
                flags,
                window: 1,
            };
            let tcp = (protocol == 6).then_some(&header);
            let (a, b) = ("192.0.2.1".parse().expect("a"), "192.0.2.2".parse().expect("b"));
            assert_eq!(
                judge(protocol, (a, from), (b, to), tcp),
                expected,
                "{protocol} {from} {to} {flags:x}"
            );
        }
        let dhcp = ("192.0.2.1".parse().expect("a"), 67);
        let all = ("255.255.255.255".parse().expect("b"), 68);
        assert_eq!(judge(17, dhcp, all, None), (false, FirstPacket));
    }
}
