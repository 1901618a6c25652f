//! Traffic that looks like an incident and is none. Each kind is one that users of such systems report as a
//! false alarm, or one that the layout of the edges invites.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use onenet_core::{net::MacAddress, record::RuleId};

use super::{
    apps::{self, Visit, datagrams, ping, visit},
    day::{CLOSING, Day, HOUR, MINUTE, OPENING, moment},
    frame::{ACK, Body, Look, Packet, Payload, RST, SYN, Segment as TcpSegment},
    local::{Segment, link_local},
    ordinary::{mail_relay, resolver, time_server},
    talk::{MILLI, SECOND, Side, Talk},
    wire::{Path, untranslated_host},
    world::{
        AF, EEA, EOE, EOHED, EOHHS, EOLWD, EOPSS, EOTSS, Host, MASSDOT, Secretariat, Site, internet_host,
        population,
    },
};

/// The declared vulnerability scanner.
pub(super) const SCANNER_HOST: Ipv4Addr = EOTSS.address(Site::Boston, 0, 200);
/// Anycast address of the resolvers, in use in every address space on purpose.
pub(super) const ANYCAST: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 53);

const SCANS: [RuleId; 2] = [RuleId::ScanHorizontal, RuleId::ScanVertical];

/// All of it.
pub(super) fn fill(day: &mut Day) -> Result<()> {
    busy_web_server(day)?;
    monitoring(day)?;
    declared_scanner(day)?;
    health_checks(day)?;
    downloads(day)?;
    update_fan_out(day)?;
    dead_server(day)?;
    asymmetric_routing(day)?;
    backscatter(day)?;
    background_radiation(day)?;
    one_space_twice(day)?;
    local_addresses(day)?;
    for site in Site::ALL {
        day.innocent(
            &[RuleId::Beacon, RuleId::ScanHorizontal],
            [time_server(site).ip],
            "asks time servers every 128 s",
        );
        day.innocent(RuleId::ALL, [resolver(site).ip], "resolver of all secretariats");
        day.innocent(
            RuleId::ALL,
            [mail_relay(site).ip],
            "hands mail to many exchangers, some of which are dead",
        );
        day.innocent(
            &[RuleId::LeakPrivate, RuleId::SpoofInbound],
            [IpAddr::V4(site.wan())],
            "end of the tunnels that carry private addresses over the internet",
        );
    }
    Ok(())
}

/// Many clients, and a rush when registration opens; every handshake completes.
fn busy_web_server(day: &mut Day) -> Result<()> {
    let mut random = day.random("busy web server");
    let server = Host::dmz(Site::Boston, 80);
    let how = Visit { port: 443, requests: 1, answer: 2600, think: 0 };
    let opening = OPENING + 2 * HOUR;
    for number in 0..day.scaled(450) + 260 {
        let client = internet_host(&mut random);
        let start = if number < 260 { opening + random.between(0, 4 * SECOND) } else { moment(&mut random) };
        let path = day.wire.path(client, server);
        visit(&mut day.wire, &mut random, path, start, how)?;
    }
    day.innocent(
        &[RuleId::ScanHorizontal, RuleId::Beacon],
        [server.ip],
        "busy web server; 65 connections a second when registration opens",
    );
    Ok(())
}

/// Asks every host whether it is well; nearly all answer.
fn monitoring(day: &mut Day) -> Result<()> {
    let mut random = day.random("monitoring");
    for site in Site::ALL {
        let monitor = Host::direct(EOTSS, site, IpAddr::V4(EOTSS.address(site, 0, 210)), 210);
        let hosts: Vec<Host> =
            population(site).into_iter().filter(|host| host.secretariat() != Some(EOTSS)).collect();
        for round in 0..3 {
            let mut time = OPENING + 30 * MINUTE + round * 3 * HOUR;
            for (number, host) in hosts.iter().enumerate() {
                let up = number % 23 != 5;
                let mut path = day.wire.path(monitor, *host);
                ping(&mut day.wire, &mut random, &mut path, time, 1, up)?;
                let (question, answer) = apps::snmp(&mut random);
                let answer = if up { answer } else { Vec::new() };
                let ports = (random.client_port(), 161);
                datagrams(&mut day.wire, &mut path, ports, time + MILLI, question, answer, MILLI)?;
                let path = day.wire.path(monitor, *host);
                let mut talk = Talk::new(&mut day.wire, path, &mut random, 443, time + 5 * MILLI);
                if up {
                    talk.connect()?;
                    talk.close(Side::Client)?;
                } else {
                    talk.unanswered(1)?;
                }
                time += 400 * MILLI;
            }
        }
        day.innocent(RuleId::ALL, [monitor.ip], "monitoring system that polls every host of the site");
    }
    Ok(())
}

