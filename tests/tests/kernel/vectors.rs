//! Frames made by hand, and thousands of mutations of them, through the program and through core's decode.

use std::net::IpAddr;

use onenet_core::decode::InterfaceIndex;
use onenet_ebpf::{Hook, Meter, OddReason, Options, Rates, TestContext};
use onenet_tests::craft::{ACK, Ip, Tcp, arp, frame, frame_of};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::kit::{
    Sums, Whole, add, counters, decoded, drained, meter, of_core, options, run, say, skip_unless,
};

fn v4(protocol: u8) -> Ip {
    Ip::v4([192, 0, 2, 9], [10, 0, 0, 2], protocol)
}

fn segment() -> Tcp<'static> {
    Tcp { source: 50_000, destination: 443, flags: ACK, window: 1000, payload: b"hello", ..Tcp::default() }
}

/// An extension header of IPv6 of eight bytes.
fn extension(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

fn v6_chain(first: u8, headers: &[u8], payload: &[u8]) -> Vec<u8> {
    frame(1, 2, &[], &Ip::v6(1, 2, first).packet(&[headers, payload].concat()))
}

/// PPPoE session, and its PPP protocol.
fn pppoe(protocol: u16, packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len() + 2).unwrap().to_be_bytes();
    let header = [&[0x11, 0, 0, 7], &length[..], &protocol.to_be_bytes()].concat();
    frame_of(1, 2, &[], [0x88, 0x64], &[&header, packet].concat())
}

/// An MPLS label; `is_last` ends the stack.
fn label(number: u32, is_last: bool) -> [u8; 4] {
    (number << 12 | u32::from(is_last) << 8 | 64).to_be_bytes()
}

