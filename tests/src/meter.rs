//! What the kernel's meter does, in plain words: it hands on some packets, and counts the others by flow until it is
//! asked. Tests hold the engine to it (counted or handed on, the flows are the same), and the kernel's program.

use std::{collections::BTreeMap, net::IpAddr};

use onenet_core::{
    decode::{
        self, CapturedPacket, Content, Decoded, InterfaceIndex, IpPacket, Link, LinkDirection, LinkType,
        TcpSegment, Transport,
    },
    flow::{FlowDelta, WayDelta},
    net::MacAddress,
    record::RecordSink,
    sensor::Sensor,
    time::Timestamp,
};

/// What is handed on beside what must be: what is no IP packet, fragments, tunnels, DHCP and NDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punting {
    /// First packets of each direction of a flow.
    pub first: u64,
    /// Whether SYN, FIN, RST and windows of zero are.
    pub control: bool,
    /// Whether ICMP is.
    pub icmp: bool,
}

/// Scope and ends of a flow: VLAN ids, labels, protocol, and the ends in order.
type Key = (Vec<u16>, Vec<u32>, u8, [(IpAddr, u16); 2]);

/// A packet, owned.
#[derive(Clone, Debug)]
struct Punt {
    time: Timestamp,
    link_type: LinkType,
    wire_length: u32,
    data: Vec<u8>,
}

/// What happened in one interval.
#[derive(Clone, Debug)]
enum Event {
    Punt(Punt),
    Delta(Box<FlowDelta>),
}

/// A meter of one interface.
#[derive(Debug)]
pub struct Meter {
    punting: Punting,
    interface: InterfaceIndex,
    interval: i64,
    ends_at: Option<Timestamp>,
    counted: BTreeMap<Key, FlowDelta>,
    punts: Vec<Punt>,
    /// Packets so far by flow and way.
    seen: BTreeMap<(Key, usize), (u64, Option<MacAddress>)>,
    /// Packets that were counted and not handed on.
    pub packets_counted: u64,
}

impl Meter {
    /// Nothing counted yet. What is counted is told at the end of each interval of so many nanoseconds.
    pub const fn new(punting: Punting, interface: InterfaceIndex, interval: i64) -> Self {
        Self {
            punting,
            interface,
            interval,
            ends_at: None,
            counted: BTreeMap::new(),
            punts: Vec::new(),
            seen: BTreeMap::new(),
            packets_counted: 0,
        }
    }

    /// Takes a packet; tells the sensor what an interval had that ended before it.
    pub fn take(&mut self, packet: &CapturedPacket<'_>, sensor: &mut Sensor, sink: &mut dyn RecordSink) {
        let ends_at = *self.ends_at.get_or_insert_with(|| packet.time.plus(self.interval));
        if packet.time >= ends_at {
            self.tell(sensor, sink);
            self.ends_at = Some(packet.time.plus(self.interval));
        }
        match decode::decode(packet) {
            Ok(Decoded { link, content: Content::Ip(ip) }) if self.counts(&link, &ip) => {
                self.count(packet, &link, &ip);
            }
            _ => self.punts.push(Punt {
                time: packet.time,
                link_type: packet.link_type,
                wire_length: packet.wire_length,
                data: packet.data.to_vec(),
            }),
        }
    }

    /// Tells what the interval had, in order of time: a flow's counts by its first packet.
    pub fn tell(&mut self, sensor: &mut Sensor, sink: &mut dyn RecordSink) {
        let deltas = std::mem::take(&mut self.counted).into_values();
        let mut events: Vec<(Timestamp, Event)> = deltas
            .filter_map(|delta| Some((delta.first()?, Event::Delta(Box::new(delta)))))
            .chain(self.punts.drain(..).map(|punt| (punt.time, Event::Punt(punt))))
            .collect();
        // Of one moment, what was handed on comes first: it begins flows.
        events.sort_by_key(|(time, event)| (*time, matches!(event, Event::Delta(_))));
        for (_, event) in events {
            match event {
                Event::Delta(delta) => sensor.handle_delta(&delta, sink),
                Event::Punt(punt) => sensor.handle_packet(&punt.packet(self.interface), sink),
            }
        }
    }

    /// Whether a packet is counted, and not handed on.
    fn counts(&mut self, link: &Link, ip: &IpPacket<'_>) -> bool {
        let (key, way) = key_of(link, ip);
        let (seen, mac) = self.seen.entry((key, way)).or_insert((0, link.source_mac));
        *seen += 1;
        let moved = *mac != link.source_mac;
        let is_control = match ip.transport {
            Transport::Tcp(segment) => {
                segment.flags & (TcpSegment::SYN | TcpSegment::FIN | TcpSegment::RST) != 0
                    || segment.window == 0
            }
            _ => false,
        };
        let is_icmp = matches!(ip.transport, Transport::Icmp { .. });
        let is_handed_on = *seen <= self.punting.first
            || is_control && self.punting.control
            || is_icmp && self.punting.icmp
            || moved
            || must_be_handed_on(ip);
        !is_handed_on
    }