/// Scans with permission: the plan exempts it.
fn declared_scanner(day: &mut Day) -> Result<()> {
    let mut random = day.random("declared scanner");
    let scanner = Host::direct(EOTSS, Site::Boston, IpAddr::V4(SCANNER_HOST), 200);
    let mut time = OPENING + 4 * HOUR;
    for last in 0..150 {
        let of = Secretariat(last % 8);
        let target = Host::routed(of, Site::Boston, IpAddr::V4(of.address(Site::Boston, 6, last)));
        for port in [22, 80, 445, 3389, 8443] {
            time += 30 * MILLI;
            let path = day.wire.path(scanner, target);
            let mut talk = Talk::new(&mut day.wire, path, &mut random, port, time);
            if random.per_mille(300) { talk.refused()? } else { talk.unanswered(0)? }
        }
    }
    let target = Host::of(EEA, Site::Boston, 3);
    for port in 1..300 {
        time += 10 * MILLI;
        let path = day.wire.path(scanner, target);
        Talk::new(&mut day.wire, path, &mut random, port, time).refused()?;
    }
    day.innocent(&SCANS, [scanner.ip], "vulnerability scanner that the plan exempts");
    Ok(())
}

/// A load balancer asks its servers every minute, on the second.
fn health_checks(day: &mut Day) -> Result<()> {
    let mut random = day.random("health checks");
    let balancer = Host::direct(EOTSS, Site::Lowell, IpAddr::V4(EOTSS.address(Site::Lowell, 0, 220)), 220);
    for number in 0..4 {
        let server = Host::of(AF, Site::Lowell, 8 + number);
        let mut time = OPENING + HOUR;
        while time < OPENING + 4 * HOUR {
            let path = day.wire.path(balancer, server);
            let mut talk = Talk::new(&mut day.wire, path, &mut random, 8080, time);
            talk.connect()?;
            talk.close(Side::Client)?;
            time += MINUTE;
        }
    }
    day.innocent(RuleId::ALL, [balancer.ip], "load balancer that checks its servers every minute");
    Ok(())
}

/// Fast downloads over parallel connections.
fn downloads(day: &mut Day) -> Result<()> {
    let mut random = day.random("downloads");
    let client = Host::of(EEA, Site::Lowell, 9);
    let server = internet_host(&mut random);
    let start = OPENING + 5 * HOUR + 7 * MINUTE;
    for _ in 0..4 {
        let path = day.wire.path(client, server);
        let how = Visit { port: 443, requests: 1, answer: 900_000, think: 0 };
        let start = start + random.between(0, 50 * MILLI);
        visit(&mut day.wire, &mut random, path, start, how)?;
    }
    day.innocent(RuleId::ALL, [client.ip, server.ip], "fast download over four connections");
    Ok(())
}

/// Three hosts in five ask one vendor for updates at a fixed interval.
fn update_fan_out(day: &mut Day) -> Result<()> {
    let mut random = day.random("update fan-out");
    let vendor = internet_host(&mut random);
    for site in Site::ALL {
        for (number, host) in population(site).iter().enumerate().filter(|(number, _)| number % 5 < 3) {
            for round in 0..5 {
                let start = OPENING + 3 * MINUTE + i64::try_from(number)? * 7 * SECOND + round * 110 * MINUTE;
                let path = day.wire.path(*host, vendor);
                let mut talk = Talk::new(&mut day.wire, path, &mut random, 80, start);
                talk.connect()?;
                apps::http_exchange(&mut talk, &mut random, "update.vendor.example", 700)?;
                talk.close(Side::Client)?;
            }
        }
    }
    day.innocent(RuleId::ALL, [vendor.ip], "update server that three hosts in five ask every 110 minutes");
    Ok(())
}