/// One of each kind of packet that flows are kept of.
fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let (tcp, udp) = (v4(6).tcp_packet(&segment()), v4(17).udp_packet(5000, 53, b"query"));
    let tcp6 = Ip::v6(1, 2, 6).tcp_packet(&segment());
    let mut options_ip = v4(17);
    options_ip.options = vec![1; 8];
    let labelled =
        |stack: &[[u8; 4]], rest: &[u8]| frame_of(1, 2, &[], [0x88, 0x47], &[&stack.concat(), rest].concat());
    let authenticated = |next: u8, rest: &[u8]| [&[next, 4, 0, 0][..], &[0; 20], rest].concat();
    let first_fragment = [&[17, 0, 0, 1, 0, 0, 0, 9][..], &udp[20..]].concat();
    let later_fragment = [&[17, 0, 0, 16, 0, 0, 0, 9][..], &udp[20..]].concat();
    let atomic = [&[17, 0, 0, 0, 0, 0, 0, 9][..], &udp[20..]].concat();
    let qinq = [&[0x88, 0xa8, 0, 100][..], &[0x81, 0, 0x20, 7], &[8, 0]].concat();
    let two_tags = [&frame_of(1, 2, &[], [0, 0], &[])[..12], &qinq, &udp].concat();
    let mut unstated = tcp.clone();
    unstated[2..4].fill(0);
    let mut beyond = udp.clone();
    beyond[2] = 9;
    let mut bad_offset = tcp.clone();
    bad_offset[32] = 0xf0;
    vec![
        ("TCP", frame(1, 2, &[], &tcp)),
        ("UDP", frame(1, 2, &[], &udp)),
        ("TCP over IPv6", frame(1, 2, &[], &tcp6)),
        ("VLAN", frame(1, 2, &[300], &tcp)),
        ("priority tag", frame(1, 2, &[0], &tcp)),
        ("QinQ", two_tags),
        ("two tags of IPv6", frame(1, 2, &[5, 6], &tcp6)),
        ("MPLS", labelled(&[label(99, true)], &tcp)),
        ("MPLS, three labels", labelled(&[label(1, false), label(2, false), label(3, true)], &tcp6)),
        ("pseudowire", labelled(&[label(16, true)], &[&[0; 4][..], &frame(7, 8, &[12], &udp)].concat())),
        ("pseudowire without control word", labelled(&[label(16, true)], &frame(7, 8, &[], &udp))),
        ("PPPoE", pppoe(0x21, &tcp)),
        ("PPPoE, IPv6", pppoe(0x57, &tcp6)),
        ("options", frame(1, 2, &[], &options_ip.udp_packet(5000, 53, b"query"))),
        ("AH", frame(1, 2, &[], &v4(51).packet(&authenticated(17, &udp[20..])))),
        ("hop-by-hop, routing, destination options", {
            v6_chain(0, &[extension(43), extension(60), extension(6)].concat(), &tcp6[40..])
        }),
        ("AH of IPv6", v6_chain(51, &authenticated(6, &[]), &tcp6[40..])),
        ("first fragment of IPv6", v6_chain(44, &[], &first_fragment)),
        ("later fragment of IPv6", v6_chain(44, &[], &later_fragment)),
        ("atomic fragment", v6_chain(44, &[], &atomic)),
        ("first fragment", frame(1, 2, &[], &v4(17).fragment(7, 0, true).packet(&udp[20..]))),
        ("later fragment", frame(1, 2, &[], &v4(17).fragment(7, 1480, false).packet(&udp[20..]))),
        ("later fragment of ICMP", frame(1, 2, &[], &v4(1).fragment(7, 1480, false).packet(&[1; 16]))),
        ("echo", frame(1, 2, &[], &v4(1).icmp_packet(8, 0, [0, 1, 0, 2], b"data"))),
        (
            "echo reply",
            frame(
                2,
                1,
                &[],
                &Ip::v4([10, 0, 0, 2], [192, 0, 2, 9], 1).icmp_packet(0, 0, [0, 1, 0, 2], b"data"),
            ),
        ),
        ("neighbour solicitation", frame(1, 2, &[], &Ip::v6(1, 2, 58).icmp_packet(135, 0, [0; 4], &[1; 16]))),
        (
            "SCTP",
            frame(1, 2, &[], &v4(132).packet(&[0x13, 0x88, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])),
        ),
        ("UDP-Lite", frame(1, 2, &[], &v4(136).packet(&udp[20..]))),
        ("ESP", frame(1, 2, &[], &v4(50).packet(&[9; 40]))),
        ("GRE", frame(1, 2, &[], &v4(47).packet(&[&[0, 0, 8, 0][..], &tcp].concat()))),
        ("no length", frame(1, 2, &[], &unstated)),
        ("length beyond the frame", frame(1, 2, &[], &beyond)),
        ("data offset beyond the packet", frame(1, 2, &[], &bad_offset)),
        ("padding", [frame(1, 2, &[], &udp), vec![0; 30]].concat()),
        ("cut TCP header", frame(1, 2, &[], &v4(6).packet(&tcp[20..32]))),
        ("VN-Tag", frame_of(1, 2, &[], [0x89, 0x26], &[&[0, 1, 0, 2, 8, 0][..], &tcp].concat())),
        (
            "provider backbone",
            frame_of(1, 2, &[], [0x88, 0xe7], &[&[0; 4][..], &frame(7, 8, &[], &tcp)].concat()),
        ),
        (
            "same address and lower port last",
            frame(1, 2, &[], &Ip::v4([1, 1, 1, 1], [1, 1, 1, 1], 17).udp_packet(9, 8, b"x")),
        ),
    ]
}

/// Both ways of reading: with the short way for usual headers, and without.
fn both() -> Vec<Meter> {
    let silent = |general_only| Options { rates: Rates::NONE, general_only, ..options() };
    [false, true].into_iter().filter_map(|general_only| meter(&silent(general_only))).collect()
}

