//! Ways past a monitor: Ptacek and Newsham, "Insertion, Evasion, and Denial of Service: Eluding Network Intrusion
//! Detection" (1998), and their like in IPv6. A monitor that sees only the wire cannot know which of two contradicting
//! packets a host believes. So a record is either right, or it says what makes it ambiguous: overlapping fragments,
//! retransmissions, the range of TTLs, wrong checksums, estimated counts, the history.

use onenet_core::{
    flow::{ChecksumMode, FlowConfig},
    record::{ConnState, Counting, FlowRecord, Layer, Ledger, Reason},
};
use onenet_tests::craft::{ACK, FIN, Ip, PSH, RST, SYN, Tcp, URG, frame};

use crate::kit::sense;

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [198, 51, 100, 2];

/// What the sensor makes of packets that come within one second.
fn read(packets: Vec<Vec<u8>>) -> (Vec<FlowRecord>, Ledger) {
    let packets: Vec<_> = packets.into_iter().map(|packet| (1, frame(1, 2, &[], &packet))).collect();
    sense(FlowConfig::default(), &packets)
}

/// The one flow of these packets.
fn one(packets: Vec<Vec<u8>>) -> FlowRecord {
    let (mut flows, _) = read(packets);
    assert_eq!(flows.len(), 1, "{flows:#?}");
    flows.remove(0)
}

fn to_server(protocol: u8) -> Ip {
    Ip::v4(CLIENT, SERVER, protocol)
}

fn to_client(protocol: u8) -> Ip {
    Ip::v4(SERVER, CLIENT, protocol)
}

