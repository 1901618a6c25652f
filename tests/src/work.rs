//! What one packet can cost: an ordinary packet, and packets crafted to cost as much as they can. `onenet-work` feeds
//! them to a sensor one sort after another, and a test counts the instructions.

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType},
    flow::FlowConfig,
    record::{FindingChange, FlowRecord, Observation, RecordSink},
    sensor::{Sensor, SensorConfig},
    time::Timestamp,
};

use crate::craft::{ACK, Ip, PSH, SYN, Tcp, arp, frame, frame_of, length16};

/// Packets of each sort that are counted, after as many that are not.
pub const PACKETS: u32 = 250;

/// Flows at most: few, so that tables are full when counting begins.
const MAX_FLOWS: u32 = 200;

/// A sort of packets: its name, and the frame and the nanoseconds since the one before, by number.
pub type Sort = (&'static str, fn(u32) -> (i64, Vec<u8>));

/// The packet that all others are measured against: a segment with data of a connection that lives, which is what
/// most packets are.
pub const ORDINARY: &str = "TCP segment of 1460 bytes in a known flow";

/// Every sort, the ordinary one first.
pub const SORTS: [Sort; 25] = [
    (ORDINARY, |n| (1000, data(n, &[7; 1460]))),
    ("TCP acknowledgement in a known flow", |n| (1000, data(n, &[]))),
    ("TCP with 40 bytes of options", |_| (1000, options())),
    ("TCP segments with a hole before each", |n| (1000, data(n * 4, &[7; 100]))),
    ("TCP SYN of a new flow each, table full", |n| (1000, syn(n))),
    ("UDP of a new flow each, table full", |n| (1000, new_flow(n))),
    ("UDP of a new flow each, a day apart", |n| (86_400_000_000_000, new_flow(n))),
    ("time that runs back and forth", |n| {
        (if n % 2 == 0 { 3_600_000_000_000 } else { -3_600_000_000_000 }, data(n, &[]))
    }),
    ("another MAC address each", |n| (1000, other_mac(n))),
    ("ARP of another station each", |n| (1000, storm(n))),
    ("three VLAN tags", |_| (1000, frame(1, 2, &[10, 20, 30], &udp(53, b"x")))),
    ("MPLS stack without end", |_| (1000, frame_of(1, 2, &[], [0x88, 0x47], &[0, 1, 0, 64].repeat(370)))),
    ("IPv4 with 40 bytes of options", |_| (1000, ip_options())),
    ("126 IPv6 extension headers", |_| (1000, extensions(126))),
    ("IPv6 extension headers without end", |_| (1000, extensions(180))),
    ("fragments whose first never comes", |n| (1000, stray_fragment(n))),
    ("fragments of one datagram that overlap", |n| (1000, overlapping_fragment(n))),
    ("tunnels in tunnels, as deep as they open", |_| (1000, nested())),
    ("Geneve with 252 bytes of options", |_| (1000, geneve())),
    ("DHCPv4 with 256 options", |_| (1000, dhcp4())),
    ("DHCPv6 in 8 relays with 64 options each", |_| (1000, dhcp6())),
    ("Neighbour Discovery with 32 options", |_| (1000, neighbour())),
    ("ICMP error with a quoted packet", |_| (1000, icmp_error())),
    ("SCTP with many chunks", |_| (1000, frame(1, 2, &[], &sctp()))),
    ("UDP datagram of 64 KiB (checksum over all of it)", |_| {
        (1000, frame(1, 2, &[], &udp(53, &[7; 65_000])))
    }),
];

const HERE: [u8; 4] = [10, 0, 0, 1];
const THERE: [u8; 4] = [198, 51, 100, 2];

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let ip = Ip::v4(HERE, THERE, 17);
    ip.packet(&ip.udp(40_000, port, payload))
}

fn segment<'a>(sequence: u32, flags: u8, payload: &'a [u8]) -> Tcp<'a> {
    let ends = Tcp { source: 40_000, destination: 443, ..Tcp::default() };
    Tcp { sequence, acknowledgement: 1, flags, window: 1024, payload, ..ends }
}

fn tcp(segment: &Tcp<'_>) -> Vec<u8> {
    let ip = Ip::v4(HERE, THERE, 6);
    frame(1, 2, &[], &ip.packet(&ip.tcp(segment)))
}

fn data(n: u32, payload: &[u8]) -> Vec<u8> {
    tcp(&segment(n.wrapping_mul(1460), PSH | ACK, payload))
}

fn options() -> Vec<u8> {
    tcp(&Tcp { options: &[1; 40], ..segment(1, ACK, &[]) })
}