/// A program that tries a server which is gone, every two minutes, all day: no connection, so no beacon.
fn dead_server(day: &mut Day) -> Result<()> {
    let mut random = day.random("dead server");
    let client = Host::of(EOHED, Site::Boston, 13);
    let server = internet_host(&mut random);
    let mut time = OPENING + 90 * SECOND;
    while time < CLOSING {
        let path = day.wire.path(client, server);
        Talk::new(&mut day.wire, path, &mut random, 8443, time).unanswered(1)?;
        time += 2 * MINUTE;
    }
    day.innocent(RuleId::ALL, [client.ip, server.ip], "tries a server that is gone every two minutes");
    Ok(())
}

/// Out through Boston and back through Lowell: each edge sees half of every connection.
fn asymmetric_routing(day: &mut Day) -> Result<()> {
    let mut random = day.random("asymmetric routing");
    let client = untranslated_host(Site::Boston, 40);
    for _ in 0..45 {
        let server = internet_host(&mut random);
        let path = Path::untranslated(client, server).back_by_other_edge();
        let start = moment(&mut random);
        let how = Visit { port: 443, requests: 1, answer: 3000, think: 0 };
        visit(&mut day.wire, &mut random, path, start, how)?;
    }
    for number in 0..40 {
        let client = internet_host(&mut random);
        let path = Path::untranslated(client, Host::dmz(Site::Lowell, 81)).back_by_other_edge();
        let start = OPENING + 3 * HOUR + number * 20 * SECOND;
        let mut talk = Talk::new(&mut day.wire, path, &mut random, 443, start);
        talk.connect()?;
        apps::tls_exchange(&mut talk, &mut random, 500, 4000)?;
        talk.close(Side::Client)?;
    }
    let server = Host::dmz(Site::Lowell, 81);
    day.innocent(
        RuleId::ALL,
        [client.ip, server.ip],
        "out through one edge and back through the other: half flows",
    );
    Ok(())
}

/// Somebody else is flooded with our addresses as sources; the victim's answers come here.
fn backscatter(day: &mut Day) -> Result<()> {
    let mut random = day.random("backscatter");
    let victim = internet_host(&mut random);
    for number in 0..90_u32 {
        let site = if number % 2 == 0 { Site::Boston } else { Site::Lowell };
        let flags = if number % 3 == 0 { RST | ACK } else { SYN | ACK };
        let segment = TcpSegment {
            source: 80,
            destination: random.client_port(),
            sequence: if flags & RST == 0 { random.bits() } else { 0 },
            acknowledgement: random.bits(),
            flags,
            window: if flags & RST == 0 { 64_240 } else { 0 },
            mss: 1460,
            look: Look::default(),
            payload: Payload::Empty,
        };
        let packet = Packet {
            source: victim.ip,
            destination: IpAddr::V4(site.unused_public(random.octet(1, 255))),
            ttl: victim.ttl,
            dscp: 0,
            identification: random.bits(),
            body: Body::Tcp(segment),
        };
        let time = OPENING + 6 * HOUR + i64::from(number) * 700 * MILLI;
        day.wire.internet(time, site, false, packet)?;
    }
    day.innocent(
        RuleId::ALL,
        [victim.ip],
        "answers of a flooded host to addresses of ours that never called it",
    );
    Ok(())
}

/// The noise of the internet: single tries of many sources, which the edge drops.
fn background_radiation(day: &mut Day) -> Result<()> {
    let mut random = day.random("background radiation");
    for site in Site::ALL {
        for _ in 0..day.scaled(350) {
            let source = internet_host(&mut random);
            for _ in 0..=random.below(2) {
                let target =
                    Host { ip: IpAddr::V4(site.unused_public(random.octet(1, 255))), ..Host::dmz(site, 250) };
                let path = Path::untranslated(source, target).dropped();
                let port = *random.pick(&[22, 23, 80, 443, 445, 2323, 3389, 5555, 8080]);
                let start = moment(&mut random);
                Talk::new(&mut day.wire, path, &mut random, port, start).unanswered(0)?;
            }
        }
    }
    Ok(())
}

