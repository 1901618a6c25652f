//! Every record survives the wire; what makes no sense is refused with the field's name.

use onenet_core::{
    record::{
        Aggregate, Change, ConnState, Counting, Direction, DirectionReason, DropStage, EndReason, Evidence,
        FindingChange, FindingId, FlowRecord, FlowSide, IpIdBehaviour, Layer, Ledger, Locality, Observation,
        ObservationAggregate, ObservationEvidence, ObservationKind, Reason, RuleId, SeenSignature, Severity,
        StackEvidence, Strength, Subject, TcpClock, TopAddress, Tunnel, TunnelKind, Verdict,
    },
    time::Timestamp,
};
use prost::Message;

use super::*;
use crate::v1;

fn side(ip: &str) -> FlowSide {
    FlowSide {
        ip: ip.parse().expect("an address"),
        port: 65_535,
        mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
        packets: 1,
        wire_bytes: u64::MAX,
        ip_bytes: 3,
        payload_bytes: 4,
        tcp_flags: 0x1ff,
        fragments: 5,
        ttl_min: 6,
        ttl_max: 255,
        dscp: 46,
        retransmissions: 7,
        missed_bytes: 8,
        zero_windows: 9,
        bad_checksums: 10,
        overlapping_fragments: 11,
        locality: Locality::Inside,
        segment: Some("boston-eohhs".into()),
        secretariat: None,
    }
}

fn flow() -> FlowRecord {
    FlowRecord {
        flow_id: FlowId(u128::MAX - 1),
        community_id: "1:d/FP5EW3wiY1vCndhwleRRKHowQ=".into(),
        flow_start: Timestamp(-1),
        start: Timestamp(1),
        end: Timestamp(i64::MAX),
        part: 2,
        end_reason: EndReason::Active,
        protocol: 6,
        originator: side("10.1.2.3"),
        responder: side("fd00::1"),
        conn_state: ConnState::Sh,
        history: "ShAdDafF".into(),
        direction_reason: DirectionReason::SynAck,
        direction: Direction::Outbound,
        site: "boston".into(),
        interface: "inside0".into(),
        vlans: [100, 4094].into_iter().collect(),
        mpls_labels: [16, 0xf_ffff].into_iter().collect(),
        tunnel: Some(Tunnel { kind: TunnelKind::Vxlan, id: Some(0) }),
        tunnel_parents: [FlowId(1), FlowId(2)].into_iter().collect(),
        rtt_syn_to_syn_ack: Some(0),
        rtt_syn_ack_to_ack: None,
        counting: Counting::Estimated,
        sampling: 64,
        aggregate: Some(Aggregate { flows: 9, originators: 8, originator_prefix: 24, responder_prefix: 128 }),
    }
}

fn observation() -> Observation {
    Observation {
        kind: ObservationKind::Dhcp4Lease,
        strength: Strength::Strong,
        address: "10.9.8.7".parse().expect("an address"),
        address_space: "eohhs".into(),
        secretariat: Some("eohhs".into()),
        segment: None,
        site: "lowell".into(),
        interface: "inside0".into(),
        vlans: [7].into_iter().collect(),
        mac: None,
        first_seen: Timestamp(5),
        last_seen: Timestamp(6),
        packets: 9,
        ttl_min: Some(0),
        ttl_max: None,
        hostname: Some("printer-3".into()),
        lease_seconds: Some(0),
        server: Some("10.9.8.1".parse().expect("an address")),
        relay: None,
        vendor_class: Some("MSFT 5.0".into()),
        duid: None,
        conversations: 3,
        active_hours: 0b101,
        stack: Some(Box::new(stack())),
        aggregate: Some(Box::new(ObservationAggregate {
            prefix_length: 16,
            addresses: 1_000,
            top: [TopAddress { address: "10.9.8.7".parse().expect("an address"), packets: 4 }]
                .into_iter()
                .collect(),
        })),
    }
}

fn stack() -> StackEvidence {
    let signature = "4:128:0:1460:64240,8:mss,nop,ws,nop,nop,sok:df,id+:0".parse().expect("a signature");
    StackEvidence {
        signatures: [SeenSignature { signature, segments: 7 }].into_iter().collect(),
        changes: 1,
        clock: Some(TcpClock { hertz: 1000, origin: Timestamp(-4) }),
        timestamp_breaks: 2,
        ip_id: IpIdBehaviour::Counter,
    }
}