fn syn(n: u32) -> Vec<u8> {
    let [_, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
    let ip = Ip::v4([203, b, c, d], THERE, 6);
    frame(1, 2, &[], &ip.packet(&ip.tcp(&segment(1, SYN, &[]))))
}

fn new_flow(n: u32) -> Vec<u8> {
    let [_, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
    let ip = Ip::v4([10, b, c, d], THERE, 17);
    frame(1, 2, &[], &ip.packet(&ip.udp(40_000, 53, b"x")))
}

fn other_mac(n: u32) -> Vec<u8> {
    let mut frame = data(1, &[]);
    frame[8..12].copy_from_slice(&n.to_be_bytes());
    frame
}

fn storm(n: u32) -> Vec<u8> {
    let [_, b, c, d] = n.to_be_bytes();
    let mut frame = arp(2, (1, [10, b, c, d]), (2, THERE));
    // The sender in the frame and in the message.
    frame[8..12].copy_from_slice(&n.to_be_bytes());
    frame[24..28].copy_from_slice(&n.to_be_bytes());
    frame
}

fn ip_options() -> Vec<u8> {
    let mut ip = Ip::v4(HERE, THERE, 17);
    ip.options = vec![1; 40];
    frame(1, 2, &[], &ip.packet(&ip.udp(1, 2, b"x")))
}

fn extensions(count: usize) -> Vec<u8> {
    let chain = [[60, 0, 1, 4, 0, 0, 0, 0].repeat(count - 1), vec![17, 0, 1, 4, 0, 0, 0, 0]].concat();
    let ip = Ip::v6(1, 2, 17);
    frame(1, 2, &[], &Ip::v6(1, 2, 60).packet(&[&chain[..], &ip.udp(1, 2, b"x")].concat()))
}

fn stray_fragment(n: u32) -> Vec<u8> {
    frame(1, 2, &[], &Ip::v4(HERE, THERE, 17).fragment(n & 0xffff, 64, true).packet(&[7; 64]))
}

fn overlapping_fragment(n: u32) -> Vec<u8> {
    let offset = u16::try_from(n.wrapping_mul(2_654_435_761) % 8000 * 8).unwrap_or(0);
    frame(1, 2, &[], &Ip::v4(HERE, THERE, 17).fragment(9, offset, true).packet(&[7; 24]))
}

fn nested() -> Vec<u8> {
    let ip = Ip::v4(HERE, THERE, 4);
    frame(1, 2, &[], &(0..60).fold(udp(53, b"x"), |inner, _| ip.packet(&inner)))
}

fn geneve() -> Vec<u8> {
    let options = [0, 1, 2, 0].repeat(63);
    let inside = frame(3, 4, &[], &udp(53, b"x"));
    frame(1, 2, &[], &udp(6081, &[&[0x3f, 0, 0x65, 0x58, 0, 0, 3, 0][..], &options, &inside].concat()))
}

fn dhcp4() -> Vec<u8> {
    let mut message = vec![2, 1, 6, 0, 0, 0, 0, 1];
    message.resize(236, 0);
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    message.extend([99, 130, 83, 99, 53, 1, 5]);
    message.extend([12, 3, b'a', b'b', b'c'].repeat(254));
    let ip = Ip::v4(HERE, [255; 4], 17);
    frame(1, 2, &[], &ip.packet(&ip.udp(67, 68, &message)))
}

fn dhcp6() -> Vec<u8> {
    let mut message = [&[7, 1, 2, 3][..], &[0, 3, 0, 4, 0, 0, 0, 1].repeat(64)].concat();
    for _ in 0..8 {
        let header = [&[13, 0][..], &[0xfe; 32], &[0, 99, 0, 0].repeat(63)].concat();
        message = [&header[..], &[0, 9], &length16(message.len()), &message].concat();
    }
    let ip = Ip::v6(1, 2, 17);
    frame(1, 2, &[], &ip.packet(&ip.udp(547, 546, &message)))
}

fn neighbour() -> Vec<u8> {
    let prefix = [&[3, 4, 64, 0xc0][..], &[0; 12], &[0xfd; 16]].concat();
    let ip = Ip::v6(1, 2, 58).ttl(255);
    frame(1, 2, &[], &ip.packet(&ip.icmp(134, 0, [64, 0, 7, 8], &[&[0; 8][..], &prefix.repeat(32)].concat())))
}

fn icmp_error() -> Vec<u8> {
    let ip = Ip::v4(THERE, HERE, 1);
    frame(1, 2, &[], &ip.packet(&ip.icmp(3, 1, [0; 4], &udp(53, b"question"))))
}

fn sctp() -> Vec<u8> {
    let chunks = [0, 3, 0, 4].repeat(360);
    Ip::v4(HERE, THERE, 132).packet(&[&[0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0][..], &chunks].concat())
}

/// Takes records and forgets them.
struct Nothing;

impl RecordSink for Nothing {
    fn flow(&mut self, _: &FlowRecord) {}

    fn observation(&mut self, _: &Observation) {}

    fn finding(&mut self, _: &FindingChange) {}
}

/// Feeds every sort to a sensor of its own. `counted` takes the packets that count, `ends` is told after each sort.
pub fn run(counted: impl Fn(&mut dyn FnMut()), ends: impl Fn(&str)) {
    for (name, make) in SORTS {
        let Ok(mut sensor) = Sensor::new(SensorConfig {
            site: "boston".into(),
            sensor: "boston-1".into(),
            plan: Default::default(),
            flow: FlowConfig { max_flows: MAX_FLOWS, max_fragmented_datagrams: 100, ..FlowConfig::default() },
            detect: Default::default(),
            hash_seed: [1, 2, 3, 4],
        }) else {
            return;
        };
        let mut now = Timestamp::from_parts(1_700_000_000, 0);
        let same = (make(0) == make(1)).then(|| make(0));
        for n in 0..2 * PACKETS {
            let (step, bytes) = same.clone().unwrap_or_else(|| make(n));
            now = now.plus(step);
            let packet = CapturedPacket {
                time: now,
                interface: InterfaceIndex(0),
                link_type: LinkType::ETHERNET,
                direction: LinkDirection::Unknown,
                wire_length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                data: &bytes,
            };
            let mut feed = || sensor.handle_packet(&packet, &mut Nothing);
            if n < PACKETS { feed() } else { counted(&mut feed) }
        }
        ends(name);
    }
}
