//! Flows whose packets were counted in a kernel are those whose packets all came: every capture once packet by packet,
//! and once by the model of the kernel's meter.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use onenet_agent::source::CaptureSet;
use onenet_core::{
    decode::InterfaceIndex,
    detect::DetectConfig,
    flow::FlowConfig,
    plan::{InterfacePlan, Role},
    record::{FindingChange, FlowRecord, FlowSide, Ledger, Observation, RecordSink},
    sensor::{Sensor, SensorConfig},
    time::NANOS_PER_SECOND,
};
use onenet_tests::meter::{Meter, Punting};

use crate::kit::{captures_directory, say};

/// Keeps flows and the keys of findings.
#[derive(Default)]
struct Kept {
    flows: Vec<FlowRecord>,
    findings: BTreeMap<String, u64>,
}

impl RecordSink for Kept {
    fn flow(&mut self, record: &FlowRecord) {
        self.flows.push(record.clone());
    }

    fn observation(&mut self, _: &Observation) {}

    fn finding(&mut self, change: &FindingChange) {
        *self.findings.entry(change.key.clone()).or_default() += 1;
    }
}

/// What of a side is the same however its packets came.
fn side(side: &FlowSide) -> String {
    format!(
        "{}:{} {} packets {} wire {} ip {} payload {} fragments flags {:x} ttl {:?}-{:?} dscp {:?} mac {:?} {:?}",
        side.ip,
        side.port,
        side.packets,
        side.wire_bytes,
        side.ip_bytes,
        side.payload_bytes,
        side.fragments,
        side.tcp_flags,
        side.ttl_min,
        side.ttl_max,
        side.dscp,
        side.mac,
        side.locality,
    )
}

/// Every flow in what is the same, with how often it is there.
fn rows(flows: &[FlowRecord], with_state: bool) -> BTreeMap<String, u64> {
    let mut rows = BTreeMap::new();
    for flow in flows {
        let state = if with_state { format!("{:?}", flow.conn_state) } else { String::new() };
        let row = format!(
            "{} {:?} {:?} {} {} {} {:?} {state} {:?} {:?}",
            flow.protocol,
            flow.start,
            flow.end,
            side(&flow.originator),
            side(&flow.responder),
            flow.interface,
            flow.vlans,
            flow.tunnel,
            flow.end_reason,
        );
        *rows.entry(row).or_default() += 1;
    }
    rows
}

fn sensor() -> Sensor {
    let mut sensor = Sensor::new(SensorConfig {
        site: "boston".into(),
        sensor: "boston-1".into(),
        plan: Default::default(),
        flow: FlowConfig::default(),
        detect: DetectConfig::default(),
        hash_seed: [1, 2, 3, 4],
    })
    .expect("the plan is sound");
    sensor.add_interface(InterfacePlan { name: "tap".into(), role: Role::Inside, router_macs: Vec::new() });
    sensor
}

const TAP: InterfaceIndex = InterfaceIndex(0);

/// Whether a capture is as one interface has its packets: of one kind of link, and in order of time.
fn is_of_one_wire(capture: &Path) -> bool {
    let mut packets = CaptureSet::open(&[capture.to_path_buf()], None);
    let mut before = None;
    while let Some(packet) = packets.next(&mut |_| TAP) {
        let follows =
            before.is_none_or(|(time, link_type)| packet.time >= time && packet.link_type == link_type);
        if !follows {
            return false;
        }
        before = Some((packet.time, packet.link_type));
    }
    true
}

/// Reads a capture, all packets or by a meter; gives packets counted too.
fn read(capture: &Path, punting: Option<Punting>) -> (Kept, Ledger, u64) {
    let (mut sensor, mut kept) = (sensor(), Kept::default());
    let mut packets = CaptureSet::open(&[capture.to_path_buf()], None);
    let mut meter = punting.map(|punting| Meter::new(punting, TAP, NANOS_PER_SECOND));
    while let Some(packet) = packets.next(&mut |_| TAP) {
        match &mut meter {
            Some(meter) => meter.take(&packet, &mut sensor, &mut kept),
            None => sensor.handle_packet(&packet, &mut kept),
        }
    }
    if let Some(meter) = &mut meter {
        meter.tell(&mut sensor, &mut kept);
    }
    sensor.finish(&mut kept);
    let ledger = sensor.ledger().clone();
    (kept, ledger, meter.map_or(0, |meter| meter.packets_counted))
}

