//! The incidents of the day, each entered in the truth as it is planted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnet::IpNet;
use onenet_core::record::{RuleId, Subject};

use super::{
    apps::{self, Visit, datagrams, visit},
    day::{CLOSING, Day, HOUR, MINUTE, OPENING},
    frame::{ACK, Body, Look, Payload, SYN, Segment as TcpSegment},
    local::{Dhcp4Client, Segment},
    plan::address_plan,
    random::Random,
    talk::{MILLI, SECOND, Side, Talk},
    truth::incident,
    wire::Path,
    world::{
        AF, EEA, EOE, EOHED, EOHHS, EOLWD, EOPSS, EOTSS, Host, MASSDOT, Secretariat, Site, internet_address,
        internet_host,
    },
};

/// All of it.
pub(super) fn fill(day: &mut Day) -> Result<()> {
    declared(day)?;
    overlaps(day)?;
    leaks(day)?;
    spoofed(day)?;
    horizontal_scans(day)?;
    vertical_scans(day)?;
    flood(day)?;
    beacons(day)
}

const fn overlap_of(address: IpAddr) -> Subject {
    Subject { source: None, target: None, address: Some(address), prefix: None, port: None, protocol: None }
}

const fn from_source(source: IpAddr) -> Subject {
    Subject { source: Some(source), target: None, address: None, prefix: None, port: None, protocol: None }
}

const fn from_to(source: IpAddr, target: IpAddr) -> Subject {
    Subject {
        source: Some(source),
        target: Some(target),
        address: None,
        prefix: None,
        port: None,
        protocol: None,
    }
}

/// How a host with an overlapping address shows itself.
#[derive(Clone, Copy)]
enum Shown {
    /// ARP on its VLAN.
    Arp,
    /// A DHCP lease.
    Lease,
    /// Its traffic only, from behind its secretariat's router.
    Traffic,
}

/// An address, who uses it, and how it was planted.
type Overlap = (Ipv4Addr, &'static [(Secretariat, Site, Shown)], &'static str);

/// One address in several address spaces.
fn overlaps(day: &mut Day) -> Result<()> {
    use Site::{Boston, Lowell};
    let planted: [Overlap; 6] = [
        (
            Ipv4Addr::new(10, 1, 1, 20),
            &[(EOHHS, Boston, Shown::Arp), (EOPSS, Boston, Shown::Arp)],
            "two hosts answer ARP for it on two VLANs of Boston",
        ),
        (
            Ipv4Addr::new(192, 168, 10, 50),
            &[(EOE, Boston, Shown::Lease), (EOTSS, Boston, Shown::Lease)],
            "leased by two DHCP servers at Boston",
        ),
        (
            Ipv4Addr::new(192, 168, 1, 1),
            &[(EEA, Lowell, Shown::Arp), (EOHED, Lowell, Shown::Arp), (MASSDOT, Lowell, Shown::Arp)],
            "three devices with the address that many come with from the factory, at Lowell",
        ),
        (
            Ipv4Addr::new(172, 16, 5, 10),
            &[(AF, Lowell, Shown::Traffic), (EOLWD, Lowell, Shown::Traffic)],
            "traffic from behind two secretariats' routers at Lowell, no ARP",
        ),
        (
            Ipv4Addr::new(10, 1, 2, 30),
            &[(EOHHS, Boston, Shown::Arp), (MASSDOT, Lowell, Shown::Arp)],
            "EOHHS answers ARP for it at Boston, MassDOT at Lowell",
        ),
        (
            Ipv4Addr::new(172, 20, 8, 77),
            &[(EOHHS, Boston, Shown::Traffic), (MASSDOT, Lowell, Shown::Traffic)],
            "traffic of EOHHS at Boston and of MassDOT at Lowell, no ARP",
        ),
    ];
    let mut random = day.random("overlaps");
    for (address, users, how) in planted {
        for &(secretariat, site, shown) in users {
            use_address(day, &mut random, address, secretariat, site, shown)?;
        }
        let users: Vec<_> = users.iter().map(|&(secretariat, site, _)| (secretariat, site)).collect();
        plant_overlap(day, IpAddr::V4(address), &users, how)?;
    }
    let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x15);
    for secretariat in [AF, EOPSS] {
        let station = Host::direct(secretariat, Lowell, IpAddr::V6(address), 150);
        let segment = Segment::of(secretariat, Lowell);
        segment.neighbor_discovery(&mut day.wire, OPENING + 25 * MINUTE, station.mac, address);
        let server = Host::of(EOTSS, Lowell, 2).with_ip(IpAddr::V6(EOTSS.ula(Lowell, 0x22)));
        let path = day.wire.path(station, server);
        let how = Visit { port: 443, requests: 1, answer: 900, think: 0 };
        visit(&mut day.wire, &mut random, path, OPENING + 2 * HOUR + i64::from(secretariat.0) * MINUTE, how)?;
    }
    let users = [(AF, Lowell), (EOPSS, Lowell)];
    plant_overlap(day, IpAddr::V6(address), &users, "fd00::/64, taken by hand in two secretariats at Lowell")
}

