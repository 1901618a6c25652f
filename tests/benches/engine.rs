//! The parts of the engine by themselves, on a small capture of ordinary traffic that is made when the benchmark
//! starts: decode, lookup, update, expiry and encode, and all of them together.

#![expect(clippy::expect_used, reason = "a benchmark may stop where it finds what it did not expect")]

use std::{hint::black_box, net::IpAddr, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use onenet_core::{
    decode::{
        CapturedPacket, Content, Decoded, InterfaceIndex, IpPacket, LinkDirection, LinkType, Transport,
        decode,
    },
    detect::DetectConfig,
    flow::{
        FlowConfig, FlowContext, FlowEvent, FlowHost, FlowPacket, FlowTable, Integrity, Origin, PacketPlace,
        SidePlace, TOGETHER,
    },
    net::{MacAddress, Name},
    plan::{AddressPlan, InterfacePlan, Role},
    record::{FindingChange, FlowRecord, Observation, RecordSink},
    sensor::{Sensor, SensorConfig},
    time::Timestamp,
};
use onenet_proto::v1;
use onenet_tests::load::mix;

const SEED: [u64; 4] = [1, 2, 3, 4];

/// Packets of a capture: time and frame.
fn packets() -> Vec<(Timestamp, Vec<u8>)> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mix.pcap");
    mix::write(&path, 1, 2_000, 8).expect("a capture");
    let bytes = std::fs::read(&path).expect("the capture");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four octets"));
    let mut packets = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let length = word(at + 8) as usize;
        let time = Timestamp::from_parts(word(at).into(), i64::from(word(at + 4)) * 1_000);
        packets.push((time, bytes[at + 16..at + 16 + length].to_vec()));
        at += 16 + length;
    }
    packets
}

fn captured(packet: &(Timestamp, Vec<u8>)) -> CapturedPacket<'_> {
    CapturedPacket {
        time: packet.0,
        interface: InterfaceIndex(0),
        link_type: LinkType(1),
        direction: LinkDirection::Unknown,
        wire_length: u32::try_from(packet.1.len()).expect("a frame"),
        data: &packet.1,
    }
}

fn decoded(packets: &[(Timestamp, Vec<u8>)]) -> Vec<(Timestamp, Decoded<'_>)> {
    packets.iter().map(|packet| (packet.0, decode(&captured(packet)).expect("a packet"))).collect()
}

fn of_flow<'a>(time: Timestamp, decoded: &'a Decoded<'a>, ip: &'a IpPacket<'a>) -> FlowPacket<'a> {
    let origin = Origin {
        interface: InterfaceIndex(0),
        link: &decoded.link,
        place: PacketPlace::default(),
        tunnel: None,
        parents: &[],
        leaving: None,
    };
    FlowPacket { time, wire_bytes: ip.ip_bytes + 14, ip, origin, integrity: Integrity::default() }
}

/// Surroundings of a flow table that keep the last record and nothing else.
#[derive(Default)]
struct Host {
    records: u64,
    last: Option<FlowRecord>,
}

impl FlowHost for Host {
    fn side_place(&self, _: &Origin<'_>, _: &IpAddr, _: Option<MacAddress>) -> SidePlace {
        SidePlace::default()
    }

    fn role(&self, _: InterfaceIndex) -> Role {
        Role::Unknown
    }

    fn interface_name(&self, _: InterfaceIndex) -> Name {
        "bench".into()
    }

    fn scope_name(&self, _: u16, _: u16) -> Name {
        "unknown".into()
    }

    fn segment_name(&self, _: u16) -> Option<Name> {
        None
    }

    fn secretariat_name(&self, _: u16) -> Option<Name> {
        None
    }

    fn event(&mut self, event: FlowEvent, _: &FlowContext) {
        black_box(event);
    }

    fn record(&mut self, record: &mut Box<FlowRecord>) {
        self.records += 1;
        if self.last.is_none() && record.responder.packets > 0 {
            self.last = Some(FlowRecord::clone(record));
        }
        black_box(record);
    }
}

fn table() -> FlowTable {
    FlowTable::new(&FlowConfig::default(), "bench".into(), "bench", SEED)
}

