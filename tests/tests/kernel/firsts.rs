//! Which packets are punted: the first of each direction, control segments, what moved; and handshake times where they
//! were not.

use onenet_ebpf::{Hook, Kind, Meter, Options, Rates};
use onenet_tests::craft::{ACK, FIN, Ip, SYN, Tcp, arp, frame, frame_of};

use crate::kit::{Whole, counters, drained, meter, options, run};

fn segment(is_back: bool, flags: u8, window: u16) -> Vec<u8> {
    let (client, server) = ([10, 0, 0, 9], [192, 0, 2, 7]);
    let (ip, source, destination) = if is_back {
        (Ip::v4(server, client, 6), 443, 50_000)
    } else {
        (Ip::v4(client, server, 6), 50_000, 443)
    };
    let tcp = Tcp { source, destination, flags, window, payload: b"data", ..Tcp::default() };
    frame(if is_back { 2 } else { 1 }, if is_back { 1 } else { 2 }, &[], &ip.tcp_packet(&tcp))
}

/// Runs frames; the kind of each that was punted.
fn kinds(meter: &mut Meter, frames: &[Vec<u8>]) -> Vec<Option<Kind>> {
    let mut kinds = Vec::new();
    for frame in frames {
        assert!(run(meter, Hook::Ingress, frame));
        let mut kind = None;
        meter.punts(&mut |punt| kind = Some(punt.kind));
        kinds.push(kind);
    }
    kinds
}

#[test]
fn the_first_packets_of_each_direction_are_punted_and_a_swap_makes_none_first_again() {
    let Some(mut meter) = meter(&Options { first_packets: 2, ..options() }) else { return };
    let (there, back) = (segment(false, ACK, 9), segment(true, ACK, 9));
    let frames = [&there, &there, &there, &back, &there, &back, &back].map(Clone::clone);
    let first = Some(Kind::First);
    assert_eq!(kinds(&mut meter, &frames), [first, first, None, first, None, first, None]);
    for _ in 0..3 {
        assert!(!drained(&mut meter).is_empty());
        assert_eq!(kinds(&mut meter, &[there.clone(), back.clone()]), [None, None], "after a swap");
    }
    drained(&mut meter);
    // Another connection between the same ports.
    let frames = [segment(false, SYN, 9), there.clone(), there.clone(), there];
    assert_eq!(kinds(&mut meter, &frames), [Some(Kind::Control), first, first, None]);
}

