//! docs/limits.md against memory: each table is filled to its default limit, and what it takes from the allocator is
//! what the sheet says, within 15 %.

#![expect(clippy::panic, reason = "a test stops where it finds what it did not expect")]

use std::{
    alloc::System,
    net::{IpAddr, Ipv4Addr},
};

use onenet_core::{
    decode::{ArpOperation, ArpPacket, Fragment, InterfaceIndex, IpPacket, Link, TcpSegment, Transport},
    detect::{DetectConfig, Detector},
    findings::Desk,
    flow::{
        FlowConfig, FlowContext, FlowEvent, FlowHost, FlowPacket, FlowTable, Integrity, Offload, Origin,
        PacketPlace, Party, SidePlace,
    },
    ipam::{ObserveConfig, Observer, OverlapConfig, OverlapTracker, Places, Seen},
    net::{MacAddress, Name},
    plan::{AddressPlan, Role},
    record::{ConnState, FlowId, FlowRecord, Locality, Observation, ObservationKind, StackSample, Strength},
    time::Timestamp,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SHEET: &str = include_str!("../../docs/limits.md");
const SEED: [u64; 4] = [1, 2, 3, 4];

/// Bytes that the value made by `fill` holds.
fn held<T>(fill: impl FnOnce() -> T) -> f64 {
    let region = Region::new(ALLOCATOR);
    let value = fill();
    let change = region.change();
    drop(value);
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

/// A host that wants nothing and keeps nothing.
struct Nobody;

impl FlowHost for Nobody {
    fn side_place(&self, _: &Origin<'_>, _: &IpAddr, _: Option<MacAddress>) -> SidePlace {
        SidePlace::default()
    }

    fn role(&self, _: InterfaceIndex) -> Role {
        Role::Unknown
    }

    fn interface_name(&self, _: InterfaceIndex) -> Name {
        "eth0".into()
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

    fn event(&mut self, _: FlowEvent, _: &FlowContext) {}

    fn record(&mut self, _: &mut Box<FlowRecord>) {}
}

fn address(number: u32, v6: bool) -> IpAddr {
    let v4 = Ipv4Addr::from(number.wrapping_add(0x0b00_0000));
    if v6 { v4.to_ipv6_mapped().into() } else { v4.into() }
}

/// Gives a table one packet of each of so many flows.
fn flows(config: &FlowConfig, count: u32, v6: bool, transport: Transport, fragment: bool) -> FlowTable {
    let mut table = FlowTable::new(config, "boston".into(), "boston-1", SEED);
    let link = Link { source_mac: Some(MacAddress([2; 6])), ..Link::default() };
    for number in 0..count {
        let ip = IpPacket {
            source: address(number, v6),
            destination: address(u32::MAX / 2, v6),
            protocol: if matches!(transport, Transport::Tcp(_)) { 6 } else { 17 },
            ttl: 64,
            dscp: 0,
            ip_bytes: 60,
            payload_bytes: 0,
            estimated: false,
            fragment: fragment.then_some(Fragment {
                key_protocol: 17,
                identification: number,
                offset: 100,
                more: true,
            }),
            transport: if fragment { Transport::None } else { transport },
            bytes: &[],
            header_bytes: 0,
            payload: &[],
        };
        let origin = Origin {
            interface: InterfaceIndex(0),
            link: &link,
            place: PacketPlace::default(),
            tunnel: None,
            parents: &[],
            leaving: None,
        };
        let packet = FlowPacket {
            time: Timestamp(i64::from(number) * 1000),
            wire_bytes: 60,
            ip: &ip,
            origin,
            integrity: Integrity::Sound,
            offload: Offload::default(),
        };
        table.observe(&packet, &mut Nobody);
    }
    table
}

fn tcp(flags: u16) -> Transport {
    let segment =
        TcpSegment { source: 1000, destination: 80, sequence: 1, acknowledgement: 1, flags, window: 100 };
    Transport::Tcp(segment)
}

fn observations(config: &ObserveConfig) -> Observer {
    let places = Places::new(&AddressPlan::default(), &Name::from("boston"), &[]);
    let mut observer = Observer::new("boston".into(), config, SEED);
    let link = Link { source_mac: Some(MacAddress([2; 6])), ..Link::default() };
    for number in 0..config.limit {
        let place = places.locate(InterfaceIndex(0), &link, None);
        let seen = Seen { now: Timestamp(number.into()), interface: InterfaceIndex(0), link: &link, place };
        let arp = ArpPacket {
            operation: ArpOperation::Request,
            sender_mac: MacAddress([2; 6]),
            sender_ip: Ipv4Addr::from(number.wrapping_add(0x0b00_0000)),
            target_mac: MacAddress([0; 6]),
            target_ip: Ipv4Addr::new(10, 255, 0, 1),
        };
        observer.on_arp(&seen, &arp, &places, &mut |_| {});
    }
    observer
}

/// Addresses that each opened a connection and are to be told again: with what their SYNs showed, and in the queue of reports.
fn hosts(config: &ObserveConfig) -> Observer {
    let places = Places::new(&AddressPlan::default(), &Name::from("boston"), &[]);
    let mut observer = Observer::new("boston".into(), config, SEED);
    let signature = "4:64:0:1460:64240,7:mss,sok,ts,nop,ws:df,id+:0";
    let stack = StackSample {
        signature: signature.parse().unwrap_or_else(|_| panic!("a signature")),
        timestamp: Some(7),
        ip_id: None,
    };
    for number in 0..config.limit {
        let source = IpAddr::from(Ipv4Addr::from(number.wrapping_add(0x0a00_0000)));
        let mut flow = context(number, source, address(0, false));
        (flow.originator.mac, flow.originator.packets_by_mac) = (Some(MacAddress([2; 6])), 2);
        (flow.role, flow.stack) = (Role::Unknown, Some(stack));
        observer.on_flow(FlowEvent::Started, &flow, &places, &mut |_| {});
        observer.on_flow(FlowEvent::Moved, &flow, &places, &mut |_| {});
    }
    assert_eq!(observer.counts().0, config.limit as usize);
    observer
}

/// Addresses with one use each.
fn uses(config: &OverlapConfig) -> OverlapTracker {
    let desk = Desk::new("boston".into(), std::sync::Arc::default());
    let mut tracker = OverlapTracker::new(config, SEED);
    let place = (Name::from("boston"), Name::from("inside0"));
    let space = Name::from("eohhs");
    for number in 0..config.limit {
        let ip = IpAddr::from(Ipv4Addr::from(number.wrapping_add(0x0a00_0000)));
        let now = Timestamp(number.into());
        let (kind, strength) = (ObservationKind::Traffic, Strength::Medium);
        let of = Observation::of(kind, strength, ip, space.clone(), place.clone(), now);
        let observation =
            Observation { secretariat: Some(space.clone()), mac: Some(MacAddress([2; 6])), ..of };
        tracker.on_observation(&observation, now, &desk, &mut |_| {});
    }
    assert_eq!(tracker.counts(), (config.limit as usize, 0));
    tracker
}

/// What the flow table tells of a flow of TCP from one address to another.
fn context(number: u32, source: IpAddr, target: IpAddr) -> FlowContext {
    let party = |ip, packets, locality| Party {
        ip,
        port: 443,
        packets,
        packets_by_mac: packets,
        ip_bytes: 60,
        ttl_min: 64,
        ttl_max: 64,
        locality,
        ..Party::default()
    };
    let now = Timestamp(i64::from(number) * 1000);
    FlowContext {
        identity: FlowId(number.into()).into(),
        protocol: 6,
        originator: party(source, 1, Locality::Inside),
        responder: party(target, 1, Locality::Outside),
        conn_state: ConnState::S0,
        syn_seen: true,
        start: now,
        last: now,
        now,
        interface: InterfaceIndex(0),
        role: Role::Inside,
        vlans: std::iter::empty().collect(),
        tunnelled: false,
        leaving: None,
        by_originator: Some(true),
        stack: None,
    }
}

/// Gives the rules one event of each of so many sources or targets.
fn rules(config: &DetectConfig, count: u32, event: FlowEvent, of_targets: bool) -> Detector {
    let plan = std::sync::Arc::new(AddressPlan::default());
    let places = Places::new(&plan, &Name::from("boston"), &[]);
    let mut detector = Detector::new("boston".into(), plan, config, SEED);
    for number in 0..count {
        let (one, many) = (address(u32::MAX / 2, false), address(number, false));
        let (source, target) = if of_targets { (one, many) } else { (many, one) };
        detector.on_flow(event, &context(number, source, target), &places, &mut |_| {});
    }
    detector
}

/// The rules with all but one switched off.
fn only(rule: &str) -> DetectConfig {
    let mut config = DetectConfig::default();
    config.scan.horizontal = rule == "scan";
    config.scan.vertical = rule == "scan";
    config.flood.enabled = rule == "flood";
    config.beacon.enabled = false;
    config.leak.enabled = false;
    config.spoof.enabled = false;
    config
}

/// MiB at the default limit that the sheet states for a row.
fn stated(row: &str) -> f64 {
    let line = SHEET.lines().find(|line| line.starts_with(&format!("| {row} |")));
    let cells: Vec<&str> =
        line.unwrap_or_else(|| panic!("docs/limits.md has no row {row}")).split('|').collect();
    cells[5].trim().parse().unwrap_or_else(|_| panic!("docs/limits.md, {row}: MiB"))
}

#[test]
fn tables_at_their_limits_take_what_the_sheet_says() {
    let (flow, detect) = (FlowConfig::default(), DetectConfig::default());
    let datagrams = Transport::Ports { source: 1000, destination: 53 };
    let (count, attempts) = (flow.max_flows, flow.max_attempts);
    let measured = [
        ("flow.max_flows, UDP over IPv4", held(|| flows(&flow, count, false, datagrams, false))),
        ("flow.max_flows, UDP over IPv6", held(|| flows(&flow, count, true, datagrams, false))),
        ("flow.max_flows, TCP over IPv4", held(|| flows(&flow, count, false, tcp(0x10), false))),
        ("flow.max_attempts", held(|| flows(&flow, attempts, false, tcp(2), false))),
        (
            "flow.max_fragmented_datagrams",
            held(|| flows(&flow, flow.max_fragmented_datagrams, false, datagrams, true)),
        ),
        ("detect.observe.limit", held(|| observations(&detect.observe))),
        ("detect.observe.limit, as of hosts", held(|| hosts(&detect.observe))),
        ("detect.overlap.limit", held(|| uses(&detect.overlap))),
        ("detect.scan.limit", held(|| rules(&only("scan"), detect.scan.limit, FlowEvent::Unanswered, false))),
        ("detect.flood.limit", held(|| rules(&only("flood"), detect.flood.limit, FlowEvent::Started, true))),
    ];
    for (row, bytes) in &measured {
        eprintln!("{row}: {:.1} MiB", bytes / f64::from(1 << 20));
    }
    for (row, bytes) in measured {
        let (mib, sheet) = (bytes / f64::from(1 << 20), stated(row));
        assert!((mib / sheet - 1.0).abs() <= 0.15, "{row}: {mib:.1} MiB, the sheet says {sheet}");
    }
}
