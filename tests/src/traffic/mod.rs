//! Makes the captures of one working day at both edges, with an address plan and the truth about them. The same
//! seed and scale give the same bytes.

mod apps;
mod day;
mod frame;
mod innocent;
mod local;
pub mod month;
mod ordinary;
pub(crate) mod pcap;
mod plan;
mod planted;
pub(crate) mod random;
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
    truth::{FileTruth, InterfaceTruth, Truth},
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
        site.interfaces.push(InterfaceTruth { file: file_name.clone(), plan: interface_plan(link) });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn made(options: Options) -> (tempfile::TempDir, Truth) {
        let directory = tempfile::tempdir().expect("a directory");
        let truth = generate(directory.path(), options).expect("captures");
        (directory, truth)
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
        let options = Options { seed: 7, scale: 0.02 };
        let ((one, truth), (two, _)) = (made(options), made(options));
        let (other, _) = made(Options { seed: 8, ..options });
        for name in truth.files.keys().map(String::as_str).chain(["plan.toml", "truth.json"]) {
            let bytes =
                |directory: &tempfile::TempDir| fs::read(directory.path().join(name)).expect("a file");
            assert!(bytes(&one) == bytes(&two), "{name}");
            assert!(name == "plan.toml" || bytes(&one) != bytes(&other), "{name}");
        }
    }

    #[test]
    fn what_is_planted_and_what_is_innocent_do_not_meet() {
        for seed in 1..6 {
            let (_directory, truth) = made(Options { seed, scale: 0.02 });
            for planted in &truth.findings {
                let (_, about) = planted.key.split_once('|').expect("a rule");
                // A prefix is nobody's doing.
                let source = about.split('>').next().expect("a source").parse::<IpAddr>();
                let Ok(source) = source else { continue };
                let clash = truth.must_not.iter().find(|innocent| {
                    innocent.rules.contains(&planted.rule) && innocent.addresses.contains(&source)
                });
                assert_eq!(clash, None, "{}", planted.key);
            }
        }
    }

    #[test]
    fn truth_and_settings_read_back() {
        let (directory, truth) = made(Options { seed: 1, scale: 0.02 });
        assert_eq!(read_truth(directory.path()).expect("truth"), truth);
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect("a file");
        let plan: onenet_core::plan::AddressPlan = toml::from_str(&read("plan.toml")).expect("a plan");
        assert_eq!(plan.check(), Ok(()));
        assert_eq!(plan.secretariats.len(), 9);
        for site in site_names() {
            let interfaces: Interfaces =
                toml::from_str(&read(&format!("{site}-interfaces.toml"))).expect("interfaces");
            let of_truth: Vec<_> = truth.sites[site].interfaces.iter().map(|i| i.plan.clone()).collect();
            assert_eq!(interfaces.interface, of_truth);
        }
    }

    #[test]
    fn a_capture_holds_as_many_packets_as_the_truth_says_in_order_of_time() {
        let (directory, truth) = made(Options { seed: 3, scale: 0.02 });
        for (name, file) in &truth.files {
            let bytes = fs::read(directory.path().join(name)).expect("a capture");
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four octets"));
            let (mut at, mut packets, mut before) = (24, 0, (0, 0));
            while at < bytes.len() {
                let time = (word(at), word(at + 4));
                assert!(before <= time && time.1 < 1_000_000, "{name}: packet {packets}");
                before = time;
                at += 16 + word(at + 8) as usize;
                packets += 1;
            }
            assert_eq!(packets, file.packets, "{name}");
        }
    }
}
