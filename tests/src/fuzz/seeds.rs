//! Inputs to start from: packets of every sort that the decoder knows, and what the other targets take. They are made
//! here, so that the corpus is small and needs nobody's traffic.

use super::mutate::Mutator;
use crate::craft::{ACK, FIN, Ip, PSH, RST, SYN, Tcp, URG, arp, frame, frame_of};

/// A target by name, its function, and the length from which longer inputs only cost time.
pub type Target = (&'static str, fn(&[u8]), usize);

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("decode", super::decode, 320),
    ("sensor", super::sensor, 600),
    ("pcap", super::pcap, 400),
    ("pcapng", super::pcapng, 400),
    ("dhcp", super::dhcp, 600),
];

/// Seeds of one target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "decode" => frames().iter().map(|bytes| [&[0, 0][..], bytes].concat()).chain(links()).collect(),
        "sensor" => sessions(),
        "pcap" => (0..7).map(|mode| [&[mode][..], &classic(&frames()[..3])].concat()).collect(),
        "pcapng" => [0, 8, 16, 24].map(|mode| [&[mode][..], &blocks(&frames()[..3])].concat()).to_vec(),
        "dhcp" => messages(),
        _ => Vec::new(),
    }
}

/// Ethernet frames of every sort.
pub fn frames() -> Vec<Vec<u8>> {
    let v4 = |protocol| Ip::v4([10, 0, 0, 1], [198, 51, 100, 2], protocol);
    let v6 = |protocol| Ip::v6(1, 2, protocol);
    let udp = |ip: &Ip, port, payload: &[u8]| ip.packet(&ip.udp(40_000, port, payload));
    let segment = |ip: &Ip, flags, payload: &[u8]| {
        let options: &[u8] = if flags & SYN == 0 { &[] } else { &[2, 4, 5, 0xb4, 1, 3, 3, 7] };
        let numbers =
            Tcp { source: 40_000, destination: 443, sequence: 100, acknowledgement: 200, ..Tcp::default() };
        ip.packet(&ip.tcp(&Tcp { flags, window: 1024, options, payload, ..numbers }))
    };
    let plain = udp(&v4(17), 53, b"question");
    let inside = frame(1, 2, &[], &plain);
    let mut frames = vec![
        frame(1, 2, &[], &plain),
        frame(1, 2, &[10], &udp(&v6(17), 53, b"question")),
        frame(1, 2, &[10, 20, 30], &plain),
        frame_of(1, 2, &[], [0x88, 0xa8], &[&[0, 10, 0x81, 0, 0, 20, 8, 0][..], &plain].concat()),
        frame_of(1, 2, &[], [0x88, 0x47], &[&[0, 1, 0, 64, 0, 2, 1, 64][..], &plain].concat()),
        frame_of(1, 2, &[], [0x88, 0x47], &[&[0, 1, 1, 64, 0, 0, 0, 0][..], &inside].concat()),
        frame_of(1, 2, &[], [0x88, 0x64], &[&[0x11, 0, 0, 1, 0, 38, 0, 0x21][..], &plain].concat()),
        frame_of(1, 2, &[], [0x88, 0xe7], &[&[0, 0, 0, 1][..], &inside].concat()),
        frame_of(1, 2, &[], [0x89, 0x26], &[&[0, 0, 0, 1, 8, 0][..], &plain].concat()),
        frame_of(1, 2, &[], [0x88, 0xe5], &[0x20; 40]),
        frame_of(1, 2, &[], [0, 46], &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &plain].concat()),
        arp(1, (1, [10, 0, 0, 1]), (0, [10, 0, 0, 2])),
    ];
    for flags in [SYN, SYN | ACK, PSH | ACK, FIN | ACK, RST, URG | ACK] {
        frames.push(frame(1, 2, &[], &segment(&v4(6), flags, if flags & PSH == 0 { b"" } else { b"data" })));
    }
    frames.push(frame(1, 2, &[], &segment(&v6(6), ACK, b"data")));
    let mut options = v4(17);
    options.options = vec![7, 11, 4, 10, 0, 0, 1, 0, 0, 0, 0, 0];
    frames.push(frame(1, 2, &[], &udp(&options, 53, b"routed")));
    frames.extend(fragments().iter().map(|packet| frame(1, 2, &[], packet)));
    frames.push(frame(1, 2, &[], &v4(1).packet(&v4(1).icmp(3, 1, [0; 4], &plain))));
    frames.push(frame(1, 2, &[], &v6(58).packet(&v6(58).icmp(128, 0, [0, 1, 0, 2], b"ping"))));
    frames.push(frame(
        1,
        2,
        &[],
        &v4(132).packet(&[0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1]),
    ));
    let chain =
        [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[43, 0, 1, 4, 0, 0, 0, 0], &[17, 0, 0, 0, 0, 0, 0, 0]].concat();
    frames.push(frame(1, 2, &[], &v6(0).packet(&[&chain[..], &v6(17).udp(1, 2, b"behind")].concat())));
    let authentication = [&[17, 4, 0, 0][..], &[0; 20]].concat();
    frames.push(frame(
        1,
        2,
        &[],
        &v4(51).packet(&[&authentication[..], &v4(17).udp(1, 2, b"behind")].concat()),
    ));
    frames.extend(tunnels(&plain, &inside).iter().map(|packet| frame(1, 2, &[], packet)));
    frames.extend(
        messages()
            .iter()
            .filter(|bytes| bytes[0] == 0)
            .map(|bytes| frame(1, 2, &[], &v4(17).packet(&v4(17).udp(68, 67, &bytes[1..])))),
    );
    frames
}

