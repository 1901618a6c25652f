//! What is told of a capture holds for its bytes.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::IpAddr,
    path::Path,
};

use etherparse::{LaxPacketHeaders, NetHeaders, TransportHeader};

use super::{Truth, addresses, inventory, live, mix, syn};

type Tuple = (u8, (IpAddr, u16), (IpAddr, u16));

/// What is in a file, counted by another decoder.
fn count(path: &Path) -> (Truth, HashMap<Tuple, u64>) {
    let bytes = fs::read(path).expect("a capture");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four octets"));
    let (mut at, mut before) = (24, (0, 0));
    let mut flows: HashMap<Tuple, u64> = HashMap::new();
    let mut truth = Truth { file_bytes: bytes.len() as u64, ..Truth::default() };
    while at < bytes.len() {
        let time = (word(at), word(at + 4));
        assert!(before <= time && time.1 < 1_000_000, "packet {} goes back in time", truth.packets);
        before = time;
        let length = word(at + 8) as usize;
        let (tuple, ip_bytes) = packet(&bytes[at + 16..at + 16 + length]);
        *flows.entry(tuple).or_default() += 1;
        truth.packets += 1;
        truth.wire_bytes += u64::from(word(at + 12));
        truth.ip_bytes += ip_bytes;
        at += 16 + length;
    }
    truth.flows = flows.len() as u64;
    for (protocol, _, _) in flows.keys() {
        *truth.flows_by_protocol.entry(*protocol).or_default() += 1;
    }
    (truth, flows)
}

fn packet(frame: &[u8]) -> (Tuple, u64) {
    let headers = LaxPacketHeaders::from_ethernet(frame).expect("a packet");
    let (source, destination, protocol, ip_bytes): (IpAddr, IpAddr, u8, u64) = match headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => {
            (ip.source.into(), ip.destination.into(), ip.protocol.0, ip.total_len.into())
        }
        Some(NetHeaders::Ipv6(ip, _)) => {
            (ip.source.into(), ip.destination.into(), ip.next_header.0, 40 + u64::from(ip.payload_length))
        }
        _ => panic!("only IP is written"),
    };
    let (from, to) = match headers.transport {
        Some(TransportHeader::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
        Some(TransportHeader::Udp(udp)) => (udp.source_port, udp.destination_port),
        _ => (0, 0),
    };
    let (one, other) = ((source, from), (destination, to));
    ((protocol, one.min(other), one.max(other)), ip_bytes)
}

/// The truth without what a plain count of packets cannot tell.
fn countable(truth: &Truth) -> Truth {
    Truth { most_at_once: 0, canaries: None, flood: None, ..truth.clone() }
}

fn written(write: impl Fn(&Path) -> Truth) -> (Truth, Truth, HashMap<Tuple, u64>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, two) = (directory.path().join("one.pcap"), directory.path().join("two.pcap"));
    let truth = write(&one);
    assert_eq!(write(&two), truth);
    assert!(fs::read(&one).expect("a file") == fs::read(&two).expect("a file"), "the bytes differ");
    let (counted, flows) = count(&one);
    (truth, counted, flows)
}

#[test]
fn a_mix_holds_the_flows_and_about_the_bytes_it_was_asked_for() {
    let (truth, counted, flows) = written(|path| mix::write(path, 3, 2_500, 10).expect("a capture"));
    assert_eq!(countable(&truth), counted);
    assert_eq!(truth.flows, 2_500);
    let mib = truth.file_bytes as f64 / f64::from(1 << 20);
    assert!((9.0..11.0).contains(&mib), "{mib} MiB");
    let mean = truth.wire_bytes / truth.packets;
    assert!((380..500).contains(&mean), "{mean} octets a packet");
    assert_eq!(truth.flows_by_protocol.keys().copied().collect::<Vec<_>>(), [1, 6, 17, 58]);
    // Few carry most.
    let mut sizes: Vec<u64> = flows.values().copied().collect();
    sizes.sort_unstable();
    let top: u64 = sizes.iter().rev().take(125).sum();
    assert!(top * 5 > truth.packets * 2 && sizes[1_250] <= 3, "{top} of {}", truth.packets);
}

#[test]
fn a_flood_has_a_source_for_each_packet_and_its_canaries_are_whole() {
    let (truth, counted, flows) = written(|path| syn::write(path, 3, 20_000).expect("a capture"));
    assert_eq!(countable(&truth), counted);
    let canaries = truth.canaries.expect("canaries");
    let of_clients: BTreeMap<_, _> = flows
        .iter()
        .filter(|((_, one, other), _)| [one, other].iter().any(|end| end.0.to_string().starts_with("10.77.")))
        .collect();
    let sizes = |protocol: u8, packets: u64| {
        of_clients.iter().filter(|(tuple, size)| tuple.0 == protocol && ***size == packets).count() as u64
    };
    assert_eq!((sizes(6, canaries.tcp_packets), sizes(17, 2)), (canaries.tcp, canaries.dns));
    assert_eq!(of_clients.values().copied().sum::<u64>(), canaries.packets);
    assert_eq!(truth.flood.expect("a flood").packets + canaries.packets, truth.packets);
}

#[test]
fn so_many_flows_are_under_way_as_were_asked_for() {
    let (truth, counted, _) = written(|path| live::write(path, 3, 500, 1_500).expect("a capture"));
    assert_eq!(countable(&truth), counted);
    assert!((480..=560).contains(&truth.most_at_once), "{}", truth.most_at_once);
    assert_eq!(truth.packets, 8 * truth.flows);
}

#[test]
fn every_address_holds_a_whole_conversation_and_the_last_ones_two() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, two) = (directory.path().join("one.pcap"), directory.path().join("two.pcap"));
    let told = addresses::write(&one, 3, 2_000).expect("a capture");
    assert_eq!(addresses::write(&two, 3, 2_000).expect("a capture"), told);
    assert!(fs::read(&one).expect("a file") == fs::read(&two).expect("a file"), "the bytes differ");
    let (counted, flows) = count(&one);
    assert_eq!((told.addresses, told.shared, told.flows), (2_000, 10, 2_010));
    assert_eq!((counted.packets, counted.file_bytes), (told.packets, told.file_bytes));
    assert_eq!(told.packets, u64::from(told.flows) * 8);
    assert!(flows.values().all(|packets| *packets == 8));
    let inside = |end: &IpAddr| onenet_core::ipam::classify(*end).is_private();
    let mut uses: HashMap<IpAddr, u32> = HashMap::new();
    for (_, (one, _), (other, _)) in flows.keys() {
        *uses.entry(if inside(one) { *one } else { *other }).or_default() += 1;
    }
    for number in 0..2_000 {
        let expected = if number < 1_990 { 1 } else { 2 };
        assert_eq!(uses.get(&inventory::use_of(number, 2_000).address), Some(&expected), "{number}");
    }
}