fn plant_overlap(day: &mut Day, address: IpAddr, users: &[(Secretariat, Site)], how: &str) -> Result<()> {
    let sites: Vec<Site> =
        Site::ALL.into_iter().filter(|site| users.iter().any(|(_, at)| at == site)).collect();
    let secretariats: Vec<Secretariat> = users.iter().map(|&(secretariat, _)| secretariat).collect();
    day.planted(RuleId::OverlapAddress, &overlap_of(address), &sites, &secretariats, how)?;
    if let (true, Some(planted)) = (sites.len() > 1, day.truth.findings.last_mut()) {
        planted.collector_only = true;
    }
    for &(secretariat, site) in users {
        plant_use(day, address, secretariat, site)?;
    }
    Ok(())
}

const fn about_prefix(prefix: IpNet) -> Subject {
    Subject { source: None, target: None, address: None, prefix: Some(prefix), port: None, protocol: None }
}

/// A use of an address is a finding of its own where the plan gives the address to others, or to nobody. Only the
/// collector holds uses against the plan.
fn plant_use(day: &mut Day, address: IpAddr, secretariat: Secretariat, site: Site) -> Result<()> {
    let plan = address_plan()?;
    let space = |id: &str| plan.secretariat(id).map(|owner| owner.address_space().clone());
    let covering = || plan.prefixes.iter().filter(|claim| claim.cidr.contains(&address));
    if covering().any(|claim| space(&claim.secretariat) == space(secretariat.id())) {
        return Ok(());
    }
    let longest = covering().max_by_key(|claim| claim.cidr.prefix_len());
    let (rule, prefix) = match longest {
        Some(claim) => (RuleId::AddressMisplaced, claim.cidr),
        None => {
            let length = if address.is_ipv4() { 24 } else { 64 };
            (RuleId::AddressUndeclared, IpNet::new(address, length)?.trunc())
        }
    };
    let subject = about_prefix(prefix);
    let key = incident(rule, &subject);
    match day.truth.findings.iter_mut().find(|planted| planted.key == key) {
        Some(planted) => {
            planted.sites.push(site.name().to_owned());
            planted.sites.sort();
            planted.sites.dedup();
        }
        None => {
            day.planted(
                rule,
                &subject,
                &[site],
                &[],
                "comes with an address that is used where it should not be",
            )?;
            if let Some(planted) = day.truth.findings.last_mut() {
                planted.collector_only = true;
            }
        }
    }
    Ok(())
}

/// What the plan itself claims twice.
fn declared(day: &mut Day) -> Result<()> {
    let claimed = IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0)), 16)?;
    let how = "10.1.0.0/16 is still claimed by two secretariats";
    day.planted(RuleId::OverlapDeclared, &about_prefix(claimed), &[], &[EOHHS, MASSDOT], how)?;
    if let Some(planted) = day.truth.findings.last_mut() {
        planted.collector_only = true;
    }
    Ok(())
}