/// Fragments of both versions.
fn fragments() -> Vec<Vec<u8>> {
    let (v4, v6) = (Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 17), Ip::v6(1, 2, 17));
    let mut packets = Vec::new();
    for ip in [v4, v6] {
        let whole = ip.udp(40_000, 53, &[7; 64]);
        packets.push(ip.clone().fragment(9, 0, true).packet(&whole[..24]));
        packets.push(ip.clone().fragment(9, 24, true).packet(&whole[24..48]));
        packets.push(ip.fragment(9, 48, false).packet(&whole[48..]));
    }
    packets
}

/// The packet, or the frame around it, in every tunnel.
fn tunnels(plain: &[u8], inside: &[u8]) -> Vec<Vec<u8>> {
    let outer = |protocol| Ip::v4([192, 0, 2, 1], [192, 0, 2, 2], protocol);
    let over = |protocol, payload: &[u8]| outer(protocol).packet(payload);
    let on = |port, header: &[u8], payload: &[u8]| {
        outer(17).packet(&outer(17).udp(40_000, port, &[header, payload].concat()))
    };
    let length = u8::try_from(plain.len()).unwrap_or(0);
    vec![
        over(4, plain),
        over(4, &over(4, &over(4, &over(4, plain)))),
        over(97, &[&[0x30, 0][..], inside].concat()),
        over(47, &[&[0, 0, 8, 0][..], plain].concat()),
        over(47, &[&[0xb0, 0, 8, 0][..], &[0; 12], plain].concat()),
        over(47, &[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 1, 0, 5, 0, 0, 0, 0][..], inside].concat()),
        over(
            47,
            &[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0][..], inside].concat(),
        ),
        over(47, &[&[0x30, 1, 0x88, 0x0b, 0, 30, 0, 7, 0, 0, 0, 1, 0xff, 3, 0, 0x21][..], plain].concat()),
        on(4789, &[8, 0, 0, 0, 0, 0, 1, 0], inside),
        on(4790, &[12, 0, 0, 1, 0, 0, 1, 0], plain),
        on(6081, &[1, 0, 0x65, 0x58, 0, 0, 3, 0, 0xff, 0xff, 0, 0], inside),
        on(2152, &[0x36, 0xff, 0, length + 8, 0, 0, 0, 4, 0, 1, 0, 0x85, 1, 0, 9, 0], plain),
        on(1701, &[0x4a, 2, 0, length + 18, 0, 5, 0, 6, 0, 1, 0, 1, 0, 2, 9, 9, 0, 0x21], plain),
        on(6635, &[0, 1, 1, 64], plain),
        on(4754, &[0, 0, 8, 0], plain),
        on(3544, &[0, 0, 1, 2, 3, 4, 5, 6], &Ip::v6(1, 2, 17).packet(&Ip::v6(1, 2, 17).udp(1, 2, b"in"))),
    ]
}