/// A table that has seen every packet.
fn filled(packets: &[(Timestamp, Decoded<'_>)]) -> FlowTable {
    let (mut table, mut host) = (table(), Host::default());
    for (time, decoded) in packets {
        if let Content::Ip(ip) = &decoded.content {
            table.observe(&of_flow(*time, decoded, ip), &mut host);
        }
    }
    table
}

fn parts(c: &mut Criterion) {
    let raw = packets();
    let all = decoded(&raw);
    let mut group = c.benchmark_group("engine");
    group.measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1)).sample_size(30);
    group.throughput(Throughput::Elements(raw.len() as u64));

    group.bench_function("decode", |b| {
        b.iter(|| raw.iter().filter(|packet| decode(black_box(&captured(packet))).is_ok()).count());
    });

    let mut looked_up = filled(&all);
    group.bench_function("lookup", |b| {
        let mut together = Vec::with_capacity(TOGETHER);
        b.iter(|| {
            for some in all.chunks(TOGETHER) {
                together.clear();
                together.extend(some.iter().filter_map(|(time, decoded)| match &decoded.content {
                    Content::Ip(ip) => looked_up.address(&of_flow(*time, decoded, ip)),
                    Content::Arp(_) => None,
                }));
                black_box(looked_up.find_together(black_box(&together)));
            }
        });
    });

    // Data of live connections: no flow begins or ends, and no event is told.
    let end = all.last().expect("packets").0;
    let data: Vec<_> = all
        .iter()
        .filter(|(_, decoded)| match &decoded.content {
            Content::Ip(ip) => matches!(&ip.transport, Transport::Tcp(tcp) if tcp.flags & 0x07 == 0),
            Content::Arp(_) => false,
        })
        .collect();
    let mut updated = filled(&all);
    let mut host = Host::default();
    for (_, decoded) in &data {
        if let Content::Ip(ip) = &decoded.content {
            updated.observe(&of_flow(end, decoded, ip), &mut host);
        }
    }
    group.throughput(Throughput::Elements(data.len() as u64));
    group.bench_function("update", |b| {
        b.iter(|| {
            for (_, decoded) in &data {
                if let Content::Ip(ip) = &decoded.content {
                    black_box(updated.observe(&of_flow(end, decoded, ip), &mut host));
                }
            }
        });
    });

    let mut host = Host::default();
    group.throughput(Throughput::Elements(filled(&all).len() as u64));
    group.bench_function("expiry", |b| {
        b.iter_batched(
            || filled(&all),
            |mut table| {
                table.advance(end.plus(4_000 * 1_000_000_000), &mut host);
                table
            },
            BatchSize::LargeInput,
        );
    });

    let record = host.last.expect("a record");
    group.throughput(Throughput::Elements(1));
    let mut out = Vec::with_capacity(4096);
    group.bench_function("encode as JSON", |b| {
        b.iter(|| {
            out.clear();
            serde_json::to_writer(&mut out, black_box(&record)).expect("a record");
            out.len()
        });
    });
    group.bench_function("encode as protobuf", |b| {
        b.iter(|| {
            out.clear();
            prost::Message::encode(&v1::Flow::from(black_box(&record)), &mut out).expect("a record");
            out.len()
        });
    });
    group.finish();
}

/// Counts what it is given.
#[derive(Default)]
struct Count(u64);

impl RecordSink for Count {
    fn flow(&mut self, record: &FlowRecord) {
        black_box(record);
        self.0 += 1;
    }

    fn observation(&mut self, observation: &Observation) {
        black_box(observation);
        self.0 += 1;
    }

    fn finding(&mut self, change: &FindingChange) {
        black_box(change);
        self.0 += 1;
    }
}

fn whole(c: &mut Criterion) {
    let raw = packets();
    let mut group = c.benchmark_group("engine");
    group.measurement_time(Duration::from_secs(5)).sample_size(20);
    group.throughput(Throughput::Elements(raw.len() as u64));
    group.bench_function("sensor, from packets to records", |b| {
        b.iter_batched(
            || {
                let mut sensor = Sensor::new(SensorConfig {
                    site: "bench".into(),
                    sensor: "bench".into(),
                    plan: AddressPlan::default().into(),
                    flow: FlowConfig::default(),
                    detect: DetectConfig::default(),
                    hash_seed: SEED,
                })
                .expect("a sensor");
                let interface =
                    InterfacePlan { name: "bench".into(), role: Role::Unknown, router_macs: vec![] };
                sensor.add_interface(interface);
                sensor
            },
            |mut sensor| {
                let mut count = Count::default();
                for packet in &raw {
                    sensor.handle_packet(&captured(packet), &mut count);
                }
                sensor.finish(&mut count);
                (count.0, sensor)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, parts, whole);
criterion_main!(benches);
