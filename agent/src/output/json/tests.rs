//! Any record is written as `serde_json` writes it, and a writer writes all of what it is given, in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use onenet_core::{
    net::{MacAddress, Name},
    record::{
        Aggregate, ConnState, Counting, Direction, DirectionReason, EndReason, FlowId, FlowRecord, FlowSide,
        Locality, Observation, ObservationKind, Strength, Tunnel, TunnelKind,
    },
    time::Timestamp,
};
use proptest::{collection::vec, option, prelude::*, sample::select, strategy::Union};

use super::*;
use crate::samples;

/// Mostly small, as counters are, but of any length.
fn count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 2 => 1..100_u64, 1 => 1..200_000_000_u64, 1 => any::<u64>()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-zA-Z0-9^=+/:.-]{0,40}",
        1 => "[ -~]{30}",
        2 => any::<String>(),
        1 => vec(select(vec!['"', '\\', '\n', '\u{1}', '\u{7f}', 'é', '\u{1f600}']), 0..5)
            .prop_map(|chars| chars.into_iter().collect::<String>()),
        1 => "[a-z]{1000,3000}",
    ]
}

/// One of a few names that records share, or one of its own.
fn name() -> impl Strategy<Value = Name> {
    thread_local! {
        static SHARED: Vec<Name> = ["", "boston", "a \"b\"", "é\n", &"x".repeat(29), &"x".repeat(30), &"x".repeat(31)]
            .map(Name::from)
            .to_vec();
    }
    prop_oneof![SHARED.with(|names| select(names.clone())), text().prop_map(Name::from)]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    let groups = vec(prop_oneof![2 => Just(0_u16), 1 => 0..17_u16, 1 => any::<u16>()], 8);
    prop_oneof![
        2 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped().into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        3 => groups.prop_map(|groups| {
            let groups: [u16; 8] = groups.try_into().expect("eight");
            Ipv6Addr::from(groups).into()
        }),
    ]
}

fn mac() -> impl Strategy<Value = Option<MacAddress>> {
    option::of(any::<[u8; 6]>().prop_map(MacAddress))
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![Just(1_795_248_000_123_456_789), any::<i64>()].prop_map(Timestamp)
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    select(values)
}

fn side() -> impl Strategy<Value = FlowSide> {
    let header = (any::<u16>(), any::<(u8, u8, u8)>());
    let counts = Union::new_weighted(vec![
        (1, (Just(vec![0; 10]).boxed(), Just((0, (0, 0, 0))).boxed()).boxed()),
        (1, (vec(count(), 10).boxed(), Just((0, (0, 0, 0))).boxed()).boxed()),
        (3, (vec(count(), 10).boxed(), header.boxed()).boxed()),
    ]);
    let names = (option::of(name()), option::of(name()));
    (ip(), any::<u16>(), mac(), counts, one_of(Locality::ALL), names).prop_map(
        |(ip, port, mac, (counts, (tcp_flags, (ttl_min, ttl_max, dscp))), locality, names)| FlowSide {
            ip,
            port,
            mac,
            packets: counts[0],
            wire_bytes: counts[1],
            ip_bytes: counts[2],
            payload_bytes: counts[3],
            tcp_flags,
            fragments: counts[4],
            ttl_min,
            ttl_max,
            dscp,
            retransmissions: counts[5],
            missed_bytes: counts[6],
            zero_windows: counts[7],
            bad_checksums: counts[8],
            overlapping_fragments: counts[9],
            locality,
            segment: names.0,
            secretariat: names.1,
        },
    )
}

/// What stands behind the VLANs of a flow.
fn rare() -> impl Strategy<Value = FlowRecord> {
    let tunnel = (one_of(TunnelKind::ALL), any::<Option<u32>>()).prop_map(|(kind, id)| Tunnel { kind, id });
    let aggregate =
        any::<(u64, u64, u8, u8)>().prop_map(|(flows, originators, originator_prefix, responder_prefix)| {
            Aggregate { flows, originators, originator_prefix, responder_prefix }
        });
    let labels = (vec(any::<u32>(), 0..4), vec(any::<u128>(), 0..4));
    let rest = (option::of(tunnel), any::<(Option<i64>, Option<i64>)>(), option::of(aggregate));
    let sampling = prop_oneof![Just(1), any::<u32>()];
    (labels, rest, (one_of(Counting::ALL), sampling)).prop_map(
        |((labels, parents), (tunnel, rtt, aggregate), (counting, sampling))| FlowRecord {
            mpls_labels: labels.into_iter().collect(),
            tunnel,
            tunnel_parents: parents.into_iter().map(FlowId).collect(),
            rtt_syn_to_syn_ack: rtt.0,
            rtt_syn_ack_to_ack: rtt.1,
            counting,
            sampling,
            aggregate,
            ..samples::flow()
        },
    )
}