/// One address in one address space, seen in more than one place.
fn one_space_twice(day: &mut Day) -> Result<()> {
    let mut random = day.random("one space twice");
    let how = Visit { port: 443, requests: 1, answer: 1500, think: 0 };
    // A laptop of EOHHS that is taken from Boston to Lowell at noon.
    let laptop = IpAddr::V4(EOHHS.address(Site::Boston, 40, 40));
    for (site, hour) in [(Site::Boston, 1), (Site::Boston, 2), (Site::Lowell, 6), (Site::Lowell, 7)] {
        let path = day.wire.path(Host::routed(EOHHS, site, laptop), internet_host(&mut random));
        visit(&mut day.wire, &mut random, path, OPENING + hour * HOUR, how)?;
    }
    day.innocent(
        &[RuleId::OverlapAddress],
        [laptop],
        "one laptop of EOHHS, in Boston in the morning and in Lowell after noon",
    );
    // EOHED and EOLWD are one address space: a server with a leg in both networks.
    let shared = IpAddr::V4(EOHED.address(Site::Boston, 9, 9));
    for (secretariat, hour) in [(EOHED, 3), (EOLWD, 4)] {
        let path = day.wire.path(Host::routed(secretariat, Site::Boston, shared), internet_host(&mut random));
        visit(&mut day.wire, &mut random, path, OPENING + hour * HOUR, how)?;
    }
    day.innocent(
        &[RuleId::OverlapAddress],
        [shared],
        "server of EOHED and EOLWD, whose networks are one address space",
    );
    // The anycast address, in every secretariat on purpose.
    for (number, secretariat) in (0..).zip(Secretariat::all()) {
        let segment = Segment::of(secretariat, Site::Boston);
        let station = Host::direct(secretariat, Site::Boston, IpAddr::V4(ANYCAST), 253);
        segment.arp_both_ways(&mut day.wire, OPENING + 20 * SECOND + number * SECOND, station.mac, ANYCAST);
    }
    day.innocent(&[RuleId::OverlapAddress], [IpAddr::V4(ANYCAST)], "anycast address that the plan exempts");
    Ok(())
}

/// Addresses that mean something else on every link, and addresses that are only asked for.
fn local_addresses(day: &mut Day) -> Result<()> {
    let automatic = Ipv4Addr::new(169, 254, 10, 20);
    let wanted = Ipv4Addr::from(match Host::of(EOPSS, Site::Boston, 2).ip {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(_) => 0,
    });
    for (number, secretariat) in (0..).zip([EOE, EEA, MASSDOT]) {
        let segment = Segment::of(secretariat, Site::Boston);
        let mac = MacAddress([0x02, 0x00, 0x5e, 0x10, secretariat.0, 0x20]);
        let time = OPENING + 11 * MINUTE + number * MINUTE;
        segment.arp_announcement(&mut day.wire, time, mac, automatic);
        segment.arp_probe(&mut day.wire, time + SECOND, mac, wanted);
    }
    day.innocent(&[RuleId::OverlapAddress], [IpAddr::V4(automatic)], "link-local address on three VLANs");
    day.innocent(
        &[RuleId::OverlapAddress],
        [IpAddr::V4(wanted)],
        "an address of EOPSS that hosts elsewhere only probe for",
    );
    // Neighbour discovery between edge and provider has link-local sources on the internet link.
    for site in Site::ALL {
        let (ours, theirs) = (site.outside_mac(), site.provider_mac());
        for hour in 0..10 {
            for (leaving, from, to) in [(true, ours, theirs), (false, theirs, ours)] {
                let target = link_local(to);
                let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
                message.extend(target.octets());
                message.extend([1, 1]);
                message.extend(from.0);
                let packet = Packet {
                    source: IpAddr::V6(link_local(from)),
                    destination: IpAddr::V6(target),
                    ttl: 255,
                    dscp: 48,
                    identification: 0,
                    body: Body::Icmp(message.into()),
                };
                day.wire.internet(OPENING + hour * HOUR + 17 * SECOND, site, leaving, packet)?;
            }
        }
        day.innocent(
            &[RuleId::LeakPrivate, RuleId::SpoofInbound],
            [IpAddr::V6(link_local(ours)), IpAddr::V6(link_local(theirs))],
            "neighbour discovery on the internet link",
        );
    }
    Ok(())
}
