//! What the tests of correlation, feeds, API and page share: records of two edges, and a store that holds them.

use std::sync::Arc;

use onenet_core::{
    net::{MacAddress, Name},
    plan::AddressPlan,
    record::{
        Change, DropStage, Evidence, FindingChange, FindingId, FlowId, Layer, Ledger, Observation,
        ObservationKind, Reason, RuleId, Severity, Strength, Subject,
    },
    time::Timestamp,
};
use onenet_proto::v1::{self, BatchBody, SealedBatch};
use prost::Message as _;
use tempfile::TempDir;

use crate::{
    config::InventoryConfig,
    correlate::{self, Judge},
    custody::SensorsConfig,
    store::{Cursor, Store, StoredBatch, Writer},
    testing::{self, Sensor, store_config},
};

/// 2026-11-21T08:00:00Z.
pub(crate) const EIGHT: i64 = 1_795_248_000;

/// A moment `seconds` after eight o'clock.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_parts(EIGHT + seconds, 0)
}

pub(crate) fn plan() -> Arc<AddressPlan> {
    let text = "secretariat = [{id='eohhs', contact='ipam@eohhs.example'},
                               {id='massdot', contact='ipam@massdot.example'}, {id='anf'}]";
    Arc::new(toml::from_str(text).expect("a plan"))
}

/// The same, ready to judge by.
pub(crate) fn judge() -> Judge {
    Judge::new(plan(), InventoryConfig::default())
}

/// An observation of `address` in the space (and secretariat) `space` at `site`.
pub(crate) fn observation(
    address: &str,
    space: &str,
    site: &str,
    kind: ObservationKind,
    seconds: i64,
) -> Observation {
    let strength = match kind {
        ObservationKind::Traffic => Strength::Medium,
        ObservationKind::ArpProbe => Strength::Weak,
        _ => Strength::Strong,
    };
    let [.., low] = address.bytes().collect::<Vec<_>>()[..] else { panic!("an address") };
    let place = (site.into(), "in0".into());
    let address = address.parse().expect("an address");
    Observation {
        secretariat: Some(space.into()),
        segment: Some(format!("{site}-{space}").into()),
        vlans: [120].into_iter().collect(),
        mac: Some(MacAddress([
            2,
            0x1b,
            0x21,
            u8::try_from(space.len()).expect("short"),
            site.as_bytes()[0],
            low,
        ])),
        packets: 1,
        ttl_min: Some(63),
        ttl_max: Some(64),
        ..Observation::of(kind, strength, address, space.into(), place, at(seconds))
    }
}

/// What a sensor at `site` tells of the incident `key`.
pub(crate) fn told(rule: RuleId, key: &str, site: &str, change: Change, seconds: i64) -> FindingChange {
    let key = format!("{rule}|{key}");
    FindingChange {
        finding_id: FindingId::of_key(&key),
        key,
        rule,
        rule_version: 1,
        change,
        revision: 0,
        time: at(seconds),
        first_seen: at(0),
        last_seen: at(seconds),
        severity: Severity::Medium,
        confidence: 70,
        summary: format!("told at {site}"),
        subject: Subject::default(),
        site: site.into(),
        interface: Some("out0".into()),
        address_spaces: Vec::new(),
        secretariats: Vec::new(),
        contacts: Vec::new(),
        evidence: Evidence::default(),
    }
}

/// A scan that one host does, with everything a finding can carry.
pub(crate) fn scan(site: &str, seconds: i64) -> FindingChange {
    let mut change = told(RuleId::ScanHorizontal, "10.48.7.23|22/6", site, Change::Raised, seconds);
    change.severity = Severity::High;
    change.confidence = 97;
    change.summary = "10.48.7.23 tried port 22 of 214 hosts, 211 of them in vain".to_owned();
    change.subject = Subject {
        source: Some("10.48.7.23".parse().expect("an address")),
        port: Some(22),
        protocol: Some(6),
        ..Subject::default()
    };
    change.address_spaces = vec!["eohhs".into()];
    change.secretariats = vec!["eohhs".into()];
    change.contacts = vec!["ipam@eohhs.example".into()];
    change.evidence.flow_ids = [FlowId(0x1234), FlowId(0x5678)].into_iter().collect();
    change.evidence.counts = [("failures".to_owned(), 211), ("targets".to_owned(), 214)].into();
    change.evidence.scores = [("likelihood_ratio".to_owned(), 4_096.5)].into();
    change
}