fn use_address(
    day: &mut Day,
    random: &mut Random,
    address: Ipv4Addr,
    secretariat: Secretariat,
    site: Site,
    shown: Shown,
) -> Result<()> {
    let ip = IpAddr::V4(address);
    let segment = Segment::of(secretariat, site);
    let host = match shown {
        Shown::Traffic => Host::routed(secretariat, site, ip),
        Shown::Arp | Shown::Lease => Host::direct(secretariat, site, ip, 100 + address.octets()[3] % 50),
    };
    let start = OPENING + random.between(20 * MINUTE, HOUR);
    match shown {
        Shown::Arp => {
            for hour in 0..4 {
                segment.arp_both_ways(&mut day.wire, start + hour * 2 * HOUR, host.mac, address);
            }
        }
        Shown::Lease => {
            let client = Dhcp4Client {
                mac: host.mac,
                hostname: "lab-printer",
                lease: address,
                server: Ipv4Addr::new(192, 168, 10, 2 + secretariat.0),
                server_mac: Host::direct(secretariat, site, ip, 206).mac,
                gateway: Ipv4Addr::new(192, 168, 10, 254 - secretariat.0),
                vendor_class: "MSFT 5.0",
            };
            segment.dhcp4(&mut day.wire, random, start, &client);
        }
        Shown::Traffic => {}
    }
    for number in 0..6 {
        let path = day.wire.path(host, internet_host(random));
        let how = Visit { port: 443, requests: 1, answer: random.long_tail(1200, 3), think: 0 };
        visit(&mut day.wire, random, path, start + HOUR + number * 40 * MINUTE, how)?;
    }
    Ok(())
}

/// Packets that leave with addresses that nobody out there can answer.
fn leaks(day: &mut Day) -> Result<()> {
    let mut random = day.random("leaks");
    let boston = Host::of(MASSDOT, Site::Boston, 14);
    for number in 0..12 {
        let path = Path::untranslated(boston, internet_host(&mut random));
        let start = OPENING + 3 * HOUR + number * 11 * MINUTE;
        Talk::new(&mut day.wire, path, &mut random, 443, start).unanswered(2)?;
        // It also has connections that are translated as they should be: the address itself is at work.
        let path = day.wire.path(boston, internet_host(&mut random));
        let how = Visit { port: 443, requests: 1, answer: 2000, think: 0 };
        visit(&mut day.wire, &mut random, path, start + 5 * MINUTE, how)?;
    }
    let subject = from_source(boston.ip);
    day.planted(
        RuleId::LeakPrivate,
        &subject,
        &[Site::Boston],
        &[MASSDOT],
        "connections that missed the translation",
    )?;

    let camera = Host::routed(EOE, Site::Lowell, IpAddr::V4(Ipv4Addr::new(192, 168, 77, 20)));
    let collector = internet_host(&mut random);
    for number in 0..60 {
        let mut path = Path::untranslated(camera, collector);
        let line = apps::syslog(&mut random, &camera);
        datagrams(
            &mut day.wire,
            &mut path,
            (514, 514),
            OPENING + HOUR + number * 4 * MINUTE,
            line,
            Vec::new(),
            0,
        )?;
    }
    let subject = from_source(camera.ip);
    day.planted(
        RuleId::LeakPrivate,
        &subject,
        &[Site::Lowell],
        &[EOE],
        "syslog to a server on the internet",
    )?;

    let ula = IpAddr::V6(EOHED.ula(Site::Boston, 0x31));
    let host = Host::routed(EOHED, Site::Boston, ula);
    for number in 0..20 {
        let server = super::world::internet_host6(&mut random);
        let path = Path::untranslated(host, server);
        let start = OPENING + 4 * HOUR + number * 6 * MINUTE;
        Talk::new(&mut day.wire, path, &mut random, 443, start).unanswered(1)?;
    }
    day.planted(
        RuleId::LeakPrivate,
        &from_source(ula),
        &[Site::Boston],
        &[EOHED],
        "unique local source, no filter",
    )
}

/// Packets that arrive with addresses that cannot be out there.
fn spoofed(day: &mut Day) -> Result<()> {
    let mut random = day.random("spoofed");
    let cases = [
        (Site::Boston, IpAddr::V4(Site::Boston.unused_public(9)), "our own address, SYNs to the web server"),
        (Site::Lowell, IpAddr::V4(Ipv4Addr::new(10, 66, 66, 66)), "private address, SYNs to the web server"),
        (Site::Lowell, IpAddr::V4(Ipv4Addr::new(240, 1, 2, 3)), "reserved address, SYNs to the web server"),
    ];
    for (number, (site, source, how)) in (0..).zip(cases) {
        let sender = Host::internet(source, &mut random);
        for packet in 0..25 {
            let target = Host::dmz(site, 80);
            let start = OPENING + HOUR + number * 100 * MINUTE + packet * 13 * SECOND;
            let path = Path::untranslated(sender, target).dropped();
            Talk::new(&mut day.wire, path, &mut random, 443, start).unanswered(0)?;
        }
        day.planted(RuleId::SpoofInbound, &from_source(source), &[site], &[], how)?;
    }
    Ok(())
}

