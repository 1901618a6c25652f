//! Mutated packets, decoded by us and by tshark: addresses, protocol, ports, fragment, VLANs, TCP flags, and whether
//! there is a packet at all. Each mismatch has a cause that docs/differences.md ("Mutated packets") states; one without
//! a cause fails the test. `ONENET_MUTATED_PACKETS` sets how many packets there are, `ONENET_MUTATION_SEED` which.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    net::IpAddr,
    path::Path,
    process::Command,
};

use onenet_core::{
    decode::{
        CapturedPacket, Content, Decoded, InterfaceIndex, IpPacket, LinkDirection, LinkType, Transport,
        Unparsed, decode,
    },
    time::Timestamp,
};
use onenet_tests::fuzz::{LINK_TYPES, mutate::Mutator, seeds};

use crate::{
    causes::cause,
    kit::{captures, packets, say},
};

/// Packets where nothing else is asked for.
const PACKETS: usize = 20_000;

/// Longest packet: enough for every header, and quick to dissect.
const LONGEST: usize = 200;

/// What both say of the outermost IP header of a packet and of what it carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) ends: Option<(IpAddr, IpAddr)>,
    pub(crate) arp: bool,
    pub(crate) vlans: Vec<u16>,
    /// Protocol by name, where it is one that has ports or a type: `tcp`, `udp`, …; else its number.
    pub(crate) protocol: String,
    pub(crate) ports: Option<(u16, u16)>,
    pub(crate) flags: Option<u16>,
    /// Offset, more, identification.
    pub(crate) fragment: Option<(u16, bool, u32)>,
}

/// One packet with both answers.
pub(crate) struct Case<'a> {
    pub(crate) link_type: LinkType,
    pub(crate) data: &'a [u8],
    pub(crate) decoded: &'a Result<Decoded<'a>, Unparsed>,
    pub(crate) ours: &'a Facts,
    pub(crate) theirs: &'a Facts,
    /// tshark's layers, outermost first.
    pub(crate) layers: &'a [&'a str],
    /// Whether tshark says that something in it cannot be dissected.
    pub(crate) malformed: bool,
}

impl Case<'_> {
    /// Our IP packet.
    pub(crate) fn ip(&self) -> Option<&IpPacket<'_>> {
        match self.decoded {
            Ok(Decoded { content: Content::Ip(ip), .. }) => Some(ip),
            _ => None,
        }
    }
}

/// Packets to mutate, by link type.
fn originals() -> BTreeMap<u16, Vec<Vec<u8>>> {
    let mut by_link: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    by_link.insert(1, seeds::frames());
    for file in captures() {
        for (link_type, data) in packets(&file, 30, LONGEST) {
            if LINK_TYPES.contains(&link_type.0) {
                by_link.entry(link_type.0).or_default().push(data);
            }
        }
    }
    by_link
}

/// A pcapng file with an interface for each link type.
fn write_pcapng(path: &Path, links: &[u16], packets: &[(usize, Vec<u8>)]) {
    let mut out = BufWriter::new(File::create(path).expect("a file in a temporary directory"));
    let mut block = |kind: u32, body: &[u8]| {
        let padding = &[0; 3][..body.len().next_multiple_of(4) - body.len()];
        let length = u32::try_from(body.len() + padding.len() + 12).expect("a short block").to_le_bytes();
        out.write_all(&[&kind.to_le_bytes(), &length, body, padding, &length].concat())
            .expect("room for a capture");
    };
    block(0x0a0d_0d0a, b"\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    for link in links {
        block(1, &[&link.to_le_bytes()[..], &[0; 6]].concat());
    }
    for (link, packet) in packets {
        let interface = u32::try_from(*link).expect("few link types").to_le_bytes();
        let length = u32::try_from(packet.len()).expect("a short packet").to_le_bytes();
        block(6, &[&interface[..], &[0; 8], &length, &length, packet].concat());
    }
    out.flush().expect("room for a capture");
}

