//! Flows as they are compared: what the sender knows, what a sensor told, and what `read` makes of a capture.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use onenet_core::{
    decode::{self, CapturedPacket, Content, InterfaceIndex, LinkDirection, LinkType, TcpSegment, Transport},
    record::FlowRecord,
    time::Timestamp,
};
use serde_json::Value;

use crate::harness::{Lab, call, text};

/// Protocol, sender, receiver.
pub(super) type Way = (u8, (IpAddr, u16), (IpAddr, u16));

/// Packets and bytes of IP packets.
pub(super) type Sums = BTreeMap<Way, (u64, u64)>;

/// What frames are, by way; those that are no IP packets are left out.
pub(super) fn truth(frames: &[Vec<u8>]) -> Sums {
    let mut sums = Sums::new();
    for frame in frames {
        let packet = CapturedPacket {
            time: Timestamp(0),
            interface: InterfaceIndex(0),
            link_type: LinkType::ETHERNET,
            direction: LinkDirection::Unknown,
            wire_length: u32::try_from(frame.len()).expect("a short frame"),
            data: frame,
        };
        let Ok(decode::Decoded { content: Content::Ip(ip), .. }) = decode::decode(&packet) else { continue };
        let (source, destination) = match ip.transport {
            Transport::Tcp(TcpSegment { source, destination, .. })
            | Transport::Ports { source, destination } => (source, destination),
            // What pairs and what has no ports has its own tests.
            Transport::Icmp { .. } | Transport::None => continue,
        };
        let sum = sums.entry((ip.protocol, (ip.source, source), (ip.destination, destination))).or_default();
        *sum = (sum.0 + 1, sum.1 + u64::from(ip.ip_bytes));
    }
    sums
}

/// The sums of flow records, for the protocols that the truth knows.
pub(super) fn sums(flows: &[FlowRecord]) -> Sums {
    let mut sums = Sums::new();
    // What is inside tunnels was sent with its tunnel.
    let sent = |flow: &&FlowRecord| matches!(flow.protocol, 6 | 17) && flow.tunnel.is_none();
    for flow in flows.iter().filter(sent) {
        for (from, to) in [(&flow.originator, &flow.responder), (&flow.responder, &flow.originator)] {
            // Later fragments without a first one have no ports, and are in no truth.
            if from.packets > 0 && (from.port, to.port) != (0, 0) {
                let sum = sums.entry((flow.protocol, (from.ip, from.port), (to.ip, to.port))).or_default();
                *sum = (sum.0 + from.packets, sum.1 + from.ip_bytes);
            }
        }
    }
    sums
}

/// Fails where two sums differ, with what is in one and not in the other.
pub(super) fn assert_same(what: &str, ours: &Sums, truth: &Sums) {
    let only = |these: &Sums, those: &Sums| -> Vec<String> {
        let differs = |(way, sum): &(&Way, &(u64, u64))| those.get(*way) != Some(*sum);
        these.iter().filter(differs).take(20).map(|entry| format!("{entry:?}")).collect()
    };
    let (more, less) = (only(ours, truth), only(truth, ours));
    assert!(more.is_empty() && less.is_empty(), "{what}: told {}\nsent {}", more.join("\n"), less.join("\n"));
}

/// What of a flow is the same however it was captured.
pub(super) fn row(flow: &FlowRecord) -> String {
    let side = |side: &onenet_core::record::FlowSide| {
        let onenet_core::record::FlowSide { ip, port, packets, wire_bytes, ip_bytes, payload_bytes, .. } =
            side;
        format!("{ip}:{port} {packets}/{wire_bytes}/{ip_bytes}/{payload_bytes} {:x}", side.tcp_flags)
    };
    let (one, other) = (side(&flow.originator), side(&flow.responder));
    format!("{} {one} > {other} {:?} {:?} {:?}", flow.protocol, flow.conn_state, flow.direction, flow.vlans)
}

/// Rows with how often each is there.
pub(super) fn rows(flows: &[FlowRecord]) -> BTreeMap<String, u32> {
    let mut rows = BTreeMap::new();
    for flow in flows {
        *rows.entry(row(flow)).or_default() += 1;
    }
    rows
}

/// What is only in one of the two, for people.
pub(super) fn difference(one: &BTreeMap<String, u32>, other: &BTreeMap<String, u32>) -> String {
    let only = |these: &BTreeMap<String, u32>, those: &BTreeMap<String, u32>| -> Vec<String> {
        these
            .iter()
            .filter(|(row, count)| those.get(*row) != Some(count))
            .map(|(row, _)| row.clone())
            .collect()
    };
    format!(
        "only in one:\n{}\nonly in the other:\n{}",
        only(one, other).join("\n"),
        only(other, one).join("\n")
    )
}

/// Every flow that a sensor has told the collector.
pub(super) fn told(lab: &Lab, sensor: &str) -> Vec<FlowRecord> {
    let mut flows = Vec::new();
    let mut after = String::new();
    loop {
        let page = lab.get(&format!("/api/v1/flows?limit=1000&sensor={sensor}{after}"));
        let items = page["items"].as_array().expect("items");
        flows.extend(items.iter().map(|item| -> FlowRecord {
            serde_json::from_value(item.clone()).unwrap_or_else(|error| panic!("{error}: {item}"))
        }));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return flows,
        }
    }
}

/// What `read` makes of a capture under an agent's configuration: flows, and the keys of its findings.
pub(super) fn read(config: &Path, capture: &Path, interface: &str) -> (Vec<FlowRecord>, BTreeSet<String>) {
    let arguments = ["read", "--quiet", "--config", text(config), "--interface", interface];
    let lines = |output: &str| -> Vec<Value> {
        let told = call("onenet-agent", &[&arguments[..], &[output, "-", text(capture)]].concat()).success();
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let flows =
        lines("--flows").into_iter().map(|line| serde_json::from_value(line).expect("a flow")).collect();
    let findings = lines("--findings");
    (flows, findings.iter().map(|finding| finding["key"].as_str().expect("a key").to_owned()).collect())
}