/// One service, many hosts.
fn horizontal_scans(day: &mut Day) -> Result<()> {
    let mut random = day.random("horizontal scans");
    // From the internet: remote desktop on every address of the DMZ and beyond.
    let scanner = internet_host(&mut random);
    let mut time = OPENING + 2 * HOUR + 31 * MINUTE;
    for last in 1..=240 {
        let here = Host { ip: IpAddr::V4(Site::Boston.dmz(last)), ..Host::dmz(Site::Boston, 250) };
        let path = Path::untranslated(scanner, here);
        let mut talk = if matches!(last, 25 | 80 | 81) {
            Talk::new(&mut day.wire, path, &mut random, 3389, time)
        } else {
            Talk::new(&mut day.wire, path.dropped(), &mut random, 3389, time)
        };
        if matches!(last, 25 | 80 | 81) {
            talk.refused()?
        } else {
            talk.unanswered(0)?
        }
        time += random.between(60 * MILLI, 400 * MILLI);
    }
    let subject = from_source(scanner.ip);
    day.planted(
        RuleId::ScanHorizontal,
        &subject,
        &[Site::Boston],
        &[],
        "TCP 3389 on 240 addresses of the DMZ, from the internet",
    )?;

    // A worm: file sharing on addresses of all secretariats at Lowell; most do not exist.
    let infected = Host::of(EOLWD, Site::Lowell, 5);
    let mut time = OPENING + 5 * HOUR + 12 * MINUTE;
    for _ in 0..180 {
        let of = Secretariat(random.octet(0, 9));
        if of == EOLWD {
            continue;
        }
        let last = random.octet(10, 250);
        let exists = (20..40).contains(&last);
        let subnet = random.octet(0, 8);
        let target = Host::routed(of, Site::Lowell, IpAddr::V4(of.address(Site::Lowell, subnet, last)));
        let path = Path::untranslated(infected, target);
        let path = if exists { path } else { path.dropped() };
        let mut talk = Talk::new(&mut day.wire, path, &mut random, 445, time);
        if !exists {
            talk.unanswered(1)?;
        } else if random.per_mille(800) {
            talk.refused()?;
        } else {
            talk.probe_open_port()?;
        }
        time += random.between(20 * MILLI, 300 * MILLI);
    }
    let subject = from_source(infected.ip);
    day.planted(
        RuleId::ScanHorizontal,
        &subject,
        &[Site::Lowell],
        &[EOLWD],
        "worm: TCP 445 on addresses of the other secretariats",
    )?;

    // An infected camera: telnet on random addresses of the internet.
    let camera = Host::of(MASSDOT, Site::Boston, 17);
    let mut time = OPENING + 6 * HOUR + 3 * MINUTE;
    for number in 0..150 {
        let path = day.wire.path(camera, internet_host(&mut random));
        let mut talk = Talk::new(&mut day.wire, path, &mut random, 23, time);
        match number % 10 {
            3 | 6 => talk.refused()?,
            9 => talk.probe_open_port()?,
            _ => talk.unanswered(0)?,
        }
        time += random.between(50 * MILLI, 500 * MILLI);
    }
    let subject = from_source(camera.ip);
    day.planted(
        RuleId::ScanHorizontal,
        &subject,
        &[Site::Boston],
        &[MASSDOT],
        "bot: TCP 23 on random addresses of the internet",
    )
}