/// Fields that are asked of tshark, in order.
const FIELDS: [&str; 33] = [
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.frag_offset",
    "ip.flags.mf",
    "ip.id",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "ipv6.fraghdr.offset",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.ident",
    "vlan.id",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "dccp.srcport",
    "dccp.dstport",
    "ieee8021ad.id",
    "_ws.malformed",
    "arp.src.hw_mac",
    "arp.dst.proto_ipv4",
    "ipv6.hopopts.nxt",
    "ipv6.dstopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.fraghdr.nxt",
    "ah.next_header",
    "mip6.proto",
];

/// tshark's lines, one for each packet; or its complaint.
fn dissect(file: &Path) -> Result<Vec<String>, String> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(file).args(["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|"]);
    for option in
        ["ip.defragment", "ipv6.defragment", "tcp.desegment_tcp_streams", "tcp.analyze_sequence_numbers"]
    {
        tshark.arg("-o").arg(format!("{option}:FALSE"));
    }
    for field in FIELDS {
        tshark.arg("-e").arg(field);
    }
    let output = tshark.output().expect("tshark runs");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The link types that this tshark reads.
fn known_links(mut links: Vec<u16>, scratch: &Path) -> Vec<u16> {
    let file = scratch.join("links.pcapng");
    loop {
        write_pcapng(&file, &links, &[]);
        let Err(complaint) = dissect(&file) else { return links };
        let unknown = complaint
            .split("network type ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
        let unknown = unknown.expect(&complaint);
        say(&format!("tshark does not know link type {unknown}; it is not compared"));
        links.retain(|link| *link != unknown);
    }
}

/// Names that tshark gives to what we read the ports, flags or type of.
const NAMED: [(&str, u8); 8] = [
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("sctp", 132),
    ("dccp", 33),
    ("icmp", 1),
    ("icmpv6", 58),
    ("ah", 51),
];

fn name(protocol: u8) -> String {
    NAMED
        .iter()
        .find(|(_, number)| *number == protocol)
        .map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned())
}

fn ours(decoded: &Result<Decoded<'_>, Unparsed>) -> Facts {
    let Ok(decoded) = decoded else { return Facts::default() };
    let vlans = decoded.link.vlans.to_vec();
    let ip = match &decoded.content {
        Content::Ip(ip) => ip,
        Content::Arp(_) => return Facts { vlans, arp: true, ..Facts::default() },
    };
    let (ports, flags) = match ip.transport {
        Transport::Tcp(segment) => (Some((segment.source, segment.destination)), Some(segment.flags)),
        Transport::Ports { source, destination } => (Some((source, destination)), None),
        Transport::Icmp { .. } | Transport::None => (None, None),
    };
    Facts {
        ends: Some((ip.source, ip.destination)),
        arp: false,
        vlans,
        protocol: name(ip.protocol),
        ports,
        flags,
        fragment: ip.fragment.map(|fragment| (fragment.offset, fragment.more, fragment.identification)),
    }
}

/// One field of a line: its first occurrence.
fn first<'a>(columns: &[&'a str], field: &str) -> Option<&'a str> {
    let at = FIELDS.iter().position(|known| *known == field)?;
    columns.get(at)?.split('|').next().filter(|value| !value.is_empty())
}