    fn count(&mut self, packet: &CapturedPacket<'_>, link: &Link, ip: &IpPacket<'_>) {
        self.packets_counted += 1;
        let (key, way) = key_of(link, ip);
        let interface = self.interface;
        let delta = self.counted.entry(key.clone()).or_insert_with(|| FlowDelta {
            interface,
            vlans: link.vlans.clone(),
            mpls_labels: link.mpls_labels.clone(),
            protocol: ip.protocol,
            ends: key.3,
            ways: Default::default(),
            mirror_bytes: None,
        });
        add(&mut delta.ways[way], packet, link, ip);
    }
}

/// Whether only the engine can take a packet.
fn must_be_handed_on(ip: &IpPacket<'_>) -> bool {
    const ICMPV6: u8 = 58;
    let ports = match ip.transport {
        Transport::Ports { source, destination } => [source, destination],
        _ => [0; 2],
    };
    let is_dhcp = ip.protocol == 17 && ports.iter().any(|port| matches!(port, 67 | 68 | 546 | 547));
    let is_ndp = matches!(ip.transport, Transport::Icmp { kind: 133..=137, .. }) && ip.protocol == ICMPV6;
    // A header that is cut before its flags or ports.
    let is_cut = matches!(ip.transport, Transport::None | Transport::Ports { .. }) && ip.protocol == 6;
    ip.fragment.is_some() || is_dhcp || is_ndp || is_cut || !matches!(decode::inner(ip), Ok(None))
}

/// The key of a packet's flow, and its way.
pub fn key_of(link: &Link, ip: &IpPacket<'_>) -> (Key, usize) {
    let (vlans, labels) = (link.vlans.to_vec(), link.mpls_labels.to_vec());
    let (source, destination) = match ip.transport {
        Transport::Tcp(TcpSegment { source, destination, .. }) | Transport::Ports { source, destination } => {
            (source, destination)
        }
        Transport::Icmp { kind, code, .. } => {
            // Types that answer each other are for the engine to pair.
            let ends = [(ip.source, kind.into()), (ip.destination, code.into())];
            return ((vlans, labels, ip.protocol, ends), 0);
        }
        Transport::None => (0, 0),
    };
    let ends = [(ip.source, source), (ip.destination, destination)];
    let [from, to] = ends;
    if from > to {
        ((vlans, labels, ip.protocol, [to, from]), 1)
    } else {
        ((vlans, labels, ip.protocol, ends), 0)
    }
}

/// Counts a packet to a way.
fn add(way: &mut WayDelta, packet: &CapturedPacket<'_>, link: &Link, ip: &IpPacket<'_>) {
    if way.packets == 0 {
        *way = WayDelta {
            ttl_min: ip.ttl,
            ttl_max: ip.ttl,
            dscp: ip.dscp,
            source_mac: link.source_mac,
            destination_mac: link.destination_mac,
            direction: LinkDirection::Unknown,
            first: packet.time,
            last: packet.time,
            ..WayDelta::default()
        };
    }
    way.packets += 1;
    way.wire_bytes += u64::from(packet.wire_length);
    way.ip_bytes += u64::from(ip.ip_bytes);
    way.payload_bytes += u64::from(ip.payload_bytes);
    way.fragments += u64::from(ip.fragment.is_some());
    way.estimated |= ip.estimated;
    way.ttl_min = way.ttl_min.min(ip.ttl);
    way.ttl_max = way.ttl_max.max(ip.ttl);
    way.first = way.first.min(packet.time);
    way.last = way.last.max(packet.time);
    if let Transport::Tcp(segment) = &ip.transport {
        way.tcp_flags |= segment.flags;
        let time = Some(packet.time);
        let ends = segment.flags & (TcpSegment::FIN | TcpSegment::RST) != 0;
        match (segment.has(TcpSegment::SYN), segment.has(TcpSegment::ACK)) {
            (true, false) => way.syn = way.syn.or(time),
            (true, true) => way.syn_ack = way.syn_ack.or(time),
            (false, true) if !ends => way.ack = way.ack.or(time),
            (false, _) => {}
        }
    }
}

impl Punt {
    fn packet(&self, interface: InterfaceIndex) -> CapturedPacket<'_> {
        CapturedPacket {
            time: self.time,
            interface,
            link_type: self.link_type,
            direction: LinkDirection::Unknown,
            wire_length: self.wire_length,
            data: &self.data,
        }
    }
}