/// A body with these observations and finding changes.
pub(crate) fn body(observations: &[Observation], findings: &[FindingChange]) -> BatchBody {
    BatchBody {
        observations: observations.iter().map(v1::Observation::from).collect(),
        findings: findings.iter().map(v1::FindingChange::from).collect(),
        ..BatchBody::default()
    }
}

/// A batch as the store gives it, without the store.
pub(crate) fn stored(sensor: &str, number: i64, body: &BatchBody) -> StoredBatch {
    StoredBatch {
        cursor: Cursor { segment: 1, batch: number },
        sensor: sensor.into(),
        epoch: 1,
        sequence: number.cast_unsigned(),
        hash: [0; 32],
        header: Default::default(),
        body: body.encode_to_vec().into(),
        signature: Default::default(),
        received_at: at(100 + number),
        poison: None,
    }
}

/// A store with a control database and no segments, to correlate into.
pub(crate) fn control() -> (TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::attach(&store_config(&directory)).expect("a store");
    (directory, store)
}

/// A store that holds a morning of both edges, correlated.
pub(crate) struct Morning {
    pub(crate) store: Store,
    writer: Writer,
    _directory: TempDir,
}

/// A host name that would be markup, were it not escaped.
pub(crate) const HOSTILE: &str = "<script>alert('x')</script>";

impl Morning {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(&store_config(&directory)).expect("a store");
        let mut boston = Sensor::new("boston-1");
        let mut lowell = Sensor::new("lowell-1");
        boston.enter(&store);
        lowell.enter(&store);
        let morning = Self { store, writer, _directory: directory };
        let batch = boston.seal(&boston_body());
        morning.submit(&boston, &batch);
        let batch = lowell.seal(&lowell_body());
        morning.submit(&lowell, &batch);
        while correlate::step(&morning.store, &judge(), &SensorsConfig::default(), 16).expect("it correlates")
            > 0
        {}
        morning
    }

    fn submit(&self, sensor: &Sensor, batch: &SealedBatch) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let incoming = sensor.incoming(batch);
        runtime.block_on(async {
            let verdict = self.writer.handle().submit(incoming).await.expect("the writer runs");
            verdict.await.expect("a verdict");
        });
    }
}

fn ledger(packets: u64, unparsed: &[(Layer, Reason, u64)], dropped: u64, flows: u64) -> v1::Ledger {
    let mut ledger = Ledger::default();
    (ledger.packets, ledger.wire_bytes, ledger.flow_records) = (packets, packets * 713, flows);
    for &(layer, reason, count) in unparsed {
        ledger.add_unparsed(layer, reason, count);
    }
    ledger.parsed = packets - ledger.unparsed_total();
    ledger.arp = 3_112;
    ledger.set_dropped(DropStage::Kernel, dropped);
    v1::Ledger::from(&ledger)
}

