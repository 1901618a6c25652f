//! Every ARP, NDP, DHCP and DHCPv6 packet that tshark finds in a capture (`expected/*.addr.tsv`) is found by our
//! decoder, and says the same. What differs must have a cause that docs/differences.md describes.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr};

use onenet_core::decode::{
    ArpOperation, ArpPacket, Content, Decoded, IpPacket, Transport,
    dhcp4::{self, Dhcp4Message, Dhcp4Type},
    dhcp6::{self, Dhcp6Message, Dhcp6Type},
    ndp::{self, NdpKind, NdpMessage},
};

use crate::{
    kit::{captures_directory, say},
    packets::{for_each, layers, seconds},
};

/// Columns of the table that say something, and their names for messages.
const COLUMNS: [&str; 19] = [
    "ts",
    "kind",
    "msg",
    "vlan",
    "eth_src",
    "eth_dst",
    "ip_src",
    "ip_dst",
    "claimed_mac",
    "claimed_ip",
    "target_mac",
    "target_or_client_ip",
    "requested_ip",
    "hostname",
    "server_id",
    "lease_s",
    "vendor_class",
    "relay",
    "duid",
];

/// Between two values of which the table may have either.
const EITHER: &str = "|";

/// One message about addresses: the columns of the table, `-` where there is nothing to say.
type Row = [String; COLUMNS.len()];

