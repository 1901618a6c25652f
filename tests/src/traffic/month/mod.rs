//! Makes the captures of a hard month of addresses at both edges: some fifteen hundred hosts at a low rate, of which
//! some share, move, replace or forge addresses, with the plan they should keep to and the truth about each.

mod calendar;
mod cases;
mod compare;
mod device;
mod findings;
mod ordinary;
mod plan;
mod speak;
mod stack;
mod truth;

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use onenet_core::{net::MacAddress, plan::AddressRole, time::Timestamp};

use self::{
    calendar::{DAYS, at},
    device::{Device, Place, Stay},
    speak::Servers,
    stack::Stack,
};
pub use self::{
    compare::{MonthComparison, Reported, Tally},
    findings::{Findings, about_address, about_claim, about_claims},
    truth::{
        AddressTruth, ClaimTruth, DeclaredTruth, IntruderTruth, MonthTruth, MustNot, RoutedTruth, UseTruth,
        read_month,
    },
};
use super::{
    Interfaces, Options,
    frame::{Content, Frame, render},
    pcap::PcapWriter,
    plan::interface_plan,
    random::Random,
    talk::SECOND,
    wire::{Link, Wire},
    world::{Secretariat, Site},
    write_text,
};

/// The month in the making.
#[derive(Debug)]
struct Month {
    seed: u64,
    wire: Wire,
    truth: MonthTruth,
    devices: Vec<Device>,
    /// Hosts made so far, whether they are among the devices or not.
    made: u32,
    roles: Vec<(IpAddr, Secretariat, AddressRole)>,
    used: HashSet<IpAddr>,
    /// Addresses of ordinary hosts that no case touches.
    ordinary: Vec<IpAddr>,
}

/// What a case says of an address beside where it was.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    name: &'a str,
    verdict: Option<&'a str>,
    accepted: &'a [&'a str],
    rules: &'a [&'a str],
    why: &'a str,
}

impl<'a> Case<'a> {
    /// A case that must raise an overlap with this verdict.
    const fn overlap(name: &'a str, verdict: &'a str, why: &'a str) -> Self {
        Self { name, verdict: Some(verdict), accepted: &[], rules: &["overlap.address"], why }
    }

    /// A case that must raise nothing.
    const fn innocent(name: &'a str, why: &'a str) -> Self {
        Self { name, verdict: None, accepted: &[], rules: &[], why }
    }
}

impl Month {
    fn new(options: Options) -> Self {
        let truth = MonthTruth { seed: options.seed, scale: options.scale, ..MonthTruth::default() };
        Self {
            seed: options.seed,
            wire: Wire::default(),
            truth,
            devices: Vec::new(),
            made: 0,
            roles: Vec::new(),
            used: HashSet::new(),
            ordinary: Vec::new(),
        }
    }

    fn random(&self, actor: &str) -> Random {
        Random::for_actor(self.seed, &format!("month {actor}"))
    }

    /// An address of a prefix that nobody has had yet. The first of each /24 are left to routers and servers.
    fn fresh(&mut self, random: &mut Random, net: IpNet) -> IpAddr {
        loop {
            let address = match net {
                IpNet::V4(net) => {
                    let host = random.bits() & u32::from(net.hostmask()) & 0xffff_ff00;
                    let last = u32::from(random.octet(40, 250));
                    IpAddr::V4(Ipv4Addr::from(u32::from(net.network()) | host | last))
                }
                IpNet::V6(net) => {
                    let subnet = if net.prefix_len() < 64 { u128::from(random.octet(0, 4)) << 64 } else { 0 };
                    let low = u128::from(random.bits()) << 32 | u128::from(random.bits());
                    let low = if random.per_mille(300) { low & 0xffff | 0x100 } else { low };
                    IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | subnet | low))
                }
            };
            if self.used.insert(address) {
                return address;
            }
        }
    }

    /// A host of a kind, not yet anywhere.
    fn device(&mut self, stack: &'static Stack) -> Device {
        let number = self.made;
        self.made += 1;
        let [_, high, middle, low] = (number.wrapping_mul(0x9e35) & 0x00ff_ffff).to_be_bytes();
        let [a, b, c] = stack.oui;
        let random = self.random(&format!("host {number}"));
        let name = format!("{}-{number:04}", stack.name.split(' ').next().unwrap_or("host"));
        Device::new(name, MacAddress([a, b, c, high, middle, low]), stack, random)
    }

    /// A host of a kind with one stay.
    fn settle(
        &mut self,
        stack: &'static Stack,
        (address, place, hops): (IpAddr, Place, u8),
        change: impl FnOnce(&mut Stay),
    ) {
        let mut device = self.device(stack);
        let mut stay = Stay::new(address, place, device.mac, hops);
        change(&mut stay);
        device.stays.push(stay);
        self.devices.push(device);
    }

    /// Enters the truth about an address of a case; times follow when the captures are written.
    fn case(&mut self, address: IpAddr, places: &[Place], case: &Case<'_>) {
        let names = |name: fn(&Place) -> &'static str| {
            let mut names: Vec<String> = places.iter().map(|place| name(place).to_owned()).collect();
            names.sort();
            names.dedup();
            names
        };
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        if case.verdict.is_none() && case.accepted.is_empty() && case.rules.is_empty() {
            self.must_not(address, case.why);
        }
        self.truth.addresses.push(AddressTruth {
            address,
            case: case.name.to_owned(),
            spaces: names(|place| place.secretariat.address_space()),
            sites: names(|place| place.site.name()),
            verdict: case.verdict.map(str::to_owned),
            accepted: texts(case.accepted),
            rules: texts(case.rules),
            from: 0,
            until: 0,
            why: case.why.to_owned(),
        });
    }

    fn must_not(&mut self, address: IpAddr, why: &str) {
        self.truth.must_not.push(MustNot { address, why: why.to_owned() });
    }
}