/// The same packet behind the headers of other links: index of the link, mode, header, packet.
fn links() -> Vec<Vec<u8>> {
    let ip = Ip::v4([10, 0, 0, 1], [198, 51, 100, 2], 17);
    let packet = ip.packet(&ip.udp(40_000, 53, b"question"));
    let wireless = [&[0x08, 0x01, 0, 0][..], &[2; 18], &[0, 0, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat();
    let radiotap = [&[0, 0, 8, 0, 0, 0, 0, 0][..], &wireless].concat();
    let cooked = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0];
    let cooked_v2 = [8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    let headers: [(u16, &[u8]); 13] = [
        (0, &[2, 0, 0, 0]),
        (108, &[0, 0, 0, 2]),
        (9, &[0xff, 3, 0, 0x21]),
        (51, &[0x11, 0, 0, 1, 0, 38, 0, 0x21]),
        (101, &[]),
        (104, &[0x0f, 0, 8, 0]),
        (105, &wireless),
        (107, &[0x18, 0x41, 3, 0xcc]),
        (113, &cooked),
        (127, &radiotap),
        (228, &[]),
        (276, &cooked_v2),
        (239, &[2, 0, 0, 0, 36, 0, 9, 0]),
    ];
    let index = |number| super::LINK_TYPES.iter().position(|&known| known == number).unwrap_or(0);
    headers
        .iter()
        .map(|&(number, header)| {
            [&[u8::try_from(index(number)).unwrap_or(0), 0][..], header, &packet].concat()
        })
        .collect()
}

/// Steps for the sensor: as the bytes fall, which are many steps because most of them are packets.
fn sessions() -> Vec<Vec<u8>> {
    let mut bits = Mutator::new(7);
    (0..48).map(|_| (0..300).map(|_| bits.bits().to_le_bytes()[0]).collect()).collect()
}

/// Packet records of the classic format, little-endian, behind the rest of a file header.
fn classic(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = [&[2, 0, 4, 0][..], &[0; 8], &[0, 0, 4, 0, 1, 0, 0, 0]].concat();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap_or(0).to_le_bytes();
        file.extend([&[1, 0, 0, 0, 9, 0, 0, 0][..], &length, &length, frame].concat());
    }
    file
}

/// Blocks of a pcapng file, little-endian, behind a section header: two interfaces, packets of all three sorts, names,
/// statistics, an unknown block, and one more section.
fn blocks(frames: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padded = [body, &[0; 3][..body.len().next_multiple_of(4) - body.len()]].concat();
        let length = u32::try_from(padded.len() + 12).unwrap_or(0).to_le_bytes();
        [&kind.to_le_bytes()[..], &length, &padded, &length].concat()
    };
    let mut file = block(1, b"\x01\0\0\0\0\0\x04\0\x02\0\x04\0eth0\x09\0\x01\0\x09\0\0\0\0\0\0\0");
    file.extend(block(1, b"\x65\0\0\0\0\0\0\0\x09\0\x01\0\x86\0\0\0\x0e\0\x08\0\x01\0\0\0\0\0\0\0"));
    for (interface, frame) in (0_u32..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap_or(0).to_le_bytes();
        let head = [&(interface % 2).to_le_bytes()[..], &[0; 8], &length, &length].concat();
        file.extend(block(6, &[&head[..], frame].concat()));
        file.extend(block(3, &[&length[..], frame].concat()));
    }
    file.extend(block(2, &[&[0, 0, 1, 0][..], &[0; 8], &[4, 0, 0, 0, 4, 0, 0, 0], &[0x45; 4]].concat()));
    file.extend(block(4, &[1, 0, 8, 0, 10, 0, 0, 1, b'a', b'.', b'b', 0, 0, 0, 0, 0]));
    file.extend(block(5, b"\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\x08\0\x07\0\0\0\0\0\0\0\0\0\0\0"));
    file.extend(block(0xbad, &[0xff; 20]));
    file.extend(block(0x0a0d_0d0a, &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat()));
    file.extend(block(6, &[0; 20]));
    file
}