fn text(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A message in the making.
struct Message(Row);

impl Message {
    fn new(kind: &str, code: impl Display) -> Self {
        let mut row = COLUMNS.map(|_| "-".to_owned());
        kind.clone_into(&mut row[1]);
        row[2] = code.to_string();
        Self(row)
    }

    fn with(mut self, column: &str, value: Option<impl Display>) -> Self {
        if let Some(at) = COLUMNS.iter().position(|name| *name == column) {
            self.0[at] = text(value);
        }
        self
    }
}

fn arp(arp: &ArpPacket) -> Message {
    let operation = match arp.operation {
        ArpOperation::Request => 1,
        ArpOperation::Reply => 2,
        ArpOperation::Other(other) => other,
    };
    Message::new("arp", operation)
        .with("claimed_mac", Some(arp.sender_mac))
        .with("claimed_ip", Some(arp.sender_ip))
        .with("target_mac", Some(arp.target_mac))
        .with("target_or_client_ip", Some(arp.target_ip))
}

fn ndp(message: &NdpMessage) -> Message {
    let (code, claimed, target) = match message.kind {
        NdpKind::RouterSolicitation => (133, None, None),
        NdpKind::RouterAdvertisement { .. } => (134, None, None),
        NdpKind::NeighborSolicitation { target } => (135, None, Some(target)),
        NdpKind::NeighborAdvertisement { target, .. } => (136, Some(target), None),
        NdpKind::Redirect { target, .. } => (137, None, Some(target)),
    };
    Message::new("ndp", code)
        .with("claimed_mac", message.source_mac.or(message.target_mac))
        .with("claimed_ip", claimed)
        .with("target_or_client_ip", target)
}

fn dhcp4_code(kind: Dhcp4Type) -> u8 {
    match kind {
        Dhcp4Type::Discover => 1,
        Dhcp4Type::Offer => 2,
        Dhcp4Type::Request => 3,
        Dhcp4Type::Decline => 4,
        Dhcp4Type::Ack => 5,
        Dhcp4Type::Nak => 6,
        Dhcp4Type::Release => 7,
        Dhcp4Type::Inform => 8,
        Dhcp4Type::Other(other) => other,
    }
}

fn dhcp4(message: &Dhcp4Message) -> Message {
    Message::new("dhcp", text(message.message_type.map(dhcp4_code)))
        .with("claimed_mac", message.client_mac)
        .with("claimed_ip", message.your_ip)
        .with("target_or_client_ip", message.client_ip)
        .with("requested_ip", message.requested_ip)
        .with("hostname", message.hostname.as_ref())
        .with("server_id", message.server_id)
        .with("lease_s", message.lease_seconds)
        .with("vendor_class", message.vendor_class.as_ref())
        .with("relay", message.relay_ip)
}

fn dhcp6_code(kind: Dhcp6Type) -> u8 {
    match kind {
        Dhcp6Type::Solicit => 1,
        Dhcp6Type::Advertise => 2,
        Dhcp6Type::Request => 3,
        Dhcp6Type::Confirm => 4,
        Dhcp6Type::Renew => 5,
        Dhcp6Type::Rebind => 6,
        Dhcp6Type::Reply => 7,
        Dhcp6Type::Release => 8,
        Dhcp6Type::Decline => 9,
        Dhcp6Type::Reconfigure => 10,
        Dhcp6Type::InformationRequest => 11,
        Dhcp6Type::Other(other) => other,
    }
}

fn dhcp6(message: &Dhcp6Message) -> Message {
    let hexadecimal = |duid: &Vec<u8>| duid.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // The table has the first identifier of a message, and a server may put its own first.
    let duids = [&message.client_duid, &message.server_duid].map(|duid| text(duid.as_ref().map(hexadecimal)));
    Message::new("dhcp6", dhcp6_code(message.message_type))
        .with("hostname", message.fqdn.as_ref())
        .with("duid", Some(duids.join(EITHER)))
}

/// What one packet, or a packet in a tunnel, says.
fn message(layer: &Decoded<'_>) -> Option<Message> {
    let ip = match &layer.content {
        Content::Arp(packet) => return Some(arp(packet)),
        Content::Ip(ip) => ip,
    };
    match ip.transport {
        Transport::Icmp { kind: 133..=137, .. } => ndp::parse(ip).as_ref().map(ndp),
        Transport::Ports { source, destination } if ip.protocol == 17 && ip.fragment.is_none() => {
            match (source, destination) {
                (67 | 68, 67 | 68) => dhcp4::parse(ip.payload).as_ref().map(dhcp4),
                (546 | 547, 546 | 547) => dhcp6::parse(ip.payload).as_ref().map(dhcp6),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Source and destination as the table has them: the outermost IPv4 addresses, or else the outermost IPv6 ones.
fn outermost_ip(layers: &[Decoded<'_>]) -> Option<(IpAddr, IpAddr)> {
    let packets = || {
        layers.iter().filter_map(|layer| match &layer.content {
            Content::Ip(ip) => Some((ip.source, ip.destination)),
            Content::Arp(_) => None,
        })
    };
    packets().find(|(source, _)| source.is_ipv4()).or_else(|| packets().next())
}

/// Our rows of a capture, and what is worth knowing of its packets for explaining a difference, by time.
#[derive(Default)]
struct Ours {
    rows: Vec<Row>,
    packets: BTreeMap<String, Vec<Facts>>,
}

/// Properties of a packet.
#[derive(Clone, Copy, Default)]
struct Facts {
    /// It was not captured whole.
    cut: bool,
    /// It, or a packet in its tunnel, is a fragment.
    fragment: bool,
}

fn ours(name: &str) -> Ours {
    let mut ours = Ours::default();
    for_each(&captures_directory().join(name), |packet| {
        let layers = layers(packet);
        let is_fragment =
            |layer: &Decoded<'_>| matches!(&layer.content, Content::Ip(IpPacket { fragment: Some(_), .. }));
        let facts = Facts {
            cut: (packet.data.len() as u64) < u64::from(packet.wire_length),
            fragment: layers.iter().any(is_fragment),
        };
        let time = seconds(packet.time);
        ours.packets.entry(time.clone()).or_default().push(facts);
        let Some(first) = layers.first() else { return };
        let (source, destination) = outermost_ip(&layers).unzip();
        for layer in &layers {
            if let Some(message) = message(layer) {
                let message = message
                    .with("ts", Some(&time))
                    .with("vlan", first.link.vlans.first())
                    .with("eth_src", first.link.source_mac)
                    .with("eth_dst", first.link.destination_mac)
                    .with("ip_src", source)
                    .with("ip_dst", destination);
                ours.rows.push(message.0);
            }
        }
    });
    ours
}

/// A row of the table, and the headers it came behind.
struct Theirs {
    row: Row,
    layers: String,
}

fn theirs(table: &str) -> Vec<Theirs> {
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let mut columns = line.split('\t').map(str::to_owned);
        let row = std::array::from_fn(|_| columns.next().expect("a column"));
        Theirs { row, layers: columns.next().expect("the layers") }
    })
    .collect()
}

impl Theirs {
    fn column(&self, name: &str) -> &str {
        COLUMNS.iter().zip(&self.row).find(|(column, _)| **column == name).map_or("-", |(_, value)| value)
    }

    /// Columns in which one of our rows says something else.
    fn differences(&self, ours: &Row) -> Vec<&'static str> {
        let columns = COLUMNS.iter().zip(self.row.iter().zip(ours));
        columns
            .filter(|(column, (their, our))| !self.same(column, their, our))
            .map(|(column, _)| *column)
            .collect()
    }

    fn same(&self, column: &str, their: &str, our: &str) -> bool {
        // In DHCP a field of zeros holds nothing.
        let nothing = |value: &str| matches!(value, "0.0.0.0" | "00:00:00:00:00:00" | "-");
        match column {
            // tshark gives no time to a packet without one, we the time of the packet before it.
            "ts" => their == "-" || their == our,
            // It gives service tags (802.1ad) another name than the table asks for, and stations of other links
            // than Ethernet and cooked captures.
            "vlan" => their == our || (their == "-" && self.layers.contains("ieee8021ad")),
            "eth_src" | "eth_dst" => {
                their == our || !(self.layers.starts_with("eth") || self.layers.starts_with("sll"))
            }
            "duid" => our.split(EITHER).any(|our| our == their),
            "hostname" => their.trim_end_matches('.') == our,
            _ => their == our || (self.column("kind") == "dhcp" && nothing(their) && nothing(our)),
        }
    }

    /// A DHCPv6 name of one label that ends with the root is in another field of tshark's.
    fn lacks_the_name(&self, ours: &Row) -> bool {
        let name = &ours[13];
        self.column("kind") == "dhcp6" && !name.contains('.') && self.differences(ours) == ["hostname"]
    }

    /// Why we have no such row, by the packet's properties (docs/differences.md has the reasons).
    fn cause(&self, packets: &[Facts]) -> Option<&'static str> {
        let any = |has: fn(&Facts) -> bool| packets.iter().any(has);
        match self.column("kind") {
            "arp" if self.column("claimed_mac") == "-" => Some("ARP of hardware without MAC addresses"),
            "ndp" if self.column("ip_src") == "::" && self.column("claimed_mac") != "-" => {
                Some("probe (source ::) with a link-layer address, which RFC 4861 voids")
            }
            _ if any(|facts| facts.fragment) => Some("message in fragments"),
            _ if any(|facts| facts.cut) => Some("packet not captured whole"),
            _ => None,
        }
    }
}

/// What became of a comparison.
#[derive(Default)]
struct Figures {
    rows: usize,
    equal: usize,
    causes: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
}

impl Figures {
    fn differs(&mut self, cause: Option<&'static str>, text: String) {
        match cause {
            Some(cause) => *self.causes.entry(cause).or_default() += 1,
            None => self.unexplained.push(text),
        }
    }

    /// Whether all rows of this capture are equal.
    fn compare(&mut self, name: &str, theirs: &[Theirs], ours: Ours) -> bool {
        let Ours { rows: mut left, packets } = ours;
        let facts = |time: &str| packets.get(time).map_or(&[][..], |facts| facts);
        let before = (self.rows, self.equal);
        let mut missing = Vec::new();
        for their in theirs {
            self.rows += 1;
            match left.iter().position(|our| their.differences(our).is_empty()) {
                Some(at) => {
                    left.remove(at);
                    self.equal += 1;
                }
                None => missing.push(their),
            }
        }
        for their in missing {
            let named = left.iter().position(|our| their.lacks_the_name(our));
            if let Some(at) = named {
                left.remove(at);
                *self
                    .causes
                    .entry("name of one label, which tshark calls a top level domain")
                    .or_default() += 1;
                continue;
            }
            let close = left.iter().find(|our| our[..2] == their.row[..2]);
            let columns = close.map(|our| their.differences(our));
            let text = format!(
                "{name}: {:?} behind {} is not ours; nearest {close:?} differs in {columns:?}",
                their.row, their.layers
            );
            self.differs(their.cause(facts(&their.row[0])), text);
        }
        for our in &left {
            let cause = match our {
                our if facts(&our[0]).iter().any(|facts| facts.cut) => Some("packet not captured whole"),
                [_, kind, _, _, _, _, ip_source, ..] if kind == "arp" && ip_source != "-" => {
                    Some("ARP in a tunnel, which the table leaves out")
                }
                _ => None,
            };
            self.differs(cause, format!("{name}: ours alone: {our:?}"));
        }
        left.is_empty() && self.rows - before.0 == self.equal - before.1
    }
}

#[test]
fn messages_about_addresses_are_those_that_tshark_finds() {
    let directory = captures_directory().join("expected");
    let Ok(entries) = directory.read_dir() else {
        say(&format!("SKIPPED: nothing at {}; no message about addresses was compared", directory.display()));
        return;
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".addr.tsv").map(str::to_owned))
        .collect();
    names.sort();
    let mut figures = Figures::default();
    let mut equal = 0;
    for name in &names {
        let table = std::fs::read_to_string(directory.join(format!("{name}.addr.tsv"))).expect("a table");
        equal += usize::from(figures.compare(name, &theirs(&table), ours(name)));
    }
    for (cause, count) in &figures.causes {
        say(&format!("messages about addresses that differ: {count} by: {cause}"));
    }
    say(&format!(
        "messages about addresses (ARP, NDP, DHCP): {} of {} rows equal, {equal} of {} captures",
        figures.equal,
        figures.rows,
        names.len()
    ));
    assert!(figures.unexplained.is_empty(), "{}", figures.unexplained.join("\n"));
}