fn number(columns: &[&str], field: &str) -> Option<u32> {
    let text = first(columns, field)?;
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The VLAN ids of the tags in these layers, of either ethertype.
fn vlans(columns: &[&str], layers: &[&str]) -> Vec<u16> {
    let ids = |field: &str| {
        let at = FIELDS.iter().position(|known| *known == field).unwrap_or(0);
        columns[at].split('|').filter_map(|id| id.parse().ok()).collect::<Vec<u16>>().into_iter()
    };
    let (mut customer, mut service) = (ids("vlan.id"), ids("ieee8021ad.id"));
    let next = |layer: &&str| match *layer {
        "vlan" => customer.next(),
        "ieee8021ad" => service.next(),
        _ => None,
    };
    layers.iter().filter_map(next).collect()
}

/// What the last of these extension headers says is behind it; without any, what the IP header says.
fn last_next(columns: &[&str], of_ip: &str, extensions: &[&str]) -> Option<u32> {
    let Some(last) = extensions.last() else { return number(columns, of_ip) };
    let field = match *last {
        "ah" => "ah.next_header".to_owned(),
        "mipv6" => "mip6.proto".to_owned(),
        other => format!("{other}.nxt"),
    };
    let at = FIELDS.iter().position(|known| *known == field)?;
    let occurrence = extensions.iter().filter(|layer| *layer == last).count() - 1;
    columns.get(at)?.split('|').nth(occurrence)?.parse().ok()
}

fn theirs(columns: &[&str], layers: &[&str]) -> Facts {
    let short = |field: &str| number(columns, field).and_then(|value| u16::try_from(value).ok());
    let at = layers.iter().position(|layer| matches!(*layer, "ip" | "ipv6" | "arp"));
    let Some(at) = at else { return Facts::default() };
    let vlans = vlans(columns, &layers[..at]);
    if layers[at] == "arp" {
        let whole = first(columns, "arp.src.hw_mac").and(first(columns, "arp.dst.proto_ipv4")).is_some();
        return if whole { Facts { vlans, arp: true, ..Facts::default() } } else { Facts::default() };
    }
    let v6 = layers[at] == "ipv6";
    let prefix = if v6 { "ipv6" } else { "ip" };
    let address =
        |end: &str| first(columns, &format!("{prefix}.{end}")).and_then(|text| text.parse::<IpAddr>().ok());
    let Some(ends) = address("src").zip(address("dst")) else { return Facts::default() };
    let chain = layers[at + 1..].iter();
    let is_extension =
        |layer: &&&str| **layer == "ah" || v6 && (layer.starts_with("ipv6.") || **layer == "mipv6");
    let extensions = chain.clone().take_while(is_extension).count();
    let fragmented_v6 = layers[at + 1..at + 1 + extensions].contains(&"ipv6.fraghdr");
    let fragment = match v6 {
        true if fragmented_v6 => short("ipv6.fraghdr.offset")
            .zip(number(columns, "ipv6.fraghdr.ident"))
            .map(|(offset, id)| (offset * 8, number(columns, "ipv6.fraghdr.more") == Some(1), id)),
        true => None,
        false => short("ip.frag_offset")
            .zip(number(columns, "ip.id"))
            .map(|(offset, id)| (offset * 8, number(columns, "ip.flags.mf") == Some(1), id)),
    }
    .filter(|(offset, more, _)| *offset > 0 || *more);
    let transport = layers.get(at + 1 + extensions).copied().unwrap_or("");
    let ports_of = |name: &str| short(&format!("{name}.srcport")).zip(short(&format!("{name}.dstport")));
    let (ports, flags) = match transport {
        // Three more bits are reserved (RFC 9293).
        "tcp" => (ports_of("tcp"), short("tcp.flags").map(|flags| flags & 0x1ff)),
        "udp" | "udplite" => (ports_of("udp"), None),
        "sctp" | "dccp" => (ports_of(transport), None),
        _ => (None, None),
    };
    let protocol = match NAMED.iter().any(|(name, _)| *name == transport) {
        true => transport.to_owned(),
        false => {
            last_next(columns, if v6 { "ipv6.nxt" } else { "ip.proto" }, &layers[at + 1..at + 1 + extensions])
                .and_then(|number| u8::try_from(number).ok())
                .map(name)
                .unwrap_or_default()
        }
    };
    Facts { ends: Some(ends), arp: false, vlans, protocol, ports, flags, fragment }
}

/// The names of the facts that differ.
fn different(ours: &Facts, theirs: &Facts) -> Vec<&'static str> {
    let facts = [
        ("packet", ours.ends.is_some() != theirs.ends.is_some() || ours.arp != theirs.arp),
        ("addresses", ours.ends != theirs.ends),
        ("VLANs", ours.vlans != theirs.vlans),
        ("protocol", ours.protocol != theirs.protocol),
        ("ports", ours.ports != theirs.ports),
        ("flags", ours.flags != theirs.flags),
        ("fragment", ours.fragment != theirs.fragment),
    ];
    facts.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

fn hexadecimal(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Default)]
struct Count {
    packets: u64,
    equal: u64,
    parsed_by_both: u64,
    causes: BTreeMap<&'static str, u64>,
    unexplained: BTreeMap<String, Vec<String>>,
}