#[test]
fn every_shape_counts_as_in_core() {
    for mut meter in both() {
        for (name, frame) in shapes() {
            assert!(run(&meter, Hook::Ingress, &frame), "{name}");
            let core = decoded(&frame).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (key, sum) =
                of_core(&core, frame.len(), 1).unwrap_or_else(|| panic!("{name}: no flow in core"));
            assert_eq!(drained(&mut meter), Sums::from([(key, sum)]), "{name}");
        }
    }
}

#[test]
fn both_directions_are_one_flow_and_icmp_is_one_way() {
    let Some(mut meter) = meter(&Options { rates: Rates::NONE, ..options() }) else { return };
    let there = frame(1, 2, &[7], &v4(17).udp_packet(5000, 53, b"query"));
    let back = frame(2, 1, &[7], &Ip::v4([10, 0, 0, 2], [192, 0, 2, 9], 17).udp_packet(53, 5000, b"answer!"));
    assert!(run(&meter, Hook::Ingress, &there) && run(&meter, Hook::Egress, &back));
    let mut deltas = Vec::new();
    meter.drain(&mut |delta| deltas.push(delta.clone())).unwrap();
    let [delta] = deltas.as_slice() else { panic!("{deltas:?}") };
    let (low, high): (IpAddr, IpAddr) = ([10, 0, 0, 2].into(), [192, 0, 2, 9].into());
    assert_eq!(delta.ends, [(low, 53), (high, 5000)]);
    assert_eq!(
        (delta.interface, delta.vlans.as_slice(), delta.mirror_bytes),
        (InterfaceIndex(0), &[7][..], None)
    );
    assert_eq!(delta.ways.each_ref().map(|way| (way.packets, way.payload_bytes)), [(1, 7), (1, 5)]);
    let directions = delta.ways.each_ref().map(|way| format!("{:?}", way.direction));
    assert_eq!(directions, ["Sent", "Received"]);
}

#[test]
fn what_is_no_flow_is_counted_by_reason() {
    let Some(meter) = meter(&Options { rates: Rates::NONE, ..options() }) else { return };
    let tcp = v4(6).tcp_packet(&segment());
    let frames = [
        (OddReason::Arp, arp(1, (1, [10, 0, 0, 1]), (0, [10, 0, 0, 2]))),
        (OddReason::NotIp, frame_of(1, 2, &[], [0x88, 0xcc], &[1; 40])),
        (OddReason::NotIp, frame_of(1, 2, &[], [0, 40], &[0x42; 40])),
        (OddReason::TooDeep, frame(1, 2, &[1, 2, 3], &tcp)),
        (OddReason::TooDeep, v6_chain(60, &[extension(60); 9].concat(), &[])),
        (OddReason::Truncated, frame(1, 2, &[], &tcp[..12])),
        (OddReason::BadHeader, frame_of(1, 2, &[], [0x86, 0xdd], &[&tcp[..], &[0; 20]].concat())),
        (OddReason::BadHeader, frame(1, 2, &[], &[&[0x44][..], &tcp[1..]].concat())),
    ];
    for (reason, frame) in frames {
        let before = counters(&meter);
        // The kernel makes no test run of a header that is cut.
        if !run(&meter, Hook::Ingress, &frame) {
            continue;
        }
        let new = counters(&meter) - before;
        let expected = (1, frame.len() as u64);
        assert_eq!((new.unparsed(reason).packets, new.unparsed(reason).bytes), expected, "{frame:02x?}");
        assert_eq!((new.ingress.packets, new.accounted_packets()), (1, 1));
    }
}