/// Messages of DHCPv4, DHCPv6 and Neighbour Discovery, each behind the byte that says so.
fn messages() -> Vec<Vec<u8>> {
    let mut v4 = vec![0, 2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef];
    v4.resize(237, 0);
    v4[17..21].copy_from_slice(&[10, 0, 0, 77]);
    v4[29..35].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    v4.extend([99, 130, 83, 99, 53, 1, 5, 54, 4, 10, 0, 0, 1, 51, 4, 0, 1, 0x51, 0x80, 52, 1, 3]);
    v4.extend(b"\x0c\x04pc77\x3c\x08MSFT 5.0\x51\x0c\x04\0\0\x04pc77\x03gov\xff");
    let association =
        [&[0, 3, 0, 40, 0, 0, 0, 1][..], &[0; 8], &[0, 5, 0, 24], &[0xfd; 16], &[0, 0, 1, 0, 0, 0, 2, 0]];
    let prefix =
        [&[0, 25, 0, 41, 0, 0, 0, 1][..], &[0; 8], &[0, 26, 0, 25, 0, 0, 1, 0, 0, 0, 2, 0, 56], &[0xfd; 16]];
    let duid = [0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
    let v6 =
        [&[2, 7, 1, 2, 3][..], &duid, &association.concat(), &prefix.concat(), b"\0\x27\0\x06\0\x04pc77"]
            .concat();
    let relayed = [&[3][..], &v6[1..]].concat();
    let options =
        [&[1, 1, 2, 0, 0, 0, 0, 1, 3, 4, 64, 0xc0][..], &[0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0], &[0xfd; 16]];
    let advertisement = [&[4, 1, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &options.concat()].concat();
    let solicitation = [&[4, 2, 0, 0, 0, 0][..], &[0xfd; 16], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
    vec![v4, v6, relayed, advertisement, solicitation]
}

#[cfg(test)]
mod tests {
    use onenet_core::decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType, decode};
    use onenet_core::time::Timestamp;

    use super::*;

    #[test]
    fn seeds_are_sound_packets_and_every_target_has_some() {
        for (target, run, _) in TARGETS {
            let seeds = seeds(target);
            assert!(!seeds.is_empty(), "{target}");
            seeds.iter().for_each(|seed| run(seed));
        }
        let decoded = seeds("decode").into_iter().filter(|seed| {
            let link_type = LinkType(super::super::LINK_TYPES[usize::from(seed[0])]);
            decode(&CapturedPacket {
                time: Timestamp(0),
                interface: InterfaceIndex(0),
                link_type,
                direction: LinkDirection::Unknown,
                wire_length: u32::try_from(seed.len() - 2).expect("a short packet"),
                data: &seed[2..],
            })
            .inspect_err(|why| eprintln!("{link_type:?} {why} {:02x?}", &seed[2..]))
            .is_ok()
        });
        // All but the encrypted frame.
        assert_eq!(decoded.count() + 1, seeds("decode").len());
    }
}
