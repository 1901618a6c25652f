//! `read --explain N`: how packet N of a capture was decoded, layer by layer, and which flow it counted to. The
//! decoder and the flow table tell it themselves; nothing is decoded a second time.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::Path,
};

use anyhow::anyhow;
use onenet_core::{
    decode::{
        ArpPacket, CapturedPacket, Content, Decoded, Fragment, Inner, IpPacket, Link, Trace, Transport,
        Unparsed,
    },
    net::{MacAddress, Name, protocol_keyword},
    record::{FindingChange, FlowRecord, FlowSide, Observation, RecordSink},
    sensor::{Sensor, Told, Witness},
};

use crate::{config::Config, source::CaptureSet};

/// Name of what is behind the headers.
const PAYLOAD: &str = "payload";

/// Records are not wanted here.
struct Nowhere;

impl RecordSink for Nowhere {
    fn flow(&mut self, _: &FlowRecord) {}
    fn observation(&mut self, _: &Observation) {}
    fn finding(&mut self, _: &FindingChange) {}
}

/// One header of the packet.
struct Header {
    /// Where it begins in the packet.
    offset: usize,
    length: usize,
    name: String,
    fields: String,
}

/// A packet, or one inside a tunnel.
#[derive(Default)]
struct Level {
    /// What it is inside of; empty for the packet as captured.
    title: String,
    headers: Vec<Header>,
    outcome: Vec<String>,
}

/// Writes down what it hears of one packet.
struct Explainer<'a> {
    data: &'a [u8],
    levels: Vec<Level>,
    /// The level whose headers were read whole, latest.
    decoded: usize,
    /// Its IP source, to tell the side by.
    source: Option<(std::net::IpAddr, Option<u16>)>,
    /// Where its payload begins and a tunnel's header would.
    payload: Option<usize>,
}

/// Explains packet `number`, from 1, of the one capture that is open.
pub(crate) fn explain(
    number: u64,
    path: &Path,
    config: &Config,
    sensor: &mut Sensor,
    captures: &mut CaptureSet,
) -> Result<(), anyhow::Error> {
    let mut count = 0;
    while let Some(packet) = captures.next(&mut |name| sensor.add_interface(config.interface(name))) {
        count += 1;
        if count < number {
            sensor.handle_packet(&packet, &mut Nowhere);
            continue;
        }
        let mut explainer = Explainer::new(packet.data);
        sensor.handle_witnessed(&packet, &mut Nowhere, &mut explainer);
        let interface = sensor.interface_names().nth(usize::from(packet.interface.0)).cloned();
        let text = explainer.text(number, path, &packet, interface.as_ref());
        let mut out = io::stdout().lock();
        return match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        };
    }
    let packets = if count == 1 { "packet" } else { "packets" };
    Err(match captures.reports().iter().find_map(|report| report.error.as_ref()) {
        Some(error) => {
            anyhow!("{error}; it gave {count} {packets} before that, so there is no packet {number}")
        }
        None => anyhow!("{}: has {count} {packets}, there is no packet {number}", path.display()),
    })
}

impl Trace for Explainer<'_> {
    fn header(&mut self, name: &'static str, bytes: &[u8], link: Option<&Link>) {
        let Some(offset) = self.offset(bytes) else { return };
        let fields = match (name, link) {
            ("Ethernet" | "link header" | "IEEE 802.11", Some(link)) => stations(link),
            (name, Some(link)) if name.ends_with("VLAN tag") => {
                link.vlans.last().map(|vlan| format!("id {vlan}")).unwrap_or_default()
            }
            ("MPLS label stack", Some(link)) => format!("labels {}", list(&link.mpls_labels)),
            _ => String::new(),
        };
        self.add(Header { offset, length: bytes.len(), name: name.to_owned(), fields });
    }
}