/// One host, many ports.
fn vertical_scans(day: &mut Day) -> Result<()> {
    let mut random = day.random("vertical scans");
    let outsider = internet_host(&mut random);
    let insider = Host::of(EOE, Site::Boston, 12);
    let cases = [
        (
            outsider,
            Host::dmz(Site::Lowell, 25),
            500,
            45 * MINUTE,
            "500 ports of the mail relay, from the internet",
        ),
        (
            insider,
            Host::of(EOTSS, Site::Boston, 3),
            260,
            7 * HOUR,
            "260 ports of a server of EOTSS, from a host of EOE",
        ),
    ];
    for (scanner, target, count, after, how) in cases {
        let mut time = OPENING + after;
        for number in 0..count {
            let port = 1 + (number * 37) % 1013;
            let path = Path::untranslated(scanner, target);
            let mut talk = Talk::new(&mut day.wire, path, &mut random, port, time);
            match port {
                22 | 25 | 443 => talk.probe_open_port()?,
                _ if number % 7 == 0 => talk.unanswered(0)?,
                _ => talk.refused()?,
            }
            time += random.between(8 * MILLI, 90 * MILLI);
        }
        let sites = [target.site().unwrap_or(Site::Boston)];
        let secretariats: Vec<Secretariat> = scanner.secretariat().into_iter().collect();
        day.planted(RuleId::ScanVertical, &from_to(scanner.ip, target.ip), &sites, &secretariats, how)?;
    }
    Ok(())
}

/// Half-open connections from sources that do not exist: the server answers, nobody completes.
fn flood(day: &mut Day) -> Result<()> {
    let mut random = day.random("flood");
    let site = Site::Boston;
    let target = Host::dmz(site, 81);
    let start = OPENING + 6 * HOUR + 40 * MINUTE;
    for number in 0..14_000 {
        let source = Host::internet(IpAddr::V4(internet_address(&mut random)), &mut random);
        let mut path = Path::untranslated(source, target);
        let time = start + number * MILLI + random.between(0, MILLI);
        let ports = (random.port(1024, 65_535), 443);
        let sequence = random.bits();
        let segment = TcpSegment {
            source: ports.0,
            destination: ports.1,
            sequence,
            acknowledgement: 0,
            flags: SYN,
            window: 512,
            mss: 1460,
            look: Look::default(),
            payload: Payload::Empty,
        };
        day.wire.send(time, &mut path, true, Body::Tcp(segment.clone()))?;
        // Beyond its backlog the server keeps silent.
        if number % 4 == 0 {
            let answer = TcpSegment {
                source: ports.1,
                destination: ports.0,
                sequence: random.bits(),
                acknowledgement: sequence.wrapping_add(1),
                flags: SYN | ACK,
                window: 64_240,
                ..segment
            };
            day.wire.send(time + 300_000, &mut path, false, Body::Tcp(answer))?;
        }
    }
    let subject = Subject { target: Some(target.ip), ..Subject::default() };
    day.planted(
        RuleId::FloodSyn,
        &subject,
        &[site],
        &[EOTSS],
        "14,000 SYNs in 14 s from sources that do not exist",
    )
}

/// Calls home, at an interval with jitter.
fn beacons(day: &mut Day) -> Result<()> {
    let mut random = day.random("beacons");
    let server = internet_host(&mut random);
    let client = Host::of(EOHHS, Site::Boston, 15);
    let mut time = OPENING + 67 * MINUTE;
    while time < OPENING + 9 * HOUR + 30 * MINUTE {
        let path = day.wire.path(client, server);
        let mut talk = Talk::new(&mut day.wire, path, &mut random, 443, time);
        talk.connect()?;
        apps::tls_handshake(&mut talk, &mut random, "cdn.telemetry.example")?;
        let request = 400 + random.below(16);
        apps::tls_exchange(&mut talk, &mut random, request, 220)?;
        talk.close(Side::Client)?;
        time += random.between(54 * SECOND, 66 * SECOND);
    }
    let subject = from_to(client.ip, server.ip);
    day.planted(RuleId::Beacon, &subject, &[Site::Boston], &[EOHHS], "TLS every 60 s, 10 % jitter")?;

    let server = internet_host(&mut random);
    let client = Host::of(EOPSS, Site::Lowell, 16);
    let mut time = OPENING + 9 * MINUTE;
    while time < CLOSING {
        let path = day.wire.path(client, server);
        let mut talk = Talk::new(&mut day.wire, path, &mut random, 8080, time);
        talk.connect()?;
        apps::http_exchange(&mut talk, &mut random, "img.telemetry.example", 64)?;
        talk.close(Side::Server)?;
        time += random.between(285 * SECOND, 315 * SECOND);
    }
    let subject = from_to(client.ip, server.ip);
    day.planted(RuleId::Beacon, &subject, &[Site::Lowell], &[EOPSS], "HTTP every 300 s, 5 % jitter")
}