fn flow() -> impl Strategy<Value = FlowRecord> {
    let plain = FlowRecord {
        mpls_labels: Default::default(),
        tunnel: None,
        tunnel_parents: Default::default(),
        rtt_syn_to_syn_ack: None,
        rtt_syn_ack_to_ack: None,
        counting: Counting::Exact,
        sampling: 1,
        aggregate: None,
        ..samples::flow()
    };
    let ids = (any::<u128>(), text(), time(), time(), time(), any::<bool>());
    let kinds = (
        one_of(EndReason::ALL),
        one_of(ConnState::ALL),
        one_of(DirectionReason::ALL),
        one_of(Direction::ALL),
    );
    let rest = (count(), any::<u8>(), text(), name(), name(), vec(any::<u16>(), 0..3));
    (prop_oneof![Just(plain), rare()], ids, kinds, (side(), side()), rest).prop_map(
        |(base, ids, kinds, (originator, responder), (part, protocol, history, site, interface, vlans))| {
            FlowRecord {
                flow_id: FlowId(ids.0),
                community_id: ids.1,
                flow_start: if ids.5 { ids.3 } else { ids.2 },
                start: ids.3,
                end: ids.4,
                part: u32::try_from(part).unwrap_or(u32::MAX),
                end_reason: kinds.0,
                protocol,
                originator,
                responder,
                conn_state: kinds.1,
                history,
                direction_reason: kinds.2,
                direction: kinds.3,
                site,
                interface,
                vlans: vlans.into_iter().collect(),
                ..base
            }
        },
    )
}

fn observation() -> impl Strategy<Value = Observation> {
    let names = (name(), option::of(name()), option::of(name()), name(), name());
    let seen = (vec(any::<u16>(), 0..3), mac(), time(), time(), count(), any::<(Option<u8>, Option<u8>)>());
    let lease = (
        option::of(text()),
        any::<Option<u32>>(),
        option::of(ip()),
        option::of(ip()),
        option::of(text()),
        option::of(text()),
    );
    let lease = prop_oneof![Just((None, None, None, None, None, None)), lease];
    (one_of(ObservationKind::ALL), one_of(Strength::ALL), ip(), names, seen, lease).prop_map(
        |(kind, strength, address, names, seen, lease)| Observation {
            kind,
            strength,
            address,
            address_space: names.0,
            secretariat: names.1,
            segment: names.2,
            site: names.3,
            interface: names.4,
            vlans: seen.0.into_iter().collect(),
            mac: seen.1,
            first_seen: seen.2,
            last_seen: seen.3,
            packets: seen.4,
            conversations: seen.4,
            active_hours: u32::from(seen.5.0.unwrap_or(0)),
            ttl_min: seen.5.0,
            ttl_max: seen.5.1,
            hostname: lease.0,
            lease_seconds: lease.1,
            server: lease.2,
            relay: lease.3,
            vendor_class: lease.4,
            duid: lease.5,
            stack: seen.5.0.and_then(|_| samples::observation().stack),
            aggregate: seen.5.1.and_then(|_| samples::observation().aggregate),
        },
    )
}

/// Writes records in writes of so many bytes, and compares.
fn assert_same<R: Line>(records: &[R], bytes: usize) {
    let (mut out, mut expected) = (Vec::new(), String::new());
    let mut writer = JsonWriter::with_writes(&mut out, bytes);
    for record in records {
        writer.write(record).expect("written");
        expected.push_str(&serde_json::to_string(record).expect("a record is JSON"));
        expected.push('\n');
    }
    RecordWriter::<R>::finish(&mut writer).expect("finished");
    assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
}

proptest! {
    #[test]
    fn any_flow_is_written_as_serde_json_writes_it(records in vec(flow(), 1..6), bytes in 0..8192_usize) {
        assert_same(&records, bytes);
    }

    #[test]
    fn any_observation_is_written_as_serde_json_writes_it(
        records in vec(observation(), 1..6),
        bytes in 0..8192_usize,
    ) {
        assert_same(&records, bytes);
    }
}

#[test]
fn the_usual_records_have_their_own_encoder() {
    let (mut room, mut names) = ([0; ROOM], Names::default());
    for (length, expected) in [
        (samples::flow().write_into(&mut room, &mut names), samples::FLOW),
        (samples::observation().write_into(&mut room, &mut names), samples::OBSERVATION),
    ] {
        assert_eq!(length, Some(expected.len() + 1));
    }
}

#[test]
fn a_record_that_is_too_long_for_its_place_takes_the_general_way() {
    let (mut room, mut names) = ([0; ROOM], Names::default());
    let mut flow = samples::flow();
    flow.site = "s".repeat(ROOM).into();
    assert_eq!(flow.write_into(&mut room, &mut names), None);
    // At any length about the limit.
    for length in 2000..3500 {
        flow.site = "s".repeat(length).into();
        assert_same(std::slice::from_ref(&flow), 0);
    }
    flow.site = "s".repeat(WRITE).into();
    assert_same(&[samples::flow(), flow, samples::flow()], 100);
}

/// Notes the length of each write.
#[derive(Default)]
struct Lengths(Vec<usize>);

impl Write for Lengths {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_are_written_in_whole_writes_until_they_are_asked_for() {
    let (mut lengths, flow) = (Lengths::default(), samples::flow());
    let mut writer = JsonWriter::new(&mut lengths);
    let lines = WRITE * 5 / 2 / (samples::FLOW.len() + 1);
    for _ in 0..lines {
        writer.write(&flow).expect("written");
    }
    RecordWriter::<FlowRecord>::flush(&mut writer).expect("flushed");
    writer.write(&flow).expect("written");
    RecordWriter::<FlowRecord>::flush(&mut writer).expect("flushed");
    let line = samples::FLOW.len() + 1;
    assert_eq!(lengths.0, [WRITE, WRITE, lines * line - 2 * WRITE, line]);
}
