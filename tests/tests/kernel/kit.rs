//! What the tests of this folder share: a meter on no interface, and counts by key and direction, from the kernel and
//! from core's decode.

use std::{collections::BTreeMap, io::Write, net::IpAddr};

use onenet_core::{
    decode::{
        CapturedPacket, Content, Decoded, InterfaceIndex, IpPacket, LinkDirection, LinkType, Transport,
        Unparsed, decode,
    },
    flow::FlowDelta,
    net::MacAddress,
    time::Timestamp,
};
use onenet_ebpf::{Counters, EbpfError, Hook, Meter, Options, TestContext};
use onenet_tests::craft::{Ip, Tcp};

/// Prints past the test runner, which keeps to itself what tests that pass print.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Options for tests: small maps.
pub(crate) fn options() -> Options {
    let mut options = Options::new("none", InterfaceIndex(0));
    options.max_flows = 16_384;
    options.max_flows_v6 = 8192;
    options
}

/// A meter on no interface; none, aloud, where the machine lets nobody load one.
pub(crate) fn meter(options: &Options) -> Option<Meter> {
    skip_unless(Meter::load(options, true))
}

/// The meter, or a word about why there is none; what is no matter of permission is a failure.
pub(crate) fn skip_unless(opened: Result<Meter, EbpfError>) -> Option<Meter> {
    match opened {
        Ok(meter) => Some(meter),
        Err(
            error @ (EbpfError::Capability { .. }
            | EbpfError::Refused { .. }
            | EbpfError::OldKernel { .. }
            | EbpfError::NoTypes),
        ) => {
            say(&format!("SKIPPED: the kernel meter was not run: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Who sent what to whom: VLAN ids, first label, protocol, source, destination. Type and code of ICMP are the ports.
pub(crate) type Key = (Vec<u16>, Option<u32>, u8, (IpAddr, u16), (IpAddr, u16));

/// What was counted of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) packets: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) ip_bytes: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) fragments: u64,
    pub(crate) tcp_flags: u16,
    pub(crate) ttl: (u8, u8),
    pub(crate) dscp: u8,
    pub(crate) estimated: bool,
    /// Of the last packet.
    pub(crate) source_mac: Option<MacAddress>,
    /// Of the first.
    pub(crate) destination_mac: Option<MacAddress>,
}

impl Sum {
    /// Adds one that came later.
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.wire_bytes += other.wire_bytes;
        self.ip_bytes += other.ip_bytes;
        self.payload_bytes += other.payload_bytes;
        self.fragments += other.fragments;
        self.tcp_flags |= other.tcp_flags;
        self.ttl = (self.ttl.0.min(other.ttl.0), self.ttl.1.max(other.ttl.1));
        self.estimated |= other.estimated;
        self.source_mac = other.source_mac;
    }
}

pub(crate) type Sums = BTreeMap<Key, Sum>;

pub(crate) fn add(sums: &mut Sums, key: Key, sum: Sum) {
    sums.entry(key).and_modify(|known| known.add(&sum)).or_insert(sum);
}

/// A frame as captured whole.
pub(crate) fn captured(frame: &[u8]) -> CapturedPacket<'_> {
    CapturedPacket {
        time: Timestamp(0),
        interface: InterfaceIndex(0),
        link_type: LinkType::ETHERNET,
        direction: LinkDirection::Received,
        wire_length: u32::try_from(frame.len()).expect("a short frame"),
        data: frame,
    }
}

/// Core's decode of a whole frame.
pub(crate) fn decoded(frame: &[u8]) -> Result<Decoded<'_>, Unparsed> {
    decode(&captured(frame))
}

/// What core counts of a packet that stands for so many on the wire.
pub(crate) fn of_core(decoded: &Decoded<'_>, wire_length: usize, segments: u64) -> Option<(Key, Sum)> {
    let Content::Ip(ip) = &decoded.content else { return None };
    let (source, destination) = ports(ip);
    let label = decoded.link.mpls_labels.first().copied();
    let vlans = decoded.link.vlans.to_vec();
    let key = (vlans, label, ip.protocol, (ip.source, source), (ip.destination, destination));
    let more = segments - 1;
    let (wire, payload) = (wire_length as u64, u64::from(ip.payload_bytes));
    let sum = Sum {
        packets: segments,
        wire_bytes: wire + more * wire.saturating_sub(payload),
        ip_bytes: u64::from(ip.ip_bytes) + more * u64::from(ip.ip_bytes).saturating_sub(payload),
        payload_bytes: payload,
        fragments: ip.fragment.is_some().into(),
        tcp_flags: if let Transport::Tcp(segment) = ip.transport { segment.flags } else { 0 },
        ttl: (ip.ttl, ip.ttl),
        dscp: ip.dscp,
        estimated: ip.estimated,
        source_mac: decoded.link.source_mac,
        destination_mac: decoded.link.destination_mac,
    };
    Some((key, sum))
}

fn ports(ip: &IpPacket<'_>) -> (u16, u16) {
    match ip.transport {
        Transport::Tcp(segment) => (segment.source, segment.destination),
        Transport::Ports { source, destination } => (source, destination),
        Transport::Icmp { kind, code, .. } => (kind.into(), code.into()),
        Transport::None => (0, 0),
    }
}

/// The directions of a delta.
pub(crate) fn of_delta(delta: &FlowDelta) -> Vec<(Key, Sum, [Timestamp; 2])> {
    // A later fragment has no type: its ports are 0, as those of an echo reply.
    let is_icmp = matches!(delta.protocol, 1 | 58);
    let has_type = is_icmp && delta.ends.iter().any(|end| end.1 != 0);
    assert!(is_icmp || delta.ends[0] <= delta.ends[1], "the lower end is the first: {delta:?}");
    assert!(!has_type || delta.ways[1].packets == 0, "ICMP has one way: {delta:?}");
    let way = |at: usize| {
        let (way, [from, to]) = (&delta.ways[at], [delta.ends[at], delta.ends[1 - at]]);
        assert!(way.packets == 0 || way.first <= way.last, "{delta:?}");
        let label = delta.mpls_labels.first().copied();
        let key = (delta.vlans.to_vec(), label, delta.protocol, from, to);
        let sum = Sum {
            packets: way.packets,
            wire_bytes: way.wire_bytes,
            ip_bytes: way.ip_bytes,
            payload_bytes: way.payload_bytes,
            fragments: way.fragments,
            tcp_flags: way.tcp_flags,
            ttl: (way.ttl_min, way.ttl_max),
            dscp: way.dscp,
            estimated: way.estimated,
            source_mac: way.source_mac,
            destination_mac: way.destination_mac,
        };
        (way.packets > 0).then_some((key, sum, [way.first, way.last]))
    };
    [way(0), way(1)].into_iter().flatten().collect()
}

/// Everything that the meter has counted since the last call. Entries of one key (later fragments, and packets of the
/// same protocol without ports) are joined in order of time.
pub(crate) fn drained(meter: &mut Meter) -> Sums {
    let mut parts = Vec::new();
    meter.drain(&mut |delta: &FlowDelta| parts.extend(of_delta(delta))).expect("the maps can be drained");
    parts.sort_by_key(|(_, _, times)| times[0]);
    let (mut sums, mut latest) = (Sums::new(), BTreeMap::new());
    for (key, mut sum, [_, last]) in parts {
        let known = latest.entry(key.clone()).or_insert(last);
        if let Some(before) = sums.get(&key).filter(|_| *known > last) {
            sum.source_mac = before.source_mac;
        }
        *known = last.max(*known);
        add(&mut sums, key, sum);
    }
    sums
}

pub(crate) fn counters(meter: &Meter) -> Counters {
    meter.counters().expect("the counters can be read")
}

/// Runs one frame; false where the kernel takes no such frame for a test run.
pub(crate) fn run(meter: &Meter, hook: Hook, frame: &[u8]) -> bool {
    meter.test_run(hook, frame, TestContext::default(), 1).is_ok()
}

/// Whole packets out of an IP header.
pub(crate) trait Whole {
    /// With a TCP segment.
    fn tcp_packet(&self, segment: &Tcp<'_>) -> Vec<u8>;
    /// With a UDP datagram.
    fn udp_packet(&self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8>;
    /// With an ICMP message.
    fn icmp_packet(&self, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8>;
}

impl Whole for Ip {
    fn tcp_packet(&self, segment: &Tcp<'_>) -> Vec<u8> {
        self.packet(&self.tcp(segment))
    }

    fn udp_packet(&self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        self.packet(&self.udp(source, destination, payload))
    }

    fn icmp_packet(&self, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
        self.packet(&self.icmp(kind, code, rest, payload))
    }
}