impl Witness for Explainer<'_> {
    const HEARS: bool = true;

    fn tell(&mut self, told: Told<'_>) {
        match told {
            Told::Decoded(decoded) => self.decoded(decoded),
            Told::Unparsed(why) => self.note(self.last(), format!("unparsed: {}", because(why))),
            Told::Mirror(name, inner) => {
                self.note(self.last(), format!("a copy that mirror {name} sent; its tunnel is stripped"));
                self.enter(format!("the copy, as captured on {name}"), inner);
            }
            Told::MirrorFragment(name) => self.note(
                self.last(),
                format!("a later fragment of what mirror {name} sent; counted to no flow, with the first"),
            ),
            Told::MirrorBroken(name, why) => self.note(
                self.last(),
                format!("mirror {name} sent it, and it cannot be opened; unparsed: {}", because(why)),
            ),
            Told::Tunnel(inner) => {
                let id = inner.tunnel.id.map_or(String::new(), |id| format!(" {id}"));
                self.enter(format!("in the tunnel: {}{id}", inner.tunnel.kind), inner);
            }
            Told::Unopened(why) => {
                self.note(self.last(), format!("the tunnel was not opened further: {}", because(why)));
            }
            Told::WrongChecksum => {
                self.note(self.decoded, "a checksum is wrong (see --checksums)".to_owned())
            }
            Told::Flow(record) => self.flow(record),
            Told::Waits => self.note(
                self.decoded,
                "counted to no flow yet: the first fragment, which has the ports, has not come".to_owned(),
            ),
            Told::Carrier => {
                self.note(self.decoded, "counted to the flow inside alone, as flow.tunnels says".to_owned())
            }
            Told::Arp => self.note(self.decoded, "ARP: an observation, counted to no flow".to_owned()),
            Told::DepthReached(depth) => {
                let depth = if depth == 1 { "1 tunnel".to_owned() } else { format!("{depth} tunnels") };
                self.note(
                    self.decoded,
                    format!("carries a tunnel, which is not opened: by the settings {depth} at most"),
                );
            }
        }
    }
}

impl<'a> Explainer<'a> {
    fn new(data: &'a [u8]) -> Self {
        let (levels, source) = (vec![Level::default()], None);
        Self { data, levels, decoded: 0, source, payload: None }
    }

