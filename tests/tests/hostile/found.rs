//! What hostile input has broken, each with a sentence of what was wrong.

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType},
    flow::FlowConfig,
    record::{FindingChange, FlowRecord, Observation, RecordSink},
    sensor::{Sensor, SensorConfig},
    time::Timestamp,
};
use onenet_tests::craft::{Ip, frame};

#[derive(Default)]
struct Flows(Vec<FlowRecord>);

impl RecordSink for Flows {
    fn flow(&mut self, record: &FlowRecord) {
        self.0.push(record.clone());
    }

    fn observation(&mut self, _: &Observation) {}

    fn finding(&mut self, _: &FindingChange) {}
}

/// Flows of packets at these seconds, in a table for `max_flows`.
fn flows(max_flows: u32, packets: &[(i64, Vec<u8>)]) -> Vec<FlowRecord> {
    let mut sensor = Sensor::new(SensorConfig {
        site: "boston".into(),
        sensor: "boston-1".into(),
        plan: Default::default(),
        flow: FlowConfig { max_flows, ..FlowConfig::default() },
        detect: Default::default(),
        hash_seed: [1, 2, 3, 4],
    })
    .expect("the empty plan is sound");
    let mut sink = Flows::default();
    for (seconds, data) in packets {
        let packet = CapturedPacket {
            time: Timestamp::from_parts(*seconds, 0),
            interface: InterfaceIndex(0),
            link_type: LinkType::ETHERNET,
            direction: LinkDirection::Unknown,
            wire_length: u32::try_from(data.len()).expect("a short packet"),
            data,
        };
        sensor.handle_packet(&packet, &mut sink);
    }
    sensor.finish(&mut sink);
    assert!(sensor.ledger().balances());
    sink.0
}

fn udp(last: u8) -> Vec<u8> {
    let ip = Ip::v4([10, 0, 0, last], [10, 0, 0, 99], 17);
    frame(1, 2, &[], &ip.packet(&ip.udp(1, 2, b"")))
}

/// The identity of a flow is its ends and its begin, with a number for flows that share both. The number came from
/// what the entry of the table had held before, so a flow that gave way and came back into another entry at the same
/// moment had the identity of the one that was told already.
#[test]
fn a_flow_that_gave_way_and_came_back_at_the_same_moment_has_an_identity_of_its_own() {
    let told = flows(2, &[(5, udp(1)), (5, udp(2)), (5, udp(3)), (5, udp(1)), (5, udp(2)), (5, udp(1))]);
    let mut identities: Vec<_> = told.iter().map(|flow| flow.flow_id).collect();
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), told.len());
}

/// The same, where the flow had ended long ago and a capture runs back to its begin.
#[test]
fn a_flow_that_a_capture_runs_back_to_has_an_identity_of_its_own() {
    let told = flows(9, &[(5, udp(1)), (6, udp(2)), (500, udp(3)), (6, udp(2)), (5, udp(1))]);
    let mut identities: Vec<_> = told.iter().map(|flow| flow.flow_id).collect();
    identities.sort_unstable();
    identities.dedup();
    assert_eq!((identities.len(), told.len()), (5, 5));
}
