//! Makes the captures of one working day at both edges, with an address plan and the truth about them. The same
//! seed and scale give the same bytes.

mod apps;
mod day;
mod frame;
mod innocent;
mod local;
mod ordinary;
mod pcap;
mod plan;
mod planted;
mod random;
mod talk;
pub mod truth;
mod wire;
mod world;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::IpAddr,
    path::Path,
};

use anyhow::{Context, Result};
use onenet_core::{plan::InterfacePlan, time::Timestamp};
use serde::{Deserialize, Serialize};

use self::{
    day::Day,
    frame::{Body, Content, Frame, render},
    pcap::PcapWriter,
    plan::{address_plan, interface_name, interface_plan},
    truth::{FileTruth, Truth},
    wire::Link,
    world::Site,
};

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Seed of all choices.
    pub seed: u64,
    /// How much ordinary traffic: 1 is some 350,000 packets in all; what is planted stays as it is.
    pub scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, scale: 1.0 }
    }
}

/// What a sensor is told of its interfaces: `boston-interfaces.toml` and `lowell-interfaces.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interfaces {
    /// One for each capture of the site.
    pub interface: Vec<InterfacePlan>,
}

/// Writes the captures, `plan.toml`, the interfaces of each site and `truth.json` into `directory`.
pub fn generate(directory: &Path, options: Options) -> Result<Truth> {
    anyhow::ensure!(
        options.scale > 0.0 && options.scale <= 100.0,
        "scale {}: expected more than 0 and at most 100",
        options.scale
    );
    fs::create_dir_all(directory).with_context(|| format!("{}: cannot be created", directory.display()))?;
    let mut day = Day::new(options.seed, options.scale);
    ordinary::fill(&mut day)?;
    innocent::fill(&mut day)?;
    planted::fill(&mut day)?;
    for link in Link::ALL {
        let frames = day.wire.take(link);
        let file_name = format!("{}.pcap", link.name());
        let file = write_capture(&directory.join(&file_name), link, &frames)?;
        let site = day.truth.sites.entry(file.site.clone()).or_default();
        site.packets += file.packets;
        site.wire_bytes += file.wire_bytes;
        day.truth.files.insert(file_name, file);
    }
    write_text(&directory.join("plan.toml"), &toml::to_string(&address_plan()?)?)?;
    let mut interfaces: BTreeMap<&str, Interfaces> = BTreeMap::new();
    for link in Link::ALL {
        let of_site = interfaces.entry(link.site().name()).or_insert(Interfaces { interface: Vec::new() });
        of_site.interface.push(interface_plan(link));
    }
    for (site, interfaces) in &interfaces {
        write_text(&directory.join(format!("{site}-interfaces.toml")), &toml::to_string(interfaces)?)?;
    }
    let mut truth = serde_json::to_string_pretty(&day.truth)?;
    truth.push('\n');
    write_text(&directory.join("truth.json"), &truth)?;
    Ok(day.truth)
}

/// Reads `truth.json` of a directory that [`generate`] has filled.
pub fn read_truth(directory: &Path) -> Result<Truth> {
    let path = directory.join("truth.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not a truth file", path.display()))
}

/// Names of the sites.
pub fn site_names() -> [&'static str; 2] {
    Site::ALL.map(Site::name)
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

fn write_capture(path: &Path, link: Link, frames: &[(i64, Frame)]) -> Result<FileTruth> {
    let mut writer = PcapWriter::create(path)?;
    let mut conversations = HashSet::new();
    let mut bytes = Vec::with_capacity(2048);
    let mut arp = 0;
    for (time, frame) in frames {
        bytes.clear();
        render(frame, &mut bytes)?;
        writer.write(Timestamp(*time), &bytes)?;
        match conversation(frame) {
            Some(conversation) => _ = conversations.insert(conversation),
            None => arp += 1,
        }
    }
    let (packets, wire_bytes) = writer.finish()?;
    Ok(FileTruth {
        site: link.site().name().to_owned(),
        interface: interface_name(link).to_owned(),
        packets,
        wire_bytes,
        arp,
        conversations: u64::try_from(conversations.len())?,
    })
}

type Conversation = (Option<u16>, u8, (IpAddr, u16), (IpAddr, u16));

/// What makes packets one conversation; none for ARP.
fn conversation(frame: &Frame) -> Option<Conversation> {
    let Content::Ip(packet) = &frame.content else { return None };
    let (protocol, source_port, destination_port) = match &packet.body {
        Body::Tcp(segment) => (6, segment.source, segment.destination),
        Body::Udp { source, destination, .. } => (17, *source, *destination),
        Body::Fragment { offset: 0, part, .. } => {
            let port = |at: usize| u16::from_be_bytes([part[at], part[at + 1]]);
            (17, port(0), port(2))
        }
        // Counted with the first fragment of the same datagram.
        Body::Fragment { .. } => (17, 0, 0),
        Body::Icmp(_) => (1, 0, 0),
        Body::Other(protocol, _) => (*protocol, 0, 0),
    };
    let ends = ((packet.source, source_port), (packet.destination, destination_port));
    let (low, high) = if ends.0 <= ends.1 { ends } else { (ends.1, ends.0) };
    Some((frame.vlan, protocol, low, high))
}