fn boston_body() -> BatchBody {
    use ObservationKind::{ArpReply, Dhcp4Lease, Traffic};
    let mut observations = vec![
        observation("10.48.7.23", "eohhs", "boston", ArpReply, 10),
        observation("10.48.7.23", "eohhs", "boston", Traffic, 3_000),
        observation("192.168.10.5", "eohhs", "boston", ArpReply, 20),
        observation("192.168.10.5", "massdot", "boston", ArpReply, 30),
        observation("10.20.0.14", "anf", "boston", Traffic, 40),
        observation("fd12:3456::a", "anf", "boston", Traffic, 41),
    ];
    let mut lease = observation("10.48.9.101", "eohhs", "boston", Dhcp4Lease, 60);
    lease.hostname = Some(HOSTILE.to_owned());
    observations.push(lease);
    let mut leak = told(RuleId::LeakPrivate, "192.168.77.9", "boston", Change::Raised, 1_800);
    leak.severity = Severity::Medium;
    leak.summary =
        "192.168.77.9 leaves to the internet: 412 packets in 38 flows to 7 destinations".to_owned();
    leak.subject.source = Some("192.168.77.9".parse().expect("an address"));
    leak.secretariats = vec!["anf".into()];
    leak.evidence.counts = [("packets".to_owned(), 412), ("flows".to_owned(), 38)].into();
    let mut flood = told(RuleId::FloodSyn, "203.0.113.80|443", "boston", Change::Raised, 2_400);
    flood.severity = Severity::Critical;
    flood.confidence = 99;
    flood.summary =
        "203.0.113.80 port 443 gets 41,208 SYN a second from 9,114 sources; 0.4 % are completed".to_owned();
    flood.subject = Subject {
        target: Some("203.0.113.80".parse().expect("an address")),
        port: Some(443),
        protocol: Some(6),
        ..Subject::default()
    };
    flood.secretariats = vec!["massdot".into()];
    let mut beacon = told(RuleId::Beacon, "10.20.0.14>198.51.100.77", "boston", Change::Raised, 3_500);
    beacon.summary = "10.20.0.14 calls 198.51.100.77 port 443 every 60 s, 58 times (score 0.962)".to_owned();
    beacon.subject = Subject {
        source: Some("10.20.0.14".parse().expect("an address")),
        target: Some("198.51.100.77".parse().expect("an address")),
        port: Some(443),
        protocol: Some(6),
        ..Subject::default()
    };
    beacon.secretariats = vec!["anf".into()];
    let flows: Vec<_> = (0..40).map(|index| seeded_flow(index, "boston", "eohhs")).collect();
    BatchBody {
        flows: flows.iter().map(v1::Flow::from).collect(),
        ledger: Some(ledger(
            1_804_332,
            &[(Layer::Link, Reason::NotIp, 2_871), (Layer::Network, Reason::Truncated, 14)],
            0,
            40,
        )),
        ..body(&observations, &[scan("boston", 900), leak, flood, beacon])
    }
}

fn lowell_body() -> BatchBody {
    use ObservationKind::{ArpReply, Traffic};
    let observations = [
        observation("10.48.7.23", "massdot", "lowell", ArpReply, 50),
        observation("10.48.7.24", "massdot", "lowell", Traffic, 55),
        observation("10.48.9.101", "massdot", "lowell", Traffic, 56),
        // Packets that nobody answers count once they have come for more than an hour.
        observation("10.48.9.101", "massdot", "lowell", Traffic, 3_700),
    ];
    let mut spoof = told(RuleId::SpoofInbound, "10.99.0.1", "lowell", Change::Raised, 1_200);
    spoof.summary = "10.99.0.1 arrives from outside: 96 packets in 96 flows".to_owned();
    spoof.subject.source = Some("10.99.0.1".parse().expect("an address"));
    let mut closed = told(RuleId::ScanVertical, "198.51.100.9|10.48.7.24", "lowell", Change::Closed, 1_300);
    closed.summary = "198.51.100.9 tried 88 ports of 10.48.7.24".to_owned();
    closed.severity = Severity::Low;
    let flows: Vec<_> = (100..130).map(|index| seeded_flow(index, "lowell", "massdot")).collect();
    BatchBody {
        flows: flows.iter().map(v1::Flow::from).collect(),
        ledger: Some(ledger(1_288_904, &[(Layer::Shim, Reason::TooDeep, 3)], 27, 30)),
        losses: vec![v1::Loss {
            what: "flow".to_owned(),
            count: 12,
            bytes: 3_400,
            reason: "spool-full".to_owned(),
            ..v1::Loss::default()
        }],
        ..body(&observations, &[scan("lowell", 950), spoof, closed])
    }
}

fn seeded_flow(index: u32, site: &str, secretariat: &str) -> onenet_core::record::FlowRecord {
    let mut flow = testing::flow(index, at(i64::from(index) * 60).0);
    let host = u8::try_from(index % 200).expect("small");
    flow.originator.ip = std::net::IpAddr::from([10, 48, 7, host]);
    flow.originator.secretariat = Some(Name::from(secretariat));
    flow.originator.packets = u64::from(index) * 7 + 3;
    flow.originator.ip_bytes = u64::from(index) * 1_311 + 180;
    flow.responder.ip = std::net::IpAddr::from([198, 51, 100, host]);
    flow.responder.ip_bytes = u64::from(index) * 48_113 + 90;
    flow.end = flow.start.plus(i64::from(index) * 900_000_000 + 12_000_000);
    flow.site = site.into();
    if index.is_multiple_of(5) {
        (flow.protocol, flow.responder.port, flow.history) = (17, 53, "Dd".to_owned());
    }
    flow
}
