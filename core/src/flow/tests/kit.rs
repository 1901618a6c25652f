//! What the tests share: packets out of a few numbers, and a host that keeps what it is told.

use std::net::IpAddr;

use crate::{
    decode::{Fragment, InterfaceIndex, IpPacket, Link, TcpSegment, Transport},
    flow::{
        FlowConfig, FlowContext, FlowEvent, FlowHost, FlowPacket, FlowTable, Integrity, Origin, PacketPlace,
        SidePlace,
    },
    net::{MacAddress, Name},
    plan::Role,
    record::{FlowRecord, Locality},
    time::Timestamp,
};

pub(super) const SEED: [u64; 4] = [1, 2, 3, 4];

/// Keeps records and events.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) records: Vec<FlowRecord>,
    pub(super) events: Vec<(FlowEvent, FlowContext)>,
    /// Whether events are not kept.
    pub(super) drops_events: bool,
}

impl Host {
    pub(super) fn event_names(&self) -> Vec<FlowEvent> {
        self.events.iter().map(|(event, _)| *event).collect()
    }
}

impl FlowHost for Host {
    fn side_place(&self, origin: &Origin<'_>, ip: &IpAddr, mac: Option<MacAddress>) -> SidePlace {
        let inside = matches!(ip, IpAddr::V4(v4) if v4.is_private());
        SidePlace {
            locality: if inside { Locality::Inside } else { Locality::Outside },
            segment: mac.and(origin.place.segment),
            secretariat: None,
        }
    }

    fn role(&self, _: InterfaceIndex) -> Role {
        Role::Unknown
    }

    fn interface_name(&self, interface: InterfaceIndex) -> Name {
        format!("eth{}", interface.0).into()
    }

    fn scope_name(&self, scope: u16, _: u16) -> Name {
        format!("scope {scope}").into()
    }

    fn segment_name(&self, segment: u16) -> Option<Name> {
        Some(format!("segment {segment}").into())
    }

    fn secretariat_name(&self, _: u16) -> Option<Name> {
        None
    }

    fn event(&mut self, event: FlowEvent, flow: &FlowContext) {
        if !self.drops_events {
            self.events.push((event, flow.clone()));
        }
    }

    fn record(&mut self, record: &mut Box<FlowRecord>) {
        self.records.push(FlowRecord::clone(record));
    }
}

/// One packet, to be changed where a test needs it otherwise.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) millis: i64,
    /// Beside the milliseconds.
    pub(super) nanos: i64,
    pub(super) protocol: u8,
    pub(super) from: (IpAddr, u16),
    pub(super) to: (IpAddr, u16),
    pub(super) tcp: Option<TcpSegment>,
    pub(super) icmp: Option<(u8, u8)>,
    pub(super) payload: u32,
    pub(super) fragment: Option<(u32, u16)>,
    pub(super) mac: Option<MacAddress>,
    pub(super) scope: u16,
    pub(super) ttl: u8,
    pub(super) integrity: Integrity,
    /// Whether it is the last of its datagram's fragments.
    pub(super) last: bool,
    pub(super) bytes: &'static [u8],
    /// Length of the packet, where it is not by the payload.
    pub(super) ip_bytes: Option<u32>,
}

pub(super) const CLIENT: (&str, u16) = ("10.0.0.1", 50_000);
pub(super) const SERVER: (&str, u16) = ("192.0.2.80", 8_001);

pub(super) fn end((ip, port): (&str, u16)) -> (IpAddr, u16) {
    (ip.parse().expect("an address"), port)
}

impl Packet {
    pub(super) fn udp(millis: i64, from: (&str, u16), to: (&str, u16), payload: u32) -> Self {
        Self {
            millis,
            nanos: 0,
            protocol: 17,
            from: end(from),
            to: end(to),
            tcp: None,
            icmp: None,
            payload,
            fragment: None,
            mac: None,
            scope: 0,
            ttl: 64,
            integrity: Integrity::Sound,
            last: false,
            bytes: &[],
            ip_bytes: None,
        }
    }

    pub(super) fn ip(&self) -> IpPacket<'static> {
        let (source, destination) = (self.from.1, self.to.1);
        let later = self.fragment.is_some_and(|(_, offset)| offset > 0);
        let transport = match (self.tcp, self.icmp) {
            _ if later => Transport::None,
            (Some(tcp), _) => Transport::Tcp(TcpSegment { source, destination, ..tcp }),
            (None, Some((kind, code))) => Transport::Icmp { kind, code, rest: [0; 4] },
            (None, None) => Transport::Ports { source, destination },
        };
        IpPacket {
            source: self.from.0,
            destination: self.to.0,
            protocol: self.protocol,
            ttl: self.ttl,
            dscp: 0,
            ip_bytes: self.ip_bytes.unwrap_or(self.payload.saturating_add(if later { 20 } else { 40 })),
            payload_bytes: self.payload,
            estimated: false,
            fragment: self.fragment.map(|(identification, offset)| Fragment {
                key_protocol: self.protocol,
                identification,
                offset,
                more: !self.last,
            }),
            transport,
            bytes: self.bytes,
            header_bytes: 20,
            payload: &[],
        }
    }

    /// Gives it to a table.
    pub(super) fn send(&self, table: &mut FlowTable, host: &mut Host) {
        let link = Link { source_mac: self.mac, ..Link::default() };
        let ip = self.ip();
        let origin = Origin {
            interface: InterfaceIndex(0),
            link: &link,
            place: PacketPlace { scope: self.scope, segment: Some(self.scope), ..PacketPlace::default() },
            tunnel: None,
            parents: &[],
            leaving: None,
        };
        let time = Timestamp(self.millis.saturating_mul(1_000_000).saturating_add(self.nanos));
        let wire_bytes = self.payload.saturating_add(54);
        table.observe(&FlowPacket { time, wire_bytes, ip: &ip, origin, integrity: self.integrity }, host);
    }
}

pub(super) fn table(config: &FlowConfig) -> FlowTable {
    FlowTable::new(config, "boston".into(), "boston-1", SEED)
}

/// Runs packets through a table to the end.
pub(super) fn run(config: &FlowConfig, packets: &[Packet]) -> Host {
    let (mut table, mut host) = (table(config), Host::default());
    for packet in packets {
        packet.send(&mut table, &mut host);
    }
    table.finish(&mut host);
    assert!(table.is_empty());
    host
}

/// TCP segments out of a script, one line each: `>` or `<` for the way (client to server, or back), flags,
/// sequence number, acknowledgement, payload bytes, and `w0` for a window of zero; `+N` waits N milliseconds.
pub(super) fn script(text: &str) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut millis = 1_000_000;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(wait) = line.strip_prefix('+') {
            millis += wait.parse::<i64>().expect("milliseconds");
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let flags = words[1].chars().fold(0, |flags, letter| {
            flags
                | match letter {
                    'F' => TcpSegment::FIN,
                    'S' => TcpSegment::SYN,
                    'R' => TcpSegment::RST,
                    'P' => TcpSegment::PSH,
                    'A' => TcpSegment::ACK,
                    _ => 0,
                }
        });
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
        let window = if words.contains(&"w0") { 0 } else { 1000 };
        let (from, to) = if words[0] == ">" { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        packets.push(Packet {
            protocol: 6,
            tcp: Some(TcpSegment {
                source: 0,
                destination: 0,
                sequence: number(2),
                acknowledgement: number(3),
                flags,
                window,
            }),
            ..Packet::udp(millis, from, to, number(4))
        });
        millis += 1;
    }
    packets
}