/// Packets and bytes by protocol and sender, over all flows.
fn sums(flows: &[FlowRecord]) -> BTreeMap<(u8, IpAddr, u16), (u64, u64, u64)> {
    let mut sums = BTreeMap::new();
    for flow in flows {
        for side in [&flow.originator, &flow.responder].into_iter().filter(|side| side.packets > 0) {
            let sum: &mut (u64, u64, u64) = sums.entry((flow.protocol, side.ip, side.port)).or_default();
            *sum = (sum.0 + side.packets, sum.1 + side.wire_bytes, sum.2 + side.ip_bytes);
        }
    }
    sums
}

/// How far two ways of reading agree.
#[derive(Debug, Default)]
struct Figures {
    captures: usize,
    left_out: usize,
    packets: u64,
    counted: u64,
    rows: u64,
    rows_equal: u64,
    differences: Vec<String>,
}

impl Figures {
    fn add(&mut self, name: &str, ours: &BTreeMap<String, u64>, theirs: &BTreeMap<String, u64>) {
        for (row, &count) in theirs {
            let same = ours.get(row).map_or(0, |&mine| mine.min(count));
            self.rows += count;
            self.rows_equal += same;
            if same < count {
                self.differences.push(format!("{name}: {row}"));
            }
        }
    }
}

/// Reads every capture both ways. Ledgers, sums and findings must agree; rows are counted.
fn compare(what: &str, punting: Punting, with_state: bool) -> Option<Figures> {
    let directory = captures_directory();
    if !directory.is_dir() {
        say(&format!("SKIPPED: no captures at {}; nothing was compared", directory.display()));
        return None;
    }
    let mut figures = Figures::default();
    for entry in directory.read_dir().expect("the captures can be listed") {
        let path = entry.expect("the captures can be listed").path();
        if !path.is_file() || path.ends_with("EXPECTED.md") || path.ends_with("MANIFEST.tsv") {
            continue;
        }
        if !is_of_one_wire(&path) {
            figures.left_out += 1;
            continue;
        }
        let name = path.display().to_string();
        let (all, ledger, _) = read(&path, None);
        let (metered, metered_ledger, counted) = read(&path, Some(punting));
        let account =
            |ledger: &Ledger| (ledger.packets, ledger.wire_bytes, ledger.parsed, ledger.unparsed_total());
        assert_eq!(account(&metered_ledger), account(&ledger), "{name}");
        assert!(metered_ledger.balances(), "{name}");
        assert_eq!(sums(&metered.flows), sums(&all.flows), "{name}");
        assert!(metered.findings.keys().eq(all.findings.keys()), "{name}");
        figures.add(&name, &rows(&metered.flows, with_state), &rows(&all.flows, with_state));
        figures.captures += 1;
        figures.packets += ledger.packets;
        figures.counted += counted;
    }
    let Figures { captures, left_out, packets, counted, rows, rows_equal, .. } = &figures;
    say(&format!(
        "{what}: {rows_equal} of {rows} flows the same in {captures} captures, {counted} of {packets} packets counted \
         (left out {left_out} captures of several links or with time going back)"
    ));
    Some(figures)
}

#[test]
fn flows_are_the_same_where_most_of_their_packets_are_counted_in_the_kernel() {
    let punting = Punting { first: 4, control: true, icmp: true };
    let Some(figures) = compare("counted behind the first packets", punting, true) else { return };
    assert!(figures.counted * 4 > figures.packets, "{} packets were counted", figures.counted);
    // Which of a sender's stations is its latest is not known of two that were counted in one interval.
    let different = figures.rows - figures.rows_equal;
    assert!(different <= 1, "{}", figures.differences.join("\n"));
}

#[test]
fn flows_are_the_same_but_for_some_that_began_anew_where_all_their_packets_are_counted_in_the_kernel() {
    let punting = Punting { first: 0, control: false, icmp: false };
    let Some(figures) = compare("counted from the first packet on", punting, false) else { return };
    assert!(figures.counted * 4 > figures.packets * 3, "{} packets were counted", figures.counted);
    // Ports that were used twice within one interval are one flow.
    let different = figures.rows - figures.rows_equal;
    assert!(different * 500 <= figures.rows, "{}", figures.differences.join("\n"));
}
