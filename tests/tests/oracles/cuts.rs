//! Captures that are cut anywhere: what comes before the cut counts, the ledger balances, and the error names the
//! byte.

use std::{
    fs,
    io::{Cursor, Read},
    path::PathBuf,
    sync::Arc,
};

use flate2::{Compression, read::GzEncoder};
use onenet_agent::source::Capture;
use onenet_core::{
    decode::CapturedPacket,
    detect::DetectConfig,
    flow::FlowConfig,
    plan::{AddressPlan, InterfacePlan, Role},
    record::{FindingChange, FlowRecord, Observation, RecordSink},
    sensor::{Sensor, SensorConfig},
};

use crate::kit::{captures_directory, say};

/// Captures that are cut, evenly out of all that are not too large.
const CAPTURES: usize = 20;
/// Larger ones are left to the test of whole captures.
const MAX_BYTES: u64 = 200_000;
/// Cuts of each; of one with fewer bytes every one.
const CUTS: usize = 300;

/// Packets of the outermost flows.
#[derive(Default)]
struct Flows(u64);

impl RecordSink for Flows {
    fn flow(&mut self, record: &FlowRecord) {
        if record.tunnel_parents.is_empty() {
            self.0 += record.originator.packets + record.responder.packets;
        }
    }

    fn observation(&mut self, _: &Observation) {}

    fn finding(&mut self, _: &FindingChange) {}
}

fn sensor() -> Sensor {
    Sensor::new(SensorConfig {
        site: "t".into(),
        sensor: "t".into(),
        plan: Arc::new(AddressPlan::default()),
        flow: FlowConfig::default(),
        detect: DetectConfig::default(),
        hash_seed: [3; 4],
    })
    .expect("a sensor")
}

/// Reads bytes as `read` does: packets, and the error at the end.
fn read(bytes: &[u8]) -> Result<(u64, Option<String>), String> {
    let mut capture = match Capture::from_reader("cut", Box::new(Cursor::new(bytes.to_vec()))) {
        Ok(capture) => capture,
        Err(error) => return Ok((0, Some(error.to_string()))),
    };
    let (mut sensor, mut flows, mut packets) = (sensor(), Flows::default(), 0);
    let interface = sensor.add_interface(InterfacePlan {
        name: "i".into(),
        role: Role::Unknown,
        router_macs: Vec::new(),
    });
    let error = loop {
        match capture.advance() {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(error.to_string()),
        }
        let Some(packet) = capture.packet() else { return Err("a packet without an interface".to_owned()) };
        packets += 1;
        sensor.handle_packet(
            &CapturedPacket {
                time: packet.time,
                interface,
                link_type: packet.link_type,
                direction: packet.direction,
                wire_length: packet.wire_length,
                data: packet.data,
            },
            &mut flows,
        );
    };
    sensor.finish(&mut flows);
    let ledger = sensor.ledger();
    if !ledger.balances() || ledger.packets != packets || flows.0 > packets {
        return Err(format!("{packets} packets read, {} counted in flows, {ledger:?}", flows.0));
    }
    Ok((packets, error))
}

/// Captures to cut, and where they are.
fn sample() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = captures_directory()
        .read_dir()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= MAX_BYTES))
        .filter(|path| fs::read(path).is_ok_and(|bytes| read(&bytes).is_ok_and(|(packets, _)| packets > 0)))
        .collect();
    all.sort();
    let step = all.len().div_ceil(CAPTURES).max(1);
    all.into_iter().step_by(step).collect()
}

#[test]
fn captures_that_are_cut_anywhere_give_what_came_before_and_name_the_byte() {
    let captures = sample();
    if captures.is_empty() {
        say("SKIPPED: no captures to cut");
        return;
    }
    let (mut cuts, mut errors) = (0, 0);
    for (number, capture) in captures.iter().enumerate() {
        let name = capture.display();
        let mut bytes = fs::read(capture).expect("a capture");
        // Every fourth is packed: where it is cut, unpacking breaks.
        if number % 4 == 3 && !bytes.starts_with(&[0x1f, 0x8b]) {
            let plain = std::mem::take(&mut bytes);
            GzEncoder::new(&plain[..], Compression::fast())
                .read_to_end(&mut bytes)
                .expect("a packed capture");
        }
        let (whole, _) = read(&bytes).expect("a whole capture");
        let step = (bytes.len() / CUTS).max(1);
        let mut before = 0;
        for cut in (0..bytes.len()).step_by(step) {
            let read = read(&bytes[..cut]).map_err(|error| format!("{name} cut at {cut}: {error}"));
            let (packets, error) = read.expect("what is read is accounted for");
            assert!(
                (before..=whole).contains(&packets),
                "{name} cut at {cut}: {packets} packets after {before}"
            );
            before = packets;
            cuts += 1;
            if let Some(error) = error {
                errors += 1;
                let is_start = ["is empty", "is not a capture"].iter().any(|text| error.contains(text));
                let byte = error.split("broken at byte ").nth(1).and_then(|rest| rest.split(':').next());
                let offset = byte.and_then(|byte| byte.parse::<usize>().ok());
                let is_gzip = bytes.starts_with(&[0x1f, 0x8b]);
                // The byte is of what is unpacked.
                let named = offset.is_some_and(|offset| offset <= cut || is_gzip);
                assert!(is_start || named, "{name} cut at {cut}: {error}");
                assert_eq!(error.lines().count(), 1, "{name} cut at {cut}: {error}");
            }
        }
    }
    say(&format!(
        "{} captures cut at {cuts} places: no panic, ledgers balanced, {errors} errors with their byte",
        captures.len()
    ));
}