fn finding() -> FindingChange {
    let key = "overlap.address|10.1.1.1".to_owned();
    FindingChange {
        finding_id: FindingId::of_key(&key),
        key,
        rule: RuleId::OverlapAddress,
        rule_version: 1,
        change: Change::Updated,
        revision: 3,
        time: Timestamp(10),
        first_seen: Timestamp(1),
        last_seen: Timestamp(9),
        severity: Severity::High,
        confidence: 95,
        summary: "10.1.1.1 is in use in eohhs and massdot".into(),
        subject: Subject {
            address: "10.1.1.1".parse().ok(),
            prefix: "10.1.0.0/16".parse().ok(),
            port: Some(0),
            ..Subject::default()
        },
        site: "boston".into(),
        interface: None,
        address_spaces: vec!["eohhs".into(), "massdot".into()],
        secretariats: vec!["eohhs".into(), "massdot".into()],
        contacts: vec!["a@example".into(), "b@example".into()],
        evidence: Evidence {
            flow_ids: [FlowId(4)].into_iter().collect(),
            observations: vec![ObservationEvidence {
                address_space: "eohhs".into(),
                site: "boston".into(),
                segment: Some("boston-eohhs".into()),
                kind: ObservationKind::ArpReply,
                strength: Strength::Strong,
                address: "10.1.1.1".parse().expect("an address"),
                mac: Some(MacAddress([2, 0, 0, 0, 0, 9])),
                first_seen: Timestamp(1),
                last_seen: Timestamp(9),
            }],
            counts: [("packets".to_owned(), 12)].into(),
            scores: [("score".to_owned(), 0.875)].into(),
            verdict: Some(Verdict::TwoHosts),
        },
    }
}

#[test]
fn every_record_survives_the_wire() {
    let bytes = v1::Flow::from(&flow()).encode_to_vec();
    assert_eq!(FlowRecord::try_from(v1::Flow::decode(&bytes[..]).expect("a message")), Ok(flow()));

    let bytes = v1::Observation::from(&observation()).encode_to_vec();
    assert_eq!(
        Observation::try_from(v1::Observation::decode(&bytes[..]).expect("a message")),
        Ok(observation())
    );

    let bytes = v1::FindingChange::from(&finding()).encode_to_vec();
    assert_eq!(
        FindingChange::try_from(v1::FindingChange::decode(&bytes[..]).expect("a message")),
        Ok(finding())
    );

    let mut ledger = Ledger::default();
    ledger.packets = 3;
    ledger.parsed = 1;
    ledger.wire_bytes = 180;
    ledger.flow_records = 1;
    ledger.add_unparsed(Layer::Shim, Reason::TooDeep, 2);
    ledger.set_dropped(DropStage::Kernel, 7);
    ledger.count_unopened(Layer::Network, Reason::BadTunnel);
    (ledger.mirrored, ledger.mirror_bytes, ledger.mirror_fragments) = (4, 200, 1);
    assert_eq!(Ledger::try_from(&v1::Ledger::from(&ledger)), Ok(ledger));
}

#[test]
fn a_field_that_makes_no_sense_is_refused_by_name() {
    type Damage = fn(&mut v1::Flow);
    let cases: [(&str, Damage); 8] = [
        ("flow_id", |flow| flow.flow_id = Bytes::from_static(&[1, 2])),
        ("originator", |flow| flow.originator = None),
        ("ip", |flow| flow.responder.as_mut().expect("a side").ip = Bytes::from_static(&[1, 2, 3])),
        ("port", |flow| flow.responder.as_mut().expect("a side").port = 65_536),
        ("conn_state", |flow| flow.conn_state = 13),
        ("end_reason", |flow| flow.end_reason = 256 + 1),
        ("vlans", |flow| flow.vlans = vec![1; 4]),
        ("tunnel.kind", |flow| flow.tunnel = Some(v1::Tunnel { kind: 99, id: None })),
    ];
    for (field, damage) in cases {
        let mut wire = v1::Flow::from(&flow());
        damage(&mut wire);
        assert_eq!(FlowRecord::try_from(wire).expect_err(field).field, field);
    }
}

#[test]
fn an_observation_that_makes_no_sense_is_refused_by_name() {
    type Damage = fn(&mut v1::Observation);
    fn stack(wire: &mut v1::Observation) -> &mut v1::Stack {
        wire.stack.as_mut().expect("a stack")
    }
    fn sum(wire: &mut v1::Observation) -> &mut v1::AddressSum {
        wire.aggregate.as_mut().expect("a sum")
    }
    let cases: [(&str, Damage); 6] = [
        ("signature", |wire| stack(wire).signatures[0].signature = "4:64".into()),
        ("signatures", |wire| stack(wire).signatures = vec![stack(wire).signatures[0].clone(); 5]),
        ("ip_id", |wire| stack(wire).ip_id = 9),
        ("prefix_length", |wire| sum(wire).prefix_length = 256),
        ("top.address", |wire| sum(wire).top[0].address = Bytes::from_static(&[1])),
        ("top", |wire| sum(wire).top = vec![sum(wire).top[0].clone(); 9]),
    ];
    for (field, damage) in cases {
        let mut wire = v1::Observation::from(&observation());
        damage(&mut wire);
        assert_eq!(Observation::try_from(wire).expect_err(field).field, field);
    }
}

#[test]
fn a_score_that_is_no_number_is_refused() {
    let mut wire = v1::FindingChange::from(&finding());
    wire.scores.insert("score".into(), f64::NAN);
    assert_eq!(FindingChange::try_from(wire).expect_err("NaN").field, "scores");
}

/// A golden pair: field numbers and encodings of the wire may never change unnoticed.
#[test]
fn a_known_tunnel_has_its_known_bytes() {
    let wire = v1::Tunnel { kind: 2, id: Some(300) };
    assert_eq!(wire.encode_to_vec(), [0x08, 0x02, 0x10, 0xac, 0x02]);
}