#[test]
fn each_kind_is_punted_as_itself() {
    let Some(mut meter) = meter(&Options { first_packets: 0, ..options() }) else { return };
    let udp = |source, destination| {
        frame(1, 2, &[], &Ip::v4([1, 1, 1, 1], [2, 2, 2, 2], 17).udp_packet(source, destination, b"x"))
    };
    let v4 =
        |protocol, body: &[u8]| frame(1, 2, &[], &Ip::v4([1, 1, 1, 1], [2, 2, 2, 2], protocol).packet(body));
    let ndp = frame(1, 2, &[], &Ip::v6(1, 2, 58).icmp_packet(134, 0, [0; 4], &[0; 8]));
    let cases = [
        (arp(1, (1, [10, 0, 0, 1]), (0, [10, 0, 0, 2])), Some(Kind::Arp)),
        (ndp, Some(Kind::Ndp)),
        (udp(68, 67), Some(Kind::Dhcp)),
        (udp(546, 547), Some(Kind::Dhcp)),
        (segment(false, FIN | ACK, 9), Some(Kind::Control)),
        (segment(false, ACK, 0), Some(Kind::Control)),
        (segment(false, ACK, 1), None),
        (
            frame(1, 2, &[], &Ip::v4([1, 1, 1, 1], [2, 2, 2, 2], 17).fragment(1, 8, false).packet(&[1; 20])),
            Some(Kind::Fragment),
        ),
        (udp(9, 4789), Some(Kind::Tunnel)),
        (udp(2152, 9), Some(Kind::Tunnel)),
        (udp(4789, 9), None),
        (v4(47, &[0; 8]), Some(Kind::Tunnel)),
        (v4(1, &[8, 0, 0, 0, 0, 0, 0, 0]), Some(Kind::Icmp)),
        (v4(2, &[0x16; 8]), Some(Kind::Icmp)),
        (v4(89, &[2; 24]), None),
        (frame_of(1, 2, &[], [0x88, 0xcc], &[1; 40]), Some(Kind::Odd)),
    ];
    let (frames, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(kinds(&mut meter, &frames), expected);
}

#[test]
fn every_port_that_core_may_open_is_a_tunnel() {
    let rates = Rates::default().with(Kind::Tunnel, 1_000_000_000);
    let Some(mut meter) = meter(&Options { first_packets: 0, rates, ..options() }) else { return };
    let ports = [1701, 2152, 3544, 4341, 4754, 4789, 4790, 5072, 5247, 6080, 6081, 6635, 8472, 37008];
    let frames = ports.map(|port| frame(1, 2, &[], &Ip::v6(1, 2, 17).udp_packet(9, port, b"x")));
    assert_eq!(kinds(&mut meter, &frames), [Some(Kind::Tunnel); 14]);
    let protocols = [4, 41, 47, 94, 97, 115, 137, 143];
    let frames = protocols.map(|protocol| frame(1, 2, &[], &Ip::v6(1, 2, protocol).packet(&[0; 20])));
    assert_eq!(kinds(&mut meter, &frames), [Some(Kind::Tunnel); 8]);
}

#[test]
fn a_flow_that_comes_from_another_station_is_punted_once() {
    let Some(mut meter) = meter(&Options { first_packets: 0, ..options() }) else { return };
    let (one, mut other) = (segment(false, ACK, 9), segment(false, ACK, 9));
    other[11] = 0x77;
    let frames = [&one, &one, &other, &other, &one].map(Clone::clone);
    let moved = Some(Kind::Moved);
    assert_eq!(kinds(&mut meter, &frames), [None, None, moved, None, moved]);
}

#[test]
fn a_handshake_that_is_only_counted_has_its_times() {
    let Some(mut meter) = meter(&Options { rates: Rates::NONE, ..options() }) else { return };
    for frame in
        [segment(false, SYN, 9), segment(true, SYN | ACK, 9), segment(false, ACK, 9), segment(false, ACK, 9)]
    {
        assert!(run(&meter, Hook::Ingress, &frame));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut deltas = Vec::new();
    meter.drain(&mut |delta| deltas.push(delta.clone())).unwrap();
    let [delta] = deltas.as_slice() else { panic!("{deltas:?}") };
    let [client, server] = &delta.ways;
    let (syn, syn_ack, ack) = (client.syn.unwrap(), server.syn_ack.unwrap(), client.ack.unwrap());
    assert!(client.syn_ack.is_none() && server.syn.is_none() && server.ack.is_none(), "{delta:?}");
    for (earlier, later) in [(syn, syn_ack), (syn_ack, ack), (ack, client.last)] {
        assert!((1_900_000..500_000_000).contains(&later.since(earlier)), "{delta:?}");
    }
    // A stamp has the microsecond, the first packet the nanosecond.
    assert!((client.first.0 - syn.0).abs() <= 1024, "{delta:?}");
}

#[test]
fn a_punted_frame_is_told_with_its_direction_and_segments() {
    let Some(mut meter) = meter(&options()) else { return };
    let frame = arp(1, (1, [10, 0, 0, 1]), (0, [10, 0, 0, 2]));
    for (hook, direction) in [(Hook::Ingress, "Received"), (Hook::Egress, "Sent")] {
        assert!(run(&meter, hook, &frame));
        let count = meter.punts(&mut |punt| {
            assert_eq!(format!("{:?}", punt.direction), direction);
            assert_eq!((punt.data, punt.segments, punt.kind), (&frame[..], 1, Kind::Arp));
        });
        assert_eq!(count, 1);
    }
    assert_eq!(counters(&meter).punted(Kind::Arp).packets, 2);
}