/// Writes both inside captures, `plan.toml`, the interfaces of each site and `month.json` into `directory`. The same
/// seed and scale give the same bytes.
pub fn generate_month(directory: &Path, options: Options) -> Result<MonthTruth> {
    anyhow::ensure!(
        options.scale > 0.0 && options.scale <= 100.0,
        "scale {}: expected more than 0 and at most 100",
        options.scale
    );
    fs::create_dir_all(directory).with_context(|| format!("{}: cannot be created", directory.display()))?;
    let mut month = Month::new(options);
    ordinary::fill(&mut month)?;
    cases::fill(&mut month)?;
    let mut spans = HashMap::new();
    month.truth.packets = write_days(directory, &mut month, &mut spans)?;
    month.truth.hosts = u64::try_from(month.devices.len())?;
    for truth in &mut month.truth.addresses {
        let span = spans.get(&truth.address);
        (truth.from, truth.until) = *span.with_context(|| format!("{} was never used", truth.address))?;
    }
    month.truth.declared = plan::declared()?;
    month.truth.dark = plan::dark()?;
    write_text(&directory.join("plan.toml"), &toml::to_string(&plan::address_plan(&month.roles)?)?)?;
    for site in Site::ALL {
        let interfaces = Interfaces { interface: vec![interface_plan(Link::Inside(site))] };
        write_text(
            &directory.join(format!("{}-interfaces.toml", site.name())),
            &toml::to_string(&interfaces)?,
        )?;
    }
    let mut text = serde_json::to_string_pretty(&month.truth)?;
    text.push('\n');
    write_text(&directory.join("month.json"), &text)?;
    Ok(month.truth)
}

/// Lives and writes one day after another, so that only one day's frames are in memory; tells how many packets that
/// made, and the first and last second that each address was a source.
fn write_days(directory: &Path, month: &mut Month, spans: &mut HashMap<IpAddr, (i64, i64)>) -> Result<u64> {
    let servers = Servers::new(&mut month.random("servers"));
    let mut captures = Vec::new();
    for site in Site::ALL {
        let link = Link::Inside(site);
        captures.push((link, PcapWriter::create(&directory.join(format!("{}.pcap", link.name())))?));
    }
    let mut bytes = Vec::with_capacity(2048);
    for day in 0..DAYS {
        for device in &mut month.devices {
            device.live(day, &mut month.wire, &servers)?;
        }
        let end = if day + 1 == DAYS { i64::MAX } else { at(day + 1, 0) };
        for (link, writer) in &mut captures {
            for (time, frame) in month.wire.take_until(*link, end) {
                bytes.clear();
                render(&frame, &mut bytes)?;
                writer.write(Timestamp(time), &bytes)?;
                let second = time.div_euclid(SECOND);
                let span = spans.entry(source(&frame)).or_insert((second, second));
                *span = (span.0.min(second), span.1.max(second));
            }
        }
    }
    let mut packets = 0;
    for (_, writer) in captures {
        packets += writer.finish()?.0;
    }
    Ok(packets)
}

fn source(frame: &Frame) -> IpAddr {
    match &frame.content {
        Content::Arp(arp) => IpAddr::V4(arp.sender.1),
        Content::Ip(packet) => packet.source,
    }
}

#[cfg(test)]
mod tests;
