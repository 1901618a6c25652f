//! What the tests of this folder share: figures past the test runner, and packets out of `../shared/captures`.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use onenet_agent::source::Capture;
use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType},
    flow::FlowConfig,
    record::{FindingChange, FlowRecord, Ledger, Observation, RecordSink},
    sensor::{Sensor, SensorConfig},
    time::Timestamp,
};

/// Prints past the test runner, which keeps to itself what tests that pass print.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Captured files, in order; none, and said so, where they are not there.
pub(crate) fn captures() -> Vec<PathBuf> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package");
    let directory = workspace.join("../shared/captures");
    let Ok(entries) = directory.read_dir() else {
        say(&format!("SKIPPED: no captures at {}; only generated packets are used", directory.display()));
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the captures can be listed").path())
        .filter(|path| path.is_file() && !path.ends_with("EXPECTED.md") && !path.ends_with("MANIFEST.tsv"))
        .collect();
    files.sort();
    files
}

/// Packets out of one capture, spread over it: at most `most`, each at most `longest` bytes.
pub(crate) fn packets(file: &Path, most: usize, longest: usize) -> Vec<(LinkType, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(mut capture) = Capture::open(file) else { return found };
    let mut skip = 1;
    let mut number = 0_usize;
    while let Ok(true) = capture.advance() {
        number += 1;
        if !number.is_multiple_of(skip) {
            continue;
        }
        let Some(packet) = capture.packet() else { break };
        found.push((packet.link_type, packet.data[..packet.data.len().min(longest)].to_vec()));
        if found.len() >= 2 * most {
            // Every second one goes, and from here on one of twice as many is taken.
            let mut keep = false;
            found.retain(|_| {
                keep = !keep;
                keep
            });
            skip *= 2;
        }
    }
    found.truncate(most);
    found
}

#[derive(Default)]
struct Flows(Vec<FlowRecord>);

impl RecordSink for Flows {
    fn flow(&mut self, record: &FlowRecord) {
        self.0.push(record.clone());
    }

    fn observation(&mut self, _: &Observation) {}

    fn finding(&mut self, _: &FindingChange) {}
}

/// What a sensor makes of Ethernet frames at these seconds: flows and account.
pub(crate) fn sense(flow: FlowConfig, packets: &[(i64, Vec<u8>)]) -> (Vec<FlowRecord>, Ledger) {
    let mut sensor = Sensor::new(SensorConfig {
        site: "boston".into(),
        sensor: "boston-1".into(),
        plan: Default::default(),
        flow,
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
    (sink.0, sensor.ledger().clone())
}