impl Count {
    fn compare(&mut self, link_type: LinkType, data: &[u8], line: &str) {
        let columns: Vec<&str> = line.split('\t').collect();
        let layers: Vec<&str> = columns[0].split(['|', ':']).collect();
        let length = u32::try_from(data.len()).expect("a short packet");
        let decoded = decode(&CapturedPacket {
            time: Timestamp(0),
            interface: InterfaceIndex(0),
            link_type,
            direction: LinkDirection::Unknown,
            wire_length: length,
            data,
        });
        let (ours, theirs) = (ours(&decoded), theirs(&columns, &layers));
        self.packets += 1;
        self.parsed_by_both +=
            u64::from(ours.ends.is_some() && theirs.ends.is_some() || ours.arp && theirs.arp);
        if ours == theirs {
            self.equal += 1;
            return;
        }
        let malformed = first(&columns, "_ws.malformed").is_some();
        let case = Case {
            link_type,
            data,
            decoded: &decoded,
            ours: &ours,
            theirs: &theirs,
            layers: &layers,
            malformed,
        };
        match cause(&case) {
            Some(cause) => *self.causes.entry(cause).or_default() += 1,
            None => {
                let error = decoded.as_ref().err();
                let sort =
                    format!("link {} {} {error:?} {:?}", link_type.0, columns[0], different(&ours, &theirs));
                let example = format!("  ours   {ours:?}\n  tshark {theirs:?}\n  {}", hexadecimal(data));
                self.unexplained.entry(sort).or_default().push(example);
            }
        }
    }
}

#[test]
fn mutated_packets_are_read_as_tshark_reads_them() {
    if Command::new("tshark").arg("--version").output().is_err() {
        say("SKIPPED: tshark is not installed; no mutated packet was compared");
        return;
    }
    let wanted = std::env::var("ONENET_MUTATED_PACKETS").ok().and_then(|n| n.parse().ok()).unwrap_or(PACKETS);
    let originals = originals();
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let links = known_links(originals.keys().copied().collect(), scratch.path());
    let seed = std::env::var("ONENET_MUTATION_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let mut mutator = Mutator::new(seed);
    // Ethernet is half of it; the other links share the rest.
    let mutated: Vec<(usize, Vec<u8>)> = (0..wanted)
        .map(|number| {
            let ethernet = links.iter().position(|link| *link == 1).expect("every tshark knows Ethernet");
            let link = if number % 2 == 0 { ethernet } else { mutator.below(links.len()) };
            (link, mutator.next(&originals[&links[link]], LONGEST))
        })
        .collect();
    let file = scratch.path().join("mutated.pcapng");
    write_pcapng(&file, &links, &mutated);
    let lines = dissect(&file).expect("tshark reads the capture");
    assert_eq!(lines.len(), mutated.len(), "tshark gives a line for each packet");
    let mut count = Count::default();
    for ((link, data), line) in mutated.iter().zip(&lines) {
        count.compare(LinkType(links[*link]), data, line);
    }
    let unexplained: usize = count.unexplained.values().map(Vec::len).sum();
    say(&format!(
        "mutated packets against tshark: {} packets of {} link types, {} read by both, {} equal, {unexplained} unexplained",
        count.packets,
        links.len(),
        count.parsed_by_both,
        count.equal,
    ));
    for (cause, packets) in &count.causes {
        say(&format!("  {packets:>7} {cause}"));
    }
    let mut sorts: Vec<_> = count.unexplained.iter().collect();
    sorts.sort_by_key(|(_, examples)| std::cmp::Reverse(examples.len()));
    let examples =
        sorts.iter().take(25).map(|(sort, examples)| format!("{} x {sort}\n{}", examples.len(), examples[0]));
    assert!(sorts.is_empty(), "{unexplained} unexplained:\n{}", examples.collect::<Vec<_>>().join("\n"));
}