/// Where both have a flow, both have the same; where one has none, the other has none either, or it is one of the
/// program's limits.
#[test]
fn mutations_count_as_in_core() {
    let seeds: Vec<Vec<u8>> = shapes().into_iter().map(|(_, frame)| frame).collect();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut below = |limit: usize| usize::try_from(random.next_u32()).unwrap() % limit.max(1);
    for mut meter in both() {
        let (mut frames, mut flows, mut limits) = (0, 0, 0);
        for _ in 0..40 {
            let mut expected = Sums::new();
            let mut history = Vec::new();
            for _ in 0..1000 {
                let mut frame = seeds[below(seeds.len())].clone();
                for _ in 0..=below(3) {
                    let at = 12 + below((frame.len() - 12).min(60));
                    frame[at] = u8::try_from(below(256)).unwrap();
                }
                if below(8) == 0 {
                    frame.truncate(below(frame.len()));
                }
                let before = counters(&meter);
                if !run(&meter, Hook::Ingress, &frame) {
                    continue;
                }
                frames += 1;
                let new = counters(&meter) - before;
                assert_eq!((new.seen_packets(), new.accounted_packets()), (1, 1), "{frame:02x?}");
                let core = decoded(&frame).ok().and_then(|core| of_core(&core, frame.len(), 1));
                match (new.counted, core) {
                    (1, Some((key, sum))) => {
                        flows += 1;
                        history.push((key.clone(), frame));
                        add(&mut expected, key, sum);
                    }
                    (0, None) => {}
                    (0, Some(_))
                        if new.unparsed(OddReason::NotIp).packets
                            + new.unparsed(OddReason::TooDeep).packets
                            == 1 =>
                    {
                        limits += 1;
                    }
                    (counted, core) => panic!("{counted} counted, core has {core:?}: {frame:02x?}"),
                }
            }
            let found = drained(&mut meter);
            for (key, sum) in &expected {
                let of: Vec<_> =
                    history.iter().filter(|(other, _)| other == key).map(|(_, frame)| frame).collect();
                assert_eq!(found.get(key), Some(sum), "{key:?}: {of:02x?}");
            }
            assert_eq!(found.len(), expected.len());
        }
        say(&format!("{frames} mutated frames: {flows} counted alike, {limits} beyond the program's limits"));
        assert!(flows > frames / 4 && limits < frames / 50);
    }
}

#[test]
fn offloaded_packets_count_as_the_packets_on_the_wire() {
    for mut meter in both() {
        let tcp = |ip: Ip| ip.tcp_packet(&Tcp { payload: &[9; 2500], options: &[1; 12], ..segment() });
        for (packet, vlans) in [(tcp(v4(6)), &[][..]), (tcp(Ip::v6(1, 2, 6)), &[8])] {
            let frame = frame(1, 2, vlans, &packet);
            // The number of segments, or only their size, as guests leave it.
            for (segments, segment_size) in [(3, 1000), (0, 1000)] {
                let context = TestContext { segments, segment_size, wire_length: 0 };
                meter.test_run(Hook::Ingress, &frame, context, 2).unwrap();
                let core = decoded(&frame).unwrap();
                let (key, mut sum) = of_core(&core, frame.len(), 3).unwrap();
                let once = sum.clone();
                sum.packets *= 2;
                sum.wire_bytes *= 2;
                sum.ip_bytes *= 2;
                sum.payload_bytes *= 2;
                assert_eq!(once.wire_bytes, (frame.len() + 2 * (frame.len() - 2500)) as u64);
                assert_eq!(drained(&mut meter), Sums::from([(key, sum)]), "{segments}");
            }
        }
        let all = counters(&meter);
        assert_eq!((all.ingress.packets, all.counted), (24, 24));
    }
}

#[test]
fn packets_without_a_link_header_are_read_from_their_first_byte() {
    let loaded = Meter::load(&Options { rates: Rates::NONE, ..options() }, false);
    let Some(mut meter) = skip_unless(loaded) else { return };
    for packet in [v4(6).tcp_packet(&segment()), Ip::v6(1, 2, 17).udp_packet(1000, 2000, b"x")] {
        assert!(run(&meter, Hook::Ingress, &packet));
        let framed = frame(1, 2, &[], &packet);
        let (key, mut sum) = of_core(&decoded(&framed).unwrap(), packet.len(), 1).unwrap();
        (sum.source_mac, sum.destination_mac) = (None, None);
        assert_eq!(drained(&mut meter), Sums::from([(key, sum)]));
    }
}
