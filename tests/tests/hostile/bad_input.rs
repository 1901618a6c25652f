//! Captures that are not as they should be, from the file to the records. Captures cut at every byte, pcapng with many
//! interfaces, sections and unknown blocks are tested beside the readers (`agent/src/source/tests.rs`).

use std::io::Cursor;

use onenet_agent::source::Capture;
use onenet_core::{
    flow::FlowConfig,
    record::{Counting, Layer, Reason},
};
use onenet_tests::craft::{ACK, Ip, SYN, Tcp, frame};

use crate::kit::sense;

fn udp(payload: &[u8]) -> Vec<u8> {
    let ip = Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 17);
    ip.packet(&ip.udp(40_000, 53, payload))
}

/// Segmentation offload leaves the total length 0 in what the capturing host sends.
#[test]
fn a_total_length_of_zero_counts_the_frame_and_says_estimated() {
    let ip = Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 6);
    let segment =
        Tcp { source: 40_000, destination: 80, flags: SYN | ACK, payload: &[7; 3000], ..Tcp::default() };
    let mut packet = ip.packet(&ip.tcp(&segment));
    packet[2..4].copy_from_slice(&[0, 0]);
    let (flows, _) = sense(FlowConfig::default(), &[(1, frame(1, 2, &[], &packet))]);
    let side = if flows[0].originator.packets > 0 { &flows[0].originator } else { &flows[0].responder };
    assert_eq!((side.ip_bytes, side.payload_bytes), (3040, 3000));
    assert_eq!(flows[0].counting, Counting::Estimated);
}

#[test]
fn a_header_length_below_five_words_is_counted_by_reason() {
    for length in 0..5 {
        let mut packet = udp(b"x");
        packet[0] = 0x40 | length;
        let (flows, ledger) = sense(FlowConfig::default(), &[(1, frame(1, 2, &[], &packet))]);
        assert!(flows.is_empty(), "{length}");
        assert_eq!(ledger.unparsed().collect::<Vec<_>>(), [(Layer::Network, Reason::BadHeaderLength, 1)]);
    }
}

/// UDP's length, IP's length and the frame's can each say something else: bytes go by IP, and the record says so where
/// they cannot all be right.
#[test]
fn lengths_that_contradict_each_other_never_count_more_than_ip_states() {
    for total in [10_u16, 20, 27, 28, 100, 1500, 65_535] {
        let mut packet = udp(b"payload");
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        let (flows, _) = sense(FlowConfig::default(), &[(1, frame(1, 2, &[], &packet))]);
        let flow = &flows[0];
        assert_eq!(flow.originator.ip_bytes, u64::from(total));
        assert!(flow.originator.payload_bytes <= flow.originator.ip_bytes);
        let fits = (20..=35).contains(&total);
        assert_eq!(flow.counting == Counting::Exact, fits, "{total}: {flow:#?}");
    }
}

#[test]
fn time_that_runs_backwards_gives_no_negative_duration_and_loses_nothing() {
    let packet = frame(1, 2, &[], &udp(b"x"));
    let seconds = [1000, 999, 1001, 400, 1002, 0, 2000, 1];
    let packets: Vec<_> = seconds.iter().map(|&second| (second, packet.clone())).collect();
    let (flows, ledger) = sense(FlowConfig::default(), &packets);
    assert!(flows.iter().all(|flow| flow.flow_start <= flow.start && flow.start <= flow.end), "{flows:#?}");
    assert_eq!(flows.iter().map(|flow| flow.originator.packets).sum::<u64>(), 8);
    assert_eq!(ledger.parsed, 8);
}

/// A classic file header states a snap length; records that are longer are there all the same.
#[test]
fn a_record_longer_than_the_snap_length_is_read_whole() {
    let packet = frame(1, 2, &[], &udp(&[7; 100]));
    let length = u32::try_from(packet.len()).expect("a short packet").to_le_bytes();
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 16, 1].map(u32::to_le_bytes).concat();
    let record = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &length, &length, &packet].concat();
    let file = [header, record.clone(), record].concat();
    let mut capture = Capture::from_reader("long records", Box::new(Cursor::new(file))).expect("a capture");
    for _ in 0..2 {
        assert!(capture.advance().expect("a sound record"));
        assert_eq!(capture.packet().expect("a packet").data, packet);
    }
    assert!(!capture.advance().expect("the end"));
}