    fn last(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// Where a part of the packet begins in it.
    fn offset(&self, part: &[u8]) -> Option<usize> {
        let offset = part.as_ptr().addr().checked_sub(self.data.as_ptr().addr())?;
        (offset.saturating_add(part.len()) <= self.data.len() && !part.is_empty()).then_some(offset)
    }

    fn add(&mut self, header: Header) {
        if let Some(level) = self.levels.last_mut() {
            level.headers.push(header);
        }
    }

    fn note(&mut self, level: usize, text: String) {
        if let Some(level) = self.levels.get_mut(level) {
            level.outcome.push(text);
        }
    }

    /// A tunnel's header, and the level inside of it.
    fn enter(&mut self, title: String, inner: &Inner<'_>) {
        let end = self.offset(inner.data).unwrap_or(self.data.len());
        if let Some(offset) = self.payload.filter(|&offset| offset < end) {
            // What was payload so far turns out to be the tunnel's.
            if let Some(headers) = self.levels.last_mut().map(|level| &mut level.headers) {
                headers.pop_if(|header| header.name == PAYLOAD);
            }
            let name = format!("{} header", inner.tunnel.kind);
            let mut fields = inner.tunnel.id.map_or(String::new(), |id| format!("id {id}"));
            if let Some(sequence) = inner.sequence {
                let _ = write!(fields, " sequence {sequence}");
            }
            if let Some(vlan) = inner.vlan {
                let _ = write!(fields, " VLAN {vlan}, taken off the frame");
            }
            self.add(Header { offset, length: end - offset, name, fields: fields.trim().to_owned() });
        }
        self.levels.push(Level { title, ..Level::default() });
    }

    /// Fills in what the headers said.
    fn decoded(&mut self, decoded: &Decoded<'_>) {
        self.decoded = self.last();
        let (ip, fields) = match &decoded.content {
            Content::Arp(arp) => return self.fill(&["ARP", "RARP"], arp_fields(arp)),
            Content::Ip(ip) => (ip, ip_fields(ip)),
        };
        self.fill(&["IPv4", "IPv6"], fields);
        let names = ["TCP", "UDP", "UDP-Lite", "SCTP", "DCCP", "ICMP", "ICMPv6", "transport header"];
        self.fill(&names, transport_fields(&ip.transport));
        let port = match ip.transport {
            Transport::Tcp(segment) => Some(segment.source),
            Transport::Ports { source, .. } => Some(source),
            Transport::Icmp { .. } | Transport::None => None,
        };
        self.source = Some((ip.source, port));
        self.payload = self.offset(ip.payload);
        if let Some(offset) = self.payload {
            let (length, fields) =
                (ip.payload.len(), format!("{} bytes by the length fields", ip.payload_bytes));
            self.add(Header { offset, length, name: PAYLOAD.to_owned(), fields });
        }
        if ip.estimated {
            let text = "a length field is 0 or contradicts another, or a header is cut: counts are estimates";
            self.note(self.decoded, text.to_owned());
        }
    }

    fn fill(&mut self, names: &[&str], fields: String) {
        let headers = self.levels.last_mut().map(|level| &mut level.headers);
        if let Some(header) =
            headers.and_then(|headers| headers.iter_mut().rev().find(|h| names.contains(&h.name.as_str())))
        {
            header.fields = fields;
        }
    }

    fn flow(&mut self, record: &FlowRecord) {
        let end = |side: &FlowSide| format!("{} port {}", side.ip, side.port);
        let (originator, responder) = (&record.originator, &record.responder);
        let is = |side: &FlowSide| {
            self.source.is_some_and(|(ip, port)| side.ip == ip && port.is_none_or(|port| side.port == port))
        };
        let sender = match (is(originator), is(responder)) {
            (true, false) => "the originator",
            (false, true) => "the responder",
            _ => "either side",
        };
        let protocol = named(record.protocol);
        let first = format!(
            "counted to flow {}: {protocol}, {} to {}",
            record.flow_id,
            end(originator),
            end(responder)
        );
        let second = format!(
            "sent by {sender}; direction by {}, {}; {} {} so far, {} and {} packets",
            record.direction_reason,
            record.direction,
            record.conn_state,
            if record.history.is_empty() { "-" } else { &record.history },
            originator.packets,
            responder.packets
        );
        let third = format!("Community ID {}, interface {}", record.community_id, record.interface);
        for text in [first, second, third] {
            self.note(self.decoded, text);
        }
        if !record.tunnel_parents.is_empty() {
            let parents: Vec<String> = record.tunnel_parents.iter().map(ToString::to_string).collect();
            self.note(self.decoded, format!("carried by flow {}", parents.join(", in flow ")));
        }
    }

    fn text(
        &self,
        number: u64,
        path: &Path,
        packet: &CapturedPacket<'_>,
        interface: Option<&Name>,
    ) -> String {
        let mut text = format!(
            "packet {number} of {}: {} bytes on the wire, {} captured\n  {}, interface {}, link type {}\n",
            path.display(),
            packet.wire_length,
            packet.data.len(),
            packet.time,
            interface.map_or("unknown", |name| name),
            packet.link_type.0
        );
        let rows = self.levels.iter().flat_map(|level| &level.headers);
        let width = rows.map(|header| header.name.chars().count()).max().unwrap_or(0);
        for level in &self.levels {
            if !level.title.is_empty() {
                let _ = writeln!(text, "{}", level.title);
            }
            for header in &level.headers {
                let Header { offset, length, name, fields } = header;
                let line = format!("  at {offset:>5} {length:>5} bytes  {name:width$}  {fields}");
                let _ = writeln!(text, "{}", line.trim_end());
            }
            for outcome in &level.outcome {
                let _ = writeln!(text, "  {outcome}");
            }
        }
        text
    }
}

/// Where parsing stopped and why.
fn because(Unparsed { layer, reason }: Unparsed) -> String {
    format!("{layer}: {reason}")
}

fn named(protocol: u8) -> String {
    protocol_keyword(protocol).map_or_else(|| format!("protocol {protocol}"), str::to_owned)
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn stations(link: &Link) -> String {
    let mac = |mac: Option<MacAddress>| mac.map(|mac| mac.to_string());
    match (mac(link.source_mac), mac(link.destination_mac)) {
        (Some(source), Some(destination)) => format!("{source} to {destination}"),
        (Some(source), None) => format!("from {source}"),
        _ => String::new(),
    }
}

fn arp_fields(arp: &ArpPacket) -> String {
    let ArpPacket { operation, sender_mac, sender_ip, target_ip, .. } = arp;
    format!("{operation:?}, {sender_ip} at {sender_mac}, target {target_ip}")
}

fn ip_fields(ip: &IpPacket<'_>) -> String {
    let mut text = format!(
        "{} to {}, {}, TTL {}, DSCP {}, {} bytes of IP",
        ip.source,
        ip.destination,
        named(ip.protocol),
        ip.ttl,
        ip.dscp,
        ip.ip_bytes
    );
    if let Some(Fragment { identification, offset, more, .. }) = ip.fragment {
        let last = if more { "" } else { ", the last" };
        let _ = write!(text, ", fragment {identification:#x} from byte {offset}{last}");
    }
    text
}

fn transport_fields(transport: &Transport) -> String {
    match transport {
        Transport::Tcp(segment) => format!(
            "{} to {}, sequence {}, acknowledgement {}, flags {}, window {}",
            segment.source,
            segment.destination,
            segment.sequence,
            segment.acknowledgement,
            flags(segment.flags),
            segment.window
        ),
        Transport::Ports { source, destination } => format!("{source} to {destination}"),
        Transport::Icmp { kind, code, .. } => format!("type {kind}, code {code}"),
        Transport::None => String::new(),
    }
}

fn flags(bits: u16) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"];
    let set: Vec<&str> =
        (0..9).zip(names).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(" ") }
}