/// A segment of the client, 40000 → 80.
fn client(flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Vec<u8> {
    with_ttl(64, flags, sequence, acknowledgement, payload)
}

fn with_ttl(ttl: u8, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Vec<u8> {
    let ip = to_server(6).ttl(ttl);
    let segment =
        Tcp { source: 40_000, destination: 80, sequence, acknowledgement, flags, payload, ..Tcp::default() };
    ip.packet(&ip.tcp(&Tcp { window: 1024, ..segment }))
}

/// A segment of the server.
fn server(flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Vec<u8> {
    let ip = to_client(6);
    let segment =
        Tcp { source: 80, destination: 40_000, sequence, acknowledgement, flags, payload, ..Tcp::default() };
    ip.packet(&ip.tcp(&Tcp { window: 1024, ..segment }))
}

/// SYN, SYN-ACK, ACK: then the client is at 101 and the server at 501.
fn handshake() -> Vec<Vec<u8>> {
    vec![client(SYN, 100, 0, b""), server(SYN | ACK, 500, 101, b""), client(ACK, 101, 501, b"")]
}

/// Both sides close: the client at `sequence`, the server at 501.
fn close(sequence: u32) -> Vec<Vec<u8>> {
    vec![
        client(FIN | ACK, sequence, 501, b""),
        server(FIN | ACK, 501, sequence + 1, b""),
        client(ACK, sequence + 1, 502, b""),
    ]
}

fn connection(middle: Vec<Vec<u8>>, end: u32) -> FlowRecord {
    one([handshake(), middle, close(end)].concat())
}

/// A datagram of 64 bytes from 40000 to 53, of which fragments are cut.
fn datagram(fill: u8) -> Vec<u8> {
    to_server(17).udp(40_000, 53, &[fill; 56])
}

fn piece(whole: &[u8], from: usize, to: usize, more: bool) -> Vec<u8> {
    let offset = u16::try_from(from).expect("a short datagram");
    to_server(17).fragment(7, offset, more).packet(&whole[from..to])
}

fn is_ordinary(flow: &FlowRecord) -> bool {
    let sides = [&flow.originator, &flow.responder];
    flow.counting == Counting::Exact
        && sides.iter().all(|side| side.overlapping_fragments == 0 && side.bad_checksums == 0)
}

/// Fragments in any order, and exact repeats, leave nothing open.
#[test]
fn fragments_out_of_order_and_repeated_are_one_unambiguous_flow() {
    let whole = datagram(1);
    let (a, b, c) = (piece(&whole, 0, 24, true), piece(&whole, 24, 48, true), piece(&whole, 48, 64, false));
    let flow = one(vec![c.clone(), b.clone(), a, b, c]);
    assert_eq!((flow.originator.port, flow.responder.port), (40_000, 53));
    assert_eq!((flow.originator.packets, flow.originator.fragments), (5, 5));
    assert!(is_ordinary(&flow), "{flow:#?}");
}

/// Which bytes win (BSD: the old ones, Windows: the old ones whole, Linux: the new ones before) differs by host.
#[test]
fn fragments_that_overlap_with_other_content_are_flagged() {
    let (old, new) = (datagram(1), datagram(2));
    for (from, to) in [(16, 48), (24, 56), (8, 24), (16, 56), (32, 40)] {
        let flow = one(vec![
            piece(&old, 0, 24, true),
            piece(&old, 24, 48, true),
            piece(&new, from, to, true),
            piece(&old, 48, 64, false),
        ]);
        assert_eq!((flow.originator.packets, flow.originator.fragments), (4, 4));
        assert!(flow.originator.overlapping_fragments > 0, "{from}..{to}: {flow:#?}");
    }
}

/// A second "first" fragment with other ports would rewrite the header that filters have judged.
#[test]
fn a_second_first_fragment_with_other_ports_is_flagged() {
    let (whole, other) = (datagram(1), to_server(17).udp(40_000, 22, &[1; 56]));
    let (flows, _) =
        read(vec![piece(&whole, 0, 24, true), piece(&other, 0, 24, true), piece(&whole, 24, 64, false)]);
    assert_eq!(flows.iter().map(|flow| flow.originator.packets).sum::<u64>(), 3);
    let flagged: u64 = flows.iter().map(|flow| flow.originator.overlapping_fragments).sum();
    assert!(flagged > 0, "{flows:#?}");
}

/// RFC 1858: a first fragment of eight bytes holds the ports and leaves the TCP flags to the second one, where they are
/// found; how long the header is, one fragment alone does not tell.
#[test]
fn a_tiny_first_fragment_hides_no_flags_and_says_that_it_is_an_estimate() {
    let ip = to_server(6);
    let segment =
        ip.tcp(&Tcp { source: 40_000, destination: 80, sequence: 100, flags: SYN, ..Tcp::default() });
    let flow = one(vec![
        ip.clone().fragment(9, 0, true).packet(&segment[..8]),
        ip.fragment(9, 8, false).packet(&segment[8..]),
    ]);
    assert_eq!((flow.originator.port, flow.responder.port), (40_000, 80));
    assert_eq!((flow.originator.packets, flow.originator.fragments), (2, 2));
    assert_eq!(
        (flow.originator.tcp_flags, flow.conn_state),
        (SYN.into(), ConnState::S0),
        "the second one's flags"
    );
    assert_eq!(flow.counting, Counting::Estimated);
}

/// A later fragment can come when nobody waits any more (RFC 8200: 60 seconds). Its ports are not known then.
#[test]
fn a_fragment_after_its_time_is_counted_without_ports() {
    let whole = datagram(1);
    let packets = [(1, piece(&whole, 0, 24, true)), (90, piece(&whole, 24, 64, false))];
    let packets = packets.map(|(second, packet)| (second, frame(1, 2, &[], &packet)));
    let (flows, _) = sense(FlowConfig::default(), &packets);
    let told: Vec<_> = flows.iter().map(|flow| (flow.responder.port, flow.originator.packets)).collect();
    assert_eq!(told, [(53, 1), (0, 1)]);
}

/// An insertion that dies between monitor and host: only its TTL differs.
#[test]
fn a_packet_that_does_not_reach_the_host_shows_in_the_range_of_ttls() {
    let inserted = with_ttl(1, PSH | ACK, 101, 501, b"NOT ");
    let flow = connection(vec![inserted, client(PSH | ACK, 101, 501, b"good")], 105);
    assert_eq!((flow.originator.ttl_min, flow.originator.ttl_max), (1, 64));
    assert_eq!((flow.originator.payload_bytes, flow.originator.retransmissions), (8, 1));
    assert_eq!(flow.conn_state, ConnState::SF);
}

/// Urgent data may be taken out of the stream by the host: the flag says that it was there, the counts are the wire's.
#[test]
fn urgent_data_counts_and_shows_in_the_flags() {
    let ip = to_server(6);
    let segment = Tcp {
        source: 40_000,
        destination: 80,
        sequence: 101,
        acknowledgement: 501,
        flags: URG | ACK,
        window: 1024,
        urgent: 2,
        payload: b"ROxOT",
        ..Tcp::default()
    };
    let flow = connection(vec![ip.packet(&ip.tcp(&segment))], 106);
    assert_eq!((flow.originator.payload_bytes, flow.conn_state), (5, ConnState::SF));
    assert!(flow.originator.tcp_flags & u16::from(URG) != 0 && is_ordinary(&flow));
}

/// Two segments for the same numbers: hosts differ in which they keep. The second is a retransmission in the record.
#[test]
fn segments_that_overlap_with_other_content_are_retransmissions() {
    let overlaps: [(u32, &[u8]); 4] = [(101, b"evil"), (103, b"il"), (101, b"evilevil"), (103, b"evil")];
    for (sequence, payload) in overlaps {
        let sent = vec![client(PSH | ACK, 101, 501, b"good"), client(PSH | ACK, sequence, 501, payload)];
        let end = 105.max(sequence + u32::try_from(payload.len()).expect("a short segment"));
        let flow = connection(sent, end);
        let told = (flow.originator.payload_bytes, flow.originator.missed_bytes);
        assert_eq!(told, (4 + payload.len() as u64, 0), "{sequence}");
        assert_eq!(flow.conn_state, ConnState::SF, "{sequence}");
        // Numbers that are new at the end make a segment that carries on, as far as a monitor can tell.
        let is_repeat = end == 105;
        assert_eq!(flow.originator.retransmissions, u64::from(is_repeat), "{sequence}: {flow:#?}");
    }
}

/// Data in the SYN counts; hosts without T/TCP or fast open leave it to be sent again.
#[test]
fn data_in_a_syn_counts() {
    let packets =
        vec![client(SYN, 100, 0, b"early"), server(SYN | ACK, 500, 106, b""), client(ACK, 106, 501, b"")];
    let flow = one([packets, close(106)].concat());
    assert_eq!((flow.originator.payload_bytes, flow.conn_state), (5, ConnState::SF));
}

/// A RST outside the window is none to the host, which goes on; the monitor sees both, and the history tells.
#[test]
fn a_reset_with_a_wrong_number_does_not_hide_what_follows() {
    let middle = vec![
        client(RST, 3_000_000_000, 0, b""),
        client(PSH | ACK, 101, 501, b"still here"),
        server(ACK, 501, 111, b""),
    ];
    let flow = connection(middle, 111);
    assert_eq!((flow.originator.packets, flow.responder.packets), (6, 3), "{flow:#?}");
    assert_eq!(flow.originator.payload_bytes, 10);
    let (reset, data) = (flow.history.find('R'), flow.history.find('D'));
    assert!(reset.is_some() && reset < data, "{}", flow.history);
}

/// A SYN with another number in midstream (to desynchronise the monitor) begins another connection, as Zeek has it: a
/// host that takes it answers with a reset or a SYN-ACK. Both records are of one Community ID, and add up.
#[test]
fn a_syn_in_midstream_begins_a_flow_that_adds_up_with_the_first() {
    let middle =
        vec![client(SYN, 900_000, 0, b""), client(PSH | ACK, 101, 501, b"data"), server(ACK, 501, 105, b"")];
    let (flows, _) = read([handshake(), middle, close(105)].concat());
    assert_eq!(flows.len(), 2);
    assert_eq!(flows[0].community_id, flows[1].community_id);
    let sum = |count: fn(&FlowRecord) -> u64| flows.iter().map(count).sum::<u64>();
    assert_eq!((sum(|flow| flow.originator.packets), sum(|flow| flow.responder.packets)), (6, 3));
    assert_eq!(sum(|flow| flow.originator.payload_bytes), 4);
    assert_eq!(flows[0].conn_state, ConnState::S1);
    assert!(flows[1].history.starts_with('S') && !flows[1].history.contains('h'), "{}", flows[1].history);
}

/// A bad checksum makes a host drop what a monitor may take. It is counted and flagged, or, on request, left out.
#[test]
fn a_segment_with_a_wrong_checksum_is_flagged_or_left_out() {
    let mut bad = client(PSH | ACK, 101, 501, b"NOT ");
    let at = 20 + 16;
    bad[at] ^= 0x55;
    let packets = [handshake(), vec![bad, client(PSH | ACK, 101, 501, b"good")], close(105)].concat();
    let flow = one(packets.clone());
    assert_eq!((flow.originator.bad_checksums, flow.originator.payload_bytes), (1, 8));
    let packets: Vec<_> = packets.into_iter().map(|packet| (1, frame(1, 2, &[], &packet))).collect();
    let verify = FlowConfig { checksums: ChecksumMode::Verify, ..FlowConfig::default() };
    let (flows, _) = sense(verify, &packets);
    let flow = &flows[0];
    assert_eq!((flow.originator.bad_checksums, flow.originator.payload_bytes), (1, 4), "{flow:#?}");
    assert_eq!((flow.originator.retransmissions, flow.conn_state), (0, ConnState::SF));
}

/// An IPv4 header with a wrong checksum is dropped by the first router.
#[test]
fn a_wrong_header_checksum_is_flagged() {
    let mut bad = client(SYN, 100, 0, b"");
    bad[10] ^= 1;
    assert_eq!(one(vec![bad]).originator.bad_checksums, 1);
}

/// Source routes and other options shift the transport header; whoever ignores the header length reads wrong ports.
#[test]
fn ports_stand_behind_options() {
    let mut ip = to_server(17);
    ip.options = [&[137, 11, 4][..], &CLIENT, &[0, 22, 0, 22], &[0]].concat();
    let flow = one(vec![ip.packet(&ip.udp(40_000, 53, b"routed"))]);
    assert_eq!((flow.originator.port, flow.responder.port, flow.originator.payload_bytes), (40_000, 53, 6));
    assert!(is_ordinary(&flow), "{flow:#?}");
}

/// Headers that no host accepts are no packets of a flow; they are counted by reason.
#[test]
fn impossible_headers_are_counted_and_reach_no_flow() {
    let sound = client(SYN, 100, 0, b"");
    let (mut version, mut length) = (sound.clone(), sound);
    version[0] = 0x75;
    length[0] = 0x44;
    let (flows, ledger) = read(vec![version, length]);
    assert!(flows.is_empty());
    let unparsed: Vec<_> = ledger.unparsed().collect();
    let network = |reason| (Layer::Network, reason, 1);
    assert_eq!(unparsed, [network(Reason::BadVersion), network(Reason::BadHeaderLength)]);
}

fn v6(protocol: u8) -> Ip {
    Ip::v6(1, 2, protocol)
}

/// An extension header of eight bytes that names the next one.
fn options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// RFC 8200 lets destination options stand before and behind a fragment header; the ports are found in both.
#[test]
fn destination_options_before_and_behind_a_fragment_header_hide_no_ports() {
    let whole = v6(17).udp(40_000, 53, &[1; 40]);
    let inside = [&options(17)[..], &whole].concat();
    let fragment = |offset: u16, more: bool, part: &[u8]| {
        let [high, low] = (offset | u16::from(more)).to_be_bytes();
        let header = [60, 0, high, low, 0, 0, 0, 9];
        v6(60).packet(&[&options(44)[..], &header, part].concat())
    };
    let flow = one(vec![fragment(0, true, &inside[..32]), fragment(32, false, &inside[32..])]);
    assert_eq!((flow.protocol, flow.originator.port, flow.responder.port), (17, 40_000, 53));
    assert_eq!((flow.originator.packets, flow.originator.fragments), (2, 2));
}

/// RFC 7112 forbids a first fragment without the transport header: both fragments are counted, without ports.
#[test]
fn a_first_fragment_that_ends_in_its_header_chain_is_counted_without_ports() {
    let whole =
        [&options(6)[..], &v6(6).tcp(&Tcp { source: 40_000, destination: 22, flags: SYN, ..Tcp::default() })];
    let whole = whole.concat();
    let ip = v6(60);
    let (flows, ledger) = read(vec![
        ip.clone().fragment(9, 0, true).packet(&whole[..8]),
        ip.fragment(9, 8, false).packet(&whole[8..]),
    ]);
    assert_eq!(flows.iter().map(|flow| flow.originator.packets).sum::<u64>(), 2, "{flows:#?}");
    assert!(flows.iter().all(|flow| flow.responder.port == 0 && flow.originator.tcp_flags == 0));
    assert_eq!(ledger.parsed, 2);
}

/// Long chains of headers and several fragment headers are ways to end a monitor's patience.
#[test]
fn a_long_chain_of_headers_hides_no_ports_and_an_endless_one_is_refused() {
    let chain = |count: usize| {
        let chain = [&options(60).repeat(count - 1)[..], &options(17)].concat();
        v6(60).packet(&[&chain[..], &v6(17).udp(40_000, 53, b"deep")].concat())
    };
    let flow = one(vec![chain(40)]);
    assert_eq!((flow.responder.port, flow.originator.payload_bytes), (53, 4));
    let (flows, ledger) = read(vec![chain(170)]);
    assert!(flows.is_empty());
    assert_eq!(ledger.unparsed().collect::<Vec<_>>(), [(Layer::Network, Reason::TooDeep, 1)]);
}

/// A connection whose numbers pass the end of 32 bits goes on.
#[test]
fn numbers_that_wrap_are_no_gap_and_no_retransmission() {
    let (a, b) = (u32::MAX - 2, 500);
    let flow = one(vec![
        client(SYN, a, 0, b""),
        server(SYN | ACK, b, a + 1, b""),
        client(PSH | ACK, a + 1, 501, b"wrap"),
        server(ACK, 501, 2, b""),
        client(PSH | ACK, 2, 501, b"ped"),
        server(ACK, 501, 5, b""),
    ]);
    assert_eq!((flow.originator.missed_bytes, flow.originator.retransmissions), (0, 0), "{flow:#?}");
    assert_eq!((flow.originator.payload_bytes, flow.conn_state), (7, ConnState::S1));
}
