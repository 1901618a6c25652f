//! The same packets by libpcap, by eBPF, and from a capture that was taken beside: the same flows, states and findings,
//! and an account that balances to the packet with the interface's own counters.

use std::{collections::BTreeSet, fs};

use onenet_core::record::FlowRecord;
use onenet_tests::{traffic::Options, wire::Wire};
use serde_json::Value;

use super::{
    Beside, bpf_permitted, counters,
    flows::{assert_same, difference, read, rows, sums, told, truth},
    inside, pair,
};
use crate::harness::{AgentConfig, Background, Edge, Lab, day, say, wait_for};

#[test]
fn libpcap_ebpf_and_a_capture_taken_beside_give_the_same() {
    inside("ways::in_the_lab", &pair("tap0", "wire0"));
}

/// A sensor and its agent.
struct Sensor {
    edge: Edge,
    agent: Background,
}

fn start(lab: &Lab, captures: &std::path::Path, kind: &str) -> Sensor {
    let edge = lab.enrol(AgentConfig {
        sensor: format!("by-{kind}"),
        site: "boston".into(),
        plan: Some(captures.join("plan.toml")),
        top: "heartbeat_seconds = 1\n".into(),
        tables: format!(
            "[[source]]\nkind = \"{kind}\"\ninterface = \"tap0\"\n\n\
             [[interface]]\nname = \"tap0\"\nrole = \"inside\"\nrouter_macs = [\"00:1b:54:b0:00:01\"]\n"
        ),
    });
    let agent = edge.start(&[]);
    Sensor { edge, agent }
}

/// Frames of a capture file, as long as the wire takes them.
fn frames(capture: &std::path::Path, most: usize) -> Vec<Vec<u8>> {
    let capture = fs::read(capture).expect("a capture");
    let mut frames = Vec::new();
    let mut rest = &capture[24..];
    while rest.len() > 16 && frames.len() < most {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four octets")) as usize;
        if length <= 1514 {
            frames.push(rest[16..16 + length].to_vec());
        }
        rest = &rest[16 + length..];
    }
    frames
}

fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

#[test]
#[ignore = "runs in the namespaces that libpcap_ebpf_and_a_capture_taken_beside_give_the_same makes"]
fn in_the_lab() {
    let (captures, _) = day(Options { seed: 1, scale: 0.3 });
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let kinds = if bpf_permitted() { vec!["pcap", "ebpf"] } else { vec!["pcap"] };
    let mut sensors: Vec<Sensor> = kinds.iter().map(|kind| start(&lab, &captures, kind)).collect();
    for sensor in &mut sensors {
        wait_for("the agent to run", || {
            assert!(sensor.agent.ended().is_none(), "{}", sensor.agent.log());
            sensor.edge.state_dir.join("status.json").is_file().then_some(())
        });
    }
    let beside = Beside::start("tap0", &lab.path("beside.pcap"));
    let (before, _) = counters("tap0");

    let frames = frames(&captures.join("boston-inside.pcap"), 60_000);
    Wire::open("wire0").and_then(|wire| wire.send(&frames, 40_000)).expect("sent");
    let (after, _) = counters("tap0");
    assert_eq!(after - before, frames.len() as u64, "the wire itself");
    beside.stop();
    for sensor in &mut sensors {
        assert!(sensor.agent.stop().success(), "{}", sensor.agent.log());
    }
    lab.settle();

    let truth = truth(&frames);
    let (read, findings) = read(&sensors[0].edge.config, &lab.path("beside.pcap"), "tap0");
    assert_same("the capture beside", &sums(&read), &truth);
    for sensor in &sensors {
        let name = &sensor.edge.sensor;
        let status = sensor.edge.status();
        let flows = told(&lab, name);
        assert_eq!(number(&status, "packets"), frames.len() as u64, "{name}: {status:#}");
        assert_eq!(
            number(&status, "packets"),
            number(&status, "parsed") + number(&status, "unparsed"),
            "{name}: {status:#}"
        );
        assert_eq!(number(&status, "dropped"), 0, "{name}: {status:#}");
        let account = &status["sources"][0]["account"];
        assert_eq!(account["unexplained"], 0, "{name}: {account:#}");
        assert_eq!(number(account, "captured"), number(account, "wire"), "{name}: {account:#}");
        assert_same(name, &sums(&flows), &truth);
        if name == "by-ebpf" {
            compare(name, &without_reused(&flows, &read), &without_reused(&read, &read));
        } else {
            compare(name, &flows, &read);
        }
        assert_eq!(findings_of(&lab, name), findings, "{name}");
    }
    println!(
        "LAB {} packets by {}: {} flows, {} findings, the same as read of a capture taken beside",
        frames.len(),
        kinds.join(" and "),
        read.len(),
        findings.len()
    );
}

/// Without connections whose ports were used again: what was counted of two within one interval is one. In the lab a
/// day passes in two seconds, so there are some; their sums are the same all the same.
fn without_reused(flows: &[FlowRecord], read: &[FlowRecord]) -> Vec<FlowRecord> {
    let ends = |flow: &FlowRecord| {
        let ends = [&flow.originator, &flow.responder].map(|side| (side.ip, side.port));
        (flow.protocol, ends.into_iter().min(), ends.into_iter().max())
    };
    // The first packets of a direction are handed on and not counted.
    let is_counted = |flow: &&FlowRecord| flow.originator.packets.max(flow.responder.packets) > 4;
    let mut seen = BTreeSet::new();
    let connections = read.iter().filter(|flow| flow.protocol == 6).filter(is_counted);
    let reused: BTreeSet<_> = connections.map(ends).filter(|ends| !seen.insert(*ends)).collect();
    assert!(reused.len() * 200 <= read.len(), "{} of {} are left out", reused.len(), read.len());
    flows.iter().filter(|flow| !reused.contains(&ends(flow))).cloned().collect()
}

/// Every flow is there once in each.
fn compare(name: &str, flows: &[FlowRecord], read: &[FlowRecord]) {
    let (ours, theirs) = (rows(flows), rows(read));
    let same: u32 = theirs.iter().map(|(row, count)| (*count).min(ours.get(row).copied().unwrap_or(0))).sum();
    say(&format!("{name}: {same} of {} flows the same", read.len()));
    assert_eq!(ours, theirs, "{name}: {}", difference(&ours, &theirs));
}

/// Keys of the findings that a sensor has told.
fn findings_of(lab: &Lab, sensor: &str) -> BTreeSet<String> {
    let all = lab.items("/api/v1/findings");
    let of_sensor = all.iter().filter(|finding| {
        finding["sources"].as_array().is_some_and(|sources| sources.iter().any(|source| *source == *sensor))
    });
    of_sensor.map(|finding| finding["key"].as_str().expect("a key").to_owned()).collect()
}
