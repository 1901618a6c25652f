//! What hostile input has broken, each with a sentence of what was wrong.

use onenet_core::{flow::FlowConfig, record::FlowRecord};
use onenet_tests::craft::{Ip, frame};

/// Flows of packets at these seconds, in a table for `max_flows`.
fn flows(max_flows: u32, packets: &[(i64, Vec<u8>)]) -> Vec<FlowRecord> {
    crate::kit::sense(FlowConfig { max_flows, ..FlowConfig::default() }, packets).0
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
